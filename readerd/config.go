package readerd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/freearea/freearea/keys"
	"github.com/freearea/freearea/osdp"
	"github.com/freearea/freearea/reader/policy"
)

// Config is the configuration of a terminal: what is read, what is decided
// from, and who is told. Files are relative to the configuration's own.
type Config struct {
	// Slots are the names of the slots that are watched; none is all.
	Slots []string `toml:"slots"`
	// Debounce is for how long the same ID on the same slot is the same tap.
	Debounce Duration `toml:"debounce"`
	// Keystore holds the terminal's keys, where a service needs some: a file, or
	// the URI of a PKCS#11 token (RFC 7512). PassphraseFile is where its
	// passphrase or PIN stands; without one it is the service manager's
	// credential "passphrase", and a URI with a pin-source needs none.
	Keystore       string `toml:"keystore"`
	PassphraseFile string `toml:"passphrase_file"`
	// State is the directory for what the service itself keeps: events that
	// wait for an MQTT broker.
	State string `toml:"state"`

	Log      LogConfig       `toml:"log"`
	Services []ServiceConfig `toml:"service"`
	HTTP     *HTTPConfig     `toml:"http"` // nil is none
	Lines    []LinesConfig   `toml:"lines"`
	Doors    []DoorConfig    `toml:"door"`

	MQTT      []MQTTConfig     `toml:"mqtt"`
	Keyboards []KeyboardConfig `toml:"keyboard"`
}

// LogConfig is how the daemon logs, to standard error.
type LogConfig struct {
	Format string `toml:"format"` // "text" (default) or "json"
	IDs    bool   `toml:"ids"`    // IDs in the clear
}

// ServiceConfig is a service to look for on cards, in order of priority.
type ServiceConfig struct {
	Manifest string `toml:"manifest"`
	Items    bool   `toml:"items"` // read the further items too
	// Lists by which a tap is refused, see package reader/list, and what
	// becomes of taps while a list is stale or unsigned: "refuse" or "warn".
	Deny     string          `toml:"deny"`
	Allow    string          `toml:"allow"`
	Stale    policy.Handling `toml:"stale"`
	Unsigned policy.Handling `toml:"unsigned"`
	// From and Until are the first and the last day, "2026-04-01".
	From  Date `toml:"from"`
	Until Date `toml:"until"`
	// Hours are "mon-fri 08:00-19:00"; none is always.
	Hours []Hours `toml:"hours"`
}

// HTTPConfig is the output for programs and web pages on the same machine, see [HTTP].
type HTTPConfig struct {
	Listen    string   `toml:"listen"`     // loopback address with its port
	Origins   []string `toml:"origins"`    // web pages that may ask
	TokenFile string   `toml:"token_file"` // holds what everybody must know who asks
	Keep      Duration `toml:"keep"`       // for how long an event is handed out, 60 s unless given
}

// LinesConfig is an output of JSON Lines.
type LinesConfig struct {
	Path string `toml:"path"` // file, pipe or device; "-" is standard output
}

// DoorConfig is a door's control panel.
type DoorConfig struct {
	Line    string `toml:"line"`    // serial device
	Baud    int    `toml:"baud"`    // bit/s, 9600 unless given
	Address int    `toml:"address"` // 0 to 126
	Format  string `toml:"format"`  // see CardFormats
	Bits    int    `toml:"bits"`    // of "number"
	// Facility is the facility code of "wiegand26".
	Facility int `toml:"facility"`
	// KeyFile holds the secure channel's key as 32 hexadecimal digits. In
	// install mode the file is made when the panel sets the key.
	KeyFile string `toml:"key_file"`
	Install bool   `toml:"install"`
	Clear   bool   `toml:"clear"` // no secure channel: who touches the line reads and replays IDs
}

// Duration is a time such as "2s" or "500ms".
type Duration time.Duration

// UnmarshalText reads it.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v < 0 {
		return fmt.Errorf("%q: a time such as \"500ms\" or \"2s\" expected", text)
	}
	*d = Duration(v)
	return nil
}

// Date is a day such as "2026-04-01".
type Date struct{ time.Time }

// UnmarshalText reads it.
func (d *Date) UnmarshalText(text []byte) error {
	v, err := time.Parse(time.DateOnly, string(text))
	if err != nil {
		return fmt.Errorf("%q: a day such as \"2026-04-01\" expected", text)
	}
	d.Time = v
	return nil
}

