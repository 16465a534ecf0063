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
//   - java.lang, javacard.framework, and of javacard.security, javacardx.crypto,
//     javacardx.apdu and org.globalplatform what the tables of native methods
//     list (natives…); [Supported] tells for a member. A package links if it
//     refers to members that the API has; one that has no implementation here
//     ends the command with 6F00 when it is called. An algorithm that is missing
//     throws CryptoException.NO_SUCH_ALGORITHM.
//
// # Not executed
//
// Logical channels and multiselectable applications beyond the basic channel,
// RMI, biometry, javacard.framework.service, the extended CAP format of Java
// Card 3.1, the annotations and checks of an on-card verifier: types are checked
// while the code runs instead.
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
