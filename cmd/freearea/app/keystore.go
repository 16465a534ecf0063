package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/urfave/cli/v2"

	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/cmd/freearea/internal/passphrase"
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
	secret, err := passphraseSource(c).ReadNew(c.Context,
		p.lang.T(msg.Of("New passphrase of the keystore: ", "鍵ストアの新しいパスフレーズ: ")),
		p.lang.T(msg.Of("once more: ", "もう一度: ")))
	return secret, passphraseError(err)
}

// passphraseError says of a file that can't be opened what it was to give.
func passphraseError(err error) error {
	if errors.As(err, new(*fs.PathError)) {
		return fmt.Errorf("passphrase: %w", err)
	}
	return err
}

var (
	noKeystore = msg.Of("make one with `freearea keys init`, or name it with --keystore", "`freearea keys init` で作るか、--keystore で指定してください")
	noLedger   = msg.Of("recording the first consent makes it; if there was one, restore it from a backup", "最初の同意記録で作成されます。以前あった場合はバックアップから復元してください")
	noImage    = msg.Of("make one with `freearea emulate new`, or name it with --card image:FILE", "`freearea emulate new` で作るか、--card image:ファイル で指定してください")
)

// openLedger opens the site's ledger. An empty one in the place of a lost one
// would give the same IDs out again, so only recording a consent makes it.
func (p *program) openLedger(ctx context.Context, create bool) (*ledger.Ledger, error) {
	book, err := ledger.Open(ctx, p.site.Ledger, ledger.Options{Clock: p.Now, Create: create})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &spoken{text: msg.Of("there is no ledger %s", "台帳 %s がありません"), args: []any{p.site.Ledger}, hint: noLedger, code: err}
	}
	return book, err
}

// office is what a counter works with: the site's keystore and ledger, open.
type office struct {
	keys   keystore
	ledger *ledger.Ledger // nil where there is none yet
}

// openOffice opens both. The ledger must be there.
func (p *program) openOffice(ctx context.Context, c *cli.Context) (*office, error) {
	store, err := p.openKeystore(ctx, c)
	if err != nil {
		return nil, err
	}
	book, err := p.openLedger(ctx, false)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return &office{store, book}, nil
}

// Close closes both.
func (o *office) Close() error {
	err := o.keys.Close()
	if o.ledger != nil {
		err = errors.Join(err, o.ledger.Close())
	}
	return err
}

func (p *program) actor() ledger.Actor {
	return ledger.Actor{Operator: p.site.Operator, Counter: p.site.Counter}
}

// closing joins the error of closing something to the error of the command.
func closing(err *error, close func() error) { *err = errors.Join(*err, close()) }
