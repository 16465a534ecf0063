package shared;

import javacard.framework.*;

/** A multiselectable applet that writes down what it is told. */
public class SharedApplet extends Applet implements MultiSelectable {
    private byte[] log = new byte[32];
    private short used;
    private byte[] memory = JCSystem.makeTransientByteArray((short) 1, JCSystem.CLEAR_ON_DESELECT);

    public static void install(byte[] b, short off, byte len) {
        new SharedApplet().register(b, (short) (off + 1), b[off]);
    }

    private void note(byte what, boolean flag) {
        log[used++] = (byte) (what | (flag ? 1 : 0));
        log[used++] = JCSystem.getAssignedChannel();
    }

    public boolean select() { note((byte) 0x10, false); return true; }
    public void deselect() { note((byte) 0x20, false); }
    public boolean select(boolean already) { note((byte) 0x30, already); return true; }
    public void deselect(boolean still) { note((byte) 0x40, still); }

    public void process(APDU apdu) {
        byte[] b = apdu.getBuffer();
        if (selectingApplet()) {
            if (reSelectingApplet()) note((byte) 0x50, false);
            return;
        }
        switch (b[1]) {
            case 1:
                Util.arrayCopyNonAtomic(log, (short) 0, b, (short) 0, used);
                apdu.setOutgoingAndSend((short) 0, used);
                used = 0;
                return;
            case 2: memory[0] = b[2]; return;
            case 3: {
                apdu.setIncomingAndReceive();
                AID other = JCSystem.lookupAID(b, (short) 5, b[4]);
                b[5] = b[0];
                b[0] = memory[0];
                b[1] = JCSystem.getAssignedChannel();
                b[2] = APDU.getCLAChannel();
                b[3] = JCSystem.isAppletActive(JCSystem.getAID()) ? (byte) 1 : 0;
                b[4] = JCSystem.isAppletActive(other) ? (byte) 1 : 0;
                apdu.setOutgoingAndSend((short) 0, (short) 6);
                return;
            }
            default: ISOException.throwIt(ISO7816.SW_INS_NOT_SUPPORTED);
        }
    }
}
