package capwrite_test

import (
	"archive/zip"
	"bytes"
	"testing"

	"github.com/freearea/freearea/internal/capwrite"
	"github.com/freearea/freearea/iso7816"
)

// GlobalPlatformPro reads archives from their beginning, with Java's
// ZipInputStream, which takes no stored entry whose size stands behind it.
func TestSizesStandBeforeData(t *testing.T) {
	b, err := capwrite.Write("a/b", iso7816.MustAID("F00102030405"), iso7816.MustAID("F0010203040506"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.File) == 0 {
		t.Error("empty archive")
	}
	const sizesBehind = 0x8
	for _, f := range r.File {
		if f.Flags&sizesBehind != 0 {
			t.Errorf("%s: size and checksum stand behind the data", f.Name)
		}
		if c, err := f.Open(); err != nil {
			t.Error(err)
		} else if _, err := new(bytes.Buffer).ReadFrom(c); err != nil {
			t.Errorf("%s: %v", f.Name, err) // the checksum is verified
		}
	}
}
