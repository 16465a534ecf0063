package emulator

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"testing"

	"github.com/freearea/freearea/globalplatform/scp"
	"github.com/freearea/freearea/iso7816"
	"github.com/google/go-cmp/cmp"
)

func TestLoad(t *testing.T) {
	good := testLoadFile(testPackage, testModuleID, otherModule)
	changed := bytes.Clone(good)
	changed[len(changed)-1] ^= 1
	foreign := iso7816.MustAID("F0746573749999")
	sum, wrong := sha256.Sum256(good), sha256.Sum256(changed)
	sum512 := sha512.Sum512(good)
	dap := iso7816.AppendTLV(nil, 0xE2, append(iso7816.AppendTLV(nil, 0x4F, IssuerSecurityDomain.Bytes()), iso7816.AppendTLV(nil, 0xC3, []byte{1})...))
	c4 := func(b []byte) []byte { return iso7816.AppendTLV(nil, 0xC4, b) }
	for name, test := range map[string]struct {
		aid    iso7816.AID
		hash   []byte
		file   []byte
		want   iso7816.SW
		loaded bool
	}{
		"with its hash":                    {testPackage, sum[:], c4(good), iso7816.OK, true},
		"with its SHA-512":                 {testPackage, sum512[:], c4(good), iso7816.OK, true},
		"without a hash":                   {testPackage, nil, c4(good), iso7816.OK, true},
		"after a DAP block":                {testPackage, sum[:], append(bytes.Clone(dap), c4(good)...), iso7816.OK, true},
		"DAP block without a hash":         {testPackage, nil, append(bytes.Clone(dap), c4(good)...), iso7816.ErrWrongData, false},
		"wrong hash":                       {testPackage, wrong[:], c4(good), iso7816.ErrWrongData, false},
		"one byte changed, its hash":       {testPackage, wrong[:], c4(changed), iso7816.ErrWrongData, false},
		"one byte changed, hash of good":   {testPackage, sum[:], c4(changed), iso7816.ErrWrongData, false},
		"unknown load file":                {foreign, nil, c4(testLoadFile(foreign, otherModule)), iso7816.OK, true},
		"AID that the file doesn't have":   {foreign, nil, c4(good), iso7816.ErrWrongData, false},
		"no load file":                     {foreign, nil, c4([]byte("not a load file")), iso7816.ErrWrongData, false},
		"bytes after it":                   {testPackage, sum[:], append(c4(good), 0), iso7816.ErrWrongData, false},
		"ciphered":                         {testPackage, sum[:], iso7816.AppendTLV(nil, 0xD4, good), iso7816.ErrWrongData, false},
		"cut short":                        {testPackage, sum[:], c4(good)[:len(good)], iso7816.ErrWrongData, false},
		"no data object":                   {testPackage, sum[:], good, iso7816.ErrWrongData, false},
		"longer than the card's free room": {foreign, nil, c4(append(testLoadFile(foreign), make([]byte, 8000)...)), iso7816.ErrNoMemory, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := newTestCard(t, func(c *Config) { c.Profile.PersistentMemory = 8000 })
			s := authenticate(t, c, scp.CMAC)
			want(t, s, cmdInstallForLoad(test.aid, test.hash), iso7816.OK)
			var last iso7816.Response
			for n, rest := 0, test.file; len(rest) > 0 && (n == 0 || last.SW == iso7816.OK); n++ {
				k := min(200, len(rest))
				cmd := iso7816.Command{CLA: 0x80, INS: insLoad, P2: byte(n), Data: rest[:k], Ne: 256}
				if rest = rest[k:]; len(rest) == 0 {
					cmd.P1 = 0x80
				}
				last = send(t, s, cmd)
			}
			if last.SW != test.want {
				t.Errorf("last LOAD: %v, want %v", last.SW, test.want)
			}
			if loaded := c.state.file(test.aid) != nil; loaded != test.loaded {
				t.Errorf("loaded %v, want %v", loaded, test.loaded)
			}
			if !test.loaded && c.Memory().PersistentUsed != 0 {
				t.Errorf("%d bytes of memory left behind", c.Memory().PersistentUsed)
			}
			// Whatever happened, it is over.
			want(t, s, iso7816.Command{CLA: 0x80, INS: insLoad, Data: []byte{1}, Ne: 256}, iso7816.ErrConditions)
		})
	}
}

