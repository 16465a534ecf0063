package more;

import javacard.framework.*;
import javacard.security.*;
import javacardx.apdu.ExtendedLength;
import javacardx.crypto.Cipher;
import org.globalplatform.GPRegistryEntry;
import org.globalplatform.GPSystem;
import org.globalplatform.SecureChannel;

/** The rest of the API, and commands of extended length. */
public class MoreApplet extends Applet implements ExtendedLength, MultiSelectable {
    private byte[] store = new byte[600];
    private byte[] big = JCSystem.makeTransientByteArray((short) 600, JCSystem.CLEAR_ON_RESET);
    private short[] shorts = JCSystem.makeTransientShortArray((short) 3, JCSystem.CLEAR_ON_DESELECT);
    private boolean[] flags = JCSystem.makeTransientBooleanArray((short) 3, JCSystem.CLEAR_ON_RESET);
    private short deselected;

    static class MyPIN extends OwnerPIN {
        MyPIN() { super((byte) 2, (byte) 4); }
        short flag() { short r = 0; if (getValidatedFlag()) r = 1; setValidatedFlag(true); if (isValidated()) r += 2; return r; }
    }

    private MyPIN pin = new MyPIN();

    public static void install(byte[] b, short off, byte len) { new MoreApplet().register(b, (short) (off + 1), b[off]); }

    public boolean select(boolean active) { return true; }
    public void deselect(boolean active) { }
    public void deselect() { super.deselect(); deselected++; }
    public boolean select() { return super.select(); }
    public Shareable getShareableInterfaceObject(AID client, byte p) { return super.getShareableInterfaceObject(client, p); }

    private static byte yes(boolean b) {
        if (b) return 1;
        return 0;
    }

    static void thrower(short n) throws Exception {
        switch (n) {
            case 0: throw new ArithmeticException();
            case 1: throw new ArrayIndexOutOfBoundsException();
            case 2: throw new ArrayStoreException();
            case 3: throw new ClassCastException();
            case 4: throw new Exception();
            case 5: throw new IndexOutOfBoundsException();
            case 6: throw new NegativeArraySizeException();
            case 7: throw new SecurityException();
            case 8: throw new APDUException((short) 8);
            case 9: APDUException.throwIt((short) 9);
            case 10: throw new CardException((short) 10);
            case 11: CardException.throwIt((short) 11);
            case 12: throw new CardRuntimeException((short) 12);
            case 13: CardRuntimeException.throwIt((short) 13);
            case 14: throw new ISOException((short) 14);
            case 15: throw new PINException((short) 15);
            case 16: PINException.throwIt((short) 16);
            case 17: throw new SystemException((short) 17);
            case 18: SystemException.throwIt((short) 18);
            case 19: throw new TransactionException((short) 19);
            case 20: TransactionException.throwIt((short) 20);
            case 21: throw new UserException();
            case 22: throw new UserException((short) 22);
            case 23: throw new CryptoException((short) 23);
            case 24: CryptoException.throwIt((short) 24);
            case 25: { CardException e = new CardException((short) 1); e.setReason((short) 25); throw e; }
            case 26: { ISOException e = new ISOException((short) 1); e.setReason((short) 26); throw e; }
        }
    }

    private short caught(short n) {
        try {
            thrower(n);
        } catch (CardException e) {
            return e.getReason();
        } catch (CardRuntimeException e) {
            return e.getReason();
        } catch (ArithmeticException e) {
            return 0x100;
        } catch (IndexOutOfBoundsException e) {
            return 0x101;
        } catch (RuntimeException e) {
            return 0x102;
        } catch (Exception e) {
            return 0x103;
        }
        return -1;
    }

    private short aids(byte[] b) {
        byte[] raw = {(byte) 0xA0, 0, 0, 0, 1, 2, 3};
        AID x = new AID(raw, (short) 0, (byte) 7), y = new AID(raw, (short) 0, (byte) 6);
        b[0] = yes(x.equals(y));
        b[1] = yes(x.equals((Object) new AID(raw, (short) 0, (byte) 7)));
        b[2] = yes(x.equals(raw, (short) 0, (byte) 7));
        b[3] = yes(x.equals(null));
        b[4] = yes(x.RIDEquals(y));
        b[5] = yes(x.partialEquals(raw, (short) 0, (byte) 6));
        b[6] = yes(y.partialEquals(raw, (short) 0, (byte) 7));
        b[7] = x.getPartialBytes((short) 5, b, (short) 10, (byte) 0);
        b[8] = y.getPartialBytes((short) 1, b, (short) 12, (byte) 2);
        b[9] = yes(JCSystem.isAppletActive(JCSystem.getAID()));
        return 14;
    }

