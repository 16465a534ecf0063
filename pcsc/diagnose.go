package pcsc

import (
	"context"
	"encoding/hex"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

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
	// socket, by ("socket" or "service": polkit is the service's), uid.
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

// diagnoseLimit bounds how long the service may take to answer.
const diagnoseLimit = 5 * time.Second

// Diagnose looks at the whole way from the program to the card: the service,
// the slots (sorted by name), the card in each. It stops at the first thing
// without which nothing further can be found. It sends no command to a card,
// opens none, and disturbs no other program. A service that has not answered
// after 5 seconds, or when the context ends, is a finding too (service-failed).
func (s *Source) Diagnose(ctx context.Context) []Finding {
	ctx, cancel := context.WithTimeout(ctx, diagnoseLimit)
	defer cancel()
	admitted := false
	states, err := run(ctx, "diagnose", "", func() ([]slotState, error) {
		sess, err := s.establish()
		if err != nil {
			return nil, err
		}
		defer sess.release()
		states, err := s.snapshot(sess)
		if err != nil {
			return nil, &admittedError{err}
		}
		return states, nil
	}, nil)
	var late *admittedError
	if errors.As(err, &late) {
		admitted, err = true, late.error
	}
	switch {
	case errors.Is(err, ErrNotBuilt):
		return []Finding{{Code: FindingNotBuilt, Err: err}}
	case s.idle(err):
		return []Finding{{Code: FindingNoSlot, Err: err}}
	case err != nil && admitted, err != nil && s.platform.socket == "":
		return []Finding{s.withoutSocket(err)}
	case err != nil:
		return []Finding{s.service(err)}
	case len(states) == 0:
		return []Finding{{Code: FindingNoSlot}}
	}
	slices.SortFunc(states, func(a, b slotState) int { return strings.Compare(a.name, b.name) })
	var out []Finding
	for _, st := range states {
		out = append(out, finding(st))
	}
	return out
}

// admittedError is a failure after the service has let us in.
type admittedError struct{ error }

func (e *admittedError) Unwrap() error { return e.error }

func finding(st slotState) Finding {
	f := Finding{Slot: st.name}
	switch {
	case st.has(stateUnavailable | stateUnknown):
		f.Code = FindingSlotFailed
	case !st.has(statePresent):
		f.Code = FindingNoCard
	case st.has(stateMute):
		f.Code = FindingMute
	case st.has(stateExclusive):
		f.Code = FindingInUse
	default:
		f.Code = FindingReady
		f.Details = map[string]string{"atr": strings.ToUpper(hex.EncodeToString(st.atr))}
	}
	return f
}

func (s *Source) withoutSocket(err error) Finding {
	switch {
	case errors.Is(err, ErrRefused):
		return Finding{Code: FindingRefused, Err: err, Details: map[string]string{"by": "service", "uid": strconv.Itoa(os.Getuid())}}
	case errors.Is(err, ErrNoService):
		return Finding{Code: FindingNotRunning, Err: err}
	}
	return Finding{Code: FindingServiceFailed, Err: err}
}

// service tells why pcscd let nobody in, by looking at its socket as the
// library does: the library has one code for all of it.
func (s *Source) service(err error) Finding {
	socket := s.platform.socket
	if name := os.Getenv("PCSCLITE_CSOCK_NAME"); name != "" {
		socket = name
	}
	f := Finding{Err: err, Details: map[string]string{"socket": socket}}
	conn, dialErr := net.DialTimeout("unix", socket, diagnoseLimit)
	if dialErr == nil {
		conn.Close()
	}
	switch {
	case dialErr == nil && errors.Is(err, ErrRefused):
		f.Code = FindingRefused
		f.Details["by"], f.Details["uid"] = "service", strconv.Itoa(os.Getuid())
	case dialErr == nil:
		f.Code = FindingServiceFailed
	case errors.Is(dialErr, fs.ErrPermission):
		f.Code = FindingRefused
		f.Details["by"], f.Details["uid"] = "socket", strconv.Itoa(os.Getuid())
	case errors.Is(dialErr, syscall.ECONNREFUSED):
		f.Code = FindingNotRunning
		f.Details["stale"] = "true"
	case errors.Is(dialErr, fs.ErrNotExist) && !s.installed():
		f.Code = FindingNotInstalled
	default:
		f.Code = FindingNotRunning
	}
	return f
}

// daemonPaths are where pcscd is looked for; sbin is on few people's path.
var daemonPaths = []string{"pcscd", "/usr/sbin/pcscd", "/usr/local/sbin/pcscd", "/sbin/pcscd"}

// pcscdInstalled reports whether the service's program is on this machine.
func pcscdInstalled() bool {
	return slices.ContainsFunc(daemonPaths, func(path string) bool {
		_, err := exec.LookPath(path)
		return err == nil
	})
}
