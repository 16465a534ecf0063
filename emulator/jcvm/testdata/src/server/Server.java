package server;

import javacard.framework.AID;
import javacard.framework.APDU;
import javacard.framework.Applet;
import javacard.framework.AppletEvent;
import javacard.framework.ISOException;
import javacard.framework.JCSystem;
import javacard.framework.Shareable;
import lib.Counter;

/** Shares a counter with everybody but those who ask with parameter 9. */
public class Server extends Applet implements Counter, AppletEvent {
    private short total;
    private byte[] own = {1, 2, 3};
    private byte[] volatileMemory = JCSystem.makeTransientByteArray((short) 8, JCSystem.CLEAR_ON_DESELECT);
    static byte[] shared;
    private Pin pin = new Pin();

    /** What is shared may have its methods from the API. */
    static class Pin extends javacard.framework.OwnerPIN implements lib.Check {
        Pin() { super((byte) 3, (byte) 4); }
    }

    public static void install(byte[] b, short off, byte len) {
        Server s = new Server();
        s.register(b, (short) (off + 1), b[off]);
        shared = s.own;
    }

    public Shareable getShareableInterfaceObject(AID client, byte parameter) {
        if (parameter == 9) return null;
        if (parameter == 8) ISOException.throwIt((short) 0x6A81);
        if (parameter == 7) return pin;
        return this;
    }

    public short add(short n) {
        total += n;
        return total;
    }

    public short sum(byte[] b, short off, short len) {
        short s = 0;
        for (short i = 0; i < len; i++) s += b[(short) (off + i)];
        return s;
    }

    public Object secret() { return own; }

    public short who(byte[] b, short off) {
        return (short) (JCSystem.getPreviousContextAID().getBytes(b, off) * 256 + JCSystem.getAID().getBytes(b, (short) (off + 16)));
    }

    public void fail(short sw) {
        if (sw == 0) volatileMemory[0] = 1;
        total = 999;
        ISOException.throwIt(sw);
    }

    public void uninstall() { total = -1; }

    public void process(APDU apdu) {
        if (selectingApplet()) return;
        byte[] b = apdu.getBuffer();
        b[0] = (byte) (total >> 8);
        b[1] = (byte) total;
        apdu.setOutgoingAndSend((short) 0, (short) 2);
    }
}
