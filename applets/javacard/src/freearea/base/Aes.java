package freearea.base;

import javacard.framework.JCSystem;
import javacard.framework.Util;
import javacard.security.AESKey;
import javacard.security.KeyBuilder;
import javacardx.crypto.Cipher;

/**
 * AES-128 and AES-256 in CBC mode with an initial vector of zeros, and CMAC
 * made of it (NIST SP 800-38B): few cards offer more to applications.
 *
 * Keys come as bytes and are in a key object for one computation only. A
 * Cipher is always used with the same key object and mode, since cards keep
 * what init was told and some write it into persistent memory; a tap must write
 * nothing. The memory is cleared on reset rather than on deselection, which is
 * out of reach while a Security Domain passes data on.
 */
final class Aes {
	static final byte BLOCK = 16;

	/** Work memory: the message of a KDF, a last block, a subkey or result. */
	static final byte KDF = 0, LAST = 48, OUT = 64;
	private static final byte SIZE = 80;

	final byte[] work = JCSystem.makeTransientByteArray(SIZE, JCSystem.CLEAR_ON_RESET);
	private final AESKey short_, long_;
	private final Cipher shortEncrypt, shortDecrypt, longEncrypt, longDecrypt;

	Aes() {
		short_ = key(KeyBuilder.LENGTH_AES_128);
		long_ = key(KeyBuilder.LENGTH_AES_256);
		shortEncrypt = cipher();
		shortDecrypt = cipher();
		longEncrypt = cipher();
		longDecrypt = cipher();
		// What init writes, it writes now.
		for (byte n = 16; n <= 32; n += 16) {
			cipher(work, (short) 0, n, true);
			cipher(work, (short) 0, n, false);
		}
		clear();
	}

	private static AESKey key(short bits) {
		return (AESKey) KeyBuilder.buildKey(KeyBuilder.TYPE_AES_TRANSIENT_RESET, bits, false);
	}

	private static Cipher cipher() {
		return Cipher.getInstance(Cipher.ALG_AES_BLOCK_128_CBC_NOPAD, false);
	}

	/** Forgets keys and intermediate results. */
	void clear() {
		short_.clearKey();
		long_.clearKey();
		Util.arrayFillNonAtomic(work, (short) 0, SIZE, (byte) 0);
	}

	private Cipher cipher(byte[] key, short o, byte n, boolean encrypt) {
		AESKey k = n == 16 ? short_ : long_;
		Cipher c;
		if (n == 16) {
			c = encrypt ? shortEncrypt : shortDecrypt;
		} else {
			c = encrypt ? longEncrypt : longDecrypt;
		}
		k.setKey(key, o);
		c.init(k, encrypt ? Cipher.MODE_ENCRYPT : Cipher.MODE_DECRYPT);
		return c;
	}

	/** Encrypts one block of work memory in place. */
	void block(byte[] key, short keyAt, byte keySize, short at) {
		cipher(key, keyAt, keySize, true).doFinal(work, at, BLOCK, work, at);
	}

	/** CBC in place; the initial vector is the block LAST. */
	void cbc(byte[] key, short keyAt, byte keySize, boolean encrypt, byte[] b, short o, short n) {
		Cipher c = cipher(key, keyAt, keySize, encrypt);
		if (encrypt) {
			xor(b, o, LAST);
		}
		c.doFinal(b, o, n, b, o);
		if (!encrypt) {
			xor(b, o, LAST);
		}
	}

	/** XORs a block of work memory into a block. */
	private void xor(byte[] b, short o, short at) {
		for (byte i = 0; i < BLOCK; i++) {
			b[o] ^= work[at];
			o++;
			at++;
		}
	}

	/**
	 * CMAC over one block, which is the chaining value of secure messaging, and
	 * n bytes, at least one. The result is the block OUT.
	 */
	void cmac(byte[] key, short keyAt, byte keySize, byte[] first, short firstAt, byte[] b, short o, short n) {
		Cipher c = cipher(key, keyAt, keySize, true);
		short left = n;
		Util.arrayFillNonAtomic(work, OUT, BLOCK, (byte) 0);
		c.update(first, firstAt, BLOCK, work, LAST);
		for (; left > BLOCK; left -= BLOCK) {
			c.update(b, o, BLOCK, work, LAST);
			o += BLOCK;
		}
		// The state of the chain stands in LAST; what is left goes in by hand,
		// with the subkey, so that one Cipher is enough.
		for (byte i = 0; i < left; i++) {
			work[(short) (LAST + i)] ^= b[o];
			o++;
		}
		if (left < BLOCK) {
			work[(short) (LAST + left)] ^= (byte) 0x80;
		}
		c.init(keySize == 16 ? short_ : long_, Cipher.MODE_ENCRYPT);
		c.doFinal(work, OUT, BLOCK, work, OUT);
		twice();
		if (left < BLOCK) {
			twice();
		}
		xor(work, LAST, OUT);
		c.doFinal(work, LAST, BLOCK, work, OUT);
	}

	/** Doubles the block OUT in the field of SP 800-38B, 6.1. */
	private void twice() {
		byte carry = (byte) (work[OUT] & 0x80);
		for (short i = OUT; i < (short) (OUT + BLOCK - 1); i++) {
			work[i] = (byte) (work[i] << 1 | (work[(short) (i + 1)] >> 7 & 1));
		}
		work[(short) (OUT + BLOCK - 1)] <<= 1;
		// Without a branch: the bit is the key's.
		work[(short) (OUT + BLOCK - 1)] ^= (byte) (carry >> 7 & 0x87);
	}

	/** The first n bytes of OUT against others, in a time that does not tell where they differ. */
	boolean matches(byte[] b, short o, byte n) {
		byte different = 0;
		for (byte i = 0; i < n; i++) {
			different |= (byte) (work[(short) (OUT + i)] ^ b[o]);
			o++;
		}
		return different == 0;
	}
}
