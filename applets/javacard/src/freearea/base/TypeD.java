package freearea.base;

/** type-d: read after mutual authentication, encrypted. */
public final class TypeD extends Service {
	private TypeD(byte[] b, short o) {
		super(TYPE_D, b, o);
	}

	/** JCRE 3.1; docs/card-protocol.md, "Installation". */
	public static void install(byte[] b, short o, byte n) {
		new TypeD(b, o).register(b, (short) (o + 1), b[o]);
	}
}
