package jcvm

// nativesLang implements java.lang.
var nativesLang = withThrowables(map[string]native{
	"java/lang/Object.<init>()V":                   nothing,
	"java/lang/Object.equals(Ljava/lang/Object;)Z": func(_ *VM, a []slot) slot { return boolean(a[0] == a[1]) },
})

// nothing is a method that does nothing.
func nothing(*VM, []slot) slot { return 0 }

// withThrowables adds the constructors of exceptions, which do nothing.
func withThrowables(table map[string]native) map[string]native {
	for _, c := range []string{
		"Throwable", "Exception", "RuntimeException", "IndexOutOfBoundsException", "ArrayIndexOutOfBoundsException",
		"NegativeArraySizeException", "NullPointerException", "ClassCastException", "ArithmeticException",
		"SecurityException", "ArrayStoreException",
	} {
		table["java/lang/"+c+".<init>()V"] = nothing
	}
	return table
}
