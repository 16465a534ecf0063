package reader_test

import (
	"context"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/emulator/timing"
	"github.com/freearea/freearea/internal/emulatedcard"
	"github.com/freearea/freearea/iso7816"
)

// smallest is how few commands and bytes a tap can have by
// docs/card-protocol.md:
//   - SELECT by name, with Le, and its FCI;
//   - for types A and D one EXPRESS (24 bytes of data), answered by EF.ID (padded
//     to whole blocks for type D, which encrypts it) and an R-MAC, or by the
//     R-MAC alone where there is a PIN;
//   - with a PIN one VERIFY (the block of 12 bytes encrypted, C-MAC), answered by
//     EF.ID so protected;
//   - with items one READ BINARY under C-MAC for each 248 bytes, or 239 for type D.
func (k tapKind) smallest(t testing.TB) (commands, bytes int) {
	t.Helper()
	c := k.content()
	record, err := c.Record.Encode()
	check(t, err)
	items, err := applets.EncodeItems(c.Items)
	check(t, err)
	const header, le, sw, mac, block, challenge = 5, 1, 2, 8, 16, 16
	object := func(n int) int { // one byte of tag
		switch {
		case n < 0x80:
			return 2 + n
		case n < 0x100:
			return 3 + n
		}
		return 4 + n
	}
	protected := func(n int) int {
		if k.profile == "type-d" {
			n = (n/block + 1) * block
		}
		return n + mac
	}
	add := func(command, response int) {
		commands++
		bytes += header + command + le + response + sw
	}
	own := object(2) + object(len(record))
	if k.profile != "common-ap" {
		own = object(2) + object(challenge) + object(10) + object(1)
	}
	aid := aidLibrary.Len()
	add(aid, object(object(aid)+object(own)))
	if k.profile == "common-ap" {
		return commands, bytes
	}
	if k.pin {
		add(challenge+mac, mac)
		add(block+mac, protected(len(record)))
	} else {
		add(challenge+mac, protected(len(record)))
	}
	if k.items {
		part := 248
		if k.profile == "type-d" {
			part = 239
		}
		for left := len(items); left > 0; left -= part {
			add(mac, protected(min(left, part)))
		}
	}
	return commands, bytes
}

// TestTapsAreTheSmallest: a terminal sends no command and no byte that the
// protocol doesn't ask for.
func TestTapsAreTheSmallest(t *testing.T) {
	for _, k := range tapKinds {
		cost := timing.Sum(k.measure(t), timing.Contactless(timing.Rate106), timing.P71())
		commands, bytes := k.smallest(t)
		if cost.Commands != commands || cost.Bytes != bytes {
			t.Errorf("%s: %d commands and %d bytes, %d and %d are enough", k, cost.Commands, cost.Bytes, commands, bytes)
		}
	}
}

