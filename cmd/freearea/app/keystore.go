package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/mod/sumdb/note"

	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/cmd/freearea/internal/passphrase"
	"github.com/freearea/freearea/internal/durable"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/ledger"
	"github.com/freearea/freearea/staff"
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

var (
	newPassphrase = msg.Of("New passphrase of the keystore: ", "鍵ストアの新しいパスフレーズ: ")
	onceMore      = msg.Of("once more: ", "もう一度: ")
)

func (p *program) newPassphrase(c *cli.Context) ([]byte, error) {
	secret, err := passphraseSource(c).ReadNew(c.Context,
		p.lang.T(newPassphrase), p.lang.T(onceMore))
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
	noLedger   = msg.Of("`freearea staff init` makes it with its first operator; if there was one, restore it from a backup", "`freearea staff init` が最初の担当者とともに作成します。以前あった場合はバックアップから復元してください")
	noImage    = msg.Of("make one with `freearea emulate new`, or name it with --card image:FILE", "`freearea emulate new` で作るか、--card image:ファイル で指定してください")
)

// openLedger opens the site's ledger to ask it, without the keystore: what the
// site has seen of it is compared, and its signature left unverified.
func (p *program) openLedger(ctx context.Context) (*ledger.Ledger, error) {
	return p.openToAsk(ctx, ledger.Options{ReadOnly: true})
}

func (p *program) openToAsk(ctx context.Context, o ledger.Options) (*ledger.Ledger, error) {
	book, err := p.openLedgerWith(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := compare(ctx, book, p.checkpointFile(), nil); err != nil {
		return nil, errors.Join(err, book.Close())
	}
	return book, nil
}

// openLedgerWith opens it. An empty one in the place of a lost one would give
// the same IDs out again, so only `staff init` makes it.
func (p *program) openLedgerWith(ctx context.Context, o ledger.Options) (*ledger.Ledger, error) {
	o.Clock, o.Rand = p.Now, p.Rand
	book, err := ledger.Open(ctx, p.site.Ledger, o)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, p.missingLedger(err)
	}
	return book, err
}

func (p *program) missingLedger(err error) error {
	return &spoken{text: msg.Of("there is no ledger %s", "台帳 %s がありません"), args: []any{p.site.Ledger}, hint: noLedger, code: err}
}

// office is what a counter works with: the site's keystore and ledger, open.
type office struct {
	keys   keystore
	ledger *ledger.Ledger // nil where there is none yet
	known  note.Verifiers // of the ledger's checkpoints
	// checkpoint is the file that keeps the ledger's newest checkpoint as this
	// site has seen it. Who only asks leaves it as it is: it may be where nothing
	// can be written.
	checkpoint string
	asking     bool
}

// openOffice opens both, with an operator who signs and may do what is to be
// done: who may not is refused before a card is used or a plan shown. The ledger
// must be there.
func (p *program) openOffice(ctx context.Context, c *cli.Context, action staff.Action) (*office, error) {
	out, err := p.openOfficeWith(ctx, c, ledger.Options{}, true)
	if err != nil {
		return nil, err
	}
	if err := allowed(ctx, out.ledger, p.operator, action); err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return out, nil
}

// warnOfClock warns where the ledger is ahead of the clock: one of the two is or
// was wrong, and times of keeping are counted from what the ledger says.
func (p *program) warnOfClock(ctx context.Context, book *ledger.Ledger) error {
	reached, err := book.Now(ctx)
	if ahead := reached.Sub(p.Now()); err == nil && ahead > time.Minute {
		p.notef(msg.Of("freearea: warning: the ledger's last event is of %s, later than this computer's clock by %s: what is recorded gets that time until the clock has caught up; set the clock, or find out who put it forward",
			"freearea: 警告: 台帳の最後のイベントの日時 %s は、このコンピューターの時計より %s 先です。時計が追いつくまで、記録の日時は最後のイベントと同じになります。時計を確認してください"),
			reached.In(japan).Format(time.DateTime), ahead.Round(time.Second))
	}
	return err
}

