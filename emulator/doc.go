// Package emulator is a smart card in software: the GlobalPlatform runtime of
// a card (GPCS 2.3.1) with its memory, its life cycle and its faults. What it
// executes are applications behind [oncard.Module]; which ones a load file
// holds is told by an [oncard.Linker].
//
//	card, err := emulator.New(emulator.Config{Profile: profile, IIN: iin, CIN: cin, Keys: set, Linker: linker})
//	response, err := card.Transmit(ctx, command)
//
// A [Card] lives in memory ([New]) or in an image file ([Create], [Open]). It
// answers in process, stands in a slot of [Slots] like any card in a reader, or
// is connected to a virtual PC/SC reader (package vpcd). Many cards live in one
// process; one card answers one command at a time.
//
// # Memory
//
// Persistent memory is accounted against the profile's capacity, with the
// fixed overheads named in [Memory]. Each persistent write is atomic. What a
// command writes inside a transaction happens whole or not at all; INSTALL,
// the last LOAD and DELETE run in a transaction of the card's own, which no
// commit capacity bounds. The blocks of a LOAD sequence are kept until the
// last one and lost with power. Everything else that is not persistent, that
// is selection, secure channels and transient memory, is lost with power too.
//
// # Cuts
//
// [Card.SetCut] takes the power away before a command, after it, or before one
// of its writes. The commit of a transaction counts as a write, a non-atomic
// write of more than one byte as two.
//
// # Status words
//
// Where GPCS leaves the choice, this card answers:
//
//   - 6A81 to the installation and the selection of what it has but cannot
//     execute (the module of an unknown load file), and to functions that it
//     lacks (card locking, Supplementary Security Domains);
//   - 6985 where the registry forbids: an AID that exists already, a load file
//     with instances, an application that is the card's own, a transition to
//     the present life cycle state, commands out of sequence;
//   - 6A88 where the command names something that the registry does not have;
//   - 6A80 for a load file that fails its hash or that the linker refuses, for
//     privileges that this card doesn't assign, and for tokens, since the
//     authenticated owner of the Issuer Security Domain needs none;
//   - 6982 for content management without a secure channel with C-MAC;
//   - 6A82 to the selection of a locked application, as of one that is not there.
package emulator
