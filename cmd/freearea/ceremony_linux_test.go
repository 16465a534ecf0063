package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/freearea/freearea/internal/pty"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/keys/file"
)

// dialogue runs the command at a terminal of its own. Each answer is given when
// its question has appeared, as a person does, so that what is typed unseen is
// not echoed. It returns all that was on the screen, and how the command ended.
func dialogue(t *testing.T, dir string, args []string, script ...[2]string) (screen string, err error) {
	t.Helper()
	control, line := pty.Open(t)
	terminal, err := os.OpenFile(line, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("freearea", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", envNow+"=2026-04-01T10:00:00+09:00")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	terminal.Close()
	var seen bytes.Buffer
	buf := make([]byte, 4096)
	from := 0
	for {
		n, err := control.Read(buf)
		seen.Write(buf[:n])
		if len(script) > 0 {
			if at := strings.Index(seen.String()[from:], script[0][0]); at >= 0 {
				from += at + len(script[0][0])
				if _, err := control.WriteString(script[0][1] + "\n"); err != nil {
					t.Fatal(err)
				}
				script = script[1:]
			}
		}
		if err != nil { // EIO: nobody has the terminal open any more
			break
		}
	}
	err = cmd.Wait()
	if len(script) > 0 && err == nil {
		t.Errorf("never asked: %q", script[0][0])
	}
	return seen.String(), err
}

// check is the key check value of a component, as it stands on its sheet.
func check(t *testing.T, component string) string {
	t.Helper()
	b, err := hex.DecodeString(component)
	if err != nil {
		t.Fatal(err)
	}
	k, err := keys.NewKey(b)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%X", k.CheckValue())
}

// Components of three custodians for ENC and MAC, and what they make: the
// exclusive or, computed here by hand (the third of each is the other two's
// exclusive or with 000102…0F and 101112…1F).
var components = [3][2]string{
	{"00112233445566778899AABBCCDDEEFF", "0F1E2D3C4B5A69788796A5B4C3D2E1F0"},
	{"FEDCBA98765432100123456789ABCDEF", "13579BDF02468ACE13579BDF02468ACE"},
	{"FECC9AA836045260 81B3E5D7 497B2D1F", "0C58A4F05D09F5A18CD82470DD897521"},
}

func newKeystore(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	s, err := file.Create(t.Context(), filepath.Join(dir, "freearea.keys"), []byte(passphrase), file.Options{Cost: file.Cost{Time: 1, Memory: 8, Threads: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "passphrase"), []byte(passphrase), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// custodians is the questions to all custodians, with their answers.
func custodians(t *testing.T, n int) (script [][2]string) {
	t.Helper()
	for i := range n {
		for j, name := range []string{"ENC", "MAC"} {
			c := components[i][j]
			script = append(script,
				[2]string{"Component, 32 hexadecimal digits " + name + ": ", c},
				[2]string{"Check value on the sheet: ", check(t, strings.ReplaceAll(c, " ", ""))})
		}
	}
	return script
}

func entries(t *testing.T, dir string) []keys.Entry {
	t.Helper()
	info, err := file.Inspect(t.Context(), filepath.Join(dir, "freearea.keys"))
	if err != nil {
		t.Fatal(err)
	}
	return info.Entries
}

// unseen fails the test when a component, or a part of one, was on the screen
// or is in a file.
func unseen(t *testing.T, dir, screen string) {
	t.Helper()
	text := screen
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		text += string(data)
	}
	for _, custodian := range components {
		for _, c := range custodian {
			if strings.Contains(strings.ToUpper(text), c[:12]) {
				t.Errorf("the component %s… was seen:\n%s", c[:12], screen)
			}
		}
	}
}

func TestCeremony(t *testing.T) {
	const whole = "000102030405060708090A0B0C0D0E0F"
	want := check(t, whole) + "/" + check(t, "101112131415161718191A1B1C1D1E1F")
	args := []string{"keys", "ceremony", "library-read", "--kind", "read", "--components", "3", "--passphrase-file", "passphrase"}
	expected := [2]string{"Type the expected check value", want}

	t.Run("three custodians", func(t *testing.T) {
		dir := newKeystore(t)
		script := custodians(t, 3)
		// A custodian mistypes digits, then a check value, and goes on.
		script = append([][2]string{
			{"Component, 32 hexadecimal digits ENC: ", "0011"},
			script[0], {"Check value on the sheet: ", "000000"}}, script...)
		screen, err := dialogue(t, dir, args, append(script, expected)...)
		if err != nil {
			t.Fatalf("%v\n%s", err, screen)
		}
		list := entries(t, dir)
		if len(list) != 1 || list[0].Name != "library-read" || list[0].Kind != keys.Read || list[0].Check != want || list[0].Version != 1 {
			t.Errorf("%+v\n%s", list, screen)
		}
		if !strings.Contains(screen, "check value "+want) {
			t.Error(screen)
		}
		unseen(t, dir, screen)
	})
	for _, tt := range []struct {
		name   string
		args   []string
		script func() [][2]string
		says   string
	}{
		{"another key's component", args, func() [][2]string {
			return append(custodians(t, 3), [2]string{"Type the expected check value", "000000/000000"})
		}, "not 000000/000000"},
		{"another key's component, expected beforehand", append(args, "--check", "000000/000000"), func() [][2]string {
			return custodians(t, 3)
		}, "not 000000/000000"},
		{"mistyped three times", args, func() [][2]string {
			wrong := [2]string{"Check value on the sheet: ", "000000"}
			first := custodians(t, 1)[0]
			return [][2]string{first, wrong, first, wrong, first, wrong}
		}, "does not have the check value on its sheet"},
		{"the same twice", args, func() [][2]string {
			return append(custodians(t, 1), custodians(t, 1)...)
		}, "was entered before"},
		{"zeros", args, func() [][2]string {
			zeros := strings.Repeat("0", 32)
			return [][2]string{{"Component, 32 hexadecimal digits ENC: ", zeros}, {"Check value on the sheet: ", check(t, zeros)}}
		}, "a component of zeros"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := newKeystore(t)
			screen, err := dialogue(t, dir, tt.args, tt.script()...)
			if err == nil || !strings.Contains(screen, tt.says) || len(entries(t, dir)) != 0 {
				t.Errorf("%v, %d keys\n%s", err, len(entries(t, dir)), screen)
			}
			unseen(t, dir, screen)
		})
	}
}
