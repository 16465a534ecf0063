package timing

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/iso7816"
)

func length(n int) []byte { return make([]byte, n) }

// TestTypeBByHand compares with sums made by hand from the figures of the
// standard, in periods of the carrier: 1 etu at 106 kbit/s is 128, 1/fs is 16.
func TestTypeBByHand(t *testing.T) {
	fast := Contactless(Rate848)
	fast.TR0, fast.TR1 = 16, 16
	small := TypeB{Rate: Rate106, FSD: 24, FSC: 32, FWI: 0}
	slow := Contactless(Rate106)
	slow.GuardToCard, slow.GuardToTerminal = 6, 2
	withCID := small
	withCID.CID = true
	for _, test := range []struct {
		name                    string
		link                    TypeB
		command, response, busy int
		want                    int
	}{
		// The SELECT of a common-ap in docs/card-protocol.md, 16 bytes and 48:
		// frames of 16+3 and 48+3 characters of 10 etu, SOF and EOF of 12 and 10.
		// 212 etu + 532 etu = 744 × 128; TR0 64, TR1 80 and TR2 32 of 16.
		{"select at 106", Contactless(Rate106), 16, 48, 0, 744*128 + (64+80+32)*16},
		// The same etu, 16 periods each; the rest stays as it is.
		{"select at 848", Contactless(Rate848), 16, 48, 0, 744*16 + (64+80+32)*16},
		{"select at 848, shorter TR0 and TR1", fast, 16, 48, 0, 744*16 + (16+16+32)*16},
		// A card that computes for longer than TR0 is silent for that time.
		{"computation within TR0", Contactless(Rate106), 16, 48, 1000, 744*128 + (64+80+32)*16 - 1000},
		{"computation beyond TR0", Contactless(Rate106), 16, 48, 2000, 744*128 + (80+32)*16},
		// 18 gaps of 6 etu to the card, 50 of 2 to the terminal.
		{"extra guard time", slow, 16, 48, 0, (744+18*6+50*2)*128 + (64+80+32)*16},
		// FSC 32 leaves 29 bytes of INF: 40 go as 29 and 11. FSD 24 leaves 21: 50
		// go as 21, 21, 8. Frames in characters: to the card 32, 14 and two R(ACK) of
		// 3; to the terminal R(ACK) of 3, then 24, 24, 11. 114 characters and 8
		// frames of 22 etu: 1,316 etu. 4 frames each way: 4 × (TR0+TR1), 4 × TR2.
		{"chaining", small, 40, 50, 0, 1316*128 + 4*(64+80+32)*16},
		// With CID, 28 and 20 bytes of INF: 28, 12; 20, 20, 10. Characters: 32, 16,
		// 4, 4; 4, 24, 24, 14: 122 in 8 frames.
		{"chaining with CID", withCID, 40, 50, 0, (1220+176)*128 + 4*(64+80+32)*16},
		// FWI 0: FWT is 4,096, less TR1 2,816. 3,000 need one S(WTX) and its
		// answer, 4 characters each: 2 × 62 etu, TR1 and TR2. 5,632 just pass with one.
		{"within the waiting time", small, 5, 2, 2816, (22+80+22+50)*128 + (80+32)*16},
		{"one extension", small, 5, 2, 2817, (22+80+22+50)*128 + (80+32)*16 + 124*128 + (80+32)*16},
		{"one extension, to its end", small, 5, 2, 5632, (22+80+22+50)*128 + (80+32)*16 + 124*128 + (80+32)*16},
		{"two extensions", small, 5, 2, 5633, (22+80+22+50)*128 + (80+32)*16 + 2*(124*128+(80+32)*16)},
	} {
		if err := test.link.Check(); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if got := test.link.exchange(test.command, test.response, test.busy); got != test.want {
			t.Errorf("%s: %d periods, %d by hand", test.name, got, test.want)
		}
	}
	// 744 etu of 9.4395 µs, and 176 of 1.1799 µs.
	if got, want := Contactless(Rate106).Exchange(length(16), length(48), 0), 7231*time.Microsecond; got.Round(time.Microsecond) != want {
		t.Errorf("select at 106 takes %v, %v by hand", got, want)
	}
	// FWI 8: 4,096 × 256 periods are 77.3 ms.
	if got := periods(Contactless(Rate106).fwt()).Round(100 * time.Microsecond); got != 77300*time.Microsecond {
		t.Errorf("FWT of FWI 8 is %v", got)
	}
	// REQB 5, ATQB 14, ATTRIB 11, its answer 3 characters, 4 frames: 330 + 88 etu.
	if got, want := Contactless(Rate848).Activation(), 5*time.Millisecond+periods(418*128+2*(64+80+32)*16); got != want {
		t.Errorf("activation %v, %v by hand", got, want)
	}
}

