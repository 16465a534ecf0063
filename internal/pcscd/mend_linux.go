package pcscd

import (
	"bytes"
	"debug/elf"
	"fmt"
)

// mended returns the virtual reader's driver without a fault that version 3.3
// has: in reverse mode it asks "is there a listening socket?" as "is the
// socket's number other than 0?", while none is -1. So, as soon as the first
// connection has ended, it waits for a client on socket -1 instead of dialling
// again, and the daemon aborts ("bit out of range 0 - FD_SETSIZE on fd_set").
// A card could neither be removed nor inserted. Later versions ask rightly.
//
// In this copy for tests the question becomes "is the number negative?", which
// is one byte: the condition of the jump in vicc_connect. A driver where these
// instructions don't stand is left as it is (on amd64 a later version; on
// another processor the fault, if it is there, stays).
func mended(driver []byte) ([]byte, error) {
	f, err := elf.NewFile(bytes.NewReader(driver))
	if err != nil {
		return nil, err
	}
	if f.Machine != elf.EM_X86_64 {
		return driver, nil
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		return nil, err
	}
	for _, s := range symbols {
		if s.Name != "vicc_connect" || s.Section == elf.SHN_UNDEF || int(s.Section) >= len(f.Sections) {
			continue
		}
		text := f.Sections[s.Section]
		begin := s.Value - text.Addr + text.Offset
		end := begin + s.Size
		if begin > end || end > uint64(len(driver)) {
			return nil, fmt.Errorf("vicc_connect lies outside the file")
		}
		body := driver[begin:end]
		const (
			load = "\x8b\x3f" // mov (%rdi),%edi: the listening socket
			test = "\x85\xff" // test %edi,%edi
			je   = "\x74"     // jump if 0
			js   = 0x78       // jump if negative
		)
		i := bytes.Index(body, []byte(load+test+je))
		if i < 0 {
			return driver, nil
		}
		out := bytes.Clone(driver)
		out[begin+uint64(i+len(load+test))] = js
		return out, nil
	}
	return nil, fmt.Errorf("it has no vicc_connect: not the driver of the virtual reader")
}
