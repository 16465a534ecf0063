package app

import (
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/manifest"
)

// usageError is a command line that says something that does not exist.
type usageError struct {
	text msg.Text
	args []any
}

func (e *usageError) Error() string { return msg.English.T(e.text, e.args...) }

func usagef(t msg.Text, args ...any) error { return &usageError{t, args} }

// spoken is an error that the command itself words, in both languages, with
// what to do next. It wraps the coded error below it, if any.
type spoken struct {
	text  msg.Text
	args  []any
	hint  msg.Text // may be empty
	cause error
}

func (e *spoken) Error() string {
	s := msg.English.T(e.text, e.args...)
	if e.cause != nil {
		s += ": " + e.cause.Error()
	}
	return s
}

func (e *spoken) Unwrap() error { return e.cause }

func (p *program) onUsageError(c *cli.Context, err error, _ bool) error {
	return usagef(msg.Of("%s", "コマンドラインの誤り: %s"), err.Error())
}

func (p *program) unknownCommand(c *cli.Context) error {
	return usagef(msg.Of("%q is no command; `freearea --help` lists them", "%q というコマンドはありません。`freearea --help` で一覧が出ます"),
		c.Args().First())
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

// report tells a person what went wrong and what to do: one line each.
func (p *program) report(err error) {
	say := func(t msg.Text, args ...any) { fmt.Fprintln(p.Stderr, "freearea: "+p.lang.T(t, args...)) }
	var usage *usageError
	if errors.As(err, &usage) {
		say(msg.Of("error: %s", "エラー: %s"), p.lang.T(usage.text, usage.args...))
		say(msg.Of("hint: see `freearea COMMAND --help`", "ヒント: `freearea コマンド --help` を参照してください"))
		return
	}
	var faults manifest.Faults
	if errors.As(err, &faults) {
		for _, f := range faults {
			place := f.Place()
			if f.Key != "" {
				place = strings.TrimPrefix(place+": "+f.Key, ": ")
			}
			say(msg.Of("error: %s: %s", "エラー: %s: %s"), place, f.Message(string(p.lang)))
			if hint := f.Hint(string(p.lang)); hint != "" {
				say(msg.Of("hint: %s", "ヒント: %s"), hint)
			}
		}
		return
	}
	text, hint := err.Error(), msg.Text{}
	var own *spoken
	if errors.As(err, &own) {
		text = p.lang.T(own.text, own.args...)
		if own.cause != nil {
			text += ": " + p.explain(own.cause)
		}
		hint = own.hint
	} else {
		text = p.explain(err)
	}
	if hint.EN == "" {
		hint = hintFor(err)
	}
	for _, line := range strings.Split(text, "\n") {
		say(msg.Of("error: %s", "エラー: %s"), line)
	}
	if hint.EN != "" {
		say(msg.Of("hint: %s", "ヒント: %s"), p.lang.T(hint))
	}
}

// explain words an error of a library: the Japanese summary of its code, if
// there is one, before the precise text.
func (p *program) explain(err error) string {
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
	for _, k := range known {
		if errors.Is(err, k.code) {
			return k.hint
		}
	}
	return msg.Text{}
}
