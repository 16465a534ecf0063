package app

import (
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/delegation"
	"github.com/freearea/freearea/manifest"
)

// usageError is a command line that says something that does not exist.
type usageError struct {
	text msg.Text
	args []any
	// guess is what was probably meant; without one the hint is the help.
	guess string
}

func (e *usageError) Error() string { return msg.English.T(e.text, e.args...) }

func usagef(t msg.Text, args ...any) error { return &usageError{text: t, args: args} }

// spoken is an error that the command itself words, in both languages, with
// what to do next. It wraps the coded error below it, if any.
type spoken struct {
	text     msg.Text
	args     []any
	hint     msg.Text // may be empty
	hintArgs []any
	cause    error // told after the text
	code     error // only matched
}

func (e *spoken) Error() string {
	s := msg.English.T(e.text, e.args...)
	if e.cause != nil {
		s += ": " + e.cause.Error()
	}
	return s
}

func (e *spoken) Unwrap() []error {
	var all []error
	for _, err := range []error{e.cause, e.code} {
		if err != nil {
			all = append(all, err)
		}
	}
	return all
}

// onUsageError words what the library says of wrong flags.
func (p *program) onUsageError(_ *cli.Context, err error, _ bool) error {
	text := err.Error()
	if name, ok := strings.CutPrefix(text, "flag provided but not defined: "); ok {
		name = "--" + strings.TrimLeft(name, "-")
		return &usageError{
			text: msg.Of("unknown flag %s", "%s というフラグはありません"), args: []any{name},
			guess: closest(name, p.flagNames()),
		}
	}
	if name, ok := strings.CutPrefix(text, "flag needs an argument: "); ok {
		return usagef(msg.Of("the flag --%s needs a value", "フラグ --%s には値が必要です"), strings.TrimLeft(name, "-"))
	}
	if rest, ok := strings.CutPrefix(text, "invalid value "); ok {
		if value, flag, ok := strings.Cut(rest, " for flag "); ok {
			name, _, _ := strings.Cut(flag, ":")
			return usagef(msg.Of("--%s: %s is no value for it", "--%s: %s は指定できない値です"), strings.TrimLeft(name, "-"), value)
		}
	}
	return usagef(msg.Of("%s", "コマンドラインの誤り: %s"), text)
}

// required asks for flags without which a command can't do anything.
func required(c *cli.Context, flags ...string) error {
	for _, f := range flags {
		if c.String(f) == "" {
			return usagef(msg.Of("the flag --%s is needed", "フラグ --%s が必要です"), f)
		}
	}
	return nil
}

// flagNames lists the flags that the command line could have meant.
func (p *program) flagNames() (names []string) {
	flags := p.cli().Flags
	if p.command.Command != nil {
		flags = append(flags, p.command.Flags...)
	}
	for _, f := range flags {
		for _, n := range f.Names() {
			names = append(names, "--"+n)
		}
	}
	return append(names, "--help", "--version")
}

func (p *program) unknownCommand(c *cli.Context) error {
	var names []string
	list := c.App.Commands
	if p.command.Command != nil {
		list = p.command.Subcommands
	}
	for _, sub := range list {
		names = append(names, sub.Name)
	}
	guess := closest(c.Args().First(), names)
	if guess != "" {
		guess = strings.Join(strings.Fields("freearea "+p.command.path+" "+guess), " ")
	}
	return &usageError{
		text: msg.Of("%q is no command", "%q というコマンドはありません"), args: []any{c.Args().First()}, guess: guess,
	}
}

