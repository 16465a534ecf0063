package api;

import javacard.framework.APDU;
import javacard.framework.Applet;
import javacard.framework.ISO7816;
import javacard.framework.ISOException;
import javacard.framework.JCSystem;
import javacard.framework.OwnerPIN;
import javacard.framework.TransactionException;
import javacard.framework.UserException;
import javacard.framework.Util;
import javacard.security.AESKey;
import javacard.security.CryptoException;
import javacard.security.DESKey;
import javacard.security.KeyBuilder;
import javacard.security.MessageDigest;
import javacard.security.RandomData;
import javacard.security.Signature;
import javacardx.crypto.Cipher;
import org.globalplatform.GPSystem;
import org.globalplatform.SecureChannel;

/** Members of the API, one instruction each; data and results as they come. */
public class ApiApplet extends Applet implements org.globalplatform.Application {
    private byte[] store = new byte[700];
    private byte[] reset = JCSystem.makeTransientByteArray((short) 16, JCSystem.CLEAR_ON_RESET);
    private byte[] deselect = JCSystem.makeTransientByteArray((short) 16, JCSystem.CLEAR_ON_DESELECT);
    private Object[] refs = JCSystem.makeTransientObjectArray((short) 4, JCSystem.CLEAR_ON_RESET);
    private OwnerPIN pin = new OwnerPIN((byte) 3, (byte) 8);
    private short a, b;
    private Object object;
    private AESKey aes = (AESKey) KeyBuilder.buildKey(KeyBuilder.TYPE_AES, KeyBuilder.LENGTH_AES_128, false);
    private DESKey des = (DESKey) KeyBuilder.buildKey(KeyBuilder.TYPE_DES, KeyBuilder.LENGTH_DES3_2KEY, false);
    private Cipher cbc = Cipher.getInstance(Cipher.ALG_AES_BLOCK_128_CBC_NOPAD, false);
    private Cipher ecb = Cipher.getInstance(Cipher.ALG_AES_BLOCK_128_ECB_NOPAD, false);
    private Cipher des3 = Cipher.getInstance(Cipher.ALG_DES_CBC_ISO9797_M2, false);
    private Signature retail = Signature.getInstance(Signature.ALG_DES_MAC8_ISO9797_1_M2_ALG3, false);
    private Signature aesMac = Signature.getInstance(Signature.ALG_AES_MAC_128_NOPAD, false);
    private MessageDigest sha1 = MessageDigest.getInstance(MessageDigest.ALG_SHA, false);
    private MessageDigest sha256 = MessageDigest.getInstance(MessageDigest.ALG_SHA_256, false);
    private RandomData random = RandomData.getInstance(RandomData.ALG_SECURE_RANDOM);

    static class Node {
        Node next;
        short value;
    }

    private Node head;

    public static void install(byte[] b, short off, byte len) {
        ApiApplet x = new ApiApplet();
        if (len > 20) ISOException.throwIt(ISO7816.SW_WRONG_DATA);
        x.pin.update(new byte[] {1, 2, 3, 4}, (short) 0, (byte) 4);
        x.register();
    }

    public void processData(byte[] b, short off, short len) {
        SecureChannel s = GPSystem.getSecureChannel();
        a = s.getSecurityLevel();
        short n = (short) (b[(short) (off + 4)] & 0xFF);
        if (b[(short) (off + 2)] != 0) n = s.decryptData(b, (short) (off + 5), n);
        Util.arrayCopy(b, (short) (off + 5), store, (short) 0, n);
        if (n > 0 && b[(short) (off + 5)] == 0x7F) deselect[0] = 1;
    }

