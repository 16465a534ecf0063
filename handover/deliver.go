package handover

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// Name is the file's name: the service, the number of its last event, and the
// beginning of the batch's number.
func (b *Batch) Name() string {
	return fmt.Sprintf("%s-%012d-%.8s.%s", b.Service, b.Through, b.Batch, b.Format)
}

// CheckFolder refuses what is no directory, before a batch is decided for it.
func CheckFolder(dir string) error {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "write into", Path: dir, Err: errors.New("not a folder")}
	}
	return err
}

// ToFile writes the batch into a directory, durably, under its [Batch.Name]. A
// file of that name with the same content is the batch, from a run that was
// interrupted; with another content it is an error that wraps fs.ErrExist.
func ToFile(dir string, b *Batch) error {
	path := filepath.Join(dir, b.Name())
	f, err := os.CreateTemp(dir, ".handover-*") // mode 0600
	if about := new(fs.PathError); errors.As(err, &about) {
		return &fs.PathError{Op: "write into", Path: dir, Err: about.Err} // nobody knows the file by name
	} else if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b.Body)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Link(f.Name(), path); errors.Is(err, fs.ErrExist) {
		there, reading := os.ReadFile(path)
		if reading != nil {
			return reading
		}
		if !bytes.Equal(there, b.Body) {
			return fmt.Errorf("%s: %w, with another content", path, fs.ErrExist)
		}
		err = nil
	}
	if err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && filepath.Separator == '/' {
		return err
	}
	return nil
}

// Headers of a webhook's request. The signature is Ed25519, in base64, over
// [SignedMessage]; a receiver answers 2xx also to a number that it has taken
// before.
const (
	HeaderBatch     = "Idempotency-Key"
	HeaderDigest    = "Freearea-Sha256"
	HeaderKey       = "Freearea-Key"
	HeaderSignature = "Freearea-Signature"
)

// SignedMessage is what a webhook's signature is over: the line "freearea
// handover 1", the batch's number, the service and the body's SHA-256, each
// on a line of its own.
func (b *Batch) SignedMessage() []byte {
	return fmt.Appendf(nil, "freearea handover 1\n%s\n%s\n%s\n", b.Batch, b.Service, b.Digest)
}

// Webhook is a receiver.
type Webhook struct {
	URL *url.URL
	// Sign signs a message with the counter's key; Key says which one it is.
	Sign func(ctx context.Context, message []byte) ([]byte, error)
	Key  string
	// Client sends; nil is one of its own, which follows no redirections.
	Client *http.Client
	// Tries is how often it is tried at most; 0 is 4.
	Tries int
	// Wait waits between two tries; nil waits 1, 2, 4 … seconds.
	Wait func(ctx context.Context, failed int) error
}

// Check refuses an address to which a batch would travel in the clear: anything
// but https, and http to this machine itself.
func (w Webhook) Check() error {
	host := w.URL.Hostname()
	ip := net.ParseIP(host)
	switch {
	case host == "":
	case w.URL.Scheme == "https":
		return nil
	case w.URL.Scheme == "http" && (host == "localhost" || ip != nil && ip.IsLoopback()):
		return nil
	}
	return fmt.Errorf("%w: %s", ErrInsecure, w.Where())
}

// Where is the address without what may be secret in it.
func (w Webhook) Where() string {
	u := url.URL{Scheme: w.URL.Scheme, Host: w.URL.Host, Path: w.URL.Path}
	return u.String()
}

// Send sends the batch, and again while the receiver can't be reached or has
// trouble of its own (408, 429, 5xx). The error wraps [ErrRefused] where it
// answered and did not take it, else [ErrCertificate] or [ErrUnreachable].
func (w Webhook) Send(ctx context.Context, b *Batch) error {
	if err := w.Check(); err != nil {
		return err
	}
	signature, err := w.Sign(ctx, b.SignedMessage())
	if err != nil {
		return err
	}
	client := w.Client
	if client == nil {
		client = &http.Client{Timeout: timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	tries, wait := w.Tries, w.Wait
	if tries == 0 {
		tries = 4
	}
	if wait == nil {
		wait = backoff
	}
	for failed := 0; ; {
		final, err := w.try(ctx, client, b, signature)
		if err == nil || final || ctx.Err() != nil {
			return err
		}
		if failed++; failed >= tries {
			return fmt.Errorf("after %d tries: %w", failed, err)
		}
		if waiting := wait(ctx, failed); waiting != nil {
			return errors.Join(err, waiting)
		}
	}
}

func backoff(ctx context.Context, failed int) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Second << (failed - 1)):
		return nil
	}
}

// try sends once; final tells that another try would not help.
func (w Webhook) try(ctx context.Context, client *http.Client, b *Batch, signature []byte) (final bool, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL.String(), bytes.NewReader(b.Body))
	if err != nil {
		return true, err
	}
	r.Header.Set("Content-Type", map[Format]string{CSV: "text/csv; charset=utf-8", JSONLines: "application/jsonl"}[Format(b.Format)])
	r.Header.Set(HeaderBatch, b.Batch)
	r.Header.Set(HeaderDigest, b.Digest)
	r.Header.Set(HeaderKey, w.Key)
	r.Header.Set(HeaderSignature, base64.StdEncoding.EncodeToString(signature))
	answer, err := client.Do(r)
	if err != nil {
		var about *url.Error
		if errors.As(err, &about) {
			err = about.Err // without the address's query
		}
		switch {
		case errors.As(err, new(*tls.CertificateVerificationError)):
			return true, fmt.Errorf("%w: %s: %w", ErrCertificate, w.Where(), err)
		case ctx.Err() != nil:
			return true, fmt.Errorf("%s: %w", w.Where(), err)
		}
		return false, fmt.Errorf("%w: %s: %w", ErrUnreachable, w.Where(), err)
	}
	defer answer.Body.Close()
	_, _ = io.CopyN(io.Discard, answer.Body, 64<<10) // so that the connection can be used again
	code := answer.StatusCode
	if code >= 200 && code < 300 {
		return true, nil
	}
	err = fmt.Errorf("%w: %s answered %s", ErrRefused, w.Where(), answer.Status)
	return code < 500 && code != http.StatusRequestTimeout && code != http.StatusTooManyRequests, err
}
