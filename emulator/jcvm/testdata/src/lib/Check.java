package lib;

import javacard.framework.Shareable;

/** A PIN that others may check. */
public interface Check extends Shareable {
    boolean check(byte[] b, short off, byte len);
    byte getTriesRemaining();
}
