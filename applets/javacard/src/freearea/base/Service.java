package freearea.base;

import javacard.framework.APDU;
import javacard.framework.APDUException;
import javacard.framework.Applet;
import javacard.framework.ISO7816;
import javacard.framework.ISOException;
import javacard.framework.JCSystem;
import javacard.framework.Util;
import javacard.security.RandomData;
import org.globalplatform.GPSystem;
import org.globalplatform.Personalization;
import org.globalplatform.SecureChannel;

/**
 * What the base applications have in common: files in two slots, reading, the
 * PIN, and personalisation through the Security Domain. Every byte is
 * docs/card-protocol.md's.
 *
 * Whatever changes after installation stands in byte arrays, never in fields:
 * a field is persistent, and a tap must write nothing.
 */
public abstract class Service extends Applet implements Personalization {
	/** Types, and the version of the protocol. */
	static final byte COMMON_AP = 0x01, TYPE_A = 0x0A, TYPE_D = 0x0D, VERSION = 0x01;

	/** A slot: lengths of EF.ID (1) and EF.ITEMS (2), number of key sets (1), tag; EF.ID; key sets; EF.ITEMS. */
	private static final short RECORD_SIZE = 0, ITEMS_SIZE = 1, SETS = 3, TAG = 4, RECORD = 20, RECORD_MAX = 224,
			KEYS = RECORD + RECORD_MAX;

	/** A key set in a slot. */
	static final short SET_VERSION = 0, SET_SIZE = 1, SET_ENC = 2, SET_MAC = 34;
	private static final short SET_LENGTH = 66;

	/** control: the slot that is served, or 0; a bit for each slot that is to be wiped. */
	private static final short ACTIVE = 0, DIRTY = 1;

	/** pin: tries left, limit (0: none set), flags, reference block. */
	private static final short TRIES = 0, LIMIT = 1, FLAGS = 2, REFERENCE = 3, PIN_SIZE = 15;

	/**
	 * staging: whether one is open, the block that is expected, what has come;
	 * limit, flags and reference block of a PIN. Behind it where the value of
	 * the data object ends that was looked at last.
	 */
	private static final short STAGING = 0, NEXT = 1, PARTS = 2, STAGED_PIN = 3, STAGING_SIZE = 17, VALUE_END = 17;
	private static final byte PART_RECORD = 1, PART_TAG = 2, PART_KEYS = 4, PART_PIN = 8, PART_KEPT = 16;

	private static final byte SELECTABLE = 0x07, PERSONALIZED = 0x0F; // GPCS table 11-4

	private static final byte READ_BINARY = (byte) 0xB0, VERIFY = 0x20, CHANGE_REFERENCE = 0x24;
	private static final short FILE_ID = 1, FILE_ITEMS = 2;

	private final byte type, keySets;
	private final short items;
	private final byte[] diversification; // null for common-ap
	private final byte[] control, slot1, slot2;
	private final byte[] pin; // null where there is none
	private final byte[] staging;
	private final Channel channel; // null for common-ap
	private final RandomData random;

	/** Allocates all that the instance will ever need; b holds what INSTALL says (JCRE 3.1). */
	Service(byte type, byte[] b, short o) {
		this.type = type;
		short p = (short) (o + 1 + b[o]); // privileges
		p += (short) (1 + b[p]); // value of C9
		short n = b[p++];
		boolean secured = type != COMMON_AP;
		if (n != (short) (secured ? 25 : 3) || Util.getShort(b, p) != (short) 0x8001 || b[(short) (p + 2)] != VERSION) {
			ISOException.throwIt(ISO7816.SW_WRONG_DATA);
		}
		byte sets = 0, hasPin = 0;
		short room = 0;
		if (secured) {
			sets = b[(short) (p + 17)];
			room = Util.getShort(b, (short) (p + 20));
			hasPin = b[(short) (p + 24)];
			if (Util.getShort(b, (short) (p + 3)) != (short) 0x810A || Util.getShort(b, (short) (p + 15)) != (short) 0x8201
					|| Util.getShort(b, (short) (p + 18)) != (short) 0x8302 || Util.getShort(b, (short) (p + 22)) != (short) 0x8401
					|| sets < 1 || sets > 4 || room < 0 || room > 1024 || (hasPin & 0xFE) != 0) {
				ISOException.throwIt(ISO7816.SW_WRONG_DATA);
			}
		}
		keySets = sets;
		items = room;
		control = new byte[2];
		short size = (short) (KEYS + sets * SET_LENGTH + room);
		slot1 = new byte[size];
		slot2 = new byte[size];
		pin = hasPin != 0 ? new byte[PIN_SIZE] : null;
		staging = JCSystem.makeTransientByteArray((short) (STAGING_SIZE + 2), JCSystem.CLEAR_ON_RESET);
		if (secured) {
			diversification = new byte[10];
			Util.arrayCopyNonAtomic(b, (short) (p + 5), diversification, (short) 0, (short) 10);
			channel = new Channel(new Aes());
			random = RandomData.getInstance(RandomData.ALG_SECURE_RANDOM);
		} else {
			diversification = null;
			channel = null;
			random = null;
		}
	}

