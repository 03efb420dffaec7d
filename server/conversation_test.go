package server_test

import (
	"os"
	"strings"
	"testing"
)

// The files hold every message of the protocol, byte for byte, in the order of a conversation.
func TestConversations(t *testing.T) {
	for name, subprotocols := range map[string][]string{"base": nil, "v1": {"shoal.v1"}} {
		t.Run(name, func(t *testing.T) {
			script, err := os.ReadFile("testdata/" + name + ".txt")
			if err != nil {
				t.Fatal(err)
			}
			n := start(t)
			n.t = t
			play(t, n, n.open(subprotocols...), strings.Split(strings.TrimSpace(string(script)), "\n"))
		})
	}
}

func play(t *testing.T, n *node, c *client, script []string) {
	t.Helper()
	epochs := strings.NewReplacer()
	for i, line := range script {
		text := line[2:]
		switch line[0] {
		case '>':
			c.send(epochs.Replace(text))
		case '!':
			n.publishJSON("u1", text)
		case '<':
			got := c.next()
			if strings.Contains(text, `"epoch":"E1"`) {
				_, position, _ := n.manager.Newest(t.Context(), "u1")
				epochs = strings.NewReplacer(`"E1"`, `"`+position.Epoch+`"`)
			}
			if want := epochs.Replace(text); got != want {
				t.Fatalf("line %d:\ngot  %s\nwant %s", i+1, got, want)
			}
		}
	}
}
