package lib;

/** A library: its code runs in the context of whoever calls it. */
public class Tool {
    public static short table = 20;
    public static short calls;
    protected short base;

    public Tool(short base) { this.base = base; }

    public short scaled(short n) {
        calls++;
        return (short) (n * factor() + base);
    }

    protected short factor() { return 2; }

    public static byte[] make(short n) { return new byte[n]; }
}
