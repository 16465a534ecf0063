package staff

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unicode/utf8"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/freearea/freearea/internal/durable"
)

// Errors of operators' key files.
var (
	ErrPassphrase  = errors.New("wrong passphrase")
	ErrMalformed   = errors.New("not an operator's key file")
	ErrPermissions = errors.New("operator's key file can be read or written by others than its owner")
)

const (
	// MaxID is the longest id of an operator, in bytes.
	MaxID = 64
	// maxFile is far more than a key file has, in bytes.
	maxFile = 16 << 10
	// defaultWork is the cost of trying a passphrase: 2^16 blocks, 64 MiB of
	// memory, like the keystore's.
	defaultWork = 16
)

// CheckID says what keeps a string from being an operator's id: 1 to 64 bytes
// of UTF-8 without white space and control characters.
func CheckID(id string) error {
	if id == "" || len(id) > MaxID || !utf8.ValidString(id) || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r == 0x7F }) {
		return fmt.Errorf("operator id %q: 1 to %d bytes without white space", id, MaxID)
	}
	return nil
}

// Key is an operator's signing key. However it is printed, it shows the
// operator's id and nothing else.
type Key struct {
	operator string
	private  ed25519.PrivateKey
}

// NewKey draws a key for an operator from random; nil is crypto/rand.
func NewKey(operator string, random io.Reader) (*Key, error) {
	if err := CheckID(operator); err != nil {
		return nil, err
	}
	if random == nil {
		random = rand.Reader
	}
	seed := make([]byte, ed25519.SeedSize)
	defer clear(seed)
	if _, err := io.ReadFull(random, seed); err != nil {
		return nil, err
	}
	return &Key{operator, ed25519.NewKeyFromSeed(seed)}, nil
}

// Operator returns whose key it is.
func (k *Key) Operator() string { return k.operator }

// Public returns the public half.
func (k *Key) Public() ed25519.PublicKey {
	return bytes.Clone(k.private.Public().(ed25519.PublicKey))
}

// Sign signs with Ed25519.
func (k *Key) Sign(message []byte) ([]byte, error) {
	if len(k.private) == 0 {
		return nil, errors.New("the operator's key is erased")
	}
	return ed25519.Sign(k.private, message), nil
}

// Erase overwrites the key.
func (k *Key) Erase() {
	clear(k.private)
	k.private = nil
}

// Format keeps every verb from printing the key.
func (k *Key) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "operator's key of %s", k.operator) }

// LogValue keeps structured logs from printing the key.
func (k *Key) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(k)) }

// content is what stands in a key file, encrypted with age under a
// passphrase.
type content struct {
	V        int    `json:"v"`
	Operator string `json:"operator"`
	Seed     []byte `json:"seed"`
}

// FileOptions of a new key file.
type FileOptions struct {
	// Work is the logarithm of the cost of trying a passphrase (scrypt's N); 0
	// is 16, which takes 64 MiB of memory.
	Work int
}

// Write writes the key to a new file of mode 0600, encrypted under a
// passphrase. It does not overwrite: the error then wraps fs.ErrExist.
func (k *Key) Write(path string, passphrase []byte, o FileOptions) error {
	if o.Work == 0 {
		o.Work = defaultWork
	}
	recipient, err := age.NewScryptRecipient(string(passphrase))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	recipient.SetWorkFactor(o.Work)
	seed := k.private.Seed()
	defer clear(seed)
	plain, err := json.Marshal(content{1, k.operator, seed})
	if err != nil {
		return err
	}
	defer clear(plain)
	var b bytes.Buffer
	if err := seal(&b, recipient, plain); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b.Bytes())
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return durable.SyncDirectory(filepath.Dir(path))
}

func seal(to io.Writer, recipient age.Recipient, plain []byte) error {
	text := armor.NewWriter(to)
	w, err := age.Encrypt(text, recipient)
	if err != nil {
		return err
	}
	if _, err := w.Write(plain); err != nil {
		return err
	}
	return errors.Join(w.Close(), text.Close())
}

// Open reads a key file. The error wraps [ErrPassphrase] or [ErrMalformed]
// where the content is at fault, [ErrPermissions] where others than its owner can
// read or write it, and names the file. It never repeats what stands in it: that
// may be another secret.
func Open(path string, passphrase []byte) (*Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: %w: no regular file", path, ErrMalformed)
	case runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s: %w: mode %04o, 0600 expected", path, ErrPermissions, info.Mode().Perm())
	}
	k, err := read(io.LimitReader(f, maxFile), passphrase)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

func read(from io.Reader, passphrase []byte) (*Key, error) {
	identity, err := age.NewScryptIdentity(string(passphrase))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPassphrase, err)
	}
	opened, err := age.Decrypt(armor.NewReader(from), identity)
	if errors.As(err, new(*age.NoIdentityMatchError)) {
		return nil, ErrPassphrase
	}
	if err != nil {
		return nil, ErrMalformed
	}
	plain, err := io.ReadAll(opened)
	defer clear(plain)
	if err != nil {
		return nil, ErrMalformed
	}
	var c content
	dec := json.NewDecoder(bytes.NewReader(plain))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil || c.V != 1 || len(c.Seed) != ed25519.SeedSize || CheckID(c.Operator) != nil {
		return nil, ErrMalformed
	}
	defer clear(c.Seed)
	return &Key{c.Operator, ed25519.NewKeyFromSeed(c.Seed)}, nil
}
