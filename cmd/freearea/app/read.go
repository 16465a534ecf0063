package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/cmd/freearea/internal/passphrase"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/manifest"
	"github.com/freearea/freearea/reader"
)

func (p *program) readCommand() *cli.Command {
	t := p.lang.T
	return &cli.Command{
		Name:      "read",
		Usage:     t(msg.Of("read a service's ID from a card, as a terminal does", "端末と同じように、カードからサービスのIDを読み取る")),
		ArgsUsage: "MANIFEST…",
		Description: t(msg.Of(
			"Several manifests are tried in the order given: the first service that the card has is read.",
			"複数のマニフェストを指定すると、その順に探し、カードにある最初のサービスを読み取ります。")),
		Flags: []cli.Flag{
			p.cardFlag(),
			p.cutFlag(),
			&cli.BoolFlag{Name: "watch", Usage: t(msg.Of("go on with every card until interrupted", "中断されるまで、カードごとに読み取りを続ける"))},
			&cli.BoolFlag{Name: "items", Usage: t(msg.Of("read the further items too", "追加項目も読み取る"))},
			&cli.StringFlag{Name: "pin-file", Usage: t(msg.Of("read the PIN from `FILE` instead of asking", "PINを `FILE` から読む(既定:画面で尋ねる)"))},
			p.jsonFlag(),
		},
		Action: p.read,
	}
}

func (p *program) read(c *cli.Context) (err error) {
	ctx := c.Context
	r, closeReader, err := p.reader(c)
	if err != nil {
		return err
	}
	defer closing(&err, closeReader)
	if c.Bool("watch") {
		return p.watch(c, r)
	}
	card, closeCard, err := p.openCard(ctx, c, iso7816.Shared)
	if err != nil {
		return err
	}
	defer closing(&err, closeCard)
	tap, err := r.Read(ctx, card)
	if err != nil {
		return err
	}
	return p.printTap(c, tap)
}

// reader builds the runtime reader from the manifests. Only a service that
// needs a key opens the keystore.
func (p *program) reader(c *cli.Context) (*reader.Reader, func() error, error) {
	if c.NArg() == 0 {
		return nil, nil, usagef(msg.Of("read takes at least one MANIFEST", "read には MANIFEST を1つ以上指定してください"))
	}
	o := reader.Options{Clock: p.Now, Rand: p.Rand}
	needsStore := false
	var manifests []*manifest.Manifest
	for _, path := range c.Args().Slice() {
		m, err := p.loadIssued(path)
		if err != nil {
			return nil, nil, err
		}
		manifests = append(manifests, m)
		needsStore = needsStore || m.Keys.Read != "" || m.Keys.IssuerSigning != ""
	}
	closeStore := func() error { return nil }
	if needsStore {
		store, err := p.openKeystore(c.Context, c)
		if err != nil {
			return nil, nil, err
		}
		o.Keys, closeStore = store, store.Close
	}
	for _, m := range manifests {
		s, err := p.service(c.Context, m, o.Keys, c.Bool("items"))
		if err != nil {
			return nil, nil, errors.Join(err, closeStore())
		}
		o.Services = append(o.Services, s)
		if m.PIN.Policy == manifest.PINRequired {
			o.PIN, o.PINAtHand = p.askPIN(c), c.IsSet("pin-file")
		}
	}
	if len(o.Services) == 1 && o.PIN != nil && !c.Bool("watch") {
		// The one service wants a PIN: ask before the card is used, so that
		// the tap itself is short.
		pin, err := o.PIN(c.Context, reader.PINQuestion{Service: o.Services[0].ID})
		if err != nil {
			return nil, nil, errors.Join(err, closeStore())
		}
		o.PINAtHand = true
		o.PIN = func(context.Context, reader.PINQuestion) (applets.PIN, error) { return pin, nil }
	}
	r, err := reader.New(o)
	if err != nil {
		return nil, nil, errors.Join(err, closeStore())
	}
	return r, closeStore, nil
}

