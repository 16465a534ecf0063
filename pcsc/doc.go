// Package pcsc gives access to cards through PC/SC: pcscd on Linux, the
// system's own service on macOS and Windows. A [Source] lists slots, reports
// what happens at them, and opens the card in one:
//
//	source := pcsc.New(pcsc.Options{})
//	for event, err := range source.Events(ctx) {
//		…
//		conn, err := source.Open(ctx, event.Slot, iso7816.Shared)
//		…
//	}
//
// # Waiting
//
// PC/SC calls know neither contexts nor time limits: a card that stays silent
// blocks SCardTransmit, another program's transaction blocks SCardConnect and
// SCardBeginTransaction, a stuck service blocks everything. Here every wait
// ends when its context does. The call underneath is then abandoned: it runs
// on until the PC/SC library returns, and what it obtained (a connection, a
// transaction) is given back at that moment. A connection whose command was
// abandoned answers [ErrInterrupted] until it is reset, because nobody knows
// what the card did.
//
// # Sharing
//
// [iso7816.Exclusive] keeps other programs out until Close, which resets the
// card, so that no session stays open for the next program; whoever writes to
// a card opens it so. [iso7816.Shared] leaves the card as it is on Close;
// commands that belong together go between Begin and End, and the
// application is selected again after each Begin, because another program
// may have selected another one. Nobody waits for a person between Begin and
// End: Windows resets a card whose transaction is idle for 5 seconds.
//
// # Errors
//
// Each failure is an [*Error] with the code that PC/SC gave, and wraps one of
// the classes: [iso7816.ErrCardRemoved], [ErrReset], [ErrMute], [ErrInUse],
// [ErrNoSlot], [ErrNoService], [ErrRefused]. A card that is pulled while it
// works is often reported by PC/SC as a success without an answer; fewer than
// 2 bytes are therefore a removed card, never an answer. A reader may also
// hand on the part of an answer that had arrived: only a MAC over the answer
// proves that it is whole.
//
// # Building
//
// The real implementation is built on Windows (without cgo), and with cgo
// elsewhere; on Linux it needs the header files of pcsc-lite (the Debian
// package libpcsclite-dev). Without cgo, or with the build tag nopcsc, the
// package has the same API and every call answers [ErrNotBuilt]; [Built] says
// which it is. A machine that has a C compiler but not the header files
// builds with CGO_ENABLED=0 or -tags nopcsc.
//
// # Cost
//
// The binding allocates 64 KiB for the answer of each command (72 KiB as the
// allocator rounds). The answer is copied out of it, so that no caller keeps
// that alive for two bytes. On a busy machine with two processors the buffer
// cost some 10 µs a command, what this package adds (a goroutine that can be
// abandoned, two copies; BenchmarkOverhead) 2 to 4 µs, and the whole way
// through pcscd to a virtual card 110 to 150 µs (BenchmarkAPDU).
package pcsc
