package file

import (
	"bytes"
	"cmp"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/freearea/freearea/keys"
)

const (
	formatName = "keystore"
	// Version 2 is version 1 with keys for tokens and receipts. New keystores
	// are of version 2; an older one becomes one with its next passphrase.
	formatVersion = 2
	plainVersion  = 1

	maxFile       = 4 << 20
	maxEntries    = 4096
	maxGeneration = 1 << 53 // what every reader of JSON holds exactly

	maxTime    = 10
	maxMemory  = 256 << 10 // KiB
	maxThreads = 16

	saltSize    = 16
	checkSize   = 16
	fileKeySize = chacha20poly1305.KeySize

	adHeader = "freearea keystore 1 header\n"
	adEntry  = "freearea keystore 1 entry\n"
)

// header is what the wrapped file key is bound to.
type header struct {
	Format  string `json:"freearea"`
	Version int    `json:"version"`
	KDF     string `json:"kdf"`
	Time    uint32 `json:"time"`
	Memory  uint32 `json:"memory_kib"`
	Threads uint8  `json:"threads"`
	Salt    []byte `json:"salt"`
	Check   []byte `json:"check"`
}

type headerLine struct {
	header
	Nonce []byte `json:"nonce"`
	Key   []byte `json:"key"`
}

// metadata is what a sealed secret is bound to.
type metadata struct {
	Name        string    `json:"name"`
	Kind        keys.Kind `json:"kind"`
	Version     byte      `json:"version"`
	Algorithm   string    `json:"algorithm"`
	Check       string    `json:"check_value"`
	PublicKey   []byte    `json:"public_key,omitempty"`
	PublicOnly  bool      `json:"public_only,omitempty"`
	Development bool      `json:"development,omitempty"`
	Created     string    `json:"created"`
	Retired     string    `json:"retired,omitempty"`
}

type entryLine struct {
	metadata
	Nonce  []byte `json:"nonce"`
	Sealed []byte `json:"sealed"`
}

type listLine struct {
	Entries    int    `json:"entries"`
	Generation uint64 `json:"generation"`
}

type macLine struct {
	MAC []byte `json:"mac"`
}

type sumLine struct {
	SHA256 []byte `json:"sha256"`
}

// image is a keystore file, parsed.
type image struct {
	header     headerLine
	entries    []entryLine // ascending by name, then version
	generation uint64
	mac        []byte
	covered    []byte // the bytes that mac is over
}