    private short system(byte[] b) {
        b[0] = JCSystem.isTransient(store);
        b[1] = JCSystem.isTransient(big);
        b[2] = JCSystem.isTransient(shorts);
        b[3] = JCSystem.getTransactionDepth();
        JCSystem.beginTransaction();
        b[4] = JCSystem.getTransactionDepth();
        Util.arrayFill(store, (short) 0, (short) 10, (byte) 7);
        Util.setShort(b, (short) 5, (short) (JCSystem.getMaxCommitCapacity() - JCSystem.getUnusedCommitCapacity()));
        JCSystem.abortTransaction();
        b[7] = store[9];
        b[8] = JCSystem.getAssignedChannel();
        b[9] = yes(JCSystem.isObjectDeletionSupported());
        Util.setShort(b, (short) 10, JCSystem.getVersion());
        shorts[1] = (short) 0x8001;
        flags[2] = true;
        b[12] = (byte) (shorts[1] >> 8);
        b[13] = yes(flags[2]);
        short[] m = new short[3];
        JCSystem.getAvailableMemory(m, (short) 1, JCSystem.MEMORY_TYPE_PERSISTENT);
        b[14] = yes(m[0] == 0 && (m[1] != 0 || m[2] != 0));
        Util.setShort(b, (short) 15, Util.makeShort((byte) 0x80, (byte) 0x90));
        return 17;
    }

    private short keys(byte[] b) {
        AESKey aes = (AESKey) KeyBuilder.buildKey(KeyBuilder.TYPE_AES_TRANSIENT_DESELECT, (short) 192, false);
        DESKey des = (DESKey) KeyBuilder.buildKey(KeyBuilder.TYPE_DES_TRANSIENT_RESET, (short) 64, false);
        HMACKey hmac = (HMACKey) KeyBuilder.buildKey(KeyBuilder.TYPE_HMAC, (short) 64, false);
        Key other = KeyBuilder.buildKey(KeyBuilder.ALG_TYPE_AES, JCSystem.MEMORY_TYPE_TRANSIENT_RESET, (short) 128, false);
        b[0] = yes(aes.isInitialized());
        aes.setKey(b, (short) 0);
        b[0] = 0;
        b[1] = yes(aes.isInitialized());
        b[2] = (byte) (aes.getSize() >> 3);
        b[3] = aes.getType();
        b[4] = aes.getKey(big, (short) 0);
        aes.clearKey();
        b[5] = yes(aes.isInitialized());
        des.setKey(b, (short) 0);
        b[6] = des.getKey(big, (short) 0);
        b[7] = des.getType();
        hmac.setKey(b, (short) 0, (short) 5);
        b[8] = hmac.getKey(big, (short) 0);
        b[9] = other.getType();
        b[10] = (byte) (other.getSize() >> 3);
        return 11;
    }

    private short crypto(byte[] b, short len) {
        HMACKey key = (HMACKey) KeyBuilder.buildKey(KeyBuilder.TYPE_HMAC_TRANSIENT_RESET, (short) 64, false);
        key.setKey(b, (short) 5, (short) 4);
        Signature mac = Signature.getInstance(Signature.ALG_HMAC_SHA_256, false);
        mac.init(key, Signature.MODE_SIGN);
        mac.update(b, (short) 9, (short) 3);
        short n = mac.sign(b, (short) 12, (short) (len - 7), big, (short) 0);
        mac.init(key, Signature.MODE_VERIFY);
        mac.update(b, (short) 9, (short) 3);
        big[n] = yes(mac.verify(b, (short) 12, (short) (len - 7), big, (short) 0, n));
        big[0] ^= 1;
        mac.update(b, (short) 9, (short) 3);
        big[(short) (n + 1)] = yes(mac.verify(b, (short) 12, (short) (len - 7), big, (short) 0, n));
        big[0] ^= 1;
        big[(short) (n + 2)] = mac.getAlgorithm();
        big[(short) (n + 3)] = (byte) mac.getLength();
        n += 4;
        AESKey aes = (AESKey) KeyBuilder.buildKey(KeyBuilder.TYPE_AES, (short) 128, false);
        aes.setKey(b, (short) 5);
        Signature cmac = Signature.getInstance(Signature.ALG_AES_CMAC_128, false);
        cmac.init(aes, Signature.MODE_SIGN);
        n += cmac.sign(b, (short) 5, len, big, n);
        Cipher c = Cipher.getInstance(Cipher.CIPHER_AES_CBC, Cipher.PAD_PKCS5, false);
        c.init(aes, Cipher.MODE_ENCRYPT);
        n += c.doFinal(b, (short) 5, (short) 5, big, n);
        big[n++] = c.getAlgorithm();
        big[n++] = c.getCipherAlgorithm();
        big[n++] = c.getPaddingAlgorithm();
        Checksum crc = Checksum.getInstance(Checksum.ALG_ISO3309_CRC32, false);
        crc.update(b, (short) 5, (short) 1);
        n += crc.doFinal(b, (short) 6, (short) (len - 1), big, n);
        big[n++] = crc.getAlgorithm();
        MessageDigest md = MessageDigest.getInstance(MessageDigest.ALG_SHA_512, false);
        md.update(b, (short) 5, (short) 2);
        md.reset();
        n += md.doFinal(b, (short) 5, len, big, n);
        big[n++] = md.getAlgorithm();
        big[n++] = md.getLength();
        RandomData rnd = RandomData.getInstance(RandomData.ALG_PSEUDO_RANDOM);
        rnd.setSeed(b, (short) 0, (short) 4);
        rnd.generateData(store, (short) 0, (short) 8);
        Util.arrayCopyNonAtomic(big, (short) 0, b, (short) 0, n);
        return n;
    }

