package manifest

import (
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// HoldsIndividualNumber reports whether a text holds an Individual Number: a
// run of exactly 12 digits, the last of which is the check digit of the
// others. Digits of every script count, compatibility forms such as
// full-width ones too, and separators within the run do not end it: spaces,
// invisible characters, hyphens and dashes of every kind, full stops, middle
// dots, underscores and the long vowel mark that is often typed for a dash.
// A slash, a comma and a colon end it, since they stand between numbers.
//
// Of the random numbers of 12 digits, one in eleven is refused by this; of
// any other length, none.
func HoldsIndividualNumber(s string) bool {
	var run [12]int
	n := 0
	for _, r := range norm.NFKC.String(s) {
		if d, ok := digitValue(r); ok {
			if n < len(run) {
				run[n] = d
			}
			n++
			continue
		}
		if isSeparator(r) {
			continue
		}
		if n == len(run) && run[11] == checkDigit([11]int(run[:11])) {
			return true
		}
		n = 0
	}
	return n == len(run) && run[11] == checkDigit([11]int(run[:11]))
}

// checkDigit computes the check digit of an Individual Number from the 11
// digits before it, highest first: with P1 the lowest of them and Qn = n+1
// for n = 1..6 and n-5 for n = 7..11, r is the sum of Pn*Qn modulo 11; the
// check digit is 0 where r is 0 or 1, else 11-r.
func checkDigit(digits [11]int) int {
	sum := 0
	for n := 1; n <= 11; n++ {
		q := n + 1
		if n >= 7 {
			q = n - 5
		}
		sum += digits[11-n] * q
	}
	if r := sum % 11; r > 1 {
		return 11 - r
	}
	return 0
}

// digitValue returns the value of a decimal digit of any script. Unicode
// keeps the ten digits of a script in order and begins them with its zero.
func digitValue(r rune) (int, bool) {
	if r >= '0' && r <= '9' {
		return int(r - '0'), true
	}
	if r < 0x80 || !unicode.Is(unicode.Nd, r) {
		return 0, false
	}
	// A range of the table may hold several scripts' digits back to back,
	// each a multiple of ten long.
	for _, t := range unicode.Nd.R16 {
		if r >= rune(t.Lo) && r <= rune(t.Hi) {
			return int(r-rune(t.Lo)) % 10, true
		}
	}
	for _, t := range unicode.Nd.R32 {
		if r >= rune(t.Lo) && r <= rune(t.Hi) {
			return int(r-rune(t.Lo)) % 10, true
		}
	}
	return 0, false
}

func isSeparator(r rune) bool {
	switch r {
	case '.', '_', '·', '・', 'ー', '−', '‧', '∙', '•':
		return true
	}
	return unicode.IsSpace(r) || unicode.In(r, unicode.Pd, unicode.Cf, unicode.Zs)
}
