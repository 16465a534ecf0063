package app

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/manifest"
	"github.com/freearea/freearea/reader/list"
	"github.com/freearea/freearea/staff"
)

func (p *program) listCommand() *cli.Command {
	t := p.lang.T
	return &cli.Command{
		Name:  "list",
		Usage: t(msg.Of("signed lists of IDs by which terminals decide without a network", "端末がネットワークなしで判定するための署名付きIDリスト")),
		Subcommands: []*cli.Command{
			{
				Name:      "build",
				Usage:     t(msg.Of("make the list of a service", "サービスのリストを作成する")),
				ArgsUsage: "MANIFEST",
				Description: t(msg.Of(
					"The list is signed with the service's issuer signing key. With --previous it follows an earlier list, and --delta writes what changes between the two.",
					"リストはサービスの発行者署名鍵で署名されます。--previous で前のリストに続くリストになり、--delta で差分も書き出します。")),
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "kind", Value: string(list.Deny), Usage: t(msg.Of("`deny` (who is in it is refused) or allow (who is not in it is refused)", "`deny`(載っているIDを拒否)または allow(載っていないIDを拒否)"))},
					&cli.StringFlag{Name: "csv", Usage: t(msg.Of("take the IDs from the column id of `FILE`", "IDを `FILE` の id 列から読む"))},
					&cli.BoolFlag{Name: "from-ledger", Usage: t(msg.Of("take the IDs from the ledger: of a deny list those suspended, revoked or withdrawn and not given anew, of an allow list those that are good", "IDを台帳から読む(deny: 停止・失効・取消済みで再発行されていないもの、allow: 有効なもの)"))},
					&cli.DurationFlag{Name: "good", Value: 7 * 24 * time.Hour, Usage: t(msg.Of("for how long the list is fresh", "リストの有効な期間"))},
					&cli.StringFlag{Name: "previous", Usage: t(msg.Of("the list that it follows", "前のリスト"))},
					&cli.StringFlag{Name: "delta", Usage: t(msg.Of("write what changes since --previous to `FILE`", "--previous からの差分を `FILE` に書く"))},
					&cli.BoolFlag{Name: "unsigned", Usage: t(msg.Of("leave the list unsigned", "署名しない"))},
					&cli.StringFlag{Name: "out", Required: true, Usage: t(msg.Of("write the list to `FILE`", "リストを `FILE` に書く"))},
					p.jsonFlag(),
				},
				Action: p.listBuild,
			},
			{
				Name:      "apply",
				Usage:     t(msg.Of("make the next list out of one and a delta", "リストと差分から次のリストを作る")),
				ArgsUsage: "LIST DELTA",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "out", Usage: t(msg.Of("write the next list to `FILE` (in the place of the old one)", "次のリストを `FILE` に書く(既定:元のリストを置き換える)"))},
					p.jsonFlag(),
				},
				Action: p.listApply,
			},
			{
				Name:      "show",
				Usage:     t(msg.Of("show what a list is, and whether it is whole", "リストの内容と完全性を表示する")),
				ArgsUsage: "LIST [ID…]",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "manifest", Usage: t(msg.Of("check the signature with the issuer's key of the service `MANIFEST`", "サービスの `MANIFEST` の発行者鍵で署名を検証する"))},
					p.jsonFlag(),
				},
				Action: p.listShow,
			},
		},
	}
}

