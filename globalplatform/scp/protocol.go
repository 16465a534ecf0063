package scp

import "fmt"

// Protocol is a secure channel protocol with its options, the "i" parameter.
// Which ones there are here is said by Valid.
type Protocol struct {
	Number byte // 03 or 02
	I      byte // which of the protocol's options the card has
}

// The protocols that package scp speaks. Of SCP03 every one can be in mode S16
// too: I | 01.
var (
	// SCP03 is what the base applications of this module speak: random
	// challenges, R-MAC and R-ENCRYPTION.
	SCP03 = Protocol{3, iRMAC | iREncryption}
	// SCP03S16 is SCP03 with challenges, cryptograms and MACs of 16 bytes.
	SCP03S16 = Protocol{3, iRMAC | iREncryption | iS16}
	// SCP02 is the usual one of its options. It is deprecated by
	// GlobalPlatform: single DES inside its MAC, and no randomness that the
	// host adds to the session keys.
	SCP02 = Protocol{2, 0x55}
)

// Bits of the "i" parameter of SCP03 (AmdD table 5-1; S16 by Amendment D 1.2).
const (
	iS16          = 0x01
	iPseudoRandom = 0x10
	iRMAC         = 0x20
	iREncryption  = 0x40
)

// Bits of the "i" parameter of SCP02 (GPCS table E-1; R-MAC by the editions
// of the Card Specification before 2.3). The lower five bits of 15, 55, 35 and
// 75 are alike: three keys, C-MAC on the modified APDU, explicit initiation,
// ICV zero, encrypted for the next C-MAC.
const (
	i02Options      = 0x15
	i02RMAC         = 0x20
	i02PseudoRandom = 0x40
)

// Valid reports whether package scp speaks the protocol: SCP03 with "i" = 00,
// 10, 20, 30, 60, 70 (AmdD table 5-1) or the same in mode S16, and SCP02 with
// "i" = 15, 55, 35, 75.
func (p Protocol) Valid() bool {
	switch p.Number {
	case 3:
		switch p.I &^ iS16 {
		case 0x00, 0x10, 0x20, 0x30, 0x60, 0x70:
			return true
		}
	case 2:
		return p.I&^(i02RMAC|i02PseudoRandom) == i02Options
	}
	return false
}

// Deprecated reports a protocol that should not carry secrets any more: SCP02.
func (p Protocol) Deprecated() bool { return p.Number == 2 }

// S16 reports SCP03 with challenges, cryptograms and MACs of 16 bytes.
func (p Protocol) S16() bool { return p.Number == 3 && p.I&iS16 != 0 }

// PseudoRandom reports whether the card computes its challenge from a
// sequence counter and the application's AID instead of drawing it.
func (p Protocol) PseudoRandom() bool {
	if p.Number == 2 {
		return p.I&i02PseudoRandom != 0
	}
	return p.I&iPseudoRandom != 0
}

// Supports reports whether the protocol has the level and "i" allows it:
// R-MAC and R-ENCRYPTION are options, R-MAC alone exists in SCP02 only, and
// R-ENCRYPTION in SCP03 only.
func (p Protocol) Supports(l Level) bool {
	if p.Number == 2 {
		return (l == RMAC || l.Valid() && !l.HasREncryption()) && (!l.HasRMAC() || p.I&i02RMAC != 0)
	}
	return l.Valid() && (!l.HasRMAC() || p.I&iRMAC != 0) && (!l.HasREncryption() || p.I&iREncryption != 0)
}

// String is such as "SCP03 i=70".
func (p Protocol) String() string { return fmt.Sprintf("SCP%02X i=%02X", p.Number, p.I) }

// macSize is how many bytes of a MAC go over the wire.
func (p Protocol) macSize() int {
	if p.S16() {
		return 16
	}
	return 8
}

// challengeSize is the size of the host's challenge; the size of both
// cryptograms is the same.
func (p Protocol) challengeSize() int { return p.macSize() }

// block is the block size of the cipher that encrypts data.
func (p Protocol) block() int {
	if p.Number == 2 {
		return 8
	}
	return blockSize
}

// maxData returns how many bytes of command data fit into one short command.
func (p Protocol) maxData(l Level) int {
	n := 255
	if l.HasCMAC() {
		n -= p.macSize()
	}
	if l.HasCDecryption() { // padding takes at least one byte of a block
		n = n/p.block()*p.block() - 1
	}
	return n
}

// plainNe returns the longest response data that fits, protected, into ne
// bytes.
func (p Protocol) plainNe(l Level, ne int) int {
	switch {
	case l.HasREncryption():
		return max((ne-p.macSize())/p.block()*p.block()-1, 0)
	case l.HasRMAC():
		return max(ne-p.macSize(), 0)
	}
	return ne
}

// protectedNe returns the length of response data of n bytes once protected.
func (p Protocol) protectedNe(l Level, n int) int {
	if l.HasREncryption() && n > 0 {
		n = (n/p.block() + 1) * p.block()
	}
	if l.HasRMAC() {
		n += p.macSize()
	}
	return n
}

// wireNe returns the Ne of a protected command whose response has at most ne
// bytes of clear data. Under R-MAC every response has data: a command that
// asks for none is sent with Le 00 (GPCS E.4.5 says so for SCP02).
func (p Protocol) wireNe(l Level, ne int, extended bool) int {
	if !l.HasRMAC() {
		return ne
	}
	if ne == 0 {
		return 256
	}
	most := 256
	if extended || ne > most {
		most = 65536
	}
	return min(p.protectedNe(l, ne), most)
}
