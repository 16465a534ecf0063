package timing

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"github.com/freearea/freearea/emulator/jcvm"
	"github.com/freearea/freearea/iso7816"
)

// Operation is what a card's time goes into besides its bytecodes.
type Operation int

// The operations.
const (
	SetKey     Operation = iota // setKey of a key object
	ClearKey                    // clearKey of one
	InitCipher                  // init of a Cipher or Signature
	Encrypt                     // update, doFinal, sign and verify of those
	Digest                      // update and doFinal of a MessageDigest
	Random                      // generateData, nextBytes
	Move                        // copying, filling and comparing arrays
	Write                       // a persistent write
	Operations                  // how many there are
)

// Work is what a card executed.
type Work struct {
	Bytecodes int
	Calls     [Operations]int // how often
	Bytes     [Operations]int // over how many bytes in all; writes have none
}

// counted are the methods of the API that are operations, and which of their
// arguments, from 0 and with the receiver, is the number of bytes; -1 for none.
var counted = map[string]struct {
	operation Operation
	length    int
}{
	"javacard/security/AESKey.setKey([BS)V":                           {SetKey, -1},
	"javacard/security/DESKey.setKey([BS)V":                           {SetKey, -1},
	"javacard/security/Key.clearKey()V":                               {ClearKey, -1},
	"javacardx/crypto/Cipher.init(Ljavacard/security/Key;B)V":         {InitCipher, -1},
	"javacardx/crypto/Cipher.init(Ljavacard/security/Key;B[BSS)V":     {InitCipher, -1},
	"javacardx/crypto/Cipher.update([BSS[BS)S":                        {Encrypt, 3},
	"javacardx/crypto/Cipher.doFinal([BSS[BS)S":                       {Encrypt, 3},
	"javacard/security/Signature.init(Ljavacard/security/Key;B)V":     {InitCipher, -1},
	"javacard/security/Signature.init(Ljavacard/security/Key;B[BSS)V": {InitCipher, -1},
	"javacard/security/Signature.update([BSS)V":                       {Encrypt, 3},
	"javacard/security/Signature.sign([BSS[BS)S":                      {Encrypt, 3},
	"javacard/security/Signature.verify([BSS[BSS)Z":                   {Encrypt, 3},
	"javacard/security/MessageDigest.update([BSS)V":                   {Digest, 3},
	"javacard/security/MessageDigest.doFinal([BSS[BS)S":               {Digest, 3},
	"javacard/security/RandomData.generateData([BSS)V":                {Random, 3},
	"javacard/security/RandomData.nextBytes([BSS)S":                   {Random, 3},
	"javacard/framework/Util.arrayCopy([BS[BSS)S":                     {Move, 4},
	"javacard/framework/Util.arrayCopyNonAtomic([BS[BSS)S":            {Move, 4},
	"javacard/framework/Util.arrayFill([BSSB)S":                       {Move, 2},
	"javacard/framework/Util.arrayFillNonAtomic([BSSB)S":              {Move, 2},
	"javacard/framework/Util.arrayCompare([BS[BSS)B":                  {Move, 4},
}

// Counter counts what a package executes, from the lines of its trace, of which
// it keeps none. A call of the API that is no operation counts as the bytecode
// that makes it: asymmetric cryptography, and what nobody has measured
// (getShort, getAID, APDU's methods).
type Counter struct{ work Work }

// Trace is what a card's [jcvm.Linker] needs so that the package is counted.
func (c *Counter) Trace(pkg iso7816.AID) *jcvm.Trace {
	return &jcvm.Trace{AID: pkg, Bytecode: true, Values: true, W: c}
}

// Take returns the work since it was last called.
func (c *Counter) Take() Work {
	w := c.work
	c.work = Work{}
	return w
}

// Write takes one line of the trace. A call of an operation without its
// arguments is an error.
func (c *Counter) Write(line []byte) (int, error) {
	words := bytes.Fields(bytes.TrimPrefix(line, []byte("#")))
	switch {
	case len(words) == 0:
	case string(words[0]) == "api" && len(words) > 1:
		of, ok := counted[string(words[1])]
		if !ok {
			break
		}
		c.work.Calls[of.operation]++
		if of.length < 0 {
			break
		}
		if len(words) <= 2+of.length {
			return 0, fmt.Errorf("trace shows no arguments: %s", line)
		}
		n, err := strconv.ParseUint(string(bytes.Trim(words[2+of.length], "()")), 16, 16)
		if err != nil {
			return 0, fmt.Errorf("length in a trace: %w", err)
		}
		c.work.Bytes[of.operation] += int(n)
	case isOffset(words[0]):
		c.work.Bytecodes++
	}
	return len(line), nil
}

