package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/freearea/freearea/cmd/freearea/app"
	"github.com/freearea/freearea/keys/file"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"vendorbinary": func() {
		o := options()
		o.KeystoreCost = file.Cost{Time: 1, Memory: 8, Threads: 1} // opens fast
		o.OperatorKeyWork = 4
		os.Exit(app.Main(o))
	}})
}

// TestWholeJob issues, reads and withdraws a service of this binary's profile.
func TestWholeJob(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("LC_ALL", "C.UTF-8")
			e.Setenv("USER", "tester")
			data, err := os.ReadFile("bath-house.toml")
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(e.WorkDir, "bath-house.toml"), data, 0o600); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(e.WorkDir, "passphrase"), []byte("for this test only\n"), 0o600)
		},
	})
}
