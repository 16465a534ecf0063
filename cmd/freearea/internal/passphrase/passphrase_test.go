package passphrase

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

var contents = []struct {
	name, in, out string
	err           error
}{
	{"plain", "secret", "secret", nil},
	{"one line feed", "secret\n", "secret", nil},
	{"CR LF", "secret\r\n", "secret", nil},
	{"two line feeds", "secret\n\n", "secret\n", nil},
	{"two CR LF", "secret\r\n\r\n", "secret\r\n", nil},
	{"CR alone", "secret\r", "secret\r", nil},
	{"spaces", "  two words \n", "  two words ", nil},
	{"Japanese", "合言葉\n", "合言葉", nil},
	{"longest", strings.Repeat("x", MaxSize) + "\r\n", strings.Repeat("x", MaxSize), nil},
	{"too long", strings.Repeat("x", MaxSize+1), "", ErrTooLong},
	{"much too long", strings.Repeat("x", 10*MaxSize), "", ErrTooLong},
	{"empty", "", "", ErrEmpty},
	{"line feed only", "\n", "", ErrEmpty},
	{"CR LF only", "\r\n", "", ErrEmpty},
}

func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "passphrase")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func check(t *testing.T, got []byte, err error, want string, wantErr error) {
	t.Helper()
	if !errors.Is(err, wantErr) || wantErr == nil && err != nil {
		t.Fatalf("error %v, want %v", err, wantErr)
	}
	if string(got) != want {
		t.Errorf("%q, want %q", got, want)
	}
	if err != nil && strings.Contains(err.Error(), "xxx") {
		t.Errorf("the error shows the passphrase: %v", err)
	}
}

func TestFile(t *testing.T) {
	for _, tt := range contents {
		t.Run(tt.name, func(t *testing.T) {
			s := Source{File: write(t, tt.in)}
			got, err := s.Read(t.Context(), "passphrase")
			check(t, got, err, tt.out, tt.err)
			got, err = s.ReadNew(t.Context(), "passphrase", "again")
			check(t, got, err, tt.out, tt.err)
		})
	}
	_, err := Source{File: filepath.Join(t.TempDir(), "absent")}.Read(t.Context(), "")
	check(t, nil, err, "", fs.ErrNotExist)
	if _, err := (Source{File: t.TempDir()}).Read(t.Context(), ""); err == nil {
		t.Error("a directory was read")
	}
}

func TestFileMode(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no file modes")
	}
	path := write(t, "secret")
	for _, m := range []fs.FileMode{0o640, 0o604, 0o660, 0o644} {
		os.Chmod(path, m)
		got, err := Source{File: path}.Read(t.Context(), "")
		check(t, got, err, "", ErrPermissions)
		got, err = Source{File: path, Credential: true}.Read(t.Context(), "")
		check(t, got, err, "secret", nil)
	}
	os.Chmod(path, 0o400)
	got, err := Source{File: path}.Read(t.Context(), "")
	check(t, got, err, "secret", nil)
}

func TestDescriptor(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("descriptors are handles there")
	}
	for _, tt := range contents {
		t.Run(tt.name, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				w.WriteString(tt.in)
				w.Close()
			}()
			// The source closes the descriptor, so it gets one of its own.
			fd := duplicate(t, r)
			defer r.Close()
			got, err := Source{FD: &fd}.Read(t.Context(), "")
			check(t, got, err, tt.out, tt.err)
		})
	}
	for _, fd := range []int{-1, 1, 2, 1 << 20} {
		if _, err := (Source{FD: &fd}).Read(t.Context(), ""); err == nil {
			t.Errorf("read from descriptor %d", fd)
		}
	}
}

// prompt answers as a person would.
type prompt struct {
	answers []string
	asked   []string
	given   [][]byte
}

func (p *prompt) Ask(_ context.Context, question string) ([]byte, error) {
	p.asked = append(p.asked, question)
	if len(p.answers) == 0 {
		return nil, errors.New("gone away")
	}
	a := []byte(p.answers[0])
	p.answers = p.answers[1:]
	p.given = append(p.given, a)
	return a, nil
}

func TestPrompt(t *testing.T) {
	p := &prompt{answers: []string{"secret"}}
	got, err := Source{Prompt: p}.Read(t.Context(), "passphrase of site.keys")
	check(t, got, err, "secret", nil)
	if len(p.asked) != 1 || p.asked[0] != "passphrase of site.keys" {
		t.Errorf("asked %q", p.asked)
	}
	p = &prompt{answers: []string{"secret", "secret"}}
	got, err = Source{Prompt: p}.ReadNew(t.Context(), "new", "again")
	check(t, got, err, "secret", nil)
	if len(p.asked) != 2 || p.asked[1] != "again" {
		t.Errorf("asked %q", p.asked)
	}
	p = &prompt{answers: []string{"secret", "Secret"}}
	got, err = Source{Prompt: p}.ReadNew(t.Context(), "new", "again")
	check(t, got, err, "", ErrMismatch)
	for _, b := range p.given {
		if !bytes.Equal(b, make([]byte, len(b))) {
			t.Error("a refused passphrase stays in memory")
		}
	}
	got, err = Source{Prompt: &prompt{answers: []string{"secret"}}}.ReadNew(t.Context(), "new", "again")
	if err == nil || got != nil {
		t.Errorf("%q, %v after a prompt that failed", got, err)
	}
	got, err = Source{Prompt: &prompt{answers: []string{""}}}.Read(t.Context(), "")
	check(t, got, err, "", ErrEmpty)
	got, err = Source{Prompt: &prompt{answers: []string{strings.Repeat("x", MaxSize+1)}}}.Read(t.Context(), "")
	check(t, got, err, "", ErrTooLong)
	// A file or descriptor is never mixed with a question.
	p = &prompt{}
	got, err = Source{File: write(t, "s"), Prompt: p}.ReadNew(t.Context(), "new", "again")
	check(t, got, err, "s", nil)
	if len(p.asked) != 0 {
		t.Errorf("asked %q", p.asked)
	}
}

func TestBoth(t *testing.T) {
	fd := 0
	_, err := Source{File: "x", FD: &fd}.Read(t.Context(), "")
	check(t, nil, err, "", ErrBoth)
}

func TestTerminalCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Terminal{}.Ask(ctx, "passphrase")
	check(t, nil, err, "", context.Canceled)
}
