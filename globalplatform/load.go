package globalplatform

import (
	"context"
	"fmt"

	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/iso7816"
)

// maxBlocks is how many LOAD or STORE DATA commands one sequence has: the
// block number is one byte (11.6.2.2, 11.11.2.2).
const maxBlocks = 256

// DAPBlock is a Security Domain's signature over a load file data block
// (table 11-58).
type DAPBlock struct {
	SecurityDomain iso7816.AID
	Signature      []byte
}

// LoadFile returns a load file: DAP blocks, then the load file data block
// under tag C4 (table 11-58). Without room under the tag's length, 65,535
// bytes, the error wraps [ErrCommand].
func LoadFile(dataBlock []byte, daps ...DAPBlock) ([]byte, error) {
	if err := checkDataBlock(dataBlock); err != nil {
		return nil, err
	}
	return iso7816.AppendTLV(appendDAPs(nil, daps), tagDataBlock, dataBlock), nil
}

func checkDataBlock(b []byte) error {
	if len(b) == 0 || len(b) > iso7816.MaxTLVLength {
		return fmt.Errorf("%w: load file data block of %d bytes, 1 to %d allowed", ErrCommand, len(b), iso7816.MaxTLVLength)
	}
	return nil
}

func appendDAPs(dst []byte, daps []DAPBlock) []byte {
	for _, d := range daps {
		v := iso7816.AppendTLV(nil, tagAID, d.SecurityDomain.Bytes())
		dst = iso7816.AppendTLV(dst, 0xE2, iso7816.AppendTLV(v, 0xC3, d.Signature))
	}
	return dst
}

// LoadBlock is one LOAD command (11.6).
type LoadBlock struct {
	Number byte
	Last   bool
	Data   []byte
}

// Command returns the command.
func (b LoadBlock) Command() (iso7816.Command, error) {
	p1 := byte(0)
	if b.Last {
		p1 = 0x80
	}
	return command(0xE8, p1, b.Number, b.Data)
}

// LoadBlocks cuts a load file into LOAD commands of at most size data bytes.
func LoadBlocks(loadFile []byte, size int) ([]LoadBlock, error) {
	parts, err := split(loadFile, size)
	if err != nil {
		return nil, fmt.Errorf("LOAD: %w", err)
	}
	blocks := make([]LoadBlock, len(parts))
	for i, p := range parts {
		blocks[i] = LoadBlock{Number: byte(i), Last: i == len(parts)-1, Data: p}
	}
	return blocks, nil
}

// split cuts data into parts of at most size bytes, at most as many as there
// are block numbers.
func split(data []byte, size int) ([][]byte, error) {
	if size < 1 || size > iso7816.MaxShortData || len(data) == 0 {
		return nil, fmt.Errorf("%w: %d bytes in blocks of %d", ErrCommand, len(data), size)
	}
	var parts [][]byte
	for len(data) > 0 {
		n := min(size, len(data))
		parts = append(parts, data[:n:n])
		data = data[n:]
	}
	if len(parts) > maxBlocks {
		return nil, fmt.Errorf("%w: %d blocks of %d bytes, %d blocks at most", ErrCommand, len(parts), size, maxBlocks)
	}
	return parts, nil
}

// DataLimiter is offered by senders that say how many bytes of command data
// they can carry, such as a session of package scp at its level.
type DataLimiter interface{ MaxData() int }

// MaxData returns how many bytes of command data the sender carries in one
// short command: what it says itself, or 255.
func MaxData(s iso7816.Sender) int {
	if l, ok := s.(DataLimiter); ok {
		return min(l.MaxData(), iso7816.MaxShortData)
	}
	return iso7816.MaxShortData
}

// LoadOptions say how a CAP file is loaded.
type LoadOptions struct {
	SecurityDomain iso7816.AID // that the load file shall belong to; zero is the one selected
	Hash           []byte      // see [InstallForLoad]; nil sends none
	Parameters     LoadParameters
	Token          []byte
	DAP            []DAPBlock
	// Cipher enciphers the load file data block, for a Security Domain that
	// wants it (C.6). The hash is then mandatory, of the block in the clear, and
	// no shorter than table C-3 says.
	Cipher    *LoadFileCipher
	BlockSize int // most bytes per LOAD command; 0 and too much are what the sender carries
}

// LoadError is a load that failed after it had begun.
type LoadError struct {
	Done, Total int // blocks that the card had acknowledged, and all
	Err         error
}

func (e *LoadError) Error() string {
	return fmt.Sprintf("loading stopped after block %d of %d: %v", e.Done, e.Total, e.Err)
}

func (e *LoadError) Unwrap() error { return e.Err }

// Load loads a CAP file: INSTALL [for load], then its LOAD commands. progress,
// unless nil, is told after each acknowledged block how many of how many are
// done. The result is the confirmation, as [Execute] returns it. A failure
// after INSTALL [for load] is a [*LoadError]; the card then has no load file,
// unless only the last answer was lost.
func Load(ctx context.Context, s iso7816.Sender, file *capfile.File, o LoadOptions, progress func(done, total int)) ([]byte, error) {
	return load(ctx, s, file, o, InstallForLoad{
		LoadFile: file.Package.AID, SecurityDomain: o.SecurityDomain, Hash: o.Hash, Parameters: o.Parameters, Token: o.Token,
	}, o.Hash, progress)
}

// LoadCombined loads a CAP file and installs an application of it in the
// combined process (9.3.8): the one INSTALL command, LOAD, the other. What is
// loaded is c.Load's business; o says how the blocks are cut and which DAP
// blocks there are. Otherwise it is as Load, with the confirmation of the whole.
func LoadCombined(ctx context.Context, s iso7816.Sender, file *capfile.File, c CombinedInstall, o LoadOptions, progress func(done, total int)) ([]byte, error) {
	if c.Load.LoadFile != file.Package.AID {
		return nil, fmt.Errorf("%w: load file %v, but the CAP file is of package %v", ErrCommand, c.Load.LoadFile, file.Package.AID)
	}
	end := c.End()
	if _, err := end.Command(); err != nil { // before anything is sent
		return nil, err
	}
	if _, err := load(ctx, s, file, o, c.Begin(), c.Load.Hash, progress); err != nil {
		return nil, err
	}
	return Execute(ctx, s, end)
}

func load(ctx context.Context, s iso7816.Sender, file *capfile.File, o LoadOptions, install Commander, hash []byte, progress func(done, total int)) ([]byte, error) {
	var loadFile []byte
	var err error
	if c := o.Cipher; c == nil {
		loadFile, err = LoadFile(file.LoadFileDataBlock(), o.DAP...)
	} else if len(hash) < c.LeastHash() {
		err = fmt.Errorf("%w: hash of %d bytes beside a ciphered load file, %d at least (table C-3)", ErrCommand, len(hash), c.LeastHash())
	} else {
		loadFile, err = CipheredLoadFile(file.LoadFileDataBlock(), *c, o.DAP...)
	}
	if err != nil {
		return nil, err
	}
	size := MaxData(s)
	if o.BlockSize > 0 {
		size = min(size, o.BlockSize)
	}
	blocks, err := LoadBlocks(loadFile, size)
	if err != nil {
		return nil, err
	}
	if _, err := Execute(ctx, s, install); err != nil {
		return nil, err
	}
	var confirmation []byte
	for i, b := range blocks {
		if confirmation, err = Execute(ctx, s, b); err != nil {
			return nil, &LoadError{Done: i, Total: len(blocks), Err: err}
		}
		if progress != nil {
			progress(i+1, len(blocks))
		}
	}
	return confirmation, nil
}