	private byte[] slot(byte n) {
		return n == 1 ? slot1 : slot2;
	}

	/** The slot that is being filled, by number. */
	private byte inactive() {
		return (byte) (control[ACTIVE] == 1 ? 2 : 1);
	}

	private static byte bit(byte slot) {
		return slot; // bits 1 and 2; none for none
	}

	private void forget() {
		if (channel != null) {
			channel.reset();
			channel.aes.clear();
		}
	}

	public void deselect() {
		forget();
	}

	// Commands

	public void process(APDU apdu) {
		byte[] b = apdu.getBuffer();
		if (selectingApplet()) {
			forget();
			apdu.setOutgoingAndSend((short) 0, fci(b));
			return;
		}
		byte cla = b[ISO7816.OFFSET_CLA], ins = b[ISO7816.OFFSET_INS];
		if ((cla & 0x78) != 0) {
			ISOException.throwIt(ISO7816.SW_CLA_NOT_SUPPORTED);
		}
		if ((cla & 0x03) != 0) {
			ISOException.throwIt(ISO7816.SW_LOGICAL_CHANNEL_NOT_SUPPORTED);
		}
		if (ins == ISO7816.INS_SELECT) {
			// By AID: no application has it, and this one stays selected (GPCS 6.4.2.1.2).
			ISOException.throwIt(b[ISO7816.OFFSET_P1] == 0x04 ? ISO7816.SW_FILE_NOT_FOUND : ISO7816.SW_INCORRECT_P1P2);
		}
		if (control[ACTIVE] == 0) {
			ISOException.throwIt(ISO7816.SW_CONDITIONS_NOT_SATISFIED);
		}
		if (channel == null) {
			if ((cla & 0x04) != 0) {
				ISOException.throwIt(ISO7816.SW_SECURE_MESSAGING_NOT_SUPPORTED);
			}
			if (ins != READ_BINARY) {
				ISOException.throwIt(ISO7816.SW_INS_NOT_SUPPORTED);
			}
			// T=0 has no way to tell Le from the length of data.
			boolean t0 = (APDU.getProtocol() & 0x0F) == APDU.PROTOCOL_T0;
			short n = t0 ? 0 : receive(apdu, b);
			short length = read(b, n, apdu.setOutgoing());
			send(apdu, length);
			return;
		}
		try {
			secured(apdu, b, ins);
		} finally {
			channel.aes.clear();
		}
	}

	/** Takes the data of a command in, at 5 of the buffer, and returns its length. */
	private static short receive(APDU apdu, byte[] b) {
		short n = 0;
		try {
			n = apdu.setIncomingAndReceive();
		} catch (APDUException e) {
			// some runtime environments, for a command without data
		}
		if (n == 0) {
			return 0;
		}
		short all = (short) (b[ISO7816.OFFSET_LC] & 0xFF);
		while (n < all) {
			n += apdu.receiveBytes((short) (ISO7816.OFFSET_CDATA + n));
		}
		return n;
	}

	private static void send(APDU apdu, short n) {
		apdu.setOutgoingLength(n);
		apdu.sendBytes((short) 0, n);
	}

	/** Writes a tag and the length of its value. */
	private static short header(byte[] b, short at, byte tag, short n) {
		b[at++] = tag;
		if (n > 127) {
			b[at++] = (byte) 0x81;
		}
		b[at++] = (byte) n;
		return at;
	}

	private static short append(byte[] b, short at, byte tag, byte[] value, short from, short n) {
		return Util.arrayCopyNonAtomic(value, from, b, header(b, at, tag, n), n);
	}

