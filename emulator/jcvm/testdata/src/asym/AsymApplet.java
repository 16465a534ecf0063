package asym;

import javacard.framework.*;
import javacard.security.*;
import javacardx.apdu.ExtendedLength;
import javacardx.crypto.Cipher;

/** Asymmetric cryptography, one call of the API per instruction. Exceptions become status words. */
public class AsymApplet extends Applet implements ExtendedLength {
    private byte[] in = JCSystem.makeTransientByteArray((short) 700, JCSystem.CLEAR_ON_RESET);
    private byte[] out = JCSystem.makeTransientByteArray((short) 700, JCSystem.CLEAR_ON_RESET);
    private Key[] keys = new Key[8];
    private KeyPair pair;
    private Signature signature;
    private Cipher cipher;
    private KeyAgreement agreement;

    public static void install(byte[] b, short off, byte len) {
        new AsymApplet().register(b, (short) (off + 1), b[off]);
    }

    private void set(Key k, byte what, short len) {
        switch (what) {
            case 0x10: if (k instanceof RSAPublicKey) ((RSAPublicKey) k).setModulus(in, (short) 0, len); else ((RSAPrivateKey) k).setModulus(in, (short) 0, len); break;
            case 0x11: if (k instanceof RSAPublicKey) ((RSAPublicKey) k).setExponent(in, (short) 0, len); else ((RSAPrivateKey) k).setExponent(in, (short) 0, len); break;
            case 0x20: ((RSAPrivateCrtKey) k).setP(in, (short) 0, len); break;
            case 0x21: ((RSAPrivateCrtKey) k).setQ(in, (short) 0, len); break;
            case 0x22: ((RSAPrivateCrtKey) k).setPQ(in, (short) 0, len); break;
            case 0x23: ((RSAPrivateCrtKey) k).setDP1(in, (short) 0, len); break;
            case 0x24: ((RSAPrivateCrtKey) k).setDQ1(in, (short) 0, len); break;
            case 0x30: ((ECKey) k).setFieldFP(in, (short) 0, len); break;
            case 0x31: ((ECKey) k).setA(in, (short) 0, len); break;
            case 0x32: ((ECKey) k).setB(in, (short) 0, len); break;
            case 0x33: ((ECKey) k).setG(in, (short) 0, len); break;
            case 0x34: ((ECKey) k).setR(in, (short) 0, len); break;
            case 0x35: ((ECKey) k).setK(Util.getShort(in, (short) 0)); break;
            case 0x36: ((ECPublicKey) k).setW(in, (short) 0, len); break;
            case 0x37: ((ECPrivateKey) k).setS(in, (short) 0, len); break;
            case 0x38: ((ECKey) k).setFieldF2M((short) 3); break;
            default: ISOException.throwIt(ISO7816.SW_WRONG_P1P2);
        }
    }

    private short get(Key k, byte what) {
        switch (what) {
            case 0x10: if (k instanceof RSAPublicKey) return ((RSAPublicKey) k).getModulus(out, (short) 0); return ((RSAPrivateKey) k).getModulus(out, (short) 0);
            case 0x11: if (k instanceof RSAPublicKey) return ((RSAPublicKey) k).getExponent(out, (short) 0); return ((RSAPrivateKey) k).getExponent(out, (short) 0);
            case 0x20: return ((RSAPrivateCrtKey) k).getP(out, (short) 0);
            case 0x21: return ((RSAPrivateCrtKey) k).getQ(out, (short) 0);
            case 0x22: return ((RSAPrivateCrtKey) k).getPQ(out, (short) 0);
            case 0x23: return ((RSAPrivateCrtKey) k).getDP1(out, (short) 0);
            case 0x24: return ((RSAPrivateCrtKey) k).getDQ1(out, (short) 0);
            case 0x30: return ((ECKey) k).getField(out, (short) 0);
            case 0x31: return ((ECKey) k).getA(out, (short) 0);
            case 0x32: return ((ECKey) k).getB(out, (short) 0);
            case 0x33: return ((ECKey) k).getG(out, (short) 0);
            case 0x34: return ((ECKey) k).getR(out, (short) 0);
            case 0x35: Util.setShort(out, (short) 0, ((ECKey) k).getK()); return 2;
            case 0x36: return ((ECPublicKey) k).getW(out, (short) 0);
            case 0x37: return ((ECPrivateKey) k).getS(out, (short) 0);
        }
        return 0;
    }

