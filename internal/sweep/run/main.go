// Command run sweeps: it runs the tests that make faults, all places of them,
// and prints one line of JSON with what they counted. The exit status is 1
// when something was lost, was left on a card, or did not converge. What the
// tests say goes to standard error when one fails.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/freearea/freearea/internal/sweep"
)

// parts are the sweeps. Each is the tests of one package, which report to
// package sweep what they counted.
var parts = []struct{ pkg, tests string }{
	{"./provisioner", "^(TestPowerCuts|TestCrashes|TestRepeatedFaults)$"}, // torn cards, a ledger that fails
	{"./internal/crash", "."}, // the program, its disk, its clock
}

func main() {
	began := time.Now()
	sum, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "sweep:", err)
	}
	out := struct {
		sweep.Figures
		Seconds float64 `json:"seconds"`
	}{sum, float64(time.Since(began).Milliseconds()) / 1000}
	if encoding := json.NewEncoder(os.Stdout).Encode(out); encoding != nil || err != nil || sum.Bad() {
		os.Exit(1)
	}
}

// run runs the parts one after another; the error is of those that failed.
func run() (sum sweep.Figures, err error) {
	dir, err := os.MkdirTemp("", "freearea-sweep-")
	if err != nil {
		return sum, err
	}
	defer os.RemoveAll(dir)
	for i, p := range parts {
		file := filepath.Join(dir, fmt.Sprint(i))
		var output bytes.Buffer
		cmd := exec.Command("go", "test", "-count=1", "-timeout=2h", "-run", p.tests, p.pkg)
		cmd.Env = append(os.Environ(), sweep.Environment+"="+file)
		cmd.Stdout, cmd.Stderr = &output, &output
		if failed := cmd.Run(); failed != nil {
			err = fmt.Errorf("%s: %w", p.pkg, failed)
			os.Stderr.Write(output.Bytes())
		}
		figures, reading := read(file)
		if reading != nil {
			return sum, fmt.Errorf("%s: %w", p.pkg, reading)
		}
		sum = sum.Add(figures)
	}
	return sum, err
}

// read adds up the lines of a file of figures.
func read(path string) (sum sweep.Figures, err error) {
	f, err := os.Open(path)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	for d := json.NewDecoder(f); ; {
		var figures sweep.Figures
		if err := d.Decode(&figures); err == io.EOF {
			return sum, nil
		} else if err != nil {
			return sum, err
		}
		sum = sum.Add(figures)
	}
}
