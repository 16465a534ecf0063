// Package jcvm executes Java Card load files on an emulated card: a loader and
// linker for CAP files of the formats 2.1 and 2.2 (compact), an interpreter for
// all 185 bytecodes, a heap in the card's persistent memory, and as much of the
// runtime environment and of the API as applications have been seen to need.
//
//	card, err := emulator.New(emulator.Config{…, Linker: jcvm.Linker{}})
//
// It is made for development and tests. It is not certified, and no claim of
// conformance with the Java Card specifications is made; what is executed, what
// isn't and where cards differ from each other stands below.
//
// # Executed
//
//   - Applet and library packages with imports between loaded packages, static
//     fields and their initialisers, interfaces, exceptions, arrays of all types,
//     the type int.
//   - Contexts and the firewall with JCRE entry point objects, global arrays and
//     shareable interface objects; persistent and transient objects; transactions
//     with the card's commit capacity, whose abort turns references to objects
//     made inside of them into null; deletion of objects on request.
//   - The API of Java Card Classic 3.0.4 and 3.0.5: java.lang,
//     javacard.framework, javacard.security, javacardx.crypto, javacardx.apdu
//     and javacardx.apdu.util, javacardx.security, and org.globalplatform 1.6. A
//     test walks through all members; [Supported] tells for one. A package links
//     if it refers to members that the API has; one that has no implementation
//     here ends the command with 6F00 when it is called. An algorithm that is
//     missing throws CryptoException.NO_SUCH_ALGORITHM.
//   - Logical channels and applets on several of them at once, with
//     MultiSelectable told of each; an applet that isn't, or another of its
//     package, is refused on a second channel with 6985.
//   - T=1 and T=0, as the card's ATR says. With T=0 the card splits responses
//     itself (61xx, 6Cxx): the applet has run by then, so that the reasons
//     NO_T0_GETRESPONSE and NO_T0_REISSUE are never thrown.
//   - org.globalplatform: the secure channel of the Security Domain that an
//     applet is associated with, whichever protocol it speaks; the registry with
//     what the applet's privileges allow; Global Services and the global PIN;
//     STORE DATA through Application and Personalization.
//   - Symmetric cryptography: DES, AES and HMAC keys, their ciphers and MACs,
//     digests up to SHA-3, checksums, random data.
//   - RSA from 512 to 4096 bits in steps of 32, with and without CRT: key pairs,
//     signatures of PKCS #1 v1.5 and PSS, ciphers without padding, of PKCS #1
//     v1.5 and OAEP. Curves over prime fields of any parameters, from 112 to 521
//     bits: key pairs, ECDSA in DER and as two numbers,
//     of a hash that the application computed too (ALG_NULL), ECDH as a hash, as a
//     coordinate and as a point, with the cofactor or without.
//
// # Not executed
//
// RMI, biometry, javacard.framework.service, the packages javacardx.framework
// and javacardx.external, the extended CAP format of Java Card 3.1, the
// annotations and checks of an on-card verifier: types are checked while the
// code runs instead.
//
// Of cryptography: DSA, Diffie-Hellman, Korean SEED and curves over binary
// fields, RIPEMD-160, ISO 9796 and message recovery, the mapping of PACE, keys
// that take encrypted values (KeyEncryption).
//
// SecureChannelx.setSecurityLevel; what Authority and the HTTP interfaces of
// org.globalplatform are for. An application that is selected implicitly sees a
// SELECT command, though there was none.
//
// # Where cards differ
//
// [Quirks] names what can be chosen. Besides:
//
//   - An applet is selected once its select method returned true, whatever it
//     answers to the SELECT command then.
//   - An applet that implements ExtendedLength may answer a short command with
//     more than 256 bytes: the card keeps the rest for GET RESPONSE. What was
//     sent before an exception stays sent: some applets answer in parts by
//     themselves, with 61xx.
//   - What a server throws from getShareableInterfaceObject is null for the
//     client, as in the reference implementation.
//   - A key pair over a curve needs parameters, set in one of its keys: cards
//     may have some of their own, and an application that counts on them fails
//     here with ILLEGAL_VALUE.
//   - A key with a shared domain gets a copy of the parameters: what becomes of
//     the other key later is nothing to it.
//   - What init told an AEADCipher is lost with power; what it told a Cipher or
//     a Signature is not. After doFinal both begin anew.
//   - Integrity-sensitive arrays are there; since nothing disturbs an emulated
//     card's memory, their integrity always holds.
//   - The object of a OneShot class is gone with close, and with the command:
//     using it then throws NullPointerException.
//   - [Quirks] names more, each with the usual value.
//   - A transient private key loses the parameters of its curve with its value,
//     and clearKey clears them too.
//   - Numbers are read as long as the field or the modulus, a public exponent
//     of RSA without leading zeros.
//   - A block without padding must be as long as the modulus; with a private
//     key, PKCS #1 v1.5 encrypts with a block of type 1.
//   - A component of a key is one write: inside a transaction the larger ones
//     exceed the commit capacity.
//
// Asymmetric cryptography doesn't take constant time: an emulator keeps no
// secrets from its owner.
//
// # Hostile load files
//
// A load file is input like any other. The structure, the bounds and every
// reference are checked when it is loaded; its code is decoded then, once, so
// that no jump leaves an instruction's boundary. While it runs every slot of
// the stack knows whether it holds a reference, and nothing else is ever
// dereferenced; references are indices into a table. Stack depth and the number
// of bytecodes per command are bounded. A fault ends the command with 6F00 and
// takes the open transaction back.
//
// Sections cited are those of the Java Card Virtual Machine Specification
// (JCVM) and of the Runtime Environment Specification (JCRE), version 3.0.4.
package jcvm
