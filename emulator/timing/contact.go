package timing

import (
	"fmt"
	"slices"
	"time"
)

// Numbers of ISO/IEC 7816-3:2006.
const (
	guard      = 12  // 8.3: GT, etu between the leading edges of two characters, without extra guard time
	noGuard    = 255 // 8.3: N that asks for the least
	leastGuard = 11  // 11.2: CGT with T=1 and that N
	turnT0     = 16  // 10.2: etu between leading edges of opposite directions
	turnT1     = 22  // 11.2: BGT, the same with T=1

	headerT0    = 5 // 10.3.2: CLA INS P1 P2 P3
	procedure   = 1 // 10.3.3: procedure byte
	statusBytes = 2 // 10.3.3

	blockT1      = 4   // 11.3.1: NAD, PCB, LEN; LRC
	bwtUnit      = 960 // 11.4.3
	extensionLen = 1   // 11.3.2.2: INF of S(WTX)

	defaultF    = 372    // 8.1: F of the answer to reset, with D = 1
	atrBytes    = 33     // 8.2.1: at most, with TS
	resetCycles = 400    // 6.2.2: RST is low for as many cycles at least
	resetLatest = 40_000 // 6.2.2: the answer begins so late at most
	ppsBytes    = 4      // 9.2: PPSS, PPS0, PPS1, PCK

	minClock, maxClock = 1_000_000, 20_000_000 // 5.2.3, 8.3
)

// Values of F and D (ISO/IEC 7816-3:2006, 8.3, tables 7 and 8).
var (
	valuesF = []int{372, 558, 744, 1116, 1488, 1860, 512, 768, 1024, 1536, 2048}
	valuesD = []int{1, 2, 4, 8, 16, 32, 64, 12, 20}
)

// Contact is a link by contacts (ISO/IEC 7816-3) with T=0 or T=1.
type Contact struct {
	Protocol int // 0 or 1
	Clock    int // f in Hz
	F, D     int // one etu is F/D periods of the clock
	// Extra is the extra guard time N of the answer to reset in etu, for
	// characters to the card; 255 asks for the least of the protocol.
	Extra int
	// IFSC and IFSD are the greatest INF of a block that card and terminal
	// take, in bytes: T=1 only.
	IFSC, IFSD int
	// BWI says how long the terminal waits for a block: T=1 only.
	BWI int
}

// DefaultContact is a link with T=1 as ordinary readers set it: 4 MHz, F 372,
// D 1 and blocks of 254 bytes. Clock and sizes are assumed.
func DefaultContact() Contact {
	return Contact{Protocol: 1, Clock: 4_000_000, F: 372, D: 1, IFSC: 254, IFSD: 254, BWI: 4}
}

// Check reports a link that the standard does not have.
func (l Contact) Check() error {
	switch {
	case l.Protocol != 0 && l.Protocol != 1:
		return fmt.Errorf("protocol T=%d, T=0 or T=1 allowed", l.Protocol)
	case l.Clock < minClock || l.Clock > maxClock:
		return fmt.Errorf("clock of %d Hz, 1 to 20 MHz allowed", l.Clock)
	case !slices.Contains(valuesF, l.F) || !slices.Contains(valuesD, l.D):
		return fmt.Errorf("%d for F and %d for D are not in the tables of ISO/IEC 7816-3", l.F, l.D)
	case l.Extra < 0 || l.Extra > noGuard:
		return fmt.Errorf("extra guard time of %d etu, 0 to 255 allowed", l.Extra)
	case l.Protocol == 1 && (l.IFSC < 1 || l.IFSC > 254 || l.IFSD < 1 || l.IFSD > 254):
		return fmt.Errorf("IFSC of %d and IFSD of %d bytes, 1 to 254 allowed", l.IFSC, l.IFSD)
	case l.Protocol == 1 && (l.BWI < 0 || l.BWI > 9):
		return fmt.Errorf("BWI of %d, 0 to 9 allowed", l.BWI)
	}
	return nil
}

