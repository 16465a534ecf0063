// Package capwrite writes CAP files for applications that have no bytecode:
// the structure of one, with modules by AID, so that a card can load it, and a
// linker know it by its hash. It is for tests and generators.
package capwrite

import (
	"archive/zip"
	"bytes"
	"fmt"
	"hash/crc32"

	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/iso7816"
)

// u2 is a 16-bit number as CAP files write it.
func u2(n int) []byte { return []byte{byte(n >> 8), byte(n)} }

func lengthAndAID(a iso7816.AID) []byte { return append([]byte{byte(a.Len())}, a.Bytes()...) }

// Write makes a CAP file (JCVM specification, chapter 6, format 2.1) of one
// package, version 1.0, with the modules, whose install method returns without
// registering an instance. dir is the package's folder in the archive:
// "freearea/base". The archive is not compressed, so that its bytes don't
// depend on a version of the compressor.
func Write(dir string, pkg iso7816.AID, modules ...iso7816.AID) ([]byte, error) {
	packageInfo := func(minor, major byte, aid iso7816.AID) []byte {
		return append([]byte{minor, major}, lengthAndAID(aid)...)
	}
	const installOffset = 1 // in the Method component, after the number of exception handlers
	applet := []byte{byte(len(modules))}
	for _, m := range modules {
		applet = append(append(applet, lengthAndAID(m)...), u2(installOffset)...)
	}
	components := map[capfile.Component][]byte{
		// 6.4: magic, format 2.1, ACC_APPLET, this package
		capfile.Header: append([]byte{0xDE, 0xCA, 0xFF, 0xED, 0x01, 0x02, 0x04}, packageInfo(0, 1, pkg)...),
		capfile.Applet: applet, // 6.6
		// 6.7: javacard.framework and java.lang, version 1.0
		capfile.Import: bytes.Join([][]byte{{2},
			packageInfo(0, 1, iso7816.MustAID("A0000000620101")),
			packageInfo(0, 1, iso7816.MustAID("A0000000620001"))}, nil),
		capfile.ConstantPool: u2(0), // 6.8
		capfile.Class:        {},    // 6.9: format 2.1 has no signature pool
		// 6.10: no exception handlers; install: no flags, no stack, three
		// words of parameters, no locals; return
		capfile.Method:      {0x00, 0x00, 0x30, 0x7A},
		capfile.StaticField: make([]byte, 10),            // 6.11
		capfile.RefLocation: make([]byte, 4),             // 6.12
		capfile.Descriptor:  append([]byte{0}, u2(0)...), // 6.14
	}
	// 6.5: the sizes of eleven components, its own included; no static image;
	// the number of imports, applets and custom components.
	directory := make([]byte, 0, 31)
	for c := capfile.Header; c <= capfile.Descriptor; c++ {
		n := len(components[c])
		if c == capfile.Directory {
			n = 11*2 + 6 + 3
		}
		directory = append(directory, u2(n)...)
	}
	components[capfile.Directory] = append(directory, 0, 0, 0, 0, 0, 0, 2, byte(len(modules)), 0)

	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for c := capfile.Header; c <= capfile.Descriptor; c++ {
		data, present := components[c]
		if !present {
			continue
		}
		b := append(append([]byte{byte(c)}, u2(len(data))...), data...)
		// Size and checksum stand in front of the data: readers that go
		// through the archive from its beginning, Java's among them, refuse
		// an entry that is neither compressed nor of known length.
		f, err := w.CreateRaw(&zip.FileHeader{Name: dir + "/javacard/" + c.String() + ".cap", Method: zip.Store,
			CRC32: crc32.ChecksumIEEE(b), CompressedSize64: uint64(len(b)), UncompressedSize64: uint64(len(b))})
		if err != nil {
			return nil, fmt.Errorf("component %v: %w", c, err)
		}
		if _, err := f.Write(b); err != nil {
			return nil, fmt.Errorf("component %v: %w", c, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
