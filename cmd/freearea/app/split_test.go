package app

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"testing"
	"testing/iotest"

	"github.com/freearea/freearea/keys"
)

// All components but the last are what was drawn and nothing of the key, so
// that all but any one of them could be those of every other key.
func TestSplitOfAnyKey(t *testing.T) {
	stream := make([]byte, 4*3*24)
	for i := range stream {
		stream[i] = byte(37*i + 11)
	}
	for _, fill := range []byte{0x55, 0xA3} {
		var set keys.Set
		for i, k := range []*keys.Key{&set.ENC, &set.MAC, &set.DEK} {
			*k, _ = keys.NewKey(bytes.Repeat([]byte{fill + byte(i)}, 24))
		}
		before := set.Clone()
		parts, err := split(bytes.NewReader(stream), set, 5)
		if err != nil || len(parts) != 5 {
			t.Fatalf("%d components, %v", len(parts), err)
		}
		sums := [3][]byte{make([]byte, 24), make([]byte, 24), make([]byte, 24)}
		for i, part := range parts {
			for j, k := range part.Keys() {
				if drawn := stream[min(i, 3)*72+j*24:][:24]; i < 4 && !bytes.Equal(k.Bytes(), drawn) {
					t.Errorf("component %d is %x, drawn was %x", i+1, k.Bytes(), drawn)
				}
				subtle.XORBytes(sums[j], sums[j], k.Bytes())
			}
		}
		for j, k := range before.Keys() {
			if !bytes.Equal(sums[j], k.Bytes()) || !set.Keys()[j].Equal(k) {
				t.Errorf("key %d: together %x, the key is %x", j, sums[j], set.Keys()[j].Bytes())
			}
		}
	}
	var set keys.Set
	set.ENC, _ = keys.NewKey(make([]byte, 16))
	if _, err := split(iotest.ErrReader(errors.New("no randomness")), set, 2); err == nil {
		t.Error("components without randomness")
	}
}
