package app

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/BurntSushi/toml"

	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// siteFile is looked for in the working directory when --site names none.
const siteFile = "freearea.toml"

// site is the configuration of one counter or terminal: what stays the same
// from service to service and from holder to holder.
type site struct {
	Card        string `toml:"card"`         // default of --card
	CardProfile string `toml:"card_profile"` // what kind of card is issued to
	Keystore    string `toml:"keystore"`     // file, relative to the site file; or the URI of a token
	Ledger      string `toml:"ledger"`       // file; relative to the site file
	Manifests   string `toml:"manifests"`    // folder of the services' manifests; relative to the site file
	Profiles    string `toml:"profiles"`     // folder of application profiles; relative to the site file
	Operator    string `toml:"operator"`     // who is at the counter, where nobody signs in
	OperatorKey string `toml:"operator_key"` // file with the operator's signing key; relative to the site file
	// OperatorPassphraseFile holds its passphrase, for counters where nobody
	// types; relative to the site file.
	OperatorPassphraseFile string `toml:"operator_passphrase_file"`
	Counter                string `toml:"counter"`  // which counter
	Language               string `toml:"language"` // "ja" or "en"; the locale otherwise
	// SecurityDomain is the one of services whose manifest names none; the
	// Issuer Security Domain unless given.
	SecurityDomain iso7816.AID  `toml:"security_domain"`
	Domains        []siteDomain `toml:"domains"`
	Keys           struct {
		Diversification keys.Method `toml:"diversification"` // of the Security Domain's keys; "none" unless given
		SecurityDomain  string      `toml:"security_domain"` // key set of the card's Security Domain
		Counter         string      `toml:"counter"`         // signs consents
		Ledger          string      `toml:"ledger"`          // keyed digests and tags
		Checkpoints     string      `toml:"checkpoints"`     // signs the ledger's checkpoints
		Receipt         string      `toml:"receipt"`         // verifies receipts; "" keeps them unverified
	} `toml:"keys"`

	path string // where it was read from; empty for the defaults
}

// siteDomain is a service provider's Security Domain.
type siteDomain struct {
	AID             iso7816.AID `toml:"aid"`
	Keys            string      `toml:"keys"`            // its key set
	Diversification keys.Method `toml:"diversification"` // of its keys; "none" unless given
	Manager         iso7816.AID `toml:"manager"`         // loads, installs and deletes for it; the Issuer Security Domain unless given
}

func defaultSite() site {
	var s site
	s.CardProfile = "generic"
	s.Keystore = "freearea.keys"
	s.Ledger = "freearea.ledger"
	s.Operator = os.Getenv("USER")
	if s.Operator == "" {
		s.Operator = "operator"
	}
	s.Counter = "counter"
	s.Keys.SecurityDomain = "card-manager"
	s.Keys.Diversification = keys.MethodNone
	s.Keys.Counter = "counter"
	s.Keys.Ledger = "ledger"
	s.Keys.Checkpoints = "checkpoints"
	return s
}

// loadSite reads the site configuration. Without a path it reads
// freearea.toml in the working directory if there is one. Unknown keys are
// refused: a misspelt key must not silently mean its default.
func loadSite(path string) (site, error) {
	s := defaultSite()
	named := path != ""
	if !named {
		path = siteFile
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("site configuration: %w", err)
	}
	meta, err := toml.Decode(string(data), &s)
	if err != nil {
		var pe toml.ParseError
		if errors.As(err, &pe) {
			return s, fmt.Errorf("%s:%d: %s", path, pe.Position.Line, pe.Message)
		}
		return s, fmt.Errorf("%s: %w", path, err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return s, fmt.Errorf("%s: unknown key %q", path, unknown[0].String())
	}
	if err := keys.CheckMethod(keys.SecurityDomain, s.Keys.Diversification); err != nil {
		return s, fmt.Errorf("%s: keys.diversification: %w", path, err)
	}
	seen := map[iso7816.AID]bool{}
	for i := range s.Domains {
		d := &s.Domains[i]
		if d.Diversification == "" {
			d.Diversification = keys.MethodNone
		}
		switch {
		case d.AID.IsZero():
			return s, fmt.Errorf("%s: domains[%d] has no aid", path, i)
		case seen[d.AID]:
			return s, fmt.Errorf("%s: domains[%d]: %v stands there twice", path, i, d.AID)
		case d.Keys == "":
			return s, fmt.Errorf("%s: domains[%d] has no keys", path, i)
		}
		seen[d.AID] = true
		if err := keys.CheckMethod(keys.SecurityDomain, d.Diversification); err != nil {
			return s, fmt.Errorf("%s: domains[%d].diversification: %w", path, i, err)
		}
	}
	s.path = path
	dir := filepath.Dir(path)
	for _, path := range []*string{&s.Keystore, &s.Ledger, &s.Profiles, &s.Manifests, &s.OperatorKey, &s.OperatorPassphraseFile} {
		if !keys.InToken(*path) {
			*path = under(dir, *path)
		}
	}
	return s, nil
}

func under(dir, file string) string {
	if file == "" || filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(dir, file)
}
