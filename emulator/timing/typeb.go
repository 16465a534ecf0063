package timing

import (
	"fmt"
	"slices"
	"time"
)

// carrier is fc in Hz (ISO/IEC 14443-2:2010, 6.1.2): every time of a
// contactless link is a number of its periods.
const carrier = 13_560_000

// Numbers of ISO/IEC 14443-3:2011 for type B, in the units of the clause. Where
// a clause gives a range, this is its least value: [TypeB] has fields for what
// is usually more.
const (
	characterETU = 10 // 7.1.1: start bit, 8 data bits, stop bit
	sofETU       = 12 // 7.1.4: 10 to 11 etu low, 2 to 3 etu high
	eofETU       = 10 // 7.1.5: 10 to 11 etu low
	crcBytes     = 2  // 7.2: CRC_B

	subcarrier = 16 // periods of fc in one of fs (ISO/IEC 14443-2:2010, 9.2.4: fs = fc/16)

	reqbBytes        = 3  // 7.7.3: APf, AFI, PARAM
	atqbBytes        = 12 // 7.9.2: '50', PUPI (4), application data (4), protocol info (3)
	attribBytes      = 9  // 7.10.2: '1D', identifier (4), Param 1 to 4, no higher layer INF
	attribAnswerByte = 1  // 7.11: MBLI and CID

	// 5, polling: a PICC is ready for a request 5 ms after it gets an unmodulated field.
	startupTime = 5 * time.Millisecond
)

// Numbers of ISO/IEC 14443-4:2008.
const (
	pcbBytes = 1 // 7.1.1.1
	cidBytes = 1 // 7.1.1.2
	wtxBytes = 1 // 7.3: INF of S(WTX): power level, WTXM
	maxFWI   = 14
	maxWTXM  = 59       // 7.3
	fwtUnit  = 256 * 16 // 7.2: FWT = (256 × 16 / fc) × 2^FWI
)

// frameSizes are those that FSDI and FSCI can say (ISO/IEC 14443-4:2008, 5.1
// and 5.2.3; ISO/IEC 14443-3:2011, 7.9.4 and 7.10.4, for type B; those above 256
// since ISO/IEC 14443-4:2016).
var frameSizes = []int{16, 24, 32, 40, 48, 64, 96, 128, 256, 512, 1024, 2048, 4096}

// Rate is a bit rate of a contactless link: how many bits pass in 128 periods
// of the carrier.
type Rate int

// The rates (ISO/IEC 14443-3:2011, 7.1.1: etu = 128 / (D × fc)).
const (
	Rate106 Rate = 1
	Rate212 Rate = 2
	Rate424 Rate = 4
	Rate848 Rate = 8
)

// Rates are all of them, the slowest first.
var Rates = []Rate{Rate106, Rate212, Rate424, Rate848}

// etu is one bit in periods of the carrier.
func (r Rate) etu() int { return 128 / int(r) }

// String gives the rate in kbit/s, as the standard rounds it.
func (r Rate) String() string { return fmt.Sprintf("%d kbit/s", 106*int(r)) }

// TypeB is a link by ISO/IEC 14443 type B, with the transmission protocol of
// ISO/IEC 14443-4. The card computes a response while the link is silent.
type TypeB struct {
	Rate Rate // both ways
	// FSD and FSC are the greatest frames that terminal and card take, in
	// bytes, with prologue and CRC.
	FSD, FSC int
	// FWI says how long the terminal waits for a frame before the card has to
	// ask for more time, and WTXM how many times that the card then asks for;
	// 0 stands for 1.
	FWI, WTXM int
	// CID tells that blocks carry a card identifier.
	CID bool
	// TR0 and TR1, in periods of the subcarrier: the silence before a card's
	// frame, and its subcarrier before the frame. 0 stands for the least that a
	// card may take without having agreed on another: 64 and 80
	// (ISO/IEC 14443-3:2011, 7.1.6, 7.10.3).
	TR0, TR1 int
	// TR2 is the pause, in periods of the subcarrier, from the end of a card's
	// frame to the terminal's next. 0 stands for the 32 that a card asks for at
	// least (ISO/IEC 14443-3:2011, 7.1.7, 7.9.4).
	TR2 int
	// GuardToCard and GuardToTerminal are the extra guard time between two
	// characters in etu at 106 kbit/s: up to 6 to the card and 2 to the terminal
	// (ISO/IEC 14443-3:2011, 7.1.2: 57 µs, 19 µs).
	GuardToCard, GuardToTerminal int
}

// Contactless is a link at a rate as an ordinary terminal and card agree on it:
// frames of 256 bytes, no card identifier, FWI 8 (77 ms). The frame size and
// FWI are assumed: the card's are in its ATQB, which no published document
// gives for the Individual Number Card.
func Contactless(rate Rate) TypeB { return TypeB{Rate: rate, FSD: 256, FSC: 256, FWI: 8} }

