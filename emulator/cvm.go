package emulator

import (
	"crypto/subtle"
	"fmt"

	"github.com/freearea/freearea/emulator/oncard"
)

// cvm is the card's global PIN (GPCS 8.2): what lasts of it.
type cvm struct {
	format      oncard.CVMFormat // 0 until there is a value
	value       []byte
	limit, left byte // tries; limit is 0 until it is set
	blocked     bool
}

func (v cvm) active() bool { return v.format != 0 && v.limit != 0 }

// maxCVM bounds a CVM's value, in bytes, and maxTries its limit.
const (
	maxCVM   = 32
	maxTries = 0x7F
)

// check holds a CVM of an image to what Verify takes for granted.
func (v cvm) check() error {
	_, ok := plainCVM(v.value, v.format)
	switch {
	case v.format == 0 && len(v.value) == 0, ok:
	default:
		return fmt.Errorf("global PIN of format %d", v.format)
	}
	if v.limit > maxTries || v.left > v.limit || v.blocked && !v.active() || !v.blocked && v.left == 0 && v.limit > 0 {
		return fmt.Errorf("global PIN with %d of %d tries", v.left, v.limit)
	}
	return nil
}

// cvmResult is what of the global PIN's state ends with the card session.
type cvmResult byte

const (
	notSubmitted cvmResult = iota
	invalidSubmission
	validated
)

// globalPIN is the card's global PIN as one application sees it.
type globalPIN struct{ *instance }

func (p globalPIN) Active() bool { return p.card.state.cvm.active() }
func (p globalPIN) Submitted() bool {
	return p.card.session.cvm != notSubmitted && !p.card.state.cvm.blocked
}
func (p globalPIN) Verified() bool { return p.card.session.cvm == validated }
func (p globalPIN) Blocked() bool  { return p.card.state.cvm.blocked }

func (p globalPIN) TriesRemaining() byte {
	if v := p.card.state.cvm; !v.blocked {
		return v.left
	}
	return 0
}

func (p globalPIN) Verify(value []byte, format oncard.CVMFormat) bool {
	c, v := p.card, p.card.state.cvm
	if !v.active() || v.blocked {
		return false
	}
	// The try is counted before anybody can learn how it ends.
	v.left--
	v.blocked = v.left == 0
	c.setCVM(v)
	c.session.cvm = invalidSubmission
	presented, same := plainCVM(value, format)
	stored, _ := plainCVM(v.value, v.format)
	same = same && (format == oncard.CVMHex) == (v.format == oncard.CVMHex)
	if subtle.ConstantTimeCompare(presented, stored) != 1 || !same {
		return false
	}
	v.left, v.blocked = v.limit, false
	c.setCVM(v)
	c.session.cvm = validated
	return true
}

// setCVM writes outside of any transaction.
func (c *Card) setCVM(v cvm) {
	c.step()
	c.dirty = true
	c.state.cvm = v
}

func (p globalPIN) Reset() bool {
	if s := p.card.session; s.cvm != notSubmitted && !p.card.state.cvm.blocked {
		s.cvm = notSubmitted
		return true
	}
	return false
}

func (p globalPIN) Update(value []byte, format oncard.CVMFormat) bool {
	if _, ok := plainCVM(value, format); !ok {
		return false
	}
	return p.manage(func(v *cvm) bool {
		v.value, v.format = append([]byte(nil), value...), format
		return true
	})
}

func (p globalPIN) SetTryLimit(limit byte) bool {
	return p.manage(func(v *cvm) bool {
		v.limit = limit
		return limit > 0 && limit <= maxTries
	})
}

func (p globalPIN) Block() bool {
	return p.manage(func(v *cvm) bool {
		v.blocked = true
		return v.active()
	})
}

func (p globalPIN) ResetAndUnblock() bool {
	return p.manage(func(v *cvm) bool { return v.active() })
}

// manage makes a change that needs CVM Management. The global PIN is ACTIVE
// then, unless the change itself blocks it, with all its tries. Where a
// transaction takes the change back, a try that was counted since stays
// counted.
func (p globalPIN) manage(change func(*cvm) bool) bool {
	c, before := p.card, p.card.state.cvm
	next := before
	next.blocked = false
	if !p.entry.privileges.has(privCVMManagement) || !change(&next) || c.tx.capacity(len(next.value), c.state.profile.CommitCapacity) != nil {
		return false
	}
	next.left = next.limit
	c.change(func() { c.state.cvm = next }, func() {
		now := c.state.cvm
		c.state.cvm = before
		if now.left < next.left && now.left < before.left {
			c.state.cvm.left, c.state.cvm.blocked = now.left, before.blocked || now.left == 0
		}
	})
	c.session.cvm = notSubmitted
	return true
}

// plainCVM is a value as it is compared: digits of BCD as ASCII. It is false
// where the value is not of its format.
func plainCVM(value []byte, format oncard.CVMFormat) ([]byte, bool) {
	if len(value) == 0 || len(value) > maxCVM {
		return nil, false
	}
	switch format {
	case oncard.CVMHex:
		return value, true
	case oncard.CVMASCII:
		for _, b := range value {
			if b < 0x20 || b > 0x7E {
				return nil, false
			}
		}
		return value, true
	case oncard.CVMBCD:
		var digits []byte
		for i, b := range value {
			high, low := b>>4, b&0x0F
			odd := low == 0x0F && i == len(value)-1
			if high > 9 || low > 9 && !odd {
				return nil, false
			}
			if digits = append(digits, '0'+high); !odd {
				digits = append(digits, '0'+low)
			}
		}
		return digits, true
	}
	return nil, false
}
