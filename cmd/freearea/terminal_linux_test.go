package main

import (
	"strings"
	"testing"
)

// What is typed at the terminal is asked for in plain words, and not seen.
func TestPassphraseAtTheTerminal(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		args   []string
		script [][2]string
	}{
		{[]string{"keys", "init"}, [][2]string{{"New passphrase of the keystore: ", passphrase}, {"once more: ", passphrase}}},
		{[]string{"keys", "list"}, [][2]string{{"Passphrase of freearea.keys: ", passphrase}}},
		{[]string{"keys", "list", "--lang", "ja"}, [][2]string{{"freearea.keys のパスフレーズ: ", passphrase}}},
	} {
		screen, err := dialogue(t, dir, tt.args, tt.script...)
		if err != nil || strings.Contains(screen, passphrase) || strings.Contains(screen, ": :") {
			t.Errorf("%v: %v, on the screen:\n%s", tt.args, err, screen)
		}
	}
}