	/** The answer to SELECT. What was left to be wiped when power was lost is wiped now. */
	private short fci(byte[] b) {
		finishWipe();
		boolean personalized = control[ACTIVE] != 0;
		byte[] slot = slot(control[ACTIVE]);
		short record = (short) (slot[RECORD_SIZE] & 0xFF), own = 4;
		if (channel != null) {
			own += 12;
			if (personalized) {
				own += (short) (18 + 2 + slot[SETS]);
			}
		} else if (personalized) {
			own += (short) (2 + record + (record > 127 ? 1 : 0));
		}
		byte aid = JCSystem.getAID().getBytes(b, (short) 5);
		// The AID stands where it will be if both lengths take two bytes.
		short at = header(b, (short) 0, (byte) 0x6F, (short) (2 + aid + 2 + own + (own > 127 ? 1 : 0)));
		at = append(b, at, (byte) 0x84, b, (short) 5, aid);
		at = header(b, at, (byte) 0xA5, own);
		at = header(b, at, (byte) 0x80, (short) 2);
		b[at++] = type;
		b[at++] = VERSION;
		if (channel == null) {
			return personalized ? append(b, at, (byte) 0x85, slot, RECORD, record) : at;
		}
		if (personalized) {
			random.generateData(channel.v, Channel.CHALLENGE, (short) 16);
			channel.v[Channel.FRESH] = 1;
			at = append(b, at, (byte) 0x81, channel.v, Channel.CHALLENGE, (short) 16);
		}
		at = append(b, at, (byte) 0x82, diversification, (short) 0, (short) 10);
		return personalized ? versions(b, at) : at;
	}

	/** The key versions of the slot that is served, as tag 83. */
	private short versions(byte[] b, short at) {
		byte[] slot = slot(control[ACTIVE]);
		at = header(b, at, (byte) 0x83, slot[SETS]);
		for (byte i = 0; i < slot[SETS]; i++) {
			b[at++] = slot[set(i)];
		}
		return at;
	}

	private static short set(byte i) {
		return (short) (KEYS + i * SET_LENGTH);
	}

	/** Where the key set of a version begins; 0 is the newest, which stands first. */
	private short find(byte version) {
		byte[] slot = slot(control[ACTIVE]);
		for (byte i = 0; i < slot[SETS]; i++) {
			if (version == 0 || slot[set(i)] == version) {
				return set(i);
			}
		}
		ISOException.throwIt((short) 0x6A88);
		return 0;
	}

	/** A PIN is always encrypted, and so is everything of type D. */
	boolean accepts(byte level) {
		return level == 0x33 || type == TYPE_A && (level == 0x13 || level == 0x11 && pin == null);
	}

	private void secured(APDU apdu, byte[] b, byte ins) {
		byte[] slot = slot(control[ACTIVE]);
		Channel c = channel;
		byte[] v = c.v;
		short n = receive(apdu, b);
		switch (ins) {
		case (byte) 0x50: // INITIALIZE UPDATE
			c.reset();
			if ((b[0] & 0x8C) != 0x80) {
				ISOException.throwIt(ISO7816.SW_CLA_NOT_SUPPORTED);
			}
			if (b[ISO7816.OFFSET_P2] != 0) {
				ISOException.throwIt(ISO7816.SW_INCORRECT_P1P2);
			}
			if (n != 8) {
				ISOException.throwIt(ISO7816.SW_WRONG_LENGTH);
			}
			short set = find(b[ISO7816.OFFSET_P1]);
			random.generateData(v, Channel.CHALLENGE, (short) 8);
			Util.arrayCopyNonAtomic(v, Channel.CHALLENGE, b, (short) 13, (short) 8);
			c.initialize(slot, set, b, (short) 21);
			Util.arrayCopyNonAtomic(diversification, (short) 0, b, (short) 0, (short) 10);
			b[10] = slot[set];
			b[11] = 0x03;
			b[12] = 0x60;
			apdu.setOutgoing();
			send(apdu, (short) 29);
			return;
		case (byte) 0x82: // EXTERNAL AUTHENTICATE
			c.authenticate(b, n, this);
			return;
		case (byte) 0x54: // EXPRESS
			if (b[0] != (byte) 0x84) {
				ISOException.throwIt(ISO7816.SW_CLA_NOT_SUPPORTED);
			}
			if (n != 24 || apdu.setOutgoing() < 256) { // the answer could not be fetched again
				ISOException.throwIt(ISO7816.SW_WRONG_LENGTH);
			}
			if (b[ISO7816.OFFSET_P1] == 0) {
				ISOException.throwIt((short) 0x6A88);
			}
			short at = find(b[ISO7816.OFFSET_P1]);
			if (!accepts(b[ISO7816.OFFSET_P2]) || v[Channel.FRESH] == 0) {
				ISOException.throwIt(ISO7816.SW_SECURITY_STATUS_NOT_SATISFIED);
			}
			c.express(slot, at, b);
			send(apdu, c.wrap(b, pin == null ? record(b) : 0, ISO7816.SW_NO_ERROR));
			return;
		}
		boolean known = ins == READ_BINARY || ins == VERIFY || ins == CHANGE_REFERENCE;
		if (!c.open()) {
			ISOException.throwIt(known ? ISO7816.SW_SECURITY_STATUS_NOT_SATISFIED : ISO7816.SW_INS_NOT_SUPPORTED);
		}
		n = c.unwrap(b, n);
		if (!known) {
			ISOException.throwIt(ISO7816.SW_INS_NOT_SUPPORTED);
		}
		short ne = c.room(apdu.setOutgoing());
		short sw = ISO7816.SW_NO_ERROR;
		if (ins == READ_BINARY) {
			if (pin != null && v[Channel.VERIFIED] == 0) {
				ISOException.throwIt(ISO7816.SW_SECURITY_STATUS_NOT_SATISFIED);
			}
			n = read(b, n, ne);
		} else {
			sw = present(b, n, ins == CHANGE_REFERENCE, ne);
			n = sw == ISO7816.SW_NO_ERROR && ins == VERIFY ? record(b) : 0;
		}
		send(apdu, c.wrap(b, n, sw));
		if (sw != ISO7816.SW_NO_ERROR) {
			ISOException.throwIt(sw);
		}
	}

