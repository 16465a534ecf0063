package emulator

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/freearea/freearea/iso7816"
)

// Where says at which point of a command the power goes.
type Where int

const (
	// BeforeCommand: the card never sees the command.
	BeforeCommand Where = iota + 1
	// AfterCommand: the card has carried the command out, the answer is lost.
	AfterCommand
	// BeforeWrite: in the middle, just before one of the command's writes.
	BeforeWrite
)

// Cut is one loss of power. The zero Cut is none.
type Cut struct {
	Command int // which command from now on: 1 is the next
	Where   Where
	Write   int // for BeforeWrite: which write of that command, from 1
}

// String writes the cut as ParseCut reads it.
func (c Cut) String() string {
	switch c.Where {
	case BeforeCommand:
		return fmt.Sprintf("before:%d", c.Command)
	case AfterCommand:
		return fmt.Sprintf("after:%d", c.Command)
	case BeforeWrite:
		return fmt.Sprintf("write:%d:%d", c.Command, c.Write)
	}
	return "none"
}

// ParseCut reads "before:N", "after:N" and "write:N:K": before command N,
// after it, before its K-th write. Counting begins at 1.
func ParseCut(s string) (Cut, error) {
	parts := strings.Split(s, ":")
	where, ok := map[string]Where{"before": BeforeCommand, "after": AfterCommand, "write": BeforeWrite}[parts[0]]
	want := 2
	if where == BeforeWrite {
		want = 3
	}
	if !ok || len(parts) != want {
		return Cut{}, fmt.Errorf("cut %q: want before:N, after:N or write:N:K", s)
	}
	var n [2]int
	for i, p := range parts[1:] {
		v, err := strconv.Atoi(p)
		if err != nil || v < 1 {
			return Cut{}, fmt.Errorf("cut %q: %q is no count from 1", s, p)
		}
		n[i] = v
	}
	return Cut{Command: n[0], Where: where, Write: n[1]}, nil
}

// SetCut arranges one loss of power and replaces one arranged before; the zero
// Cut takes it back. When it comes, Transmit fails with an error that wraps
// [iso7816.ErrCardRemoved], and goes on failing until [Card.PowerOn]. A cut
// before a write that its command doesn't make never comes.
func (c *Card) SetCut(cut Cut) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut, c.cutCommand = cut, 0
}

// CountWrites begins to count the persistent writes of every command; a sweep
// of cuts learns from it which ones there are.
func (c *Card) CountWrites() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counting, c.counts = true, nil
}

// Writes returns the number of persistent writes of each command since
// CountWrites.
func (c *Card) Writes() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]int(nil), c.counts...)
}

// powerLoss is what unwinds a command when its power goes. It crosses
// application code: an application that recovers from it meets it again at its
// next write, and the card sees its own flag in any case.
type powerLoss struct{}

// cutAt reports whether the arranged cut is due at this point of the running
// command, and uses it up.
func (c *Card) cutAt(where Where, write int) bool {
	due := c.cut.Where == where && c.cut.Command == c.cutCommand && (where != BeforeWrite || c.cut.Write == write)
	if due {
		c.cut = Cut{}
	}
	return due
}

// step comes before every persistent write: it counts it, and takes the power
// away where the cut says so.
func (c *Card) step() {
	if c.lost {
		panic(powerLoss{})
	}
	c.writes++
	if c.cutAt(BeforeWrite, c.writes) {
		c.lost = true
		panic(powerLoss{})
	}
}

var errCut = fmt.Errorf("%w: its power was cut", iso7816.ErrCardRemoved)
