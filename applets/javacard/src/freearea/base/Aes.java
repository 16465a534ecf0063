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
 * Keys come as bytes and are in a key object for one command at most. A
 * Cipher is always used with the same key object and mode, since cards keep
 * what init was told and some write it into persistent memory; a tap must write
 * nothing. The memory is cleared on reset rather than on deselection, which is
 * out of reach while a Security Domain passes data on.
 *
 * What takes time on a card is to set or clear a key, and init; then each call
 * of a Cipher, which costs as much as 150 bytecodes, however many blocks it has.
 */
final class Aes {
	static final byte BLOCK = 16;

	/**
	 * Work memory: the block that CMAC's subkeys are made of, or any other that is
	 * encrypted alone, and a message or part of one. That of a KDF stands behind
	 * the place for its encryption, which begins at 0.
	 */
	static final byte ALONE = 0, KDF = 48;
	private static final byte MESSAGE = 16, SIZE = 96;

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
			encryptor(work, (short) 0, n);
			decryptor(n);
		}
		clear();
	}

	private static AESKey key(short bits) {
		return (AESKey) KeyBuilder.buildKey(KeyBuilder.TYPE_AES_TRANSIENT_RESET, bits, false);
	}

	private static Cipher cipher() {
		return Cipher.getInstance(Cipher.ALG_AES_BLOCK_128_CBC_NOPAD, false);
	}

	/** Forgets keys and intermediate results. Cards take as long to clear a key that is not set. */
	void clear() {
		if (short_.isInitialized()) {
			short_.clearKey();
		}
		if (long_.isInitialized()) {
			long_.clearKey();
		}
		Util.arrayFillNonAtomic(work, (short) 0, SIZE, (byte) 0);
	}

	/** Sets a key. The Cipher begins with a vector of zeros, and again after each doFinal. */
	private Cipher encryptor(byte[] key, short o, byte n) {
		AESKey k = short_;
		Cipher c = shortEncrypt;
		if (n != 16) {
			k = long_;
			c = longEncrypt;
		}
		k.setKey(key, o);
		c.init(k, Cipher.MODE_ENCRYPT);
		return c;
	}

	/** The same for decryption, with the key that encryptor was given last. */
	private Cipher decryptor(byte n) {
		Cipher c = n == 16 ? shortDecrypt : longDecrypt;
		c.init(n == 16 ? short_ : long_, Cipher.MODE_DECRYPT);
		return c;
	}

	/** Encrypts the block ALONE in place. */
	Cipher block(byte[] key, short keyAt, byte keySize) {
		Cipher c = encryptor(key, keyAt, keySize);
		c.doFinal(work, ALONE, BLOCK, work, ALONE);
		return c;
	}

	/** CBC in place; the initial vector is what the block ALONE encrypts to. */
	void encrypt(byte[] key, short keyAt, byte keySize, byte[] b, short o, short n) {
		Cipher c = encryptor(key, keyAt, keySize);
		c.update(work, ALONE, BLOCK, work, ALONE); // the chain goes on from it
		c.doFinal(b, o, n, b, o);
	}

	/** The reverse. */
	void decrypt(byte[] key, short keyAt, byte keySize, byte[] b, short o, short n) {
		byte[] w = work;
		block(key, keyAt, keySize);
		decryptor(keySize).doFinal(b, o, n, b, o);
		for (short i = ALONE; i < ALONE + BLOCK; i++) {
			b[o++] ^= w[i];
		}
	}

	/** Sets a key for CMACs: ALONE is then the block that its subkeys are made of. */
	private Cipher mac(byte[] key, short keyAt, byte keySize) {
		Util.arrayFillNonAtomic(work, ALONE, BLOCK, (byte) 0);
		return block(key, keyAt, keySize);
	}

	/**
	 * XORs a subkey (SP 800-38B, 6.1) into a block of work memory: ALONE doubled in
	 * the field once, which is K1, or twice, K2. What is done does not depend on the key.
	 */
	private void mask(short at, byte doublings) {
		byte[] w = work;
		at += BLOCK - 1;
		short i = ALONE + BLOCK - 1, x = 0;
		do {
			x = (short) ((w[i] & 0xFF) << doublings | x >> 8);
			w[at--] ^= (byte) x;
		} while (--i >= ALONE);
		x >>= 8; // what is shifted out, times 87
		x = (short) (x << 7 ^ x << 2 ^ x << 1 ^ x);
		w[(short) (at + BLOCK)] ^= (byte) x;
		w[(short) (at + BLOCK - 1)] ^= (byte) (x >> 8);
	}

	/**
	 * Sets a key for CMACs over the message of a KDF, whose last block at an offset
	 * from KDF is masked: until another key is set, doFinal over the message is a
	 * CMAC, and any of its other blocks may change in between.
	 */
	Cipher kdf(byte[] key, short keyAt, byte keySize, short last) {
		Cipher c = mac(key, keyAt, keySize);
		mask((short) (KDF + last), (byte) 1);
		return c;
	}

	/**
	 * CMAC over one block, which is the chaining value of secure messaging, and
	 * n bytes, at least one. Returns where in work memory the result stands.
	 */
	short cmac(byte[] key, short keyAt, byte keySize, byte[] first, short firstAt, byte[] b, short o, short n) {
		Cipher c = mac(key, keyAt, keySize);
		byte[] w = work;
		Util.arrayCopyNonAtomic(first, firstAt, w, MESSAGE, BLOCK);
		short at = MESSAGE + BLOCK;
		while (n > (short) (SIZE - at)) {
			short part = (short) (SIZE - at);
			Util.arrayCopyNonAtomic(b, o, w, at, part);
			c.update(w, MESSAGE, (short) (SIZE - MESSAGE), w, MESSAGE);
			o += part;
			n -= part;
			at = MESSAGE;
		}
		short end = Util.arrayCopyNonAtomic(b, o, w, at, n), last = (short) ((end - 1) & ~15);
		if ((end & 15) == 0) {
			mask(last, (byte) 1);
		} else {
			w[end++] = (byte) 0x80;
			Util.arrayFillNonAtomic(w, end, (short) (last + BLOCK - end), (byte) 0);
			mask(last, (byte) 2);
		}
		c.doFinal(w, MESSAGE, (short) (last + BLOCK - MESSAGE), w, MESSAGE);
		return last;
	}

	/** Whether n bytes are the same, in a time that does not tell where they differ. */
	static boolean same(byte[] a, short o, byte[] b, short p, short n) {
		short different = 0, end = (short) (o + n);
		while (o < end) {
			different |= (short) (a[o++] ^ b[p++]);
		}
		return different == 0;
	}
}
