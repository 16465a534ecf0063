package pkcs11_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/keys/pkcs11"
)

// examples are those of RFC 7512, section 3, its line breaks taken out, but
// for the one with a PIN.
var examples = []struct {
	uri         string
	path, query map[string]string
}{
	{"pkcs11:", nil, nil},
	{"pkcs11:object=my-pubkey;type=public", map[string]string{"object": "my-pubkey", "type": "public"}, nil},
	{
		"pkcs11:object=my-key;type=private?pin-source=file:/etc/token",
		map[string]string{"object": "my-key", "type": "private"}, map[string]string{"pin-source": "file:/etc/token"},
	},
	{
		"pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0;object=my-certificate;type=cert;id=%69%95%3E%5C%F4%BD%EC%91;serial=?pin-source=file:/etc/token_pin",
		map[string]string{
			"token": "The Software PKCS#11 Softtoken", "manufacturer": "Snake Oil, Inc.", "model": "1.0",
			"object": "my-certificate", "type": "cert", "id": "\x69\x95\x3E\x5C\xF4\xBD\xEC\x91", "serial": "",
		}, map[string]string{"pin-source": "file:/etc/token_pin"},
	},
	{
		"pkcs11:object=my-sign-key;type=private?module-name=mypkcs11",
		map[string]string{"object": "my-sign-key", "type": "private"}, map[string]string{"module-name": "mypkcs11"},
	},
	{
		"pkcs11:object=my-sign-key;type=private?module-path=/mnt/libmypkcs11.so.1",
		map[string]string{"object": "my-sign-key", "type": "private"}, map[string]string{"module-path": "/mnt/libmypkcs11.so.1"},
	},
	{"pkcs11:slot-description=Sun%20Metaslot", map[string]string{"slot-description": "Sun Metaslot"}, nil},
	{
		"pkcs11:library-manufacturer=Snake%20Oil,%20Inc.;library-description=Soft%20Token%20Library;library-version=1.23",
		map[string]string{
			"library-manufacturer": "Snake Oil, Inc.", "library-description": "Soft Token Library", "library-version": "1.23",
		}, nil,
	},
	{
		"pkcs11:token=My%20token%25%20created%20by%20Joe;library-version=3;id=%01%02%03%Ba%dd%Ca%fe%04%05%06",
		map[string]string{
			"token": "My token% created by Joe", "library-version": "3", "id": "\x01\x02\x03\xBA\xDD\xCA\xFE\x04\x05\x06",
		}, nil,
	},
	{
		"pkcs11:token=A%20name%20with%20a%20substring%20%25%3B;object=my-certificate;type=cert",
		map[string]string{"token": "A name with a substring %;", "object": "my-certificate", "type": "cert"}, nil,
	},
	{
		"pkcs11:token=Name%20with%20a%20small%20A%20with%20acute:%20%C3%A1;object=my-certificate;type=cert",
		map[string]string{"token": "Name with a small A with acute: á", "object": "my-certificate", "type": "cert"}, nil,
	},
	{
		"pkcs11:token=my-token;object=my-certificate;type=cert;vendor-aaa=value-a?pin-source=file:/etc/token_pin&vendor-bbb=value-b",
		map[string]string{"token": "my-token", "object": "my-certificate", "type": "cert", "vendor-aaa": "value-a"},
		map[string]string{"pin-source": "file:/etc/token_pin", "vendor-bbb": "value-b"},
	},
}

var attributeNames = []string{
	"token", "manufacturer", "serial", "model", "library-manufacturer", "library-version", "library-description",
	"object", "type", "id", "slot-manufacturer", "slot-description", "slot-id", "vendor-aaa", "vendor-bbb",
	"pin-source", "pin-value", "module-name", "module-path",
}

// all collects the attributes that a function knows.
func all(get func(string) (string, bool)) map[string]string {
	var out map[string]string
	for _, name := range attributeNames {
		if v, ok := get(name); ok {
			if out == nil {
				out = map[string]string{}
			}
			out[name] = v
		}
	}
	return out
}

func TestURIExamplesOfRFC7512(t *testing.T) {
	for _, tt := range examples {
		u, err := pkcs11.ParseURI(tt.uri)
		if err != nil {
			t.Errorf("%s: %v", tt.uri, err)
			continue
		}
		if u.String() != tt.uri {
			t.Errorf("%s became %s", tt.uri, u)
		}
		if diff := cmp.Diff(tt.path, all(u.Path)); diff != "" {
			t.Errorf("%s: path: %s", tt.uri, diff)
		}
		if diff := cmp.Diff(tt.query, all(u.Query)); diff != "" {
			t.Errorf("%s: query: %s", tt.uri, diff)
		}
	}
}

