package applets_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

func lookup(t testing.TB, name string) applets.Profile {
	t.Helper()
	p, ok := applets.Base().Lookup(name)
	if !ok {
		t.Fatalf("no profile %s", name)
	}
	return p
}

func keyOf(t testing.TB, size int) keys.Key {
	t.Helper()
	k, err := keys.NewKey(bytes.Repeat([]byte{byte(size)}, size))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestInstallParameters(t *testing.T) {
	good := applets.InstallSpec{DiversificationData: [10]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, KeySets: 2, ItemsCapacity: 1024, PIN: true}
	b, err := lookup(t, "type-a").InstallParameters(good)
	if want := unhex(t, "80 01 01 81 0A 0102030405060708090A 82 01 02 83 02 0400 84 01 01"); err != nil || !bytes.Equal(b, want) {
		t.Errorf("% X, %v; want % X", b, err, want)
	}
	b, err = lookup(t, "common-ap").InstallParameters(applets.InstallSpec{})
	if want := unhex(t, "80 01 01"); err != nil || !bytes.Equal(b, want) {
		t.Errorf("% X, %v; want % X", b, err, want)
	}
	if _, err := lookup(t, "common-ap").InstallParameters(good); !errors.Is(err, applets.ErrSpec) {
		t.Errorf("keys for common-ap: %v", err)
	}
	for name, change := range map[string]func(*applets.InstallSpec){
		"no key set":              func(s *applets.InstallSpec) { s.KeySets = 0 },
		"five key sets":           func(s *applets.InstallSpec) { s.KeySets = 5 },
		"too many items":          func(s *applets.InstallSpec) { s.ItemsCapacity = 1025 },
		"negative items":          func(s *applets.InstallSpec) { s.ItemsCapacity = -1 },
		"no diversification data": func(s *applets.InstallSpec) { s.DiversificationData = [10]byte{} },
	} {
		spec := good
		change(&spec)
		if _, err := lookup(t, "type-d").InstallParameters(spec); !errors.Is(err, applets.ErrSpec) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPersonalizationRefusesContent(t *testing.T) {
	pin, err := applets.NewPIN("1234")
	if err != nil {
		t.Fatal(err)
	}
	set := func(version byte, enc, mac int) keys.Set {
		return keys.Set{Version: version, ENC: keyOf(t, enc), MAC: keyOf(t, mac)}
	}
	good := func() applets.Content {
		return applets.Content{Record: applets.Record{Service: "s", ID: "1"}, ReadKeys: []keys.Set{set(2, 16, 16), set(1, 32, 32)}}
	}
	seal := func(b []byte) ([]byte, error) { return bytes.Clone(b), nil }
	blocks, err := lookup(t, "type-d").Personalization(good(), seal)
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range blocks {
		if len(b) > applets.MaxBlock {
			t.Errorf("block %d has %d bytes", i, len(b))
		}
	}
	for name, c := range map[string]struct {
		profile string
		change  func(*applets.Content)
	}{
		"keys for common-ap":  {"common-ap", func(*applets.Content) {}},
		"items for common-ap": {"common-ap", func(c *applets.Content) { c.ReadKeys = nil; c.Items = []applets.Item{{Name: "a"}} }},
		"PIN for common-ap":   {"common-ap", func(c *applets.Content) { c.ReadKeys = nil; c.PIN = &applets.PINSetting{Reference: pin} }},
		"no keys":             {"type-a", func(c *applets.Content) { c.ReadKeys = nil }},
		"keys given and kept": {"type-a", func(c *applets.Content) { c.KeepKeys = true }},
		"oldest first":        {"type-a", func(c *applets.Content) { c.ReadKeys[0], c.ReadKeys[1] = c.ReadKeys[1], c.ReadKeys[0] }},
		"version twice":       {"type-a", func(c *applets.Content) { c.ReadKeys[1].Version = 2 }},
		"version 0":           {"type-a", func(c *applets.Content) { c.ReadKeys[1].Version = 0 }},
		"version 128":         {"type-a", func(c *applets.Content) { c.ReadKeys[0].Version = 128 }},
		"AES-192":             {"type-a", func(c *applets.Content) { c.ReadKeys[0] = set(2, 24, 24) }},
		"unequal keys":        {"type-a", func(c *applets.Content) { c.ReadKeys[0] = set(2, 16, 32) }},
		"PIN limit 16":        {"type-d", func(c *applets.Content) { c.PIN = &applets.PINSetting{Reference: pin, Limit: 16} }},
		"no PIN in setting":   {"type-d", func(c *applets.Content) { c.PIN = &applets.PINSetting{} }},
	} {
		content := good()
		c.change(&content)
		if _, err := lookup(t, c.profile).Personalization(content, seal); !errors.Is(err, applets.ErrContent) {
			t.Errorf("%s: %v", name, err)
		}
	}
	content := good()
	content.Record.ID = ""
	if _, err := lookup(t, "type-d").Personalization(content, seal); !errors.Is(err, applets.ErrMalformedRecord) {
		t.Errorf("no ID: %v", err)
	}
	failed := errors.New("no session")
	if _, err := lookup(t, "type-d").Personalization(good(), func([]byte) ([]byte, error) { return nil, failed }); !errors.Is(err, failed) {
		t.Errorf("no session: %v", err)
	}
	if _, err := lookup(t, "type-d").Personalization(good(), func([]byte) ([]byte, error) { return nil, nil }); err == nil {
		t.Error("keys encrypted to nothing")
	}
}

// store holds read keys by version.
type store struct {
	keys.Store
	versions map[byte]error
	asked    []byte
}

func (s *store) ReadKeys(_ context.Context, ref keys.Ref, _ keys.Method, _ iso7816.AID, _ []byte) (keys.Set, error) {
	s.asked = append(s.asked, ref.Version)
	err, ok := s.versions[ref.Version]
	if !ok {
		err = keys.ErrNotFound
	}
	return keys.Set{}, err
}

func TestStoreKeys(t *testing.T) {
	broken := errors.New("keystore is broken")
	for name, c := range map[string]struct {
		versions map[byte]error
		want     byte
		err      error
	}{
		"newest":       {map[byte]error{9: nil, 5: nil}, 9, nil},
		"older":        {map[byte]error{5: nil, 2: nil}, 5, nil},
		"retired":      {map[byte]error{9: keys.ErrRetired, 2: nil}, 2, nil},
		"none":         {map[byte]error{7: nil}, 0, applets.ErrNoReadKey},
		"broken store": {map[byte]error{9: broken, 5: nil}, 0, broken},
	} {
		s := &store{versions: c.versions}
		set, err := applets.StoreKeys(s, "door", keys.MethodSP800108)(context.Background(), applets.ApplicationInfo{KeyVersions: []byte{9, 5, 2}})
		if set.Version != c.want || !errors.Is(err, c.err) || c.err == nil && err != nil {
			t.Errorf("%s: version %d, %v", name, set.Version, err)
		}
	}
}
