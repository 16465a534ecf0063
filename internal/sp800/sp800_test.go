package sp800_test

import (
	"bytes"
	"crypto/aes"
	"crypto/des"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/freearea/freearea/internal/sp800"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// The examples of SP 800-38B, D.1 to D.3 (those for AES-128 are RFC 4493's):
// one message, cut to 0, 16, 40 and 64 bytes.
func TestCMACExamples(t *testing.T) {
	message := unhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51" +
		"30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710")
	for _, test := range []struct {
		key  string
		n    int
		want string
	}{
		{"2b7e151628aed2a6abf7158809cf4f3c", 0, "bb1d6929e95937287fa37d129b756746"},
		{"2b7e151628aed2a6abf7158809cf4f3c", 16, "070a16b46b4d4144f79bdd9dd04a287c"},
		{"2b7e151628aed2a6abf7158809cf4f3c", 40, "dfa66747de9ae63030ca32611497c827"},
		{"2b7e151628aed2a6abf7158809cf4f3c", 64, "51f0bebf7e3b9d92fc49741779363cfe"},
		{"8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b", 0, "d17ddf46adaacde531cac483de7a9367"},
		{"8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b", 16, "9e99a7bf31e710900662f65e617c5184"},
		{"8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b", 40, "8a1de5be2eb31aad089a82e6ee908b0e"},
		{"8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b", 64, "a1d5df0eed790f794d77589659f39a11"},
		{"603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4", 0, "028962f61b7bf89efc6b551f4667d983"},
		{"603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4", 16, "28a7023f452e8f82bd4bf28d8c37c35c"},
		{"603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4", 40, "aaf3d8f1de5640c232f5b169b9c911e6"},
		{"603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4", 64, "e1992190549f6ed5696a2c056c315410"},
	} {
		checkCMAC(t, test.key, message[:test.n], test.want)
	}
}

// Every length up to one block, and some beyond: the valid tests of C2SP/wycheproof,
// testvectors_v1/aes_cmac_test.json, for AES-128 (tcId 1 to 21), copied by hand.
func TestCMACLengths(t *testing.T) {
	for _, test := range []struct{ key, message, want string }{
		{"e34f15c7bd819930fe9d66e0c166e61c", "", "d47afca1d857a5933405b1eb7a5cb7af"},
		{"e1e726677f4893890f8c027f9d8ef80d", "3f", "15f856bbed3b321952a584b3c4437a63"},
		{"b151f491c4c006d1f28214aa3da9a985", "27d9", "bdbbebac982dd62b9f682618a6a604e9"},
		{"c36ff15f72777ee21deec07b63c1a0cd", "50b428", "be0c3ede157568af394023eb9a7cc983"},
		{"32b9c5c78c3a0689a86052420fa1e8fc", "0b9262ec", "57e1506856c55dd32cd9ca821adb6c81"},
		{"43151bbaef367277ebfc97509d0aa49c", "eaa91273e7", "e01adc3be6a7621824232c4285dd35b9"},
		{"481440298525cc261f8159159aedf62d", "6123c556c5cc", "a281e0d2d5378dfdcc1310fd9782ca56"},
		{"9ca26eb88731efbf7f810d5d95e196ac", "7e48f06183aa40", "fc81761f2f7b4ce13b53d36e32677332"},
		{"48f0d03e41cc55c4b58f737b5acdea32", "f4a133aa6d5985a0", "1f1cd0327c02e6d00086915937dd61d9"},
		{"1c958849f31996b28939ce513087d1be", "b0d2fee11b8e2f86b7", "555f462151f7dd16de698d639fb26760"},
		{"39de0ebea97c09b2301a90009a423253", "81e5c33b4c620852f044", "9b004f15b7f6f366374954e64bc58f5f"},
		{"91656d8fc0aced60ddb1c4006d0dde53", "7b3e440fe566790064b2ec", "76672ed16c29be449e0c80785cc38e89"},
		{"af7d5134720b5386158d51ea126e7cf9", "7cc6fcc925c20f3c83b5567c", "2dc5c88cf3b80ab6c0199f40be904abc"},
		{"4ed56753de6f75a032ebabca3ce27971", "0c8c0f5619d9f8da5339281285", "eab4366d97e99a0850f077329ad058c0"},
		{"beba50c936b696c15e25046dffb23a64", "821ea8532fbabffb6e3d212e9b46", "22f33cab09c173f75d3401fe44efeead"},
		{"501d81ebf912ddb87fbe3b7aac1437bc", "2368e3c3636b5e8e94d2081adbf798", "aeb784a3825168ddd61f72d0202125e6"},
		{"e09eaa5a3f5e56d279d5e7a03373f6ea", "ef4eab37181f98423e53e947e7050fd0", "40facf0e2fb51b73a7472681b033d6dc"},
		{"831e664c9e3f0c3094c0b27b9d908eb2", "26603bb76dd0a0180791c4ed4d3b058807", "a8144c8b24f2aa47d9c160cff4ab1716"},
		{"cbffc6c8c7f76f46349c32d666f4efb0", "6df067add738195fd55ac2e76b476971b9a0e6d8", "5cb595f9587afa7470a3157040b917bf"},
		{"fda6a01194beb462953d7e6c49b32dac", "f60ae3b036abcab78c98fc1d4b67970c0955cb6fe24483f8907fd73319679b", "1f0f8124ab6c832e87684bac701544c1"},
		{"9bd3902ed0996c869b572272e76f3889", "a7ba19d49ee1ea02f098aa8e30c740d893a4456ccc294040484ed8a00a55f93e", "45082218c2d05eef32247feb1133d0a3"},
	} {
		checkCMAC(t, test.key, unhex(test.message), test.want)
	}
}