// canonical encodes v on one line. The types here cannot fail to encode.
func canonical(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// decodeLine decodes what canonical encodes, and nothing else: another order,
// spelling or case of the fields does not encode to the same bytes again.
func decodeLine(line []byte, v any) error {
	if err := json.Unmarshal(line, v); err != nil {
		return err
	}
	if !bytes.Equal(canonical(v), line) {
		return errors.New("not in canonical form")
	}
	return nil
}

// splitSum takes the sha256 line off a file or bundle and verifies it.
func splitSum(data []byte) (lines [][]byte, err error) {
	if len(data) == 0 || data[len(data)-1] != '\n' {
		return nil, errors.New("the last line is not complete")
	}
	start := bytes.LastIndexByte(data[:len(data)-1], '\n') + 1
	var sum sumLine
	if err := decodeLine(data[start:len(data)-1], &sum); err != nil {
		return nil, fmt.Errorf("checksum line: %v", err)
	}
	if got := sha256.Sum256(data[:start]); !bytes.Equal(got[:], sum.SHA256) {
		return nil, errors.New("the checksum does not match")
	}
	for line := range bytes.Lines(data[:start]) {
		lines = append(lines, line[:len(line)-1])
	}
	return lines, nil
}

// appendSum ends a file or bundle.
func appendSum(b []byte) []byte {
	sum := sha256.Sum256(b)
	return append(append(b, canonical(sumLine{sum[:]})...), '\n')
}

// identify tells what a file claims to be, from its first line.
func identify(data []byte) (format string, version int) {
	line, _, _ := bytes.Cut(data, []byte{'\n'})
	var id struct {
		Format  string `json:"freearea"`
		Version int    `json:"version"`
	}
	if len(line) > 4096 || json.Unmarshal(line, &id) != nil {
		return "", 0
	}
	return id.Format, id.Version
}

// parse takes a keystore apart without any key. What it accepts, encode
// produces again. Errors wrap ErrNotKeystore, ErrFormatVersion, ErrDamaged or
// ErrCost.
func parse(data []byte) (*image, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("%w: larger than %d bytes", ErrNotKeystore, maxFile)
	}
	switch format, version := identify(data); {
	case format != formatName:
		return nil, ErrNotKeystore
	case version < plainVersion || version > formatVersion:
		return nil, fmt.Errorf("%w: %d, this software knows %d to %d", ErrFormatVersion, version, plainVersion, formatVersion)
	}
	damaged := func(place string, err error) error { return fmt.Errorf("%w: %s: %v", ErrDamaged, place, err) }

	lines, err := splitSum(data)
	if err != nil {
		return nil, damaged("end", err)
	}
	if len(lines) < 3 {
		return nil, damaged("end", errors.New("lines are missing"))
	}
	img := &image{}
	if err := decodeLine(lines[0], &img.header); err != nil {
		return nil, damaged("line 1", err)
	}
	if err := img.header.validate(); err != nil {
		return nil, err
	}

	n := len(lines)
	var mac macLine
	if err := decodeLine(lines[n-1], &mac); err != nil {
		return nil, damaged(fmt.Sprintf("line %d", n), err)
	}
	if len(mac.MAC) != sha256.Size {
		return nil, damaged(fmt.Sprintf("line %d", n), errors.New("MAC of a wrong size"))
	}
	img.mac = mac.MAC
	img.covered = data[:bytes.LastIndex(data, lines[n-1])]

	var list listLine
	if err := decodeLine(lines[n-2], &list); err != nil {
		return nil, damaged(fmt.Sprintf("line %d", n-1), err)
	}
	if list.Generation < 1 || list.Generation > maxGeneration {
		return nil, damaged(fmt.Sprintf("line %d", n-1), errors.New("generation out of range"))
	}
	img.generation = list.Generation
	if list.Entries != n-3 || list.Entries > maxEntries {
		return nil, damaged(fmt.Sprintf("line %d", n-1), fmt.Errorf("%d entries announced, %d there", list.Entries, n-3))
	}

	for i, line := range lines[1 : n-2] {
		var e entryLine
		err := decodeLine(line, &e)
		if err == nil {
			err = e.validate()
		}
		if err == nil && img.header.Version < e.formatVersion() {
			err = fmt.Errorf("key of kind %q in a keystore of version %d", e.Kind, img.header.Version)
		}
		if err == nil && i > 0 {
			err = follows(&img.entries[i-1].metadata, &e.metadata)
		}
		if err != nil {
			return nil, damaged(fmt.Sprintf("line %d", i+2), err)
		}
		img.entries = append(img.entries, e)
	}
	return img, nil
}

func (h *headerLine) validate() error {
	switch {
	case h.KDF != "argon2id":
		return fmt.Errorf("%w: line 1: key derivation %q is unknown", ErrDamaged, h.KDF)
	case len(h.Salt) != saltSize, len(h.Check) != checkSize, len(h.Nonce) != chacha20poly1305.NonceSizeX,
		len(h.Key) != fileKeySize+chacha20poly1305.Overhead:
		return fmt.Errorf("%w: line 1: a value of a wrong size", ErrDamaged)
	}
	return h.cost().validate()
}

func (h *header) cost() Cost { return Cost{Time: h.Time, Memory: h.Memory, Threads: h.Threads} }

func (c Cost) validate() error {
	if c.Time < 1 || c.Time > maxTime || c.Threads < 1 || c.Threads > maxThreads ||
		c.Memory < 8*uint32(c.Threads) || c.Memory > maxMemory {
		return fmt.Errorf("%w: %d passes over %d KiB with %d threads (at most %d, %d, %d)",
			ErrCost, c.Time, c.Memory, c.Threads, maxTime, maxMemory, maxThreads)
	}
	return nil
}

// follows says whether b may stand after a in a list.
func follows(a, b *metadata) error {
	switch order := compare(a, b); {
	case order == 0:
		return errors.New("the same key twice")
	case order > 0:
		return errors.New("keys out of order")
	case a.Name == b.Name && a.Kind != b.Kind:
		return fmt.Errorf("key %s is of two kinds", a.Name)
	}
	return nil
}

func compare(a, b *metadata) int {
	return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version))
}