    private short caught(short t) {
        try {
            switch (t) {
                case 0: JCSystem.commitTransaction(); break;
                case 1: JCSystem.beginTransaction(); JCSystem.beginTransaction(); break;
                case 2: JCSystem.beginTransaction(); for (short i = 0; i < 700; i++) store[i] = 9; break;
                case 3: Util.arrayCopy(store, (short) 0, store, (short) 690, (short) 11); break;
                case 4: UserException.throwIt((short) 77); break;
                case 5: new OwnerPIN((byte) 0, (byte) 1); break;
                case 6: Cipher.getInstance((byte) 99, false); break;
                case 7: { AESKey k = (AESKey) KeyBuilder.buildKey(KeyBuilder.TYPE_AES, (short) 256, false); ecb.init(k, Cipher.MODE_ENCRYPT); break; }
                case 8: JCSystem.makeTransientByteArray((short) 30000, JCSystem.CLEAR_ON_RESET); break;
                case 9: JCSystem.makeTransientByteArray((short) 1, (byte) 7); break;
            }
        } catch (TransactionException e) {
            return (short) (0x100 + e.getReason());
        } catch (ArrayIndexOutOfBoundsException e) {
            return 0x200;
        } catch (UserException e) {
            return (short) (0x300 + e.getReason());
        } catch (javacard.framework.PINException e) {
            return (short) (0x400 + e.getReason());
        } catch (CryptoException e) {
            return (short) (0x500 + e.getReason());
        } catch (javacard.framework.SystemException e) {
            return (short) (0x600 + e.getReason());
        }
        return 0;
    }

