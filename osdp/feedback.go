package osdp

import (
	"encoding/binary"
	"fmt"
	"time"
)

// unit is the unit of times in LED and buzzer commands.
const unit = 100 * time.Millisecond

// Color of an LED.
type Color byte

// Colours that the protocol names.
const (
	Black Color = iota
	Red
	Green
	Amber
	Blue
	Magenta
	Cyan
	White
)

func (c Color) String() string {
	if int(c) < len(colors) {
		return colors[c]
	}
	return fmt.Sprintf("Color(%d)", byte(c))
}

var colors = [...]string{"black", "red", "green", "amber", "blue", "magenta", "cyan", "white"}

// Blink is how an LED shines: On in one colour, Off in the other, again and again.
type Blink struct {
	On, Off           time.Duration
	OnColor, OffColor Color
}

// LED is one record of the LED command (osdp_LED).
type LED struct {
	Reader, Number byte
	// Temporary is shown for Time and then gives way to what is permanent;
	// nil when the panel leaves it as it is. Cancel ends it at once.
	Temporary *Blink
	Time      time.Duration
	Cancel    bool
	// Permanent is shown from now on; nil when the panel leaves it as it is.
	Permanent *Blink
}

// Buzzer is the buzzer command (osdp_BUZ).
type Buzzer struct {
	Reader  byte
	Off     bool // silence
	On, Gap time.Duration
	Count   byte // 0 goes on until the next command
}

// Text is the text command (osdp_TEXT).
type Text struct {
	Reader      byte
	Time        time.Duration // 0: permanent
	Row, Column byte          // from 1
	Text        string        // ASCII
}

const ledSize = 14

// leds carries out an LED command: any number of records, all or none.
func (d *Device) leds(data []byte) reply {
	if len(data) == 0 || len(data)%ledSize != 0 {
		return nak(nakLength)
	}
	var records []LED
	for ; len(data) > 0; data = data[ledSize:] {
		l, ok := parseLED(data[:ledSize])
		if !ok {
			return nak(nakRecord)
		}
		records = append(records, l)
	}
	if d.c.LED != nil {
		for _, l := range records {
			d.c.LED(l)
		}
	}
	return acknowledge()
}

func parseLED(b []byte) (l LED, ok bool) {
	l.Reader, l.Number = b[0], b[1]
	if l.Reader != 0 || l.Number != 0 || b[2] > 2 || b[9] > 1 {
		return l, false
	}
	blink := func(b []byte) *Blink {
		return &Blink{On: time.Duration(b[0]) * unit, Off: time.Duration(b[1]) * unit, OnColor: Color(b[2]), OffColor: Color(b[3])}
	}
	l.Cancel = b[2] == 1
	if b[2] == 2 {
		l.Temporary, l.Time = blink(b[3:]), time.Duration(binary.LittleEndian.Uint16(b[7:]))*unit
	}
	if b[9] == 1 {
		l.Permanent = blink(b[10:])
	}
	for _, s := range []*Blink{l.Temporary, l.Permanent} {
		if s != nil && s.On == 0 && s.Off == 0 {
			return l, false
		}
	}
	return l, true
}

func (d *Device) buzzer(b []byte) reply {
	beep := Buzzer{Reader: b[0], Off: b[1] == 1, On: time.Duration(b[2]) * unit, Gap: time.Duration(b[3]) * unit, Count: b[4]}
	if b[0] != 0 || b[1] > 2 || b[1] == 2 && b[2] == 0 {
		return nak(nakRecord)
	}
	if d.c.Buzzer != nil && b[1] != 0 {
		d.c.Buzzer(beep)
	}
	return acknowledge()
}

func (d *Device) text(b []byte) reply {
	const header = 6
	if len(b) < header || len(b) != header+int(b[5]) {
		return nak(nakLength)
	}
	if b[0] != 0 || b[1] < 1 || b[1] > 4 || b[3] == 0 || b[4] == 0 {
		return nak(nakRecord)
	}
	t := Text{Reader: b[0], Row: b[3], Column: b[4], Text: string(b[header:])}
	if b[1] > 2 { // temporary, without and with wrapping
		t.Time = time.Duration(b[2]) * time.Second
	}
	for _, r := range []byte(t.Text) {
		if r < ' ' || r > '~' {
			return nak(nakRecord)
		}
	}
	if d.c.Text != nil {
		d.c.Text(t)
	}
	return acknowledge()
}