func checkCMAC(t *testing.T, key string, message []byte, want string) {
	t.Helper()
	got, err := sp800.Sum(unhex(key), message)
	if err != nil {
		t.Fatal(err)
	}
	if hex.EncodeToString(got[:]) != want {
		t.Errorf("key %s, %d bytes: CMAC %x, want %s", key, len(message), got, want)
	}
}

func TestCMACKeySizes(t *testing.T) {
	for _, n := range []int{0, 8, 15, 17, 20, 31, 33, 64} {
		if _, err := sp800.New(make([]byte, n)); err == nil {
			t.Errorf("a key of %d bytes is taken", n)
		}
		if _, err := sp800.Sum(make([]byte, n), nil); err == nil {
			t.Errorf("a key of %d bytes is taken", n)
		}
	}
	block, err := des.NewCipher(make([]byte, 8))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if recover() == nil {
			t.Error("a cipher with blocks of 8 bytes is taken")
		}
	}()
	sp800.NewWithCipher(block)
}

// Sum looks at a message without ending it, and Reset forgets it.
func TestCMACGoesOn(t *testing.T) {
	key, message := make([]byte, 16), []byte("the quick brown fox jumps over the lazy dog")
	m, err := sp800.New(key)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for i := range message {
			want, _ := sp800.Sum(key, message[:i])
			if first, second := m.Sum(), m.Sum(); first != want || second != want {
				t.Fatalf("after %d bytes: %x, then %x, want %x", i, first, second, want)
			}
			m.Write(message[i : i+1])
		}
		m.Reset()
	}
}