// Hours are hours of the week such as "mon-fri 08:00-19:00", "sat,sun 10:00-17:00"
// or "22:00-06:00" (every day, until the next morning).
type Hours policy.Hours

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// UnmarshalText reads them.
func (h *Hours) UnmarshalText(text []byte) error {
	wrong := fmt.Errorf("%q: hours such as \"mon-fri 08:00-19:00\" or \"sat,sun 10:00-17:00\" expected", text)
	fields := strings.Fields(string(text))
	if len(fields) == 0 || len(fields) > 2 {
		return wrong
	}
	var v Hours
	if len(fields) == 2 {
		for part := range strings.SplitSeq(fields[0], ",") {
			first, last, through := strings.Cut(part, "-")
			from, to := slices.Index(weekdays, first), slices.Index(weekdays, last)
			if !through {
				to = from
			}
			if from < 0 || to < 0 {
				return wrong
			}
			for day := from; ; day = (day + 1) % len(weekdays) {
				if !slices.Contains(v.Days, time.Weekday(day)) {
					v.Days = append(v.Days, time.Weekday(day))
				}
				if day == to {
					break
				}
			}
		}
	}
	from, to, ok := strings.Cut(fields[len(fields)-1], "-")
	if !ok {
		return wrong
	}
	var fromOK, toOK bool
	v.From, fromOK = clock(from)
	v.To, toOK = clock(to)
	if !fromOK || !toOK || v.From == 24*time.Hour {
		return wrong
	}
	*h = v
	return nil
}

// clock reads a time of day, 00:00 to 24:00.
func clock(s string) (time.Duration, bool) {
	if len(s) != len("00:00") || s[2] != ':' {
		return 0, false
	}
	hour, errHour := strconv.ParseUint(s[:2], 10, 8)
	minute, errMinute := strconv.ParseUint(s[3:], 10, 8)
	d := time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute
	return d, errHour == nil && errMinute == nil && minute < 60 && d <= 24*time.Hour
}

// LoadConfig reads a configuration. Every fault is in the error, each with the
// file and the key or line; nothing is read from what the configuration names.
func LoadConfig(path string) (Config, error) {
	var c Config
	data, err := os.ReadFile(path)
	if err != nil {
		return c, err
	}
	meta, err := toml.Decode(string(data), &c)
	if err != nil {
		if pe := new(toml.ParseError); errors.As(err, pe) {
			return c, fmt.Errorf("%s:%d: %s", path, pe.Position.Line, pe.Message)
		}
		return c, fmt.Errorf("%s: %w", path, err)
	}
	var faults []error
	for _, key := range meta.Undecoded() {
		faults = append(faults, fmt.Errorf("%s: unknown key %q", path, key.String()))
	}
	c.check(func(format string, args ...any) {
		faults = append(faults, fmt.Errorf(path+": "+format, args...))
	})
	c.under(filepath.Dir(path))
	return c, errors.Join(faults...)
}

// check reports every fault that can be seen in the configuration itself.
func (c *Config) check(fault func(format string, args ...any)) {
	if len(c.Services) == 0 {
		fault("no [[service]]: say which services are read")
	}
	if f := c.Log.Format; f != "" && f != "text" && f != "json" {
		fault(`log.format: %q, "text" or "json" expected`, f)
	}
	manifests := map[string]bool{}
	for i, s := range c.Services {
		at := fmt.Sprintf("service[%d]", i)
		switch {
		case s.Manifest == "":
			fault("%s: no manifest", at)
		case manifests[s.Manifest]:
			fault("%s: manifest %s stands there twice", at, s.Manifest)
		}
		manifests[s.Manifest] = true
		for key, h := range map[string]policy.Handling{"stale": s.Stale, "unsigned": s.Unsigned} {
			if h != "" && h != policy.Refuse && h != policy.Warn {
				fault("%s.%s: %q, %q or %q expected", at, key, h, policy.Refuse, policy.Warn)
			}
		}
		if !s.From.IsZero() && s.Until.Before(s.From.Time) && !s.Until.IsZero() {
			fault("%s: until %s is before from %s", at, s.Until.Format(time.DateOnly), s.From.Format(time.DateOnly))
		}
	}
	if c.HTTP != nil {
		c.HTTP.check(fault)
	}
	for i, l := range c.Lines {
		if l.Path == "" {
			fault(`lines[%d]: no path ("-" is standard output)`, i)
		}
	}
	for i := range c.Doors {
		c.Doors[i].check(fmt.Sprintf("door[%d]", i), fault)
	}
	if len(c.MQTT) > 0 && c.State == "" {
		fault("no state: name the directory in which events wait for the broker of [[mqtt]]")
	}
	clients := map[string]bool{}
	for i := range c.MQTT {
		m, at := &c.MQTT[i], fmt.Sprintf("mqtt[%d]", i)
		m.check(at, fault)
		if clients[m.ClientID] {
			fault("%s: client_id %s stands there twice", at, m.ClientID)
		}
		clients[m.ClientID] = true
	}
	for i := range c.Keyboards {
		c.Keyboards[i].check(fmt.Sprintf("keyboard[%d]", i), fault)
	}
}

// maxKeep bounds for how long events are handed out: longer than a till and
// its customer stand before each other serves only who looks for IDs.
const maxKeep = time.Hour

