package printable

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestText_ReplacesUnprintableCharacters(t *testing.T) {
	if got := Text("a\nb\x1b[31mc\xff–ü"); got != "a b [31mc –ü" {
		t.Errorf("the text is %q", got)
	}
	for n, want := range map[int]string{0: "", 2: "ab", 4: "ab  ", 9: "ab ü"} {
		text := "ab\tü"
		if got := Beginning(text, n); got != want {
			t.Errorf("the first %d bytes are %q, want %q", n, got, want)
		}
	}
}