func (m *metadata) validate() error {
	if err := keys.CheckName(m.Name); err != nil {
		return err
	}
	if !slices.Contains(m.Kind.Algorithms(), m.Algorithm) {
		return fmt.Errorf("key of kind %q with algorithm %q", m.Kind, m.Algorithm)
	}
	if m.Version < 1 || m.Version > keys.MaxVersion {
		return fmt.Errorf("key version %d: 1 to %d allowed", m.Version, keys.MaxVersion)
	}
	if size := publicSize(m.Algorithm); size > 0 {
		if len(m.PublicKey) != size || m.Check != publicCheck(m.PublicKey) {
			return errors.New("public key of a wrong size or check value")
		}
		if size > ed25519.PublicKeySize && (m.PublicKey[0]&0x80 == 0 || m.PublicKey[size-1]&1 == 0) {
			return errors.New("RSA modulus of a wrong size, or even")
		}
		if m.Development {
			return errors.New("signing key marked as development key")
		}
	} else {
		if len(m.PublicKey) != 0 || m.PublicOnly {
			return errors.New("AES key with a public half")
		}
		if !validCheck(m.Check, m.Kind) {
			return fmt.Errorf("check value %q", m.Check)
		}
	}
	if _, err := parseTime(m.Created); err != nil {
		return fmt.Errorf("date of creation: %v", err)
	}
	if m.Retired != "" {
		if _, err := parseTime(m.Retired); err != nil {
			return fmt.Errorf("date of retirement: %v", err)
		}
	}
	return nil
}

func (e *entryLine) validate() error {
	if err := e.metadata.validate(); err != nil {
		return err
	}
	if len(e.Nonce) != chacha20poly1305.NonceSizeX || len(e.Sealed) != e.secretSize()+chacha20poly1305.Overhead {
		return errors.New("sealed key of a wrong size")
	}
	return nil
}

// keyCount is the number of AES keys in an entry of a kind.
func keyCount(kind keys.Kind) int {
	switch kind {
	case keys.SecurityDomain:
		return 3
	case keys.Read:
		return 2
	}
	return 1
}

// formatVersion is the first version that has keys of this kind.
func (m *metadata) formatVersion() int {
	if m.Kind == keys.Token || m.Kind == keys.Receipt {
		return formatVersion
	}
	return plainVersion
}

// publicSize is the size of the public half: an Ed25519 key, or an RSA modulus;
// 0 for an algorithm without one.
func publicSize(algorithm string) int {
	switch algorithm {
	case keys.Ed25519:
		return ed25519.PublicKeySize
	case keys.RSA2048:
		return 2048 / 8
	case keys.RSA3072:
		return 3072 / 8
	}
	return 0
}

// keySize is the size of one key; of an RSA key that of both its primes.
func keySize(algorithm string) int {
	switch algorithm {
	case keys.RSA2048, keys.RSA3072:
		return publicSize(algorithm)
	case keys.AES128:
		return 16
	case keys.AES192:
		return 24
	}
	return 32 // AES-256, or the seed of Ed25519
}

// secretSize is the size of an entry's secret, 0 for a public-only one.
func (m *metadata) secretSize() int {
	if m.PublicOnly {
		return 0
	}
	return keyCount(m.Kind) * keySize(m.Algorithm)
}

// publicCheck is the check value of a signing key.
func publicCheck(pub []byte) string { return strings.ToUpper(hex.EncodeToString(pub[:8])) }

// validCheck reports whether s has the form of an AES entry's check value.
func validCheck(s string, kind keys.Kind) bool {
	parts := strings.Split(s, "/")
	if len(parts) != keyCount(kind) {
		return false
	}
	for _, p := range parts {
		if len(p) != 6 || strings.Trim(p, "0123456789ABCDEF") != "" {
			return false
		}
	}
	return true
}

func formatTime(t time.Time) string { return t.UTC().Truncate(time.Second).Format(time.RFC3339) }

func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, err
	}
	if formatTime(t) != s {
		return time.Time{}, fmt.Errorf("%q is not in UTC to the second", s)
	}
	return t.UTC(), nil
}

// entry is the metadata as callers see it.
func (m *metadata) entry() keys.Entry {
	e := keys.Entry{
		Name: m.Name, Kind: m.Kind, Version: m.Version, Algorithm: m.Algorithm, Check: m.Check,
		Public: m.PublicOnly, Development: m.Development,
	}
	e.Created, _ = parseTime(m.Created)
	if m.Retired != "" {
		e.Retired, _ = parseTime(m.Retired)
	}
	return e
}

// expand derives a key for one purpose from another.
func expand(secret []byte, purpose string, size int) []byte {
	b, err := hkdf.Expand(sha256.New, secret, "freearea keystore 1 "+purpose, size)
	if err != nil {
		panic(err) // only for lengths beyond 255 blocks
	}
	return b
}

// stretch turns a passphrase into the wrapping key and the check value.
func (h *header) stretch(passphrase []byte) (wrapping, check []byte) {
	s := argon2.IDKey(passphrase, h.Salt, h.Time, h.Memory, h.Threads, 32)
	defer clear(s)
	return expand(s, "wrap", chacha20poly1305.KeySize), expand(s, "check", checkSize)
}

