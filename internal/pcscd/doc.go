// Package pcscd starts a PC/SC daemon with virtual readers for tests, so that
// what talks to a card is tried over the real way: the program, libpcsclite,
// pcscd, its driver, and from there over TCP to a card in software.
//
//	d := pcscd.Start(t, pcscd.Options{Readers: 2})
//	slot := d.Readers[0]
//	listener := slot.Listen() // from now on a card is in the slot
//	go serve(listener)        // the daemon dials; 2-byte length, then the message
//	…
//	listener.Close()          // the card is taken out
//
// The daemon has a configuration of its own, sees no hardware, and lives in a
// mount namespace where its directory lies over the system's, so that it
// disturbs no other daemon and any number of test processes can run. Where
// such a namespace can't be had, it takes the system's place, if no daemon
// runs there. Within one process one daemon runs at a time, always at the
// same socket: libpcsclite reads the name of the socket only once.
//
// What is missing on the machine skips the test with the reason, or fails it
// when the environment variable FREEAREA_REQUIRE_PCSC is 1.
//
// Linux only.
package pcscd
