package message

import (
	"encoding/json"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMessageHasItsSize(t *testing.T) {
	for _, size := range []int{MinSize, 300, 4096} {
		m := Message{Channel: "u14999", Sent: 1_790_000_000_123_456_789, Number: 60_000_000, Size: size}
		if got := m.JSON(); len(got) != size || !json.Valid(got) {
			t.Errorf("a message of %d bytes has %d: %s", size, len(got), got)
		}
		if got := m.AppendEvent(nil); len(got) != size || !json.Valid(got) {
			t.Errorf("an event of %d bytes has %d: %s", size, len(got), got)
		}
	}
}

func TestSendTimeAndNumberComeBack(t *testing.T) {
	m := Message{Channel: "u7", Sent: 1_790_000_000_123_456_789, Number: 42, Size: MinSize}
	for _, payload := range [][]byte{
		m.JSON(),
		m.AppendEvent(nil),
		append(append([]byte(`{"push":{"channel":"u7","pub":{"data":`), m.JSON()...), `}}}`...),
	} {
		if sent, ok := SentAt(payload); !ok || sent != m.Sent {
			t.Errorf("SentAt of %s = %d, %v", payload, sent, ok)
		}
		if sent, n, ok := Read(payload); !ok || sent != m.Sent || n != m.Number {
			t.Errorf("Read of %s = %d, %d, %v", payload, sent, n, ok)
		}
	}
}

func TestOtherPayloadsHaveNoTime(t *testing.T) {
	for _, payload := range []string{
		``, `{"action":"ping"}`, `"message":"`, `"message":"12`, `"message":" 12`, `"message":"Hello you"`,
		`"message":"zzzzzzzzzzzzzzzzzzzz 1 "`,
	} {
		if sent, ok := SentAt([]byte(payload)); ok {
			t.Errorf("SentAt of %q = %d", payload, sent)
		}
	}
}
