package ops;

/**
 * Language and arithmetic without the card's API, so that any Java virtual
 * machine can say what the results are.
 */
public class Ops {
    static class Base implements Shape {
        protected short s;
        byte b;
        boolean z;
        int i;
        Object o;
        Base next;

        Base(short s) { this.s = s; }
        public short area() { return s; }
        short twice() { return (short) (2 * area()); }
        public int wide(int a, short c) { return a + c + i; }
    }

    static class Derived extends Base {
        short extra;

        Derived(short s, short e) { super(s); extra = e; }
        public short area() { return (short) (super.area() + extra); }
        short deeper() { return super.twice(); }
    }

    interface Shape {
        short area();
        int wide(int a, short c);
    }

    interface Other extends Shape {
        short other();
    }

    static class Both extends Derived implements Other {
        Both() { super((short) 5, (short) 6); }
        public short other() { return (short) (s * extra); }
    }

    static class Oops extends RuntimeException {
        short code;
        Oops(short c) { code = c; }
    }

    static class Worse extends Oops {
        Worse(short c) { super(c); }
    }

    static short counter;
    static int total = 100000;
    static byte small = -7;
    static boolean flag = true;
    static final byte[] TABLE = {1, -2, 3, -4, 5};
    static final short[] SHORTS = {300, -300, 32767};
    static final int[] INTS = {70000, -70000, 0x7FFFFFFF};
    static final boolean[] FLAGS = {true, false, true};
    static Object kept;

    static short n(boolean v) {
        if (v) return 1;
        return 0;
    }

    static short fib(short n) {
        if (n < 2) return n;
        return (short) (fib((short) (n - 1)) + fib((short) (n - 2)));
    }

    static void thrower(short n) {
        if (n == 1) throw new Oops((short) 11);
        if (n == 2) throw new Worse((short) 22);
        if (n == 3) { Object o = null; o.equals(o); }
        if (n == 4) { byte[] x = new byte[3]; x[n] = 1; }
        if (n == 5) counter = (short) (n / (n - 5));
        if (n == 6) { Object o = new Oops((short) 1); Worse w = (Worse) o; w.code = 2; }
        if (n == 7) { byte[] x = new byte[(short) (n - 10)]; x[0] = 1; }
        if (n == 8) { Object[] x = new Oops[2]; x[0] = new Base((short) 1); }
        if (n == 9) { short[] x = null; counter = x[0]; }
        if (n == 10) { int[] x = new int[2]; x[(short) (n - 11)] = 1; }
        if (n == 11) total = total / (n - 11);
        if (n == 12) { Base b = null; b.s = 1; }
    }

    static short caught(short n) {
        short trace = 0;
        try {
            try {
                thrower(n);
                trace = 1;
            } catch (Worse w) {
                trace = (short) (1000 + w.code);
            } finally {
                trace += 10000;
            }
        } catch (Oops o) {
            trace += 100 + o.code;
        } catch (NullPointerException e) {
            trace += 201;
        } catch (ArrayIndexOutOfBoundsException e) {
            trace += 202;
        } catch (ArithmeticException e) {
            trace += 203;
        } catch (ClassCastException e) {
            trace += 204;
        } catch (NegativeArraySizeException e) {
            trace += 205;
        } catch (ArrayStoreException e) {
            trace += 206;
        }
        return trace;
    }

    static short sswitch(short v) {
        switch (v) {
            case -1: return 7;
            case 0: return 8;
            case 1: return 9;
            case 2: return 10;
            default: return 11;
        }
    }

    static short lswitch(short v) {
        switch (v) {
            case -30000: return 1;
            case 5: return 2;
            case 1000: return 3;
            case 30000: return 4;
            default: return 5;
        }
    }

    static short iswitch(int v) {
        switch (v) {
            case 100000: return 1;
            case 100001: return 2;
            case 100002: return 3;
            default: return 4;
        }
    }

    static short ilswitch(int v) {
        switch (v) {
            case -2000000000: return 1;
            case 7: return 2;
            case 2000000000: return 3;
            default: return 4;
        }
    }

