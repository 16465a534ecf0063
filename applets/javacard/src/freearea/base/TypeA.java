package freearea.base;

/** type-a: read after mutual authentication. */
public final class TypeA extends Service {
	private TypeA(byte[] b, short o) {
		super(TYPE_A, b, o);
	}

	/** JCRE 3.1; docs/card-protocol.md, "Installation". */
	public static void install(byte[] b, short o, byte n) {
		new TypeA(b, o).register(b, (short) (o + 1), b[o]);
	}
}
