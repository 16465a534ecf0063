package late;

import javacard.framework.*;
import javacard.security.*;
import javacardx.apdu.util.APDUUtil;
import javacardx.crypto.*;
import javacardx.security.SensitiveResult;

/** Members that came with 3.0.4 and 3.0.5, and the states of APDU. */
public class LateApplet extends Applet {
    private OwnerPINx pin = (OwnerPINx) OwnerPINBuilder.buildOwnerPIN((byte) 3, (byte) 8, OwnerPINBuilder.OWNER_PIN_X);
    private OwnerPINxWithPredecrement pre = (OwnerPINxWithPredecrement) OwnerPINBuilder.buildOwnerPIN((byte) 2, (byte) 8, OwnerPINBuilder.OWNER_PIN_X_WITH_PREDECREMENT);
    private AESKey aes = (AESKey) KeyBuilder.buildKey(KeyBuilder.TYPE_AES, KeyBuilder.LENGTH_AES_128, false);
    private ECPublicKey ec = (ECPublicKey) KeyBuilder.buildKey(KeyBuilder.TYPE_EC_FP_PUBLIC, KeyBuilder.LENGTH_EC_FP_256, false);
    private Cipher ctr = Cipher.getInstance(Cipher.ALG_AES_CTR, false);
    private AEADCipher gcm = (AEADCipher) Cipher.getInstance(AEADCipher.ALG_AES_GCM, false);
    private AEADCipher ccm = (AEADCipher) Cipher.getInstance(AEADCipher.CIPHER_AES_CCM, Cipher.PAD_NULL, false);
    private InitializedMessageDigest digest = MessageDigest.getInitializedMessageDigestInstance(MessageDigest.ALG_SHA_256, false);
    private Object kept, again;
    private byte[] out = new byte[256];
    private static byte[] held;

    public static void install(byte[] b, short off, byte len) {
        new LateApplet().register();
    }

    private static byte yes(boolean v) { return v ? (byte) 1 : 0; }

    public void process(APDU apdu) {
        byte[] b = apdu.getBuffer();
        if (selectingApplet()) return;
        short p = Util.getShort(b, (short) 2), n = 0;
        if (b[1] == 0x20) { states(apdu, b, p); return; }
        short got = apdu.setIncomingAndReceive();
        try {
            switch (b[1]) {
                case 1: n = pins(b, p, got); break;
                case 2: n = arrays(b, p); break;
                case 3: n = globals(b, p); break;
                case 4: aes.setKey(b, (short) 5); break;
                case 5: n = counter(b, p, got); break;
                case 6: n = authenticated(b, got); break;
                case 7: n = oneShot(b, p, got); break;
                case 8: n = resumed(b, got); break;
                case 9: n = domain(b, p, got); break;
                case 10: {
                    byte cla = (byte) p;
                    b[0] = APDUUtil.getCLAChannel(cla);
                    b[1] = (byte) (yes(APDUUtil.isSecureMessagingCLA(cla)) | yes(APDUUtil.isCommandChainingCLA(cla)) << 1
                        | yes(APDUUtil.isISOInterindustryCLA(cla)) << 2 | yes(APDUUtil.isValidCLA(cla)) << 3);
                    n = 2;
                    break;
                }
                case 11: n = results(b, p); break;
                case 12: absent(p); break;
                case 13:
                    if (p == 0) held = new byte[5];
                    b[0] = yes(held != null);
                    n = 1;
                    break;
                default: ISOException.throwIt(ISO7816.SW_INS_NOT_SUPPORTED);
            }
        } catch (CardRuntimeException e) {
            if (e instanceof ISOException) throw e;
            b[0] = (byte) (e instanceof PINException ? 1 : e instanceof SystemException ? 2 : e instanceof CryptoException ? 3 : 4);
            ISOException.throwIt((short) (0x6A00 | b[0] << 4 | e.getReason()));
        } catch (SecurityException e) {
            ISOException.throwIt((short) 0x6AF1);
        } catch (NullPointerException e) {
            ISOException.throwIt((short) 0x6AF2);
        }
        Util.arrayCopyNonAtomic(b, (short) 0, out, (short) 0, n);
        apdu.setOutgoing();
        apdu.setOutgoingLength(n);
        apdu.sendBytesLong(out, (short) 0, n);
    }

