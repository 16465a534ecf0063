package freearea.base;

/** common-ap: whoever holds a terminal reads it. */
public final class CommonAP extends Service {
	private CommonAP(byte[] b, short o) {
		super(COMMON_AP, b, o);
	}

	/** JCRE 3.1; docs/card-protocol.md, "Installation". */
	public static void install(byte[] b, short o, byte n) {
		new CommonAP(b, o).register(b, (short) (o + 1), b[o]);
	}
}
