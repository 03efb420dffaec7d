package strictjson

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"iter"
	"math/bits"
	"unicode/utf8"
)

// maxDepth is the depth of nested objects and arrays up to which encoding/json accepts a text.
const maxDepth = 10_000

// bad is the result of a function that finds an error instead of the end of a part.
const bad = -1

// Walk reports whether data is one JSON text in UTF-8, as json.Valid and utf8.Valid do together, in one pass. If it is
// an object, Walk adds its members to top, and the members of its member named inner to nested, if that is an object
// too; after an error they hold some of the members. nil: the members are not needed. Walk does not block, and
// allocates only for an object of unusual size, for escaped names and for deep nesting.
func Walk(data []byte, inner string, top, nested *Members) bool {
	w := walker{data: data, inner: inner}
	return w.walk(top, nested)
}

// Pair is a member of an object in a text.
type Pair struct {
	// Name is decoded as by encoding/json.
	Name []byte
	// From and To are the bounds of the value in the text, and at is where the name begins.
	From, To, at int
}

// usualMembers holds the members of most objects, so that they need no allocation.
const usualMembers = 12

// Members are the members of an object in their order, duplicates among them. The zero value is empty.
type Members struct {
	usual [usualMembers]Pair
	count int
	more  []Pair
}

// Len returns the number of members.
func (m *Members) Len() int { return m.count + len(m.more) }

// Find returns the first member with a name, or nil.
func (m *Members) Find(name string) *Pair {
	for i := range m.usual[:m.count] {
		if p := &m.usual[i]; string(p.Name) == name {
			return p
		}
	}
	for i := range m.more {
		if p := &m.more[i]; string(p.Name) == name {
			return p
		}
	}
	return nil
}

// All iterates over the members.
func (m *Members) All() iter.Seq[Pair] {
	return func(yield func(Pair) bool) {
		for _, p := range m.usual[:m.count] {
			if !yield(p) {
				return
			}
		}
		for _, p := range m.more {
			if !yield(p) {
				return
			}
		}
	}
}

// Twice returns the first name that occurs for the second time.
func (m *Members) Twice() (name []byte, found bool) {
	for i := range m.count {
		for j := range i {
			if string(m.usual[i].Name) == string(m.usual[j].Name) {
				return m.usual[i].Name, true
			}
		}
	}
	if m.more == nil {
		return nil, false
	}
	seen := make(map[string]struct{}, m.Len())
	for p := range m.All() {
		if _, twice := seen[string(p.Name)]; twice {
			return p.Name, true
		}
		seen[string(p.Name)] = struct{}{}
	}
	return nil, false
}

func (m *Members) add(p Pair) {
	if m.count < usualMembers {
		m.usual[m.count] = p
		m.count++
		return
	}
	m.more = append(m.more, p)
}

// walker walks over one text. Its methods get the index at which a part begins and return the one behind it, or bad.
type walker struct {
	data  []byte
	inner string
	// anyBytes: strings need not be UTF-8, as for json.Valid.
	anyBytes bool
}

// walk reports whether the whole text is valid.
func (w *walker) walk(top, nested *Members) bool {
	i := skipSpace(w.data, 0)
	if i < len(w.data) && w.data[i] == '{' && top != nil {
		i = w.members(i, 1, top, nested)
	} else {
		i = w.skip(i, 0)
	}
	return i != bad && skipSpace(w.data, i) == len(w.data)
}

// members walks over the object at i and adds its members to into, and those of its member inner to nested unless that
// is nil. depth counts the object and those around it. (Were nested a field of the walker, both results would be
// allocated.)
func (w *walker) members(i, depth int, into, nested *Members) int {
	if i = skipSpace(w.data, i+1); i < len(w.data) && w.data[i] == '}' {
		return i + 1
	}
	for {
		end, escaped := w.text(i)
		from := w.colon(end)
		if from == bad {
			return bad
		}
		p := Pair{Name: w.data[i+1 : end-1], From: from, at: i}
		if escaped {
			p.Name = unescape(w.data[i:end])
		}
		if nested != nil && string(p.Name) == w.inner && from < len(w.data) && w.data[from] == '{' {
			p.To = w.members(from, depth+1, nested, nil)
		} else {
			p.To = w.skip(from, depth)
		}
		if p.To == bad {
			return bad
		}
		into.add(p)
		if i = skipSpace(w.data, p.To); i == len(w.data) {
			return bad
		}
		switch w.data[i] {
		case '}':
			return i + 1
		case ',':
			i = skipSpace(w.data, i+1)
		default:
			return bad
		}
	}
}

// unescape decodes a valid name.
func unescape(quoted []byte) []byte {
	var name string
	// A copy: json.Unmarshal lets its input escape, and with it everything that the walker points to.
	_ = json.Unmarshal(bytes.Clone(quoted), &name) // a string, as text has found
	return []byte(name)
}

// colon returns the index of the value behind the name that ends at i.
func (w *walker) colon(i int) int {
	if i == bad {
		return bad
	}
	if i = skipSpace(w.data, i); i == len(w.data) || w.data[i] != ':' {
		return bad
	}
	return skipSpace(w.data, i+1)
}

