package readerd_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/freearea/freearea/readerd"
)

// TestUinput types through the kernel: the keyboard is looked for among the
// system's and taken for this test alone before a key is pressed, so nothing
// else on the machine gets one.
func TestUinput(t *testing.T) {
	c := readerd.KeyboardConfig{Layout: "us", Prefix: "none", Suffix: "enter", Device: "/dev/uinput", Delay: readerd.Duration(5 * time.Millisecond)}
	keyboard, device, err := c.Open()
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		if os.Getenv("FREEAREA_REQUIRE_UINPUT") == "1" {
			t.Fatal(err)
		}
		t.Skip("no real keyboard is made, the golden files stand for it: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	var input *os.File
	names, err := filepath.Glob("/sys/class/input/event*/device/name")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if text, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(text)) == "freearea card reader" {
			node := filepath.Join("/dev/input", filepath.Base(filepath.Dir(filepath.Dir(name))))
			if input, err = os.Open(node); err != nil {
				t.Skip("the keyboard is there, but not for this test: ", err)
			}
		}
	}
	if input == nil {
		t.Fatalf("no keyboard among %v", names)
	}
	defer input.Close()
	const grab = 0x40044590 // EVIOCGRAB
	if err := unix.IoctlSetInt(int(input.Fd()), grab, 1); err != nil {
		t.Fatal(err)
	}
	told := make(chan error, 1)
	go func() { told <- keyboard.Tell(t.Context(), accepted("FA-12_b:9.z")) }()
	want := golden(t, "us.events")
	var got []string
	for buf := make([]byte, 64*eventSize); len(got) < len(want); {
		n, err := input.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		for b := buf[:n]; len(b) > 0; b = b[eventSize:] {
			copy(b, bytes.Repeat([]byte{0}, eventSize-8)) // the kernel's clock
			got = append(got, hex.EncodeToString(b[:eventSize]))
		}
	}
	if err := <-told; err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