    private short pins(byte[] b, short p, short got) {
        OwnerPINx x = pin;
        if ((p & 0x100) != 0) x = pre;
        byte r = 0;
        switch ((byte) p) {
            case 0: x.update(b, (short) 5, (byte) got); break;
            case 1: r = yes(x.check(b, (short) 5, (byte) got)); break;
            case 2: x.setTryLimit(b[5]); break;
            case 3: x.setTriesRemaining(b[5]); break;
            case 4: r = pre.decrementTriesRemaining(); break;
            case 5: x.reset(); break;
            case 6: r = yes(OwnerPINBuilder.buildOwnerPIN((byte) 1, (byte) 1, OwnerPINBuilder.OWNER_PIN) instanceof OwnerPIN); break;
            case 7: OwnerPINBuilder.buildOwnerPIN((byte) 1, (byte) 1, (byte) 9); break;
            case 8: JCSystem.beginTransaction(); x.setTriesRemaining((byte) 1); JCSystem.abortTransaction(); break;
            default: break;
        }
        b[0] = r;
        b[1] = x.getTryLimit();
        b[2] = x.getTriesRemaining();
        b[3] = yes(x.isValidated());
        return 4;
    }

    private short arrays(byte[] b, short p) {
        if (p == 1) { kept = SensitiveArrays.makeIntegritySensitiveArray(JCSystem.ARRAY_TYPE_SHORT, JCSystem.MEMORY_TYPE_PERSISTENT, (short) 3); ((short[]) kept)[1] = 7; }
        if (p == 2) { SensitiveArrays.makeIntegritySensitiveArray((byte) 9, JCSystem.MEMORY_TYPE_PERSISTENT, (short) 3); }
        if (p == 3) { SensitiveArrays.assertIntegrity(b); }
        if (p == 4) { SensitiveArrays.assertIntegrity(null); }
        if (p == 5) { SensitiveArrays.clearArray(b); }
        Object t = SensitiveArrays.makeIntegritySensitiveArray(JCSystem.ARRAY_TYPE_BYTE, JCSystem.MEMORY_TYPE_TRANSIENT_DESELECT, (short) 4);
        SensitiveArrays.assertIntegrity(kept);
        b[0] = yes(SensitiveArrays.isIntegritySensitiveArraysSupported());
        b[1] = yes(SensitiveArrays.isIntegritySensitive(kept));
        b[2] = yes(SensitiveArrays.isIntegritySensitive(out));
        b[3] = JCSystem.isTransient(t);
        b[4] = yes(t instanceof byte[]);
        b[5] = (byte) ((short[]) kept)[1];
        if (p == 6) { b[6] = (byte) SensitiveArrays.clearArray(kept); b[5] = (byte) ((short[]) kept)[1]; return 7; }
        return 6;
    }

    private short globals(byte[] b, short p) {
        if (p == 5) { JCSystem.makeGlobalArray((byte) 7, (short) 1); }
        if (p == 6) { JCSystem.makeGlobalArray(JCSystem.ARRAY_TYPE_BYTE, (short) 30000); }
        byte[] g = (byte[]) JCSystem.makeGlobalArray(JCSystem.ARRAY_TYPE_BYTE, (short) 10);
        Object[] o = (Object[]) JCSystem.makeGlobalArray(JCSystem.ARRAY_TYPE_OBJECT, (short) 2);
        if (p == 7) { again = g; }
        if (p == 8) { o[0] = g; }
        o[0] = this;
        g[3] = 5;
        b[0] = (byte) g.length;
        b[1] = (byte) (g[3] + g[0]);
        b[2] = JCSystem.isTransient(g);
        b[3] = yes(o[0] == this && o[1] == null);
        return 4;
    }

    private short counter(byte[] b, short p, short got) {
        ctr.init(aes, (p & 0x100) == 0 ? Cipher.MODE_ENCRYPT : Cipher.MODE_DECRYPT, b, (short) 5, (short) 16);
        short first = (short) (p & 0xFF), left = (short) (got - 16 - first);
        short n = ctr.update(b, (short) 21, first, out, (short) 0);
        n += ctr.doFinal(b, (short) (21 + first), left, out, n);
        Util.arrayCopyNonAtomic(out, (short) 0, b, (short) 0, n);
        return n;
    }

