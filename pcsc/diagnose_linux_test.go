package pcsc_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/freearea/freearea/internal/pcscd"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/pcsc"
)

func wantFindings(t *testing.T, s *pcsc.Source, want ...pcsc.Finding) {
	t.Helper()
	got := s.Diagnose(bounded(t))
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(pcsc.Finding{}, "Err")); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
	for _, f := range got {
		if f.Slot == "" && f.Code != pcsc.FindingNoSlot && f.Err == nil {
			t.Errorf("%s: without the error", f.Code)
		}
	}
}

// reserve makes the place where the daemon's socket would be.
func reserve(t *testing.T) (socket string, s *pcsc.Source) {
	t.Helper()
	if !pcsc.Built {
		pcscd.Unavailable(t, "%v", pcsc.ErrNotBuilt)
	}
	noLeaks(t)
	return pcscd.Reserve(t), pcsc.New(pcsc.Options{})
}

func TestDiagnoseCards(t *testing.T) {
	d, s := start(t, 4)
	ready, mute, taken := &naiveCard{atr: atrOne}, &naiveCard{atr: atrTooLong}, &naiveCard{atr: atrTwo}
	ready.insert(t, d.Readers[1])
	mute.insert(t, d.Readers[2])
	taken.insert(t, d.Readers[3])
	settle(t, s, d.Readers[1], d.Readers[2], d.Readers[3])
	conn := open(t, s, d.Readers[3].Name, iso7816.Exclusive)
	wantFindings(t, s,
		pcsc.Finding{Code: pcsc.FindingNoCard, Slot: d.Readers[0].Name},
		pcsc.Finding{Code: pcsc.FindingReady, Slot: d.Readers[1].Name, Details: map[string]string{"atr": fmt.Sprintf("%X", atrOne)}},
		pcsc.Finding{Code: pcsc.FindingMute, Slot: d.Readers[2].Name},
		pcsc.Finding{Code: pcsc.FindingInUse, Slot: d.Readers[3].Name},
	)
	conn.Close()
	if last := s.Diagnose(bounded(t))[3]; !last.OK() {
		t.Errorf("finding %+v after the card was given back", last)
	}
}

func TestDiagnoseNoSlot(t *testing.T) {
	_, s := start(t, 0)
	wantFindings(t, s, pcsc.Finding{Code: pcsc.FindingNoSlot})
	list, err := s.Slots(bounded(t))
	if err != nil || len(list) != 0 {
		t.Errorf("slots %v, error %v", list, err)
	}
}

func TestDiagnoseNotRunning(t *testing.T) {
	socket, s := reserve(t)
	wantFindings(t, s, pcsc.Finding{Code: pcsc.FindingNotRunning, Details: map[string]string{"socket": socket}})
	_, err := s.Slots(bounded(t))
	wantError(t, err, pcsc.ErrNoService, pcsc.CodeNoService)
}

func TestDiagnoseStaleSocket(t *testing.T) {
	d, s := start(t, 0)
	d.Kill()
	wantFindings(t, s, pcsc.Finding{Code: pcsc.FindingNotRunning,
		Details: map[string]string{"socket": d.Socket, "stale": "true"}})
}

// listenAs makes a service that does with each client what serve does.
func listenAs(t *testing.T, socket string, serve func(net.Conn)) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serve(conn)
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
}

// A client that polkit does not allow is dropped, and nothing that it has sent
// is read: here all but what shows that it has sent (a header of 8 bytes, and
// some of the 12 bytes of its version).
func TestDiagnoseRefusedByService(t *testing.T) {
	socket, s := reserve(t)
	listenAs(t, socket, func(conn net.Conn) {
		io.ReadFull(conn, make([]byte, 8+1))
		conn.Close()
	})
	wantFindings(t, s, pcsc.Finding{Code: pcsc.FindingRefused,
		Details: map[string]string{"socket": socket, "by": "service", "uid": fmt.Sprint(os.Getuid())}})
	_, err := s.Slots(bounded(t))
	wantError(t, err, pcsc.ErrRefused, pcsc.CodeSecurityViolation)
}

// A service that takes clients and never answers blocks nobody for longer than
// he likes.
func TestDiagnoseSilentService(t *testing.T) {
	socket, s := reserve(t)
	var conns []net.Conn
	t.Cleanup(func() { // after the listener's end: now nobody appends
		for _, conn := range conns {
			conn.Close()
		}
	})
	listenAs(t, socket, func(conn net.Conn) { conns = append(conns, conn) })
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	got := s.Diagnose(ctx)
	want := []pcsc.Finding{{Code: pcsc.FindingServiceFailed, Details: map[string]string{"socket": socket}}}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(pcsc.Finding{}, "Err")); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
}

// asNobody, when set, makes the test program print its findings as JSON.
const asNobody = "FREEAREA_TEST_DIAGNOSE"

// The socket's access rights keep a user out.
func TestDiagnoseRefusedBySocket(t *testing.T) {
	if os.Getenv(asNobody) != "" {
		findings := pcsc.New(pcsc.Options{}).Diagnose(bounded(t))
		for i := range findings {
			findings[i].Err = nil
		}
		out, err := json.Marshal(findings)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("findings %s\n", out)
		return
	}
	socket, _ := reserve(t)
	cmd := exec.Command(os.Args[0], "-test.run", "^TestDiagnoseRefusedBySocket$")
	uid := os.Getuid()
	if uid == 0 {
		// Access rights don't bind root: become somebody else, with a copy of
		// the program where he can read it.
		uid = 65534
		dir, err := os.MkdirTemp("", "pcsc-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		program := filepath.Join(dir, "program")
		b, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(program, b, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd = exec.Command(program, cmd.Args[1:]...)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	listenAs(t, socket, func(conn net.Conn) { conn.Close() })
	if err := os.Chmod(socket, 0); err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), asNobody+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var got []pcsc.Finding
	_, found, _ := strings.Cut(string(out), "findings ")
	if err := json.NewDecoder(strings.NewReader(found)).Decode(&got); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := []pcsc.Finding{{Code: pcsc.FindingRefused,
		Details: map[string]string{"socket": socket, "by": "socket", "uid": fmt.Sprint(uid)}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
}