// TestCountedByHand holds what the card is counted to do to what
// docs/card-protocol.md makes necessary. A key that makes CMACs is set once,
// with one call for its subkeys; a CMAC is then one call for each 80 bytes begun,
// padded to whole blocks.
func TestCountedByHand(t *testing.T) {
	type work struct{ keys, inits, cleared, calls, bytes, writes int }
	plus := func(a, b work) work {
		return work{a.keys + b.keys, a.inits + b.inits, a.cleared + b.cleared, a.calls + b.calls, a.bytes + b.bytes, a.writes + b.writes}
	}
	// ENC makes S-ENC, MAC makes S-MAC and S-RMAC, each of a message of 48 bytes;
	// the C-MAC is over 16 + 5 + 16 bytes. At the end the key object is cleared.
	session := work{keys: 3, inits: 3, calls: 3 + 3 + 1, bytes: 3*16 + 3*48 + 48, cleared: 1}
	for _, test := range []struct {
		kind tapKind
		want []work // of each command
	}{
		{tapKind{"common-ap", false, false}, []work{{}}},
		// The R-MAC is over 16 + 97 + 2 bytes.
		{tapKind{"type-a", false, false}, []work{{}, plus(session, work{keys: 1, inits: 1, calls: 1 + 2, bytes: 16 + 128})}},
		// The data is padded to 112 bytes and encrypted in one call after that of
		// the ICV; the R-MAC is over 16 + 112 + 2 bytes.
		{tapKind{"type-d", false, false}, []work{{}, plus(session, work{keys: 2, inits: 2, calls: 1 + 2 + 2, bytes: 16 + 144 + 16 + 112})}},
		// An R-MAC over 16 + 2 bytes. VERIFY: a C-MAC over 16 + 5 + 16; the ICV, and
		// one block, for whose decryption the same key is given to another Cipher;
		// an R-MAC as without a PIN. The try is counted down and given back.
		{tapKind{"type-a", true, false}, []work{
			{}, plus(session, work{keys: 1, inits: 1, calls: 1 + 1, bytes: 16 + 32}),
			{keys: 3, inits: 4, calls: 2 + 2 + 3, bytes: (16 + 48) + (16 + 16) + (16 + 128), cleared: 1, writes: 2},
		}},
	} {
		steps := test.kind.measure(t)
		if len(steps) != len(test.want) {
			t.Fatalf("%s: %d commands", test.kind, len(steps))
		}
		for i, s := range steps {
			w := s.Work
			got := work{w.Calls[timing.SetKey], w.Calls[timing.InitCipher], w.Calls[timing.ClearKey], w.Calls[timing.Encrypt], w.Bytes[timing.Encrypt], w.Calls[timing.Write]}
			if diff := cmp.Diff(test.want[i], got, cmp.AllowUnexported(work{})); diff != "" {
				t.Errorf("%s, command %d (-by hand +counted):\n%s", test.kind, i+1, diff)
			}
			if w.Bytecodes == 0 {
				t.Errorf("%s, command %d: no bytecodes", test.kind, i+1)
			}
		}
	}
}

// TestDoor: whatever the base type, a card opens a door within 0.2 s, at every
// bit rate and with the greatest prices.
func TestDoor(t *testing.T) {
	for _, k := range tapKinds {
		if k.pin || k.items {
			continue
		}
		steps := k.measure(t)
		for _, r := range timing.Rates {
			link := timing.Contactless(r)
			for _, chip := range []timing.Chip{timing.P71(), timing.P71().WithTransientKeys()} {
				if took := link.Activation() + timing.Sum(steps, link, chip).Total(); took >= 200*time.Millisecond {
					t.Errorf("%s at %v on %s takes %v", k, r, chip.Name, took)
				}
			}
		}
	}
}

// costTable is the table of docs/operations.md.
func costTable(t *testing.T) string {
	var b strings.Builder
	ms := func(d time.Duration) string { return fmt.Sprintf("%d", d.Round(time.Millisecond).Milliseconds()) }
	b.WriteString("| tap | commands, bytes | link at 106 | 212 | 424 | 848 kbit/s | card, measured prices | card, transient keys | in all, 106 | in all, 848 kbit/s |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|\n")
	for _, k := range tapKinds {
		steps := k.measure(t)
		at := func(r timing.Rate, c timing.Chip) timing.Cost { return timing.Sum(steps, timing.Contactless(r), c) }
		upper, lower := timing.P71(), timing.P71().WithTransientKeys()
		fmt.Fprintf(&b, "| %s | %d, %d ", k, at(timing.Rate106, upper).Commands, at(timing.Rate106, upper).Bytes)
		for _, r := range timing.Rates {
			fmt.Fprintf(&b, "| %s ", ms(at(r, lower).Link))
		}
		fmt.Fprintf(&b, "| %s | %s ", ms(at(timing.Rate106, upper).Card), ms(at(timing.Rate106, lower).Card))
		for _, r := range []timing.Rate{timing.Rate106, timing.Rate848} {
			start := timing.Contactless(r).Activation()
			fmt.Fprintf(&b, "| %s to %s ", ms(start+at(r, lower).Total()), ms(start+at(r, upper).Total()))
		}
		b.WriteString("|\n")
	}
	return b.String()
}