    // mode, tag size (0: GCM), first part, length of nonce, of AAD; nonce, AAD, tag when decrypting, text
    private short authenticated(byte[] b, short got) {
        byte mode = b[5];
        short tag = b[6], first = b[7], nonce = b[8], aad = b[9], at = (short) (10 + nonce + aad), size = tag == 0 ? (short) 16 : tag;
        AEADCipher c = gcm;
        if (tag != 0) c = ccm;
        if (mode == Cipher.MODE_DECRYPT) { Util.arrayCopyNonAtomic(b, at, out, (short) 200, size); at += size; }
        short text = (short) (5 + got - at);
        if (tag == 0) c.init(aes, mode, b, (short) 10, nonce);
        else c.init(aes, mode, b, (short) 10, nonce, aad, text, tag);
        if (aad > 1) {
            c.updateAAD(b, (short) (10 + nonce), (short) 1);
            c.updateAAD(b, (short) (11 + nonce), (short) (aad - 1));
        }
        short n = 0;
        if (first > 0) n = c.update(b, at, first, out, (short) 0);
        n += c.doFinal(b, (short) (at + first), (short) (text - first), out, n);
        if (mode == Cipher.MODE_ENCRYPT) n += c.retrieveTag(out, n, size);
        else out[n++] = yes(c.verifyTag(out, (short) 200, size, size));
        Util.arrayCopyNonAtomic(out, (short) 0, b, (short) 0, n);
        return n;
    }

    private short oneShot(byte[] b, short p, short got) {
        short n = 0;
        switch (p) {
            case 0: {
                MessageDigest.OneShot d = MessageDigest.OneShot.open(MessageDigest.ALG_SHA_256);
                n = d.doFinal(b, (short) 5, got, out, (short) 0);
                d.close();
                break;
            }
            case 1: {
                Cipher.OneShot c = Cipher.OneShot.open(Cipher.CIPHER_AES_ECB, Cipher.PAD_NOPAD);
                c.init(aes, Cipher.MODE_ENCRYPT);
                n = c.doFinal(b, (short) 5, got, out, (short) 0);
                c.close();
                break;
            }
            case 2: {
                Signature.OneShot s = Signature.OneShot.open(MessageDigest.ALG_NULL, Signature.SIG_CIPHER_AES_CMAC128, Cipher.PAD_NULL);
                s.init(aes, Signature.MODE_SIGN);
                n = s.sign(b, (short) 5, got, out, (short) 0);
                s.close();
                break;
            }
            case 3: {
                RandomData.OneShot r = RandomData.OneShot.open(RandomData.ALG_TRNG);
                r.nextBytes(out, (short) 0, (short) 8);
                r.close();
                n = 0;
                break;
            }
            case 4: MessageDigest.OneShot.open(MessageDigest.ALG_SHA).update(b, (short) 0, (short) 1); break;
            case 5: again = MessageDigest.OneShot.open(MessageDigest.ALG_SHA); break;
            case 6: MessageDigest.OneShot.open((byte) 99); break;
            case 7: for (short i = 0; i < 1000; i++) MessageDigest.OneShot.open(MessageDigest.ALG_SHA).close(); break;
            case 8: for (short i = 0; i < 1000; i++) MessageDigest.OneShot.open(MessageDigest.ALG_SHA); break;
            case 9: Cipher.OneShot.open(AEADCipher.CIPHER_AES_GCM, Cipher.PAD_NULL); break;
            case 10: {
                InitializedMessageDigest.OneShot d = InitializedMessageDigest.OneShot.open(MessageDigest.ALG_SHA_256);
                d.setInitialDigest(b, (short) 5, (short) 32, b, (short) 37, (short) 2);
                n = d.doFinal(b, (short) 39, (short) (got - 34), out, (short) 0);
                d.close();
                break;
            }
            default: break;
        }
        Util.arrayCopyNonAtomic(out, (short) 0, b, (short) 0, n);
        return n;
    }

    private short resumed(byte[] b, short got) {
        digest.setInitialDigest(b, (short) 5, (short) 32, b, (short) 37, (short) 2);
        short n = digest.doFinal(b, (short) 39, (short) (got - 34), out, (short) 0);
        Util.arrayCopyNonAtomic(out, (short) 0, b, (short) 0, n);
        return n;
    }

