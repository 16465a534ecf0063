// Package msg holds how the command speaks to people: in English and in
// Japanese. A text stands beside the code that prints it, in a call of [Of]
// with both languages; a test reads the sources and asks for both.
package msg

import (
	"fmt"
	"strings"
)

// Lang is the language of messages.
type Lang string

const (
	English  Lang = "en"
	Japanese Lang = "ja"
)

// Text is one message in both languages, in the form of fmt.Sprintf. Where
// the languages put arguments in another order they use explicit indexes.
type Text struct{ EN, JA string }

// Of returns the text of a message: English, Japanese.
func Of(en, ja string) Text { return Text{EN: en, JA: ja} }

// T returns the text in the language, with its arguments put in.
func (l Lang) T(t Text, args ...any) string {
	s := t.EN
	if l == Japanese {
		s = t.JA
	}
	if len(args) == 0 {
		return s
	}
	return fmt.Sprintf(s, args...)
}

// Choose returns the Japanese or the English one of two values.
func (l Lang) Choose(en, ja string) string {
	if l == Japanese && ja != "" || en == "" {
		return ja
	}
	return en
}

// Parse reads the name of a language: "ja" or "en", or a locale that begins
// with one of them.
func Parse(s string) (Lang, bool) {
	name, _, _ := strings.Cut(s, ".")
	name, _, _ = strings.Cut(name, "_")
	switch Lang(strings.ToLower(name)) {
	case Japanese:
		return Japanese, true
	case English:
		return English, true
	}
	return "", false
}

// FromLocale takes the language from the environment as POSIX orders it
// (LC_ALL, LC_MESSAGES, LANG); anything but Japanese is English.
func FromLocale(getenv func(string) string) Lang {
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		if v := getenv(name); v != "" {
			if l, ok := Parse(v); ok {
				return l
			}
			return English
		}
	}
	return English
}
