package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// patience is for how long a script waits for what a service does at once, on
// a machine that has other things to do.
const patience = 30 * time.Second

// freePort puts a loopback address on which nobody listens in the place of
// 127.0.0.1:0 in files, and into $LISTEN.
func freePort(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: freeport FILE…")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	address := listener.Addr().String()
	ts.Check(listener.Close())
	ts.Setenv("LISTEN", address)
	for _, name := range args {
		text, err := os.ReadFile(ts.MkAbs(name))
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(name), bytes.ReplaceAll(text, []byte("127.0.0.1:0"), []byte(address)), 0o600))
	}
}

// ask gets a page of the service on $LISTEN as soon as it listens, with header
// lines of the form "name: value", and prints it.
func ask(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: ask STATUS PATH [HEADER…]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+ts.Getenv("LISTEN")+args[1], nil)
	ts.Check(err)
	for _, line := range args[2:] {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Set(name, value)
		if name == "Host" {
			r.Host = value
		}
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(r)
	for err != nil && ctx.Err() == nil {
		answer, err = client.Do(r)
	}
	ts.Check(err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	ts.Check(err)
	_, err = ts.Stdout().Write(text)
	ts.Check(err)
	if answer.StatusCode != want {
		ts.Fatalf("status %d, %d expected: %s", answer.StatusCode, want, text)
	}
}

// hangUp tells the command in the background to read its configuration anew.
func hangUp(ts *testscript.TestScript, neg bool, args []string) {
	running := ts.BackgroundCmds()
	if neg || len(args) != 0 || len(running) != 1 {
		ts.Fatalf("usage: hangup, with one command in the background")
	}
	ts.Check(running[0].Process.Signal(syscall.SIGHUP))
}

// printed waits until commands of the script, those in the background too,
// have printed what matches.
func printed(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: printed REGEXP")
	}
	want, err := regexp.Compile("(?ms)" + args[0])
	ts.Check(err)
	var text []byte
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		text, err = os.ReadFile(ts.Getenv(envOutput))
		if err == nil && want.Match(text) {
			return
		}
	}
	ts.Fatalf("nothing printed matches %s: %v\n%s", args[0], err, text)
}
