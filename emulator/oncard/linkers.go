package oncard

import (
	"errors"

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
