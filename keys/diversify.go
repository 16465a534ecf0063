package keys

// Method is a diversification method by its name in the field.
type Method string

const (
	// MethodNone uses the stored keys as they are.
	MethodNone Method = "none"
	// MethodSP800108 derives with the KDF of SP 800-108 in counter mode over
	// AES-CMAC; see Diversify for the context.
	MethodSP800108 Method = "sp800-108-cmac"
)
