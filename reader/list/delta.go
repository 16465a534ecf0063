package list

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/freearea/freearea/internal/durable"
)

// change is the first line of a delta.
type change struct {
	V       int `json:"v"`
	Base    Hex `json:"base"` // digest of the list that is changed
	Removed int `json:"removed"`
	Added   int `json:"added"`
}

// CreateDelta writes what carries one list into another to a file. Both are of
// one service and kind, and with the same salt, or it fails with [ErrBase]: a new
// salt makes a new list.
func CreateDelta(path string, from, to *List) error {
	a, b := from.header, to.header
	if a.Service != b.Service || a.Kind != b.Kind || !bytes.Equal(a.Salt, b.Salt) || b.Number <= a.Number {
		return fmt.Errorf("%w: %s %s number %d and %s %s number %d", ErrBase, a.Service, a.Kind, a.Number, b.Service, b.Kind, b.Number)
	}
	var removed, added []byte
	merge(from, to, func(e []byte, old, new bool) {
		switch {
		case !new:
			removed = append(removed, e...)
		case !old:
			added = append(added, e...)
		}
	})
	first, err := json.Marshal(change{version, a.Digest, len(removed) / EntrySize, len(added) / EntrySize})
	if err != nil {
		return err
	}
	return durable.Replace(path, func(w io.Writer) error {
		for _, part := range [][]byte{first, {'\n'}, to.text, removed, added} {
			if _, err := w.Write(part); err != nil {
				return err
			}
		}
		return nil
	})
}

// merge calls f for every entry of either list, in order.
func merge(from, to *List, f func(e []byte, old, new bool)) {
	i, j := 0, 0
	for i < from.header.Entries || j < to.header.Entries {
		order := 0
		switch {
		case i == from.header.Entries:
			order = 1
		case j == to.header.Entries:
			order = -1
		default:
			order = bytes.Compare(from.at(i), to.at(j))
		}
		switch order {
		case -1:
			f(from.at(i), true, false)
			i++
		case 1:
			f(to.at(j), false, true)
			j++
		default:
			f(to.at(j), true, true)
			i, j = i+1, j+1
		}
	}
}

// ApplyDelta makes the next list out of one and a delta, and writes it to a
// file, which may be the list's own. What does not come out as the next list's
// header says is refused, and nothing is written: with [ErrBase] where the delta
// is another list's, with the errors of [Open] for the options' sake.
func ApplyDelta(path string, from *List, delta string, o Options) (h Header, err error) {
	f, err := os.Open(delta)
	if err != nil {
		return h, err
	}
	defer f.Close()
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", delta, err)
		}
	}()
	in := bufio.NewReaderSize(f, maxLine)
	c, err := readChange(in)
	if err != nil {
		return h, err
	}
	if !bytes.Equal(c.Base, from.header.Digest) {
		return h, ErrBase
	}
	h, text, signature, err := readText(in)
	if err != nil {
		return h, err
	}
	if _, err := verify(text, signature, o); err != nil {
		return h, err
	}
	if a := from.header; h.Service != a.Service || h.Kind != a.Kind || !bytes.Equal(h.Salt, a.Salt) {
		return h, ErrBase
	}
	if h.Number <= from.header.Number || h.Number < o.After {
		return h, fmt.Errorf("%w: number %d after %d", ErrOlder, h.Number, max(from.header.Number, o.After))
	}
	removed, err := readEntries(in, c.Removed)
	if err != nil {
		return h, err
	}
	added, err := readEntries(in, c.Added)
	if err != nil {
		return h, err
	}
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		return h, fmt.Errorf("%w: bytes after its last entry", ErrMalformed)
	}
	next := carry(from, removed, added)
	if sum := sha256.Sum256(next); len(next) != h.Entries*EntrySize || !bytes.Equal(sum[:], h.Digest) {
		return h, fmt.Errorf("%w: what it makes of the list is not the next one", ErrDamaged)
	}
	return h, durable.Replace(path, func(w io.Writer) error {
		_, err := w.Write(text)
		return errors.Join(err, second(w.Write(next)))
	})
}

func second(_ int, err error) error { return err }

func readChange(in *bufio.Reader) (change, error) {
	var c change
	first, err := line(in)
	if err != nil {
		return c, err
	}
	d := json.NewDecoder(bytes.NewReader(first))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	again, err := json.Marshal(c)
	if err != nil || !bytes.Equal(again, first) || c.V != version || c.Removed < 0 || c.Added < 0 || c.Removed > MaxEntries || c.Added > MaxEntries {
		return c, fmt.Errorf("%w: first line of a delta", ErrMalformed)
	}
	return c, nil
}

// readEntries reads no more than is there: a number in a header makes no memory.
func readEntries(in io.Reader, n int) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(in, int64(n)*EntrySize))
	if err == nil && len(b) != n*EntrySize {
		err = fmt.Errorf("%w: it is cut short", ErrMalformed)
	}
	return b, err
}

// carry returns the entries without those removed and with those added.
func carry(from *List, removed, added []byte) []byte {
	next := make([]byte, 0, len(from.entries)+len(added))
	for i := range from.header.Entries {
		e := from.at(i)
		for len(added) > 0 && bytes.Compare(added[:EntrySize], e) < 0 {
			next, added = append(next, added[:EntrySize]...), added[EntrySize:]
		}
		if len(removed) > 0 && bytes.Equal(removed[:EntrySize], e) {
			removed = removed[EntrySize:]
			continue
		}
		next = append(next, e...)
	}
	return append(next, added...)
}