func (p *program) listBuild(c *cli.Context) (err error) {
	if c.NArg() != 1 {
		return usagef(msg.Of("list build takes one MANIFEST", "list build には MANIFEST を1つ指定してください"))
	}
	if c.IsSet("csv") == c.Bool("from-ledger") {
		return usagef(msg.Of("one of --csv and --from-ledger says where the IDs are", "--csv または --from-ledger のいずれか1つを指定してください"))
	}
	if c.IsSet("delta") && !c.IsSet("previous") {
		return usagef(msg.Of("--delta goes with --previous", "--delta は --previous と一緒に使います"))
	}
	m, err := p.loadIssued(c.Args().First())
	if err != nil {
		return err
	}
	s := list.Spec{Service: m.ID, Kind: list.Kind(c.String("kind")), Number: 1, Made: p.Now(), Good: c.Duration("good"), Rand: p.Rand}
	if s.Kind != list.Deny && s.Kind != list.Allow {
		return usagef(msg.Of("--kind is deny or allow, not %q", "--kind は deny か allow です(%q は使えません)"), s.Kind)
	}
	signed := !c.Bool("unsigned")
	if signed && m.Keys.IssuerSigning == "" {
		return &spoken{
			text: msg.Of("service %s has no issuer signing key to sign a list with", "サービス %s には、リストに署名する発行者署名鍵がありません"), args: []any{m.ID},
			hint: msg.Of("name one in the manifest (keys.issuer_signing), or make the list with --unsigned: terminals then have to be told to take it", "マニフェストの keys.issuer_signing で指定するか、--unsigned で作成してください(その場合は端末側の設定も必要です)")}
	}
	var site *office // nil where nothing of it is needed
	switch {
	case c.Bool("from-ledger"):
		site, err = p.openFor(c, staff.HandOver)
	case signed:
		if err = p.may(c, staff.HandOver); err == nil {
			site, err = p.openKeys(c.Context, c)
		}
	}
	if err != nil {
		return err
	}
	if site != nil {
		defer closing(&err, site.Close)
	}
	if signed {
		s.Sign = func(message []byte) ([]byte, error) {
			return site.keys.Sign(c.Context, keys.Ref{Name: m.Keys.IssuerSigning}, keys.IssuerSigning, message)
		}
	}
	var ids iter.Seq2[string, error]
	var erased *int
	if c.Bool("from-ledger") {
		erased = new(int)
		if ids, *erased, err = site.ledger.IDs(c.Context, m.ID, s.Kind == list.Allow); err != nil {
			return err
		}
	} else {
		ids = csvIDs(c.String("csv"), m)
	}
	var previous *list.List
	if c.IsSet("previous") {
		if previous, err = list.Open(c.String("previous"), list.Options{Service: m.ID}); err != nil {
			return err
		}
		defer closing(&err, previous.Close)
		s.Salt, s.Number = previous.Header().Salt, previous.Header().Number+1
	}
	h, err := list.Create(c.String("out"), s, ids)
	if err != nil {
		return err
	}
	if c.IsSet("delta") {
		next, err := list.Open(c.String("out"), list.Options{})
		if err != nil {
			return err
		}
		defer closing(&err, next.Close)
		if err := list.CreateDelta(c.String("delta"), previous, next); err != nil {
			return err
		}
	}
	if erased != nil && *erased > 0 {
		p.notef(msg.Of("freearea: note: %d IDs that belong on the list are erased from the ledger; they are not on it",
			"freearea: お知らせ: 対象のうち %d 件のIDは台帳から消去済みのため、リストに載っていません"), *erased)
	}
	return p.printList(c, c.String("out"), h, signed, nil, erased)
}

// csvIDs yields the IDs of a CSV file with a header line, each checked against
// what the service's manifest allows.
func csvIDs(path string, m *manifest.Manifest) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		f, err := os.Open(path)
		if err != nil {
			yield("", err)
			return
		}
		defer f.Close()
		in := csv.NewReader(f)
		in.ReuseRecord = true
		header, err := in.Read()
		if err != nil {
			yield("", fmt.Errorf("%s: %w", path, err))
			return
		}
		column := slices.IndexFunc(header, func(name string) bool { return strings.TrimPrefix(name, "\ufeff") == "id" })
		if column < 0 {
			yield("", fmt.Errorf("%s:1: no column \"id\"", path))
			return
		}
		for {
			row, err := in.Read()
			if errors.Is(err, io.EOF) {
				return
			}
			if err == nil {
				if err = m.CheckID(row[column]); err != nil {
					line, _ := in.FieldPos(column)
					err = fmt.Errorf("line %d: %w", line, err)
				}
			}
			if err != nil {
				yield("", fmt.Errorf("%s: %w", path, err))
				return
			}
			if !yield(strings.Clone(row[column]), nil) {
				return
			}
		}
	}
}

