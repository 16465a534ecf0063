package pkcs11

import (
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Errors of URIs.
var (
	// ErrURI: the text is no PKCS#11 URI.
	ErrURI = errors.New("malformed PKCS#11 URI")
	// ErrPINValue: the URI holds a PIN. It would stand in configurations,
	// process lists and logs, so it is not taken from there.
	ErrPINValue = errors.New("a PIN does not belong into a URI: use pin-source")
	// ErrUnsupportedURI: the URI is well formed, and names something that
	// this package can't open.
	ErrUnsupportedURI = errors.New("unsupported PKCS#11 URI")
)

// maxURI is the length in bytes of the longest URI that is parsed.
const maxURI = 4096

// URI is a PKCS#11 URI (RFC 7512): what it takes to find a token and the
// library that knows it.
type URI struct {
	text        string
	path, query []uriAttribute
}

// uriAttribute is one attribute, its value decoded.
type uriAttribute struct{ name, value string }

// pathAttributes and queryAttributes are those that RFC 7512 names (2.3); all
// others are a vendor's.
var (
	pathAttributes = []string{
		"token", "manufacturer", "serial", "model", "library-manufacturer", "library-version", "library-description",
		"object", "type", "id", "slot-manufacturer", "slot-description", "slot-id",
	}
	queryAttributes = []string{"pin-source", "pin-value", "module-name", "module-path"}
)

const (
	uriUnreserved = "-._~"
	// What may stand for itself in values (pk11-path-res-avail and
	// pk11-query-res-avail).
	uriPathAvailable  = ":[]@!$'()*+,=&"
	uriQueryAvailable = ":[]@!$'()*+,=/?|"
)

// ParseURI parses a PKCS#11 URI by the grammar of RFC 7512 (2.3), up to 4096
// bytes. An attribute in the path stands there once; in the query only a
// vendor's may be repeated. Values are UTF-8, but for id. Errors wrap ErrURI,
// or ErrPINValue for a URI that holds a PIN; they repeat no value.
func ParseURI(s string) (URI, error) {
	bad := func(format string, args ...any) (URI, error) {
		return URI{}, fmt.Errorf("%w: %s", ErrURI, fmt.Sprintf(format, args...))
	}
	if len(s) > maxURI {
		return bad("%d bytes, %d allowed", len(s), maxURI)
	}
	// Schemes are not case-sensitive (RFC 3986, 3.1).
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || !strings.EqualFold(scheme, "pkcs11") {
		return bad("it does not begin with pkcs11:")
	}
	u := URI{text: s}
	pathPart, queryPart, hasQuery := strings.Cut(rest, "?")
	var err error
	if pathPart != "" {
		if u.path, err = parseAttributes(pathPart, ";", pathAttributes, uriPathAvailable); err != nil {
			return URI{}, err
		}
	}
	if hasQuery && queryPart != "" {
		if u.query, err = parseAttributes(queryPart, "&", queryAttributes, uriQueryAvailable); err != nil {
			return URI{}, err
		}
	}
	for i, a := range u.path {
		if slices.ContainsFunc(u.path[:i], func(b uriAttribute) bool { return b.name == a.name }) {
			return bad("attribute %s stands there twice", a.name)
		}
		switch a.name {
		case "type":
			if !slices.Contains([]string{"public", "private", "cert", "secret-key", "data"}, a.value) {
				return bad("type is none of public, private, cert, secret-key, data")
			}
		case "library-version":
			major, minor, both := strings.Cut(a.value, ".")
			if !isNumber(major) || both && !isNumber(minor) {
				return bad("library-version is not one or two numbers")
			}
		case "slot-id":
			if !isNumber(a.value) {
				return bad("slot-id is not a number")
			}
		}
	}
	for i, a := range u.query {
		if slices.Contains(queryAttributes, a.name) &&
			slices.ContainsFunc(u.query[:i], func(b uriAttribute) bool { return b.name == a.name }) {
			return bad("attribute %s stands there twice", a.name)
		}
		// Spelt otherwise it is a vendor's, but a person meant a PIN.
		if strings.EqualFold(a.name, pinValue) {
			return URI{}, ErrPINValue
		}
	}
	return u, nil
}

// pinValue is the attribute that holds a PIN.
const pinValue = "pin-value"

// Redact returns the text of a URI, well formed or not, without what follows
// pin-value in it: for messages and logs, where it would tell the PIN.
func Redact(uri string) string {
	for i := range uri {
		if len(uri)-i >= len(pinValue) && strings.EqualFold(uri[i:i+len(pinValue)], pinValue) {
			return uri[:i+len(pinValue)] + "=…"
		}
	}
	return uri
}

func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 32)
	return err == nil && s[0] != '+'
}

