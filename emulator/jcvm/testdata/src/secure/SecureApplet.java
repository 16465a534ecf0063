package secure;

import javacard.framework.*;
import org.globalplatform.*;

/** What an application asks of its Security Domain, of the registry and of other applications' services. */
public class SecureApplet extends Applet implements Personalization, GlobalService, CVM {
    private byte[] stored = new byte[64];
    private short length;
    private GPRegistryEntry client;

    public static void install(byte[] b, short off, byte len) {
        new SecureApplet().register(b, (short) (off + 1), b[off]);
    }

    public Shareable getShareableInterfaceObject(AID aid, byte parameter) {
        if (parameter == GPSystem.GLOBAL_SERVICE_IDENTIFIER) return this;
        return null;
    }

    public short processData(byte[] in, short off, short len, byte[] out, short to) {
        SecureChannel s = GPSystem.getSecureChannel();
        short n = s.unwrap(in, off, len);
        if (n != len) ISOException.throwIt((short) 0x6F01);
        short size = (short) (in[(short) (off + 4)] & 0xFF);
        if ((in[(short) (off + 2)] & 0x60) == 0x60) size = s.decryptData(in, (short) (off + 5), size);
        Util.arrayCopy(in, (short) (off + 5), stored, (short) 0, size);
        length = size;
        out[to] = s.getSecurityLevel();
        return 1;
    }

    public void process(APDU apdu) {
        if (selectingApplet()) return;
        byte[] b = apdu.getBuffer();
        SecureChannel s = GPSystem.getSecureChannel();
        short n = 0;
        if (b[1] == (byte) 0x50 || b[1] == (byte) 0x82) {
            n = s.processSecurity(apdu);
            apdu.setOutgoingAndSend((short) 5, n);
            return;
        }
        short p = Util.getShort(b, (short) 2);
        short got = apdu.setIncomingAndReceive();
        short total = s.unwrap(b, (short) 0, (short) (5 + got));
        got = (short) (total - 5);
        switch (b[1]) {
            case 1: // what came, without secure messaging: class, Lc, data
                b[3] = b[0];
                Util.arrayCopyNonAtomic(b, (short) 3, b, (short) 0, (short) (2 + got));
                n = (short) (2 + got);
                break;
            case 2: b[0] = s.getSecurityLevel(); n = 1; break;
            case 3: s.resetSecurity(); b[0] = s.getSecurityLevel(); n = 1; break;
            case 4: n = s.encryptData(b, (short) 5, got); Util.arrayCopyNonAtomic(b, (short) 5, b, (short) 0, n); break;
            case 5: n = s.decryptData(b, (short) 5, got); Util.arrayCopyNonAtomic(b, (short) 5, b, (short) 0, n); break;
            case 6: Util.arrayCopyNonAtomic(stored, (short) 0, b, (short) 0, length); n = length; break;
            case 7: n = registry(b, p); break;
            case 8: n = cvm(b, p, got); break;
            case 9: { // services
                GPRegistryEntry own = GPSystem.getRegistryEntry(null);
                if (p == 0) own.registerService(Util.getShort(b, (short) 5));
                else if (p == 1) own.deregisterService(Util.getShort(b, (short) 5));
                else {
                    AID server = null;
                    if (p != 2) server = JCSystem.lookupAID(b, (short) 7, (byte) (got - 2));
                    GlobalService g = GPSystem.getService(server, Util.getShort(b, (short) 5));
                    b[0] = (byte) (g == null ? 0 : 1);
                    if (g != null) b[0] += g.getServiceInterface(own, Util.getShort(b, (short) 5), null, (short) 0, (short) 0) == null ? 0 : 1;
                    n = 1;
                }
                break;
            }
            case 10: b[0] = 0; if (client != null) b[0] = client.getAID().getBytes(b, (short) 1); n = (short) (b[0] + 1); break;
            case 11: { // commands of the protocol, from another array's place
                try { n = ((SecureChannelx2) s).processSecurity(b, (short) 5, got, (short) 5); }
                catch (ISOException e) { Util.setShort(b, (short) 5, e.getReason()); n = 2; }
                Util.arrayCopyNonAtomic(b, (short) 5, b, (short) 0, n);
                break;
            }
            default: ISOException.throwIt(ISO7816.SW_INS_NOT_SUPPORTED);
        }
        Util.setShort(b, n, (short) 0x9000);
        n = s.wrap(b, (short) 0, (short) (n + 2));
        apdu.setOutgoingAndSend((short) 0, n);
    }

