// Package scp is the Secure Channel Protocols '03' and '02' of GlobalPlatform:
// the host's side ([Initialize], [Open], [Session]) and the card's side
// ([CardSession]), as separate types over shared codings.
//
// A host opens a channel to whatever answers INITIALIZE UPDATE (a Security
// Domain, or an application with its own keys) and then sends commands
// through the session, which is an [iso7816.Sender]:
//
//	session, err := scp.Open(ctx, iso7816.Plain(card), set, scp.HostOptions{Level: scp.Full})
//	if err != nil { … }
//	defer session.Close()
//	data, err := iso7816.Do(ctx, session, command)
//
// Where the keys depend on what the card says (its diversification data),
// [Initialize] and [Pending.Authenticate] are the same in two steps. The card
// proves its keys before the host sends anything computed with them, and
// nothing here is ever repeated by itself: a wrong key tried again and again
// is how cards get locked.
//
// Without more ado a host speaks SCP03 in mode S8: challenges and MACs of 8
// bytes. [HostOptions] name other protocols. Mode S16 (16 bytes; Amendment D
// 1.2, whose text is not public) follows what public implementations agree
// on, those named in testdata. SCP02 is there for cards that have nothing
// else: it is deprecated, and keys and PINs go over it only with leave. Of
// SCP02, implicit initiation, one base key, and R-MAC sessions of their own
// (BEGIN and END R-MAC SESSION) are left out on purpose.
//
// Sections cited are those of GlobalPlatform Card Specification Amendment D
// 1.1.1 (AmdD) unless marked GPCS, the Card Specification 2.3.1.
package scp
