package freearea.base;

import javacard.framework.ISO7816;
import javacard.framework.ISOException;
import javacard.framework.JCSystem;
import javacard.framework.Util;
import javacardx.crypto.Cipher;

/**
 * The card's side of SCP03 (GPCS Amendment D 1.1.1: S8, i = 60) with an
 * application's own keys, and of express reading, which ends where an SCP03
 * session begins.
 */
final class Channel {
	/** State: nothing, INITIALIZE UPDATE answered, session, session aborted. */
	static final byte NONE = 0, PENDING = 1, OPEN = 2, ABORTED = 3;

	/**
	 * Memory that is cleared on deselection. CHALLENGE to FILE belong to the
	 * application. COUNTER holds the expected host cryptogram while PENDING.
	 */
	static final short CHALLENGE = 0, FRESH = 16, VERIFIED = 17, FILE = 18, STATE = 19, LEVEL = 20, KEY_SIZE = 21,
			CHAIN = 22, COUNTER = 38, ENC = 54, MAC = 86, RMAC = 118;
	private static final short SIZE = 150;

	final byte[] v = JCSystem.makeTransientByteArray(SIZE, JCSystem.CLEAR_ON_DESELECT);
	final Aes aes;

	Channel(Aes aes) {
		this.aes = aes;
	}

	/** Forgets everything: the session and what it opened, the challenge. */
	void reset() {
		Util.arrayFillNonAtomic(v, (short) 0, SIZE, (byte) 0);
	}

	/** Ends the session in a way that only INITIALIZE UPDATE or SELECT mends, and the command. */
	void abort() {
		reset();
		v[STATE] = ABORTED;
		ISOException.throwIt(ISO7816.SW_SECURITY_STATUS_NOT_SATISFIED);
	}

	boolean open() {
		return v[STATE] == OPEN;
	}

	/**
	 * Sets the key of a KDF. Its message is in work memory but for the constant,
	 * length and counter in the first block, and for the last one, which is CHAIN
	 * and belongs at an offset in the message.
	 */
	private Cipher source(byte[] set, short keyAt, short last) {
		Util.arrayCopyNonAtomic(v, CHAIN, aes.work, (short) (Aes.KDF + last), Aes.BLOCK);
		return aes.kdf(set, keyAt, v[KEY_SIZE], last);
	}

	/** The KDF of AmdD 4.1.5 in counter mode with CMAC. The result goes to v. */
	private void derive(Cipher source, byte constant, byte size, short last, short to) {
		byte[] w = aes.work;
		w[(short) (Aes.KDF + 11)] = constant;
		w[(short) (Aes.KDF + 12)] = 0;
		Util.setShort(w, (short) (Aes.KDF + 13), (short) (size << 3));
		byte i = 1;
		for (byte done = 0; done < size; done += Aes.BLOCK) {
			w[(short) (Aes.KDF + 15)] = i++;
			source.doFinal(w, Aes.KDF, (short) (last + Aes.BLOCK), w, (short) 0);
			byte n = (byte) (size - done);
			Util.arrayCopyNonAtomic(w, last, v, (short) (to + done), n < Aes.BLOCK ? n : Aes.BLOCK);
		}
	}

	/** The session keys of a key set; see Service for how it is stored. */
	private void sessionKeys(byte[] slot, short set, short last) {
		byte n = slot[(short) (set + Service.SET_SIZE)];
		v[KEY_SIZE] = n;
		derive(source(slot, (short) (set + Service.SET_ENC), last), (byte) 4, n, last, ENC);
		Cipher mac = source(slot, (short) (set + Service.SET_MAC), last);
		derive(mac, (byte) 6, n, last, MAC);
		derive(mac, (byte) 7, n, last, RMAC);
	}

	/**
	 * Begins: the host's challenge stands at 5 of b, the card's in CHALLENGE. The
	 * card's cryptogram goes to b at the offset.
	 */
	void initialize(byte[] slot, short set, byte[] b, short cryptogram) {
		final short last = 16; // the context is one block
		Util.arrayFillNonAtomic(aes.work, Aes.KDF, (short) 11, (byte) 0);
		Util.arrayCopyNonAtomic(b, (short) 5, v, CHAIN, (short) 8);
		Util.arrayCopyNonAtomic(v, CHALLENGE, v, (short) (CHAIN + 8), (short) 8);
		sessionKeys(slot, set, last);
		Cipher mac = source(v, MAC, last);
		derive(mac, (byte) 0, (byte) 8, last, CHALLENGE);
		Util.arrayCopyNonAtomic(v, CHALLENGE, b, cryptogram, (short) 8);
		derive(mac, (byte) 1, (byte) 8, last, COUNTER);
		Util.arrayFillNonAtomic(v, CHALLENGE, (short) 16, (byte) 0);
		Util.arrayFillNonAtomic(v, CHAIN, Aes.BLOCK, (byte) 0);
		v[STATE] = PENDING;
	}

	/** EXTERNAL AUTHENTICATE; n is the length of its data. */
	void authenticate(byte[] b, short n, Service s) {
		byte level = b[ISO7816.OFFSET_P1];
		if (v[STATE] != PENDING) {
			if (open()) { // inside a session, not a command of that session
				reset();
				v[STATE] = ABORTED;
			}
			ISOException.throwIt(ISO7816.SW_CONDITIONS_NOT_SATISFIED);
		}
		short sw = ISO7816.SW_NO_ERROR;
		if ((b[0] & 0x0C) != 0x04) {
			sw = ISO7816.SW_SECURITY_STATUS_NOT_SATISFIED;
		} else if (b[ISO7816.OFFSET_P2] != 0 || !known(level)) {
			sw = ISO7816.SW_INCORRECT_P1P2;
		} else if (n != 16) {
			sw = ISO7816.SW_WRONG_LENGTH;
		} else if (!Aes.same(v, COUNTER, b, (short) 5, (short) 8)) {
			sw = (short) 0x6300;
		}
		if (sw != ISO7816.SW_NO_ERROR) {
			reset();
			ISOException.throwIt(sw);
		}
		Util.arrayFillNonAtomic(v, COUNTER, (short) 16, (byte) 0);
		if (!verify(b, (short) 8)) { // CHAIN is zero
			abort();
		}
		if (!s.accepts(level)) {
			reset();
			ISOException.throwIt(ISO7816.SW_SECURITY_STATUS_NOT_SATISFIED);
		}
		v[LEVEL] = level;
		v[STATE] = OPEN;
	}