    private short domain(byte[] b, short p, short got) {
        switch (p) {
            case 0: ec.setFieldFP(b, (short) 5, got); return 0;
            case 1: ec.setA(b, (short) 5, got); return 0;
            case 2: ec.setB(b, (short) 5, got); return 0;
            case 3: ec.setG(b, (short) 5, got); return 0;
            case 4: ec.setR(b, (short) 5, got); return 0;
            case 5: {
                ECPrivateKey k = (ECPrivateKey) KeyBuilder.buildKeyWithSharedDomain(KeyBuilder.ALG_TYPE_EC_FP_PRIVATE, JCSystem.MEMORY_TYPE_TRANSIENT_RESET, ec, false);
                b[0] = k.getType();
                return (short) (1 + k.getR(b, (short) 1));
            }
            case 6: KeyBuilder.buildKeyWithSharedDomain(KeyBuilder.ALG_TYPE_DH_PRIVATE, JCSystem.MEMORY_TYPE_PERSISTENT, ec, false); return 0;
            case 7: KeyBuilder.buildKeyWithSharedDomain(KeyBuilder.ALG_TYPE_EC_FP_PRIVATE, JCSystem.MEMORY_TYPE_PERSISTENT, aes, false); return 0;
            default: return 0;
        }
    }

    private short results(byte[] b, short p) {
        pin.update(b, (short) 0, (byte) 4);
        boolean v = pin.check(b, (short) 0, (byte) 4);
        switch (p) {
            case 0: SensitiveResult.assertTrue(); break;
            case 1: SensitiveResult.assertFalse(); break;
            case 2: pin.getTriesRemaining(); SensitiveResult.assertPositive(); SensitiveResult.assertEquals((short) 3); SensitiveResult.assertLessThan((short) 4); SensitiveResult.assertGreaterThan((short) 2); break;
            case 3: pin.getTriesRemaining(); SensitiveResult.assertZero(); break;
            case 4: pin.getTriesRemaining(); SensitiveResult.assertNegative(); break;
            case 5: SensitiveResult.reset(); SensitiveResult.assertTrue(); break;
            case 6: try { pin.check(b, (short) 0, (byte) 4); pin.check(null, (short) 0, (byte) 4); } catch (NullPointerException e) { SensitiveResult.assertTrue(); } break;
            case 7: { AID a = JCSystem.getAID(); SensitiveResult.assertEquals(a); break; }
            case 8: { JCSystem.getAID(); SensitiveResult.assertEquals(this); break; }
            default: break;
        }
        return 0;
    }

    // What there is not: each must be refused by its own reason.
    private void absent(short p) {
        switch (p) {
            case 0: KeyBuilder.buildKey(KeyBuilder.TYPE_AES, KeyBuilder.LENGTH_AES_128, true); break;
            case 1: KeyBuilder.buildKey(KeyBuilder.TYPE_DSA_PUBLIC, KeyBuilder.LENGTH_DSA_1024, false); break;
            case 2: KeyBuilder.buildKey(KeyBuilder.TYPE_KOREAN_SEED, KeyBuilder.LENGTH_KOREAN_SEED_128, false); break;
            case 3: KeyBuilder.buildKey(KeyBuilder.ALG_TYPE_DH_PUBLIC, JCSystem.MEMORY_TYPE_PERSISTENT, KeyBuilder.LENGTH_DH_2048, false); break;
            case 4: KeyBuilder.buildKey(KeyBuilder.TYPE_EC_F2M_PUBLIC, KeyBuilder.LENGTH_EC_F2M_163, false); break;
            case 5: Signature.getInstance(Signature.ALG_DSA_SHA, false); break;
            case 6: Signature.getInstance(Signature.ALG_RSA_SHA_ISO9796_MR, false); break;
            case 7: Signature.getInstance(Signature.ALG_RSA_RIPEMD160_PKCS1, false); break;
            case 8: Cipher.getInstance(Cipher.ALG_KOREAN_SEED_ECB_NOPAD, false); break;
            case 9: Cipher.getInstance(Cipher.ALG_RSA_ISO14888, false); break;
            case 10: MessageDigest.getInstance(MessageDigest.ALG_RIPEMD160, false); break;
            case 11: KeyAgreement.getInstance(KeyAgreement.ALG_EC_PACE_GM, false); break;
            case 12: KeyAgreement.getInstance(KeyAgreement.ALG_DH_PLAIN, false); break;
            case 13: Checksum.getInstance((byte) 9, false); break;
            case 14: RandomData.getInstance((byte) 99); break;
            case 15: new KeyPair(KeyPair.ALG_DSA, KeyBuilder.LENGTH_DSA_1024).genKeyPair(); break;
            case 16: ec.setFieldF2M((short) 9); break;
            case 17: gcm.init(aes, Cipher.MODE_ENCRYPT, out, (short) 0, (short) 12, (short) 0, (short) 0, (short) 16); break;
            case 18: ccm.init(aes, Cipher.MODE_ENCRYPT); break;
            case 19: ctr.init(aes, Cipher.MODE_ENCRYPT, out, (short) 0, (short) 15); break;
            case 20: gcm.init(aes, Cipher.MODE_ENCRYPT); gcm.retrieveTag(out, (short) 0, (short) 16); break;
            case 21: ccm.init(aes, Cipher.MODE_ENCRYPT, out, (short) 0, (short) 6, (short) 0, (short) 0, (short) 16); break;
            case 22: digest.setInitialDigest(out, (short) 0, (short) 32, out, (short) 100, (short) 1); break;
            default: ISOException.throwIt((short) 0x6AFF);
        }
    }

