// Package ledger keeps what an issuing counter did: who consented, what was
// issued to which card, changed or withdrawn, by which operator, when and
// why. It is one SQLite file to which events are appended; nothing in it is
// ever changed or deleted, and every state that it answers for is a view over
// the events.
//
//	l, err := ledger.Open(ctx, "ledger.db", ledger.Options{Operator: key, Log: signer, Digest: digest})
//	if err != nil { … }
//	defer l.Close()
//	_, err = l.Append(ctx, ledger.Event{
//		Actor:  ledger.Actor{Counter: "window-2"},
//		Reason: "application at the counter",
//		Data:   ledger.CardBound{Consent: id, Card: card},
//	})
//
// Several processes may use one ledger at a time. An event that Append has
// answered for survives a crash of the program and of the machine. Goroutines
// that append at the same time share a transaction and its way to the disk,
// so that many slots wait for the ledger hardly longer than one.
//
// # Who did it
//
// Every event is signed by an operator, whose id, role and key an earlier
// event has added ([OperatorAdded]). What a role may do stands in package
// staff; it is enforced when an event is appended, and again by
// [Ledger.Verify].
//
// # The log
//
// The records are the leaves of a Merkle tree (RFC 6962, in the form of
// golang.org/x/mod/sumdb/tlog). Its hashes are stored, so that an append and a
// proof take O(log n). Every append writes, in the same transaction, a
// checkpoint: number of events, hash of the tree and id of the ledger, signed
// with Options.Log (golang.org/x/mod/sumdb/note). There is never an event that
// no checkpoint covers. Whoever can write the file and has no keys can put back
// an older state of it, and nothing else that Verify does not find; that, a
// checkpoint kept elsewhere shows ([Ledger.Since]).
//
// Opening checks the end of the log in O(log n), Verify everything.
//
// # What is in it, and what never is
//
// A card is named by a [CardRef], a keyed digest of its CIN, never by the CIN.
// Of the holder there is the ID that the service's manifest declares and
// nothing else. PINs, keys and the contents of items have no field.
//
// IDs, signed consents, reasons, texts of errors and evidence are erasable:
// they stand in a table beside the events, and the record commits to each with
// SHA-256(salt ‖ value), the salt being 16 random bytes. [Ledger.Erase] erases
// value and salt, and with the salt all that the commitment could tell. Of an
// ID a keyed digest stays in the record, so that it is not given out again.
//
// # Encoding of an event
//
// The record of an event is one JSON object, stored and handed out as the
// bytes that were written, never encoded again. Its members stand in this
// order, without white space between tokens:
//
//	v                 2, the version of this encoding
//	seq               number of the event: 1 for the first, then without gaps
//	time              UTC, always "2006-01-02T15:04:05.000Z" in form; never before
//	                  the event before, also where the clock was put back
//	kind              kind of the event, see [Kind]
//	operator          who did it
//	second            who did it with him; left out where one was enough
//	counter           where
//	reason            commitment to why, in the operator's words or the program's
//	data              object, with the members of the kind's type in the order declared
//	signature         operator's, Ed25519
//	countersignature  the second's; left out with second
//
// The signatures are over "freearea ledger event 2", a line feed, the ledger's
// id (32 hexadecimal digits), a line feed, and the record without signature
// and countersignature.
//
// Members are always present, except those that say omitempty, which are left
// out when empty or 0. A commitment stands in the place of the value: 64
// hexadecimal digits for a string, 32 bytes for bytes; an empty value stays
// empty. Strings are UTF-8; the only escapes are \" and \\, \b,
// \f, \n, \r and \t, \u00xx (lower-case digits) for other characters below
// U+0020, and \u2028 and \u2029 for those two characters. Numbers are decimal
// integers. Bytes are base64 with padding (RFC 4648, section 4), digests
// lower-case hexadecimal digits, AIDs upper-case ones.
//
// A record has one encoding: a reader decodes it, refuses unknown members,
// encodes it again and refuses it when the bytes differ. A hash over the
// record is therefore a hash over the event.
//
// New kinds of events and new members raise the version of the file's schema,
// so that a program never meets a record that it does not know.
package ledger