func TestLoadSequence(t *testing.T) {
	block := testLoadFile(testPackage, testModuleID, otherModule)
	loads := cmdLoads(block, 50)
	reset := func(t *testing.T) (*Card, *scp.Session) {
		c := newTestCard(t)
		s := authenticate(t, c, scp.CMAC)
		want(t, s, loads[0], iso7816.ErrConditions) // nothing was asked for
		want(t, s, cmdInstallForLoad(testPackage, nil), iso7816.OK)
		want(t, s, loads[0], iso7816.OK)
		if c.Memory().PersistentUsed == 0 {
			t.Error("the blocks take no memory")
		}
		return c, s
	}
	t.Run("block out of turn", func(t *testing.T) {
		_, s := reset(t)
		want(t, s, loads[2], iso7816.ErrIncorrectP1P2)
		want(t, s, loads[1], iso7816.ErrConditions)
	})
	t.Run("block twice", func(t *testing.T) {
		_, s := reset(t)
		want(t, s, loads[0], iso7816.ErrIncorrectP1P2)
	})
	t.Run("other command between", func(t *testing.T) {
		c, s := reset(t)
		want(t, s, cmdGetStatus(scopeIssuer, "4F00"), iso7816.OK) // looking is allowed
		want(t, s, loads[1], iso7816.OK)
		want(t, s, cmdDelete(testPackage, false), iso7816.ErrDataNotFound)
		want(t, s, loads[2], iso7816.ErrConditions)
		if used := c.Memory().PersistentUsed; used != 0 {
			t.Errorf("%d bytes left behind", used)
		}
	})
	t.Run("power", func(t *testing.T) {
		c, _ := reset(t)
		_ = c.Reset(context.Background())
		if used := c.Memory().PersistentUsed; used != 0 {
			t.Errorf("%d bytes left behind", used)
		}
	})
	t.Run("asked for again", func(t *testing.T) {
		c, s := reset(t)
		want(t, s, cmdInstallForLoad(testPackage, nil), iso7816.OK)
		for _, l := range loads {
			want(t, s, l, iso7816.OK)
		}
		want(t, s, cmdInstallForLoad(testPackage, nil), iso7816.ErrConditions) // there now
		if c.state.file(testPackage) == nil {
			t.Error("not loaded")
		}
	})
	t.Run("empty block", func(t *testing.T) {
		_, s := reset(t)
		want(t, s, iso7816.Command{CLA: 0x80, INS: insLoad, P2: 1, Ne: 256}, iso7816.ErrWrongLength)
	})
}

