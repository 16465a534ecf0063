package main_test

import (
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// BenchmarkVersion runs `freearea --version` and `true` in turn, and reports
// how many times as long ours takes ("x-true"), of one run on one machine:
// what a program pays that starts freearea once per card.
func BenchmarkVersion(b *testing.B) {
	idle, err := exec.LookPath("true")
	if err != nil {
		b.Skip(err)
	}
	program := filepath.Join(b.TempDir(), "freearea")
	if runtime.GOOS == "windows" {
		program += ".exe"
	}
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", program, ".").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	run := func(name string, args ...string) time.Duration {
		begin := time.Now()
		if err := exec.Command(name, args...).Run(); err != nil {
			b.Fatal(err)
		}
		return time.Since(begin)
	}
	run(program, "--version") // the first one reads the file from the disk
	var ours, theirs time.Duration
	n := 0
	for b.Loop() {
		ours += run(program, "--version")
		theirs += run(idle)
		n++
	}
	b.ReportMetric(float64(ours.Nanoseconds())/float64(n), "ns/version")
	b.ReportMetric(float64(theirs.Nanoseconds())/float64(n), "ns/true")
	b.ReportMetric(float64(ours)/float64(theirs), "x-true")
}
