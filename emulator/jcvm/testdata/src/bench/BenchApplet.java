package bench;

import javacard.framework.APDU;
import javacard.framework.Applet;
import javacard.framework.JCSystem;
import javacard.framework.Util;

/** Loops for measurements: INS is the kind, P1P2 the number of rounds of 100. */
public class BenchApplet extends Applet {
    private byte[] ram = JCSystem.makeTransientByteArray((short) 256, JCSystem.CLEAR_ON_RESET);
    private short field;

    public static void install(byte[] b, short off, byte len) { new BenchApplet().register(); }

    static short arithmetic(short rounds) {
        short x = 1, y = 7;
        for (short i = 0; i < rounds; i++)
            for (short j = 0; j < 100; j++) {
                x = (short) (x * 31 + y);
                y = (short) (y ^ x);
            }
        return (short) (x + y);
    }

    static short arrays(byte[] a, short rounds) {
        short x = 0;
        for (short i = 0; i < rounds; i++)
            for (short j = 0; j < 100; j++) {
                a[j] = (byte) (a[(short) (j + 1)] + j);
                x += a[j];
            }
        return x;
    }

    static short leaf(short a, short b) { return (short) (a + b); }

    static short calls(short rounds) {
        short x = 0;
        for (short i = 0; i < rounds; i++)
            for (short j = 0; j < 100; j++)
                x = leaf(x, j);
        return x;
    }

    short virtual(short a) { return (short) (a + field); }

    short virtuals(short rounds) {
        short x = 0;
        for (short i = 0; i < rounds; i++)
            for (short j = 0; j < 100; j++)
                x = virtual(x);
        return x;
    }

    public void process(APDU apdu) {
        if (selectingApplet()) return;
        byte[] b = apdu.getBuffer();
        short rounds = Util.getShort(b, (short) 2), r = 0;
        switch (b[1]) {
            case 1: r = arithmetic(rounds); break;
            case 2: r = arrays(ram, rounds); break;
            case 3: r = calls(rounds); break;
            case 4: r = virtuals(rounds); break;
            case 5: for (;;) r++;
        }
        Util.setShort(b, (short) 0, r);
        apdu.setOutgoingAndSend((short) 0, (short) 2);
    }
}
