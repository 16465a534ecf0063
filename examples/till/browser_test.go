//go:build linux

package till_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// requireVariable makes tests fail, where they would be skipped, without Chromium.
const requireVariable = "FREEAREA_REQUIRE_CHROMIUM"

// patience is for how long a test waits for all that it asks of a browser.
const patience = 90 * time.Second

// browser is a Chromium with one page, spoken to over pipes in the DevTools
// protocol (https://chromedevtools.github.io/devtools-protocol/): messages are
// JSON and end with a zero byte.
type browser struct {
	t       *testing.T
	in      *os.File
	out     *bufio.Reader
	session string
	calls   int
}

// startBrowser starts a Chromium that takes every name of the domain example
// for this machine. It ends with the test.
func startBrowser(t *testing.T) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv(requireVariable) == "1" {
			t.Fatalf("%s=1, but: %v", requireVariable, err)
		}
		t.Skipf("no Chromium (Debian: package chromium, or `make setup`): %v", err)
	}
	commandsOut, commands := pipe(t)
	answers, answersIn := pipe(t)
	cmd := exec.Command(path,
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--no-proxy-server", "--disable-dev-shm-usage",
		"--host-resolver-rules=MAP *.example 127.0.0.1", "--user-data-dir="+t.TempDir(),
		"--remote-debugging-pipe", "about:blank")
	cmd.ExtraFiles = []*os.File{commandsOut, answersIn} // descriptors 3 and 4, as the option has them
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // with the processes of its pages
		_ = cmd.Wait()                                      // killed
	})
	for _, f := range []*os.File{commandsOut, answersIn} {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []*os.File{commands, answers} {
		if err := f.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
	}
	b := &browser{t: t, in: commands, out: bufio.NewReader(answers)}
	target := call[struct{ TargetID string }](b, "Target.createTarget", map[string]any{"url": "about:blank"})
	b.session = call[struct{ SessionID string }](b, "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}).SessionID
	return b
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// call asks the browser, and waits for its answer.
func call[T any](b *browser, method string, parameters map[string]any) (result T) {
	b.t.Helper()
	b.calls++
	message := map[string]any{"id": b.calls, "method": method, "params": parameters}
	if b.session != "" {
		message["sessionId"] = b.session
	}
	text, err := json.Marshal(message)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.in.Write(append(text, 0)); err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
	for {
		text, err := b.out.ReadBytes(0)
		if err != nil {
			b.t.Fatalf("%s: %v", method, err)
		}
		var answer struct {
			ID     int
			Result json.RawMessage
			Error  json.RawMessage
		}
		if err := json.Unmarshal(text[:len(text)-1], &answer); err != nil {
			b.t.Fatal(err)
		}
		if answer.ID != b.calls { // an event
			continue
		}
		if answer.Error != nil {
			b.t.Fatalf("%s: %s", method, answer.Error)
		}
		if err := json.Unmarshal(answer.Result, &result); err != nil {
			b.t.Fatal(err)
		}
		return result
	}
}

// visit opens a page and waits until it is there.
func (b *browser) visit(url string) {
	b.t.Helper()
	if got := call[struct{ ErrorText string }](b, "Page.navigate", map[string]any{"url": url}); got.ErrorText != "" {
		b.t.Fatalf("%s: %s", url, got.ErrorText)
	}
	b.eval(`new Promise(done => document.readyState === "complete" ? done("") : addEventListener("load", () => done("")))`)
}

// eval runs a script in the page and gives the text that it comes to, or that
// it promises.
func (b *browser) eval(script string, args ...any) string {
	b.t.Helper()
	script = fmt.Sprintf(script, args...)
	got := call[struct {
		Result           struct{ Value any }
		ExceptionDetails json.RawMessage
	}](b, "Runtime.evaluate", map[string]any{"expression": script, "awaitPromise": true, "returnByValue": true})
	text, ok := got.Result.Value.(string)
	if got.ExceptionDetails != nil || !ok {
		b.t.Fatalf("%s: %v, %s", script, got.Result.Value, got.ExceptionDetails)
	}
	return text
}
