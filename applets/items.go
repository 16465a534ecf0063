package applets

import (
	"errors"
	"fmt"

	"github.com/freearea/freearea/iso7816"
)

// MaxItemName is the longest name of an item, in bytes.
const MaxItemName = 32

// ErrMalformedItems: the bytes are no EF.ITEMS, or the items have no encoding.
var ErrMalformedItems = errors.New("malformed EF.ITEMS")

// Tags of EF.ITEMS.
const (
	tagItems     iso7816.Tag = 0xE1
	tagItem      iso7816.Tag = 0xE2
	tagItemName  iso7816.Tag = 0xC1
	tagItemValue iso7816.Tag = 0xC2
)

// Item is one piece of information beside the ID.
type Item struct {
	Name  string // 1 to 32 printable ASCII characters without spaces; unique
	Value string // UTF-8 without control characters; may be empty
}

func checkItems(items []Item) error {
	if len(items) > MaxItems {
		return fmt.Errorf("%w: %d items, %d at most", ErrMalformedItems, len(items), MaxItems)
	}
	for i, it := range items {
		if len(it.Name) < 1 || len(it.Name) > MaxItemName {
			return fmt.Errorf("%w: name of item %d has %d bytes, 1 to %d allowed", ErrMalformedItems, i+1, len(it.Name), MaxItemName)
		}
		for j := range len(it.Name) {
			if c := it.Name[j]; c < 0x21 || c > 0x7E {
				return fmt.Errorf("%w: byte %02X in the name of item %d", ErrMalformedItems, c, i+1)
			}
		}
		if err := checkText(it.Value); err != nil {
			return fmt.Errorf("%w: value of item %d %v", ErrMalformedItems, i+1, err)
		}
		for _, other := range items[:i] {
			if other.Name == it.Name {
				return fmt.Errorf("%w: two items are called %s", ErrMalformedItems, it.Name)
			}
		}
	}
	return nil
}

// EncodeItems returns EF.ITEMS, at most MaxItemsFile bytes; no items are an
// empty file.
func EncodeItems(items []Item) ([]byte, error) {
	if err := checkItems(items); err != nil {
		return nil, err
	}
	if len(items) == 0 {
		return nil, nil
	}
	total := 0
	for _, it := range items {
		total += len(it.Name) + len(it.Value)
	}
	if total > MaxItemsFile { // also keeps every length below what a TLV can carry
		return nil, fmt.Errorf("%w: %d bytes of names and values, %d bytes at most in all", ErrMalformedItems, total, MaxItemsFile)
	}
	var all []byte
	for _, it := range items {
		b := iso7816.AppendTLV(nil, tagItemName, []byte(it.Name))
		b = iso7816.AppendTLV(b, tagItemValue, []byte(it.Value))
		all = iso7816.AppendTLV(all, tagItem, b)
	}
	file := iso7816.AppendTLV(nil, tagItems, all)
	if len(file) > MaxItemsFile {
		return nil, fmt.Errorf("%w: %d bytes, %d at most", ErrMalformedItems, len(file), MaxItemsFile)
	}
	return file, nil
}

// ParseItems reads EF.ITEMS. What it accepts, EncodeItems writes as the same
// bytes.
func ParseItems(b []byte) ([]Item, error) {
	if len(b) == 0 {
		return nil, nil
	}
	if len(b) > MaxItemsFile {
		return nil, fmt.Errorf("%w: %d bytes, %d at most", ErrMalformedItems, len(b), MaxItemsFile)
	}
	outer, err := iso7816.ParseSingleTLV(b, tagItems)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformedItems, err)
	}
	if len(outer.Value) == 0 {
		return nil, fmt.Errorf("%w: empty list", ErrMalformedItems)
	}
	var items []Item
	for rest := outer.Value; len(rest) > 0; {
		var t iso7816.TLV
		if t, rest, err = iso7816.ParseTLV(rest); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMalformedItems, err)
		}
		if t.Tag != tagItem {
			return nil, fmt.Errorf("%w: tag %v where %v is expected", ErrMalformedItems, t.Tag, tagItem)
		}
		if len(items) == MaxItems {
			return nil, fmt.Errorf("%w: more than %d items", ErrMalformedItems, MaxItems)
		}
		name, tail, err := iso7816.ParseTLV(t.Value)
		if err != nil {
			return nil, fmt.Errorf("%w: item %d: %w", ErrMalformedItems, len(items)+1, err)
		}
		if name.Tag != tagItemName {
			return nil, fmt.Errorf("%w: item %d begins with tag %v", ErrMalformedItems, len(items)+1, name.Tag)
		}
		value, err := iso7816.ParseSingleTLV(tail, tagItemValue)
		if err != nil {
			return nil, fmt.Errorf("%w: item %d: %w", ErrMalformedItems, len(items)+1, err)
		}
		items = append(items, Item{string(name.Value), string(value.Value)})
	}
	if err := checkItems(items); err != nil {
		return nil, err
	}
	return items, nil
}