func FuzzCMACIncremental(f *testing.F) {
	f.Add([]byte("sixteen byte key"), []byte("a message of more than two blocks of AES"), []byte{1, 16, 0, 15, 8})
	f.Add([]byte("sixteen byte key"), bytes.Repeat([]byte{0}, 32), []byte{16, 16})
	f.Add([]byte("sixteen byte key"), []byte{}, []byte{0})
	f.Fuzz(func(t *testing.T, key, message, cuts []byte) {
		if len(key) != 16 && len(key) != 24 && len(key) != 32 {
			return
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		m := sp800.NewWithCipher(block)
		var parts [][]byte
		rest := message
		for _, c := range cuts {
			n := min(int(c), len(rest))
			parts = append(parts, rest[:n])
			rest = rest[n:]
		}
		parts = append(parts, rest)
		for _, p := range parts {
			if n, err := m.Write(p); n != len(p) || err != nil {
				t.Fatalf("Write: %d, %v", n, err)
			}
		}
		whole, err := sp800.Sum(key, message)
		if err != nil {
			t.Fatal(err)
		}
		joined, err := sp800.Sum(key, parts...)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Sum(); got != whole || joined != whole {
			t.Fatalf("in parts %x and %x, at once %x", got, joined, whole)
		}
	})
}

func TestCounterKDF(t *testing.T) {
	text, err := os.ReadFile("testdata/kdfctr.txt")
	if err != nil {
		t.Fatal(err)
	}
	var prf, location, count string
	values := map[string][]byte{}
	ran := map[string]int{}
	for i, line := range strings.Split(string(text), "\n") {
		switch name, value, ok := strings.Cut(line, "="); {
		case line == "" || line[0] == '#':
		case !ok:
			t.Fatalf("line %d: %q", i+1, line)
		case name == "[PRF":
			prf = strings.Trim(value, "]")
		case name == "[CTRLOCATION":
			location = strings.Trim(value, "]")
		case name == "COUNT":
			count = value
		default:
			values[strings.TrimSpace(name)] = unhex(strings.TrimSpace(value))
			if name != "KO " {
				continue
			}
			where := fmt.Sprintf("line %d: %s, %s, COUNT=%s", i+1, prf, location, count)
			if prf != fmt.Sprintf("CMAC_AES%d", len(values["KI"])*8) {
				t.Fatalf("%s: key of %d bytes", where, len(values["KI"]))
			}
			if n := len(values["Before"]) + len(values["After"]); n != 60 {
				t.Fatalf("%s: %d bytes of fixed input data", where, n)
			}
			m, err := sp800.New(values["KI"])
			if err != nil {
				t.Fatal(err)
			}
			m.Write([]byte("left over from another message"))
			got := make([]byte, len(values["KO"]))
			sp800.CounterKDF(m, values["Before"], values["After"], got)
			if !bytes.Equal(got, values["KO"]) {
				t.Errorf("%s: %x, want %x", where, got, values["KO"])
			}
			ran[prf+location]++
		}
	}
	for _, prf := range []string{"CMAC_AES128", "CMAC_AES192", "CMAC_AES256"} {
		for _, location := range []string{"BEFORE_FIXED", "AFTER_FIXED", "MIDDLE_FIXED"} {
			if ran[prf+location] < 2 {
				t.Errorf("%s, %s: %d vectors ran", prf, location, ran[prf+location])
			}
		}
	}
}

func TestCounterKDFLimits(t *testing.T) {
	m, err := sp800.New(make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	longest := make([]byte, 255*sp800.Size)
	sp800.CounterKDF(m, nil, []byte("x"), longest)
	last, _ := sp800.Sum(make([]byte, 16), []byte{255, 'x'})
	if !bytes.Equal(longest[254*sp800.Size:], last[:]) {
		t.Error("the last block is not that of counter 255")
	}
	sp800.CounterKDF(m, nil, nil, nil)
	defer func() {
		if recover() == nil {
			t.Error("the counter is let run over")
		}
	}()
	sp800.CounterKDF(m, nil, nil, make([]byte, 255*sp800.Size+1))
}

func BenchmarkCMAC(b *testing.B) {
	m, err := sp800.New(make([]byte, 16))
	if err != nil {
		b.Fatal(err)
	}
	message := make([]byte, 256)
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for b.Loop() {
		m.Reset()
		m.Write(message)
		m.Sum()
	}
}
