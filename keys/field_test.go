package keys_test

import (
	"bytes"
	"crypto/des"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/freearea/freearea/internal/sp800"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/keys"
)

// desCheck is the key check value of a DES key: the first 3 bytes of the
// encryption of 8 bytes of 00 (GPCS B.6).
func desCheck(t *testing.T, k keys.Key) string {
	t.Helper()
	block, err := des.NewTripleDESCipher(append(slices.Clone(k.Bytes()), k.Bytes()[:8]...))
	if err != nil {
		t.Fatal(err)
	}
	var b [8]byte
	block.Encrypt(b[:], b[:])
	return fmt.Sprintf("%X", b[:3])
}

// The vectors are those of GlobalPlatformPro's tests (TestPlaintextKeys.java,
// as of commit 236a610a): one master key for all purposes, and the key check
// values of what follows from it, those of DES for visa2 and emv.
func TestFieldMethodsAgreeWithGlobalPlatformPro(t *testing.T) {
	const (
		key16 = "404142434445464748494A4B4C4D4E4F"
		key24 = "404142434445464748494A4B4C4D4E4F5051525354555657"
		key32 = "404142434445464748494A4B4C4D4E4F505152535455565758595A5B5C5D5E5F"
	)
	for _, tt := range []struct {
		method        keys.Method
		master        string
		enc, mac, dek string
	}{
		{keys.MethodEMV, key16, "C33013", "6F4CA6", "BB8179"},
		{keys.MethodVISA2, key16, "2BE598", "58DA38", "3C328E"},
		{keys.MethodKDF3, key16, "E79C05", "D1BD77", "3FDE8C"},
		{keys.MethodKDF3, key24, "1DE8EA", "47C00C", "C04D76"},
		{keys.MethodKDF3, key32, "2972D2", "036F94", "5D57B8"},
	} {
		t.Run(fmt.Sprintf("%s %d", tt.method, len(tt.master)*4), func(t *testing.T) {
			k := newKey(t, unhex(t, tt.master))
			got, err := keys.Diversify(keys.SecurityDomain, tt.method, keys.Set{Version: 32, ENC: k, MAC: k, DEK: k},
				iso7816.AID{}, unhex(t, "00010203040506070809"))
			if err != nil {
				t.Fatal(err)
			}
			check := func(k keys.Key) string { return hex24(k) }
			if tt.method != keys.MethodKDF3 {
				check = func(k keys.Key) string { return desCheck(t, k) }
			}
			want := []string{tt.enc, tt.mac, tt.dek}
			if diff := cmp.Diff(want, []string{check(got.ENC), check(got.MAC), check(got.DEK)}); diff != "" {
				t.Error(diff)
			}
			if got.Version != 32 {
				t.Errorf("version %d", got.Version)
			}
		})
	}
}

// The one key that those tests give whole (testKDF3, "external vector").
func TestKDF3Key(t *testing.T) {
	k := newKey(t, unhex(t, "8C72C72CF908411653018807950D82FBAD947562F0828A0B10B8B9606ABF3BCD"))
	got, err := keys.Diversify(keys.SecurityDomain, keys.MethodKDF3, keys.Set{Version: 1, ENC: k, MAC: k, DEK: k},
		iso7816.AID{}, unhex(t, "D9B1DE5D0362DEDCE4FB"))
	if err != nil {
		t.Fatal(err)
	}
	if want := newKey(t, unhex(t, "9AAC5D0B3601F89438A0D9D0B6B256CFB47E6462DFA5228D3420C4AC7C224781")); !got.ENC.Equal(want) {
		t.Errorf("ENC %v, want %v", got.ENC, want)
	}
}

// The examples of NXP AN10922 for AES-128 (2.2.1), AES-192 (2.3.1) and AES-256,
// as independent implementations have them in their tests.
func TestAN10922Examples(t *testing.T) {
	m := unhex(t, "04782E21801D803042F54E585020416275")
	for _, tt := range []struct{ master, want string }{
		{"00112233445566778899AABBCCDDEEFF", "A8DD63A3B89D54B37CA802473FDA9175"},
		{"00112233445566778899AABBCCDDEEFF0102030405060708", "CE39C8E1CD82D9A7BEDBE9D74AF59B23176755EE7586E12C"},
		{
			"00112233445566778899AABBCCDDEEFF0102030405060708090A0B0C0D0E0F00",
			"4FC6EEC820B4C54314990B8611662DB695E7880982C0001E6067488346100AED",
		},
	} {
		master := unhex(t, tt.master)
		got := make([]byte, len(master))
		cmac := func(message []byte) ([16]byte, error) { return sp800.Sum(master, message) }
		if err := keys.AN10922(cmac, m, got); err != nil {
			t.Fatal(err)
		}
		if want := unhex(t, tt.want); !bytes.Equal(got, want) {
			t.Errorf("AES-%d: %X, want %X", len(master)*8, got, want)
		}
		for _, n := range []int{0, 1, 15, 32} {
			if err := keys.AN10922(cmac, make([]byte, n), got); err == nil {
				t.Errorf("an input of %d bytes was accepted", n)
			}
		}
	}
}

// What the method puts into the note's function.
func TestAN10922Input(t *testing.T) {
	master := filled(t, 16)
	data := unhex(t, "0102030405060708090A")
	got, err := keys.Diversify(keys.SecurityDomain, keys.MethodAN10922, master, iso7816.AID{}, data)
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range []keys.Key{got.ENC, got.MAC, got.DEK} {
		message := unhex(t, fmt.Sprintf("010102030405060708090A%02X4652454541524541", i+1))
		want, err := sp800.Sum(master.ENC.Bytes(), message)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(k.Bytes(), want[:]) {
			t.Errorf("key %d is %v", i+1, k)
		}
	}
}

