package app

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"filippo.io/age"
	"github.com/urfave/cli/v2"

	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/cmd/freearea/internal/passphrase"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/keys/file"
	"github.com/freearea/freearea/keys/pkcs11"
)

// keystore is what the commands ask of the site's keys, wherever they are kept.
type keystore interface {
	keys.Store
	keys.SchemeKeys
	Generate(ctx context.Context, n keys.New) (keys.Entry, error)
	AddSet(ctx context.Context, n keys.New, set keys.Set) (keys.Entry, error)
	AddDevelopment(ctx context.Context, n keys.New) (keys.Entry, error)
	AddLedger(ctx context.Context, n keys.New, key keys.Key) (keys.Entry, error)
	AddPublic(ctx context.Context, n keys.New, public ed25519.PublicKey) (keys.Entry, error)
	AddBundle(ctx context.Context, b *file.Bundle) ([]keys.Entry, error)
	Export(ctx context.Context, w io.Writer, refs []keys.Ref, recipients ...age.Recipient) ([]keys.Entry, error)
	ExportPlain(ctx context.Context, w io.Writer, refs []keys.Ref) ([]keys.Entry, error)
	ExportPublic(ctx context.Context, w io.Writer, refs []keys.Ref) ([]keys.Entry, error)
	Retire(ctx context.Context, ref keys.Ref) (keys.Entry, error)
	Reinstate(ctx context.Context, ref keys.Ref) (keys.Entry, error)
	Close() error
}

var (
	_ keystore = (*file.Store)(nil)
	_ keystore = token{}
)

// token is a keystore in a PKCS#11 token: what it keeps it does not let out.
type token struct {
	*pkcs11.Store
	p *program
}

func (t token) AddBundle(ctx context.Context, b *file.Bundle) ([]keys.Entry, error) {
	return b.AddTo(ctx, t.Store)
}

func (t token) Export(context.Context, io.Writer, []keys.Ref, ...age.Recipient) ([]keys.Entry, error) {
	return nil, keys.ErrMastersStay
}

func (t token) ExportPlain(context.Context, io.Writer, []keys.Ref) ([]keys.Entry, error) {
	return nil, keys.ErrMastersStay
}

func (t token) ExportPublic(ctx context.Context, w io.Writer, refs []keys.Ref) ([]keys.Entry, error) {
	return file.ExportPublic(ctx, w, t.Store, refs, t.p.Now())
}

// tokenProblems names what in a token looks like a key and can't be used.
func (p *program) tokenProblems(c *cli.Context, store keystore) error {
	t, ok := store.(token)
	if !ok {
		return nil
	}
	problems, err := t.Problems(c.Context)
	for _, problem := range problems {
		p.notef(msg.Of("freearea: warning: %v", "freearea: 警告: トークンの鍵を使用できません(%v)"), problem)
	}
	return err
}

// openStore opens the keystore at a location: a file, or the URI of a token.
// from is where its passphrase or PIN comes from; of a token it comes before
// the URI's pin-source, so that a person can always give one.
func (p *program) openStore(ctx context.Context, location string, from passphrase.Source, finalTry bool) (keystore, error) {
	if keys.InToken(location) {
		return p.openToken(ctx, location, from, finalTry)
	}
	// A missing keystore is told before anybody types a passphrase for it.
	if _, err := os.Stat(location); err != nil {
		return nil, missingKeystore(location, err)
	}
	secret, err := from.Read(ctx, p.lang.T(msg.Of("Passphrase of %s: ", "%s のパスフレーズ: "), location))
	if err != nil {
		return nil, passphraseError(err)
	}
	defer clear(secret)
	store, err := file.Open(ctx, location, secret, file.Options{Now: p.Now, Rand: p.Rand})
	if err != nil {
		return nil, missingKeystore(location, err)
	}
	return store, nil
}

func (p *program) openToken(ctx context.Context, location string, from passphrase.Source, finalTry bool) (keystore, error) {
	u, err := pkcs11.ParseURI(location)
	if err != nil {
		return nil, err
	}
	store, err := pkcs11.Open(ctx, u, pkcs11.Options{
		Now: p.Now, FinalTry: finalTry,
		PIN: func(ctx context.Context, t pkcs11.Token) ([]byte, error) {
			if from.File == "" && from.FD == nil {
				from.File = t.PINFile
			}
			pin, err := from.Read(ctx, p.lang.T(msg.Of("PIN of the token %s (%s): ", "トークン %s のPIN(%s): "), t.Label, p.lang.T(triesText(t.Tries))))
			return pin, passphraseError(err)
		},
	})
	if err != nil {
		return nil, p.tokenError(err)
	}
	return token{store, p}, nil
}