// etus turns etu into time.
func (l Contact) etus(n int) time.Duration {
	return time.Duration(n) * time.Duration(l.F) * time.Second / time.Duration(l.D*l.Clock)
}

// Exchange implements [Link].
func (l Contact) Exchange(command, response []byte, busy time.Duration) time.Duration {
	if l.Protocol == 0 {
		return l.etus(l.exchangeT0(command, len(response)))
	}
	return l.etus(l.exchangeT1(len(command), len(response), busy))
}

// guards are the etu from one character to the next of the same direction, to
// the card and to the terminal (ISO/IEC 7816-3:2006, 8.3, 11.2).
func (l Contact) guards() (toCard, toTerminal int) {
	switch {
	case l.Extra < noGuard:
		return guard + l.Extra, guard
	case l.Protocol == 1:
		return leastGuard, leastGuard
	}
	return guard, guard
}

// runs are etu of so many characters to the card, then to the terminal, and so
// on, with the turn after each.
func (l Contact) runs(turn int, lengths ...int) int {
	toCard, toTerminal := l.guards()
	n := 0
	for i, length := range lengths {
		g := toCard
		if i%2 == 1 {
			g = toTerminal
		}
		n += (length-1)*g + turn
	}
	return n
}

// exchangeT0 counts etu of a short APDU by its TPDUs (ISO/IEC 7816-3:2006,
// 12.2): in case 4 the response is fetched with GET RESPONSE. The NULL that a
// card sends while it computes, one in about a second, is not counted.
func (l Contact) exchangeT0(command []byte, response int) int {
	data, answer := 0, response-statusBytes
	if len(command) > headerT0 {
		data = int(command[headerT0-1])
	}
	switch {
	case data > 0 && answer > 0:
		return l.runs(turnT0, headerT0, procedure, data, statusBytes, headerT0, procedure+answer+statusBytes)
	case data > 0:
		return l.runs(turnT0, headerT0, procedure, data, statusBytes)
	case answer > 0:
		return l.runs(turnT0, headerT0, procedure+answer+statusBytes)
	}
	return l.runs(turnT0, headerT0, statusBytes)
}

// exchangeT1 counts etu of the blocks (ISO/IEC 7816-3:2006, 11.6).
func (l Contact) exchangeT1(command, response int, busy time.Duration) int {
	var lengths []int
	for ; command > l.IFSC; command -= l.IFSC {
		lengths = append(lengths, blockT1+l.IFSC, blockT1) // I-block and R-block
	}
	lengths = append(lengths, blockT1+command)
	// 11.4.3: BWT = 11 etu + 2^BWI × 960 × 372 / f. The card asks for more, once
	// for each BWT.
	bwt := l.etus(leastGuard) + time.Duration(bwtUnit*defaultF<<l.BWI)*time.Second/time.Duration(l.Clock)
	for ; busy > bwt; busy -= bwt {
		lengths = append(lengths, blockT1+extensionLen, blockT1+extensionLen) // S(WTX), both ways
	}
	for ; response > l.IFSD; response -= l.IFSD {
		lengths = append(lengths, blockT1+l.IFSD, blockT1)
	}
	return l.runs(turnT1, append(lengths, blockT1+response)...)
}

// Activation is the time from the clock to the first command: reset, an answer
// to reset of the greatest length, and the choice of F and D where they are
// not the default ones. The card is taken to answer the reset at the latest
// time allowed.
func (l Contact) Activation() time.Duration {
	d := l
	d.F, d.D = defaultF, 1
	t := time.Duration(resetCycles+resetLatest)*time.Second/time.Duration(l.Clock) + d.etus(atrBytes*guard)
	if l.F != d.F || l.D != d.D {
		t += d.etus(2*(ppsBytes-1)*guard + 2*turnT0)
	}
	return t
}
