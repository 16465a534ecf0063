package oncard

import (
	"errors"
	"fmt"

	"github.com/freearea/freearea/iso7816"
)

// Linkers are several linkers as one: a load file belongs to the first that
// finds modules in it or refuses it. Those of them that are a [RuntimeLinker]
// share the memory of the runtime, so there should be one at most.
type Linkers []Linker

var _ RuntimeLinker = Linkers(nil)

// Link implements [Linker].
func (l Linkers) Link(pkg iso7816.AID, loadFile []byte, sha256 [32]byte) (map[iso7816.AID]Module, error) {
	for _, x := range l {
		if modules, err := x.Link(pkg, loadFile, sha256); err != nil || modules != nil {
			return modules, err
		}
	}
	return nil, nil
}

// PowerOn implements [RuntimeLinker].
func (l Linkers) PowerOn(sys System) (Runtime, error) {
	out := make(running, len(l))
	for i, x := range l {
		out[i] = x
		if r, ok := x.(RuntimeLinker); ok {
			var err error
			if out[i], err = r.PowerOn(sys); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// ErrForgedLoadFile reports a load file that has the AID of a known package
// and is not that package's.
var ErrForgedLoadFile = errors.New("load file is not the one whose AID it has")

// Known are packages whose load files are known, by AID: whether one with this
// SHA-256 is the package's. As the first of several [Linkers] it refuses, with
// [ErrForgedLoadFile], every other load file under those AIDs, and leaves the
// rest to those that follow.
type Known map[iso7816.AID]func(sha256 [32]byte) bool

var _ Linker = Known(nil)

// Link implements [Linker].
func (k Known) Link(pkg iso7816.AID, _ []byte, sha256 [32]byte) (map[iso7816.AID]Module, error) {
	if genuine, ok := k[pkg]; ok && !genuine(sha256) {
		return nil, fmt.Errorf("%w: %v has SHA-256 %X", ErrForgedLoadFile, pkg, sha256)
	}
	return nil, nil
}

// running are linkers with their runtimes in the place of those that have one.
type running []Linker

func (r running) Link(pkg iso7816.AID, loadFile []byte, sha256 [32]byte) (map[iso7816.AID]Module, error) {
	return Linkers(r).Link(pkg, loadFile, sha256)
}

func (r running) Unlink(pkg iso7816.AID) error {
	var errs []error
	for _, x := range r {
		if x, ok := x.(Runtime); ok {
			errs = append(errs, x.Unlink(pkg))
		}
	}
	return errors.Join(errs...)
}
