package jcvm_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/emulator/jcvm"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/iso7816"
)

// TestAgainstReference runs what another implementation ran, with the load
// files that the traces in testdata/cref name. A line is a command and the
// other's response; where this machine answers otherwise, its response follows,
// and testdata/README.md says why.
func TestAgainstReference(t *testing.T) {
	t.Parallel()
	traces, err := filepath.Glob("testdata/cref/*.trace")
	if err != nil || len(traces) != 3 {
		t.Fatalf("%d traces, %v", len(traces), err)
	}
	for _, path := range traces {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			cfg := config(t)
			// As the other one is.
			cfg.Linker = jcvm.Linker{Quirks: jcvm.Quirks{EmptyIncoming: true, ShortBuffer: true}}
			card, err := emulator.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			files := map[iso7816.AID]*capfile.File{} // by applet
			for line := range strings.Lines(string(b)) {
				switch p := strings.Fields(line); p[0] {
				case "#":
				case "load":
					f := load(t, card, p[1])
					for _, a := range f.Applets {
						files[a] = f
					}
				case "install":
					module := iso7816.MustAID(p[1])
					var parameters []byte
					if len(p) > 3 {
						parameters = unhex(t, p[3])
					}
					installAs(t, card, files[module], module, iso7816.MustAID(p[2]), parameters)
				default:
					if got := exchange(t, card, p[0]); got != p[len(p)-1] {
						t.Errorf("%s: %s, want %s", p[0], got, p[len(p)-1])
					}
				}
			}
		})
	}
}
