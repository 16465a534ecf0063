package app

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// chosen is the command that the arguments name.
type chosen struct {
	*cli.Command        // nil for none
	path         string // as it is written: "keys add"
}

// arrange puts the arguments into the one order that the command-line library
// reads: global flags, command, its flags, then everything else. People write
// flags where they think of them; `freearea issue card.toml --card X` means
// what it says. Nothing is added, dropped or changed; an unknown flag stays
// where the library finds and refuses it.
func arrange(app *cli.App, args []string) ([]string, chosen) {
	if len(args) == 0 {
		return args, chosen{}
	}
	// A shell asks for completions by a last argument that must stay the last.
	var last []string
	if n := len(args) - 1; args[n] == completionFlag {
		args, last = args[:n], args[n:]
	}
	commands := app.Commands
	var leaf *cli.Command
	var global, path, local, rest []string
	for i := 1; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			rest = append(rest, args[i:]...)
			break
		}
		if len(arg) > 1 && arg[0] == '-' {
			name, _, hasValue := strings.Cut(strings.TrimLeft(arg, "-"), "=")
			flag, isGlobal := findFlag(app, leaf, name)
			group := &local
			if isGlobal {
				group = &global
			}
			*group = append(*group, arg)
			if !takesValue(flag) || hasValue {
				continue
			}
			if i++; i < len(args) {
				*group = append(*group, args[i])
				continue
			}
			// A value is missing: nothing that follows may be taken for it.
			if rest = nil; isGlobal {
				return slices.Concat(args[:1], global, last), chosen{leaf, strings.Join(path, " ")}
			}
			continue
		}
		if len(rest) == 0 {
			if c := commandNamed(commands, arg); c != nil {
				leaf, commands = c, c.Subcommands
				path = append(path, arg)
				continue
			}
		}
		rest = append(rest, arg)
	}
	return slices.Concat(args[:1], global, path, local, rest, last), chosen{leaf, strings.Join(path, " ")}
}

// completionFlag is what the library's completion scripts for shells add.
const completionFlag = "--generate-bash-completion"

func commandNamed(list []*cli.Command, name string) *cli.Command {
	for _, c := range list {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

// findFlag looks in the chosen command first, then among the global flags,
// then in the commands that may follow, since a flag may stand before its own.
func findFlag(app *cli.App, leaf *cli.Command, name string) (flag cli.Flag, global bool) {
	has := func(flags []cli.Flag) cli.Flag {
		for _, f := range flags {
			if slices.Contains(f.Names(), name) {
				return f
			}
		}
		return nil
	}
	if leaf != nil {
		if f := has(leaf.Flags); f != nil {
			return f, false
		}
	}
	if f := has(app.Flags); f != nil {
		return f, true
	}
	var search func([]*cli.Command) cli.Flag
	search = func(list []*cli.Command) cli.Flag {
		for _, c := range list {
			if f := has(c.Flags); f != nil {
				return f
			}
			if f := search(c.Subcommands); f != nil {
				return f
			}
		}
		return nil
	}
	if leaf != nil {
		return search(leaf.Subcommands), false
	}
	return search(app.Commands), false
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}
