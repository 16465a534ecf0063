package oncard

import "github.com/freearea/freearea/iso7816"

// Platform is what the card and the Security Domains offer an instance besides
// memory: every [Card] has it.
type Platform interface {
	// LogicalChannel is the number of the logical channel that the running
	// command came on: 0 is the basic one.
	LogicalChannel() int
	// Reselecting reports whether the SELECT that runs found the instance selected
	// on its logical channel already.
	Reselecting() bool
	// Selected reports whether an application is selected on a logical channel,
	// whichever.
	Selected(aid iso7816.AID) bool
	// SecureChannel is that of the Security Domain that the instance is
	// associated with, on the logical channel of the running command. It is good
	// for the running command only.
	SecureChannel() SecureMessaging
}

// SecureMessaging is a Security Domain's secure channel protocol, spoken for an
// application associated with it (GPCS 10.2, appendix A). Its session belongs to
// the application that is selected on the logical channel, and ends with it.
// While the Security Domain hands STORE DATA to the application the session is
// the Security Domain's, which takes the secure messaging off itself: then
// commands of the protocol are refused, and Unwrap and Wrap change nothing.
type SecureMessaging interface {
	SecureChannel
	// EncryptSensitive encrypts as the host would for DecryptSensitive.
	EncryptSensitive(data []byte) ([]byte, error)
	// Aborted reports whether a session ended by an error of its security, and
	// nothing has come since that ends that state.
	Aborted() bool
	// Process carries out a command of the protocol: INITIALIZE UPDATE and
	// EXTERNAL AUTHENTICATE. Others get 6E00 or 6D00. It writes the sequence
	// counter, so it is refused with 6985 inside a transaction.
	Process(cmd iso7816.Command) iso7816.Response
	// Unwrap verifies a command and takes its secure messaging off; the error is
	// an [iso7816.SW].
	Unwrap(cmd iso7816.Command) (iso7816.Command, error)
	// Wrap protects the response to the command that was unwrapped last.
	Wrap(r iso7816.Response) iso7816.Response
	// Reset ends the session.
	Reset()
}