func TestInstallForLoadData(t *testing.T) {
	c := withInstance(t)
	s := authenticate(t, c, scp.CMAC)
	aid, isd := mustHex("F000000001"), IssuerSecurityDomain.Bytes()
	for name, test := range map[string]struct {
		data []byte
		want iso7816.SW
	}{
		"named Security Domain":      {lv(aid, isd, nil, nil, nil), iso7816.OK},
		"unknown Security Domain":    {lv(aid, aid, nil, nil, nil), iso7816.ErrDataNotFound},
		"application for a domain":   {lv(aid, instanceA.Bytes(), nil, nil, nil), iso7816.ErrDataNotFound},
		"AID of the load file":       {lv(testPackage.Bytes(), nil, nil, nil, nil), iso7816.ErrConditions},
		"AID of an application":      {lv(instanceA.Bytes(), nil, nil, nil, nil), iso7816.ErrConditions},
		"no AID":                     {lv(nil, nil, nil, nil, nil), iso7816.ErrWrongData},
		"AID of 4 bytes":             {lv(aid[:4], nil, nil, nil, nil), iso7816.ErrWrongData},
		"hash of 20 bytes":           {lv(aid, nil, make([]byte, 20), nil, nil), iso7816.OK},
		"hash of 16 bytes":           {lv(aid, nil, make([]byte, 16), nil, nil), iso7816.ErrWrongData},
		"token":                      {lv(aid, nil, nil, nil, []byte{1}), iso7816.ErrWrongData},
		"field missing":              {lv(aid, nil, nil, nil), iso7816.ErrWrongData},
		"field too many":             {lv(aid, nil, nil, nil, nil, nil), iso7816.ErrWrongData},
		"no data":                    {nil, iso7816.ErrWrongData},
		"memory that is there":       {lv(aid, nil, nil, mustHex("EF0CC6020100C80400000100C70201"[:28]), nil), iso7816.ErrWrongData},
		"memory well-formed":         {lv(aid, nil, nil, mustHex("EF0AC6020100C80400000100"), nil), iso7816.OK},
		"memory that is not there":   {lv(aid, nil, nil, mustHex("EF06C80400020000"), nil), iso7816.ErrNoMemory},
		"a format of the data block": {lv(aid, nil, nil, mustHex("EF07CD0101DD020102"), nil), iso7816.OK}, // read over, as 11.5.2.3.7 lets it
		"memory of a length of 3":    {lv(aid, nil, nil, mustHex("EF05C803000200"), nil), iso7816.ErrWrongData},
		"parameters that are no TLV": {lv(aid, nil, nil, mustHex("EF05"), nil), iso7816.ErrWrongData},
		"length 0080 as 8180":        {append(append(lv(aid, nil, nil), 0x81, 0x80), append(iso7816.AppendTLV(nil, 0xEF, iso7816.AppendTLV(nil, 0xC1, make([]byte, 124))), 0)...), iso7816.OK},
		"length 0080 as 80":          {append(append(lv(aid, nil, nil), 0x80), append(iso7816.AppendTLV(nil, 0xEF, iso7816.AppendTLV(nil, 0xC1, make([]byte, 124))), 0)...), iso7816.OK},
		"length 007F as 817F":        {append(append(lv(aid, nil, nil), 0x81, 0x7F), make([]byte, 0x80)...), iso7816.ErrWrongData},
	} {
		if r := send(t, s, iso7816.Command{CLA: 0x80, INS: insInstall, P1: forLoad, Data: test.data, Ne: 256}); r.SW != test.want {
			t.Errorf("%s: %v, want %v", name, r.SW, test.want)
		}
	}
	for _, p := range [][2]byte{{forLoad, 1}, {forAll, 0}, {forAll, 2}, {0x06, 0}, {forExtradition, 1}, {0x60, 0}, {0, 0}} {
		want(t, s, iso7816.Command{CLA: 0x80, INS: insInstall, P1: p[0], P2: p[1], Data: lv(aid, nil, nil, nil, nil), Ne: 256}, iso7816.ErrIncorrectP1P2)
	}
}