// openKeys opens the keystore alone.
func (p *program) openKeys(ctx context.Context, c *cli.Context) (*office, error) {
	store, err := p.openKeystore(ctx, c)
	if err != nil {
		return nil, err
	}
	return &office{keys: store}, nil
}

// openReading opens both to ask them: nobody signs, nothing can be appended.
func (p *program) openReading(ctx context.Context, c *cli.Context) (*office, error) {
	return p.openOfficeWith(ctx, c, ledger.Options{ReadOnly: true}, false)
}

func (p *program) openOfficeWith(ctx context.Context, c *cli.Context, o ledger.Options, signed bool) (*office, error) {
	if _, err := os.Stat(p.site.Ledger); errors.Is(err, fs.ErrNotExist) && !o.Create {
		return nil, p.missingLedger(err)
	}
	store, err := p.openKeystore(ctx, c)
	if err != nil {
		return nil, err
	}
	out, err := p.furnish(ctx, c, store, o, signed)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return out, nil
}

// furnish opens the ledger beside a keystore that is open.
func (p *program) furnish(ctx context.Context, c *cli.Context, store keystore, o ledger.Options, signed bool) (_ *office, err error) {
	out := &office{keys: store, checkpoint: p.checkpointFile(), asking: o.ReadOnly}
	if signed {
		if o.Operator == nil {
			if o.Operator, err = p.signIn(ctx, c); err != nil {
				return nil, err
			}
			if o.Second, err = p.second(ctx, c); err != nil {
				return nil, err
			}
		}
		if o.Log, err = p.logSigner(ctx, store); err != nil {
			return nil, err
		}
	}
	if out.known, err = p.logVerifiers(ctx, store); err != nil {
		return nil, err
	}
	o.Known = out.known
	o.Digest = func(ctx context.Context, message []byte) ([16]byte, error) {
		return store.Digest(ctx, keys.Ref{Name: p.site.Keys.Ledger}, message)
	}
	if out.ledger, err = p.openLedgerWith(ctx, o); err != nil {
		return nil, err
	}
	err = compare(ctx, out.ledger, out.checkpoint, out.known)
	if err == nil && signed {
		err = p.warnOfClock(ctx, out.ledger)
	}
	if err != nil {
		return nil, errors.Join(err, out.ledger.Close())
	}
	return out, nil
}

// checkpointFile stands beside the keystore, or beside the ledger where the
// keystore is a token: there nothing can stand beside it.
func (p *program) checkpointFile() string {
	if keys.InToken(p.site.Keystore) {
		return p.site.Ledger + ".checkpoint"
	}
	return p.site.Keystore + ".checkpoint"
}

// sawLedger tells that this site has or had a ledger.
func (p *program) sawLedger() bool {
	_, err := os.Stat(p.checkpointFile())
	return !errors.Is(err, fs.ErrNotExist)
}

// compare holds the ledger against the newest checkpoint that this site has
// seen of it.
func compare(ctx context.Context, book *ledger.Ledger, checkpoint string, known note.Verifiers) error {
	seen, err := os.ReadFile(checkpoint)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = book.Since(ctx, seen, known)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", checkpoint, err)
	}
	return nil
}

// keep writes the ledger's newest checkpoint beside the keystore.
func (o *office) keep() error {
	now, err := o.ledger.Checkpoint(context.Background())
	if errors.Is(err, ledger.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if seen, err := os.ReadFile(o.checkpoint); err == nil && bytes.Equal(seen, now) {
		return nil
	}
	return durable.Replace(o.checkpoint, func(w io.Writer) error {
		_, err := w.Write(now)
		return err
	})
}

// Close closes both.
func (o *office) Close() error {
	return errors.Join(o.closeLedger(), o.keys.Close())
}

func (o *office) closeLedger() error {
	if o.ledger == nil {
		return nil
	}
	if o.asking {
		return o.ledger.Close()
	}
	return errors.Join(o.keep(), o.ledger.Close())
}

// actor is who works at which counter, after signIn.
func (p *program) actor() ledger.Actor {
	return ledger.Actor{Operator: p.site.Operator, Counter: p.site.Counter}
}

// closing joins the error of closing something to the error of the command.
func closing(err *error, close func() error) { *err = errors.Join(*err, close()) }