	/** Copies EF.ID to the beginning of b. */
	private short record(byte[] b) {
		byte[] slot = slot(control[ACTIVE]);
		return Util.arrayCopyNonAtomic(slot, RECORD, b, (short) 0, (short) (slot[RECORD_SIZE] & 0xFF));
	}

	/**
	 * READ BINARY by short file identifier, or on in the current file (ISO/IEC
	 * 7816-4, 11.3.2): n bytes of data came, and ne of the answer fit.
	 */
	private short read(byte[] b, short n, short ne) {
		byte p1 = b[ISO7816.OFFSET_P1];
		byte[] slot = slot(control[ACTIVE]);
		byte file = 0;
		short offset = (short) (b[ISO7816.OFFSET_P2] & 0xFF);
		if (p1 >= 0) {
			if (channel != null) {
				file = channel.v[Channel.FILE];
			}
			if (file == 0) {
				ISOException.throwIt(ISO7816.SW_COMMAND_NOT_ALLOWED);
			}
			offset |= (short) (p1 << 8);
		} else if ((p1 & 0x60) != 0) {
			ISOException.throwIt(ISO7816.SW_INCORRECT_P1P2);
		} else {
			file = (byte) (p1 & 0x1F);
		}
		short at = RECORD, size = (short) (slot[RECORD_SIZE] & 0xFF);
		if (file == FILE_ITEMS && channel != null) {
			at = set(keySets);
			size = Util.getShort(slot, ITEMS_SIZE);
		} else if (file != FILE_ID) {
			ISOException.throwIt(ISO7816.SW_FILE_NOT_FOUND);
		}
		if (n != 0 || ne == 0) {
			ISOException.throwIt(ISO7816.SW_WRONG_LENGTH);
		}
		if (offset > size) {
			ISOException.throwIt(ISO7816.SW_WRONG_P1P2);
		}
		if (channel != null) {
			channel.v[Channel.FILE] = file;
		}
		size -= offset;
		if (size > ne) {
			size = ne;
		}
		Util.arrayCopyNonAtomic(slot, (short) (at + offset), b, (short) 0, size);
		return size;
	}

	// PIN

	/** Whether 12 bytes are 4 to 12 digits and then FF. */
	private static boolean block(byte[] b, short o) {
		short end = (short) (o + 12), i = o;
		while (i < end && b[i] >= '0' && b[i] <= '9') {
			i++;
		}
		if (i < (short) (o + 4)) {
			return false;
		}
		for (; i < end; i++) {
			if (b[i] != (byte) 0xFF) {
				return false;
			}
		}
		return true;
	}