// TestContactByHand does the same in etu.
func TestContactByHand(t *testing.T) {
	t0 := Contact{Protocol: 0, Clock: 3_720_000, F: 372, D: 1} // 1 etu is 100 µs
	t1 := Contact{Protocol: 1, Clock: 3_720_000, F: 372, D: 1, Extra: 255, IFSC: 32, IFSD: 32, BWI: 0}
	guarded := t1
	guarded.Extra = 3
	case3 := append([]byte{0, 0xA4, 4, 0, 10}, length(10)...)
	case4 := append(append([]byte(nil), case3...), 0)
	for _, test := range []struct {
		name    string
		link    Contact
		command []byte
		answer  int
		busy    time.Duration
		want    int
	}{
		// Header 5, SW 2: 4 and 1 gaps of 12, two turns of 16.
		{"T=0, case 1", t0, length(4), 2, 0, 4*12 + 16 + 12 + 16},
		{"T=0, case 2", t0, length(5), 12, 0, 4*12 + 16 + 12*12 + 16},                           // procedure byte, 10, SW
		{"T=0, case 3", t0, case3, 2, 0, 4*12 + 16 + 16 + 9*12 + 16 + 12 + 16},                  // procedure byte, 10, SW
		{"T=0, case 4", t0, case4, 12, 0, 232 + 4*12 + 16 + 12*12 + 16},                         // and GET RESPONSE
		{"T=1", t1, length(16), 30, 0, 19*11 + 22 + 33*11 + 22},                                 // blocks of 20 and 34 characters
		{"T=1 with guard time", guarded, length(16), 30, 0, 19*15 + 22 + 33*12 + 22},            //
		{"T=1, chained", t1, length(40), 2, 0, 35*11 + 22 + 3*11 + 22 + 11*11 + 22 + 5*11 + 22}, // 32 and 8, R-block between
		// BWT is 11 etu + 960 × 372 / f = 97.1 ms: 100 ms need one request, 5 characters each way.
		{"T=1, more time", t1, length(16), 30, 100 * time.Millisecond, 19*11 + 22 + 2*(4*11+22) + 33*11 + 22},
	} {
		if err := test.link.Check(); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		want := time.Duration(test.want) * 100 * time.Microsecond
		if got := test.link.Exchange(test.command, length(test.answer), test.busy); got != want {
			t.Errorf("%s: %v, %v by hand", test.name, got, want)
		}
	}
	// 40,400 cycles, 33 characters of 12 etu.
	if got, want := t0.Activation(), 40_400*time.Second/3_720_000+396*100*time.Microsecond; got != want {
		t.Errorf("activation %v, %v by hand", got, want)
	}
	// With other F and D: PPS and its answer, 4 characters each.
	fast := t0
	fast.F, fast.D = 512, 32
	if got, want := fast.Activation()-t0.Activation(), 2*(3*12+16)*100*time.Microsecond; got != want {
		t.Errorf("PPS takes %v, %v by hand", got, want)
	}
}

func TestCheck(t *testing.T) {
	b, c := Contactless(Rate106), DefaultContact()
	if b.Check() != nil || c.Check() != nil {
		t.Errorf("defaults refused: %v, %v", b.Check(), c.Check())
	}
	for name, change := range map[string]func(*TypeB){
		"rate": func(l *TypeB) { l.Rate = 3 }, "FSD": func(l *TypeB) { l.FSD = 100 }, "FSC": func(l *TypeB) { l.FSC = 0 },
		"FWI": func(l *TypeB) { l.FWI = 15 }, "WTXM": func(l *TypeB) { l.WTXM = 60 }, "TR1": func(l *TypeB) { l.TR1 = 201 },
		"guard": func(l *TypeB) { l.GuardToTerminal = 3 },
	} {
		l := b
		if change(&l); l.Check() == nil {
			t.Errorf("%s: %+v was accepted", name, l)
		}
	}
	for name, change := range map[string]func(*Contact){
		"protocol": func(l *Contact) { l.Protocol = 2 }, "clock": func(l *Contact) { l.Clock = 1 }, "F": func(l *Contact) { l.F = 1 },
		"D": func(l *Contact) { l.D = 3 }, "guard": func(l *Contact) { l.Extra = 256 }, "IFSC": func(l *Contact) { l.IFSC = 255 }, "BWI": func(l *Contact) { l.BWI = 10 },
	} {
		l := c
		if change(&l); l.Check() == nil {
			t.Errorf("%s: %+v was accepted", name, l)
		}
	}
}

