package loadgen

import (
	"bytes"
	"strings"
	"testing"
)

func TestRequestsThatMakeNoSense(t *testing.T) {
	for request, want := range map[string]string{
		`{"do":"wait"}`:                   "no clients are open",
		`{"do":"open","system":"nobody"}`: "is unknown",
		`{"do":"open","system":"gws"}`:    "Options.Addr",
		`{"do":"open","system":"shoal","addr":"127.0.0.1:1","connections":-1}`: "Options.Connections",
	} {
		var out bytes.Buffer
		if err := Run(t.Context(), strings.NewReader(request+"\n"), &out); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), want) {
			t.Errorf("the answer to %s is %s, want something with %q", request, &out, want)
		}
	}
}