	/** VERIFY or CHANGE REFERENCE DATA; returns 9000 or 63Cx and throws everything else. */
	private short present(byte[] b, short n, boolean change, short ne) {
		final short data = ISO7816.OFFSET_CDATA, replacement = ISO7816.OFFSET_CDATA + 12;
		if (b[ISO7816.OFFSET_P1] != 0) {
			ISOException.throwIt(ISO7816.SW_INCORRECT_P1P2);
		}
		if (b[ISO7816.OFFSET_P2] != 1 || pin == null) {
			ISOException.throwIt((short) 0x6A88);
		}
		if (n != (short) (change ? 24 : 12)) {
			ISOException.throwIt(ISO7816.SW_WRONG_LENGTH);
		}
		if (!block(b, data) || change && (!block(b, replacement) || Aes.same(b, data, b, replacement, (short) 12))) {
			ISOException.throwIt(ISO7816.SW_WRONG_DATA);
		}
		if (!change && ne < (short) (slot(control[ACTIVE])[RECORD_SIZE] & 0xFF)) {
			ISOException.throwIt(ISO7816.SW_WRONG_LENGTH);
		}
		byte tries = pin[TRIES];
		if (tries == 0) {
			ISOException.throwIt((short) 0x6983);
		}
		channel.v[Channel.VERIFIED] = 0;
		// The try is gone before the comparison begins: power lost in between
		// costs one and never gives one.
		Util.arrayFillNonAtomic(pin, TRIES, (short) 1, --tries);
		if (!Aes.same(pin, REFERENCE, b, data, (short) 12)) {
			return (short) (0x63C0 | tries);
		}
		if (change) {
			// One write: after power is lost it is the old PIN with a try less, or
			// the new one with all.
			short head = (short) (replacement - 3);
			b[head] = pin[LIMIT];
			b[(short) (head + 1)] = pin[LIMIT];
			b[(short) (head + 2)] = 0;
			Util.arrayCopy(b, head, pin, TRIES, PIN_SIZE);
		} else {
			Util.arrayFillNonAtomic(pin, TRIES, (short) 1, pin[LIMIT]);
			if (pin[FLAGS] != 0) {
				ISOException.throwIt(ISO7816.SW_DATA_INVALID);
			}
		}
		channel.v[Channel.VERIFIED] = 1;
		return ISO7816.SW_NO_ERROR;
	}

	// Personalisation

	/** One STORE DATA command, header and data (GPCS 7.3.3, 11.11). */
	public short processData(byte[] b, short o, short length, byte[] out, short outAt) {
		SecureChannel sd = GPSystem.getSecureChannel();
		// AUTHENTICATED, C-MAC, C-DECRYPTION: the interface can be called over any channel.
		if ((sd.getSecurityLevel() & 0x83) != 0x83) {
			ISOException.throwIt(ISO7816.SW_SECURITY_STATUS_NOT_SATISFIED);
		}
		byte state = GPSystem.getCardContentState();
		if (state != SELECTABLE && state != PERSONALIZED) {
			ISOException.throwIt(ISO7816.SW_CONDITIONS_NOT_SATISFIED);
		}
		if (b[(short) (o + ISO7816.OFFSET_INS)] != (byte) 0xE2) {
			ISOException.throwIt(ISO7816.SW_INS_NOT_SUPPORTED);
		}
		if (staging[STAGING] == 0) {
			finishWipe();
		}
		byte p1 = b[(short) (o + ISO7816.OFFSET_P1)], p2 = b[(short) (o + ISO7816.OFFSET_P2)];
		if ((p1 & 0x1E) != 0x08) {
			refuse(ISO7816.SW_INCORRECT_P1P2);
		}
		short at = (short) (o + ISO7816.OFFSET_CDATA), end = (short) (o + length), groups = 0;
		for (short i = at; i < end; groups++) {
			short left = (short) (end - i - 3);
			short n = left < 0 ? 255 : (short) (b[(short) (i + 2)] & 0xFF);
			if (n == 255 || n > left) {
				refuse(ISO7816.SW_WRONG_DATA);
			}
			i += (short) (3 + n);
		}
		if (groups == 0) {
			refuse(ISO7816.SW_WRONG_DATA);
		}
		short id = Util.getShort(b, at), n = (short) (b[(short) (at + 2)] & 0xFF);
		at += 3;
		if ((p1 & 0x01) != 0) {
			if (groups != 1 || id != 0x0F00) {
				ISOException.throwIt((short) 0x6A88);
			}
			if (n != 0) {
				ISOException.throwIt(ISO7816.SW_WRONG_DATA);
			}
			return (short) (observe(out, outAt) - outAt);
		}
		if (id == 0x0F0F) {
			if (groups != 1 || n != 4 || Util.getShort(b, at) != 0x5749 || Util.getShort(b, (short) (at + 2)) != 0x5045) {
				refuse(ISO7816.SW_WRONG_DATA);
			}
			if (p2 != 0 || p1 >= 0) {
				refuse(ISO7816.SW_INCORRECT_P1P2);
			}
			wipe();
			return 0;
		}
		if (p2 == 0) {
			begin(b, id, at, n);
			at += n;
		} else {
			if (staging[STAGING] == 0 || p2 != staging[NEXT]) {
				refuse(ISO7816.SW_CONDITIONS_NOT_SATISFIED);
			}
			at -= 3;
		}
		while (at < end) {
			n = (short) (b[(short) (at + 2)] & 0xFF);
			stage(b, Util.getShort(b, at), (short) (at + 3), n, sd);
			at += (short) (3 + n);
		}
		if (p1 < 0) {
			complete();
			flip();
			return 0;
		}
		staging[NEXT] = ++p2;
		if (p2 == 0) { // no number is left for another block
			refuse(ISO7816.SW_CONDITIONS_NOT_SATISFIED);
		}
		return 0;
	}

