package capfile

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/freearea/freearea/iso7816"
)

// ErrRelease reports a release of Java Card that this package does not know.
var ErrRelease = errors.New("unknown release of Java Card")

// Packages of the API whose versions go with releases.
var (
	apiLang      = iso7816.MustAID("A0000000620001")
	apiFramework = iso7816.MustAID("A0000000620101")
	apiSecurity  = iso7816.MustAID("A0000000620102")
	apiCrypto    = iso7816.MustAID("A0000000620201")
	apiAPDU      = iso7816.MustAID("A0000000620209")
)

// releases are the minor versions of javacard.framework, javacard.security,
// javacardx.crypto and javacardx.apdu (-1: not there), the major one being 1,
// as their export files say in Oracle's kits.
var releases = []struct {
	name                              string
	framework, security, crypto, apdu int
}{
	{"2.1.1", 0, 1, 1, -1},
	{"2.2.1", 2, 2, 2, -1},
	{"2.2.2", 3, 3, 3, 0},
	{"3.0.1", 4, 4, 4, 0},
	{"3.0.4", 5, 5, 5, 0},
	{"3.0.5", 6, 6, 6, 0},
	{"3.1", 8, 7, 7, 0},
}

// Releases returns the releases of Java Card that [File.Unmet] knows.
func Releases() []string {
	var names []string
	for _, r := range releases {
		names = append(names, r.name)
	}
	return names
}

// Unmet returns the imports that no card of a release of Java Card has by
// itself, because its packages of the API are older. The packages javacardx.crypto
// and javacardx.apdu are optional: a card may lack them all the same. Of other
// packages, such as org.globalplatform, a release says nothing. The error wraps
// [ErrRelease].
func (f *File) Unmet(release string) ([]Package, error) {
	for _, r := range releases {
		if r.name != release {
			continue
		}
		minor := map[iso7816.AID]int{apiLang: 0, apiFramework: r.framework, apiSecurity: r.security, apiCrypto: r.crypto, apiAPDU: r.apdu}
		return slices.DeleteFunc(slices.Clone(f.Imports), func(p Package) bool {
			there, ok := minor[p.AID]
			return !ok || p.Major == 1 && int(p.Minor) <= there
		}), nil
	}
	return nil, fmt.Errorf("%w: %q; there are %s", ErrRelease, release, strings.Join(Releases(), ", "))
}