func TestInstall(t *testing.T) {
	c := withInstance(t)
	s := authenticate(t, c, scp.CMAC)
	foreign := iso7816.MustAID("F0746573749999")
	want(t, s, cmdInstallForLoad(foreign, nil), iso7816.OK)
	for _, l := range cmdLoads(testLoadFile(foreign, otherModule), 200) {
		want(t, s, l, iso7816.OK)
	}
	pkg, mod, aid := testPackage.Bytes(), testModuleID.Bytes(), instanceB.Bytes()
	c9 := iso7816.AppendTLV(nil, 0xC9, specific(8, 0, 0, 0))
	none := []byte{0}
	before := encodeImage(c.state)
	for name, test := range map[string]struct {
		data []byte
		want iso7816.SW
	}{
		"module of an unknown load file":     {lv(foreign.Bytes(), otherModule.Bytes(), aid, none, c9, nil), iso7816.ErrFuncNotSupported},
		"module that the linker can't":       {lv(pkg, otherModule.Bytes(), aid, none, c9, nil), iso7816.ErrFuncNotSupported},
		"module that is in another file":     {lv(foreign.Bytes(), mod, aid, none, c9, nil), iso7816.ErrDataNotFound},
		"unknown load file":                  {lv(aid, mod, aid, none, c9, nil), iso7816.ErrDataNotFound},
		"unknown module":                     {lv(pkg, aid, aid, none, c9, nil), iso7816.ErrDataNotFound},
		"AID of an instance":                 {lv(pkg, mod, instanceA.Bytes(), none, c9, nil), iso7816.ErrConditions},
		"AID of a load file":                 {lv(pkg, mod, pkg, none, c9, nil), iso7816.ErrConditions},
		"no load file":                       {lv(nil, mod, aid, none, c9, nil), iso7816.ErrWrongData},
		"no module":                          {lv(pkg, nil, aid, none, c9, nil), iso7816.ErrWrongData},
		"no privileges":                      {lv(pkg, mod, aid, nil, c9, nil), iso7816.ErrWrongData},
		"Security Domain":                    {lv(pkg, mod, aid, []byte{0x80}, c9, nil), iso7816.ErrWrongData},
		"Global Delete, 3 bytes":             {lv(pkg, mod, aid, []byte{0, 0x10, 0}, c9, nil), iso7816.ErrWrongData},
		"no C9":                              {lv(pkg, mod, aid, none, nil, nil), iso7816.ErrWrongData},
		"C9 twice":                           {lv(pkg, mod, aid, none, append(bytes.Clone(c9), c9...), nil), iso7816.ErrWrongData},
		"unknown parameter":                  {lv(pkg, mod, aid, none, append(bytes.Clone(c9), 0xD0, 0), nil), iso7816.ErrWrongData},
		"token":                              {lv(pkg, mod, aid, none, c9, []byte{1}), iso7816.ErrWrongData},
		"what the application refuses":       {lv(pkg, mod, aid, none, mustHex("C90100"), nil), iso7816.ErrWrongData},
		"bytes after it":                     {append(lv(pkg, mod, aid, none, c9, nil), 0), iso7816.ErrWrongData},
		"longer than what follows":           {append(lv(pkg, mod, aid, none), 0x20), iso7816.ErrWrongData},
		"transient memory that isn't there":  {lv(pkg, mod, aid, none, iso7816.AppendTLV(nil, 0xC9, specific(8, 3000, 0, 0)), nil), iso7816.ErrNoMemory},
		"transient memory that isn't there2": {lv(pkg, mod, aid, none, iso7816.AppendTLV(nil, 0xC9, specific(8, 0, 2000, 0)), nil), iso7816.ErrNoMemory},
		"persistent memory that isn't there": {lv(pkg, mod, aid, none, iso7816.AppendTLV(nil, 0xC9, specific(65535, 0, 0, 0)), nil), iso7816.ErrNoMemory},
	} {
		if r := send(t, s, iso7816.Command{CLA: 0x80, INS: insInstall, P1: forInstallSelectable, Data: test.data, Ne: 256}); r.SW != test.want {
			t.Errorf("%s: %v, want %v", name, r.SW, test.want)
		}
		if !bytes.Equal(before, encodeImage(c.state)) {
			t.Fatalf("%s: something is half installed", name)
		}
	}
	// Both steps apart, three bytes of privileges, and system parameters.
	split := iso7816.Command{CLA: 0x80, INS: insInstall, P1: forInstall, Ne: 256,
		Data: lv(pkg, mod, aid, []byte{0, 0, 0}, append(mustHex("EF0BC8020100CA0100D7020010"), c9...), nil)}
	if r := want(t, s, split, iso7816.OK); !bytes.Equal(r.Data, []byte{0}) {
		t.Errorf("INSTALL answers %X", r.Data)
	}
	if e := c.state.entry(instanceB); e.stateByte() != 0x03 || e.securityDomain != IssuerSecurityDomain {
		t.Errorf("state %02X, Security Domain %v", e.stateByte(), e.securityDomain)
	}
	want(t, s, cmdPersonalize(instanceB), iso7816.ErrConditions)
	selectable := iso7816.Command{CLA: 0x80, INS: insInstall, P1: forMakeSelectable, Data: lv(nil, nil, aid, none, nil, nil), Ne: 256}
	want(t, s, selectable, iso7816.OK)
	want(t, s, selectable, iso7816.ErrConditions)
	want(t, s, iso7816.Command{CLA: 0x80, INS: insInstall, P1: forMakeSelectable, Data: lv(nil, nil, mustHex("F000000001"), none, nil, nil), Ne: 256}, iso7816.ErrDataNotFound)
	if r := send(t, iso7816.Plain(c), iso7816.Select(instanceB)); r.SW != iso7816.OK {
		t.Errorf("SELECT: %v", r.SW)
	}
}