    static short is(Object o) {
        short r = 0;
        if (o instanceof Shape) r |= 1;
        if (o instanceof Other) r |= 2;
        if (o instanceof Derived) r |= 4;
        if (o instanceof byte[]) r |= 8;
        if (o instanceof short[]) r |= 16;
        if (o instanceof int[]) r |= 32;
        if (o instanceof boolean[]) r |= 64;
        if (o instanceof Object[]) r |= 128;
        if (o instanceof Base[]) r |= 256;
        if (o instanceof Shape[]) r |= 512;
        return r;
    }

    static Object thing(short n) {
        switch (n) {
            case 0: return null;
            case 1: return new Base((short) 3);
            case 2: return new Derived((short) 3, (short) 4);
            case 3: return new Both();
            case 4: return new byte[2];
            case 5: return new short[2];
            case 6: return new int[2];
            case 7: return new boolean[2];
            case 8: return new Object[2];
            case 9: return new Base[2];
            case 10: return new Both[2];
            default: return new Oops((short) 9);
        }
    }

    static int many(int a, int b, short c, short d, byte e, int f, boolean g) {
        int x1 = a ^ b, x2 = c * d, x3 = e + f;
        short y1 = (short) (c + d), y2 = (short) (c - d), y3 = (short) (y1 ^ y2);
        if (g) x1 += y1;
        x2 -= y2;
        x3 *= y3;
        return x1 + x2 + x3;
    }

    /** One case; what it throws becomes a number. */
    static int eval(short op, int a, int b) {
        short s = (short) a, t = (short) b;
        byte u = (byte) a, v = (byte) b;
        try {
            return run(op, a, b, s, t, u, v);
        } catch (ArithmeticException e) {
            return -1000001;
        } catch (NullPointerException e) {
            return -1000002;
        } catch (ArrayIndexOutOfBoundsException e) {
            return -1000003;
        } catch (ClassCastException e) {
            return -1000004;
        } catch (NegativeArraySizeException e) {
            return -1000005;
        }
    }