// isOffset tells a line of a bytecode, which begins with its offset.
func isOffset(word []byte) bool {
	_, err := strconv.ParseUint(string(word), 16, 32)
	return err == nil && len(word) >= 4
}

// Chip is what a kind of card takes for its work.
type Chip struct {
	Name     string
	Command  time.Duration // each command: receiving, finding the application, answering
	Bytecode time.Duration
	Call     [Operations]time.Duration
	Byte     [Operations]time.Duration
}

// Time is what the chip takes for work that one command makes.
func (c Chip) Time(w Work) time.Duration {
	t := c.Command + time.Duration(w.Bytecodes)*c.Bytecode
	for i := range Operations {
		t += time.Duration(w.Calls[i])*c.Call[i] + time.Duration(w.Bytes[i])*c.Byte[i]
	}
	return t
}

const us = time.Microsecond

// P71 is NXP's JCOP 4 on the chip P71 (J3R180), as measured with JCAlgTest and
// published in github.com/crocs-muni/jcalgtest_results
// (javacard/Profiles/performance, card "NXP JCOP4 J3R180 SECID P71"): in
// "fixed" of 2021-10-20, operations over 256 bytes, and in "variable", over
// 16 to 512 bytes. That is an upper bound for keys: those measured are in
// persistent memory, and setting and clearing them and init write there.
//
// The Individual Number Card's chips have no published measurement.
func P71() Chip {
	c := Chip{
		Name: "JCOP 4 P71",
		// Assumed: no published measurement takes it apart from the link's time.
		Command: 3000 * us,
		// fixed, SWAlgs_xor: 1.45 ms for 16 statements a[i] ^= a[j] on array
		// fields, which javac and the converter make 10 bytecodes each.
		Bytecode: 1450 * us / 160,
	}
	c.Call[SetKey] = 3200 * us     // fixed, AES-128 setKey: 3.20 ms
	c.Call[ClearKey] = 6010 * us   // fixed, AES-128 clearKey: 6.01 ms
	c.Call[InitCipher] = 6090 * us // fixed, AES-128 CBC Cipher_init: 6.09 ms
	// variable, AES-128 CBC Cipher_doFinal: 1.55 ms for 16 bytes, 2.15 ms for 512.
	c.Call[Encrypt], c.Byte[Encrypt] = line(16, 1550*us, 512, 2150*us)
	// variable, SHA-256 MessageDigest_doFinal: 2.23 ms for 16 bytes, 13.60 ms for 512.
	c.Call[Digest], c.Byte[Digest] = line(16, 2230*us, 512, 13600*us)
	// variable, ALG_SECURE_RANDOM generateData: 0.88 ms for 16 bytes, 1.68 ms for 512.
	c.Call[Random], c.Byte[Random] = line(16, 880*us, 512, 1680*us)
	c.Call[Move] = 170 * us   // fixed, arrayCopyNonAtomic in RAM: 0.17 ms for 256 bytes, taken for fewer too
	c.Call[Write] = 2740 * us // fixed, arrayFillNonAtomic, persistent: 2.74 ms for 256 bytes, taken for fewer too
	return c
}

// WithTransientKeys returns the chip with what is left of its prices where
// keys are in transient memory and were used with the same Cipher before, as
// the base applications do, so that setKey, clearKey and init write nothing. It
// is assumed, not measured, that the first two are then a copy and init half of
// an encryption of one block.
func (c Chip) WithTransientKeys() Chip {
	c.Name += ", keys in transient memory (assumed)"
	c.Call[SetKey] = c.Call[Move]
	c.Call[ClearKey] = c.Call[Move]
	c.Call[InitCipher] = c.Call[Encrypt] / 2
	return c
}

// line takes the time of n bytes and of m apart into that of a call and that
// of a byte.
func line(n int, t time.Duration, m int, u time.Duration) (call, each time.Duration) {
	each = (u - t) / time.Duration(m-n)
	return t - time.Duration(n)*each, each
}
