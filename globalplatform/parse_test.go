package globalplatform_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/iso7816"
	"github.com/google/go-cmp/cmp"
)

func aids(list ...string) []iso7816.AID {
	var out []iso7816.AID
	for _, s := range list {
		out = append(out, iso7816.MustAID(s))
	}
	return out
}

var compareAIDs = cmp.Comparer(func(a, b iso7816.AID) bool { return a == b })

// Answers of physical cards, recorded by kaoh/globalplatform in scp03Test.c
// (get_status_enc_mac, get_status_aes_192) and by martinpaljak/GlobalPlatformPro
// in TestParseTags.java (testParsePartialISD, testParseISD).
func TestRecordedRegistries(t *testing.T) {
	uicc := []iso7816.TLV{{Tag: 0xEA, Value: []byte{0x80, 0}}}
	for name, x := range map[string]struct {
		data string
		want []globalplatform.RegistryEntry
	}{
		"load file": {"E30D4F07A00000015153509F700101", []globalplatform.RegistryEntry{{AID: iso7816.MustAID("A0000001515350"), State: globalplatform.StateLoaded}}},
		"load files, state of two bytes": {"E3194F07A00000006201019F70020100CE020105CC05A000000151E3224F10A0000000090003FFFFFFFF89107100019F70020100CE020202CC05A000000151",
			[]globalplatform.RegistryEntry{
				{AID: iso7816.MustAID("A0000000620101"), State: 1, Version: []byte{1, 5}, SecurityDomain: iso7816.MustAID("A000000151")},
				{AID: iso7816.MustAID("A0000000090003FFFFFFFF8910710001"), State: 1, Version: []byte{2, 2}, SecurityDomain: iso7816.MustAID("A000000151")},
			}},
		"Security Domain": {"E33E4F10A0000005591010FFFFFFFF89000010009F70013FC50380C000C407A0000001515350CE020100CC10A0000005591010FFFFFFFF8900000100EA028000",
			[]globalplatform.RegistryEntry{{AID: iso7816.MustAID("A0000005591010FFFFFFFF8900001000"), State: 0x3F,
				Privileges: globalplatform.SecurityDomain | globalplatform.TrustedPath | globalplatform.AuthorizedManagement,
				LoadFile:   iso7816.MustAID("A0000001515350"), Version: []byte{1, 0},
				SecurityDomain: iso7816.MustAID("A0000005591010FFFFFFFF8900000100"), Other: uicc}}},
		"privileges of one byte": {"E3144F07A00000015100009F700107C50180EA028000",
			[]globalplatform.RegistryEntry{{AID: iso7816.MustAID("A0000001510000"), State: globalplatform.CardInitialized, Privileges: globalplatform.SecurityDomain, Other: uicc}}},
		"implicit selection": {"E3464F08A0000000030000009F700101C5039EFE80CF0140CF0141CF0142CF0143CF0180CF0181CF0182CF0183C40BD276000005AAFFCAFE0001CE020001CC08A000000003000000",
			[]globalplatform.RegistryEntry{{AID: iso7816.MustAID("A000000003000000"), State: globalplatform.CardOPReady, Privileges: 0x9EFE80,
				ImplicitSelection: []byte{0x40, 0x41, 0x42, 0x43, 0x80, 0x81, 0x82, 0x83}, LoadFile: iso7816.MustAID("D276000005AAFFCAFE0001"),
				Version: []byte{0, 1}, SecurityDomain: iso7816.MustAID("A000000003000000")}}},
		"nothing": {"", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := globalplatform.ParseRegistry(unhex(t, x.data))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(x.want, got, compareAIDs); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRegistryRefuses(t *testing.T) {
	for name, data := range map[string]string{
		"another tag":           "E10D4F07A00000015153509F700101",
		"cut short":             "E30D4F07A00000015153509F7001",
		"bytes after":           "E30D4F07A00000015153509F70010100",
		"no AID":                "E3049F700101",
		"no state":              "E3094F07A0000001515350",
		"AID of 4 bytes":        "E30A4F04A00000019F700101",
		"AID of 17 bytes":       "E3174F11A000000151535000000000000000000000009F700101",
		"AID twice":             "E3164F07A00000015153504F07A00000015153509F700101",
		"state of no byte":      "E30C4F07A00000015153509F7000",
		"state of three":        "E30F4F07A00000015153509F7003010000",
		"privileges of two":     "E3114F07A00000015153509F700107C5020000",
		"module of 3 bytes":     "E3124F07A00000015153509F7001018403A00000",
		"selection of two":      "E3114F07A00000015153509F700107CF028081",
		"load file of 3":        "E3124F07A00000015153509F700107C403A00000",
		"length not minimal":    "E3810D4F07A00000015153509F700101",
		"indefinite length":     "E3804F07A00000015153509F7001010000",
		"a length of megabytes": "E384010000004F",
	} {
		if _, err := globalplatform.ParseRegistry(unhex(t, data)); !errors.Is(err, globalplatform.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRegistryEntryEncodes(t *testing.T) {
	for _, e := range []globalplatform.RegistryEntry{
		{AID: iso7816.MustAID("F001020304"), State: 0x0F, Privileges: globalplatform.CardReset, LoadFile: iso7816.MustAID("F001020305"), SecurityDomain: globalplatform.IssuerSecurityDomain, ImplicitSelection: []byte{1}},
		{AID: iso7816.MustAID("F001020304"), State: 1, Version: []byte{1, 0}, Modules: aids("F00102030401", "F00102030402"), SecurityDomain: globalplatform.IssuerSecurityDomain},
		{AID: iso7816.MustAID("F001020304"), State: 0x87, Other: []iso7816.TLV{{Tag: 0xEA, Value: []byte{}}}},
	} {
		got, err := globalplatform.ParseRegistry(e.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]globalplatform.RegistryEntry{e}, got, compareAIDs); diff != "" {
			t.Error(diff)
		}
	}
}

// script is a card that answers what it is told to, in order, and keeps what
// it was sent.
type script struct {
	t       testing.TB
	answers []iso7816.Response
	sent    []string
	limit   int
}

func (s *script) Send(_ context.Context, c iso7816.Command) (iso7816.Response, error) {
	b, err := c.Encode()
	if err != nil {
		return iso7816.Response{}, err
	}
	s.sent = append(s.sent, fmt.Sprintf("%X", b))
	if len(s.answers) == 0 {
		s.t.Fatalf("unexpected command %X", b)
	}
	r := s.answers[0]
	s.answers = s.answers[1:]
	return r, nil
}

func (s *script) MaxData() int {
	if s.limit == 0 {
		return 255
	}
	return s.limit
}

func answer(t testing.TB, data string, sw iso7816.SW) iso7816.Response {
	return iso7816.Response{Data: unhex(t, data), SW: sw}
}

func TestGetStatus(t *testing.T) {
	one, two := "E30D4F07A00000015153509F700101", "E30B4F05F0010203049F700101"
	const (
		withTags, next = "80F22002094F005C054F9F70CECC00", "80F22003094F005C054F9F70CECC00"
		plain          = "80F22002024F0000"
	)
	for name, x := range map[string]struct {
		answers []iso7816.Response
		want    []iso7816.AID
		sent    []string
		err     error
	}{
		"all at once": {[]iso7816.Response{answer(t, one+two, iso7816.OK)}, aids("A0000001515350", "F001020304"), []string{withTags}, nil},
		"continued": {[]iso7816.Response{answer(t, one, iso7816.SWMoreData), answer(t, two, iso7816.OK)},
			aids("A0000001515350", "F001020304"), []string{withTags, next}, nil},
		"cut inside an entry": {[]iso7816.Response{answer(t, one+two[:8], iso7816.SWMoreData), answer(t, two[8:], iso7816.OK)},
			aids("A0000001515350", "F001020304"), []string{withTags, next}, nil},
		"continued into nothing": {[]iso7816.Response{answer(t, one, iso7816.SWMoreData), answer(t, "", iso7816.ErrDataNotFound)},
			aids("A0000001515350"), []string{withTags, next}, nil},
		"no tag lists": {[]iso7816.Response{answer(t, "", iso7816.ErrWrongData), answer(t, one, iso7816.OK)},
			aids("A0000001515350"), []string{withTags, plain}, nil},
		"empty": {[]iso7816.Response{answer(t, "", iso7816.ErrDataNotFound), answer(t, "", iso7816.ErrDataNotFound)},
			nil, []string{withTags, plain}, nil},
		"refused":   {[]iso7816.Response{answer(t, "", iso7816.ErrSecurityStatus)}, nil, []string{withTags}, iso7816.ErrSecurityStatus},
		"malformed": {[]iso7816.Response{answer(t, one+"00", iso7816.OK)}, nil, []string{withTags}, globalplatform.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			s := &script{t: t, answers: x.answers}
			got, err := globalplatform.GetStatus(t.Context(), s, globalplatform.ScopeLoadFiles, iso7816.AID{})
			if !errors.Is(err, x.err) || (err != nil) != (x.err != nil) {
				t.Fatalf("error %v, want %v", err, x.err)
			}
			var found []iso7816.AID
			for _, e := range got {
				found = append(found, e.AID)
			}
			if diff := cmp.Diff(x.want, found, compareAIDs); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(x.sent, s.sent); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A card that never ends does not hold the host for ever.
func TestGetStatusIsBounded(t *testing.T) {
	n := 0
	for _, data := range [][]byte{nil, make([]byte, 256)} {
		n = 0
		_, err := globalplatform.GetStatus(t.Context(), sender(func(iso7816.Command) iso7816.Response {
			n++
			return iso7816.Response{Data: data, SW: iso7816.SWMoreData}
		}), globalplatform.ScopeApplications, iso7816.AID{})
		if !errors.Is(err, iso7816.ErrProtocol) || n > 300 {
			t.Errorf("after %d commands: %v", n, err)
		}
	}
}

type sender func(iso7816.Command) iso7816.Response

func (f sender) Send(_ context.Context, c iso7816.Command) (iso7816.Response, error) {
	return f(c), nil
}

func TestSelect(t *testing.T) {
	isd := globalplatform.IssuerSecurityDomain
	const fci = "6F108408A000000151000000A5049F6501FF"
	for name, x := range map[string]struct {
		aid    iso7816.AID
		answer iso7816.Response
		err    error
	}{
		"it answers":          {isd, answer(t, fci, iso7816.OK), nil},
		"partial AID":         {iso7816.MustAID("A0000001510000"), answer(t, fci, iso7816.OK), nil},
		"default":             {iso7816.AID{}, answer(t, fci, iso7816.OK), nil},
		"another answers":     {iso7816.MustAID("F001020304"), answer(t, fci, iso7816.OK), globalplatform.ErrOtherApplication},
		"a shorter one":       {iso7816.MustAID("A00000015100000001"), answer(t, fci, iso7816.OK), globalplatform.ErrOtherApplication},
		"card locked":         {isd, answer(t, fci, 0x6283), iso7816.SW(0x6283)},
		"not there":           {isd, answer(t, "", iso7816.ErrNotFound), iso7816.ErrNotFound},
		"no FCI":              {isd, answer(t, "", iso7816.OK), globalplatform.ErrMalformed},
		"no AID":              {isd, answer(t, "6F06A5049F6501FF", iso7816.OK), globalplatform.ErrMalformed},
		"two AIDs":            {isd, answer(t, "6F148408A0000001510000008408A000000151000000", iso7816.OK), globalplatform.ErrMalformed},
		"two A5":              {isd, answer(t, "6F0E8408A000000151000000A500A500", iso7816.OK), globalplatform.ErrMalformed},
		"bytes after":         {isd, answer(t, fci+"00", iso7816.OK), globalplatform.ErrMalformed},
		"AID of 17 bytes":     {isd, answer(t, "6F138411A000000151000000000000000000000000", iso7816.OK), globalplatform.ErrMalformed},
		"cut inside the FCI":  {isd, answer(t, fci[:20], iso7816.OK), globalplatform.ErrMalformed},
		"no template":         {isd, answer(t, "8408A000000151000000", iso7816.OK), globalplatform.ErrMalformed},
		"garbage in the A5":   {isd, answer(t, "6F0D8408A000000151000000A5019F", iso7816.OK), globalplatform.ErrMalformed},
		"refused, with bytes": {isd, answer(t, fci, iso7816.ErrNotFound), iso7816.ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			s := &script{t: t, answers: []iso7816.Response{x.answer}}
			f, err := globalplatform.Select(t.Context(), s, x.aid)
			if !errors.Is(err, x.err) || (err != nil) != (x.err != nil) {
				t.Fatalf("error %v, want %v", err, x.err)
			}
			if err == nil && (f.AID != isd || f.MaxCommandData() != 255) {
				t.Errorf("%+v", f)
			}
			if x.answer.SW == 0x6283 && f.AID != isd {
				t.Error("no FCI beside the warning")
			}
			if err == nil && !bytes.Equal(f.Encode(), unhex(t, fci)) {
				t.Errorf("re-encodes as %X", f.Encode())
			}
		})
	}
}

func TestGetData(t *testing.T) {
	for name, x := range map[string]struct {
		answer iso7816.Response
		want   string
		err    error
	}{
		"value":       {answer(t, "4503010203", iso7816.OK), "010203", nil},
		"not there":   {answer(t, "", iso7816.ErrDataNotFound), "", iso7816.ErrDataNotFound},
		"another tag": {answer(t, "4203010203", iso7816.OK), "", globalplatform.ErrMalformed},
		"bytes after": {answer(t, "450301020300", iso7816.OK), "", globalplatform.ErrMalformed},
		"cut short":   {answer(t, "45030102", iso7816.OK), "", globalplatform.ErrMalformed},
		"value only":  {answer(t, "", iso7816.OK), "", globalplatform.ErrMalformed},
	} {
		s := &script{t: t, answers: []iso7816.Response{x.answer}}
		got, err := globalplatform.CIN(t.Context(), s)
		if !errors.Is(err, x.err) || (err != nil) != (x.err != nil) || !bytes.Equal(got, unhex(t, x.want)) {
			t.Errorf("%s: %X, %v", name, got, err)
		}
	}
	s := &script{t: t, answers: []iso7816.Response{answer(t, "4201AA", iso7816.OK)}}
	if got, err := globalplatform.IIN(t.Context(), s); err != nil || !bytes.Equal(got, []byte{0xAA}) || s.sent[0] != "80CA004200" {
		t.Errorf("IIN: %X, %v, %v", got, err, s.sent)
	}
}

func TestApplications(t *testing.T) {
	for data, want := range map[string]int{
		"": 0, "61074F05F001020304": 1, "61074F05F0010203046107" + "4F05F001020305": 2, "610A4F05F0010203045001AA": 1,
		"E3074F05F001020304": -1, "61074F05F0010203": -1, "61035001AA": -1, "61034F01AA": -1, "6100": -1, "6103500501": -1,
	} {
		s := &script{t: t, answers: []iso7816.Response{answer(t, data, iso7816.OK)}}
		got, err := globalplatform.Applications(t.Context(), s)
		if want < 0 && !errors.Is(err, globalplatform.ErrMalformed) || want >= 0 && (err != nil || len(got) != want) || s.sent[0] != "80CA2F00025C0000" {
			t.Errorf("%q: %v, %v after %v", data, got, err, s.sent)
		}
	}
	s := &script{t: t, answers: []iso7816.Response{answer(t, "", iso7816.ErrDataNotFound)}}
	if _, err := globalplatform.Applications(t.Context(), s); !errors.Is(err, iso7816.ErrDataNotFound) {
		t.Errorf("none: %v", err)
	}
}

func value(t testing.TB, data string, tag iso7816.Tag) []byte {
	t.Helper()
	o, err := iso7816.ParseSingleTLV(unhex(t, data), tag)
	if err != nil {
		t.Fatal(err)
	}
	return o.Value
}

// From martinpaljak/GlobalPlatformPro, TestGPKeyInfo.java.
func TestKeyInformation(t *testing.T) {
	type k = globalplatform.KeyInformation
	type c = globalplatform.KeyComponent
	for name, x := range map[string]struct {
		data string
		want []k
		n    int
	}{
		"basic": {"E020C00401018820C00402018820C00403018820C0060170A180A003C00401718010", []k{
			{ID: 1, Version: 1, Components: []c{{globalplatform.KeyTypeAES, 32}}}, {ID: 2, Version: 1, Components: []c{{globalplatform.KeyTypeAES, 32}}},
			{ID: 3, Version: 1, Components: []c{{globalplatform.KeyTypeAES, 32}}}, {ID: 1, Version: 0x70, Components: []c{{0xA1, 128}, {0xA0, 3}}},
			{ID: 1, Version: 0x71, Components: []c{{globalplatform.KeyTypeDES, 16}}},
		}, 5},
		"mixed by the card": {"E021C00401018010C00402018010C00403018010C00D0173FFA10080A0000301840100", []k{
			{ID: 1, Version: 1, Components: []c{{globalplatform.KeyTypeDES, 16}}}, {ID: 2, Version: 1, Components: []c{{globalplatform.KeyTypeDES, 16}}},
			{ID: 3, Version: 1, Components: []c{{globalplatform.KeyTypeDES, 16}}}, {ID: 1, Version: 0x73, Undecoded: unhex(t, "FFA10080A0000301840100")},
		}, 4},
		"extended": {"E081B0C00A0120FF80001001000100C00A0220FF80001001000100C00A0320FF80001001000100C00A0101FF80001001000100C00A0201FF80001001000100C00A0301FF80001001000100C00A0102FF88001001000100C00E0202FF880010FF10000101000100C00A0302FF88001001000100C00A0103FF88001001000100C00E0203FF880010FF10000101000100C00A0303FF88001001000100C00A1403FF85001001000100C00A1503FF88001001000100", nil, 14},
	} {
		t.Run(name, func(t *testing.T) {
			raw := value(t, x.data, 0xE0)
			got, err := globalplatform.ParseKeyInformation(raw)
			if err != nil || len(got) != x.n {
				t.Fatalf("%d keys, %v", len(got), err)
			}
			if x.want != nil {
				if diff := cmp.Diff(x.want, got); diff != "" {
					t.Error(diff)
				}
			} else {
				want := k{ID: 2, Version: 2, Extended: true, Usage: []byte{0}, Access: []byte{0},
					Components: []c{{globalplatform.KeyTypeAES, 16}, {0x10, 1}}}
				if diff := cmp.Diff(want, got[7]); diff != "" {
					t.Error(diff)
				}
			}
			if again := globalplatform.EncodeKeyInformation(got); !bytes.Equal(again, raw) {
				t.Errorf("re-encodes as %X", again)
			}
		})
	}
	for _, bad := range []string{"C1040101 8820", "C00101", "C0040101 88", "C004010188"} {
		if _, err := globalplatform.ParseKeyInformation(unhex(t, bad)); !errors.Is(err, globalplatform.ErrMalformed) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// From kaoh/globalplatform, getDataTest.c, and martinpaljak/GlobalPlatformPro,
// TestParseTags.java (the last two). The versions are as note 2 of H.2 has them:
// {globalPlatform 2 2 3} is 2.3.
func TestCardRecognition(t *testing.T) {
	for _, x := range []struct{ data, version, channels string }{
		{"664D734B06072A864886FC6B01600B06092A864886FC6B020203630906072A864886FC6B03640B06092A864886FC6B040370650D060B2A864886FC6B0507020000660C060A2B060104012A026E0103", "2.3", "[SCP03 i=70]"},
		{"664D734B06072A864886FC6B01600B06092A864886FC6B020203630906072A864886FC6B03640B06092A864886FC6B040255650D060B2A864886FC6B0507020000660C060A2B060104012A026E0103", "2.3", "[SCP02 i=55]"},
		{"663F733D06072A864886FC6B01600C060A2A864886FC6B02020301630906072A864886FC6B03640B06092A864886FC6B040360640C060A2A864886FC6B04119B06", "2.3.1", "[SCP03 i=60 SCP11 i=D86]"},
		{"664C734A06072A864886FC6B01600C060A2A864886FC6B02020101630906072A864886FC6B03640B06092A864886FC6B040215650B06092B8510864864020103660C060A2B060104012A026E0102", "2.1.1", "[SCP02 i=15]"},
		{"6657735506072A864886FC6B01600B06092A864886FC6B020202630906072A864886FC6B03640B06092A864886FC6B040370640B06092A864886FC6B048000650A06082A864886FC6B0504660C060A2B060104012A026E0103", "2.2", "[SCP03 i=70 SCP80 i=00]"},
	} {
		got, err := globalplatform.ParseCardRecognition(value(t, x.data, 0x66))
		if err != nil {
			t.Errorf("%s: %v", x.data, err)
			continue
		}
		if channels := fmt.Sprint(got.SecureChannels); channels != x.channels || !got.UniqueByIINCIN {
			t.Errorf("%s: %s", x.data, channels)
		}
		if got.Version != x.version {
			t.Errorf("%s: version %q, want %q", x.data, got.Version, x.version)
		}
	}
	for name, bad := range map[string]string{
		"nothing":           "",
		"no 73":             "0607 2A864886FC6B01",
		"empty 73":          "7300",
		"another authority": "7309 0607 2A864886FC6C01",
		"cut":               "730906072A864886FC6B",
		"SCP of one arc":    "7315 0607 2A864886FC6B01 640A 0608 2A864886FC6B0403",
		"arc without end":   "7317 0607 2A864886FC6B01 640C 060A 2A864886FC6B04038181",
	} {
		if _, err := globalplatform.ParseCardRecognition(unhex(t, bad)); !errors.Is(err, globalplatform.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// From martinpaljak/GlobalPlatformPro, TestParseTags.java, and
// kaoh/globalplatform, getDataTest.c.
func TestCardCapabilities(t *testing.T) {
	got, err := globalplatform.ParseCardCapabilities(value(t, "6735A00E8001038106001020306070820107A007800102810215558103FF9E0082031E160083010284018F8502FF028602FF028702FF02", 0x67))
	if err != nil {
		t.Fatal(err)
	}
	want := []globalplatform.ChannelCapability{
		{Protocol: 3, Options: []byte{0, 0x10, 0x20, 0x30, 0x60, 0x70}, Keys: 7}, {Protocol: 2, Options: []byte{0x15, 0x55}},
	}
	if diff := cmp.Diff(want, got.Channels); diff != "" {
		t.Error(diff)
	}
	if got.DomainPrivileges != 0xFF9E00 || got.ApplicationPrivileges != 0x1E1600 || !bytes.Equal(got.HashAlgorithms, []byte{2}) {
		t.Errorf("%+v", got)
	}
	got, err = globalplatform.ParseCardCapabilities(value(t, "6724A0098001028104153555758103E5BEC082031E030083010284010285017B86010C87017B", 0x67))
	if err != nil || got.DomainPrivileges != 0xE5BEC0 || got.ApplicationPrivileges != 0x1E0300 || len(got.Other) != 4 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"A000", "A003800203", "A004800203 04", "810100FF", "82020000", "A0"} {
		if _, err := globalplatform.ParseCardCapabilities(unhex(t, bad)); !errors.Is(err, globalplatform.ErrMalformed) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// From kaoh/globalplatform, getDataTest.c.
func TestCardResourcesAndProduction(t *testing.T) {
	got, err := globalplatform.ParseCardResources(value(t, "FF211081020002820400016DB483040000086A", 0xFF21))
	if want := (globalplatform.CardResources{Applications: 2, FreeNonVolatile: 0x16DB4, FreeVolatile: 0x86A}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if !bytes.Equal(got.Encode(), unhex(t, "81020002820400016DB483040000086A")) {
		t.Errorf("re-encodes as %X", got.Encode())
	}
	for _, bad := range []string{"", "810100820100", "810182", "8100820100830100", "8101008101008201008301 00", "8105000000000082010083 0100"} {
		if _, err := globalplatform.ParseCardResources(unhex(t, bad)); !errors.Is(err, globalplatform.ErrMalformed) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	c, err := globalplatform.ParseCPLC(value(t, "9F7F2A409019154090004501008301A8186827A822000000000000000000000000000000000000000000000000", 0x9F7F))
	if err != nil || c.Fabricator() != 0x4090 || c.Type() != 0x1915 || c.OperatingSystem() != 0x4090 || c.FabricationDate() != 0x8301 ||
		c.SerialNumber() != [4]byte{0xA8, 0x18, 0x68, 0x27} || c.Batch() != 0xA822 {
		t.Errorf("%X, %v", c, err)
	}
	// A response without its tag, from GlobalPlatformPro's testCPLCTagless.
	s := &script{t: t, answers: []iso7816.Response{answer(t, "FF401AE218E116C1144434050D9648B771CB3500D5398D36CE3F1C23A4", iso7816.OK)}}
	if _, err := globalplatform.ProductionLifeCycle(t.Context(), s); !errors.Is(err, globalplatform.ErrMalformed) {
		t.Errorf("without its tag: %v", err)
	}
	if _, err := globalplatform.ParseCPLC(make([]byte, 41)); !errors.Is(err, globalplatform.ErrMalformed) {
		t.Errorf("41 bytes: %v", err)
	}
}

func TestTypedReaders(t *testing.T) {
	for tag, x := range map[string]struct {
		answer string
		read   func(context.Context, iso7816.Sender) (any, error)
		want   string
	}{
		"E0":   {"E006C00401018810", func(ctx context.Context, s iso7816.Sender) (any, error) { return globalplatform.Keys(ctx, s) }, "AES"},
		"66":   {"6618731606072A864886FC6B01640B06092A864886FC6B040360", func(ctx context.Context, s iso7816.Sender) (any, error) { return globalplatform.Recognition(ctx, s) }, "SCP03 i=60"},
		"67":   {"6708A006800103810160", func(ctx context.Context, s iso7816.Sender) (any, error) { return globalplatform.Capabilities(ctx, s) }, "96"},
		"FF21": {"FF2109810102820104830108", func(ctx context.Context, s iso7816.Sender) (any, error) { return globalplatform.Resources(ctx, s) }, "8"},
	} {
		s := &script{t: t, answers: []iso7816.Response{answer(t, x.answer, iso7816.OK)}}
		got, err := x.read(t.Context(), s)
		if err != nil || !strings.Contains(fmt.Sprint(got), x.want) || !strings.HasSuffix(s.sent[0], tag+"00") {
			t.Errorf("%s: %v, %v, %v", tag, got, err, s.sent)
		}
		s.answers = []iso7816.Response{answer(t, "", iso7816.ErrDataNotFound)}
		if _, err := x.read(t.Context(), s); !errors.Is(err, iso7816.ErrDataNotFound) {
			t.Errorf("%s, not there: %v", tag, err)
		}
	}
}

func FuzzParseFCI(f *testing.F) {
	f.Add(unhex(f, "6F108408A000000151000000A5049F6501FF"))
	f.Add(unhex(f, "6F258408A000000151000000A519800101810400112233820A00010203040506070809830201 02"))
	f.Fuzz(func(t *testing.T, b []byte) {
		fci, err := globalplatform.ParseFCI(b)
		if err != nil {
			if !errors.Is(err, globalplatform.ErrMalformed) {
				t.Errorf("error of no kind: %v", err)
			}
			return
		}
		fci.MaxCommandData()
		again, err := globalplatform.ParseFCI(fci.Encode())
		if err != nil {
			t.Fatalf("%X does not parse: %v", fci.Encode(), err)
		}
		if !bytes.Equal(again.Encode(), fci.Encode()) {
			t.Errorf("%X changes to %X", fci.Encode(), again.Encode())
		}
	})
}

func FuzzParseRegistry(f *testing.F) {
	f.Add(unhex(f, "E33E4F10A0000005591010FFFFFFFF89000010009F70013FC50380C000C407A0000001515350CE020100CC10A0000005591010FFFFFFFF8900000100EA028000"))
	f.Add(unhex(f, "E3194F07A00000006201019F70020100CE020105CC05A000000151E30D4F07A00000015153509F700101"))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := globalplatform.ParseRegistry(b)
		if err != nil {
			if !errors.Is(err, globalplatform.ErrMalformed) {
				t.Errorf("error of no kind: %v", err)
			}
			return
		}
		for _, e := range list {
			again, err := globalplatform.ParseRegistry(e.Encode())
			if err != nil || len(again) != 1 || again[0].AID != e.AID || again[0].State != e.State || again[0].SecurityDomain != e.SecurityDomain {
				t.Errorf("%+v becomes %+v: %v", e, again, err)
			}
		}
	})
}

func FuzzParseData(f *testing.F) {
	f.Add(unhex(f, "C00401018820C0060170A180A003C00A0120FF80001001000100"))
	f.Add(unhex(f, "733D06072A864886FC6B01600C060A2A864886FC6B02020301630906072A864886FC6B03640B06092A864886FC6B040360640C060A2A864886FC6B04119B06"))
	f.Add(unhex(f, "A00E8001038106001020306070820107810 3FF9E0082031E16008301028501FF"))
	f.Add(unhex(f, "81020002820400016DB483040000086A"))
	f.Add(unhex(f, "00700101DF00FF00FF"))
	f.Fuzz(func(t *testing.T, b []byte) {
		check := func(err error) bool {
			if err != nil && !errors.Is(err, globalplatform.ErrMalformed) {
				t.Errorf("error of no kind: %v", err)
			}
			return err == nil
		}
		if list, err := globalplatform.ParseKeyInformation(b); check(err) && !bytes.Equal(globalplatform.EncodeKeyInformation(list), b) {
			t.Errorf("%X re-encodes as %X", b, globalplatform.EncodeKeyInformation(list))
		}
		if list, err := globalplatform.ParseDGIs(b); check(err) {
			var again []byte
			for _, d := range list {
				again = globalplatform.AppendDGI(again, d)
			}
			if !bytes.Equal(again, b) {
				t.Errorf("%X re-encodes as %X", b, again)
			}
		}
		_, err := globalplatform.ParseCardRecognition(b)
		check(err)
		_, err = globalplatform.ParseCardCapabilities(b)
		check(err)
		_, err = globalplatform.ParseCardResources(b)
		check(err)
		_, err = globalplatform.ParseCPLC(b)
		check(err)
	})
}
