package emulator

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/freearea/freearea/emulator/oncard"
	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
)

func TestImageKeepsTheCard(t *testing.T) {
	path := filepath.Join(t.TempDir(), "card.img")
	c, err := Create(path, testConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	s := authenticate(t, c, scp.CMAC)
	loadTestPackage(t, s)
	want(t, s, cmdInstall(instanceA, specific(64, 4, 4, 0)), iso7816.OK)
	transmit(t, c, "00A40400 08 F0746573740002A1 00")
	transmit(t, c, "80100000 04 01020304")
	transmit(t, c, "801E0010 01") // object 3
	transmit(t, c, "801E0008 01") // object 4
	transmit(t, c, "80260300")
	transmit(t, c, "80220F00")
	before := encodeImage(c.state)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v %v", info.Mode(), err)
	}
	c, err = Open(path, testLinker{}, WithRand(&stream{n: 5}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if !bytes.Equal(before, encodeImage(c.state)) {
		t.Error("another card was read than was written")
	}
	transmit(t, c, "00A40400 08 F0746573740002A1 00")
	if r := transmit(t, c, "80120000 05"); !bytes.Equal(r.Data, mustHex("01020304A5")) {
		t.Errorf("store %X", r.Data)
	}
	if r := transmit(t, c, "80260300"); r.SW != iso7816.ErrUnknown {
		t.Errorf("a freed object came back: %v", r.SW)
	}
	s = authenticate(t, c, scp.Full)
	want(t, s, cmdSetStatus(instanceA, 0x80), iso7816.OK)
}

// An image of version 1 is the card that it was, with what cards have since. The
// file in testdata was written by the code of that version: the test load file
// and instance A, locked.
func TestImageOfVersion1(t *testing.T) {
	old, err := os.ReadFile("testdata/version-1.img")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "card.img")
	if err := os.WriteFile(path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Open(path, testLinker{}, WithRand(&stream{}))
	if err != nil {
		t.Fatal(err)
	}
	for hex, want := range map[string]string{
		"80CA0042 00": "4204 39200001 9000",
		"80CA0045 00": "4508 0102030405060708 9000",
		"80CA00E0 00": "E012 C00401308810 C00402308810 C00403308810 9000",
		"80CA00C2 00": "C202 0000 9000",
		"00700000 01": "01 9000",
	} {
		if r := transmit(t, c, hex); !bytes.Equal(r.Encode(), mustHex(strings.ReplaceAll(want, " ", ""))) {
			t.Errorf("%s: %X, want %s", hex, r.Encode(), want)
		}
	}
	if now, _ := os.ReadFile(path); !bytes.Equal(now, old) {
		t.Error("looking at the card changed its image")
	}
	s := authenticate(t, c, scp.CMAC)
	for scope, listed := range map[byte]string{
		scopeIssuer:       "4F08A0000001510000009F70010FC5039EFE80",
		scopeApplications: "4F08F0746573740002A19F700187C503000000C407F0746573740001",
		scopeFiles:        "4F07A00000015153509F700101",
	} {
		if r := want(t, s, cmdGetStatus(scope, "4F05"+listed[4:14]), iso7816.OK); !bytes.Contains(r.Data, mustHex(listed)) {
			t.Errorf("GET STATUS %02X: %X, want %s in it", scope, r.Data, listed)
		}
	}
	want(t, s, cmdSetStatus(instanceA, 0x00), iso7816.OK)
	transmit(t, c, "00A40400 08 F0746573740002A1 00")
	if r := transmit(t, c, "80120000 05"); !bytes.Equal(r.Data, mustHex("A5A5A5A5A5")) {
		t.Errorf("store %X", r.Data)
	}
	c.Close()
	b, err := os.ReadFile(path)
	if err != nil || b[9] != imageVersion {
		t.Fatalf("the image was not written in the present version: %v", err)
	}
	if c, err = Open(path, testLinker{}); err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// An image of version 2 has neither Global Services nor a global PIN. The file
// in testdata was written by the code of that version: a Security Domain with
// keys, the test load file, and instance A, locked.
func TestImageOfVersion2(t *testing.T) {
	old, err := os.ReadFile("testdata/version-2.img")
	if err != nil {
		t.Fatal(err)
	}
	s, err := decodeImage(old)
	if err != nil {
		t.Fatal(err)
	}
	if s.cvm.active() || s.historical != nil || len(s.entry(instanceA).services) != 0 || !s.entry(instanceA).locked {
		t.Errorf("another card: %+v, %X, %+v", s.cvm, s.historical, s.entry(instanceA))
	}
	path := filepath.Join(t.TempDir(), "card.img")
	if err := os.WriteFile(path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Open(path, testLinker{}, WithRand(&stream{}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	openDomain(t, c, domainX, keysX)
	want(t, authenticate(t, c, scp.CMAC), cmdSetStatus(instanceA, 0x00), iso7816.OK)
	want(t, iso7816.Plain(c), iso7816.Select(instanceA), iso7816.OK)
	if now, _ := os.ReadFile(path); now[9] != imageVersion {
		t.Errorf("written as version %d", now[9])
	}
}

// Instances of what can't be executed any more are there, can't be selected,
// and can be deleted.
func TestImageWhoseLoadFileTheLinkerForgot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "card.img")
	c, err := Create(path, testConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	s := authenticate(t, c, scp.CMAC)
	loadTestPackage(t, s)
	want(t, s, cmdInstall(instanceA, specific(64, 4, 4, 0)), iso7816.OK)
	c.Close()
	no := errors.New("no")
	for name, linker := range map[string]oncard.Linker{
		"none":    nil,
		"refuses": linkerFunc(func(iso7816.AID) (map[iso7816.AID]oncard.Module, error) { return nil, no }),
	} {
		if c, err = Open(path, linker); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		switch err := c.Refused(); {
		case name == "none" && err != nil:
			t.Errorf("%s: %v", name, err)
		case name == "refuses" && (!errors.Is(err, no) || err.Error() != "load file "+testPackage.String()+": no"):
			t.Errorf("%s: %v", name, err)
		}
		if r := send(t, iso7816.Plain(c), iso7816.Select(instanceA)); r.SW != iso7816.ErrFuncNotSupported {
			t.Errorf("%s: SELECT %v", name, r.SW)
		}
		s = authenticate(t, c, scp.CMAC)
		want(t, s, cmdGetStatus(scopeApplications, "4F07F0746573740002"), iso7816.OK)
		want(t, s, cmdPersonalize(instanceA), iso7816.ErrFuncNotSupported)
		c.Close()
	}
	if c, err = Open(path, nil); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	want(t, authenticate(t, c, scp.CMAC), cmdDelete(testPackage, true), iso7816.OK)
}

func TestImageIsLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "card.img")
	c, err := Create(path, testConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, nil); !errors.Is(err, ErrImageLocked) || !strings.Contains(err.Error(), path) {
		t.Errorf("opened twice: %v", err)
	}
	if _, err := Create(path, testConfig(t)); !errors.Is(err, ErrImageLocked) {
		t.Errorf("created twice: %v", err)
	}
	c.Close()
	if _, err := Create(path, testConfig(t)); !errors.Is(err, os.ErrExist) {
		t.Errorf("created over an image: %v", err)
	}
	c, err = Open(path, nil) // the failed ones gave the lock back
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	missing := filepath.Join(t.TempDir(), "none.img")
	if _, err := Open(missing, nil); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), missing) {
		t.Errorf("missing image: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(missing), "*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestDamagedImages(t *testing.T) {
	good := encodeImage(withInstance(t).state)
	edit := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	sealed := func(b []byte) []byte { // with a checksum that is right
		body := b[:len(b)-sha256.Size]
		binary.BigEndian.PutUint32(body[len(imageMagic)+2:], uint32(len(body)-imageHeader))
		sum := sha256.Sum256(body)
		return append(body, sum[:]...)
	}
	for name, test := range map[string]struct {
		image []byte
		want  error
	}{
		"empty":             {nil, ErrNotImage},
		"bad magic":         {edit(func(b []byte) []byte { b[0] ^= 1; return b }), ErrNotImage},
		"text":              {[]byte("hello, this is not it"), ErrNotImage},
		"newer version":     {edit(func(b []byte) []byte { b[9] = imageVersion + 1; return b }), ErrImageVersion},
		"header only":       {good[:imageHeader], ErrImageTruncated},
		"magic only":        {good[:10], ErrImageTruncated},
		"last byte missing": {good[:len(good)-1], ErrImageTruncated},
		"half":              {good[:len(good)/2], ErrImageTruncated},
		"byte after it":     {append(bytes.Clone(good), 0), ErrImageChecksum},
		"one bit":           {edit(func(b []byte) []byte { b[len(b)/2] ^= 1; return b }), ErrImageChecksum},
		"checksum":          {edit(func(b []byte) []byte { b[len(b)-1] ^= 1; return b }), ErrImageChecksum},
		"content cut short": {edit(func(b []byte) []byte { return sealed(append(b[:len(b)-sha256.Size-1], make([]byte, sha256.Size)...)) }), ErrImageContent},
		"content too long":  {edit(func(b []byte) []byte { return sealed(append(b, 0)) }), ErrImageContent},
		"huge field":        {edit(func(b []byte) []byte { b[imageHeader] = 0xFF; return sealed(b) }), ErrImageContent},
	} {
		path := filepath.Join(t.TempDir(), "card.img")
		if err := os.WriteFile(path, test.image, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(path, nil)
		if !errors.Is(err, test.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
		if again, err := os.ReadFile(path); err != nil || !bytes.Equal(again, test.image) {
			t.Errorf("%s: opening changed the file", name)
		}
	}
	// States that no card can be in.
	for name, damage := range map[string]func(*state){
		"no Issuer Security Domain": func(s *state) { s.entries = s.entries[1:] },
		"AID twice":                 func(s *state) { s.entries[1].aid = s.entries[2].aid },
		"unknown load file":         func(s *state) { s.entries[len(s.entries)-1].file = instanceB },
		"unknown Security Domain":   func(s *state) { s.entries[1].securityDomain = instanceA },
		"file's Security Domain":    func(s *state) { s.files[1].securityDomain = instanceA },
		"keys of an application":    func(s *state) { s.entries[1].domain = s.entries[0].domain },
		"domain without keys":       func(s *state) { s.entries[0].domain.keys = nil },
		"key version":               func(s *state) { s.entries[0].domain.keys[0].version = 0 },
		"life cycle state":          func(s *state) { s.entries[1].lifeCycle = 0x87 },
		"two Final Applications":    func(s *state) { s.entries[1].privileges = s.entries[1].privileges.with(privFinalApplication) },
		"no Card Reset":             func(s *state) { s.entries[0].privileges = s.entries[0].privileges.without(privCardReset) },
		"key twice":                 func(s *state) { d := s.entries[0].domain; d.keys = append(d.keys, d.keys[0]) },
		"key of no type":            func(s *state) { s.entries[0].domain.keys[0].components[0].kind = 0x90 },
		"data out of order":         func(s *state) { d := s.entries[0].domain; d.data[0], d.data[1] = d.data[1], d.data[0] },
		"no IIN":                    func(s *state) { s.entries[0].domain.put(tagIIN, nil) },
		"protocol":                  func(s *state) { s.entries[0].domain.protocol.I = 0xFF },
		"card state":                func(s *state) { s.entries[0].lifeCycle = 0x1F },
		"locked issuer":             func(s *state) { s.entries[0].locked = true },
		"own file with content":     func(s *state) { s.files[0].data = []byte{1} },
		"own application's memory":  func(s *state) { s.entries[1].objects = []*object{{}} },
		"own application's module":  func(s *state) { s.entries[1].module = instanceB },
		"nameless module":           func(s *state) { s.files[1].modules[0] = iso7816.AID{} },
		"no ATR":                    func(s *state) { s.profile.ATR = nil },
		"historical bytes":          func(s *state) { s.historical = make([]byte, 16) },
		"global PIN of no format":   func(s *state) { s.cvm = cvm{format: 4, value: []byte{1}, limit: 1, left: 1} },
		"global PIN without value":  func(s *state) { s.cvm = cvm{format: oncard.CVMHex, limit: 1, left: 1} },
		"global PIN without tries":  func(s *state) { s.cvm = cvm{format: oncard.CVMHex, value: []byte{1}, limit: 1} },
		"more tries than the limit": func(s *state) { s.cvm = cvm{format: oncard.CVMHex, value: []byte{1}, limit: 1, left: 2} },
		"service without privilege": func(s *state) { s.entries[1].services = services{0xA001} },
		"service registered twice": func(s *state) {
			for _, e := range s.entries[:2] {
				e.privileges, e.registered = e.privileges.with(privGlobalService), services{0xA001}
			}
		},
		"service of no family": func(s *state) {
			s.entries[0].privileges, s.entries[0].services = s.entries[0].privileges.with(privGlobalService), services{0x8001}
		},
	} {
		s, err := decodeImage(good)
		if err != nil {
			t.Fatal(err)
		}
		damage(s)
		if _, err := decodeImage(encodeImage(s)); !errors.Is(err, ErrImageContent) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// counted counts what reaches the file system.
type counted struct {
	files
	creates int
}

func (c *counted) Create(path string) (file, error) {
	c.creates++
	return c.files.Create(path)
}

// Reading writes nothing; every change is in the file before its response.
func TestImageIsWrittenOnChangeOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "card.img")
	c, err := Create(path, testConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := authenticate(t, c, scp.CMAC)
	loadTestPackage(t, s)
	want(t, s, cmdInstall(instanceA, specific(64, 4, 4, 0)), iso7816.OK)
	fs := &counted{files: c.image.files}
	c.image.files = fs
	info, _ := os.Stat(path)
	for range 3 { // taps
		authenticate(t, c, scp.Full)
		transmit(t, c, "00A40400 08 F0746573740002A1 00")
		transmit(t, c, "80120000 08")
		transmit(t, c, "80160400 04 00000000") // a transaction that is rolled back, and what was there already
		transmit(t, c, "80140400 04 A5A5A5A5") // the bytes that are there already
		_ = c.Reset(context.Background())
	}
	if after, _ := os.Stat(path); fs.creates != 0 || !os.SameFile(info, after) || !info.ModTime().Equal(after.ModTime()) {
		t.Errorf("reading wrote the image %d times", fs.creates)
	}
	transmit(t, c, "00A40400 08 F0746573740002A1 00")
	for i, hex := range []string{"80100000 01 01", "80180000 02 0202", "80220F00", "801E0001 01"} {
		transmit(t, c, hex)
		if fs.creates != i+1 {
			t.Errorf("%s: %d writes of the image, want %d", hex, fs.creates, i+1)
		}
		if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, encodeImage(c.state)) {
			t.Errorf("%s: the file holds another state", hex)
		}
	}
	// A cut is saved as it left the card.
	c.SetCut(Cut{Command: 1, Where: BeforeWrite, Write: 2})
	_, _ = c.Transmit(context.Background(), mustHex("8018000004"+"0A0B0C0D"))
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, encodeImage(c.state)) || !bytes.Contains(b, []byte{0x0A, 0x0B, 0xA5, 0xA5}) {
		t.Error("the file doesn't hold the torn write")
	}
}

// An image that can't be written is an error that names it, and the card says
// nothing more.
func TestImageThatCannotBeWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "card.img")
	c, err := Create(path, testConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	s := authenticate(t, c, scp.CMAC)
	loadTestPackage(t, s)
	want(t, s, cmdInstall(instanceA, specific(64, 4, 4, 0)), iso7816.OK)
	transmit(t, c, "00A40400 08 F0746573740002A1 00")
	before, _ := os.ReadFile(path)
	c.image.files = &crashing{files: disk{}, at: 2}
	for range 2 {
		if _, err := c.Transmit(context.Background(), mustHex("801000000101")); err == nil || !strings.Contains(err.Error(), "card.img") || errors.Is(err, iso7816.ErrCardRemoved) {
			t.Errorf("%v", err)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("the image changed")
	}
	if c, err = Open(path, nil); err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// crashing fails every call from the one with the number at on.
type crashing struct {
	files
	at, calls int
}

func (c *crashing) step(path string) error {
	c.calls++
	if c.calls >= c.at {
		return &os.PathError{Op: "write", Path: path, Err: errors.New("no space left on device")}
	}
	return nil
}

func (c *crashing) Remove(path string) error {
	if err := c.step(path); err != nil {
		return err
	}
	return c.files.Remove(path)
}

func (c *crashing) Create(path string) (file, error) {
	if err := c.step(path); err != nil {
		return nil, err
	}
	return c.files.Create(path)
}

// modelDisk is a file system in memory that tells what a crash can leave. What
// was written to a file is on the disk after Sync, any part of it before; a
// change of a name is on the disk after SyncDirectory, and may or may not be
// before. It is harsher than file systems are.
type modelDisk struct {
	names   map[string]*modelFile // as programs see them
	durable map[string]*modelFile // as they are on the disk for certain
	log     []map[string]*modelFile
	crashAt int // the call before which the system goes down
	calls   int
}

type modelFile struct {
	content []byte
	synced  []byte // on the disk for certain
	dirty   bool
}

type crash struct{}

func (d *modelDisk) step() {
	d.calls++
	if d.calls == d.crashAt {
		panic(crash{})
	}
}

func (d *modelDisk) rename(f func(m map[string]*modelFile)) {
	next := map[string]*modelFile{}
	for k, v := range d.names {
		next[k] = v
	}
	f(next)
	d.names = next
	d.log = append(d.log, next)
}

func (d *modelDisk) Remove(path string) error {
	d.step()
	d.rename(func(m map[string]*modelFile) { delete(m, path) })
	return nil
}

func (d *modelDisk) Create(path string) (file, error) {
	d.step()
	if d.names[path] != nil {
		return nil, os.ErrExist
	}
	f := &modelFile{}
	d.rename(func(m map[string]*modelFile) { m[path] = f })
	return &modelHandle{d, f}, nil
}

func (d *modelDisk) Rename(from, to string) error {
	d.step()
	d.rename(func(m map[string]*modelFile) { m[to] = m[from]; delete(m, from) })
	return nil
}

func (d *modelDisk) SyncDirectory(string) error {
	d.step()
	d.durable, d.log = d.names, nil
	return nil
}

type modelHandle struct {
	d *modelDisk
	f *modelFile
}

func (h *modelHandle) Write(p []byte) (int, error) {
	// In two parts, so that a crash finds half of it.
	for _, part := range [][]byte{p[:len(p)/2], p[len(p)/2:]} {
		h.d.step()
		h.f.content = append(h.f.content, part...)
		h.f.dirty = true
	}
	return len(p), nil
}

func (h *modelHandle) Sync() error {
	h.d.step()
	h.f.synced, h.f.dirty = bytes.Clone(h.f.content), false
	return nil
}

func (h *modelHandle) Close() error { h.d.step(); return nil }

// after returns everything that the file can hold when the system comes up
// again; nil stands for no file.
func (d *modelDisk) after(path string) [][]byte {
	var out [][]byte
	for _, names := range append([]map[string]*modelFile{d.durable}, d.log...) {
		f := names[path]
		if f == nil {
			out = append(out, nil)
			continue
		}
		out = append(out, f.synced)
		if f.dirty {
			out = append(out, []byte{}, f.content[:len(f.content)/2], f.content)
			if n := len(f.content) / 2; n > 0 { // a hole where a block never came
				out = append(out, append(make([]byte, n), f.content[n:]...))
			}
		}
	}
	return out
}

// sweep lets the system crash before every call that writing makes, and counts
// the outcomes that are neither the old nor the new content.
func sweep(t *testing.T, write func(fs files, path string, content []byte) error, had bool) (bad, outcomes int) {
	t.Helper()
	const path = "dir/card.img"
	card := newTestCard(t)
	old := encodeImage(card.state)
	card.state.diversification[9]++
	fresh := encodeImage(card.state)
	for at := 1; ; at++ {
		d := &modelDisk{names: map[string]*modelFile{}, crashAt: at}
		if had {
			d.names[path] = &modelFile{content: old, synced: old}
			d.names[path+".new"] = &modelFile{content: []byte("left by a crash"), synced: []byte("left")}
		}
		d.durable = d.names
		crashed := func() (crashed bool) {
			defer func() {
				if e := recover(); e != nil {
					if _, ok := e.(crash); !ok {
						panic(e)
					}
					crashed = true
				}
			}()
			if err := write(d, path, fresh); err != nil {
				t.Fatal(err)
			}
			return false
		}()
		for _, b := range d.after(path) {
			outcomes++
			isOld := had && bytes.Equal(b, old) || !had && b == nil
			if isNew := bytes.Equal(b, fresh); !isNew && !(isOld && crashed) {
				bad++
			}
		}
		if !crashed {
			return bad, outcomes
		}
	}
}

func TestCrashLeavesOldOrNewImage(t *testing.T) {
	for _, had := range []bool{true, false} {
		if bad, outcomes := sweep(t, replace, had); bad != 0 || outcomes < 10 {
			t.Errorf("image there before: %v: %d of %d outcomes are neither the old image nor the new one", had, bad, outcomes)
		}
	}
}

// The test above finds what it is there for: each of these ways of writing has
// been somebody's.
func TestCrashTestFindsCarelessWriters(t *testing.T) {
	put := func(fs files, path string, content []byte, sync bool) error {
		w, err := fs.Create(path)
		if err != nil {
			return err
		}
		_, err = w.Write(content)
		if sync {
			err = errors.Join(err, w.Sync())
		}
		return errors.Join(err, w.Close())
	}
	for name, write := range map[string]func(files, string, []byte) error{
		"in place": func(fs files, path string, content []byte) error {
			return errors.Join(fs.Remove(path), put(fs, path, content, true), fs.SyncDirectory("dir"))
		},
		"rename without sync": func(fs files, path string, content []byte) error {
			return errors.Join(fs.Remove(path+".new"), put(fs, path+".new", content, false), fs.Rename(path+".new", path), fs.SyncDirectory("dir"))
		},
		"directory not synced": func(fs files, path string, content []byte) error {
			return errors.Join(fs.Remove(path+".new"), put(fs, path+".new", content, true), fs.Rename(path+".new", path))
		},
	} {
		if bad, _ := sweep(t, write, true); bad == 0 {
			t.Errorf("%s: not found", name)
		}
	}
}

// The same on a real file system, with calls that fail instead of a system that
// stops: the file holds the old image or the new one, and nothing is in the
// way of the next attempt.
func TestFailedCallsLeaveOldOrNewImage(t *testing.T) {
	card := newTestCard(t)
	old := encodeImage(card.state)
	card.state.diversification[9]++
	fresh := encodeImage(card.state)
	for at := 1; ; at++ {
		path := filepath.Join(t.TempDir(), "card.img")
		if err := os.WriteFile(path, old, 0o600); err != nil {
			t.Fatal(err)
		}
		fs := &failing{at: at}
		err := replace(fs, path, fresh)
		got, readErr := os.ReadFile(path)
		if readErr != nil || !bytes.Equal(got, old) && !bytes.Equal(got, fresh) {
			t.Fatalf("call %d fails: the image is damaged", at)
		}
		if err == nil {
			if fs.calls >= at || !bytes.Equal(got, fresh) {
				t.Fatalf("call %d of %d failed, and nobody said so", at, fs.calls)
			}
			return
		}
		if err := replace(disk{}, path, fresh); err != nil {
			t.Fatalf("after call %d failed: %v", at, err)
		}
	}
}

// failing is the disk with one call that fails, after it has done half its
// work where it has any.
type failing struct {
	at, calls int
}

func (f *failing) fail() error {
	f.calls++
	if f.calls == f.at {
		return fmt.Errorf("call %d fails", f.at)
	}
	return nil
}

func (f *failing) Remove(path string) error {
	return errors.Join(f.fail(), disk{}.Remove(path))
}

func (f *failing) Create(path string) (file, error) {
	if err := f.fail(); err != nil {
		return nil, err
	}
	w, err := disk{}.Create(path)
	return &failingFile{f, w}, err
}

func (f *failing) Rename(from, to string) error {
	if err := f.fail(); err != nil {
		return err
	}
	return disk{}.Rename(from, to)
}

func (f *failing) SyncDirectory(path string) error {
	return errors.Join(f.fail(), disk{}.SyncDirectory(path))
}

type failingFile struct {
	f *failing
	file
}

func (w *failingFile) Write(p []byte) (int, error) {
	if err := w.f.fail(); err != nil {
		n, _ := w.file.Write(p[:len(p)/2])
		return n, err
	}
	return w.file.Write(p)
}

func (w *failingFile) Sync() error  { return errors.Join(w.f.fail(), w.file.Sync()) }
func (w *failingFile) Close() error { return errors.Join(w.f.fail(), w.file.Close()) }

func FuzzDecodeImage(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(encodeImage(newTestCard(f).state)[imageHeader:])
	full := encodeImage(withInstance(f).state)
	f.Add(full[imageHeader : len(full)-sha256.Size])
	f.Fuzz(func(t *testing.T, content []byte) {
		// The checksum made right, or nothing would get past it.
		b := append([]byte(imageMagic), 0, imageVersion)
		b = binary.BigEndian.AppendUint32(b, uint32(len(content)))
		b = append(b, content...)
		sum := sha256.Sum256(b)
		b = append(b, sum[:]...)
		s, err := decodeImage(b)
		if err != nil {
			if !errors.Is(err, ErrImageContent) {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(encodeImage(s), b) {
			t.Fatal("encodes to other bytes")
		}
		c := newCard(s, testLinker{}, &stream{})
		_, _ = c.Transmit(context.Background(), mustHex("00A4040000"))
		c.Memory()
	})
}

var _ io.Closer = (*modelHandle)(nil)
