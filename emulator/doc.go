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
// # Security Domains
//
// Supplementary Security Domains are installed from the card's own load file,
// A0000001515350, module A000000151535041, with the Security Domain privilege.
// Tag 81 of their parameters says which secure channel protocol they speak,
// two bytes; without it they speak the Issuer Security Domain's, which
// [Config.SecureChannel] says. Until a Security Domain has secure channel keys,
// it uses those of the one that it is associated with; with its first set it
// becomes PERSONALIZED. It can be given keys by PUT KEY and by STORE DATA, also
// through the Security Domain above it until then. Token, receipt and DAP keys
// are found by their usage, or by the customary versions 70, 71 and 73 with the
// identifier 01; the key that deciphers load files is 01 of version 75.
//
// Every privilege of GPCS table 6-1 can be given to a Security Domain, and to an
// application those that say what an application may do: card lock and
// termination, Card Reset, CVM Management, Global Lock, Global Registry, Final
// Application, Global Service and the contactless ones. What they allow is in
// [oncard.Registry]. The card keeps the contactless ones and does nothing by
// them: Amendment C, which says what they do, is not part of GPCS.
//
// A Security Domain lets another one act on what is associated with it if that
// one is itself or above it. Privileges over the whole card are given away only
// by who has them, by the issuer, and by tokens. The keys of a secure channel
// can be replaced, and deleted as long as a set is left. A token with an
// identifier (tag 93) is taken once.
//
// Each logical channel has an application of its own; a Security Domain has one
// secure channel at a time, whichever logical channel it is on, and speaks it
// for the applications that are associated with it ([oncard.Platform]). A card
// with contacts whose ATR offers T=0 first splits responses as T=0 does, with
// 61xx and 6Cxx. An application
// that does not implement [oncard.MultiSelectable] runs on one logical channel,
// and shares it with the others of its load file.
//
// # Status words
//
// Where GPCS leaves the choice, this card answers:
//
//   - 6A81 to the installation and the selection of what it has but cannot
//     execute (the module of an unknown load file), to MANAGE CHANNEL without
//     a channel left, and to SELECT on a locked card;
//   - 6985 where the registry, a privilege or a life cycle state forbids: an AID
//     that exists already, a load file with instances, an application that is
//     the card's own or that another channel uses, a Security Domain that
//     something belongs to, a transition to the present life cycle state, a
//     missing or used token, commands out of sequence, a second secure channel
//     to a Security Domain;
//   - 6982 to a wrong token, a wrong or missing DAP, a wrong key check value, a
//     load file in the clear for a Security Domain that wants it ciphered, or
//     that has no key for it, and to content management without a secure channel with C-MAC;
//   - 6A88 where the command names something that the registry does not have,
//     and to GET STATUS of the Issuer Security Domain by another one;
//   - 6A80 for a load file that fails its hash or that the linker refuses, for
//     privileges that exclude each other or that this card doesn't assign, for
//     a load file that can't be deciphered or comes with too short a hash, for
//     a key that is there already or can't take another's place, and for tokens
//     where the authenticated owner manages, who needs none;
//   - 6A82 to the selection of a locked application, as of one that is not there.
//
// Not there: contactless activation, private keys and with them receipts by
// public-key schemes, the deprecated structure of GET STATUS.
package emulator
