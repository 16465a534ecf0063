package msg_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/freearea/freearea/cmd/freearea/internal/msg"
)

// verb matches a formatting verb of package fmt, with its argument index.
var verb = regexp.MustCompile(`%[-+# 0]*(?:\[(\d+)\])?[\d.]*([a-zA-Z%])`)

// arguments lists which arguments a format string uses and how: "1s", "2d".
func arguments(format string) []string {
	var out []string
	next := 1
	for _, m := range verb.FindAllStringSubmatch(format, -1) {
		if m[2] == "%" {
			continue
		}
		if m[1] != "" {
			next, _ = strconv.Atoi(m[1])
		}
		out = append(out, strconv.Itoa(next)+m[2])
		next++
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func TestEveryTextHasBothLanguages(t *testing.T) {
	texts := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || !isText(call.Fun) {
				return true
			}
			texts++
			where := fset.Position(call.Pos())
			en, ja := literal(call.Args[0]), literal(call.Args[1])
			if en == "" || ja == "" {
				t.Errorf("%v: a text needs English and Japanese, as literals", where)
			}
			if a, b := arguments(en), arguments(ja); !slices.Equal(a, b) {
				t.Errorf("%v: English uses the arguments %v, Japanese %v", where, a, b)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if texts < 50 {
		t.Errorf("only %d texts found: is the search looking in the right place?", texts)
	}
}

func isText(e ast.Expr) bool {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	x, ok := sel.X.(*ast.Ident)
	return ok && x.Name == "msg" && sel.Sel.Name == "Of"
}

// literal returns the value of a string literal or a sum of them.
func literal(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BinaryExpr:
		return literal(e.X) + literal(e.Y)
	case *ast.BasicLit:
		s, _ := strconv.Unquote(e.Value)
		return s
	}
	return ""
}

func TestArguments(t *testing.T) {
	for format, want := range map[string][]string{
		"plain":             nil,
		"%s and %d":         {"1s", "2d"},
		"%[2]d then %[1]s":  {"1s", "2d"},
		"100%% of %5.1f":    {"1f"},
		"%[1]s twice %[1]s": {"1s"},
	} {
		if got := arguments(format); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", format, got, want)
		}
	}
}

func TestLanguage(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want msg.Lang
	}{
		{nil, msg.English},
		{map[string]string{"LANG": "ja_JP.UTF-8"}, msg.Japanese},
		{map[string]string{"LANG": "ja_JP.UTF-8", "LC_ALL": "C.UTF-8"}, msg.English},
		{map[string]string{"LC_MESSAGES": "ja", "LANG": "en_GB.UTF-8"}, msg.Japanese},
		{map[string]string{"LANG": "de_DE.UTF-8"}, msg.English},
	} {
		if got := msg.FromLocale(func(k string) string { return c.env[k] }); got != c.want {
			t.Errorf("%v: %v, want %v", c.env, got, c.want)
		}
	}
	if got := msg.Japanese.T(msg.Of("%s on %s", "%[2]s の %[1]s"), "a", "b"); got != "b の a" {
		t.Errorf("got %q", got)
	}
}
