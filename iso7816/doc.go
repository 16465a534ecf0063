// Package iso7816 holds what every other package says about cards: command
// and response APDUs, status words as errors, BER-TLV, application
// identifiers, and the one-method interface [Card] that a physical card, an
// emulated card and a recorded trace all satisfy.
//
// A caller builds a [Command], sends it with [Send] (which deals with 61xx and
// 6Cxx) and gets a [Response]; [Do] also turns a status word other than 9000
// into an error that errors.Is can match:
//
//	data, err := iso7816.Do(ctx, iso7816.Plain(card), cmd)
//	if errors.Is(err, iso7816.ErrSecurityStatus) { … }
//
// What is said to a card can be written down and played back: [NewRecorder]
// wraps a card and writes a [Trace], with PINs and keys left out, and
// [Trace.Card] is a card that answers from one. The same files serve as --trace
// output, golden files and bug reports. docs/trace.md describes the format.
//
// Sections cited are those of ISO/IEC 7816-4 unless another text is named.
package iso7816