func TestDelete(t *testing.T) {
	c := withInstance(t)
	s := authenticate(t, c, scp.CMAC)
	want(t, s, cmdDelete(testPackage, false), iso7816.ErrConditions) // it has an instance
	want(t, s, cmdInstall(instanceB, specific(8, 1, 1, flagStay)), iso7816.OK)
	before := encodeImage(c.state)
	want(t, s, cmdDelete(testPackage, true), iso7816.ErrConditions) // one of them stays
	want(t, s, cmdDelete(instanceB, false), iso7816.ErrConditions)
	want(t, s, cmdDelete(testModuleID, false), iso7816.ErrDataNotFound)
	key := cmdDelete(instanceA, false)
	key.Data = mustHex("D00101D20130")
	want(t, s, key, iso7816.ErrConditions) // part of the only key set
	token := cmdDelete(instanceA, false)
	token.Data = iso7816.AppendTLV(token.Data, 0x9E, []byte{1})
	want(t, s, token, iso7816.ErrWrongData)
	more := cmdDelete(instanceA, false)
	more.P1 = 0x40
	want(t, s, more, iso7816.ErrIncorrectP1P2)
	if !bytes.Equal(before, encodeImage(c.state)) {
		t.Fatal("a refused DELETE changed the card")
	}
	if r := want(t, s, cmdDelete(instanceA, false), iso7816.OK); !bytes.Equal(r.Data, []byte{0}) {
		t.Errorf("DELETE answers %X", r.Data)
	}
	want(t, s, cmdDelete(instanceA, false), iso7816.ErrDataNotFound)
	want(t, s, cmdInstall(instanceA, specific(8, 0, 0, 0)), iso7816.OK) // the AID is free again
	want(t, s, cmdDelete(instanceA, false), iso7816.OK)

	c = withInstance(t)
	s = authenticate(t, c, scp.CMAC)
	want(t, s, cmdInstall(instanceB, specific(8, 0, 0, 0)), iso7816.OK)
	want(t, s, cmdPersonalize(instanceB), iso7816.OK)
	want(t, s, cmdDelete(testPackage, true), iso7816.OK)
	want(t, s, iso7816.Command{CLA: 0x80, INS: insStoreData, P1: 0x80, Data: []byte{1}}, iso7816.ErrConditions)
	if diff := cmp.Diff(Memory{Persistent: 64 << 10, TransientReset: 2 << 10, TransientDeselect: 1 << 10}, c.Memory()); diff != "" {
		t.Error("memory after deleting everything:\n", diff)
	}
	if r := send(t, iso7816.Plain(c), iso7816.Select(instanceA)); r.SW != iso7816.ErrNotFound {
		t.Errorf("SELECT of what was deleted: %v", r.SW)
	}
}

func TestStoreData(t *testing.T) {
	c := withInstance(t)
	s := authenticate(t, c, scp.CDecryption)
	store := func(p1, p2 byte, data []byte) iso7816.Command {
		return iso7816.Command{CLA: 0x80, INS: insStoreData, P1: p1, P2: p2, Data: data, Ne: 256 * int(p1&1)}
	}
	want(t, s, store(0x88, 0, []byte{1}), iso7816.ErrWrongData) // the Security Domain takes it for itself
	want(t, s, cmdPersonalize(instanceB), iso7816.ErrDataNotFound)
	if r := want(t, s, cmdPersonalize(instanceA), iso7816.OK); !bytes.Equal(r.Data, []byte{0}) {
		t.Errorf("INSTALL [for personalization] answers %X", r.Data)
	}
	want(t, s, store(0x08, 1, []byte{9}), iso7816.ErrIncorrectP1P2) // blocks begin at 0
	want(t, s, store(0x08, 0, []byte{1}), iso7816.OK)
	want(t, s, store(0x08, 0, []byte{9}), iso7816.ErrIncorrectP1P2)
	want(t, s, store(0x08, 0, []byte{1}), iso7816.OK) // and begin again after an error
	if r := want(t, s, store(0x09, 1, []byte{2}), iso7816.OK); !bytes.Equal(r.Data, []byte{0x83}) {
		t.Errorf("case 4 answers %X", r.Data)
	}
	want(t, s, store(0x0A, 2, []byte{3}), iso7816.ErrIncorrectP1P2) // response data to case 3
	want(t, s, store(0x08, 0, []byte{1}), iso7816.OK)
	secret := bytes.Repeat([]byte{7}, 16)
	sealed, err := s.EncryptSensitive(secret)
	if err != nil {
		t.Fatal(err)
	}
	want(t, s, store(0xE8, 1, sealed), iso7816.OK)
	want(t, s, store(0x88, 0, []byte{1}), iso7816.ErrWrongData) // that was the last block
	transmit(t, c, "00A40400 08 F0746573740002A1 00")
	if got := transmit(t, c, "80120000 11"); !bytes.Equal(got.Data, append([]byte{1}, secret...)) {
		t.Errorf("store %X", got.Data)
	}
	// The application sees the level, and the session ends with the channel.
	s = authenticate(t, c, scp.CMAC)
	want(t, s, cmdPersonalize(instanceA), iso7816.OK)
	want(t, s, store(0x08, 0, []byte{1}), iso7816.ErrSecurityStatus)
	s = authenticate(t, c, scp.Full)
	want(t, s, store(0x88, 0, []byte{1}), iso7816.ErrWrongData)
	// Locking ends it too.
	want(t, s, cmdPersonalize(instanceA), iso7816.OK)
	want(t, s, cmdSetStatus(instanceA, 0x80), iso7816.OK)
	want(t, s, store(0x08, 0, []byte{1}), iso7816.ErrConditions)
	// And so does deleting, also when another instance gets the AID.
	want(t, s, cmdSetStatus(instanceA, 0x00), iso7816.OK)
	want(t, s, cmdPersonalize(instanceA), iso7816.OK)
	want(t, s, cmdDelete(instanceA, false), iso7816.OK)
	want(t, s, store(0x08, 0, []byte{1}), iso7816.ErrConditions)
}