// newHeader draws a file key and wraps it.
func newHeader(passphrase []byte, cost Cost, rand io.Reader) (*headerLine, *fileKeys, error) {
	if len(passphrase) == 0 {
		return nil, nil, ErrEmptyPassphrase
	}
	if err := cost.validate(); err != nil {
		return nil, nil, err
	}
	h := &headerLine{
		header: header{
			Format: formatName, Version: formatVersion, KDF: "argon2id",
			Time: cost.Time, Memory: cost.Memory, Threads: cost.Threads,
			Salt: make([]byte, saltSize),
		},
		Nonce: make([]byte, chacha20poly1305.NonceSizeX),
	}
	fileKey := make([]byte, fileKeySize)
	defer clear(fileKey)
	for _, b := range [][]byte{h.Salt, h.Nonce, fileKey} {
		if _, err := io.ReadFull(rand, b); err != nil {
			return nil, nil, fmt.Errorf("drawing a file key: %w", err)
		}
	}
	wrapping, check := h.stretch(passphrase)
	defer clear(wrapping)
	h.Check = check
	h.Key = aead(wrapping).Seal(nil, h.Nonce, fileKey, append([]byte(adHeader), canonical(h.header)...))
	return h, newFileKeys(fileKey), nil
}

// unwrap opens the file key. Errors wrap ErrPassphrase or ErrDamaged.
func (h *headerLine) unwrap(passphrase []byte) (*fileKeys, error) {
	wrapping, check := h.stretch(passphrase)
	defer clear(wrapping)
	if subtle.ConstantTimeCompare(check, h.Check) != 1 {
		return nil, ErrPassphrase
	}
	fileKey, err := aead(wrapping).Open(nil, h.Nonce, h.Key, append([]byte(adHeader), canonical(h.header)...))
	if err != nil {
		return nil, fmt.Errorf("%w: line 1: the header was changed", ErrDamaged)
	}
	defer clear(fileKey)
	return newFileKeys(fileKey), nil
}

func aead(key []byte) cipher.AEAD {
	a, err := chacha20poly1305.NewX(key)
	if err != nil {
		panic(err) // only for keys of a wrong size
	}
	return a
}

// fileKeys are the keys that an open keystore works with.
type fileKeys struct {
	entryKey, listKey []byte
}

func newFileKeys(fileKey []byte) *fileKeys {
	return &fileKeys{
		entryKey: expand(fileKey, "entries", chacha20poly1305.KeySize),
		listKey:  expand(fileKey, "list", sha256.Size),
	}
}

func (k *fileKeys) erase() {
	clear(k.entryKey)
	clear(k.listKey)
}

// seal binds a secret to its metadata.
func (k *fileKeys) seal(m metadata, secret []byte, rand io.Reader) (entryLine, error) {
	e := entryLine{metadata: m, Nonce: make([]byte, chacha20poly1305.NonceSizeX)}
	if _, err := io.ReadFull(rand, e.Nonce); err != nil {
		return entryLine{}, fmt.Errorf("drawing a nonce: %w", err)
	}
	e.Sealed = aead(k.entryKey).Seal(nil, e.Nonce, secret, append([]byte(adEntry), canonical(m)...))
	return e, e.validate()
}

// open returns the secret, which the caller erases.
func (k *fileKeys) open(e *entryLine) ([]byte, error) {
	secret, err := aead(k.entryKey).Open(nil, e.Nonce, e.Sealed, append([]byte(adEntry), canonical(e.metadata)...))
	if err != nil {
		return nil, fmt.Errorf("%w: key %s version %d was changed", ErrDamaged, e.Name, e.Version)
	}
	return secret, nil
}

func (k *fileKeys) sum(covered []byte) []byte {
	m := hmac.New(sha256.New, k.listKey)
	m.Write(covered)
	return m.Sum(nil)
}

// verify checks the file as a whole.
func (k *fileKeys) verify(img *image) error {
	if !hmac.Equal(k.sum(img.covered), img.mac) {
		return fmt.Errorf("%w: it was changed without the passphrase", ErrDamaged)
	}
	return nil
}

// encode writes the file, and sets the image's mac.
func (k *fileKeys) encode(img *image) ([]byte, error) {
	if len(img.entries) > maxEntries {
		return nil, fmt.Errorf("%d keys: %d fit into a keystore", len(img.entries), maxEntries)
	}
	var b []byte
	line := func(v any) { b = append(append(b, canonical(v)...), '\n') }
	line(img.header)
	for _, e := range img.entries {
		line(e)
	}
	line(listLine{len(img.entries), img.generation})
	img.covered = slices.Clone(b)
	img.mac = k.sum(b)
	line(macLine{img.mac})
	b = appendSum(b)
	if len(b) > maxFile {
		return nil, fmt.Errorf("keystore of %d bytes: %d allowed", len(b), maxFile)
	}
	return b, nil
}