// closest returns the name that a misspelt one was probably meant to be, or "".
func closest(name string, names []string) string {
	best, least := "", 1+max(1, len(name)/4)
	for _, n := range names {
		if d := distance(name, n); d < least {
			best, least = n, d
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap with their
// neighbour to get from a to b.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(row[j-1]+1, last[j]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// langFlag finds --lang before the command line is parsed.
func langFlag(args []string) (msg.Lang, bool) {
	for i, a := range args {
		name, value, found := strings.Cut(strings.TrimLeft(a, "-"), "=")
		if !strings.HasPrefix(a, "-") || name != "lang" {
			continue
		}
		if !found && i+1 < len(args) {
			value = args[i+1]
		}
		return msg.Parse(value)
	}
	return "", false
}

// report tells a person what went wrong and what to do, one line each. Of
// several errors each is told, the first one first, and a hint once.
func (p *program) report(err error) {
	say := func(t msg.Text, args ...any) { fmt.Fprintln(p.Stderr, "freearea: "+p.lang.T(t, args...)) }
	var usage *usageError
	if errors.As(err, &usage) {
		say(msg.Of("error: %s", "エラー: %s"), p.lang.T(usage.text, usage.args...))
		if usage.guess != "" {
			say(msg.Of("hint: did you mean %s?", "ヒント: %s のことですか"), usage.guess)
		} else {
			say(msg.Of("hint: see `%s --help`", "ヒント: `%s --help` を参照してください"), strings.TrimSpace("freearea "+p.command.path))
		}
		return
	}
	hinted := map[string]bool{}
	for _, part := range parts(err) {
		for _, c := range p.complaints(part) {
			say(msg.Of("error: %s", "エラー: %s"), oneLine(c.text))
			if c.hint != "" && !hinted[c.hint] {
				say(msg.Of("hint: %s", "ヒント: %s"), c.hint)
				hinted[c.hint] = true
			}
		}
	}
}

// inWords is an error on one line, in the language of messages.
func (p *program) inWords(err error) string {
	var all []string
	for _, part := range parts(err) {
		for _, c := range p.complaints(part) {
			all = append(all, oneLine(c.text))
		}
	}
	return strings.Join(all, "; ")
}

// complaint is an error in words.
type complaint struct{ text, hint string }

func (p *program) complaints(err error) (list []complaint) {
	var faults manifest.Faults
	if errors.As(err, &faults) {
		for _, f := range faults {
			place := f.Place()
			if f.Key != "" {
				place = strings.TrimPrefix(place+": "+f.Key, ": ")
			}
			list = append(list, complaint{strings.TrimPrefix(place+": "+f.Message(string(p.lang)), ": "), f.Hint(string(p.lang))})
		}
		return list
	}
	out := complaint{text: p.explain(err)}
	var own *spoken
	if errors.As(err, &own) {
		out.text = p.lang.T(own.text, own.args...)
		if own.cause != nil {
			out.text += ": " + p.explain(own.cause)
		}
		out.hint = p.lang.T(own.hint, own.hintArgs...)
	}
	if out.hint == "" {
		out.hint = p.lang.T(hintFor(err))
	}
	return []complaint{out}
}

// parts takes apart what errors.Join put together: the errors are separate
// ones then. An error that says more around them is one error.
func parts(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if _, faults := err.(manifest.Faults); !ok || faults {
		return []error{err}
	}
	var texts []string
	var all []error
	for _, e := range joined.Unwrap() {
		texts = append(texts, e.Error())
		all = append(all, parts(e)...)
	}
	if strings.Join(texts, "\n") != err.Error() {
		return []error{err}
	}
	return all
}

// about names the thing that one or several joined errors are about.
func about(thing string, err error) error {
	if err == nil {
		return nil
	}
	var all []error
	for _, part := range parts(err) {
		all = append(all, fmt.Errorf("%s: %w", thing, part))
	}
	return errors.Join(all...)
}

// oneLine keeps an error to one line, whatever a library put into it.
func oneLine(s string) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(s, "\n", "; ")), " ")
}

// explain words an error of a library: the Japanese summary of its code, if
// there is one, before the precise text.
func (p *program) explain(err error) string {
	if mismatch := new(delegation.MismatchError); p.lang == msg.Japanese && errors.As(err, &mismatch) {
		return p.lang.T(msg.Of("field %s of the token file is %s, %s is expected", "トークンファイルの項目 %s が %s です(%s のはずです)"), mismatch.Field, mismatch.Got, mismatch.Want)
	}
	if wrong := new(applets.PINError); p.lang == msg.Japanese && errors.As(err, &wrong) {
		text := p.lang.T(msg.Of("wrong PIN, tries left: %d", "暗証番号が違います。残り %d 回です"), wrong.TriesLeft)
		if wrong.TriesLeft == 0 {
			text = p.lang.T(msg.Of("wrong PIN: it is blocked", "暗証番号が違います。ロックされました"))
		}
		return text + " (" + err.Error() + ")"
	}
	if p.lang == msg.Japanese {
		for _, k := range known {
			if errors.Is(err, k.code) {
				return k.summary.JA + " (" + err.Error() + ")"
			}
		}
	}
	return err.Error()
}

// hintFor says what to do about an error of a library.
func hintFor(err error) msg.Text {
	if wrong := new(applets.PINError); errors.As(err, &wrong) && wrong.TriesLeft == 0 {
		err = applets.ErrPINBlocked
	}
	for _, k := range known {
		if errors.Is(err, k.code) {
			return k.hint
		}
	}
	return msg.Text{}
}
