package app

import (
	"context"
	"errors"

	"github.com/urfave/cli/v2"

	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/cmd/freearea/internal/passphrase"
	"github.com/freearea/freearea/keys/file"
	"github.com/freearea/freearea/ledger"
)

// passphraseSource is where the flags say that the keystore's passphrase comes
// from; without flags a person is asked.
func passphraseSource(c *cli.Context) passphrase.Source {
	s := passphrase.Source{File: c.String("passphrase-file")}
	if fd := c.Int("passphrase-fd"); fd >= 0 {
		s.FD = &fd
	}
	return s
}

func (p *program) newPassphrase(c *cli.Context) ([]byte, error) {
	return passphraseSource(c).ReadNew(c.Context,
		p.lang.T(msg.Of("New passphrase of the keystore: ", "鍵ストアの新しいパスフレーズ: ")),
		p.lang.T(msg.Of("once more: ", "もう一度: ")))
}

// openKeystore opens the site's keystore.
func (p *program) openKeystore(ctx context.Context, c *cli.Context) (*file.Store, error) {
	secret, err := passphraseSource(c).Read(ctx,
		p.lang.T(msg.Of("Passphrase of %s: ", "%s のパスフレーズ: "), p.site.Keystore))
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	return file.Open(ctx, p.site.Keystore, secret, file.Options{Now: p.Now, Rand: p.Rand})
}

// openLedger opens the site's ledger. An empty one in the place of a lost one
// would give the same IDs out again, so only recording a consent makes it.
func (p *program) openLedger(ctx context.Context, create bool) (*ledger.Ledger, error) {
	return ledger.Open(ctx, p.site.Ledger, ledger.Options{Clock: p.Now, Create: create})
}

func (p *program) actor() ledger.Actor {
	return ledger.Actor{Operator: p.site.Operator, Counter: p.site.Counter}
}

// closing joins the error of closing something to the error of the command.
func closing(err *error, close func() error) { *err = errors.Join(*err, close()) }
