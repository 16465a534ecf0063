package habits;

import javacard.framework.*;
import javacardx.apdu.ExtendedLength;

/** What public applets do and count on, though the specification is silent or lets cards differ. */
public class HabitsApplet extends Applet implements ExtendedLength {
    private byte[] big = new byte[300];
    private byte[] session = JCSystem.makeTransientByteArray((short) 1, JCSystem.CLEAR_ON_DESELECT);

    public static void install(byte[] b, short off, byte len) {
        new HabitsApplet().register(b, (short) (off + 1), b[off]);
    }

    public void process(APDU apdu) {
        // SELECT isn't told from other commands: it ends at default.
        byte[] b = apdu.getBuffer();
        short n = 0;
        switch (b[ISO7816.OFFSET_INS]) {
            case 0x01: // a response in parts of one's own
                Util.setShort(b, (short) 0, (short) 0x0102);
                apdu.setOutgoingAndSend((short) 0, (short) 2);
                ISOException.throwIt((short) 0x6103);
                break;
            case (byte) 0xC0:
                Util.setShort(b, (short) 0, (short) 0x0304);
                b[2] = 5;
                n = 3;
                break;
            case 0x02: // how much of a command comes at once
                Util.setShort(b, (short) 0, apdu.setIncomingAndReceive());
                n = 2;
                break;
            case 0x03: // more than a short command can expect
                Util.arrayFillNonAtomic(big, (short) 0, (short) 300, (byte) 7);
                apdu.setOutgoing();
                apdu.setOutgoingLength((short) 300);
                apdu.sendBytesLong(big, (short) 0, (short) 300);
                return;
            case 0x04: // what is cleared on deselection
                b[0] = ++session[0];
                n = 1;
                break;
            case 0x05: // data, and then an error
                apdu.setOutgoingAndSend((short) 0, (short) 2);
                ISOException.throwIt(ISO7816.SW_WRONG_DATA);
                break;
            default:
                ISOException.throwIt(ISO7816.SW_INS_NOT_SUPPORTED);
        }
        apdu.setOutgoingAndSend((short) 0, n);
    }
}