// all fetches a whole list through 6310.
func all(t *testing.T, s iso7816.Sender, scope byte, criteria string) (data []byte, responses int) {
	t.Helper()
	cmd := cmdGetStatus(scope, criteria)
	for {
		r := send(t, s, cmd)
		data = append(data, r.Data...)
		responses++
		switch r.SW {
		case iso7816.OK:
			return data, responses
		case iso7816.SWMoreData:
			cmd.P2 |= 1
		default:
			t.Fatalf("GET STATUS %02X: %v", scope, r.SW)
		}
	}
}

func TestGetStatus(t *testing.T) {
	c := withInstance(t)
	s := authenticate(t, c, scp.Full)
	for _, test := range []struct {
		scope          byte
		criteria, want string
	}{
		{scopeIssuer, "4F00", "E31D4F08A0000001510000009F70010FC5039EFE80CC08A000000151000000"},
		{scopeIssuer, "4F05F000000001", "E31D4F08A0000001510000009F70010FC5039EFE80CC08A000000151000000"}, // criteria are ignored
		{scopeApplications, "4F07F0746573740002", "E3264F08F0746573740002A19F700107C503000000C407F0746573740001CC08A000000151000000"},
		{scopeApplications, "4F07F07465737400025C034F9F70", "E30E4F08F0746573740002A19F700107"},
		{scopeApplications, "4F05D392F00026DF010101", "6A80"}, // no minimal tag
		{scopeApplications, "4F0AD3921000310001010100DF200101", "E31F4F0AD39210003100010101009F700107C503000000CC08A000000151000000"},
		{scopeFiles, "4F00", "E3174F07A00000015153509F700101CC08A000000151000000E31B4F07F07465737400019F700101CE020103CC08A000000151000000"},
		{scopeModules, "4F00", "E3214F07A00000015153509F7001018408A000000151535041CC08A000000151000000E32F4F07F07465737400019F700101CE0201038408F0746573740001018408F074657374000102CC08A000000151000000"},
		{scopeModules, "4F005C0184", "E30A8408A000000151535041E3148408F0746573740001018408F074657374000102"},
		{scopeApplications, "4F05F000000001", "6A88"},
		{scopeFiles, "4F05F000000001", "6A88"},
		{scopeApplications, "", "6A80"},
		{scopeApplications, "5C014F", "6A80"},
		{scopeApplications, "4F11" + "0000000000000000000000000000000000", "6A80"},
		{scopeApplications, "4F005C019F", "6A80"},
		{0x60, "4F00", "6A86"},
	} {
		r := send(t, s, cmdGetStatus(test.scope, test.criteria))
		if got := r.Encode(); !bytes.Equal(got, mustHex(test.want)) && !bytes.Equal(got, mustHex(test.want+"9000")) {
			t.Errorf("%02X %s: %X, want %s", test.scope, test.criteria, got, test.want)
		}
	}
	want(t, s, iso7816.Command{CLA: 0x80, INS: insGetStatus, P1: scopeFiles, P2: 0, Data: mustHex("4F00"), Ne: 256}, iso7816.ErrIncorrectP1P2)
	next := cmdGetStatus(scopeFiles, "4F00")
	next.P2 |= 1
	want(t, s, next, iso7816.ErrConditions) // the list before it was complete
	next.P1 = scopeIssuer
	want(t, s, next, iso7816.ErrIncorrectP1P2)
}