    private short gp(byte[] b, APDU apdu) {
        SecureChannel s = GPSystem.getSecureChannel();
        b[0] = s.getSecurityLevel();
        b[1] = (byte) s.wrap(b, (short) 0, (short) 5);
        b[2] = (byte) s.unwrap(b, (short) 0, (short) 6);
        s.resetSecurity();
        b[3] = 0;
        try {
            s.decryptData(b, (short) 0, (short) 16);
        } catch (ISOException e) {
            b[3] = 1;
        }
        GPRegistryEntry r = GPSystem.getRegistryEntry(null);
        b[4] = r.getState();
        b[5] = yes(r.setState((byte) 0x1F));
        b[6] = r.getState();
        b[7] = yes(r.isPrivileged((byte) 3));
        b[8] = (byte) r.getPrivileges(b, (short) 20);
        b[9] = yes(r.getAID().equals(JCSystem.getAID()));
        b[10] = GPSystem.getCardState();
        b[11] = yes(GPSystem.getCVM(GPSystem.CVM_GLOBAL_PIN) == null);
        b[12] = yes(GPSystem.lockCard());
        b[13] = yes(GPSystem.terminateCard());
        b[14] = yes(GPSystem.setATRHistBytes(b, (short) 0, (byte) 2));
        s.processSecurity(apdu);
        return 0;
    }

    public void process(APDU apdu) {
        if (selectingApplet()) return;
        byte[] b = apdu.getBuffer();
        short n = 0, p = Util.getShort(b, (short) 2);
        switch (b[1]) {
            case 1: n = aids(b); break;
            case 2: n = system(b); break;
            case 3: n = keys(b); break;
            case 4: n = crypto(b, apdu.setIncomingAndReceive()); break;
            case 5: { byte state = 0; try { gp(b, apdu); } catch (ISOException e) { Util.setShort(b, (short) 15, e.getReason()); } n = 17; break; }
            case 6: Util.setShort(b, (short) 0, caught(p)); n = 2; break;
            case 7: { // all of a long command, answered backwards
                short got = apdu.setIncomingAndReceive(), at = 0, total = apdu.getIncomingLength(), off = apdu.getOffsetCdata();
                while (got > 0) {
                    Util.arrayCopyNonAtomic(b, off, big, at, got);
                    at += got;
                    off = 0;
                    got = apdu.receiveBytes((short) 0);
                }
                if (at != total) ISOException.throwIt(ISO7816.SW_WRONG_LENGTH);
                APDU.waitExtension();
                apdu.setOutgoingNoChaining();
                apdu.setOutgoingLength((short) (at + 1));
                b[0] = apdu.getCurrentState();
                apdu.sendBytes((short) 0, (short) 1);
                apdu.sendBytesLong(big, (short) 0, at);
                return;
            }
            case 8:
                b[0] = APDU.getCLAChannel();
                b[1] = yes(apdu.isCommandChainingCLA());
                b[2] = yes(apdu.isISOInterindustryCLA());
                b[3] = yes(apdu.isSecureMessagingCLA());
                b[4] = yes(apdu.isValidCLA());
                b[5] = apdu.getNAD();
                b[6] = yes(APDU.getCurrentAPDU() == apdu);
                b[7] = (byte) APDU.getInBlockSize();
                b[8] = (byte) APDU.getOutBlockSize();
                n = 9;
                break;
            case 9: b[0] = (byte) pin.flag(); pin.reset(); b[1] = yes(pin.isValidated()); b[2] = yes(reSelectingApplet()); Util.setShort(b, (short) 3, deselected); n = 5; break;
        }
        if (n > 0) apdu.setOutgoingAndSend((short) 0, n);
    }
}
