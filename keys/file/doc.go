// Package file keeps keys in one encrypted file that a passphrase opens. It is
// the keystore of a counter, an office or a terminal that has no hardware for
// its keys.
//
// The format is this module's own, because entries must be read and updated
// singly: listing the keys decrypts none, using one decrypts that one, and
// adding or retiring one leaves the sealed bytes of the others as they are. A
// general-purpose container would be decrypted as a whole each time. Bundles
// that leave the keystore have no such need and are wrapped with age (see
// [Store.Export]).
//
// # What is promised
//
// Without the passphrase nobody reads a secret. Names, kinds, versions, dates,
// key check values and public keys are in the clear, and so can be listed by
// [Inspect]. With write access but without the passphrase nobody adds,
// changes, removes, swaps or revives an entry unnoticed; what can be done is to
// put back an older copy of the whole file, which only a Store that has seen
// the newer one notices (ErrRolledBack). Keep backups accordingly.
//
// The passphrase is stretched with argon2id. The cost stands in the file and is
// bounded on opening, so that a hostile file cannot ask for gigabytes.
//
// # The file
//
// Lines of JSON, UTF-8, each ending with one line feed, in the canonical form:
// fields in the order below, no white space, no field more or less. What is
// not in this form is refused. Binary values are base64 (RFC 4648 section 4,
// with padding). H below is the header line's fields up to and including
// check, E an entry line's fields up to and including retired, each as a JSON
// object of its own in canonical form, without a line feed.
//
//	{"freearea":"keystore","version":2,"kdf":"argon2id","time":T,"memory_kib":M,"threads":P,
//	 "salt":16 bytes,"check":16 bytes,"nonce":24 bytes,"key":48 bytes}
//	one line for each entry, ascending by name, then version:
//	{"name":…,"kind":…,"version":1–127,"algorithm":…,"check_value":…,"public_key":…,
//	 "public_only":true,"development":true,"created":…,"retired":…,"nonce":24 bytes,"sealed":…}
//	{"entries":N,"generation":G}
//	{"mac":32 bytes}
//	{"sha256":32 bytes}
//
// Version 1 has no keys of the kinds token and receipt, and is like version 2
// otherwise; the numbers in the labels below stay 1 in both. Files of version 1
// are read and kept up as they are, and become version 2 when the passphrase is
// changed, because the header is bound to it.
//
// public_key is there for Ed25519 keys (32 bytes) and for RSA keys (the modulus
// of 256 or 384 bytes; the exponent is 65537) only; public_only, development and
// retired only where they apply. Dates are RFC 3339 in UTC, to the second.
//
//	S         = argon2id(passphrase, salt, T, M, P), 32 bytes
//	check     = HKDF-Expand(SHA-256, S, "freearea keystore 1 check", 16)
//	wrapping  = HKDF-Expand(SHA-256, S, "freearea keystore 1 wrap", 32)
//	key       = XChaCha20-Poly1305(wrapping, nonce, the file key, AD = "freearea keystore 1 header\n" ‖ H)
//	entry key = HKDF-Expand(SHA-256, file key, "freearea keystore 1 entries", 32)
//	list key  = HKDF-Expand(SHA-256, file key, "freearea keystore 1 list", 32)
//	sealed    = XChaCha20-Poly1305(entry key, nonce, the secret, AD = "freearea keystore 1 entry\n" ‖ E)
//	mac       = HMAC-SHA256(list key, every byte before the mac line)
//	sha256    = SHA-256(every byte before the sha256 line)
//
// The secret is ENC ‖ MAC ‖ DEK for a Security Domain, ENC ‖ MAC for reading,
// the seed of 32 bytes for Ed25519 (RFC 8032), the key itself for a ledger
// key and for an AES key for tokens or receipts, the two primes of equal length
// for an RSA key, and nothing for a public-only entry. The file key is random, 32 bytes; a new
// one is drawn, and every entry sealed anew, when the passphrase is changed, so
// that an old copy and its passphrase open nothing new. check tells a wrong
// passphrase from a damaged file; sha256 tells an accident from both before
// any passphrase is asked for, and protects against nobody.
//
// Limits: 4 MiB, 4096 entries, T at most 10, M at most 262144 (256 MiB) and at
// least 8 P, P at most 16.
//
// # Files and processes
//
// A change is written to a temporary file in the same directory, flushed, and
// renamed over the old one, whose directory is flushed as well: a crash leaves
// the old file or the new one, and at worst a temporary file whose name begins
// with a dot. Writers take a lock on a file beside it (its name and ".lock",
// empty, left in place) and read the keystore again under that lock, so none
// loses another's entry. The file must be a regular file that only its owner
// can read (mode 0600); others are refused with ErrPermissions, except on
// Windows, where the directory's access list decides.
package file
