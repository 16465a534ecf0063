package lib;

import javacard.framework.Shareable;

/** What a server offers its clients. */
public interface Counter extends Shareable {
    short add(short n);
    short sum(byte[] b, short off, short len);
    Object secret();
    short who(byte[] b, short off);
    void fail(short sw);
}