// parseAttributes takes one part of the URI apart. known are the names of RFC
// 7512, available the characters that values may have besides letters, digits
// and "-._~".
func parseAttributes(s, separator string, known []string, available string) ([]uriAttribute, error) {
	var out []uriAttribute
	for i, part := range strings.Split(s, separator) {
		name, value, ok := strings.Cut(part, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%w: attribute %d is not NAME=VALUE", ErrURI, i+1)
		}
		if !slices.Contains(known, name) {
			// A vendor's (pk11-v-attr-nm).
			for _, c := range []byte(name) {
				if !alphanumeric(c) && c != '-' && c != '_' {
					return nil, fmt.Errorf("%w: the name of attribute %d has a character that is none of a–z, A–Z, 0–9, '-', '_'", ErrURI, i+1)
				}
			}
		}
		decoded, err := decodeValue(value, available)
		if err != nil {
			return nil, fmt.Errorf("%w: attribute %s: %v", ErrURI, name, err)
		}
		if name != "id" && !utf8.ValidString(decoded) {
			return nil, fmt.Errorf("%w: attribute %s is not UTF-8", ErrURI, name)
		}
		out = append(out, uriAttribute{name, decoded})
	}
	return out, nil
}

func alphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func decodeValue(s, available string) (string, error) {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '%':
			if i+2 >= len(s) {
				return "", errors.New("incomplete percent-encoding")
			}
			b, err := hex.DecodeString(s[i+1 : i+3])
			if err != nil {
				return "", errors.New("malformed percent-encoding")
			}
			out = append(out, b[0])
			i += 2
		case alphanumeric(c) || strings.IndexByte(uriUnreserved, c) >= 0 || strings.IndexByte(available, c) >= 0:
			out = append(out, c)
		default:
			return "", fmt.Errorf("character %02X must be percent-encoded", c)
		}
	}
	return string(out), nil
}

func encodeValue(s string, available string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if alphanumeric(c) || strings.IndexByte(uriUnreserved, c) >= 0 || strings.IndexByte(available, c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// newURI puts a URI together.
func newURI(path, query []uriAttribute) URI {
	join := func(attributes []uriAttribute, separator, available string) string {
		parts := make([]string, len(attributes))
		for i, a := range attributes {
			parts[i] = a.name + "=" + encodeValue(a.value, available)
		}
		return strings.Join(parts, separator)
	}
	u := URI{path: path, query: query, text: "pkcs11:" + join(path, ";", ":@()+,=")}
	if len(query) > 0 {
		u.text += "?" + join(query, "&", ":@()+,/")
	}
	return u
}

// String returns the URI as it was given.
func (u URI) String() string { return u.text }

// Path returns the decoded value of an attribute of the path, such as "token".
func (u URI) Path(name string) (value string, ok bool) { return lookUp(u.path, name) }

// Query returns the decoded value of an attribute of the query, such as
// "module-path"; of a repeated one the first.
func (u URI) Query(name string) (value string, ok bool) { return lookUp(u.query, name) }

func lookUp(attributes []uriAttribute, name string) (string, bool) {
	for _, a := range attributes {
		if a.name == name {
			return a.value, true
		}
	}
	return "", false
}

// Module returns the path of the library. It must be given in full, so that
// no search path decides which code sees the PIN: the error wraps
// ErrUnsupportedURI.
func (u URI) Module() (string, error) {
	if _, ok := u.Query("module-name"); ok {
		return "", fmt.Errorf("%w: module-name leaves open which library is loaded: use module-path", ErrUnsupportedURI)
	}
	module, ok := u.Query("module-path")
	if !ok {
		return "", fmt.Errorf("%w: module-path is missing", ErrUnsupportedURI)
	}
	return module, checkModule(module)
}

// PINFile returns the file that pin-source names, empty without one:
// file:/path, file:///path or file://localhost/path (RFC 8089), in full. Other
// sources (RFC 7512 allows for programs) wrap ErrUnsupportedURI.
func (u URI) PINFile() (string, error) {
	source, ok := u.Query("pin-source")
	if !ok {
		return "", nil
	}
	scheme, name, _ := strings.Cut(source, ":")
	if rest, found := strings.CutPrefix(name, "//"); found {
		name = strings.TrimPrefix(rest, "localhost")
	}
	if !strings.EqualFold(scheme, "file") || !path.IsAbs(name) || strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("%w: pin-source is not file:/PATH", ErrUnsupportedURI)
	}
	return name, nil
}

// checkStore says whether the URI can name a token to open: it names no
// object, and holds nothing in its path that would have to match and is not
// understood (RFC 7512, 2.4).
func (u URI) checkStore() error {
	for _, a := range u.path {
		switch {
		case a.name == "object" || a.name == "type" || a.name == "id":
			return fmt.Errorf("%w: %s names an object, and a keystore is a token", ErrUnsupportedURI, a.name)
		case !slices.Contains(pathAttributes, a.name):
			return fmt.Errorf("%w: attribute %s is unknown", ErrUnsupportedURI, a.name)
		}
	}
	return nil
}
