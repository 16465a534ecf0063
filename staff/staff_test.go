package staff_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/freearea/freearea/staff"
)

var cheap = staff.FileOptions{Work: 4}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clerk.staff")
	k, err := staff.NewKey("clerk-7", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Write(path, []byte("pass"), cheap); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := k.Write(path, []byte("pass"), cheap); !errors.Is(err, fs.ErrExist) {
		t.Errorf("written over another file: %v", err)
	}
	again, err := staff.Open(path, []byte("pass"))
	if err != nil {
		t.Fatal(err)
	}
	signature, err := again.Sign([]byte("m"))
	if err != nil || again.Operator() != "clerk-7" || !ed25519.Verify(k.Public(), []byte("m"), signature) {
		t.Errorf("another key came back: %v, %v", again, err)
	}
	for _, wrong := range []string{"Pass", ""} {
		if _, err := staff.Open(path, []byte(wrong)); !errors.Is(err, staff.ErrPassphrase) || !strings.Contains(err.Error(), path) {
			t.Errorf("passphrase %q: %v", wrong, err)
		}
	}
	again.Erase()
	if _, err := again.Sign([]byte("m")); err == nil {
		t.Error("an erased key signs")
	}
	if !ed25519.Verify(k.Public(), []byte("m"), signature) {
		t.Error("erasing one key erased the other")
	}
}

func TestMalformedKeyFile(t *testing.T) {
	dir := t.TempDir()
	k, err := staff.NewKey("clerk-7", nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "good")
	if err := k.Write(path, []byte("pass"), cheap); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	middle := bytes.Clone(good)
	middle[len(middle)/2] ^= 1
	for name, content := range map[string][]byte{
		"empty": nil, "text": []byte("another secret\n"), "twice": append(bytes.Clone(good), good...), "cut short": good[:len(good)/2], "a changed byte": middle,
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if k, err := staff.Open(path, []byte("pass")); !errors.Is(err, staff.ErrMalformed) {
			t.Errorf("%s: opened as %v, %v", name, k, err)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: it tells what is in the file: %v", name, err)
		}
	}
	if _, err := staff.Open(dir, []byte("pass")); !errors.Is(err, staff.ErrMalformed) {
		t.Errorf("a directory: %v", err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o602} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := staff.Open(path, []byte("pass")); !errors.Is(err, staff.ErrPermissions) || !strings.Contains(err.Error(), path) {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
}

func TestKeyIsNotPrinted(t *testing.T) {
	k, err := staff.NewKey("clerk-7", bytes.NewReader(bytes.Repeat([]byte{0xA7}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("key", "key", k)
	for _, text := range []string{fmt.Sprintf("%v %+v %#v %s %x %q %d", k, k, k, k, k, k, k), log.String()} {
		for _, secret := range []string{"167 167", strings.Repeat("a7", 4), hex.EncodeToString(k.Public()[:4])} {
			if strings.Contains(strings.ToLower(text), secret) {
				t.Errorf("%s holds %s", text, secret)
			}
		}
		if !strings.Contains(text, "clerk-7") {
			t.Errorf("%s does not say whose", text)
		}
	}
}

func TestID(t *testing.T) {
	for id, want := range map[string]bool{
		"clerk-7": true, "窓口一": true, strings.Repeat("x", 64): true,
		"": false, "a b": false, "a\n": false, "\x7f": false, "\xff": false, strings.Repeat("x", 65): false,
	} {
		if err := staff.CheckID(id); (err == nil) != want {
			t.Errorf("%q: %v", id, err)
		}
		if _, err := staff.NewKey(id, nil); (err == nil) != want {
			t.Errorf("key for %q: %v", id, err)
		}
	}
}

// TestRules holds the properties that the table must not lose.
func TestRules(t *testing.T) {
	seen := map[staff.Action]bool{}
	for _, r := range staff.Rules() {
		if seen[r.Action] || len(r.By) == 0 || r.Means == "" {
			t.Errorf("%s: twice, or nobody may, or it says nothing", r.Action)
		}
		seen[r.Action] = true
		if r.Allows(staff.Auditor) && r.Action != staff.Read && r.Action != staff.Backup {
			t.Errorf("%s: an auditor only reads", r.Action)
		}
		if r.Allows(staff.KeyCustodian) && (r.Action == staff.Cards || r.Action == staff.Consents) {
			t.Errorf("%s: who has the keys serves no holders", r.Action)
		}
	}
	for _, a := range []staff.Action{staff.ChangeStaff, staff.ExchangeKeys} {
		if r := staff.RuleOf(a); len(r.Second) == 0 {
			t.Errorf("%s needs two", a)
		}
	}
	for _, r := range staff.Roles() {
		if staff.RuleOf("unknown").Allows(r) {
			t.Errorf("%s may do what nobody knows", r)
		}
		if parsed, err := staff.ParseRole(string(r)); err != nil || parsed != r {
			t.Errorf("%s: %s, %v", r, parsed, err)
		}
	}
	if _, err := staff.ParseRole("boss"); err == nil {
		t.Error("a boss")
	}
}
