package frame

import "bytes"

// namesUpload reports whether a message names its upload: by a top-level "upload_id", or by one in its "payload" with
// the id of the upload. body is one valid JSON object.
func namesUpload(body []byte, uploadID string) bool {
	if !bytes.Contains(body, []byte(`"upload_id"`)) {
		return false
	}
	depth, inPayload := 0, false
	for i := 0; i < len(body); {
		switch body[i] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case '"':
			end := skipString(body, i)
			name := body[i+1 : end-1]
			next := skipSpace(body, end)
			i = next
			if next == len(body) || body[next] != ':' { // a value
				continue
			}
			value := skipSpace(body, next+1)
			switch {
			case depth == 1 && string(name) == "upload_id":
				return true
			case depth == 1:
				inPayload = string(name) == "payload" && value < len(body) && body[value] == '{'
			case depth == 2 && inPayload && string(name) == "upload_id" && isText(body[value:], uploadID):
				return true
			}
			i = value
			continue
		}
		i++
	}
	return false
}

// isText reports whether JSON begins with a string without escapes that is text.
func isText(json []byte, text string) bool {
	n := len(text)
	return len(json) >= n+2 && json[0] == '"' && string(json[1:n+1]) == text && json[n+1] == '"'
}

// skipString returns the index behind the string that begins at i.
func skipString(body []byte, i int) int {
	for i++; i < len(body) && body[i] != '"'; i++ {
		if body[i] == '\\' {
			i++
		}
	}
	return min(i+1, len(body))
}

func skipSpace(body []byte, i int) int {
	for i < len(body) && (body[i] == ' ' || body[i] == '\t' || body[i] == '\n' || body[i] == '\r') {
		i++
	}
	return i
}

// appendUploadField appends the member that names an upload. An id has no control characters, so the quote and the
// backslash alone need an escape.
func appendUploadField(dst []byte, uploadID string) []byte {
	dst = append(dst, uploadField...)
	for i := range len(uploadID) {
		if b := uploadID[i]; b == '"' || b == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, uploadID[i])
	}
	return append(dst, '"')
}
