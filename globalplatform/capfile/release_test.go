package capfile_test

import (
	"errors"
	"testing"

	"github.com/freearea/freearea/globalplatform/capfile"
)

func TestUnmet(t *testing.T) {
	for _, test := range []struct {
		file, release string
		want          int
	}{
		{"bench", "2.2.2", 1}, // framework 1.5
		{"bench", "3.0.4", 0},
		{"bench", "3.1", 0},
		{"asym", "3.0.4", 3}, // made for 3.0.5: framework, security, crypto
		{"asym", "3.0.5", 0},
	} {
		f, err := capfile.ReadFile("../../emulator/jcvm/testdata/" + test.file + ".cap")
		if err != nil {
			t.Fatal(err)
		}
		got, err := f.Unmet(test.release)
		if err != nil || len(got) != test.want {
			t.Errorf("%s on %s: %v, %v", test.file, test.release, got, err)
		}
		if _, err := f.Unmet("4"); !errors.Is(err, capfile.ErrRelease) {
			t.Errorf("an unknown release: %v", err)
		}
	}
}
