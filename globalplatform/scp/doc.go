// Package scp is the Secure Channel Protocol '03' of GlobalPlatform: the
// host's side ([Initialize], [Open], [Session]) and the card's side
// ([CardSession]), as separate types over one coding.
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
// Challenges and MACs have 8 bytes (S8). The mode with 16 bytes (S16 of
// Amendment D 1.2) is recognised and refused.
//
// Sections cited are those of GlobalPlatform Card Specification Amendment D
// 1.1.1 (AmdD) unless marked GPCS, the Card Specification 2.3.1.
package scp
