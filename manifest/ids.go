package manifest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// MaxID is the longest ID in characters; a card holds no longer one.
const MaxID = 64

const maxPrefix = 16

// Errors of IDs.
var (
	ErrIDScheme         = errors.New("the manifest's IDs do not come about in this way")
	ErrIDExhausted      = errors.New("the sequence has no more IDs")
	ErrIDLength         = errors.New("wrong length")
	ErrIDPrefix         = errors.New("wrong prefix")
	ErrIDAlphabet       = errors.New("character outside the alphabet")
	ErrIDCheck          = errors.New("wrong check character")
	ErrIDNumber         = errors.New("has the form of an Individual Number")
	errCheckAlphabet    = errors.New("character that the check algorithm does not cover")
	errUnknownAlgorithm = errors.New("unknown check algorithm")
)

const (
	digitChars  = "0123456789"
	letterChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// alphabets are the named alphabets of ID schemes.
var alphabets = map[string]string{
	"digits":       digitChars,
	"letters":      letterChars,
	"alphanumeric": digitChars + letterChars,
	"unambiguous":  "23456789ABCDEFGHJKMNPQRSTUVWXYZ", // without 0 1 I L O
}

var alphabetNames = []string{"digits", "letters", "alphanumeric", "unambiguous"}

// checkAlphabets are the characters that each algorithm computes over.
var checkAlphabets = map[CheckCharacter]string{
	CheckMod3736: digitChars + letterChars,
	CheckMod112:  digitChars,
	CheckLuhn:    digitChars,
}

// checkCharacter computes the check character of a text. Hyphens are for the
// eye and are skipped.
func checkCharacter(algorithm CheckCharacter, text string) (byte, error) {
	alphabet, ok := checkAlphabets[algorithm]
	if !ok {
		return 0, errUnknownAlgorithm
	}
	var values []int
	for i := range len(text) {
		if text[i] == '-' {
			continue
		}
		v := strings.IndexByte(alphabet, text[i])
		if v < 0 {
			return 0, errCheckAlphabet
		}
		values = append(values, v)
	}
	switch algorithm {
	case CheckMod3736:
		// ISO/IEC 7064 hybrid system: modulus 37 and 36.
		p := 36
		for _, v := range values {
			p += v
			if p %= 36; p == 0 {
				p = 36
			}
			p = p * 2 % 37
		}
		return alphabet[(37-p)%36], nil
	case CheckMod112:
		// ISO/IEC 7064 pure system: modulus 11, radix 2.
		p := 0
		for _, v := range values {
			p = (p + v) * 2 % 11
		}
		if c := (12 - p) % 11; c < 10 {
			return '0' + byte(c), nil
		}
		return 'X', nil
	default:
		// ISO/IEC 7812-1 annex B: double every second digit from the right.
		sum := 0
		for i := range values {
			v := values[len(values)-1-i]
			if i%2 == 0 {
				if v *= 2; v > 9 {
					v -= 9
				}
			}
			sum += v
		}
		return '0' + byte((10-sum%10)%10), nil
	}
}

// finish appends the check character to prefix and body.
func (s IDScheme) finish(body string) (string, error) {
	id := s.Prefix + body
	if s.Check != CheckNone && s.Check != "" {
		c, err := checkCharacter(s.Check, id)
		if err != nil {
			return "", err
		}
		id += string(c)
	}
	return id, nil
}

// NextID returns the ID with a number of the service's sequence, which counts
// from 0. It wraps [ErrIDExhausted] behind the last one, [ErrIDScheme] where
// IDs are no sequence.
func (m *Manifest) NextID(seq uint64) (string, error) {
	s := m.IDScheme
	if s.Kind != IDSequence {
		return "", fmt.Errorf("id scheme %q: %w", s.Kind, ErrIDScheme)
	}
	alphabet := alphabets[s.Alphabet]
	radix := uint64(len(alphabet))
	body := make([]byte, s.Length)
	rest := seq
	for i := s.Length - 1; i >= 0; i-- {
		body[i] = alphabet[rest%radix]
		rest /= radix
	}
	if rest > 0 {
		return "", fmt.Errorf("number %d in %d characters: %w", seq, s.Length, ErrIDExhausted)
	}
	return s.finish(string(body))
}

// RandomID draws an ID; random nil is crypto/rand. Whether the service has
// issued it before, only the ledger knows. It wraps [ErrIDScheme] where IDs
// are not drawn.
func (m *Manifest) RandomID(random io.Reader) (string, error) {
	s := m.IDScheme
	if s.Kind != IDRandom {
		return "", fmt.Errorf("id scheme %q: %w", s.Kind, ErrIDScheme)
	}
	if random == nil {
		random = rand.Reader
	}
	// Letters and digits mixed may come out as 12 digits between letters;
	// drawing again a few times is enough for a source that is random at all.
	for range 16 {
		body, err := drawText(random, alphabets[s.Alphabet], s.Length)
		if err != nil {
			return "", err
		}
		id, err := s.finish(body)
		if err != nil || !HoldsIndividualNumber(id) {
			return id, err
		}
	}
	return "", fmt.Errorf("random id: %w", ErrIDNumber)
}

// drawText draws n characters, all equally likely.
func drawText(random io.Reader, alphabet string, n int) (string, error) {
	limit := 256 - 256%len(alphabet)
	body := make([]byte, 0, n)
	var b [1]byte
	for len(body) < n {
		if _, err := io.ReadFull(random, b[:]); err != nil {
			return "", fmt.Errorf("random source: %w", err)
		}
		if int(b[0]) < limit {
			body = append(body, alphabet[int(b[0])%len(alphabet)])
		}
	}
	return string(body), nil
}

// CheckID tells whether an ID is one of the service's. The error wraps
// [ErrIDLength], [ErrIDPrefix], [ErrIDAlphabet], [ErrIDCheck] or
// [ErrIDNumber] and does not show the ID.
func (m *Manifest) CheckID(id string) error {
	s := m.IDScheme
	check := s.checkLength()
	shortest := len(s.Prefix) + s.Length + check
	longest := shortest
	if s.Kind == IDGiven {
		shortest += s.MinLength - s.Length
	}
	for i, c := range []rune(id) {
		if c >= utf8.RuneSelf { // before it is counted in bytes: full-width digits look right
			return fmt.Errorf("%w: character %d is not half-width", ErrIDAlphabet, i+1)
		}
	}
	if !strings.HasPrefix(id, s.Prefix) {
		return fmt.Errorf("%w, %q expected", ErrIDPrefix, s.Prefix)
	}
	if len(id) < shortest || len(id) > longest {
		if shortest == longest {
			return fmt.Errorf("%w: %d bytes, %d expected", ErrIDLength, len(id), longest)
		}
		return fmt.Errorf("%w: %d bytes, %d to %d expected", ErrIDLength, len(id), shortest, longest)
	}
	body := id[len(s.Prefix) : len(id)-check]
	for i := range len(body) {
		if !strings.Contains(alphabets[s.Alphabet], body[i:i+1]) {
			return fmt.Errorf("%w: character %d, alphabet %s", ErrIDAlphabet, len(s.Prefix)+i+1, s.Alphabet)
		}
	}
	whole, err := s.finish(body)
	if err != nil {
		return err
	}
	if whole != id {
		return fmt.Errorf("%w by %s", ErrIDCheck, s.Check)
	}
	if HoldsIndividualNumber(id) {
		return ErrIDNumber
	}
	return nil
}

func (s IDScheme) checkLength() int {
	if s.Check == CheckNone || s.Check == "" {
		return 0
	}
	return 1
}

// canBe12Digits reports whether IDs of this scheme can be 12 digits. Such an
// ID has the form of an Individual Number, and where it is digits that are
// drawn or counted, one in eleven would have to be refused at the counter.
func (s IDScheme) canBe12Digits() bool {
	alphabet := alphabets[s.Alphabet]
	if !strings.ContainsAny(alphabet, digitChars) {
		return false
	}
	mixed := strings.ContainsAny(alphabet, letterChars)
	before, bare := 0, true
	for i := len(s.Prefix) - 1; i >= 0; i-- {
		switch c := s.Prefix[i]; {
		case c == '-':
		case c < '0' || c > '9':
			bare = false
		case bare:
			before++
		}
	}
	// Behind a letter, 12 digits of an alphabet that has letters too are so
	// rare that RandomID draws again; a sequence comes to them for certain,
	// since its low numbers have zeros before them.
	if mixed && s.Kind == IDSequence && before+s.Length > 12 {
		return true
	}
	if mixed && !bare && s.Kind != IDSequence {
		return false
	}
	shortest := s.Length
	if s.Kind == IDGiven && s.MinLength > 0 {
		shortest = s.MinLength
	}
	for n := before + shortest; n <= before+s.Length; n++ {
		// A check character lengthens the run if it is a digit, and ends it
		// if it is a letter.
		if n == 11 && s.checkLength() == 1 || n == 12 && s.Check != CheckLuhn {
			return true
		}
	}
	return false
}