// tokenError says of a refused PIN what the token tells of the tries left.
func (p *program) tokenError(err error) error {
	if refused := new(pkcs11.PINError); errors.As(err, &refused) && errors.Is(err, pkcs11.ErrPIN) {
		return &spoken{
			text: msg.Of("the token %q refuses the PIN: %s", "トークン %q がPINを拒否しました:%s"),
			args: []any{refused.Token, p.lang.T(triesText(refused.Tries))},
			hint: wrongPIN, code: err,
		}
	}
	return err
}

var wrongPIN = msg.Of("make sure of the PIN before you try again: tokens lock after a few wrong ones; nothing was changed",
	"PINを確かめてから、もう一度入力してください。何度か間違えるとロックされます。何も変更されていません")

// triesText says what a token tells of the tries left for its PIN.
func triesText(t pkcs11.Tries) msg.Text {
	switch t {
	case pkcs11.TriesLow:
		return msg.Of("fewer tries left than before", "残り回数が減っています")
	case pkcs11.TriesFinal:
		return msg.Of("one try left", "残り1回です")
	case pkcs11.TriesLocked:
		return msg.Of("no try left", "残り回数がありません")
	}
	return msg.Of("the token tells of no tries used up", "残り回数は減っていません")
}

// openKeystore opens the site's keystore.
func (p *program) openKeystore(ctx context.Context, c *cli.Context) (keystore, error) {
	return p.openStore(ctx, p.site.Keystore, passphraseSource(c), c.Bool("final-try"))
}

// openFileKeystore opens the site's keystore for what only one in a file has.
func (p *program) openFileKeystore(ctx context.Context, c *cli.Context) (*file.Store, error) {
	if keys.InToken(p.site.Keystore) {
		return nil, p.notInFile()
	}
	store, err := p.openKeystore(ctx, c)
	if err != nil {
		return nil, err
	}
	return store.(*file.Store), nil
}

// notInFile says that a keystore in a file is needed.
func (p *program) notInFile() error {
	return &spoken{
		text: msg.Of("the keystore is the token %s", "鍵ストアはトークン %s です"), args: []any{pkcs11.Redact(p.site.Keystore)},
		hint: msg.Of("this is for a keystore in a file; a token is set up, and its PIN changed, with its maker's program (softhsm2-util, pkcs11-tool)",
			"ファイルの鍵ストア専用の操作です。トークンの初期化とPINの変更は、トークン付属のプログラム(softhsm2-util、pkcs11-tool など)で行ってください")}
}

// hasKeystore says whether the site has a keystore at all.
func (p *program) hasKeystore() bool {
	_, err := os.Stat(p.site.Keystore)
	return keys.InToken(p.site.Keystore) || !errors.Is(err, fs.ErrNotExist)
}

// missingKeystore says so when there is no keystore at all.
func missingKeystore(location string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &spoken{text: msg.Of("there is no keystore %s", "鍵ストア %s がありません"), args: []any{location}, hint: noKeystore}
	}
	return err
}

// checkToken is what `doctor` finds of a token, without its PIN.
func (p *program) checkToken(ctx context.Context) finding {
	f := finding{Check: "keystore", Thing: pkcs11.Redact(p.site.Keystore)}
	u, err := pkcs11.ParseURI(p.site.Keystore)
	var t pkcs11.Token
	if err == nil {
		t, err = pkcs11.Find(ctx, u)
	}
	switch {
	case err == nil && t.Tries == pkcs11.TriesLocked:
		err = pkcs11.ErrPINLocked
		f.Code = "locked"
	case err == nil && t.Tries == pkcs11.TriesFinal:
		err = pkcs11.ErrFinalTry
		f.Code = "final-try"
	case err == nil:
		f.Code, f.OK = "ok", true
		f.what = msg.Of("the token is there; its PIN is checked when it is opened", "トークンがあります(PINは使用時に確認します)")
		f.Detail = fmt.Sprintf("%q, %s %s, serial %s: %v", t.Label, t.Manufacturer, t.Model, t.Serial, t.Tries)
		return f
	case errors.Is(err, pkcs11.ErrNotBuilt):
		f.Code = "not-built"
	case errors.Is(err, pkcs11.ErrNoToken):
		f.Code = "missing"
	default:
		f.Code = "token"
	}
	f.what, f.todo, f.Detail = msg.Of("the token can't be used", "トークンを使用できません"), hintFor(err), err.Error()
	return f
}
