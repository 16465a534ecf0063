package delegation_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/delegation"
	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

var (
	domain   = iso7816.MustAID("F046524545415245415344")
	file     = iso7816.MustAID("F0465245454152454100")
	module   = iso7816.MustAID("F0465245454152454101")
	instance = iso7816.MustAID("F04652454541524541AA")
	aids     = cmp.Comparer(func(a, b iso7816.AID) bool { return a == b })
	now      = time.Date(2026, 4, 1, 10, 0, 0, 5, time.FixedZone("JST", 9*3600))
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func key() globalplatform.AESScheme {
	return globalplatform.AESScheme{Key: must(keys.NewKey(bytes.Repeat([]byte{7}, 16)))}
}

// request asks for one operation of every kind.
func request() *delegation.Request {
	r := must(delegation.NewRequest(strings.NewReader("12345678"), now))
	r.Card = delegation.Card{IIN: []byte{0x99}, CIN: []byte{1, 2}}
	r.SecurityDomain, r.Service = domain, "office-pass"
	r.Manifest, r.Approval = bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	r.Operations = []delegation.Operation{
		{Kind: delegation.Load, LoadFile: file, SecurityDomain: domain, Hash: bytes.Repeat([]byte{3}, 32)},
		{Kind: delegation.Install, LoadFile: file, Module: module, Instance: instance, Parameters: []byte{4}, Data: []byte("0123456789")},
		{Kind: delegation.Extradite, Object: instance, SecurityDomain: domain},
		{Kind: delegation.Delete, Object: instance},
	}
	return r
}

func tokens() *delegation.Tokens {
	return must(delegation.Issue(request(), key(), "operator", now))
}

// What is written is read as it was, with any white space between.
func TestRoundTrip(t *testing.T) {
	r, answer := request(), tokens()
	data := must(r.Encode())
	for _, b := range [][]byte{data, bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n"))} {
		if diff := cmp.Diff(r, must(delegation.ParseRequest(b)), aids); diff != "" {
			t.Error(diff)
		}
	}
	again := must(delegation.ParseTokens(must(answer.Encode())))
	if diff := cmp.Diff(answer, again, aids); diff != "" {
		t.Error(diff)
	}
	if err := again.Answers(r); err != nil {
		t.Error(err)
	}
}

// Each token is over its own command, with the card's identity and a number of
// its own.
func TestTokens(t *testing.T) {
	answer := tokens()
	for i, token := range answer.Tokens {
		c := must(answer.Request.Command(i, token))
		if err := globalplatform.VerifyToken(key(), c, token); err != nil {
			t.Errorf("operation %d: %v", i, err)
		}
		data := must(c.SignedData())
		number := append([]byte("12345678"), byte(i))
		for _, want := range [][]byte{{0x42, 1, 0x99}, {0x45, 2, 1, 2}, append([]byte{0x93, 9}, number...)} {
			if !bytes.Contains(data, want) {
				t.Errorf("operation %d: no %X in %X", i, want, data)
			}
		}
		for j := range answer.Tokens {
			if other := must(answer.Request.Command(j, token)); i != j && globalplatform.VerifyToken(key(), other, token) == nil {
				t.Errorf("token %d is good for operation %d", i, j)
			}
		}
		if at := answer.Find(answer.Request.Operations[i]); at != i {
			t.Errorf("operation %d is found at %d", i, at)
		}
	}
}

// An answer to another request names the field.
func TestAnswers(t *testing.T) {
	for field, change := range map[string]func(*delegation.Request){
		"request.number":               func(r *delegation.Request) { r.Number = []byte("87654321") },
		"request.created":              func(r *delegation.Request) { r.Created = "2026-04-02T01:00:00Z" },
		"request.card.cin":             func(r *delegation.Request) { r.Card.CIN = []byte{1} },
		"request.card.iin":             func(r *delegation.Request) { r.Card.IIN = []byte{1} },
		"request.security_domain":      func(r *delegation.Request) { r.SecurityDomain = file },
		"request.service":              func(r *delegation.Request) { r.Service = "other" },
		"request.manifest":             func(r *delegation.Request) { r.Manifest = make([]byte, 32) },
		"request.approval":             func(r *delegation.Request) { r.Approval = make([]byte, 32) },
		"request.operations":           func(r *delegation.Request) { r.Operations = r.Operations[:2] },
		"request.operations[0].hash":   func(r *delegation.Request) { r.Operations[0].Hash = make([]byte, 32) },
		"request.operations[1].module": func(r *delegation.Request) { r.Operations[1].Module = file },
		"request.operations[3].object": func(r *delegation.Request) { r.Operations[3].Object = file },
	} {
		sent := request()
		change(sent)
		err := tokens().Answers(sent)
		var mismatch *delegation.MismatchError
		if !errors.As(err, &mismatch) || mismatch.Field != field || !errors.Is(err, delegation.ErrMismatch) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestMalformed(t *testing.T) {
	r, answer := string(must(request().Encode())), string(must(tokens().Encode()))
	for name, x := range map[string]struct {
		from, old, new string
		want           error
	}{
		"later version":      {r, `"v": 1`, `"v": 2`, delegation.ErrVersion},
		"other type":         {r, `"token-request"`, `"tokens"`, delegation.ErrMalformed},
		"unknown field":      {r, `"v": 1,`, `"v": 1, "x": 1,`, delegation.ErrMalformed},
		"field twice":        {r, `"v": 1,`, `"v": 1, "v": 1,`, delegation.ErrMalformed},
		"other case":         {r, `"service"`, `"Service"`, delegation.ErrMalformed},
		"lower-case digits":  {r, domain.String(), strings.ToLower(domain.String()), delegation.ErrMalformed},
		"after it":           {r, "\n}\n", "\n}\n{}", delegation.ErrMalformed},
		"no time":            {r, "T01:00:00Z", "T01:00:00+00:00", delegation.ErrMalformed},
		"terminal's orders":  {r, "office-pass", `office\u001b[2J`, delegation.ErrMalformed},
		"unknown operation":  {r, `"delete"`, `"format"`, delegation.ErrMalformed},
		"field of another":   {r, `"operation": "delete",`, `"operation": "delete", "hash": "00",`, delegation.ErrMalformed},
		"field missing":      {r, `"module": "` + module.String() + `",`, ``, delegation.ErrMalformed},
		"short hash":         {r, strings.Repeat("03", 32), strings.Repeat("03", 31), delegation.ErrMalformed},
		"no operations":      {r, r[strings.Index(r, `"operations"`):], `"operations": []}`, delegation.ErrMalformed},
		"altered request":    {answer, "office-pass", "office-paid", delegation.ErrMalformed},
		"a token less":       {answer, answer[strings.LastIndex(answer, ",\n"):], "\n]}", delegation.ErrMalformed},
		"operator with tabs": {answer, `"operator": "operator"`, `"operator": "a\tb"`, delegation.ErrMalformed},
	} {
		text := strings.Replace(x.from, x.old, x.new, 1)
		if text == x.from {
			t.Fatalf("%s: nothing was changed", name)
		}
		var err error
		if x.from == r {
			_, err = delegation.ParseRequest([]byte(text))
		} else {
			_, err = delegation.ParseTokens([]byte(text))
		}
		if !errors.Is(err, x.want) {
			t.Errorf("%s: %v, want %v", name, err, x.want)
		}
	}
	if _, err := delegation.ParseRequest(make([]byte, delegation.MaxFile+1)); !errors.Is(err, delegation.ErrMalformed) {
		t.Errorf("too large: %v", err)
	}
	incomplete := request()
	incomplete.Approval = nil
	if _, err := incomplete.Encode(); !errors.Is(err, delegation.ErrMalformed) {
		t.Errorf("a request without approval was written: %v", err)
	}
}

// What is accepted is written back as it was, apart from white space.
func FuzzParse(f *testing.F) {
	f.Add(must(request().Encode()))
	f.Add(must(tokens().Encode()))
	f.Add([]byte(`{"v":1,"type":"tokens"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := delegation.ParseRequest(b); err == nil {
			if again := must(delegation.ParseRequest(must(r.Encode()))); again.Digest() != r.Digest() {
				t.Error("another request was written")
			}
		} else if !errors.Is(err, delegation.ErrMalformed) && !errors.Is(err, delegation.ErrVersion) {
			t.Error(err)
		}
		if x, err := delegation.ParseTokens(b); err == nil {
			if diff := cmp.Diff(x, must(delegation.ParseTokens(must(x.Encode()))), aids); diff != "" {
				t.Error(diff)
			}
		} else if !errors.Is(err, delegation.ErrMalformed) && !errors.Is(err, delegation.ErrVersion) {
			t.Error(err)
		}
	})
}
