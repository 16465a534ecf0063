package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/freearea/freearea/internal/pty"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/keys/file"
	"github.com/freearea/freearea/keys/pkcs11"
)

// dialogue runs the command at a terminal of its own. Each answer is given when
// its question has appeared, as a person does, so that what is typed unseen is
// not echoed. It returns all that was on the screen, and how the command ended.
func dialogue(t *testing.T, dir string, args []string, script ...[2]string) (screen string, err error) {
	t.Helper()
	var turns []turn
	for _, s := range script {
		turns = append(turns, turn{s[0], func(string) string { return s[1] }})
	}
	return converse(t, dir, args, turns...)
}

// turn is a question, and the answer to it, for which all may be used that was
// on the screen.
type turn struct {
	question string
	answer   func(screen string) string
}

// converse is dialogue with answers that depend on what was shown. A command
// that waits for an answer to another question is ended.
func converse(t *testing.T, dir string, args []string, script ...turn) (screen string, err error) {
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
		if err := control.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := control.Read(buf)
		seen.Write(buf[:n])
		if len(script) > 0 {
			if at := strings.Index(seen.String()[from:], script[0].question); at >= 0 {
				from += at + len(script[0].question)
				if _, err := control.WriteString(script[0].answer(seen.String()) + "\n"); err != nil {
					t.Fatal(err)
				}
				script = script[1:]
			}
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the command waits for something else than is answered:\n%s", seen.String())
			cmd.Process.Kill()
		}
		if err != nil { // EIO: nobody has the terminal open any more
			break
		}
	}
	err = cmd.Wait()
	if len(script) > 0 && err == nil {
		t.Errorf("never asked: %q", script[0].question)
	}
	return seen.String(), err
}

// check is the key check value of a component, as it stands on its sheet.
func check(t *testing.T, component string) string {
	t.Helper()
	return fmt.Sprintf("%X", aesKey(t, component).CheckValue())
}

func aesKey(t *testing.T, digits string) keys.Key {
	t.Helper()
	b, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	k, err := keys.NewKey(b)
	if err != nil {
		t.Fatal(err)
	}
	return k
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

// The whole keys that the components make.
const wholeENC, wholeMAC = "000102030405060708090A0B0C0D0E0F", "101112131415161718191A1B1C1D1E1F"

// unseen fails the test when a component or a whole key, or a part of one, was
// on the screen or is in a file, in digits or in bytes.
func unseen(t *testing.T, dir, screen string) {
	t.Helper()
	text := screen
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		text += string(data) + fmt.Sprintf(" %X ", data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	text = strings.ToUpper(text)
	for _, custodian := range append(components[:], [2]string{wholeENC, wholeMAC}) {
		for _, c := range custodian {
			if strings.Contains(text, c[:12]) {
				t.Errorf("%s… was seen:\n%s", c[:12], screen)
			}
		}
	}
}

func TestCeremony(t *testing.T) {
	want := check(t, wholeENC) + "/" + check(t, wholeMAC)
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

// Into a token: the key is an object there that can't be read, of which the
// token computes the check value; nothing of it is left on this side.
func TestCeremonyIntoToken(t *testing.T) {
	if softHSM() == "" && os.Getenv("FREEAREA_REQUIRE_SOFTHSM") != "1" {
		t.Skip("needs SoftHSM2 and cgo")
	}
	dir := t.TempDir()
	uri, conf, err := makeToken(dir, "Office")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	if err := os.WriteFile(filepath.Join(dir, "pin"), []byte(tokenPIN), 0o600); err != nil {
		t.Fatal(err)
	}
	// inside opens the token in this process.
	inside := func(look func(*pkcs11.Store, []keys.Entry)) {
		t.Helper()
		u, err := pkcs11.ParseURI(uri)
		if err != nil {
			t.Fatal(err)
		}
		s, err := pkcs11.Open(t.Context(), u, pkcs11.Options{PIN: func(context.Context, pkcs11.Token) ([]byte, error) { return []byte(tokenPIN), nil }})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		list, err := s.Entries(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if problems, err := s.Problems(t.Context()); err != nil || len(problems) > 0 {
			t.Errorf("%v, error %v", problems, err)
		}
		look(s, list)
	}
	args := []string{"--keystore", uri, "--passphrase-file", "pin", "keys", "ceremony", "library-read", "--kind", "read", "--components", "3"}
	want := check(t, wholeENC) + "/" + check(t, wholeMAC)

	// A wrong sheet: nothing comes into the token.
	screen, err := dialogue(t, dir, append(args, "--check", "000000/000000"), custodians(t, 3)...)
	if err == nil || !strings.Contains(screen, "not 000000/000000") {
		t.Errorf("%v\n%s", err, screen)
	}
	inside(func(_ *pkcs11.Store, list []keys.Entry) {
		if len(list) != 0 {
			t.Errorf("%+v", list)
		}
	})

	screen, err = dialogue(t, dir, append(args, "--check", want), custodians(t, 3)...)
	if err != nil || !strings.Contains(screen, "added library-read version 1, aes-128, check value "+want) {
		t.Fatalf("%v\n%s", err, screen)
	}
	unseen(t, dir, screen)
	inside(func(s *pkcs11.Store, list []keys.Entry) {
		if len(list) != 1 || list[0].Name != "library-read" || list[0].Kind != keys.Read || list[0].Check != want {
			t.Errorf("%+v", list)
		}
		// It is the key of the sheets: it derives what they do.
		aid, data := iso7816.MustAID("F0465245454152454101"), []byte("0123456789")
		got, err := s.ReadKeys(t.Context(), keys.Ref{Name: "library-read"}, keys.MethodSP800108, aid, data)
		if err != nil {
			t.Fatal(err)
		}
		expected, err := keys.Diversify(keys.Read, keys.MethodSP800108, keys.Set{Version: 1, ENC: aesKey(t, wholeENC), MAC: aesKey(t, wholeMAC)}, aid, data)
		if err != nil || !got.ENC.Equal(expected.ENC) || !got.MAC.Equal(expected.MAC) {
			t.Errorf("%v, want %v, error %v", got, expected, err)
		}
	})

	// The name is taken: nobody types anything for nothing.
	for _, more := range [][]string{{"--key-version", "1"}, {"--kind", "security-domain"}} {
		screen, err = dialogue(t, dir, append(args, more...), [2]string{"Component", "00"})
		if err == nil || strings.Contains(screen, "Component") || !strings.Contains(screen, "library-read") {
			t.Errorf("%v: %v\n%s", more, err, screen)
		}
	}
}
