package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/freearea/freearea/cmd/freearea/internal/msg"
	"github.com/freearea/freearea/cmd/freearea/internal/passphrase"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/keys/pkcs11"
	"github.com/freearea/freearea/manifest"
	"github.com/freearea/freearea/reader"
	"github.com/freearea/freearea/reader/list"
	"github.com/freearea/freearea/reader/policy"
	"github.com/freearea/freearea/readerd"
)

func (p *program) readerdCommand() *cli.Command {
	t := p.lang.T
	return &cli.Command{
		Name:  "readerd",
		Usage: t(msg.Of("the service of a terminal: read every card, decide, tell tills, doors and systems", "端末の常駐サービス:カードを読み取り、判定し、レジ・扉・システムに伝える")),
		Description: t(msg.Of(
			"Runs until it is interrupted. SIGHUP reads the configuration and the lists anew; a faulty one is told, and what runs goes on.",
			"中断されるまで動作します。SIGHUP で設定とリストを読み直します。誤りがあるときはそれを表示し、それまでの設定で動作を続けます。")),
		Flags: []cli.Flag{
			p.cardFlag(),
			p.cutFlag(),
			&cli.StringFlag{Name: "config", Value: "readerd.toml", Usage: t(msg.Of("configuration `FILE`", "設定 `FILE`"))},
			&cli.BoolFlag{Name: "check", Usage: t(msg.Of("check the configuration and what it names, and end", "設定とそこで指定されたものを検査して終了する"))},
		},
		Action: p.readerd,
	}
}

func (p *program) readerd(c *cli.Context) (err error) {
	if c.NArg() > 0 {
		return usagef(msg.Of("readerd takes no arguments", "readerd に引数はありません"))
	}
	path := c.String("config")
	t, err := p.openTerminal(c.Context, path, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	if c.Bool("check") {
		p.printf(msg.Of("%s is good: services: %d, outputs: %d", "%s に問題はありません。サービス:%d、出力:%d"), path, len(t.config.Services), len(t.outputs))
		return nil
	}
	source, slot, closeSource, err := p.source(c)
	if err != nil {
		return err
	}
	defer closing(&err, closeSource)
	hangUp := make(chan os.Signal, 1)
	signal.Notify(hangUp, syscall.SIGHUP)
	defer signal.Stop(hangUp)
	for {
		next, err := p.serve(c.Context, t, path, slot, source, hangUp)
		if next == nil || err != nil {
			return err
		}
		if err := t.Close(); err != nil {
			return err
		}
		t = next
	}
}

// serve runs the terminal until it ends, or until the configuration has been
// read anew: then the next one is returned.
func (p *program) serve(ctx context.Context, t *terminal, path, slot string, source iso7816.Source, hangUp <-chan os.Signal) (*terminal, error) {
	names := t.config.Slots
	if slot != "" {
		names = []string{slot}
	}
	daemon, err := readerd.New(readerd.Options{
		Reader: t.reader, Source: source, Slots: names, Seen: t.seen, Policy: t.policy, Outputs: t.outputs, Log: t.log, LogIDs: t.config.Log.IDs, Metrics: t.metrics,
	})
	if err != nil {
		return nil, err
	}
	t.daemon = daemon
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- daemon.Run(ctx) }()
	t.log.Info("started", "services", len(t.config.Services), "outputs", len(t.outputs))
	for {
		select {
		case err := <-ended:
			return nil, err
		case <-hangUp:
			next, err := p.openTerminal(ctx, path, t)
			if err == nil {
				if next.seen, err = occupied(ctx, source); err != nil {
					err = errors.Join(err, next.Close())
				}
			}
			if err != nil {
				t.log.Error("configuration is not taken, the old one goes on", "error", err)
				continue
			}
			t.log.Info("configuration is read anew")
			if next.lent {
				t.lent, next.lent = true, false // they go over to the one that goes on
			}
			cancel()
			return next, <-ended
		}
	}
}

// occupied names the slots in which a card lies.
func occupied(ctx context.Context, source iso7816.Source) ([]string, error) {
	var names []string
	slots, err := source.Slots(ctx)
	for _, s := range slots {
		if s.CardPresent {
			names = append(names, s.Slot)
		}
	}
	return names, err
}

