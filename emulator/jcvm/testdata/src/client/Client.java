package client;

import javacard.framework.AID;
import javacard.framework.APDU;
import javacard.framework.Applet;
import javacard.framework.ISOException;
import javacard.framework.JCSystem;
import javacard.framework.Shareable;
import javacard.framework.Util;
import lib.Counter;
import lib.Tool;

/** Uses the server's counter, and tries what the firewall forbids. */
public class Client extends Applet {
    private byte[] name;
    private Object kept;
    private byte[] mine = {4, 5, 6};
    private Object[] list = new Object[2];
    static Object keptStatic;

    static class Special extends Tool {
        Special() { super((short) 7); }
        protected short factor() { return (short) (super.factor() + 3); }
        short direct() { return (short) (base + table); }
    }

    private Special special = new Special();

    public static void install(byte[] b, short off, byte len) {
        Client c = new Client();
        c.register(b, (short) (off + 1), b[off]);
        off += (short) (b[off] + 1);
        off += (short) (b[off] + 1);
        c.name = new byte[b[off]];
        Util.arrayCopy(b, (short) (off + 1), c.name, (short) 0, b[off]);
    }

    private Counter counter(byte parameter) {
        AID server = JCSystem.lookupAID(name, (short) 0, (byte) name.length);
        if (server == null) ISOException.throwIt((short) 0x6A82);
        Shareable s = JCSystem.getAppletShareableInterfaceObject(server, parameter);
        if (s == null) ISOException.throwIt((short) 0x6985);
        return (Counter) s;
    }

    public void process(APDU apdu) {
        if (selectingApplet()) return;
        byte[] b = apdu.getBuffer();
        short p = Util.getShort(b, (short) 2), r = 0, n = 2;
        try {
            switch (b[1]) {
                case 1: r = counter((byte) 0).add(p); break;
                case 2: r = counter((byte) 9).add(p); break;
                case 3: r = counter((byte) 0).sum(mine, (short) 0, (short) 3); break;       // forbidden: mine
                case 4: b[10] = 100; b[11] = 23; r = counter((byte) 0).sum(b, (short) 10, (short) 2); break; // allowed: global
                case 5: r = ((byte[]) counter((byte) 0).secret())[0]; break;                  // forbidden
                case 6: r = counter((byte) 0).secret() == null ? (short) 1 : (short) 2; break; // a reference alone is allowed
                case 7: kept = b; break;                                                      // forbidden: global array
                case 8: keptStatic = apdu; break;                                             // forbidden: temporary entry point
                case 9: list[0] = b; break;                                                   // forbidden
                case 10: kept = JCSystem.getAID(); r = ((AID) kept).getBytes(b, (short) 2); n = (short) (2 + r); break; // allowed: permanent
                case 11: r = counter((byte) 0).who(b, (short) 2); n = 34; break;
                case 12: counter((byte) 0).fail(p); break;
                case 13: r = special.scaled(p); break;
                case 14: r = special.direct(); break;
                case 15: Tool.calls += p; r = Tool.calls; break;
                case 16: { byte[] t = Tool.make(p); t[0] = 3; r = (short) (t[0] + t.length); break; }
                case 17: r = ((Client) (Object) counter((byte) 0)).mine[0]; break;            // forbidden: no interface
                case 18: list[1] = mine; r = ((byte[]) list[1])[1]; break;
                case 19: r = ((byte[]) counter((byte) 0).secret()).length > 0 ? (short) 1 : (short) 2; break; // forbidden
                case 20: counter((byte) 0).equals(null); break;                               // forbidden: not of the interface
                case 22: { // what the server throws leaves the client in its own context
                    try {
                        counter((byte) 8);
                    } catch (ISOException e) {
                        r = (short) (e.getReason() + mine[0]);
                        JCSystem.getAID().getBytes(b, (short) 2);
                        n = 8;
                    }
                    break;
                }
                case 23: { // a PIN of the server's, with data of one's own and with the global array
                    lib.Check pin = (lib.Check) JCSystem.getAppletShareableInterfaceObject(JCSystem.lookupAID(name, (short) 0, (byte) name.length), (byte) 7);
                    if (p == 0) { if (pin.check(b, (short) 0, (byte) 2)) r = 1; r += (short) (pin.getTriesRemaining() + mine[0]); }
                    else pin.check(mine, (short) 0, (byte) 2);
                    break;
                }
                case 21: JCSystem.beginTransaction(); counter((byte) 0).add(p); JCSystem.abortTransaction(); break;
            }
        } catch (SecurityException e) {
            ISOException.throwIt((short) 0x6F53);
        } catch (ClassCastException e) {
            ISOException.throwIt((short) 0x6F43);
        } catch (NullPointerException e) {
            ISOException.throwIt((short) 0x6F4E);
        }
        Util.setShort(b, (short) 0, r);
        apdu.setOutgoingAndSend((short) 0, n);
    }
}