// Check reports a link that the standard does not have.
func (l TypeB) Check() error {
	switch {
	case !slices.Contains(Rates, l.Rate):
		return fmt.Errorf("bit rate of %d × 106 kbit/s, 1, 2, 4 or 8 allowed", l.Rate)
	case !slices.Contains(frameSizes, l.FSD):
		return fmt.Errorf("FSD of %d bytes, one of %d allowed", l.FSD, frameSizes)
	case !slices.Contains(frameSizes, l.FSC):
		return fmt.Errorf("FSC of %d bytes, one of %d allowed", l.FSC, frameSizes)
	case l.FWI < 0 || l.FWI > maxFWI:
		return fmt.Errorf("FWI of %d, 0 to %d allowed", l.FWI, maxFWI)
	case l.WTXM < 0 || l.WTXM > maxWTXM:
		return fmt.Errorf("WTXM of %d, 1 to %d allowed", l.WTXM, maxWTXM)
	case l.TR0 < 0 || l.TR1 < 0 || l.TR1 > 200 || l.TR2 < 0:
		return fmt.Errorf("TR0, TR1 and TR2 of %d, %d and %d periods of the subcarrier, TR1 up to 200", l.TR0, l.TR1, l.TR2)
	case l.GuardToCard < 0 || l.GuardToCard > 6 || l.GuardToTerminal < 0 || l.GuardToTerminal > 2:
		return fmt.Errorf("extra guard time of %d and %d etu, up to 6 and 2 allowed", l.GuardToCard, l.GuardToTerminal)
	}
	return nil
}

// periods turns periods of the carrier into time.
func periods(n int) time.Duration { return time.Duration(n) * time.Second / carrier }

// period turns time into periods of the carrier.
func period(d time.Duration) int { return int(d * carrier / time.Second) }

func or(n, standard int) int {
	if n == 0 {
		return standard
	}
	return n
}

func (l TypeB) tr0() int { return subcarrier * or(l.TR0, 64) }
func (l TypeB) tr1() int { return subcarrier * or(l.TR1, 80) }
func (l TypeB) tr2() int { return subcarrier * or(l.TR2, 32) }

// fwt is the frame waiting time in periods of the carrier.
func (l TypeB) fwt() int { return fwtUnit << l.FWI }

// frame is a frame with n bytes besides its CRC, in periods of the carrier.
func (l TypeB) frame(n, guard int) int {
	n += crcBytes
	return l.Rate.etu()*(sofETU+characterETU*n+eofETU) + Rate106.etu()*guard*(n-1)
}

func (l TypeB) toCard(n int) int     { return l.frame(n, l.GuardToCard) }
func (l TypeB) toTerminal(n int) int { return l.frame(n, l.GuardToTerminal) }

// overhead is what a block has besides its INF, without the CRC.
func (l TypeB) overhead() int {
	if l.CID {
		return pcbBytes + cidBytes
	}
	return pcbBytes
}

// blocks are the lengths of the INF of the I-blocks that carry n bytes, at
// most limit bytes a frame (ISO/IEC 14443-4:2008, 7.5.2, chaining).
func (l TypeB) blocks(n, limit int) []int {
	room := limit - l.overhead() - crcBytes
	var out []int
	for ; n > room; n -= room {
		out = append(out, room)
	}
	return append(out, n)
}

// extensions is how often the card asks for more time. The first wait is the
// FWT, each further one WTXM times as long; the response's subcarrier must be
// there within it. While a request and its answer pass, the card computes nothing.
func (l TypeB) extensions(busy int) int {
	first := l.fwt() - l.tr1()
	if busy <= first {
		return 0
	}
	each := l.fwt()*or(l.WTXM, 1) - l.tr1()
	return (busy - first + each - 1) / each
}

// Exchange implements [Link].
func (l TypeB) Exchange(command, response []byte, busy time.Duration) time.Duration {
	return periods(l.exchange(len(command), len(response), period(busy)))
}

func (l TypeB) exchange(command, response, busy int) int {
	answered := l.tr0() + l.tr1() // from the end of a terminal's frame to the card's
	acknowledged := l.tr2()       // the other way
	head := l.overhead()
	n := 0
	blocks := l.blocks(command, l.FSC)
	for i, inf := range blocks {
		n += l.toCard(head + inf)
		if i < len(blocks)-1 {
			n += answered + l.toTerminal(head) + acknowledged // R(ACK)
		}
	}
	n += l.extensions(busy) * (l.tr1() + l.toTerminal(head+wtxBytes) + acknowledged + l.toCard(head+wtxBytes))
	n += max(0, l.tr0()-busy) + l.tr1()
	for i, inf := range l.blocks(response, l.FSD) {
		if i > 0 {
			n += l.toCard(head) + answered // R(ACK)
		}
		n += l.toTerminal(head+inf) + acknowledged
	}
	return n
}

// Activation is the time from the field to the first command: the card's
// start, REQB, ATQB in the first slot, ATTRIB and its answer, all at
// 106 kbit/s. The card is taken to be alone and to enter the field as the
// terminal begins to look for cards of type B; a terminal that looks for
// others in turn takes up to one round longer.
func (l TypeB) Activation() time.Duration {
	l.Rate = Rate106
	n := 0
	for _, pair := range [][2]int{{reqbBytes, atqbBytes}, {attribBytes, attribAnswerByte}} {
		n += l.toCard(pair[0]) + l.tr0() + l.tr1() + l.toTerminal(pair[1]) + l.tr2()
	}
	return startupTime + periods(n)
}