	/** Levels of AmdD table 7-5, R-MAC alone included. */
	private static boolean known(byte level) {
		switch (level) {
		case 0x00:
		case 0x01:
		case 0x03:
		case 0x10:
		case 0x11:
		case 0x13:
		case 0x33:
			return true;
		}
		return false;
	}

	/**
	 * Verifies the C-MAC that follows n bytes of data and keeps the whole as the
	 * next chaining value.
	 */
	private boolean verify(byte[] b, short n) {
		byte cla = b[0];
		b[0] = (byte) (cla & 0xF0 | 0x04);
		n += 5;
		short at = aes.cmac(v, MAC, v[KEY_SIZE], v, CHAIN, b, (short) 0, n);
		b[0] = cla;
		Util.arrayCopyNonAtomic(aes.work, at, v, CHAIN, Aes.BLOCK);
		return Aes.same(v, CHAIN, b, n, (short) 8);
	}

	/**
	 * EXPRESS after its checks: the host's challenge and C-MAC stand at 5 of b,
	 * and the challenge is used up whatever comes of it.
	 */
	void express(byte[] slot, short set, byte[] b) {
		byte[] w = aes.work;
		// FREEAREA-X1 where SCP03 has zeros
		Util.setShort(w, Aes.KDF, (short) 0x4652);
		Util.setShort(w, (short) (Aes.KDF + 2), (short) 0x4545);
		Util.setShort(w, (short) (Aes.KDF + 4), (short) 0x4152);
		Util.setShort(w, (short) (Aes.KDF + 6), (short) 0x4541);
		Util.setShort(w, (short) (Aes.KDF + 8), (short) 0x2D58);
		w[(short) (Aes.KDF + 10)] = (byte) 0x31;
		Util.arrayCopyNonAtomic(b, (short) 5, w, (short) (Aes.KDF + 16), (short) 16);
		Util.arrayCopyNonAtomic(v, CHALLENGE, w, Aes.ALONE, (short) 16);
		reset();
		Util.arrayCopyNonAtomic(w, Aes.ALONE, v, CHAIN, (short) 16);
		sessionKeys(slot, set, (short) 32);
		Util.arrayFillNonAtomic(v, CHAIN, Aes.BLOCK, (byte) 0);
		JCSystem.getAID().getBytes(v, CHAIN);
		if (!verify(b, (short) 16)) {
			reset();
			ISOException.throwIt(ISO7816.SW_SECURITY_STATUS_NOT_SATISFIED);
		}
		v[LEVEL] = b[ISO7816.OFFSET_P2];
		v[STATE] = OPEN;
	}

	/** Verifies a command of the session and decrypts its data; n is the length of both. Returns that of the data. */
	short unwrap(byte[] b, short n) {
		n -= 8;
		if (n < 0 || (b[0] & 0x0C) != 0x04 || !verify(b, n)) {
			abort();
		}
		for (short i = COUNTER + 15; i >= COUNTER + 12; i--) {
			if (++v[i] != 0) {
				break;
			}
		}
		if ((v[LEVEL] & 0x02) == 0 || n == 0) {
			return n;
		}
		if ((n & 15) != 0) {
			abort();
		}
		vector((byte) 0);
		aes.decrypt(v, ENC, v[KEY_SIZE], b, (short) 5, n);
		short end = (short) (5 + n), i = (short) (end - 1);
		while (i > (short) (end - Aes.BLOCK) && b[i] == 0) {
			i--;
		}
		if (b[i] != (byte) 0x80 || i == 5) { // no data is not encrypted (AmdD 6.2.6)
			abort();
		}
		return (short) (i - 5);
	}

	/** What encrypts to the initial vector of the present command or, with 80, of its answer (AmdD 6.2.6, 6.2.7). */
	private void vector(byte first) {
		Util.arrayCopyNonAtomic(v, COUNTER, aes.work, Aes.ALONE, Aes.BLOCK);
		aes.work[Aes.ALONE] = first;
	}

	/** What fits into ne bytes of answer, protected. */
	short room(short ne) {
		ne -= 8;
		if ((v[LEVEL] & 0x20) != 0) {
			ne = (short) ((ne & ~15) - 1);
		}
		return ne < 0 ? 0 : ne;
	}

	/** Protects n bytes at the beginning of b and returns how many there are then. */
	short wrap(byte[] b, short n, short sw) {
		if ((v[LEVEL] & 0x20) != 0 && n > 0) {
			short end = (short) ((n & ~15) + Aes.BLOCK);
			b[n++] = (byte) 0x80;
			Util.arrayFillNonAtomic(b, n, (short) (end - n), (byte) 0);
			n = end;
			vector((byte) 0x80);
			aes.encrypt(v, ENC, v[KEY_SIZE], b, (short) 0, n);
		}
		Util.setShort(b, n, sw);
		short at = aes.cmac(v, RMAC, v[KEY_SIZE], v, CHAIN, b, (short) 0, (short) (n + 2));
		return Util.arrayCopyNonAtomic(aes.work, at, b, n, (short) 8);
	}
}