// TestCostTable holds docs/operations.md to what is computed.
func TestCostTable(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "docs", "operations.md"))
	check(t, err)
	_, after, ok := strings.Cut(string(text), "<!-- computed: TestCostTable of package reader -->\n")
	table, _, ended := strings.Cut(after, "\n\n")
	if !ok || !ended {
		t.Fatalf("docs/operations.md has no table of costs; it is:\n%s", costTable(t))
	}
	want := costTable(t)
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(table+"\n", "\n")); diff != "" {
		t.Errorf("docs/operations.md (-computed +written):\n%s\nas it should be:\n%s", diff, want)
	}
}

// kept fails when something stays in memory of each of n taps. A tenth of an
// object for each tap is less than that, and more than what the runtime does
// by the way.
func kept(t *testing.T, what string, n int, tap func(n int)) {
	t.Helper()
	objects := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapObjects
	}
	before := objects()
	tap(n)
	if after := objects(); after > before+uint64(n/10) {
		t.Errorf("%s: %d objects before %d taps, %d after", what, before, n, after)
	}
}

// turnstile is a source with a card in every slot, which is taken out and put
// in again when its slot has passed.
type turnstile struct {
	slots  []string
	card   iso7816.Card
	passed chan string
}

func (s *turnstile) Slots(context.Context) ([]iso7816.SlotStatus, error) { return nil, nil }

func (s *turnstile) Events(ctx context.Context) iter.Seq2[iso7816.Event, error] {
	return func(yield func(iso7816.Event, error) bool) {
		for _, name := range s.slots {
			if !yield(event(iso7816.SlotAdded, name), nil) || !yield(event(iso7816.CardInserted, name), nil) {
				return
			}
		}
		for {
			select {
			case <-ctx.Done():
				return
			case name := <-s.passed:
				if !yield(event(iso7816.CardRemoved, name), nil) || !yield(event(iso7816.CardInserted, name), nil) {
					return
				}
			}
		}
	}
}

func (s *turnstile) Open(context.Context, string, iso7816.Mode) (iso7816.Conn, error) {
	return conn{s.card}, nil
}

// TestManyTapsAtManySlots does so at 14 slots at once, where cards come and go.
func TestManyTapsAtManySlots(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	const taps, warm = 10_000, 1_000
	k := tapKind{"type-d", false, true}
	source := &turnstile{card: newReplay(k.measure(t)), passed: make(chan string, 14)}
	for i := range cap(source.passed) {
		source.slots = append(source.slots, fmt.Sprintf("slot %d", i))
	}
	o := k.options()
	o.Rand = sameBytes(0xA5)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	before, most := runtime.NumGoroutine(), 0
	next, stop := iter.Pull2(newReader(t, o).Taps(ctx, source))
	defer stop()
	tap := func(n int) {
		for range n {
			tap, err, ok := next()
			if err != nil || !ok || tap.ID != kindID {
				t.Fatalf("tap %+v, %v (more: %v)", tap, err, ok)
			}
			most = max(most, runtime.NumGoroutine())
			source.passed <- tap.Slot
		}
	}
	tap(warm)
	kept(t, "14 slots", taps-warm, tap)
	// A slot has a goroutine that reads, and perhaps one that waits for its end.
	if allowed := before + 3*len(source.slots); most > allowed {
		t.Errorf("%d goroutines at 14 slots, %d allowed", most, allowed)
	}
}

// TestManyTaps reads cards that execute the load file 10,000 times in all:
// nothing that a tap allocates stays, and no goroutine.
func TestManyTaps(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	taps, warm := 10_000, 1_000
	if testing.Short() {
		taps, warm = 2_000, 200
	}
	kinds := []tapKind{{"common-ap", false, false}, {"type-a", true, true}, {"type-d", false, true}}
	for _, k := range kinds {
		card, err := writeCardWith(emulatedcard.Linker(), nil, k.issue())
		check(t, err)
		r := newReader(t, k.options())
		tap := func(n int) {
			for range n {
				if tap, err := r.Read(context.Background(), card); err != nil || tap.ID != kindID {
					t.Fatalf("%s: tap %+v, %v", k, tap, err)
				}
			}
		}
		tap(warm / len(kinds))
		kept(t, k.String(), (taps-warm)/len(kinds), tap)
		check(t, card.Close())
	}
}