// skip walks over the value at i; depth is the number of objects and arrays around it. It does not recurse, so that a
// deeply nested text takes no stack.
func (w *walker) skip(i, depth int) int {
	var room [32]byte
	ends := room[:0] // of the open objects and arrays, outermost first
	for {
		if i >= len(w.data) {
			return bad
		}
		switch c := w.data[i]; c {
		case '{', '[':
			if depth+len(ends) == maxDepth {
				return bad
			}
			ends = append(ends, c+2) // in ASCII, a bracket and its counterpart
			if i = skipSpace(w.data, i+1); i < len(w.data) && w.data[i] == c+2 {
				break // empty, its end follows
			}
			if c == '{' {
				end, _ := w.text(i)
				i = w.colon(end)
			}
			if i == bad {
				return bad
			}
			continue
		default:
			i = w.scalar(i)
		}
		var ended bool
		if i, ends, ended = w.next(i, ends); ended || i == bad {
			return i
		}
	}
}

// next returns the index of the value that follows behind a value which ends at i, in one of the open objects and
// arrays, or that of their end.
func (w *walker) next(i int, ends []byte) (at int, open []byte, ended bool) {
	for i != bad && len(ends) > 0 {
		if i = skipSpace(w.data, i); i == len(w.data) {
			return bad, ends, false
		}
		last := len(ends) - 1
		switch w.data[i] {
		case ends[last]:
			i, ends = i+1, ends[:last]
			continue
		case ',':
			i = skipSpace(w.data, i+1)
		default:
			return bad, ends, false
		}
		if ends[last] == '}' {
			end, _ := w.text(i)
			i = w.colon(end)
		}
		return i, ends, false
	}
	return i, ends, true
}

// scalar walks over a value that is neither an object nor an array.
func (w *walker) scalar(i int) int {
	switch w.data[i] {
	case '"':
		end, _ := w.text(i)
		return end
	case 't':
		return w.literal(i, "true")
	case 'f':
		return w.literal(i, "false")
	case 'n':
		return w.literal(i, "null")
	}
	return w.number(i)
}

func (w *walker) literal(i int, text string) int {
	if end := i + len(text); end <= len(w.data) && string(w.data[i:end]) == text {
		return end
	}
	return bad
}

func (w *walker) number(i int) int {
	if w.data[i] == '-' {
		i++
	}
	switch {
	case i == len(w.data):
		return bad
	case w.data[i] == '0': // which no other digit follows
		i++
	default:
		if i = w.digits(i); i == bad {
			return bad
		}
	}
	if i < len(w.data) && w.data[i] == '.' {
		if i = w.digits(i + 1); i == bad {
			return bad
		}
	}
	if i < len(w.data) && (w.data[i] == 'e' || w.data[i] == 'E') {
		if i++; i < len(w.data) && (w.data[i] == '+' || w.data[i] == '-') {
			i++
		}
		return w.digits(i)
	}
	return i
}

// digits walks over one digit or more.
func (w *walker) digits(i int) int {
	begin := i
	for i < len(w.data) && w.data[i] >= '0' && w.data[i] <= '9' {
		i++
	}
	if i == begin {
		return bad
	}
	return i
}

// text walks over a string and reports whether it has escapes.
func (w *walker) text(i int) (end int, escaped bool) {
	if i >= len(w.data) || w.data[i] != '"' {
		return bad, false
	}
	for i++; ; {
		if i = plain(w.data, i); i == len(w.data) {
			return bad, escaped
		}
		switch c := w.data[i]; {
		case c == '"':
			return i + 1, escaped
		case c == '\\':
			escaped = true
			if i = w.escape(i + 1); i == bad {
				return bad, true
			}
		case c < ' ':
			return bad, escaped
		default:
			r, size := utf8.DecodeRune(w.data[i:])
			if r == utf8.RuneError && size == 1 && !w.anyBytes {
				return bad, escaped
			}
			i += size
		}
	}
}

// escape walks over the part of an escape that follows its backslash.
func (w *walker) escape(i int) int {
	if i == len(w.data) {
		return bad
	}
	switch w.data[i] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 1
	case 'u':
	default:
		return bad
	}
	end := i + len("u0000")
	if end > len(w.data) {
		return bad
	}
	for _, c := range w.data[i+1 : end] {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F') {
			return bad
		}
	}
	return end
}

// plain returns the index of the first byte from i on that is not an ASCII character which stands for itself in a
// string. It compares eight bytes at a time.
func plain(data []byte, i int) int {
	const (
		ones = 0x0101010101010101
		tops = 0x80 * ones
	)
	for ; i+8 <= len(data); i += 8 {
		x := binary.LittleEndian.Uint64(data[i:])
		quote, backslash := x^'"'*ones, x^'\\'*ones
		// The lowest top bit that is set belongs to the first such byte: subtracting borrows from higher bytes only.
		if found := (x | (x-' '*ones)&^x | (quote-ones)&^quote | (backslash-ones)&^backslash) & tops; found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	for i < len(data) && data[i] >= ' ' && data[i] != '"' && data[i] != '\\' && data[i] < utf8.RuneSelf {
		i++
	}
	return i
}