func (p *program) listApply(c *cli.Context) (err error) {
	if c.NArg() != 2 {
		return usagef(msg.Of("list apply takes a LIST and a DELTA", "list apply には LIST と DELTA を指定してください"))
	}
	from, err := list.Open(c.Args().Get(0), list.Options{})
	if err != nil {
		return err
	}
	defer closing(&err, from.Close)
	out := c.String("out")
	if out == "" {
		out = c.Args().Get(0)
	}
	h, err := list.ApplyDelta(out, from, c.Args().Get(1), list.Options{})
	if err != nil {
		return err
	}
	return p.printList(c, out, h, false, nil, nil)
}

func (p *program) listShow(c *cli.Context) (err error) {
	if c.NArg() < 1 {
		return usagef(msg.Of("list show takes a LIST, and IDs to look up", "list show には LIST と、調べるIDを指定してください"))
	}
	var o list.Options
	if path := c.String("manifest"); path != "" {
		if o, err = p.listKey(c.Context, c, path); err != nil {
			return err
		}
	}
	l, err := list.Open(c.Args().First(), o)
	if err != nil {
		return err
	}
	defer closing(&err, l.Close)
	found := map[string]bool{}
	for _, id := range c.Args().Tail() {
		found[id] = l.Contains(id)
	}
	return p.printList(c, c.Args().First(), l.Header(), l.Verified(), found, nil)
}

// listKey finds whose list it has to be.
func (p *program) listKey(ctx context.Context, c *cli.Context, path string) (o list.Options, err error) {
	m, err := p.loadIssued(path)
	if err != nil {
		return o, err
	}
	store, err := p.openKeystore(ctx, c)
	if err != nil {
		return o, err
	}
	defer closing(&err, store.Close)
	s, err := p.service(ctx, m, store, false)
	return list.Options{Key: s.IssuerKey, Service: m.ID}, err
}

func (p *program) printList(c *cli.Context, path string, h list.Header, signed bool, found map[string]bool, erased *int) error {
	if c.Bool("json") {
		return json.NewEncoder(p.Stdout).Encode(struct {
			V        int             `json:"v"`
			Type     string          `json:"type"`
			Path     string          `json:"path"`
			Service  string          `json:"service"`
			Kind     list.Kind       `json:"kind"`
			Number   uint64          `json:"number"`
			Made     time.Time       `json:"made"`
			Stale    time.Time       `json:"stale"`
			Entries  int             `json:"entries"`
			Verified bool            `json:"verified"`
			Found    map[string]bool `json:"found,omitempty"`
			Erased   *int            `json:"erased,omitempty"`
		}{1, "list", path, h.Service, h.Kind, h.Number, h.Made, h.Stale, h.Entries, signed, found, erased})
	}
	p.printf(msg.Of("%s: %s list of %s, number %d, IDs: %d", "%[1]s:%[3]s の %[2]s リスト、番号 %[4]d、ID %[5]d 件"), path, h.Kind, h.Service, h.Number, h.Entries)
	p.printf(msg.Of("made %s, to be trusted until %s", "作成 %s、有効期限 %s"), h.Made.Format(time.RFC3339), h.Stale.Format(time.RFC3339))
	state := msg.Of("the signature was not checked", "署名は検証していません")
	if signed {
		state = msg.Of("signed by the service's issuer", "発行者の署名があります")
	}
	p.printf(state)
	for _, id := range c.Args().Tail() {
		if in, asked := found[id]; asked {
			p.printf(msg.Of("%s: %s", "%s:%s"), id, p.lang.Choose(map[bool]string{true: "in it", false: "not in it"}[in], map[bool]string{true: "あり", false: "なし"}[in]))
		}
	}
	return nil
}
