package manifest

import (
	"bytes"
	"crypto/sha256"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
)

// digestDomain keeps a manifest's digest apart from every other digest.
const digestDomain = "freearea manifest 1\n"

// Canonical returns the canonical encoding of the manifest with its defaults
// filled in: a JSON object (RFC 8259) in UTF-8 whose members are the keys of
// the TOML file in the order of their code points, without white space, with
// escapes only for quotation mark, backslash and control characters (RFC
// 8785). Tables are objects, AIDs upper-case and digests lower-case
// hexadecimal digits. Empty strings, zeros, false and empty tables and arrays
// are left out.
//
// Neither comments, the order of keys nor the file's name are part of it; the
// load file is, by its digest.
func (m *Manifest) Canonical() []byte {
	v, _ := canonicalValue(reflect.ValueOf(m).Elem())
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("manifest: " + err.Error()) // strings, numbers and booleans only
	}
	out := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	// encoding/json escapes these two; the rules keep them out of texts, but
	// not out of every string.
	out = bytes.ReplaceAll(out, []byte(`\u2028`), []byte("\u2028"))
	return bytes.ReplaceAll(out, []byte(`\u2029`), []byte("\u2029"))
}

// Digest identifies exactly this manifest: SHA-256 of the line
// "freearea manifest 1", a line feed, and the canonical encoding. A consent
// refers to it.
func (m *Manifest) Digest() [sha256.Size]byte {
	return sha256.Sum256(append([]byte(digestDomain), m.Canonical()...))
}

// canonicalValue returns what encoding/json is to write of a value; ok is
// false for what is left out. Maps are written in the order of their keys.
func canonicalValue(v reflect.Value) (out any, ok bool) {
	if t, isText := v.Interface().(encoding.TextMarshaler); isText {
		if v.IsZero() {
			return nil, false
		}
		b, err := t.MarshalText()
		if err != nil {
			panic(fmt.Sprintf("manifest: %T: %v", t, err))
		}
		return string(b), true
	}
	switch v.Kind() {
	case reflect.Struct:
		m := map[string]any{}
		keys, fields := fieldKeys(v.Type())
		for _, key := range keys {
			if x, ok := canonicalValue(v.Field(fields[key])); ok {
				m[key] = x
			}
		}
		return m, len(m) > 0
	case reflect.Slice:
		// An element keeps its place even if it is empty.
		list := make([]any, v.Len())
		for i := range list {
			if list[i], ok = canonicalValue(v.Index(i)); !ok {
				list[i] = map[string]any{}
			}
		}
		return list, len(list) > 0
	case reflect.Bool:
		return v.Bool(), v.Bool()
	case reflect.Int:
		return v.Int(), v.Int() != 0
	}
	return v.String(), v.Len() > 0
}