// card answers every command with so many bytes.
type card int

func (c card) Transmit(context.Context, []byte) ([]byte, error) {
	return append(length(int(c)-2), 0x90, 0), nil
}

// writer is a card that writes three times in a command, and executes
// something.
type writer struct {
	card
	counter *Counter
}

func (writer) CountWrites()  {}
func (writer) Writes() []int { return []int{3} }

func (w writer) Transmit(ctx context.Context, command []byte) ([]byte, error) {
	for _, l := range strings.SplitAfter(traceLines, "\n") {
		if _, err := w.counter.Write([]byte(l)); err != nil {
			return nil, err
		}
	}
	return w.card.Transmit(ctx, command)
}

// traceLines are lines as jcvm.Trace writes them.
const traceLines = `# call A.b(B)S (0001)
#   0012 sload_0 []
#   0013 sconst_1 [0001]
#   api javacardx/crypto/Cipher.doFinal([BSS[BS)S (@0110 @0120 0040 0020 @0120 0040)
#   api javacard/framework/Util.arrayFillNonAtomic([BSSB)S (@0120 0000 0050 0000)
#   api javacard/framework/APDU.getBuffer()[B (@0001)
#   caught A 6982 at 0014, goes on at 0020
#   0020 sreturn [0001]
# return (0001)
`

func TestMeter(t *testing.T) {
	counter := &Counter{}
	m := NewMeter(writer{48, counter}, counter)
	counter.work.Bytecodes = 100 // before the first command
	for range 2 {
		if r, err := m.Transmit(context.Background(), length(16)); err != nil || len(r) != 48 {
			t.Fatal(r, err)
		}
	}
	work := Work{Bytecodes: 3}
	work.Calls[Encrypt], work.Bytes[Encrypt] = 1, 32
	work.Calls[Move], work.Bytes[Move] = 1, 80
	work.Calls[Write] = 3
	steps := m.Take()
	for i, s := range steps {
		if diff := cmp.Diff(work, s.Work); diff != "" {
			t.Errorf("step %d (-want +got):\n%s", i, diff)
		}
	}
	chip := Chip{Command: 1000, Bytecode: 100}
	chip.Call[Encrypt], chip.Byte[Encrypt], chip.Call[Write] = 20, 1, 7
	each := time.Duration(1000 + 3*100 + 20 + 32 + 3*7)
	if got := chip.Time(work); got != each {
		t.Errorf("the work takes %v, %v by hand", got, each)
	}
	link := Contactless(Rate106)
	want := Cost{Commands: 2, Bytes: 2 * (16 + 48), Card: 2 * each, Link: 2 * link.Exchange(length(16), length(48), each)}
	if diff := cmp.Diff(want, Sum(steps, link, chip)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(m.Take()) != 0 || m.ExtendedLength() {
		t.Error("steps were given twice, or the card takes extended length")
	}
}

func TestCounterRefuses(t *testing.T) {
	for _, line := range []string{
		"# api javacardx/crypto/Cipher.doFinal([BSS[BS)S\n",
		"# api javacardx/crypto/Cipher.doFinal([BSS[BS)S (@0110 @0120 0040)\n",
		"# api javacardx/crypto/Cipher.doFinal([BSS[BS)S (@0110 @0120 0040 null @0120 0040)\n",
	} {
		if _, err := new(Counter).Write([]byte(line)); err == nil {
			t.Errorf("%q was counted", line)
		}
	}
}

// TestP71 holds the lines through two measurements each to both.
func TestP71(t *testing.T) {
	for _, test := range []struct {
		operation Operation
		n         int
		want      time.Duration
	}{
		{Encrypt, 16, 1550 * us}, {Encrypt, 512, 2150 * us},
		{Digest, 16, 2230 * us}, {Digest, 512, 13600 * us},
		{Random, 16, 880 * us}, {Random, 512, 1680 * us},
	} {
		chip, w := P71(), Work{}
		w.Calls[test.operation], w.Bytes[test.operation] = 1, test.n
		if got := chip.Time(w) - chip.Command; (got - test.want).Abs() > us {
			t.Errorf("operation %d over %d bytes takes %v, %v measured", test.operation, test.n, got, test.want)
		}
	}
	a, b := P71(), P71().WithTransientKeys()
	for _, o := range []Operation{SetKey, ClearKey, InitCipher} {
		if a.Call[o] <= b.Call[o] || a.Name == b.Name {
			t.Errorf("operation %d is not cheaper with transient keys", o)
		}
	}
}

var _ iso7816.ExtendedLength = (*Meter)(nil)