	/** Ends the staging, and the command: only block 00 can follow. */
	private void refuse(short sw) {
		discard();
		ISOException.throwIt(sw);
	}

	private void discard() {
		Util.arrayFillNonAtomic(staging, (short) 0, STAGING_SIZE, (byte) 0);
		if (channel != null) {
			channel.aes.clear();
		}
	}

	/** Discards what was staged and opens the slot that is not served. */
	private void begin(byte[] b, short id, short at, short n) {
		discard();
		byte number = inactive();
		byte[] slot = slot(number);
		if (control[DIRTY] != bit(number)) {
			control[DIRTY] = bit(number);
		}
		zero(slot);
		if (id != 0x0100 || n != 1 || (b[at] & 0xFE) != 0 || b[at] != 0 && channel == null) {
			refuse(ISO7816.SW_WRONG_DATA);
		}
		staging[STAGING] = 1;
		if (b[at] == 0) {
			return;
		}
		if (control[ACTIVE] == 0) {
			refuse(ISO7816.SW_CONDITIONS_NOT_SATISFIED);
		}
		byte[] from = slot(control[ACTIVE]);
		Util.arrayCopyNonAtomic(from, KEYS, slot, KEYS, (short) (keySets * SET_LENGTH));
		slot[SETS] = from[SETS];
		staging[PARTS] = PART_KEYS | PART_KEPT;
	}

	/** Whether a part has not come before; notes that it has. */
	private boolean once(byte part) {
		boolean fresh = (staging[PARTS] & part) == 0;
		staging[PARTS] |= part;
		return fresh;
	}

	/**
	 * Takes one data group in. Nobody reads the slot before the flip, so nothing
	 * need be atomic.
	 */
	private void stage(byte[] b, short id, short at, short n, SecureChannel sd) {
		byte[] slot = slot(inactive());
		switch (id) {
		case 0x0101:
			if (n > RECORD_MAX) {
				refuse(ISO7816.SW_FILE_FULL);
			}
			if (issueNumber(b, at, (short) (at + n)) < 0 || !once(PART_RECORD)) {
				refuse(ISO7816.SW_WRONG_DATA);
			}
			Util.arrayCopyNonAtomic(b, at, slot, RECORD, n);
			slot[RECORD_SIZE] = (byte) n;
			return;
		case 0x0110:
			if (n != 16 || !once(PART_TAG)) {
				refuse(ISO7816.SW_WRONG_DATA);
			}
			Util.arrayCopyNonAtomic(b, at, slot, TAG, n);
			return;
		case 0x0102:
			if (channel != null) {
				short have = Util.getShort(slot, ITEMS_SIZE);
				if (n < 3 || Util.getShort(b, at) != have) {
					refuse(ISO7816.SW_WRONG_DATA);
				}
				n -= 2;
				if ((short) (have + n) > items) {
					refuse(ISO7816.SW_FILE_FULL);
				}
				Util.arrayCopyNonAtomic(b, (short) (at + 2), slot, (short) (set(keySets) + have), n);
				Util.setShort(slot, ITEMS_SIZE, (short) (have + n));
				return;
			}
			break;
		case (short) 0x8101:
			if (channel != null) {
				stageKeys(b, at, n, slot, sd);
				return;
			}
			break;
		case (short) 0x8201:
			if (pin != null) {
				stagePin(b, at, n, sd);
				return;
			}
			break;
		}
		refuse((short) 0x6A88);
	}

	/** Decrypts under the Security Domain's DEK in place. */
	private void decrypt(SecureChannel sd, byte[] b, short at, short n) {
		short got = 0;
		try {
			got = sd.decryptData(b, at, n);
		} catch (ISOException e) {
			// the same as a wrong length
		}
		if (got != n) {
			refuse(ISO7816.SW_SECURITY_STATUS_NOT_SATISFIED);
		}
	}

