package ops;

import javacard.framework.APDU;
import javacard.framework.Applet;
import javacard.framework.ISO7816;
import javacard.framework.ISOException;
import javacard.framework.JCSystem;
import javacard.framework.Util;

/** Answers cases of {@link Ops}: P1 is the case, the data are two ints. */
public class OpsApplet extends Applet {
    public static void install(byte[] b, short off, byte len) { new OpsApplet().register(); }

    private static int get(byte[] b, short off) {
        return (Util.getShort(b, off) << 16) | (Util.getShort(b, (short) (off + 2)) & 0xFFFF);
    }

    public void process(APDU apdu) {
        if (selectingApplet()) return;
        byte[] b = apdu.getBuffer();
        if (apdu.setIncomingAndReceive() != 8) ISOException.throwIt(ISO7816.SW_WRONG_LENGTH);
        int r = Ops.eval(b[ISO7816.OFFSET_P1], get(b, (short) 5), get(b, (short) 9));
        Util.setShort(b, (short) 0, (short) (r >> 16));
        Util.setShort(b, (short) 2, (short) r);
        JCSystem.requestObjectDeletion();
        apdu.setOutgoingAndSend((short) 0, (short) 4);
    }
}
