// Package applets is the terminal's and the issuer's side of the three base
// applications: what they hold, how it is encoded, how it gets onto a card
// and how it is read back. What the card does stands in applets/javacard; every
// byte of both stands in docs/card-protocol.md.
//
// Choose by what a copied card would cost:
//
//   - common-ap answers its ID to anybody, in one command. Nothing is secret
//     and nothing is proven, unless EF.ID is signed; a signature keeps an ID
//     from being forged, not from being copied.
//   - type-a proves that it is the card (mutual authentication), in two
//     commands. The ID itself goes over the air in the clear.
//   - type-d does the same and encrypts what it answers.
//
// Types A and D may have a PIN (a third command) and further items.
//
// [Base] returns the three. An application of one's own is another [Profile],
// added to a slice of one's own: there is no global registry.
package applets
