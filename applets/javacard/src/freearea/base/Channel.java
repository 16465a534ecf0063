package freearea.base;

import javacard.framework.ISO7816;
import javacard.framework.ISOException;
import javacard.framework.JCSystem;
import javacard.framework.Util;

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
	 * The KDF of AmdD 4.1.5 in counter mode with CMAC. The message is in work
	 * memory but for the constant, length and counter; context says how long the
	 * context is. The result goes to v.
	 */
	private void derive(byte[] set, short keyAt, byte constant, byte size, short context, short to) {
		byte[] w = aes.work;
		w[(short) (Aes.KDF + 11)] = constant;
		w[(short) (Aes.KDF + 12)] = 0;
		Util.setShort(w, (short) (Aes.KDF + 13), (short) (size << 3));
		byte keySize = v[KEY_SIZE];
		byte i = 1;
		for (byte done = 0; done < size; done += Aes.BLOCK) {
			w[(short) (Aes.KDF + 15)] = i++;
			aes.cmac(set, keyAt, keySize, w, Aes.KDF, w, (short) (Aes.KDF + 16), context);
			byte n = (byte) (size - done);
			Util.arrayCopyNonAtomic(w, Aes.OUT, v, (short) (to + done), n < Aes.BLOCK ? n : Aes.BLOCK);
		}
	}

	/** The session keys of a key set; see Service for how it is stored. */
	private void sessionKeys(byte[] slot, short set, short context) {
		byte n = slot[(short) (set + Service.SET_SIZE)];
		v[KEY_SIZE] = n;
		derive(slot, (short) (set + Service.SET_ENC), (byte) 4, n, context, ENC);
		derive(slot, (short) (set + Service.SET_MAC), (byte) 6, n, context, MAC);
		derive(slot, (short) (set + Service.SET_MAC), (byte) 7, n, context, RMAC);
	}

	/**
	 * Begins: the host's challenge stands at 5 of b, the card's in CHALLENGE. The
	 * card's cryptogram goes to b at the offset.
	 */
	void initialize(byte[] slot, short set, byte[] b, short cryptogram) {
		byte[] w = aes.work;
		Util.arrayFillNonAtomic(w, Aes.KDF, (short) 11, (byte) 0);
		Util.arrayCopyNonAtomic(b, (short) 5, w, (short) (Aes.KDF + 16), (short) 8);
		Util.arrayCopyNonAtomic(v, CHALLENGE, w, (short) (Aes.KDF + 24), (short) 8);
		sessionKeys(slot, set, (short) 16);
		derive(v, MAC, (byte) 0, (byte) 8, (short) 16, CHALLENGE);
		Util.arrayCopyNonAtomic(v, CHALLENGE, b, cryptogram, (short) 8);
		derive(v, MAC, (byte) 1, (byte) 8, (short) 16, COUNTER);
		Util.arrayFillNonAtomic(v, CHALLENGE, (short) 16, (byte) 0);
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
		} else {
			Util.arrayCopyNonAtomic(v, COUNTER, aes.work, Aes.OUT, (short) 8);
			if (!aes.matches(b, (short) 5, (byte) 8)) {
				sw = (short) 0x6300;
			}
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
		aes.cmac(v, MAC, v[KEY_SIZE], v, CHAIN, b, (short) 0, (short) (5 + n));
		b[0] = cla;
		Util.arrayCopyNonAtomic(aes.work, Aes.OUT, v, CHAIN, Aes.BLOCK);
		return aes.matches(b, (short) (5 + n), (byte) 8);
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
		Util.arrayCopyNonAtomic(v, CHALLENGE, w, (short) (Aes.KDF + 32), (short) 16);
		reset();
		sessionKeys(slot, set, (short) 32);
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
		aes.cbc(v, ENC, v[KEY_SIZE], false, b, (short) 5, n);
		short end = (short) (5 + n), i = (short) (end - 1);
		while (i > (short) (end - Aes.BLOCK) && b[i] == 0) {
			i--;
		}
		if (b[i] != (byte) 0x80 || i == 5) { // no data is not encrypted (AmdD 6.2.6)
			abort();
		}
		return (short) (i - 5);
	}

	/** The initial vector of the present command or, with 80, of its answer (AmdD 6.2.6, 6.2.7). */
	private void vector(byte first) {
		Util.arrayCopyNonAtomic(v, COUNTER, aes.work, Aes.LAST, Aes.BLOCK);
		aes.work[Aes.LAST] = first;
		aes.block(v, ENC, v[KEY_SIZE], Aes.LAST);
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
			b[n++] = (byte) 0x80;
			while ((n & 15) != 0) {
				b[n++] = 0;
			}
			vector((byte) 0x80);
			aes.cbc(v, ENC, v[KEY_SIZE], true, b, (short) 0, n);
		}
		Util.setShort(b, n, sw);
		aes.cmac(v, RMAC, v[KEY_SIZE], v, CHAIN, b, (short) 0, (short) (n + 2));
		Util.arrayCopyNonAtomic(aes.work, Aes.OUT, b, n, (short) 8);
		return (short) (n + 8);
	}
}
