package systems

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/shoal-go/shoal/internal/load"
)

// path is where the adapters upgrade.
const path = "/ws"

// Every adapter whose library has no protocol of its own speaks the same few messages with its clients:
// authentication, then one subscription, each acknowledged.

// request is a message of such a client.
type request struct {
	Type     string `json:"type"`
	Token    string `json:"token"`
	Action   string `json:"action"`
	UploadID string `json:"upload_id"`
}

// answer returns the answer to a client's message, and the channel that it subscribes to, if it does.
func answer(data []byte) (reply []byte, channel string, err error) {
	var r request
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, "", fmt.Errorf("systems: a client's message is not JSON: %w", err)
	}
	switch {
	case r.Type == "auth" && r.Token != "":
		return fmt.Appendf(nil, `{"action":"auth_success","user_id":%q}`, r.Token), "", nil
	case r.Action == "subscribe_upload" && r.UploadID != "":
		return fmt.Appendf(nil, `{"action":"subscribed","upload_id":%q}`, r.UploadID), r.UploadID, nil
	}
	return nil, "", errors.New("systems: a client's message is neither auth nor subscribe_upload")
}

// hello returns the messages of client i of such an audience.
func (a Audience) hello(i int) [][]byte {
	return [][]byte{
		fmt.Appendf(nil, `{"type":"auth","token":"user-%d"}`, i),
		fmt.Appendf(nil, `{"action":"subscribe_upload","upload_id":%q}`, a.channelOf(i)),
	}
}

// countProgress counts a published message. Those of all systems without an envelope begin alike.
var countProgress = load.Beginning(`{"action":"upload_p`)

// plain is the dialect of the adapters that speak these messages.
func plain(a Audience) load.Dialect {
	return load.Dialect{Path: path, Hello: a.hello, Ready: has(`"action":"subscribed"`), Data: countProgress}
}

// has returns a function that reports whether a payload contains a text.
func has(text string) func([]byte) bool {
	return func(payload []byte) bool { return bytes.Contains(payload, []byte(text)) }
}

// userOf takes the user out of a token.
func userOf(token string) (string, error) {
	if !strings.HasPrefix(token, "user-") {
		return "", errors.New("systems: the token is not of the form user-N")
	}
	return token, nil
}
