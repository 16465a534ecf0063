// Package osdp is the peripheral device's side of the Open Supervised Device
// Protocol, version 2 (SIA OSDP 2.2, IEC 60839-11-5): a door reader that a
// control panel polls over a serial line, and that gives it the data of cards.
//
//	d, err := osdp.NewDevice(osdp.Config{Address: 0, Key: scbk, Reader: osdp.Feedback{…}})
//	if err != nil { … }
//	go d.Serve(ctx, line)
//	d.Present(osdp.Raw(bits, osdp.Unspecified))
//
// What is there: framing with checksum and CRC, sequence numbers with
// repetition of the last reply, the secure channel (SCBK, and SCBK-D in install
// mode only), identification and capabilities, polling, local and reader
// status, LED, buzzer and text commands, setting of a key and of the
// line's parameters. What is not, and is answered with NAK 03: biometrics,
// file transfer, transparent smart card mode, manufacturer's commands.
//
// Card data leaves the device once for each card, and not at all when the
// panel asks too late ([Config.MaxAge]): who stood at the door has gone.
package osdp

// Codes of commands (SIA OSDP 2.2, table A.1).
const (
	cmdPoll        = 0x60
	cmdID          = 0x61
	cmdCap         = 0x62
	cmdLocalStatus = 0x64
	cmdInput       = 0x65
	cmdOutput      = 0x66
	cmdReader      = 0x67
	cmdLED         = 0x69
	cmdBuzzer      = 0x6A
	cmdText        = 0x6B
	cmdComSet      = 0x6E
	cmdKeySet      = 0x75
	cmdChallenge   = 0x76
	cmdCryptogram  = 0x77
	cmdReceiveSize = 0x7B
	cmdAbort       = 0xA2
	cmdKeepActive  = 0xA7
)

// Codes of replies (SIA OSDP 2.2, table A.2).
const (
	replyACK         = 0x40
	replyNAK         = 0x41
	replyID          = 0x45
	replyCap         = 0x46
	replyLocalStatus = 0x48
	replyReader      = 0x4B
	replyRaw         = 0x50
	replyFormatted   = 0x51
	replyCom         = 0x54
	replyChallenge   = 0x76
	replyInitialRMAC = 0x78
)

// Reasons of a NAK (SIA OSDP 2.2, osdp_NAK).
const (
	nakLength          = 2 // command length error
	nakUnknown         = 3 // unknown command code
	nakSequence        = 4 // sequence number error
	nakNoChannel       = 5 // secure channel is not supported, or its proof failed
	nakConditions      = 6 // security conditions not met
	nakRecord          = 9 // the record can't be processed
	broadcast     byte = 0x7F
)
