package scp

import "fmt"

// Level is a security level as P1 of EXTERNAL AUTHENTICATE writes it
// (AmdD table 7-3; GPCS table E-11).
type Level byte

// The security levels. Every other value is invalid. SCP02 has those without
// R-ENCRYPTION, and R-MAC alone.
const (
	None        Level = 0x00 // authentication only, no secure messaging
	CMAC        Level = 0x01 // commands carry a MAC
	CDecryption Level = 0x03 // commands are encrypted and carry a MAC
	CMACRMAC    Level = 0x11 // commands and responses carry a MAC
	CDecRMAC    Level = 0x13 // as CDecryption, and responses carry a MAC
	Full        Level = 0x33 // commands and responses are encrypted and carry a MAC

	RMAC Level = 0x10 // responses carry a MAC; in SCP02 only
)

const (
	bitCMAC        = 0x01
	bitCDecryption = 0x02
	bitRMAC        = 0x10
	bitREncryption = 0x20
)

// Valid reports whether l is one of the levels of AmdD table 7-3, which SCP03
// has.
func (l Level) Valid() bool {
	switch l {
	case None, CMAC, CDecryption, CMACRMAC, CDecRMAC, Full:
		return true
	}
	return false
}

// HasCMAC reports whether commands carry a MAC.
func (l Level) HasCMAC() bool { return l&bitCMAC != 0 }

// HasCDecryption reports whether command data is encrypted.
func (l Level) HasCDecryption() bool { return l&bitCDecryption != 0 }

// HasRMAC reports whether responses carry a MAC.
func (l Level) HasRMAC() bool { return l&bitRMAC != 0 }

// HasREncryption reports whether response data is encrypted.
func (l Level) HasREncryption() bool { return l&bitREncryption != 0 }

// Covers reports whether l protects at least all that other protects.
func (l Level) Covers(other Level) bool { return l&other == other }

// MaxData returns how many bytes of command data fit into one short command
// at this level: 255, 247 with a C-MAC, 239 with encryption, whose padding
// takes at least one byte of a block (GPCS 11.1.5; AmdD 6.2.4, 6.2.6). In mode
// S16 they are fewer: a session knows.
func (l Level) MaxData() int { return SCP03.maxData(l) }

// MaxResponse returns how many bytes of response data fit into one short
// response at this level: 256, 248 with an R-MAC, 239 with encryption. In
// mode S16 they are fewer: a session knows.
func (l Level) MaxResponse() int { return SCP03.plainNe(l, 256) }

func (l Level) String() string {
	switch l {
	case None:
		return "00 (authenticated)"
	case CMAC:
		return "01 (C-MAC)"
	case CDecryption:
		return "03 (C-DECRYPTION, C-MAC)"
	case CMACRMAC:
		return "11 (C-MAC, R-MAC)"
	case CDecRMAC:
		return "13 (C-DECRYPTION, C-MAC, R-MAC)"
	case RMAC:
		return "10 (R-MAC)"
	case Full:
		return "33 (C-DECRYPTION, R-ENCRYPTION, C-MAC, R-MAC)"
	}
	return fmt.Sprintf("%02X (invalid)", byte(l))
}