// service says to the reader what a manifest says.
func (p *program) service(ctx context.Context, m *manifest.Manifest, store keys.Store, items bool) (reader.Service, error) {
	profile, ok := m.LookupProfile(p.Profiles)
	if !ok {
		return reader.Service{}, fmt.Errorf("profile %q is not known to this program", m.Profile)
	}
	s := reader.Service{
		ID: m.ID, Profile: profile, Instance: m.Application.Instance,
		ReadKey: keys.Ref{Name: m.Keys.Read}, Diversification: m.Keys.Diversification,
		Items: items && profile.Traits().Items,
	}
	if name := m.Keys.IssuerSigning; name != "" {
		public, err := store.PublicKey(ctx, keys.Ref{Name: name})
		if err != nil {
			return s, fmt.Errorf("issuer signing key %q: %w", name, err)
		}
		s.IssuerKey = public
	}
	return s, nil
}

func (p *program) askPIN(c *cli.Context) func(context.Context, reader.PINQuestion) (applets.PIN, error) {
	return func(ctx context.Context, q reader.PINQuestion) (applets.PIN, error) {
		digits, err := passphrase.Source{File: c.String("pin-file")}.Read(ctx,
			p.lang.T(msg.Of("PIN for %s: ", "%s の暗証番号: "), q.Service))
		if err != nil {
			return applets.PIN{}, pinError(err)
		}
		defer clear(digits)
		return applets.NewPIN(string(digits))
	}
}

// watch reads every card until interrupted. A card that can't be read is a
// line too, and does not end it.
func (p *program) watch(c *cli.Context, r *reader.Reader) (err error) {
	if c.String("trace") != "" {
		return usagef(msg.Of("--trace goes with a single read, not with --watch", "--trace は --watch と一緒には使えません"))
	}
	source, slot, closeSource, err := p.source(c)
	if err != nil {
		return err
	}
	defer closing(&err, closeSource)
	if slot != "" {
		source = iso7816.SomeSlots(source, []string{slot})
	}
	for tap, err := range r.Taps(c.Context, source) {
		if failed := new(reader.TapError); errors.As(err, &failed) {
			if c.Bool("json") {
				if err := json.NewEncoder(p.Stdout).Encode(failed); err != nil {
					return err
				}
			} else {
				p.report(failed)
			}
			continue
		}
		if err != nil {
			return err
		}
		if err := p.printTap(c, tap); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) printTap(c *cli.Context, tap *reader.Tap) error {
	if c.Bool("json") {
		return json.NewEncoder(p.Stdout).Encode(tap)
	}
	p.printf(msg.Of("service         %s (%s)", "サービス        %s(%s)"), tap.Service, tap.Profile)
	p.printf(msg.Of("ID              %s", "ID              %s"), tap.ID)
	for _, it := range tap.Items {
		p.printf(msg.Of("  %-13s %s", "  %-13s %s"), it.Name, it.Value)
	}
	if !tap.Expiry.IsZero() {
		p.printf(msg.Of("valid until     %s", "有効期限        %s"), tap.Expiry.Format(time.DateOnly))
	}
	p.printf(msg.Of("authentication  %s", "認証            %s"), p.lang.T(authenticationText(tap.Authentication)))
	p.printf(msg.Of("signature       %s", "発行者署名      %s"), p.lang.T(signatureText(tap.Signature)))
	p.printf(msg.Of("tap             commands: %d, bytes: %d, time: %s", "通信            コマンド %d 個、%d バイト、%s"),
		tap.Commands, tap.Bytes, tap.Duration.Round(10*time.Microsecond))
	return nil
}

func authenticationText(a applets.Authentication) msg.Text {
	switch a {
	case applets.Mutual:
		return msg.Of("mutual", "相互認証")
	case applets.MutualEncrypted:
		return msg.Of("mutual, encrypted", "相互認証・暗号化")
	}
	return msg.Of("none: anybody can read and copy this ID", "なし(誰でも読み取り・複製が可能)")
}

func signatureText(s reader.Signature) msg.Text {
	switch s {
	case reader.Verified:
		return msg.Of("verified", "検証済み")
	case reader.Unchecked:
		return msg.Of("not checked", "未検証")
	}
	return msg.Of("none", "なし")
}
