package globalplatform_test

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// testCAP makes a library package with a method component of a size.
func testCAP(t testing.TB, method int) *capfile.File {
	t.Helper()
	bodies := map[capfile.Component][]byte{
		capfile.Header:       unhex(t, "DECAFFED 01 02 00 00 01 05 F001020304"),
		capfile.Import:       unhex(t, "00"),
		capfile.ConstantPool: unhex(t, "0000"),
		capfile.Class:        {},
		capfile.Method:       make([]byte, method),
		capfile.StaticField:  make([]byte, 10),
		capfile.RefLocation:  make([]byte, 4),
	}
	for i := range bodies[capfile.Method] {
		bodies[capfile.Method][i] = byte(i)
	}
	var directory []byte
	for c := capfile.Header; c <= capfile.Descriptor; c++ {
		n := len(bodies[c])
		if c == capfile.Directory {
			n = 2*int(capfile.Descriptor) + 9
		}
		directory = append(directory, byte(n>>8), byte(n))
	}
	bodies[capfile.Directory] = append(directory, make([]byte, 9)...)
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for c, body := range bodies {
		entry, err := w.Create("demo/javacard/" + c.String() + ".cap")
		if err != nil {
			t.Fatal(err)
		}
		entry.Write(append([]byte{byte(c), byte(len(body) >> 8), byte(len(body))}, body...))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := capfile.Parse(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// domain is a Security Domain that only keeps the commands it gets, behind a
// secure channel.
type domain struct {
	t       *testing.T
	channel *scp.CardSession
	got     []iso7816.Command
	refuse  int // the number of the command, from 1, that is refused
}

func (d *domain) Send(_ context.Context, c iso7816.Command) (iso7816.Response, error) {
	switch c.INS {
	case 0x50:
		return d.channel.InitializeUpdate(c), nil
	case 0x82:
		return d.channel.ExternalAuthenticate(c), nil
	}
	if len(c.Data) > 255 {
		d.t.Errorf("%d bytes of data on the wire", len(c.Data))
	}
	plain, err := d.channel.Unwrap(c)
	if err != nil {
		d.t.Fatal(err)
	}
	d.got = append(d.got, plain)
	if len(d.got) == d.refuse {
		return d.channel.Wrap(iso7816.Response{SW: iso7816.ErrNoMemory}), nil
	}
	return d.channel.Wrap(iso7816.Response{Data: []byte{0}, SW: iso7816.OK}), nil
}

func openDomain(t *testing.T, level scp.Level) (*domain, *scp.Session) {
	t.Helper()
	k, err := keys.NewKey(bytes.Repeat([]byte{7}, 16))
	if err != nil {
		t.Fatal(err)
	}
	set := keys.Set{Version: 1, ENC: k, MAC: k, DEK: k}
	d := &domain{t: t, channel: scp.NewCardSession(scp.CardOptions{Keys: func(byte) (keys.Set, bool) { return set, true }})}
	s, err := scp.Open(t.Context(), d, set, scp.HostOptions{Level: level})
	if err != nil {
		t.Fatal(err)
	}
	return d, s
}

func TestLoad(t *testing.T) {
	file := testCAP(t, 3000)
	hash := file.Hash()
	for level, size := range map[scp.Level]int{scp.None: 255, scp.CMAC: 247, scp.Full: 239} {
		d, s := openDomain(t, level)
		var steps []string
		_, err := globalplatform.Load(t.Context(), s, file, globalplatform.LoadOptions{SecurityDomain: globalplatform.IssuerSecurityDomain, Hash: hash[:]},
			func(done, total int) { steps = append(steps, fmt.Sprint(done, "/", total)) })
		if err != nil {
			t.Fatalf("level %v: %v", level, err)
		}
		install := d.got[0]
		if install.INS != 0xE6 || install.P1 != 0x02 || !bytes.Contains(install.Data, hash[:]) || !bytes.Contains(install.Data, globalplatform.IssuerSecurityDomain.Bytes()) {
			t.Errorf("level %v: INSTALL %+v", level, install)
		}
		var loaded []byte
		for i, c := range d.got[1:] {
			last := i == len(d.got)-2
			if c.INS != 0xE8 || int(c.P2) != i || (c.P1 == 0x80) != last || !last && len(c.Data) != size {
				t.Errorf("level %v: block %d is %02X %02X %02X of %d bytes", level, i, c.INS, c.P1, c.P2, len(c.Data))
			}
			loaded = append(loaded, c.Data...)
		}
		o, err := iso7816.ParseSingleTLV(loaded, 0xC4)
		if err != nil || !bytes.Equal(o.Value, file.LoadFileDataBlock()) {
			t.Errorf("level %v: %v", level, err)
		}
		if n := len(d.got) - 1; len(steps) != n || steps[n-1] != fmt.Sprint(n, "/", n) {
			t.Errorf("level %v: progress %v", level, steps)
		}
	}
}

func TestLoadStops(t *testing.T) {
	file := testCAP(t, 3000)
	d, s := openDomain(t, scp.Full)
	d.refuse = 4
	_, err := globalplatform.Load(t.Context(), s, file, globalplatform.LoadOptions{}, nil)
	var e *globalplatform.LoadError
	if !errors.As(err, &e) || e.Done != 2 || !errors.Is(err, iso7816.ErrNoMemory) || len(d.got) != 4 {
		t.Errorf("%v after %d commands", err, len(d.got))
	}
	d, s = openDomain(t, scp.Full)
	d.refuse = 1
	if _, err = globalplatform.Load(t.Context(), s, file, globalplatform.LoadOptions{}, nil); errors.As(err, &e) || !errors.Is(err, iso7816.ErrNoMemory) || len(d.got) != 1 {
		t.Errorf("%v after %d commands", err, len(d.got))
	}
	// Too long for the block numbers: nothing is sent.
	d, s = openDomain(t, scp.Full)
	if _, err := globalplatform.Load(t.Context(), s, file, globalplatform.LoadOptions{BlockSize: 10}, nil); !errors.Is(err, globalplatform.ErrCommand) || len(d.got) != 0 {
		t.Errorf("%v after %d commands", err, len(d.got))
	}
}

func TestLoadFileWithDAP(t *testing.T) {
	got, err := globalplatform.LoadFile([]byte{1, 2, 3}, globalplatform.DAPBlock{SecurityDomain: iso7816.MustAID("F001020304"), Signature: []byte{9}})
	if err != nil || !bytes.Equal(got, unhex(t, "E20A 4F05F001020304 C30109 C403010203")) {
		t.Errorf("%X, %v", got, err)
	}
	for _, n := range []int{0, 65536} {
		if _, err := globalplatform.LoadFile(make([]byte, n)); !errors.Is(err, globalplatform.ErrCommand) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestStore(t *testing.T) {
	d, s := openDomain(t, scp.CDecryption)
	blocks, err := globalplatform.SplitStoreData(bytes.Repeat([]byte{1}, 500), globalplatform.MaxData(s))
	if err != nil || len(blocks) != 3 {
		t.Fatalf("%d blocks, %v", len(blocks), err)
	}
	var done int
	answer, err := globalplatform.Store(t.Context(), s, blocks, globalplatform.StoreOptions{Format: globalplatform.FormatDGI, Encryption: globalplatform.EncryptionApplication, Answer: true},
		func(n, _ int) { done = n })
	if err != nil || len(answer) != 1 || done != 3 {
		t.Fatalf("%X, %d, %v", answer, done, err)
	}
	for i, want := range []byte{0x28, 0x28, 0xA9} {
		if c := d.got[i]; c.INS != 0xE2 || c.P1 != want || int(c.P2) != i || (c.Ne > 0) != (i == 2) {
			t.Errorf("block %d: %+v", i, c)
		}
	}
	d.refuse = 5
	var e *globalplatform.StoreError
	if _, err := globalplatform.Store(t.Context(), s, blocks, globalplatform.StoreOptions{}, nil); !errors.As(err, &e) || e.Done != 1 || !errors.Is(err, iso7816.ErrNoMemory) {
		t.Errorf("%v", err)
	}
	for _, n := range []int{0, 257} {
		if _, err := globalplatform.Store(t.Context(), s, make([][]byte, n), globalplatform.StoreOptions{}, nil); !errors.Is(err, globalplatform.ErrCommand) {
			t.Errorf("%d blocks: %v", n, err)
		}
	}
}

func TestExecute(t *testing.T) {
	c := globalplatform.Lock(iso7816.MustAID("F001020304"))
	for data, want := range map[string]string{"": "", "00": "", "05 03 010203 AA": "0503010203AA"} {
		got, err := globalplatform.Execute(t.Context(), sender(func(iso7816.Command) iso7816.Response { return answer(t, data, iso7816.OK) }), c)
		if err != nil || !bytes.Equal(got, unhex(t, want)) {
			t.Errorf("%q: %X, %v", data, got, err)
		}
	}
	_, err := globalplatform.Execute(t.Context(), sender(func(iso7816.Command) iso7816.Response { return answer(t, "", iso7816.ErrConditions) }), c)
	if !errors.Is(err, iso7816.ErrConditions) {
		t.Error(err)
	}
}
