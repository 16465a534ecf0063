package manifest

import (
	"encoding"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/freearea/freearea/applets/recipe"
)

// MarshalText writes 64 lower-case hexadecimal digits.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// String writes 64 lower-case hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// UnmarshalText reads 64 hexadecimal digits.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != 2*len(h) {
		return fmt.Errorf("SHA-256 digest of %d characters: 64 expected", len(text))
	}
	if _, err := hex.Decode(h[:], text); err != nil {
		return fmt.Errorf("SHA-256 digest: %w", err)
	}
	return nil
}

// blankMark begins every value that a new manifest leaves to be filled in.
const blankMark = "<fill in"

// decoder fills a struct from a generic TOML tree. Unlike the TOML library it
// goes on after a fault, and it knows where each stands.
type decoder struct {
	report  func(path string, rule Rule, args ...any)
	present map[string]bool // keys that the file has
	faulty  map[string]bool // keys that have a fault already
	unread  map[string]bool // tables and arrays that are something else
}

func (d *decoder) fault(path string, rule Rule, args ...any) {
	d.faulty[path] = true
	d.report(path, rule, args...)
}

// fieldKeys returns the TOML keys of a struct type and the fields they fill.
func fieldKeys(t reflect.Type) (keys []string, fields map[string]int) {
	fields = map[string]int{}
	for i := range t.NumField() {
		if key := t.Field(i).Tag.Get("toml"); key != "" {
			keys = append(keys, key)
			fields[key] = i
		}
	}
	return keys, fields
}

var (
	typeString  = Text{JA: "文字列", EN: "a string"}
	typeInteger = Text{JA: "整数", EN: "an integer"}
	typeBoolean = Text{JA: "true または false", EN: "true or false"}
	typeTable   = Text{JA: "テーブル", EN: "a table"}
	typeArray   = Text{JA: "配列", EN: "an array"}
	typeFloat   = Text{JA: "小数", EN: "a floating-point number"}
	typeTime    = Text{JA: "日時", EN: "a date or time"}
)

func typeOf(v any) Text {
	switch v.(type) {
	case string:
		return typeString
	case int64:
		return typeInteger
	case bool:
		return typeBoolean
	case map[string]any:
		return typeTable
	case float64:
		return typeFloat
	case time.Time:
		return typeTime
	}
	return typeArray
}

func (d *decoder) decode(path string, v any, into reflect.Value) {
	d.present[path] = true
	if s, ok := v.(string); ok && strings.HasPrefix(strings.TrimSpace(s), blankMark) {
		d.fault(path, RuleBlank)
		return
	}
	mismatch := func(want Text) {
		d.unread[path] = true
		d.fault(path, RuleWrongType, want, typeOf(v))
	}
	if u, ok := into.Addr().Interface().(encoding.TextUnmarshaler); ok {
		s, ok := v.(string)
		if !ok {
			mismatch(typeString)
			return
		}
		if err := u.UnmarshalText([]byte(s)); err != nil {
			d.fault(path, malformed(into.Type(), err))
		}
		return
	}
	switch into.Kind() {
	case reflect.String:
		s, ok := v.(string)
		if !ok {
			mismatch(typeString)
			return
		}
		into.SetString(s)
	case reflect.Int:
		n, ok := v.(int64)
		if !ok {
			mismatch(typeInteger)
			return
		}
		// Numbers of a manifest are small; what exceeds 32 bits is refused
		// by the range of its key all the same.
		into.SetInt(max(math.MinInt32, min(math.MaxInt32, n)))
	case reflect.Bool:
		b, ok := v.(bool)
		if !ok {
			mismatch(typeBoolean)
			return
		}
		into.SetBool(b)
	case reflect.Struct:
		table, ok := v.(map[string]any)
		if !ok {
			mismatch(typeTable)
			return
		}
		d.table(path, table, into)
	case reflect.Slice:
		d.array(path, v, into, mismatch)
	default:
		panic("manifest: field of kind " + into.Kind().String())
	}
}

// malformed is the rule that a value of a type of its own violates.
func malformed(t reflect.Type, err error) Rule {
	switch {
	case t == reflect.TypeFor[Hash]():
		return RuleHashMalformed
	case errors.Is(err, recipe.ErrHex):
		return RuleHexMalformed
	case errors.Is(err, recipe.ErrTag):
		return RuleTagMalformed
	case errors.Is(err, recipe.ErrStatus):
		return RuleStatusMalformed
	}
	return RuleAIDMalformed
}

func (d *decoder) table(path string, table map[string]any, into reflect.Value) {
	known, fields := fieldKeys(into.Type())
	names := make([]string, 0, len(table))
	for name := range table {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		key := joinKey(path, name)
		i, ok := fields[name]
		if !ok {
			if near := nearest(name, known); near != "" {
				d.fault(key, RuleUnknownKeyNear, near)
			} else {
				d.fault(key, RuleUnknownKey, strings.Join(known, ", "))
			}
			continue
		}
		d.decode(key, table[name], into.Field(i))
	}
}

// maxElements bounds every array of a manifest, far above what any rule allows.
const maxElements = 64

func (d *decoder) array(path string, v any, into reflect.Value, mismatch func(Text)) {
	var elements []any
	switch v := v.(type) {
	case []any:
		elements = v
	case []map[string]any:
		for _, table := range v {
			elements = append(elements, table)
		}
	default:
		mismatch(typeArray)
		return
	}
	if len(elements) > maxElements {
		d.unread[path] = true
		d.fault(path, RuleTooMany, maxElements)
		return
	}
	into.Set(reflect.MakeSlice(into.Type(), len(elements), len(elements)))
	for i, e := range elements {
		d.decode(joinIndex(path, i), e, into.Index(i))
	}
}

// nearest returns the known name that word was probably meant to be, or "".
func nearest(word string, known []string) string {
	best, limit := "", min(3, (len(word)+1)/2)+1
	for _, k := range known {
		if n := editDistance(strings.ToLower(word), k); n < limit {
			best, limit = k, n
		}
	}
	return best
}

// editDistance counts insertions, deletions, replacements and swaps of
// neighbours. Words longer than any key are far from all of them.
func editDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			n := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				n = min(n, rows[i-2][j-2]+1)
			}
			rows[i][j] = n
		}
	}
	return rows[len(a)][len(b)]
}
