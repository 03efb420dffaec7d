package manager

import (
	"bytes"
	"encoding/json"
)

// eachField calls fn with the fields of a JSON object, in their order, until fn returns false. data must be a JSON
// object that encoding/json has already validated; eachField therefore only searches for the boundaries of values.
func eachField(data []byte, fn func(name, value []byte) bool) {
	i := skipSpace(data, 1) // behind the brace
	for data[i] != '}' {
		end := skipString(data, i)
		name, _ := textOf(data[i:end])
		i = skipSpace(data, end) // at the colon
		i = skipSpace(data, i+1) // at the value
		end = skipValue(data, i) // behind it
		if !fn(name, data[i:end:end]) {
			return
		}
		i = skipSpace(data, end) // at a comma or the brace
		if data[i] == ',' {
			i = skipSpace(data, i+1)
		}
	}
}

// textOf returns a valid JSON value without its quotes and escapes, and whether it is a string. The text is a part
// of the value unless that has escapes, which are left to encoding/json: asking it costs more than all else that is
// done with a field.
func textOf(value []byte) (text []byte, ok bool) {
	if value[0] != '"' {
		return nil, false
	}
	if bytes.IndexByte(value, '\\') < 0 {
		return value[1 : len(value)-1], true
	}
	var decoded string
	err := json.Unmarshal(value, &decoded)
	return []byte(decoded), err == nil
}

func skipSpace(data []byte, i int) int {
	for data[i] == ' ' || data[i] == '\t' || data[i] == '\n' || data[i] == '\r' {
		i++
	}
	return i
}

// skipString returns where the string that begins at i ends.
func skipString(data []byte, i int) int {
	for i++; data[i] != '"'; i++ {
		if data[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// skipValue returns where the value that begins at i ends.
func skipValue(data []byte, i int) int {
	switch data[i] {
	case '"':
		return skipString(data, i)
	case '{', '[':
		return skipNested(data, i)
	}
	for ; i < len(data); i++ {
		switch data[i] {
		case ',', '}', ']', ' ', '\t', '\n', '\r':
			return i
		}
	}
	return i
}

// skipNested returns where the object or array that begins at i ends.
func skipNested(data []byte, i int) int {
	depth := 0
	for {
		switch data[i] {
		case '"':
			i = skipString(data, i)
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		i++
		if depth == 0 {
			return i
		}
	}
}
