package strictjson

// Len returns the number of elements of an array, or of members of an object, at the outermost level. Other values have
// none, and in a text that is not valid, those ahead of the fault count. It allocates nothing, so it may precede the
// decoding of a large text, which takes many times the memory.
func Len(data []byte) (n int) {
	i := skipSpace(data, 0)
	if i == len(data) || data[i] != '{' && data[i] != '[' {
		return 0
	}
	w, object := walker{data: data, anyBytes: true}, data[i] == '{'
	for i = skipSpace(data, i+1); i < len(data) && data[i] != '}' && data[i] != ']'; n++ {
		if object {
			end, _ := w.text(i)
			i = w.colon(end)
		}
		if i != bad {
			i = w.skip(i, 1)
		}
		if i == bad {
			return n
		}
		if i = skipSpace(data, i); i < len(data) && data[i] == ',' {
			i = skipSpace(data, i+1)
		}
	}
	return n
}