    // The states of APDU, and what each of its methods says out of turn.
    private void states(APDU apdu, byte[] b, short p) {
        try {
            switch (p) {
                case 0: { // what setOutgoing says
                    short le = apdu.setOutgoing();
                    apdu.setOutgoingLength((short) 4);
                    Util.setShort(b, (short) 0, le);
                    b[2] = apdu.getProtocol();
                    b[3] = (byte) APDU.getInBlockSize();
                    apdu.sendBytes((short) 0, (short) 4);
                    return;
                }
                case 1: { short n = apdu.setIncomingAndReceive(); b[0] = (byte) n; Util.setShort(b, (short) 1, APDU.getOutBlockSize()); apdu.setOutgoingAndSend((short) 0, (short) 3); return; }
                case 2: apdu.setIncomingAndReceive(); apdu.setIncomingAndReceive(); return;
                case 3: apdu.setOutgoing(); apdu.setIncomingAndReceive(); return;
                case 4: apdu.setOutgoing(); apdu.setOutgoing(); return;
                case 5: apdu.setOutgoingLength((short) 1); return;
                case 6: apdu.setOutgoing(); apdu.sendBytes((short) 0, (short) 1); return;
                case 7: apdu.setOutgoing(); apdu.setOutgoingLength((short) 257); return;
                case 8: apdu.setOutgoing(); apdu.setOutgoingLength((short) 2); apdu.sendBytes((short) 0, (short) 3); return;
                case 9: apdu.setOutgoing(); apdu.setOutgoingLength((short) 2); apdu.sendBytes((short) 300, (short) 1); return;
                case 10: apdu.setOutgoingAndSend((short) 0, (short) 1); apdu.sendBytes((short) 0, (short) 0); return;
                case 11: apdu.setOutgoingNoChaining(); APDU.waitExtension(); return;
                case 12: apdu.setOutgoingNoChaining(); apdu.setOutgoingLength((short) 253); apdu.sendBytesLong(out, (short) 0, (short) 253); return;
                case 13: apdu.receiveBytes((short) 5); return;
                case 14: apdu.getIncomingLength(); return;
                case 15: apdu.getOffsetCdata(); return;
                case 16: apdu.setOutgoing(); apdu.setOutgoingLength((short) -1); return;
                case 17: { apdu.setIncomingAndReceive(); short n = (short) (b[5] & 0xFF); apdu.setOutgoing(); apdu.setOutgoingLength(n); apdu.sendBytesLong(out, (short) 0, n); return; }
                case 18: apdu.setOutgoing(); apdu.setOutgoingLength((short) 100); apdu.sendBytesLong(out, (short) 0, (short) 100); return;
                default: return;
            }
        } catch (APDUException e) {
            ISOException.throwIt((short) (0x6A00 | e.getReason()));
        }
    }
}
