package readerd

import (
	"fmt"
	"io"

	"go.bug.st/serial"
)

// openSerial opens a serial line as OSDP wants it: 8 data bits, no parity, 1
// stop bit (SIA OSDP 2.2, 4.2).
func openSerial(path string, baud int) (io.ReadWriteCloser, error) {
	port, err := serial.Open(path, &serial.Mode{BaudRate: baud, DataBits: 8})
	if err != nil {
		return nil, fmt.Errorf("serial line %s: %w", path, err)
	}
	return port, nil
}