    private short registry(byte[] b, short p) {
        AID named = null;
        if (b[4] != 0) named = JCSystem.lookupAID(b, (short) 5, b[4]);
        GPRegistryEntry e = GPSystem.getRegistryEntry(named);
        if (b[4] != 0 && e == null) { b[0] = (byte) 0xEE; return 1; }
        switch (p) {
            case 0:
                b[0] = e.getState();
                b[1] = e.isPrivileged(GPRegistryEntry.PRIVILEGE_GLOBAL_REGISTRY) ? (byte) 1 : 0;
                e.getPrivileges(b, (short) 2);
                return (short) (5 + e.getAID().getBytes(b, (short) 5));
            case 1: b[0] = e.setState((byte) 0x17) ? (byte) 1 : 0; b[1] = e.getState(); return 2;
            case 2: b[0] = e.setState((byte) 0x80) ? (byte) 1 : 0; b[1] = e.getState(); return 2;
            case 3: b[0] = e.setState((byte) 0x00) ? (byte) 1 : 0; b[1] = e.getState(); return 2;
            case 4: b[0] = GPSystem.getCardState(); b[1] = GPSystem.getCardContentState(); return 2;
            case 5: b[0] = GPSystem.lockCard() ? (byte) 1 : 0; b[1] = GPSystem.getCardState(); return 2;
            case 6: b[0] = GPSystem.setATRHistBytes(b, (short) 0, (byte) 3) ? (byte) 1 : 0; return 1;
            case 7: b[0] = e.isAssociated(e.getAID()) ? (byte) 1 : 0; b[1] = e == GPSystem.getRegistryEntry(named) ? (byte) 1 : 0; return 2;
            default: return 0;
        }
    }

    private short cvm(byte[] b, short p, short got) {
        CVM c = GPSystem.getCVM((byte) (p >> 8));
        if (c == null) { b[0] = (byte) 0xEE; return 1; }
        boolean ok = false;
        switch (p & 0xFF) {
            case 0: ok = c.update(b, (short) 5, (byte) got, CVM.FORMAT_ASCII); break;
            case 1: ok = c.setTryLimit((byte) 3); break;
            case 2: ok = c.verify(b, (short) 5, (byte) got, CVM.FORMAT_ASCII) == CVM.CVM_SUCCESS; break;
            case 3: ok = c.resetState(); break;
            case 4: ok = c.blockState(); break;
            case 5: ok = c.resetAndUnblockState(); break;
            case 6: try { c.verify(stored, (short) 0, (byte) 4, CVM.FORMAT_HEX); } catch (SecurityException e) { ok = true; } break;
            default: break;
        }
        b[0] = ok ? (byte) 1 : 0;
        b[1] = c.isActive() ? (byte) 1 : 0;
        b[2] = c.isSubmitted() ? (byte) 1 : 0;
        b[3] = c.isVerified() ? (byte) 1 : 0;
        b[4] = c.isBlocked() ? (byte) 1 : 0;
        b[5] = c.getTriesRemaining();
        return 6;
    }

    // A service of its own: a CVM that is always verified.
    public Shareable getServiceInterface(GPRegistryEntry e, short name, byte[] b, short off, short len) { client = e; return this; }
    public boolean isActive() { return true; }
    public boolean isSubmitted() { return true; }
    public boolean isVerified() { return true; }
    public boolean isBlocked() { return false; }
    public byte getTriesRemaining() { return 9; }
    public boolean update(byte[] b, short o, byte l, byte f) { return false; }
    public boolean resetState() { return false; }
    public boolean blockState() { return false; }
    public boolean resetAndUnblockState() { return false; }
    public boolean setTryLimit(byte l) { return false; }
    public short verify(byte[] b, short o, byte l, byte f) { return CVM_SUCCESS; }
}
