package server

import "github.com/shoal-go/shoal/manager"

// decodePlain decodes a client's message in the form that nearly all of them have: an object of the known fields,
// each once, with strings of printable ASCII without escapes. It reports false for all others, and says nothing
// about whether they are right: that is left to encoding/json, which takes several times as long and would come
// to the same for these. r must be empty, and is of no use after false.
func decodePlain(data []byte, r *request) bool {
	p := plain{rest: data}
	seen := 0
	p.object(func(key []byte) {
		seen |= p.field(key, seen, r)
	})
	p.space()
	return len(p.rest) == 0 && !p.strange
}

// field decodes one field and returns its mark, which must not be among those that were seen.
func (p *plain) field(key []byte, seen int, r *request) (mark int) {
	switch string(key) {
	case "action":
		mark, r.Action = 1, p.text()
	case "type":
		mark, r.Type = 2, p.text()
	case "token":
		mark, r.Token = 4, p.text()
	case "upload_id":
		mark, r.UploadID = 8, p.text()
	case "since":
		mark, r.Since = 16, new(manager.Position)
		p.position(r.Since)
	case "uploads":
		mark, r.Uploads = 32, map[string]manager.Position{}
		p.object(func(key []byte) {
			var at manager.Position
			p.position(&at)
			if _, twice := r.Uploads[string(key)]; twice {
				p.strange = true
			}
			r.Uploads[string(key)] = at
		})
	}
	if mark == 0 || seen&mark != 0 {
		p.strange = true
	}
	return mark
}

// plain is what is left of a message. strange: it is not of the plain form, and nothing that was decoded counts.
type plain struct {
	rest    []byte
	strange bool
}

// space skips white space and returns the byte behind it, 0 at the end.
func (p *plain) space() byte {
	for i, b := range p.rest {
		if b != ' ' && b != '\t' && b != '\n' && b != '\r' {
			p.rest = p.rest[i:]
			return b
		}
	}
	p.rest = nil
	return 0
}

// skip skips white space and one byte, which must be this one.
func (p *plain) skip(b byte) {
	if p.space() != b || b == 0 {
		p.strange, p.rest = true, nil
		return
	}
	p.rest = p.rest[1:]
}

// object calls field for each key of an object, with the value still to come.
func (p *plain) object(field func(key []byte)) {
	p.skip('{')
	if p.space() == '}' {
		p.skip('}')
		return
	}
	for !p.strange {
		key := p.string()
		p.skip(':')
		field(key)
		if p.space() != ',' {
			break
		}
		p.skip(',')
	}
	p.skip('}')
}

func (p *plain) text() string { return string(p.string()) }

func (p *plain) string() []byte {
	p.skip('"')
	for i, b := range p.rest {
		switch {
		case b == '"':
			s := p.rest[:i]
			p.rest = p.rest[i+1:]
			return s
		case b < ' ' || b > '~' || b == '\\':
			p.strange = true
			return nil
		}
	}
	p.strange = true
	return nil
}

// number decodes a number that has no sign, no leading zero, and surely room in a uint64.
func (p *plain) number() (n uint64) {
	const most = 19
	p.space()
	i := 0
	for ; i < len(p.rest) && p.rest[i] >= '0' && p.rest[i] <= '9'; i++ {
		n = 10*n + uint64(p.rest[i]-'0')
	}
	if i == 0 || i > most || i > 1 && p.rest[0] == '0' {
		p.strange = true
	}
	p.rest = p.rest[i:]
	return n
}

func (p *plain) position(at *manager.Position) {
	const epoch, offset = 1, 2
	seen := 0
	p.object(func(key []byte) {
		mark := 0
		switch string(key) {
		case "epoch":
			mark, at.Epoch = epoch, p.text()
		case "offset":
			mark, at.Offset = offset, p.number()
		}
		if mark == 0 || seen&mark != 0 {
			p.strange = true
		}
		seen |= mark
	})
}