    static int run(short op, int a, int b, short s, short t, byte u, byte v) {
        switch (op) {
            case 0: return a + b;
            case 1: return a - b;
            case 2: return a * b;
            case 3: return a / b;
            case 4: return a % b;
            case 5: return -a;
            case 6: return a << b;
            case 7: return a >> b;
            case 8: return a >>> b;
            case 9: return a & b;
            case 10: return a | b;
            case 11: return a ^ b;
            case 12: return (byte) a;
            case 13: return (short) a;
            case 14: if (a < b) return 1; if (a > b) return 2; return 3;
            case 15: if (a <= b) return 1; if (a >= b) return 2; return 4;
            case 16: if (a == b) return 1; return 0;
            case 17: if (a != 0) { if (a < 0) return 1; if (a > 0) return 2; return 3; } return 4;
            case 18: return (short) (s + t);
            case 19: return (short) (s - t);
            case 20: return (short) (s * t);
            case 21: return (short) (s / t);
            case 22: return (short) (s % t);
            case 23: return (short) -s;
            case 24: return (short) (s << t);
            case 25: return (short) (s >> t);
            case 26: return (short) (s >>> t);
            case 27: return (short) (s & t);
            case 28: return (short) (s | t);
            case 29: return (short) (s ^ t);
            case 30: return (byte) s;
            case 31: return n(s < t);
            case 32: return n(s <= t);
            case 33: return n(s > t);
            case 34: return n(s >= t);
            case 35: return n(s == t);
            case 36: return n(s != t);
            case 37: { short r = 0; if (s < 0) r += 1; if (s <= 0) r += 2; if (s > 0) r += 4; if (s >= 0) r += 8; if (s == 0) r += 16; if (s != 0) r += 32; return r; }
            case 38: return (byte) (u + v);
            case 39: return u * v;
            case 40: { short x = s; x += 100; x -= 3; x++; x--; x += 1000; return x; }
            case 41: { int x = a; x += 100; x -= 3; x++; x += 1000; return x; }
            case 42: return fib((short) (s & 15));
            case 43: return caught((short) (s & 15));
            case 44: return sswitch(s);
            case 45: return lswitch(s);
            case 46: return iswitch(a);
            case 47: return ilswitch(a);
            case 48: return is(thing((short) (s & 15)));
            case 49: return many(a, b, s, t, u, b + 1, (a & 1) != 0);
            case 50: { byte[] x = new byte[4]; x[0] = u; x[1] = (byte) (x[0] + v); x[(short) (t & 7)] = 9; return x[0] + 256 * x[1] + 65536 * x[3]; }
            case 51: { short[] x = new short[4]; x[2] = s; x[1] = (short) (x[2] + t); x[(short) (t & 3)]++; return x[0] + x[1] * 3 + x[2] * 5; }
            case 52: { int[] x = new int[4]; x[3] = a; x[1] = x[3] + b; x[(short) (t & 3)] += 7; return x[0] + x[1] * 3 + x[3] * 5 + x.length; }
            case 53: { boolean[] x = new boolean[3]; x[1] = (a & 1) != 0; x[2] = !x[1]; int r0 = 0; if (x[0]) r0 += 1; if (x[1]) r0 += 2; if (x[2]) r0 += 4; return r0; }
            case 54: { Object[] x = new Object[3]; x[0] = x; x[1] = new Base(s); int r0 = 0; if (x[0] == x) r0 += 1; if (x[2] == null) r0 += 2; return r0 + ((Base) x[1]).s * 4; }
            case 55: { Derived d = new Derived(s, t); Base e = d; d.b = u; d.z = true; d.i = b; d.o = d; d.next = e; int r0 = 0; if (d.z) r0 += 7; if (d.o == e) r0 += 11; return r0 + d.area() + 3 * e.twice() + 5 * d.deeper() + d.b   + d.next.i; }
            case 56: { Shape h = new Both(); Other o = (Other) h; return h.area() + 100 * o.other() + 10000 * o.area() + h.wide(a, t); }
            case 57: { counter = s; counter += t; counter++; return counter; }
            case 58: { total = a; total += b; total++; return total; }
            case 59: { small = u; small += v; return small; }
            case 60: { flag = a > b; kept = null; if (flag) kept = TABLE; short r = 2; if (kept == null) r = 1; kept = null; return r; }
            case 61: return TABLE[(short) (s & 7)] + SHORTS[(short) (t & 3)];
            case 62: { int r0 = 0; if (FLAGS[(short) (t & 3)]) r0 += 1; return r0 + INTS[(short) (s & 3)]; }
            case 63: { int sum = 0; for (short x = 0; x < (short) (s & 63); x++) { if (x == 40) break; if ((x & 1) == 0) continue; sum += x; } return sum; }
            case 64: { short x = 0; do { x += 3; } while (x < (short) (s & 255)); return x; }
            case 65: { byte[] x = new byte[2]; short i = 0; x[i++] = u; x[i] += v; x[0] ^= x[1]; return x[0] * 256 + x[1]; }
            case 66: { Base x = new Base(s); x.s += t; x.s++; x.i += a; x.b++; return x.s++ + x.i + x.b + x.s; }
            case 67: { Base x = new Base(s), y = x; x.next = y.next = new Derived(t, s); int r0 = 0; if (y.next == x.next) r0 += 1; return r0 + x.next.area(); }
            case 68: { long64 l = new long64(a, b); l.shift(); return l.high ^ l.low; }
            case 69: { Object x = thing((short) (s & 15)); Derived d = (Derived) x; if (d == null) return 1; return d.extra; }
            case 70: { Object x = thing((short) (s & 15)); byte[] d = (byte[]) x; if (d == null) return 1; return (short) d.length; }
            case 71: { Object x = thing((short) (s & 15)); Object[] d = (Object[]) x; if (d == null) return 1; return (short) d.length; }
            case 72: { Object x = thing((short) (s & 15)); Shape d = (Shape) x; if (d == null) return 1; return d.area(); }
            case 73: { int x = 0; if ((s > 0 && t > 0) || (u < 0 && v < 0)) x = 1; boolean p = s > t; if (u > v) p = !p; int r0 = 0; if (p) r0 += 2; if (!p) r0 += 4; return r0 + x   + ~a; }
            case 74: { Base x = null, y = null; if (s > 0) x = new Base(s); if (t > 0) y = x; else y = new Base(t); int r0 = 0; if (x == y) r0 += 1; if (x != null) r0 += 2; if (y == null) r0 += 4; return r0; }
            default: return 0;
        }
    }

    static class long64 {
        int high, low;
        long64(int h, int l) { high = h; low = l; }
        void shift() {
            high = high << 1 | low >>> 31;
            low <<= 1;
        }
    }
}
