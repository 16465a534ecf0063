// Package oncard is what the three base applications do on the card, over
// the boundary of emulator/oncard. docs/card-protocol.md says it byte by byte.
//
// The code is kept to what a card can do: all that must survive lies in
// persistent objects of fixed size, allocated at installation; what a session
// knows lies in transient memory or in the [scp.CardSession], which stands for
// a card's RAM and is reset when the instance is deselected. Nothing is shared
// between instances.
package oncard
