// Package ledger keeps what an issuing counter did: who consented, what was
// issued to which card, changed or withdrawn, by which operator, when and
// why. It is one SQLite file to which events are appended; nothing in it is
// ever changed or deleted, and every state that it answers for is a view over
// the events.
//
//	l, err := ledger.Open(ctx, "ledger.db", ledger.Options{Create: true})
//	if err != nil { … }
//	defer l.Close()
//	_, err = l.Append(ctx, ledger.Event{
//		Actor:  ledger.Actor{Operator: "op-7", Counter: "window-2"},
//		Reason: "application at the counter",
//		Data:   ledger.CardBound{Consent: id, Card: card},
//	})
//
// Several processes may use one ledger at a time. An event that Append has
// answered for survives a crash of the program and of the machine.
//
// # What is in it, and what never is
//
// A card is named by a [CardRef], a keyed digest of its CIN, never by the CIN.
// Of the holder there is the ID that the service's manifest declares and
// nothing else. PINs, keys and the contents of items have no field.
//
// # Encoding of an event
//
// The record of an event is one JSON object, stored and handed out as the
// bytes that were written, never encoded again. Its members stand in this
// order, without white space between tokens:
//
//	v         1, the version of this encoding
//	seq       number of the event: 1 for the first, then without gaps
//	time      UTC, always "2006-01-02T15:04:05.000Z" in form
//	kind      kind of the event, see [Kind]
//	operator  who did it
//	counter   where
//	reason    why, in the operator's words or the program's
//	data      object, with the members of the kind's type in the order declared
//
// Members are always present, except those that say omitempty, which are left
// out when empty or 0. Strings are UTF-8; the only escapes are \" and \\, \b,
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