func (h *HTTPConfig) check(fault func(format string, args ...any)) {
	if _, err := parseListen(h.Listen); err != nil {
		fault("http.listen: %w", err)
	}
	for i, origin := range h.Origins {
		if err := checkOrigin(origin); err != nil {
			fault("http.origins[%d]: %w", i, err)
		}
	}
	if time.Duration(h.Keep) > maxKeep {
		fault("http.keep: %s, %s at most expected", time.Duration(h.Keep), maxKeep)
	}
}

func (d *DoorConfig) check(at string, fault func(format string, args ...any)) {
	if d.Baud == 0 {
		d.Baud = 9600
	}
	if d.Line == "" {
		fault("%s: no line: name the serial device", at)
	}
	if d.Address < 0 || d.Address > 126 {
		fault("%s.address: %d, 0 to 126 expected", at, d.Address)
	}
	if !slices.Contains([]int{9600, 19200, 38400, 57600, 115200, 230400}, d.Baud) {
		fault("%s.baud: %d, a speed of OSDP (9600 to 230400) expected", at, d.Baud)
	}
	if !slices.Contains(CardFormats(), d.Format) {
		fault("%s.format: %q, one of %q expected", at, d.Format, CardFormats())
	}
	if d.Format == "number" && (d.Bits < 1 || d.Bits > 64) {
		fault("%s.bits: %d, 1 to 64 expected with format \"number\"", at, d.Bits)
	}
	if d.Facility < 0 || d.Facility > 255 {
		fault("%s.facility: %d, 0 to 255 expected", at, d.Facility)
	}
	switch {
	case d.Clear && (d.KeyFile != "" || d.Install):
		fault("%s: clear goes without key_file and install", at)
	case !d.Clear && d.KeyFile == "":
		fault("%s: no key_file: name the secure channel's key, or say clear = true and read what that means", at)
	}
}

// under makes the files relative to a directory.
func (c *Config) under(dir string) {
	files := []*string{&c.PassphraseFile, &c.State}
	if !keys.InToken(c.Keystore) {
		files = append(files, &c.Keystore)
	}
	if c.HTTP != nil {
		files = append(files, &c.HTTP.TokenFile)
	}
	for i := range c.Services {
		files = append(files, &c.Services[i].Manifest, &c.Services[i].Deny, &c.Services[i].Allow)
	}
	for i := range c.Lines {
		if c.Lines[i].Path != "-" {
			files = append(files, &c.Lines[i].Path)
		}
	}
	for i := range c.Doors {
		files = append(files, &c.Doors[i].KeyFile)
	}
	for i := range c.MQTT {
		m := &c.MQTT[i]
		files = append(files, &m.PasswordFile, &m.CA, &m.Certificate, &m.Key)
	}
	for _, f := range files {
		if *f != "" && !filepath.IsAbs(*f) {
			*f = filepath.Join(dir, *f)
		}
	}
}

// minToken is how many characters a token has at least: 16 random bytes in
// base 64 have 22.
const minToken = 22

// Open makes the output, with the token of its file. What the configuration
// does not say is the caller's: Metrics, Health and Clock.
func (h *HTTPConfig) Open(o HTTPOptions) (*HTTP, error) {
	o.Listen, o.Origins, o.Keep = h.Listen, h.Origins, time.Duration(h.Keep)
	if h.TokenFile != "" {
		text, err := os.ReadFile(h.TokenFile)
		if err != nil {
			return nil, err
		}
		o.Token = strings.TrimSpace(string(text))
		if len(o.Token) < minToken || strings.ContainsFunc(o.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, fmt.Errorf("%s: no token: one line of %d or more visible characters of ASCII expected", h.TokenFile, minToken)
		}
	}
	return NewHTTP(o)
}

// retryLine is after how long a serial line that failed is opened again.
const retryLine = 2 * time.Second

// Open makes the output, with the key of its file. In install mode the file is
// made when the panel sets a key, and taken from then on.
func (d DoorConfig) Open() (*Door, error) {
	c := osdp.Config{Address: byte(d.Address), Baud: uint32(d.Baud), Model: 1, Version: 1, Clear: d.Clear}
	if d.KeyFile != "" {
		key, err := readKey(d.KeyFile)
		switch {
		case errors.Is(err, os.ErrNotExist) && d.Install:
			c.Install = true
		case err != nil:
			return nil, err
		default:
			c.Key = &key
		}
		c.SaveKey = func(key [osdp.KeySize]byte) error { return writeKey(d.KeyFile, key) }
	}
	device, err := osdp.NewDevice(c)
	if err != nil {
		return nil, fmt.Errorf("door %s: %w", d.Line, err)
	}
	format := CardFormat{Name: d.Format, Bits: d.Bits, Facility: byte(d.Facility)}
	return NewDoor(d.Line, device, format, func() (io.ReadWriteCloser, error) { return openSerial(d.Line, d.Baud) }, retryLine), nil
}
