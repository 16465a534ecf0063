package jcvm_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/emulator/jcvm"
	"github.com/freearea/freearea/iso7816"
)

// tracedBench selects and uses the applet of bench.cap on a card that traces,
// and returns what was written while a command ran.
func tracedBench(t *testing.T, trace jcvm.Trace, command string) string {
	t.Helper()
	var out bytes.Buffer
	trace.W = &out
	c := config(t)
	c.Linker = jcvm.Linker{Trace: &trace}
	card, err := emulator.New(c)
	if err != nil {
		t.Fatal(err)
	}
	f := load(t, card, "bench")
	installAs(t, card, f, f.Applets[0], f.Applets[0], nil)
	selectApplet(t, card, f.Applets[0])
	out.Reset()
	if got := exchange(t, card, command); got != "13569000" {
		t.Fatalf("%s: %s", command, got)
	}
	return out.String()
}

func benchNames(t *testing.T) *jcvm.Names {
	t.Helper()
	n, err := jcvm.ReadNames(readCAP(t, "bench"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// calls of the benchmark once: 0 + … + 99 = 4950 = 1356h.
const oneRound = "8003000100"

func TestTraceCalls(t *testing.T) {
	t.Parallel()
	for _, pkg := range []string{"F00000000111", "F0000000011101"} {
		lines := strings.Split(tracedBench(t, jcvm.Trace{AID: iso7816.MustAID(pkg)}, oneRound), "\n")
		want := []string{
			"# call F00000000111:class@0002.method@00D7",
			"#   api javacard/framework/Applet.selectingApplet()Z",
			"#   api javacard/framework/APDU.getBuffer()[B",
			"#   api javacard/framework/Util.getShort([BS)S",
			"#   call F00000000111:method@0088",
			"#     call F00000000111:method@0082",
			"#     return",
		}
		for i, w := range want {
			if i >= len(lines) || lines[i] != w {
				t.Fatalf("line %d: %q, want %q\nof %q", i, lines[i], w, lines)
			}
		}
		if n := len(lines); n != 5+2*100+1+2+1+1 || lines[n-2] != "# return" {
			t.Errorf("%d lines, the last %q", n, lines[n-2])
		}
	}
}

func TestTraceNames(t *testing.T) {
	t.Parallel()
	text := tracedBench(t, jcvm.Trace{AID: iso7816.MustAID("F00000000111"), Names: benchNames(t), Bytecode: true, Values: true}, oneRound)
	for _, want := range []string{
		"# call bench/BenchApplet.process(Ljavacard/framework/APDU;)V (@0104 @0001)\n",
		"#   call bench/BenchApplet.calls(S)S (0001)\n",
		"#     call bench/BenchApplet.leaf(SS)S (0000 0000)\n",
		"#       0084 BenchApplet.java:35 sload_0 []\n#       0085 BenchApplet.java:35 sload_1 [0000]\n#       0086 BenchApplet.java:35 sadd [0000 0000]\n#       0087 BenchApplet.java:35 sreturn [0000]\n#     return (0000)\n",
		"#   return (1356)\n",
		"#   api javacard/framework/Util.setShort([BSS)S (@0002 0000 1356)\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in the trace:\n%.1500s", want, text)
		}
	}
}

// TestTraceWithoutValues: what code works on is in the trace only when asked
// for.
func TestTraceWithoutValues(t *testing.T) {
	t.Parallel()
	text := tracedBench(t, jcvm.Trace{AID: iso7816.MustAID("F00000000111"), Bytecode: true}, oneRound)
	if strings.Contains(text, "1356") || strings.Contains(text, "[]") || strings.Contains(text, "@0104") || !strings.Contains(text, " sadd\n") {
		t.Errorf("%.1500s", text)
	}
}

// TestTraceOfAnother: a trace of one package shows nothing of others.
func TestTraceOfAnother(t *testing.T) {
	t.Parallel()
	if text := tracedBench(t, jcvm.Trace{AID: iso7816.MustAID("F00000000112"), Bytecode: true, Values: true}, oneRound); text != "" {
		t.Errorf("%.500s", text)
	}
}

// TestTracedResults runs the tests of bytecodes, traced: it changes nothing.
func TestTracedResults(t *testing.T) {
	t.Parallel()
	for _, bytecode := range []bool{false, true} {
		var lines counter
		c := config(t)
		c.Linker = jcvm.Linker{Trace: &jcvm.Trace{AID: iso7816.MustAID("F00000000110"), Bytecode: bytecode, Values: true, W: &lines}}
		traced, err := emulator.New(c)
		if err != nil {
			t.Fatal(err)
		}
		f := load(t, traced, "ops")
		installAs(t, traced, f, f.Applets[0], f.Applets[0], nil)
		selectApplet(t, traced, f.Applets[0])
		plain := withApplet(t, "ops")
		for op := range 75 {
			command := "8001" + string("0123456789ABCDEF"[op>>4]) + string("0123456789ABCDEF"[op&15]) + "00080001E2408000FFFF"
			if got, want := exchange(t, traced, command), exchange(t, plain, command); got != want {
				t.Errorf("case %d: %s, untraced %s", op, got, want)
			}
		}
		if lines == 0 {
			t.Error("no lines")
		}
	}
}

type counter int

func (c *counter) Write(p []byte) (int, error) { *c++; return len(p), nil }

// TestTraceExceptions: caught ones, and those that leave a method.
func TestTraceExceptions(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	c := config(t)
	c.Linker = jcvm.Linker{Trace: &jcvm.Trace{AID: iso7816.MustAID("F00000000110"), W: &out}}
	card, err := emulator.New(c)
	if err != nil {
		t.Fatal(err)
	}
	f := load(t, card, "ops")
	installAs(t, card, f, f.Applets[0], f.Applets[0], nil)
	selectApplet(t, card, f.Applets[0])
	for op := range 75 {
		exchange(t, card, "8001"+string("0123456789ABCDEF"[op>>4])+string("0123456789ABCDEF"[op&15])+"00080000000000000000")
	}
	exchange(t, card, "80EE0000")
	text := out.String()
	for _, want := range []string{"thrown java/lang/ArithmeticException at ", "caught java/lang/ArithmeticException at "} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in the trace", want)
		}
	}
}

func TestReadNames(t *testing.T) {
	t.Parallel()
	if _, err := jcvm.ReadNames(readCAP(t, "ops")); !errors.Is(err, jcvm.ErrNames) {
		t.Errorf("a CAP file without names: %v", err)
	}
}