func TestGetStatusOfLongLists(t *testing.T) {
	c := withInstance(t)
	s := authenticate(t, c, scp.CMAC)
	for i := range 30 {
		want(t, s, cmdInstall(iso7816.MustAID(fmt.Sprintf("F07465737400030000000000000000%02X", i)), specific(1, 0, 0, 0)), iso7816.OK)
	}
	var modules []iso7816.AID
	for i := range 40 {
		modules = append(modules, iso7816.MustAID(fmt.Sprintf("F07465737400040000000000000000%02X", i)))
	}
	many := iso7816.MustAID("F0746573740005")
	want(t, s, cmdInstallForLoad(many, nil), iso7816.OK)
	for _, l := range cmdLoads(testLoadFile(many, modules...), 240) {
		want(t, s, l, iso7816.OK)
	}
	lists := map[byte][]byte{}
	for _, level := range []scp.Level{scp.CMAC, scp.CDecryption, scp.CMACRMAC, scp.CDecRMAC, scp.Full} {
		s := authenticate(t, c, level)
		for scope, atLeast := range map[byte]int{scopeApplications: 5, scopeFiles: 1, scopeModules: 3} {
			list, responses := all(t, s, scope, "4F00")
			if responses < atLeast {
				t.Errorf("level %v scope %02X: %d responses", level, scope, responses)
			}
			if lists[scope] == nil {
				lists[scope] = list
			} else if !bytes.Equal(lists[scope], list) {
				t.Errorf("level %v scope %02X: another list", level, scope)
			}
		}
	}
	count := func(scope byte, tag iso7816.Tag) (n int) {
		templates, err := iso7816.ParseTLVs(lists[scope])
		if err != nil {
			t.Fatal(err)
		}
		for _, e3 := range templates {
			children, err := e3.Children()
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range children {
				if o.Tag == tag {
					n++
				}
			}
		}
		return n
	}
	if a, f, m := count(scopeApplications, 0x4F), count(scopeFiles, 0x4F), count(scopeModules, 0x84); a != 5+1+30 || f != 3 || m != 43 {
		t.Errorf("%d applications, %d load files, %d modules", a, f, m)
	}
}

func TestMemoryIsAccounted(t *testing.T) {
	c := newTestCard(t, func(c *Config) { c.Profile.PersistentMemory = 2000 })
	s := authenticate(t, c, scp.CMAC)
	loadTestPackage(t, s)
	block := testLoadFile(testPackage, testModuleID, otherModule)
	if got, want := c.Memory().PersistentUsed, 64+2*16+len(block); got != want {
		t.Errorf("load file uses %d, want %d", got, want)
	}
	used := c.Memory().PersistentUsed
	want(t, s, cmdInstall(instanceA, specific(64, 100, 50, 0)), iso7816.OK)
	if got, want := c.Memory(), (Memory{2000, used + 64 + 8 + 64 + 8 + 1 + 8 + 7, 2 << 10, 100, 1 << 10, 50}); got != want {
		t.Errorf("instance: %+v, want %+v", got, want)
	}
	transmit(t, c, "00A40400")
	resources := transmit(t, c, "80CAFF2100")
	m := c.Memory()
	if want := mustHex(fmt.Sprintf("FF2110"+"81020001"+"8204%08X"+"8304%08X"+"9000", m.Free(), 2<<10-100+1<<10)); !bytes.Equal(resources.Encode(), want) {
		t.Errorf("resources %X, want %X", resources.Encode(), want)
	}
	// Until nothing fits any more: each refusal leaves the card as it was.
	s = authenticate(t, c, scp.CMAC)
	for i := 0; ; i++ {
		before, memory := encodeImage(c.state), c.Memory()
		r := send(t, s, cmdInstall(iso7816.MustAID(fmt.Sprintf("F07465737400030%01X", i)), specific(300, 0, 0, 0)))
		if r.SW == iso7816.OK {
			continue
		}
		if r.SW != iso7816.ErrNoMemory || i < 2 {
			t.Fatalf("installation %d: %v", i, r.SW)
		}
		if !bytes.Equal(before, encodeImage(c.state)) || memory != c.Memory() {
			t.Error("something is half installed")
		}
		break
	}
	// What an application takes later counts too, and comes back.
	transmit(t, c, "00A40400 08 F0746573740002A1 00")
	free := c.Memory().Free()
	if r := transmit(t, c, fmt.Sprintf("801E%04X01", free-8)); r.SW != iso7816.OK || c.Memory().Free() != 0 {
		t.Errorf("allocating all: %v, %d free", r.SW, c.Memory().Free())
	}
	if r := transmit(t, c, "801E000001"); r.SW != iso7816.ErrNoMemory {
		t.Errorf("allocating without room: %v", r.SW)
	}
	transmit(t, c, "80260300")
	if c.Memory().Free() != free {
		t.Errorf("%d free, want %d", c.Memory().Free(), free)
	}
	if r := transmit(t, c, "80260300"); r.SW != iso7816.ErrUnknown {
		t.Errorf("freeing twice: %v", r.SW)
	}
}