    public void process(APDU apdu) {
        byte[] buf = apdu.getBuffer();
        if (selectingApplet()) {
            Util.setShort(buf, (short) 0, (short) 0x6F00);
            apdu.setOutgoingAndSend((short) 0, (short) 2);
            return;
        }
        short p = Util.getShort(buf, (short) 2);
        short len = apdu.setIncomingAndReceive();
        short n = 0;
        switch (buf[1]) {
            case 0x01: Util.arrayCopy(buf, (short) 5, store, p, len); break;
            case 0x02: n = p; Util.arrayCopyNonAtomic(store, (short) 0, buf, (short) 0, n); break;
            case 0x03: Util.arrayCopy(buf, (short) 5, reset, (short) 0, len); Util.arrayCopy(buf, (short) 5, deselect, (short) 0, len); break;
            case 0x04: Util.arrayCopy(reset, (short) 0, buf, (short) 0, (short) 16); Util.arrayCopy(deselect, (short) 0, buf, (short) 16, (short) 16); n = 32; break;
            case 0x05: buf[0] = (byte) (pin.check(buf, (short) 5, (byte) len) ? 1 : 0); buf[1] = pin.getTriesRemaining(); n = 2; break;
            case 0x06: buf[0] = (byte) (pin.isValidated() ? 1 : 0); buf[1] = pin.getTriesRemaining(); n = 2; break;
            case 0x07: pin.resetAndUnblock(); break;
            case 0x08: // a transaction: committed, aborted, left open, left with an exception
                a = 1;
                JCSystem.beginTransaction();
                a = 2; b = 2; store[0] = (byte) p; head = new Node(); head.value = p; refs[0] = head; object = new byte[5];
                if (p == 0) JCSystem.commitTransaction();
                if (p == 1) { Node local = head; JCSystem.abortTransaction(); buf[0] = (byte) (local == null ? 1 : 0); buf[1] = (byte) (refs[0] == null ? 1 : 0); buf[2] = (byte) a; n = 3; }
                if (p == 2) ISOException.throwIt((short) 0x6A80);
                break;
            case 0x09: Util.setShort(buf, (short) 0, a); Util.setShort(buf, (short) 2, b); buf[4] = (byte) (head == null ? 0 : 1); buf[5] = store[0]; buf[6] = (byte) (object == null ? 0 : 1); n = 7; break;
            case 0x0A: n = 2; Util.setShort(buf, (short) 0, caught(p)); break;
            case 0x0B: { Node x = null; for (short i = 0; i < p; i++) { Node y = new Node(); y.next = x; y.value = i; x = y; } head = x; break; }
            case 0x0C: { short c = 0; for (Node x = head; x != null; x = x.next) c += x.value; Util.setShort(buf, (short) 0, c); n = 2; break; }
            case 0x0D: head = null; JCSystem.requestObjectDeletion(); break;
            case 0x0E: Util.setShort(buf, (short) 0, JCSystem.getAvailableMemory(JCSystem.MEMORY_TYPE_TRANSIENT_RESET)); Util.setShort(buf, (short) 2, JCSystem.getAvailableMemory(JCSystem.MEMORY_TYPE_TRANSIENT_DESELECT)); n = 4; break;
            case 0x0F: n = JCSystem.getAID().getBytes(buf, (short) 0); break;
            case 0x10: aes.setKey(buf, (short) 5); break;
            case 0x11: ecb.init(aes, p == 1 ? Cipher.MODE_ENCRYPT : Cipher.MODE_DECRYPT); n = ecb.doFinal(buf, (short) 5, len, buf, (short) 0); break;
            case 0x12: cbc.init(aes, p == 1 ? Cipher.MODE_ENCRYPT : Cipher.MODE_DECRYPT, buf, (short) 5, (short) 16); n = cbc.update(buf, (short) 21, (short) 16, store, (short) 0); n += cbc.doFinal(buf, (short) 37, (short) (len - 32), store, n); Util.arrayCopyNonAtomic(store, (short) 0, buf, (short) 0, n); break;
            case 0x13: des.setKey(buf, (short) 5); break;
            case 0x14: des3.init(des, p == 1 ? Cipher.MODE_ENCRYPT : Cipher.MODE_DECRYPT); n = des3.doFinal(buf, (short) 5, len, buf, (short) 0); break;
            case 0x15: retail.init(des, Signature.MODE_SIGN); n = retail.sign(buf, (short) 5, len, buf, (short) 0); break;
            case 0x16: aesMac.init(aes, Signature.MODE_SIGN); n = aesMac.sign(buf, (short) 5, len, buf, (short) 0); break;
            case 0x17: n = sha1.doFinal(buf, (short) 5, len, buf, (short) 0); break;
            case 0x18: sha256.update(buf, (short) 5, (short) 1); n = sha256.doFinal(buf, (short) 6, (short) (len - 1), buf, (short) 0); break;
            case 0x19: random.generateData(buf, (short) 0, p); n = p; break;
            case 0x1A: apdu.setOutgoing(); apdu.setOutgoingLength((short) 300); break;
            case 0x1B: apdu.setOutgoing(); apdu.setOutgoingLength((short) 200); apdu.sendBytesLong(store, (short) 0, (short) 150); apdu.sendBytes((short) 0, (short) 50); return;
            case 0x1C: GPSystem.setCardContentState((byte) p); buf[0] = GPSystem.getCardContentState(); n = 1; break;
            case 0x1D: Util.arrayFillNonAtomic(store, (short) 0, (short) 20, (byte) p); buf[0] = Util.arrayCompare(store, (short) 0, store, (short) 10, (short) 10); buf[1] = Util.arrayCompare(store, (short) 15, store, (short) 16, (short) 6); n = 2; break;
            case 0x1E: Util.setShort(buf, (short) 0, apdu.getIncomingLength()); buf[2] = apdu.getCurrentState(); buf[3] = APDU.getProtocol(); buf[4] = APDU.getCurrentAPDUBuffer() == buf ? (byte) 1 : (byte) 0; n = 5; break;
            case 0x1F: n = apdu.setOutgoing(); Util.setShort(buf, (short) 0, n); apdu.setOutgoingLength((short) 2); apdu.sendBytes((short) 0, (short) 2); return;
            case 0x20: { short[] tooMuch = new short[20000]; tooMuch[0] = 1; break; }
            case 0x21: ISOException.throwIt(p); break;
            case 0x22: throw new NullPointerException();
            case 0x23: JCSystem.beginTransaction(); a = 9; pin.check(buf, (short) 5, (byte) len); JCSystem.abortTransaction(); buf[0] = pin.getTriesRemaining(); buf[1] = (byte) a; n = 2; break;
            default: ISOException.throwIt(ISO7816.SW_INS_NOT_SUPPORTED);
        }
        if (n > 0) apdu.setOutgoingAndSend((short) 0, n);
    }
}