// terminal is what a configuration has become.
type terminal struct {
	config  readerd.Config
	reader  *reader.Reader
	policy  *policy.Policy
	outputs []readerd.Output
	daemon  *readerd.Daemon // once it is served
	seen    []string        // slots whose card the terminal before this one has read
	log     *slog.Logger
	metrics *readerd.Metrics
	numbers map[string]uint64 // of the lists, by service and kind
	keys    keystore          // nil where no service needs any
	lent    bool              // keys are another terminal's to close
	close   []func() error
}

// Close closes what the configuration names.
func (t *terminal) Close() error {
	var err error
	for _, f := range slices.Backward(t.close) {
		err = errors.Join(err, f())
	}
	if t.keys != nil && !t.lent {
		err = errors.Join(err, t.keys.Close())
	}
	return err
}

// openTerminal reads a configuration and opens what it names. Every fault is
// in the error. before is the configuration that it follows, nil for none: it
// takes no list that is older than those used already.
func (p *program) openTerminal(ctx context.Context, path string, before *terminal) (_ *terminal, err error) {
	config, err := readerd.LoadConfig(path)
	if err != nil {
		return nil, err
	}
	t := &terminal{config: config, metrics: readerd.NewMetrics(), numbers: map[string]uint64{}}
	if before != nil {
		t.metrics = before.metrics
		t.numbers = maps.Clone(before.numbers)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Close())
		}
	}()
	t.log = slog.New(slog.NewTextHandler(p.Stderr, nil))
	if config.Log.Format == "json" {
		t.log = slog.New(slog.NewJSONHandler(p.Stderr, nil))
	}
	return t, errors.Join(p.openServices(ctx, t, before), p.openOutputs(t))
}

// openServices opens manifests, keys and lists.
func (p *program) openServices(ctx context.Context, t, before *terminal) error {
	var faults []error
	var manifests []*manifest.Manifest
	needsStore := false
	for _, s := range t.config.Services {
		m, err := p.loadIssued(s.Manifest)
		if err != nil {
			faults = append(faults, err)
		} else {
			needsStore = needsStore || m.Keys.Read != "" || m.Keys.IssuerSigning != ""
		}
		manifests = append(manifests, m)
	}
	o := reader.Options{Clock: p.Now, Rand: p.Rand, Debounce: time.Duration(t.config.Debounce)}
	if needsStore {
		if err := p.openTerminalKeys(ctx, t, before); err != nil {
			return errors.Join(append(faults, err)...)
		}
		o.Keys = t.keys
	}
	rules := map[string]policy.Rule{}
	for i, m := range manifests {
		if m == nil {
			continue
		}
		s, err := p.service(ctx, m, o.Keys, t.config.Services[i].Items)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", t.config.Services[i].Manifest, err))
			continue
		}
		o.Services = append(o.Services, s)
		if rules[s.ID], err = t.rule(t.config.Services[i], s); err != nil {
			faults = append(faults, err)
		}
	}
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	var err error
	if t.reader, err = reader.New(o); err != nil {
		return err
	}
	t.policy, err = policy.New(policy.Options{Rules: rules})
	return err
}