func TestTransientMemory(t *testing.T) {
	c := withInstance(t)
	s := authenticate(t, c, scp.CMAC)
	want(t, s, cmdInstall(instanceB, specific(8, 4, 4, 0)), iso7816.OK)
	check := func(want string) {
		t.Helper()
		if r := transmit(t, c, "80200000 04 01020304 00"); !bytes.Equal(r.Data, mustHex(want)) {
			t.Errorf("transient memory %X, want %s", r.Data, want)
		}
	}
	selectA := func() { t.Helper(); transmit(t, c, "00A40400 08 F0746573740002A1 00") }
	selectA()
	check("0000000000000000")
	check("0102030401020304")
	selectA() // the same again
	check("0102030400000000")
	transmit(t, c, "00A40400 08 F0746573740002A2 00")
	check("0000000000000000") // the other's is its own
	selectA()
	check("0102030400000000")
	_ = c.Reset(context.Background())
	selectA()
	check("0000000000000000")
	if n := c.session.running[c.state.entry(instanceA)].app.(*testApp).deselected; n != 0 {
		t.Errorf("Deselect was called %d times though power was lost", n)
	}
}

func TestTransactions(t *testing.T) {
	c := withInstance(t)
	read := func() []byte { t.Helper(); return transmit(t, c, "80120000 08").Data }
	counter := func() byte { t.Helper(); return transmit(t, c, "802A0000 01").Data[0] }
	transmit(t, c, "00A40400 08 F0746573740002A1 00")
	start := read()
	if r := transmit(t, c, "80140400 04 01020304"); r.SW != iso7816.OK {
		t.Fatal(r.SW)
	}
	committed := mustHex("0102A5A50304A5A5")
	if got := read(); !bytes.Equal(got, committed) || bytes.Equal(got, start) {
		t.Errorf("after a commit %X, want %X", got, committed)
	}
	transmit(t, c, "80160400 04 77777777")
	if got := read(); !bytes.Equal(got, committed) {
		t.Errorf("a transaction left open is not aborted: %X", got)
	}
	if counter() != 0x77 {
		t.Error("a write outside of the transaction was rolled back")
	}
	transmit(t, c, "802C0000")
	if got := read(); !bytes.Equal(got, mustHex("010909A50304A5A5")) {
		t.Errorf("a write outside over bytes of the transaction: %X", got)
	}
	transmit(t, c, "802E0000")
	if got := read(); !bytes.Equal(got, mustHex("010209A50304A5A5")) {
		t.Errorf("one transaction aborted, the next committed: %X", got)
	}
	transmit(t, c, "80100100 01 09")
	// 512 bytes of commit capacity, 5 for each write of one byte.
	if r := transmit(t, c, "801C0000 02"); !bytes.Equal(r.Data, []byte{0, 102}) {
		t.Errorf("writes within the commit capacity: %X %v", r.Data, r.SW)
	}
	if got := read(); !bytes.Equal(got, mustHex("010909A50304A5A5")) {
		t.Errorf("after Abort: %X", got)
	}
	// Deselect left a transaction open and panicked: neither matters.
	transmit(t, c, "00A40400 08 F0746573740002A1 00")
	if counter() != 0x77 {
		t.Error("a write of Deselect survived its transaction")
	}
}