// The RFC's example with a PIN is refused, and its PIN not repeated.
func TestURIRefusesPINs(t *testing.T) {
	const example = "pkcs11:token=Software%20PKCS%2311%20softtoken;manufacturer=Snake%20Oil,%20Inc.?pin-value=the-pin"
	_, err := pkcs11.ParseURI(example)
	if !errors.Is(err, pkcs11.ErrPINValue) || strings.Contains(err.Error(), "the-pin") {
		t.Errorf("error %v", err)
	}
	for _, s := range []string{"pkcs11:?pin-value=1234&pin-value=1234", "pkcs11:?pin-value=12 34", "pkcs11:?pin-value=%C3%28", "pkcs11:pin-value=12#34"} {
		if _, err := pkcs11.ParseURI(s); err == nil || strings.Contains(err.Error(), "34") {
			t.Errorf("%s: error %v", s, err)
		}
	}
}

func TestURIIsStrict(t *testing.T) {
	for _, s := range []string{
		"", "pkcs11", "pkcs12:", "token=a", " pkcs11:", "pkcs11:token", "pkcs11:=a", "pkcs11:token=a;", "pkcs11:;token=a",
		"pkcs11:token=a;;model=b", "pkcs11:token=a;token=b", "pkcs11:vendor=a;vendor=b", "pkcs11:token=a b", "pkcs11:token=a/b",
		"pkcs11:token=a%", "pkcs11:token=a%2", "pkcs11:token=a%2x", "pkcs11:token=%C3%28", "pkcs11:token=á", "pkcs11:token=a#b",
		"pkcs11:type=key", "pkcs11:type=", "pkcs11:library-version=", "pkcs11:library-version=1.", "pkcs11:library-version=.1",
		"pkcs11:library-version=1.2.3", "pkcs11:slot-id=", "pkcs11:slot-id=-1", "pkcs11:slot-id=+1", "pkcs11:slot-id=1a",
		"pkcs11:slot-id=99999999999", "pkcs11:ven.dor=a", "pkcs11:ven%64or=a", "pkcs11:?module-path", "pkcs11:?module-path=/a&module-path=/a",
		"pkcs11:?pin-source=file:/a&", "pkcs11:?a=b;c", "pkcs11:\x00", "pkcs11:token=a\n", "pkcs11:token=" + strings.Repeat("a", 5000),
	} {
		if u, err := pkcs11.ParseURI(s); !errors.Is(err, pkcs11.ErrURI) || u.String() != "" {
			t.Errorf("%q: error %v", s, err)
		}
	}
	for _, s := range []string{"PKCS11:token=a", "pkcs11:token=a=b&c", "pkcs11:?vendor=a&vendor=b", "pkcs11:?module-path=/a?b|c", "pkcs11:id=%FF", "pkcs11:token=?"} {
		if _, err := pkcs11.ParseURI(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestURIModuleAndPINFile(t *testing.T) {
	for _, tt := range []struct {
		uri, module, pinFile string
		errModule, errPIN    error
	}{
		{"pkcs11:?module-path=/usr/lib/a.so&pin-source=file:/etc/pin", "/usr/lib/a.so", "/etc/pin", nil, nil},
		{"pkcs11:?module-path=/usr/lib/a.so&pin-source=file:///etc/a%20pin", "/usr/lib/a.so", "/etc/a pin", nil, nil},
		{"pkcs11:?module-path=/usr/lib/a.so", "/usr/lib/a.so", "", nil, nil},
		{"pkcs11:?module-path=/a&pin-source=FILE://localhost/etc/pin", "/a", "/etc/pin", nil, nil},
		{"pkcs11:?module-path=/a&pin-source=file://localhost.example/etc/pin", "/a", "", nil, pkcs11.ErrUnsupportedURI},
		{"pkcs11:?module-path=/a&pin-source=file://localhostetc/pin", "/a", "", nil, pkcs11.ErrUnsupportedURI},
		{"pkcs11:?module-path=/a&pin-source=file:", "/a", "", nil, pkcs11.ErrUnsupportedURI},
		{"pkcs11:?module-path=a.so&pin-source=file:pin", "", "", pkcs11.ErrUnsupportedURI, pkcs11.ErrUnsupportedURI},
		{"pkcs11:?module-name=a&module-path=/a&pin-source=|cat%20pin", "", "", pkcs11.ErrUnsupportedURI, pkcs11.ErrUnsupportedURI},
		{"pkcs11:?pin-source=/etc/pin", "", "", pkcs11.ErrUnsupportedURI, pkcs11.ErrUnsupportedURI},
		{"pkcs11:?module-path=/a%00&pin-source=file:/a%00", "", "", pkcs11.ErrUnsupportedURI, pkcs11.ErrUnsupportedURI},
		{"pkcs11:?module-path=/a&pin-source=file://host/etc/pin", "/a", "", nil, pkcs11.ErrUnsupportedURI},
	} {
		u, err := pkcs11.ParseURI(tt.uri)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := u.Module(); !errors.Is(err, tt.errModule) || err == nil && got != tt.module {
			t.Errorf("%s: module %q, error %v", tt.uri, got, err)
		}
		if got, err := u.PINFile(); !errors.Is(err, tt.errPIN) || err == nil && got != tt.pinFile {
			t.Errorf("%s: PIN file %q, error %v", tt.uri, got, err)
		}
	}
}

// A URI that can't name a token is refused before anything is loaded.
func TestOpenRefusesOtherURIs(t *testing.T) {
	for _, s := range []string{
		"pkcs11:token=a", "pkcs11:object=a?module-path=/a", "pkcs11:type=private?module-path=/a", "pkcs11:id=%01?module-path=/a",
		"pkcs11:vendor=a?module-path=/a", "pkcs11:?module-path=a.so", "pkcs11:?module-path=/a&pin-source=|a",
	} {
		u, err := pkcs11.ParseURI(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pkcs11.Open(t.Context(), u, pkcs11.Options{}); !errors.Is(err, pkcs11.ErrUnsupportedURI) {
			t.Errorf("%s: error %v", s, err)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	for _, tt := range examples {
		f.Add(tt.uri)
	}
	f.Add("pkcs11:token=a;?module-path=/a&&pin-value=b")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := pkcs11.ParseURI(s)
		if err != nil {
			if !errors.Is(err, pkcs11.ErrURI) && !errors.Is(err, pkcs11.ErrPINValue) {
				t.Errorf("%q: error %v", s, err)
			}
			return
		}
		again, err := pkcs11.ParseURI(u.String())
		if err != nil || u.String() != s {
			t.Errorf("%q became %q, error %v", s, u, err)
		}
		if diff := cmp.Diff(all(u.Path), all(again.Path)); diff != "" {
			t.Error(diff)
		}
		// What a token calls itself survives being put into a URI.
		label, _ := u.Path("token")
		named, err := pkcs11.ParseURI(pkcs11.Token{Label: label}.URI("/a b?c&d").String())
		if err != nil {
			t.Fatal(err)
		}
		got, _ := named.Path("token")
		module, err := named.Module()
		if got != label || module != "/a b?c&d" || err != nil {
			t.Errorf("label %q became %q, module %q, error %v", label, got, module, err)
		}
	})
}

// A PIN does not get into messages by way of the URI that should not have had it.
func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"pkcs11:token=a?module-path=/a.so":               "pkcs11:token=a?module-path=/a.so",
		"pkcs11:token=a?module-path=/a.so&pin-source=b":  "pkcs11:token=a?module-path=/a.so&pin-source=b",
		"pkcs11:?pin-value=1234":                         "pkcs11:?pin-value=…",
		"pkcs11:?pin-value=12&34;56&module-path=/a":      "pkcs11:?pin-value=…",
		"pkcs11:token=役?x=y&PIN-Value=1234&pin-value=55": "pkcs11:token=役?x=y&PIN-Value=…",
		"pin-valu":        "pin-valu",
		"pin-value":       "pin-value=…",
		"\xFFpin-value=1": "\xFFpin-value=…",
		"":                "",
	} {
		if got := pkcs11.Redact(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	for _, s := range []string{"pkcs11:?pin-value=1234", "pkcs11:?PIN-VALUE=1234", "pkcs11:token=a?x=y&Pin-Value=1234"} {
		if _, err := pkcs11.ParseURI(s); !errors.Is(err, pkcs11.ErrPINValue) || strings.Contains(err.Error(), "1234") {
			t.Errorf("%s: error %v", s, err)
		}
	}
}
