// Package profile is an example of an application profile in Go, for an
// application whose command set can't be said by a recipe: here the ID on the
// card is followed by a checksum, which the terminal computes again.
package profile

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/applets/files"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/iso7816"
)

// ErrChecksum reports an ID that was not written by this profile.
var ErrChecksum = errors.New("checksum of the ID is wrong")

// Numbered is the profile "vendor-numbered": an EF.ID and 4 bytes of its
// SHA-256 in one free file of the file application. A vendor's own application
// would take the place of the latter.
type Numbered struct{}

// The optional interfaces that it offers.
var (
	_ applets.Profile  = Numbered{}
	_ applets.Observer = Numbered{}
)

const (
	room        = 300 // bytes of files
	fileID      = 1   // short identifiers
	fileWritten = 2
	checksum    = 4
)

// Name implements [applets.Profile].
func (Numbered) Name() string { return "vendor-numbered" }

// Traits implements [applets.Profile]: an ID and nothing else.
func (Numbered) Traits() applets.Traits { return applets.Traits{} }

// InstallParameters implements [applets.Profile].
func (Numbered) InstallParameters(s applets.InstallSpec) ([]byte, error) {
	if s != (applets.InstallSpec{}) {
		return nil, fmt.Errorf("%w: vendor-numbered holds an ID only", applets.ErrSpec)
	}
	return files.InstallParameters(room, 0), nil
}

// PersistentMemory implements [applets.Profile].
func (Numbered) PersistentMemory(applets.InstallSpec) int { return files.Memory(room, 0) }

// Personalization implements [applets.Profile]: one block with both files.
func (Numbered) Personalization(c applets.Content, _ func([]byte) ([]byte, error)) ([][]byte, error) {
	if len(c.Items) > 0 || len(c.ReadKeys) > 0 || c.KeepKeys || c.PIN != nil {
		return nil, fmt.Errorf("%w: vendor-numbered holds an ID only", applets.ErrContent)
	}
	record, err := c.Record.Encode()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(record)
	written := append(c.Tag[:], byte(c.Record.IssueNumber>>8), byte(c.Record.IssueNumber))
	blocks := [][]byte{nil}
	for _, g := range []globalplatform.DGI{
		{ID: files.GroupBegin, Value: []byte{0}},
		{ID: files.GroupFile, Value: []byte{0, fileID, fileID, files.KindTransparent, files.AccessFree}},
		{ID: files.GroupContent, Value: append(record, sum[:checksum]...)},
		{ID: files.GroupFile, Value: []byte{0, fileWritten, fileWritten, files.KindTransparent, files.AccessFree}},
		{ID: files.GroupContent, Value: written},
	} {
		b := globalplatform.AppendDGI(nil, g)
		if len(blocks[len(blocks)-1])+len(b) > applets.MaxBlock {
			blocks = append(blocks, nil)
		}
		last := &blocks[len(blocks)-1]
		*last = append(*last, b...)
	}
	// A long EF.ID alone takes more than a block.
	var out [][]byte
	for _, b := range blocks {
		parts, err := globalplatform.SplitStoreData(b, applets.MaxBlock)
		if err != nil {
			return nil, err
		}
		out = append(out, parts...)
	}
	return out, nil
}

// Wipe implements [applets.Profile].
func (Numbered) Wipe() [][]byte {
	return [][]byte{globalplatform.AppendDGI(nil, globalplatform.DGI{ID: files.GroupWipe, Value: []byte(files.WipeWord)})}
}

// ObservationRequest implements [applets.Profile]; Observe is what asks.
func (Numbered) ObservationRequest() []byte { return nil }

// ParseObservation implements [applets.Profile].
func (Numbered) ParseObservation([]byte) (applets.Observation, error) {
	return applets.Observation{}, applets.ErrMalformedObservation
}

// Observe implements [applets.Observer].
func (Numbered) Observe(ctx context.Context, card iso7816.Card, instance iso7816.AID) (applets.Observation, error) {
	o := applets.Observation{State: 0x07, SpecUnknown: true}
	b, err := readFile(ctx, card, instance, fileWritten)
	switch {
	case errors.Is(err, applets.ErrNotPersonalized):
		return o, nil
	case err != nil:
		return o, err
	case len(b) != len(o.Tag)+2:
		return o, applets.ErrMalformedObservation
	}
	o.State, o.Slot, o.Tag = 0x0F, 1, [16]byte(b)
	o.IssueNumber = uint16(b[16])<<8 | uint16(b[17])
	return o, nil
}

// Read implements [applets.Profile].
func (Numbered) Read(ctx context.Context, card iso7816.Card, req applets.ReadRequest) (*applets.Reading, error) {
	b, err := readFile(ctx, card, req.AID, fileID)
	if err != nil {
		return nil, err
	}
	if len(b) < checksum {
		return nil, ErrChecksum
	}
	raw, sum := b[:len(b)-checksum], sha256.Sum256(b[:len(b)-checksum])
	if !bytes.Equal(sum[:checksum], b[len(raw):]) {
		return nil, ErrChecksum
	}
	record, err := applets.ParseRecord(raw)
	if err != nil {
		return nil, err
	}
	return &applets.Reading{Info: applets.ApplicationInfo{AID: req.AID}, RawRecord: raw, Record: record}, nil
}

// readFile selects the instance and reads a file with one command: at most 228
// bytes are in it.
func readFile(ctx context.Context, card iso7816.Card, instance iso7816.AID, sfi byte) ([]byte, error) {
	plain := iso7816.Plain(card)
	if _, err := globalplatform.Select(ctx, plain, instance); err != nil {
		if errors.Is(err, globalplatform.ErrOtherApplication) {
			err = fmt.Errorf("%w: %w", applets.ErrWrongApplication, err)
		}
		return nil, err
	}
	b, err := iso7816.Do(ctx, plain, iso7816.Command{INS: files.InsReadBinary, P1: 0x80 | sfi, Ne: iso7816.MaxShortNe})
	if errors.Is(err, iso7816.ErrConditions) {
		err = fmt.Errorf("%w: %w", applets.ErrNotPersonalized, err)
	}
	return b, err
}
