package app

import (
	"io"
	"strings"

	"github.com/mattn/go-runewidth"
)

// table lines columns up for people. Unlike text/tabwriter it knows that
// Japanese characters take two columns of a terminal.
type table struct{ rows [][]string }

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// write prints the rows, with two spaces between columns and none at the end.
func (t *table) write(w io.Writer, indent string) error {
	var widths []int
	for _, row := range t.rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], runewidth.StringWidth(cell))
		}
	}
	var b strings.Builder
	for _, row := range t.rows {
		line := indent
		for i, cell := range row {
			line += cell + strings.Repeat(" ", widths[i]-runewidth.StringWidth(cell)+2)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
