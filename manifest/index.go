package manifest

import (
	"strconv"
	"strings"
)

// position is a place in a file; lines and columns count from 1, columns in
// bytes.
type position struct{ line, column int }

// keyIndex says where each key and each array element of a TOML document
// stands. The TOML library knows positions of syntax errors only.
type keyIndex map[string]position

// locate returns where a key stands, or the nearest table around it.
func (x keyIndex) locate(path string) position {
	for path != "" {
		if p, ok := x[path]; ok {
			return p
		}
		path = parentPath(path)
	}
	return position{line: 1}
}

// parentPath cuts the last key or array index off a path.
func parentPath(path string) string {
	quoted, cut := false, 0
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == '.' || c == '['):
			cut = i
		}
	}
	return path[:cut]
}

// joinKey appends a key to a path, quoted where TOML would quote it.
func joinKey(path, key string) string {
	for i := 0; i < len(key); i++ {
		if !isBare(key[i]) {
			key = strconv.Quote(key)
			break
		}
	}
	if key == "" {
		key = `""`
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

func joinIndex(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

func isBare(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

// indexKeys scans a document that the TOML library has accepted. On any other
// document it returns what it found before it lost its way.
func indexKeys(doc string) keyIndex {
	s := scanner{doc: doc, line: 1, index: keyIndex{}, tables: map[string]int{}}
	s.document()
	return s.index
}

type scanner struct {
	doc       string
	pos       int
	line      int
	lineStart int
	index     keyIndex
	tables    map[string]int // path of an array of tables → number of its tables
}

func (s *scanner) more() bool { return s.pos < len(s.doc) }

func (s *scanner) peek() byte {
	if s.more() {
		return s.doc[s.pos]
	}
	return 0
}

func (s *scanner) next() {
	if s.peek() == '\n' {
		s.line++
		s.lineStart = s.pos + 1
	}
	s.pos++
}

func (s *scanner) here() position { return position{s.line, s.pos - s.lineStart + 1} }

func (s *scanner) note(path string, at position) {
	if _, ok := s.index[path]; !ok {
		s.index[path] = at
	}
}

// blank skips blanks; with lines also ends of lines and comments.
func (s *scanner) blank(lines bool) {
	for s.more() {
		switch c := s.peek(); {
		case c == ' ' || c == '\t' || c == '\r' && lines || c == '\n' && lines:
			s.next()
		case c == '#' && lines:
			for s.more() && s.peek() != '\n' {
				s.next()
			}
		default:
			return
		}
	}
}

func (s *scanner) document() {
	if strings.HasPrefix(s.doc, "\ufeff") {
		s.pos = len("\ufeff")
		s.lineStart = s.pos
	}
	table := ""
	for {
		s.blank(true)
		if !s.more() {
			return
		}
		before := s.pos
		if s.peek() == '[' {
			table = s.header()
		} else {
			s.keyValue(table)
		}
		if s.pos == before {
			return
		}
	}
}

// header reads [a.b] or [[a.b]] and returns the path of the table it opens.
func (s *scanner) header() string {
	at := s.here()
	s.next()
	array := s.peek() == '['
	if array {
		s.next()
	}
	path := ""
	parts := s.key()
	for i, part := range parts {
		path = joinKey(path, part)
		last := i == len(parts)-1
		if last && array {
			s.note(path, at)
			n := s.tables[path]
			s.tables[path] = n + 1
			path = joinIndex(path, n)
		} else if n := s.tables[path]; n > 0 {
			path = joinIndex(path, n-1)
		}
		s.note(path, at)
	}
	for s.peek() == ']' {
		s.next()
	}
	return path
}

// key reads a dotted key.
func (s *scanner) key() []string {
	var parts []string
	for {
		s.blank(false)
		switch c := s.peek(); {
		case c == '"' || c == '\'':
			parts = append(parts, s.text())
		case isBare(c):
			start := s.pos
			for s.more() && isBare(s.peek()) {
				s.next()
			}
			parts = append(parts, s.doc[start:s.pos])
		default:
			return parts
		}
		s.blank(false)
		if s.peek() != '.' {
			return parts
		}
		s.next()
	}
}

func (s *scanner) keyValue(table string) {
	at := s.here()
	path := table
	for _, part := range s.key() {
		path = joinKey(path, part)
		s.note(path, at)
	}
	if s.peek() != '=' {
		return
	}
	s.next()
	s.blank(false)
	s.value(path)
}

func (s *scanner) value(path string) {
	switch s.peek() {
	case '"', '\'':
		s.text()
	case '[':
		s.next()
		for i := 0; ; i++ {
			s.blank(true)
			if !s.more() || s.peek() == ']' {
				s.next()
				return
			}
			before := s.pos
			element := joinIndex(path, i)
			s.note(element, s.here())
			s.value(element)
			s.comma()
			if s.pos == before {
				return
			}
		}
	case '{':
		s.next()
		for {
			s.blank(true)
			if !s.more() || s.peek() == '}' {
				s.next()
				return
			}
			before := s.pos
			s.keyValue(path)
			s.comma()
			if s.pos == before {
				return
			}
		}
	default:
		for s.more() && !strings.ContainsRune(",]}#\r\n", rune(s.peek())) {
			s.next()
		}
	}
}

func (s *scanner) comma() {
	s.blank(true)
	if s.peek() == ',' {
		s.next()
	}
}

// text reads a string of any of the four kinds. Its value matters for quoted
// keys only, which are of one line.
func (s *scanner) text() string {
	quote := s.doc[s.pos : s.pos+1]
	if triple := strings.Repeat(quote, 3); strings.HasPrefix(s.doc[s.pos:], triple) {
		s.pos += 3
		for s.more() && !strings.HasPrefix(s.doc[s.pos:], triple) {
			if quote == `"` && s.peek() == '\\' {
				s.next()
			}
			s.next()
		}
		// Up to two quotation marks may stand before the closing ones.
		for s.more() && s.peek() == quote[0] {
			s.next()
		}
		return ""
	}
	s.next()
	start := s.pos
	for s.more() && s.peek() != quote[0] && s.peek() != '\n' {
		if quote == `"` && s.peek() == '\\' {
			s.next()
		}
		s.next()
	}
	raw := s.doc[start:min(s.pos, len(s.doc))]
	s.next()
	if quote == `"` {
		return unescape(raw)
	}
	return raw
}

// unescape resolves the escapes of a basic string.
func unescape(raw string) string {
	if !strings.Contains(raw, `\`) {
		return raw
	}
	var b strings.Builder
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' || i+1 == len(raw) {
			b.WriteByte(raw[i])
			continue
		}
		i++
		digits := 0
		switch raw[i] {
		case 'b':
			b.WriteByte('\b')
		case 't':
			b.WriteByte('\t')
		case 'n':
			b.WriteByte('\n')
		case 'f':
			b.WriteByte('\f')
		case 'r':
			b.WriteByte('\r')
		case 'e':
			b.WriteByte(0x1b)
		case 'x':
			digits = 2
		case 'u':
			digits = 4
		case 'U':
			digits = 8
		default:
			b.WriteByte(raw[i])
		}
		if digits > 0 && i+digits < len(raw) {
			if n, err := strconv.ParseUint(raw[i+1:i+1+digits], 16, 32); err == nil {
				b.WriteRune(rune(n))
			}
			i += digits
		}
	}
	return b.String()
}