func TestFieldMethodsRefuse(t *testing.T) {
	sd, long := filled(t, 16), filled(t, 32)
	read := filled(t, 16)
	read.DEK = keys.Key{}
	aid, data := iso7816.MustAID("F000000001"), []byte("0123456789")
	for _, m := range []keys.Method{keys.MethodKDF3, keys.MethodVISA2, keys.MethodEMV, keys.MethodAN10922} {
		for _, tt := range []struct {
			name string
			kind keys.Kind
			set  keys.Set
			aid  iso7816.AID
			data []byte
			want error // nil: any
		}{
			{"reading", keys.Read, read, aid, data, keys.ErrDiversifier},
			{"AID", keys.SecurityDomain, sd, aid, data, nil},
			{"no data", keys.SecurityDomain, sd, iso7816.AID{}, nil, keys.ErrDiversificationData},
			{"long data", keys.SecurityDomain, sd, iso7816.AID{}, append(data, 1), keys.ErrDiversificationData},
			{"zeros", keys.SecurityDomain, sd, iso7816.AID{}, make([]byte, 10), keys.ErrDiversificationData},
			{"no DEK", keys.SecurityDomain, read, iso7816.AID{}, data, nil},
		} {
			got, err := keys.Diversify(tt.kind, m, tt.set, tt.aid, tt.data)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("%s, %s: error %v, want %v", m, tt.name, err, tt.want)
			}
			if !got.ENC.IsZero() {
				t.Errorf("%s, %s: keys beside an error", m, tt.name)
			}
		}
	}
	// Only the serial number tells cards apart, so only it must not be zeros.
	for _, tt := range []struct {
		method keys.Method
		data   string
	}{
		{keys.MethodVISA2, "00010203000000000809"},
		{keys.MethodEMV, "00010203000000000000"},
	} {
		if _, err := keys.Diversify(keys.SecurityDomain, tt.method, sd, iso7816.AID{}, unhex(t, tt.data)); !errors.Is(err, keys.ErrDiversificationData) {
			t.Errorf("%s of %s: error %v", tt.method, tt.data, err)
		}
		if _, err := keys.Diversify(keys.SecurityDomain, tt.method, long, iso7816.AID{}, data); !errors.Is(err, keys.ErrDiversifier) {
			t.Errorf("%s with keys of 32 bytes: error %v", tt.method, err)
		}
	}
}

func TestCheckProtocol(t *testing.T) {
	for m, want := range map[keys.Method][2]bool{ // good for SCP02, for SCP03
		keys.MethodSP800108: {true, true}, keys.MethodNone: {true, true},
		keys.MethodKDF3: {false, true}, keys.MethodAN10922: {false, true},
		keys.MethodVISA2: {true, false}, keys.MethodEMV: {true, false},
	} {
		for i, good := range want {
			if err := m.CheckProtocol(byte(i + 2)); (err == nil) != good || err != nil && !errors.Is(err, keys.ErrDiversifier) {
				t.Errorf("%s with SCP%02d: error %v", m, i+2, err)
			}
		}
	}
}

// A store that only computes CMACs derives the same keys, and says what it
// can't do.
func TestDiversifyWith(t *testing.T) {
	data := []byte("0123456789")
	failed := errors.New("token on fire")
	for _, size := range []int{16, 24, 32} {
		master := filled(t, size)
		for _, method := range keys.Methods() {
			m := keys.Masters{Version: 1, Size: size, CMAC: func(p keys.Purpose, message []byte) ([16]byte, error) {
				return sp800.Sum(master.ENC.Bytes(), message)
			}}
			got, err := keys.DiversifyWith(keys.SecurityDomain, method, m, iso7816.AID{}, data)
			switch method {
			case keys.MethodNone, keys.MethodVISA2, keys.MethodEMV:
				if !errors.Is(err, keys.ErrMastersStay) {
					t.Errorf("%s: error %v", method, err)
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			want, err := keys.Diversify(keys.SecurityDomain, method, master, iso7816.AID{}, data)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: %s", method, diff)
			}
			calls := 0
			m.CMAC = func(keys.Purpose, []byte) ([16]byte, error) {
				if calls++; calls > 2 {
					return [16]byte{}, failed
				}
				return [16]byte{1}, nil
			}
			if got, err := keys.DiversifyWith(keys.SecurityDomain, method, m, iso7816.AID{}, data); err != failed || !got.ENC.IsZero() {
				t.Errorf("%s: %v and error %v", method, got, err)
			}
		}
	}
	ok := keys.Masters{Version: 1, Size: 16, CMAC: func(keys.Purpose, []byte) ([16]byte, error) { return [16]byte{}, nil }}
	for _, bad := range []keys.Masters{{Version: 0, Size: 16}, {Version: 128, Size: 16}, {Version: 1, Size: 8}} {
		bad.CMAC = ok.CMAC
		if _, err := keys.DiversifyWith(keys.SecurityDomain, keys.MethodKDF3, bad, iso7816.AID{}, data); err == nil {
			t.Errorf("masters of version %d and size %d were accepted", bad.Version, bad.Size)
		}
	}
	ok.Size = 24
	if _, err := keys.DiversifyWith(keys.Read, keys.MethodSP800108, ok, iso7816.MustAID("F000000001"), data); err == nil {
		t.Error("read keys of 24 bytes were accepted")
	}
}

func TestCheckName(t *testing.T) {
	for _, ok := range []string{"a", "Z9", "a.b_c-d", "0123456789012345678901234567890123456789012345678901234567890123"} {
		if err := keys.CheckName(ok); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", ".a", "-a", "_a", "a b", "a/b", "ä", "a\n", "01234567890123456789012345678901234567890123456789012345678901234"} {
		if err := keys.CheckName(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}
