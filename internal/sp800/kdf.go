package sp800

// CounterKDF fills out with key material by the KDF in counter mode
// (SP 800-108, 4.1) with AES-CMAC as the PRF and a counter of 8 bits:
//
//	K(i) = CMAC(before ‖ i ‖ after), i = 1, 2, …
//
// The fixed input data stands before the counter, after it, or on both sides,
// as the protocol at hand says. It panics when out is longer than 255 blocks,
// since the counter would repeat.
func CounterKDF(m *CMAC, before, after, out []byte) {
	if len(out) > 255*Size {
		panic("sp800: derived key too long for an 8-bit counter")
	}
	for i := byte(1); len(out) > 0; i++ {
		m.Reset()
		m.Write(before)
		m.Write([]byte{i})
		m.Write(after)
		k := m.Sum()
		n := copy(out, k[:])
		clear(k[:])
		out = out[n:]
	}
	m.Reset()
}
