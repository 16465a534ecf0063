package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// Token is what a token tells of itself before any login.
type Token struct {
	Label, Manufacturer, Model, Serial string
	Tries                              Tries
	// PINFile is the file that the URI's pin-source names, empty without one.
	PINFile string
}

// URI names the token, with the path of its library.
func (t Token) URI(module string) URI {
	return newURI([]uriAttribute{
		{"token", t.Label}, {"manufacturer", t.Manufacturer}, {"model", t.Model}, {"serial", t.Serial},
	}, []uriAttribute{{"module-path", module}})
}

// checkModule says whether a library's path is given in full.
func checkModule(path string) error {
	if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
		return fmt.Errorf("%w: module-path %q is not given in full", ErrUnsupportedURI, path)
	}
	return nil
}

// Tokens lists the initialised tokens that a library knows, by its path in
// full. No PIN is needed.
func Tokens(ctx context.Context, module string) ([]Token, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := checkModule(module); err != nil {
		return nil, err
	}
	lib, err := load(module)
	if err != nil {
		return nil, err
	}
	defer lib.release()
	every, err := ParseURI("pkcs11:")
	if err != nil {
		return nil, err
	}
	slots, err := match(lib, every)
	if err != nil {
		return nil, err
	}
	var out []Token
	for _, s := range slots {
		out = append(out, s.Token)
	}
	return out, nil
}

// present is a token in its slot.
type present struct {
	Token
	slot  uint
	flags uint
}

func (p *present) set(i tokenInfo) {
	p.Label, p.Manufacturer, p.Model, p.Serial = i.label, i.manufacturer, i.model, i.serial
	p.flags = i.flags
	switch {
	case i.flags&ckfUserPINLocked != 0:
		p.Tries = TriesLocked
	case i.flags&ckfUserPINFinalTry != 0:
		p.Tries = TriesFinal
	case i.flags&ckfUserPINCountLow != 0:
		p.Tries = TriesLow
	default:
		p.Tries = TriesFull
	}
}

// match finds the tokens that a URI names (RFC 7512, 2.4): every attribute
// that it has must be equal, also an empty one.
func match(lib library, u URI) ([]present, error) {
	wrap := func(what string, err error) error { return fmt.Errorf("%w: %s: %w", ErrModule, what, err) }
	info, err := lib.info()
	if err != nil {
		return nil, wrap("its description", err)
	}
	equal := func(values map[string]string) bool {
		for name, value := range values {
			if want, ok := u.Path(name); ok && want != value {
				return false
			}
		}
		return true
	}
	if !equal(map[string]string{"library-manufacturer": info.manufacturer, "library-description": info.description}) {
		return nil, nil
	}
	if want, ok := u.Path("library-version"); ok {
		major, minor, _ := strings.Cut(want, ".")
		if minor == "" {
			minor = "0" // RFC 7512, 2.3
		}
		// The grammar allows leading zeros.
		a, _ := strconv.ParseUint(major, 10, 32)
		b, _ := strconv.ParseUint(minor, 10, 32)
		if a != uint64(info.major) || b != uint64(info.minor) {
			return nil, nil
		}
	}
	slots, err := lib.slots()
	if err != nil {
		return nil, wrap("list of slots", err)
	}
	var out []present
	for _, slot := range slots {
		si, err := lib.slotInfo(slot)
		if err != nil {
			return nil, wrap("slot", err)
		}
		ti, err := lib.tokenInfo(slot)
		switch {
		case errors.Is(err, ckrTokenNotPresent), errors.Is(err, ckrTokenNotRecognized):
			continue // taken out since the list was made, or no token
		case err != nil:
			return nil, wrap("token", err)
		case ti.flags&ckfTokenInitialized == 0:
			continue
		}
		if id, ok := u.Path("slot-id"); ok {
			if n, _ := strconv.ParseUint(id, 10, 32); uint64(slot) != n {
				continue
			}
		}
		if !equal(map[string]string{
			"token": ti.label, "manufacturer": ti.manufacturer, "model": ti.model, "serial": ti.serial,
			"slot-manufacturer": si.manufacturer, "slot-description": si.description,
		}) {
			continue
		}
		p := present{slot: slot}
		p.set(ti)
		out = append(out, p)
	}
	return out, nil
}