	/** Version, key length, check values of ENC and MAC; both keys under the DEK. */
	private void stageKeys(byte[] b, short at, short n, byte[] slot, SecureChannel sd) {
		if (n < 8) {
			refuse(ISO7816.SW_WRONG_DATA);
		}
		byte version = b[at], size = b[(short) (at + 1)];
		if (size != 16 && size != 32 || n != (short) (8 + 2 * size) || version < 1) {
			refuse(ISO7816.SW_WRONG_DATA);
		}
		byte count = slot[SETS];
		if ((staging[PARTS] & PART_KEPT) != 0) {
			refuse(ISO7816.SW_CONDITIONS_NOT_SATISFIED);
		}
		if (count == keySets) {
			refuse(ISO7816.SW_FILE_FULL);
		}
		short to = set(count), keys = (short) (at + 8);
		// The newest stands first: what INITIALIZE UPDATE with version 00 takes.
		if (count > 0 && slot[(short) (to - SET_LENGTH)] <= version) {
			refuse(ISO7816.SW_WRONG_DATA);
		}
		n -= 8;
		decrypt(sd, b, keys, n);
		if (!check(b, keys, size, (short) (at + 2)) || !check(b, (short) (keys + size), size, (short) (at + 5))) {
			Util.arrayFillNonAtomic(b, keys, n, (byte) 0);
			refuse(ISO7816.SW_SECURITY_STATUS_NOT_SATISFIED);
		}
		slot[to] = version;
		slot[(short) (to + SET_SIZE)] = size;
		Util.arrayCopyNonAtomic(b, keys, slot, (short) (to + SET_ENC), size);
		Util.arrayCopyNonAtomic(b, (short) (keys + size), slot, (short) (to + SET_MAC), size);
		slot[SETS] = ++count;
		Util.arrayFillNonAtomic(b, keys, n, (byte) 0);
		staging[PARTS] |= PART_KEYS;
	}

	/** Whether the check value of a key is the 3 bytes at an offset (GPCS B.6). */
	private boolean check(byte[] b, short key, byte size, short want) {
		Aes aes = channel.aes;
		Util.arrayFillNonAtomic(aes.work, Aes.ALONE, Aes.BLOCK, (byte) 1);
		aes.block(b, key, size);
		boolean right = Aes.same(aes.work, Aes.ALONE, b, want, (short) 3);
		aes.clear();
		return right;
	}

	/** Limit, flags; reference block and its padding under the DEK. */
	private void stagePin(byte[] b, short at, short n, SecureChannel sd) {
		if (n != 18 || b[at] < 1 || b[at] > 15 || (b[(short) (at + 1)] & 0xFE) != 0 || !once(PART_PIN)) {
			refuse(ISO7816.SW_WRONG_DATA);
		}
		short reference = (short) (at + 2);
		decrypt(sd, b, reference, (short) 16);
		boolean right = Util.getShort(b, (short) (at + 14)) == (short) 0x8000 && Util.getShort(b, (short) (at + 16)) == 0
				&& block(b, reference);
		if (right) {
			Util.arrayCopyNonAtomic(b, at, staging, STAGED_PIN, (short) 14);
		}
		Util.arrayFillNonAtomic(b, reference, (short) 16, (byte) 0);
		if (!right) {
			refuse(ISO7816.SW_SECURITY_STATUS_NOT_SATISFIED);
		}
	}

	/** Refuses to end a staging that does not hold all that this instance needs. */
	private void complete() {
		byte need = PART_RECORD | PART_TAG;
		if (channel != null) {
			need |= PART_KEYS;
		}
		if (pin != null && pin[LIMIT] == 0) {
			need |= PART_PIN;
		}
		if ((staging[PARTS] & need) != need) {
			refuse(ISO7816.SW_CONDITIONS_NOT_SATISFIED);
		}
		byte[] slot = slot(inactive());
		short n = Util.getShort(slot, ITEMS_SIZE);
		if (n == 0) {
			return;
		}
		short at = set(keySets), end = (short) (at + n), value = value(slot, at, end);
		// Its last part is missing, for one.
		if (slot[at] != (byte) 0xE1 || value < 0 || valueEnd() != end || !objects(slot, value, end)) {
			refuse(ISO7816.SW_WRONG_DATA);
		}
	}

	/**
	 * Makes the staged slot the one that is served, in one transaction of 2
	 * bytes, 15 for a PIN and the life cycle state. The mark that the slot which
	 * was served is to be wiped is part of it.
	 */
	private void flip() {
		byte old = control[ACTIVE], fresh = inactive();
		JCSystem.beginTransaction();
		control[ACTIVE] = fresh;
		control[DIRTY] = bit(old);
		if ((staging[PARTS] & PART_PIN) != 0) {
			pin[TRIES] = staging[STAGED_PIN];
			Util.arrayCopy(staging, STAGED_PIN, pin, LIMIT, (short) 14);
		}
		state(PERSONALIZED);
		JCSystem.commitTransaction();
		discard();
		finishWipe();
	}