// openTerminalKeys opens the keystore that the configuration names. Nobody
// sits at a terminal who could be asked for its passphrase, and nobody sees a
// token's last try go: it is the one in the file that is named, or else the
// service manager's credential "passphrase".
func (p *program) openTerminalKeys(ctx context.Context, t, before *terminal) (err error) {
	config := t.config
	// A token is open once in a process: it is taken over, unless it was
	// taken out since.
	if keys.InToken(config.Keystore) && before != nil && before.keys != nil && before.config.Keystore == config.Keystore {
		if _, err := before.keys.Entries(ctx); err == nil {
			t.keys, t.lent = before.keys, true
			return nil
		}
	}
	from := passphrase.Source{File: config.PassphraseFile}
	if dir := p.Getenv("CREDENTIALS_DIRECTORY"); from.File == "" && dir != "" {
		from = passphrase.Source{File: filepath.Join(dir, "passphrase"), Credential: true}
	}
	ready := config.Keystore != "" && from.File != ""
	if keys.InToken(config.Keystore) && !ready {
		u, err := pkcs11.ParseURI(config.Keystore)
		if err != nil {
			return err
		}
		_, ready = u.Query("pin-source")
	}
	if !ready {
		return &spoken{
			text: msg.Of("a service needs keys, and the configuration names no keystore", "鍵が必要なサービスがありますが、設定に鍵ストアがありません"),
			hint: msg.Of("set keystore and passphrase_file; `freearea keys import` puts a terminal's keys into one", "keystore と passphrase_file を設定してください。端末の鍵は `freearea keys import` で取り込みます")}
	}
	// The passphrase of a file took 64 MiB for a moment (argon2id). A terminal
	// stays for months on a small board, which has other uses for them.
	defer debug.FreeOSMemory()
	t.keys, err = p.openStore(ctx, config.Keystore, from, false)
	return err
}

// rule opens the lists of a service.
func (t *terminal) rule(c readerd.ServiceConfig, s reader.Service) (policy.Rule, error) {
	r := policy.Rule{Stale: c.Stale, Unsigned: c.Unsigned, From: c.From.Time, Until: c.Until.Time}
	for _, h := range c.Hours {
		r.Hours = append(r.Hours, policy.Hours(h))
	}
	var faults []error
	for _, place := range []struct {
		path string
		kind list.Kind
		into **list.List
	}{{c.Deny, list.Deny, &r.Deny}, {c.Allow, list.Allow, &r.Allow}} {
		if place.path == "" {
			continue
		}
		name := s.ID + " " + string(place.kind)
		l, err := list.Open(place.path, list.Options{
			Key: s.IssuerKey, Unsigned: c.Unsigned == policy.Warn, Service: s.ID, After: t.numbers[name],
		})
		if err != nil {
			faults = append(faults, err)
			continue
		}
		t.close = append(t.close, l.Close)
		t.numbers[name] = l.Header().Number
		*place.into = l
	}
	return r, errors.Join(faults...)
}

// openOutputs opens what is told.
func (p *program) openOutputs(t *terminal) error {
	var faults []error
	if c := t.config.HTTP; c != nil {
		h, err := c.Open(readerd.HTTPOptions{
			Metrics: t.metrics, Clock: p.Now,
			Health: func(ctx context.Context) readerd.Health { return t.daemon.Health(ctx) },
		})
		if err != nil {
			faults = append(faults, err)
		} else {
			t.outputs = append(t.outputs, h)
		}
	}
	for _, l := range t.config.Lines {
		w, err := p.openLines(t, l.Path)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		t.outputs = append(t.outputs, readerd.NewLines(l.Path, w))
	}
	for _, d := range t.config.Doors {
		door, err := d.Open()
		if err != nil {
			faults = append(faults, err)
			continue
		}
		t.outputs = append(t.outputs, door)
	}
	for _, m := range t.config.MQTT {
		broker, err := m.Open(readerd.MQTTOptions{State: t.config.State, Clock: p.Now, Rand: p.Rand, Log: t.log, Metrics: t.metrics})
		if err != nil {
			faults = append(faults, err)
			continue
		}
		t.close = append(t.close, broker.Close)
		t.outputs = append(t.outputs, broker)
	}
	for _, k := range t.config.Keyboards {
		keyboard, device, err := k.Open()
		if err != nil {
			faults = append(faults, err)
			continue
		}
		t.close = append(t.close, device.Close)
		t.outputs = append(t.outputs, keyboard)
	}
	return errors.Join(faults...)
}

// openLines opens a file, a device or a pipe for lines. A named pipe is opened
// for reading too, so that it does not wait for its reader.
func (p *program) openLines(t *terminal, path string) (io.Writer, error) {
	if path == "-" {
		return p.Stdout, nil
	}
	flags := os.O_WRONLY | os.O_APPEND | os.O_CREATE
	if info, err := os.Stat(path); err == nil && info.Mode()&fs.ModeNamedPipe != 0 {
		flags = os.O_RDWR
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err
	}
	t.close = append(t.close, f.Close)
	return f, nil
}