    private short run(byte ins, byte p1, byte p2, short len) {
        short at;
        switch (ins) {
            case 0x01: keys[p1] = KeyBuilder.buildKey(in[0], Util.getShort(in, (short) 1), false); return 0;
            case 0x02: keys[p1] = KeyBuilder.buildKey(in[0], in[1], Util.getShort(in, (short) 2), false); return 0;
            case 0x03: set(keys[p1], p2, len); return 0;
            case 0x04: return get(keys[p1], p2);
            case 0x05: out[0] = 0; if (keys[p1].isInitialized()) out[0] = 1; out[1] = keys[p1].getType(); Util.setShort(out, (short) 2, keys[p1].getSize()); return 4;
            case 0x06: keys[p1].clearKey(); return 0;
            case 0x07: ((ECKey) keys[p1]).copyDomainParametersFrom((ECKey) keys[p2]); return 0;
            case 0x08: pair = new KeyPair(in[0], Util.getShort(in, (short) 1)); keys[p1] = pair.getPublic(); keys[p2] = pair.getPrivate(); return 0;
            case 0x09: pair = new KeyPair((PublicKey) keys[p1], (PrivateKey) keys[p2]); return 0;
            case 0x0A: pair.genKeyPair(); return 0;
            case 0x10: if (len > 0) signature = Signature.getInstance(in[0], in[1], in[2], false); else signature = Signature.getInstance(p1, false); return 0;
            case 0x11: signature.init(keys[p1], p2); return 0;
            case 0x12: signature.update(in, (short) 0, len); return 0;
            case 0x13: return signature.sign(in, (short) 0, len, out, (short) 0);
            case 0x14: at = (short) (2 + Util.getShort(in, (short) 0)); out[0] = 0; if (signature.verify(in, at, (short) (len - at), in, (short) 2, (short) (at - 2))) out[0] = 1; return 1;
            case 0x15: return signature.signPreComputedHash(in, (short) 0, len, out, (short) 0);
            case 0x16: at = (short) (2 + Util.getShort(in, (short) 0)); out[0] = 0; if (signature.verifyPreComputedHash(in, at, (short) (len - at), in, (short) 2, (short) (at - 2))) out[0] = 1; return 1;
            case 0x17: out[0] = signature.getAlgorithm(); out[1] = signature.getMessageDigestAlgorithm(); out[2] = signature.getCipherAlgorithm(); out[3] = signature.getPaddingAlgorithm(); return 4;
            case 0x18: Util.setShort(out, (short) 0, signature.getLength()); return 2;
            case 0x19: signature.init(keys[p1], p2, in, (short) 0, len); return 0;
            case 0x20: if (len > 0) cipher = Cipher.getInstance(in[0], in[1], false); else cipher = Cipher.getInstance(p1, false); return 0;
            case 0x21: cipher.init(keys[p1], p2); return 0;
            case 0x22: return cipher.update(in, (short) 0, len, out, (short) 0);
            case 0x23: return cipher.doFinal(in, (short) 0, len, out, (short) 0);
            case 0x24: out[0] = cipher.getAlgorithm(); out[1] = cipher.getCipherAlgorithm(); out[2] = cipher.getPaddingAlgorithm(); return 3;
            case 0x30: agreement = KeyAgreement.getInstance(p1, false); return 0;
            case 0x31: agreement.init((PrivateKey) keys[p1]); return 0;
            case 0x32: return agreement.generateSecret(in, (short) 0, len, out, (short) 0);
            case 0x33: out[0] = agreement.getAlgorithm(); return 1;
            case 0x40: JCSystem.beginTransaction(); set(keys[p1], p2, len); JCSystem.abortTransaction(); return 0;
            case 0x41: JCSystem.requestObjectDeletion(); return 0;
            case 0x42: return p2;
        }
        ISOException.throwIt(ISO7816.SW_INS_NOT_SUPPORTED);
        return 0;
    }

    public void process(APDU apdu) {
        if (selectingApplet()) return;
        byte[] b = apdu.getBuffer();
        byte ins = b[1], p1 = b[2], p2 = b[3];
        short got = apdu.setIncomingAndReceive(), off = apdu.getOffsetCdata(), len = 0, n = 0;
        while (got > 0) {
            Util.arrayCopyNonAtomic(b, off, in, len, got);
            len += got;
            off = 0;
            got = apdu.receiveBytes((short) 0);
        }
        try {
            n = run(ins, p1, p2, len);
        } catch (CryptoException e) {
            ISOException.throwIt((short) (0x6600 + e.getReason()));
        } catch (TransactionException e) {
            ISOException.throwIt((short) (0x6700 + e.getReason()));
        } catch (ArrayIndexOutOfBoundsException e) {
            ISOException.throwIt((short) 0x6401);
        } catch (NullPointerException e) {
            ISOException.throwIt((short) 0x6402);
        }
        if (n == 0) return;
        apdu.setOutgoing();
        apdu.setOutgoingLength(n);
        apdu.sendBytesLong(out, (short) 0, n);
    }
}