	/** Sets the life cycle state, within a transaction. */
	private void state(byte wanted) {
		if (GPSystem.getCardContentState() != wanted && !GPSystem.setCardContentState(wanted)) {
			JCSystem.abortTransaction();
			refuse((short) 0x6581);
		}
	}

	/** Empties the instance: it is, from the commit on, and the bytes follow. */
	private void wipe() {
		discard();
		JCSystem.beginTransaction();
		control[ACTIVE] = 0;
		control[DIRTY] = 3;
		if (pin != null) {
			Util.arrayCopy(staging, STAGING, pin, TRIES, PIN_SIZE); // zeros by now
		}
		state(SELECTABLE);
		JCSystem.commitTransaction();
		finishWipe();
	}

	/**
	 * Wipes the slots that are marked; where none is, nothing is written. It ends
	 * a staging, whose slot is marked as long as it lasts.
	 */
	private void finishWipe() {
		byte dirty = control[DIRTY];
		if (dirty == 0) {
			return;
		}
		discard();
		if ((dirty & 1) != 0) {
			zero(slot1);
		}
		if ((dirty & 2) != 0) {
			zero(slot2);
		}
		control[DIRTY] = 0;
	}

	private static void zero(byte[] slot) {
		Util.arrayFillNonAtomic(slot, (short) 0, (short) slot.length, (byte) 0);
	}

	/** What the instance says of itself to its Security Domain; returns where it ends. */
	private short observe(byte[] b, short at) {
		byte active = control[ACTIVE];
		byte[] slot = slot(active);
		at = header(b, at, (byte) 0x80, (short) 2);
		b[at++] = type;
		b[at++] = VERSION;
		at = header(b, at, (byte) 0x81, (short) 2);
		b[at++] = GPSystem.getCardContentState();
		b[at++] = active;
		if (channel != null) {
			at = append(b, at, (byte) 0x82, diversification, (short) 0, (short) 10);
			if (active != 0) {
				at = versions(b, at);
			}
		}
		if (active != 0) {
			at = append(b, at, (byte) 0x84, slot, TAG, (short) 16);
			short number = issueNumber(slot, RECORD, (short) (RECORD + (slot[RECORD_SIZE] & 0xFF)));
			at = append(b, at, (byte) 0x85, slot, number, (short) 2);
		}
		if (channel != null) {
			at = header(b, at, (byte) 0x86, (short) 4);
			b[at++] = keySets;
			at = Util.setShort(b, at, items);
			b[at++] = (byte) (pin != null ? 1 : 0);
		}
		if (pin != null && pin[LIMIT] != 0) {
			at = append(b, at, (byte) 0x87, pin, TRIES, (short) 3);
		}
		return at;
	}

	// BER-TLV

	/**
	 * Looks at a data object: tag of 1 to 3 bytes, length of 1 to 3, both minimal.
	 * Returns where its value begins, -1 for what is none; see valueEnd.
	 */
	private short value(byte[] b, short at, short end) {
		byte tag = b[at++];
		if (tag == 0) {
			return -1;
		}
		if ((tag & 0x1F) == 0x1F) {
			if (at == end || (b[at] & 0x7F) == 0 || b[at] >= 0 && b[at] < 0x1F) {
				return -1;
			}
			if (b[at++] < 0 && (at == end || b[at++] < 0)) {
				return -1;
			}
		}
		if (at == end) {
			return -1;
		}
		short n = b[at++];
		if (n == (byte) 0x81) {
			if (at == end || b[at] >= 0) {
				return -1;
			}
			n = (short) (b[at++] & 0xFF);
		} else if (n == (byte) 0x82) {
			if ((short) (end - at) < 2) {
				return -1;
			}
			n = Util.getShort(b, at);
			at += 2;
			if (n >= 0 && n < 256) {
				return -1;
			}
		}
		if (n < 0 || n > (short) (end - at)) {
			return -1;
		}
		Util.setShort(staging, VALUE_END, (short) (at + n));
		return at;
	}

	private short valueEnd() {
		return Util.getShort(staging, VALUE_END);
	}

	/** Whether bytes are data objects to their end. */
	private boolean objects(byte[] b, short at, short end) {
		for (; at < end; at = valueEnd()) {
			if (value(b, at, end) < 0) {
				return false;
			}
		}
		return true;
	}

	/** Where the value of tag C3 of EF.ID begins, -1 where EF.ID has none or is none. */
	private short issueNumber(byte[] b, short at, short end) {
		if (!objects(b, at, end)) {
			return -1;
		}
		for (; at < end; at = valueEnd()) {
			short value = value(b, at, end);
			if (b[at] == (byte) 0xC3) {
				return valueEnd() == (short) (value + 2) ? value : -1;
			}
		}
		return -1;
	}
}
