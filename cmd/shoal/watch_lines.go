package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"unicode"
	"unicode/utf16"

	"golang.org/x/term"

	"github.com/shoal-go/shoal/client"
)

// watchView shows uploads. Its methods may be called from any goroutine. An error means that the output is gone.
type watchView interface {
	begin(uploads []*watched)
	// message shows a message. changed: it changes the state of the upload.
	message(u *watched, m client.Message, changed bool) error
	// changed shows the state of an upload that has changed without a message.
	changed(u *watched) error
	// note shows a line about the connection.
	note(text string) error
	end()
}

// newWatchView returns bars on a terminal and lines elsewhere.
func newWatchView(std streams, asJSON bool) watchView {
	lines := &lineView{out: std.out, notes: std.err}
	if asJSON {
		return &jsonView{lineView: lines}
	}
	if file, ok := std.out.(*os.File); ok {
		columns, rows, err := term.GetSize(int(file.Fd()))
		if err == nil && columns > 0 && rows > 0 { // bars need the size
			return &barView{out: file, columns: columns}
		}
	}
	return lines
}

// lineView prints a line for each change.
type lineView struct {
	mu         sync.Mutex
	out, notes io.Writer
}

func (v *lineView) begin([]*watched) {}
func (v *lineView) end()             {}

func (v *lineView) message(u *watched, m client.Message, changed bool) error {
	if changed {
		return v.changed(u)
	}
	if m.Action == client.ActionProgress {
		return nil
	}
	return v.print(v.out, eventLine(u, m))
}

func (v *lineView) changed(u *watched) error {
	stage, pace, message := u.describe()
	line := u.name + ": " + stage
	if percent, known := u.percent(); known {
		line = fmt.Sprintf("%s: %.0f%% %s", u.name, percent, stage)
	}
	if message != "" {
		line += ": " + message
	}
	if pace != "" {
		line += " (" + pace + ")"
	}
	return v.print(v.out, line)
}

func (v *lineView) note(text string) error { return v.print(v.notes, "shoal: "+printable(text)) }

func (v *lineView) print(w io.Writer, line string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, err := fmt.Fprintln(w, line)
	return err
}

// eventLine describes a message of the application's own: by its text, if it has one, or by its JSON.
func eventLine(u *watched, m client.Message) string {
	text := string(m.Data)
	var body, payload map[string]any
	if json.Unmarshal(m.Data, &body) == nil {
		payload, _ = body["payload"].(map[string]any)
		for _, in := range []map[string]any{body, payload} {
			for _, name := range []string{"message", "text", "line"} {
				if s, ok := in[name].(string); ok && s != "" {
					text = s
				}
			}
		}
	}
	return fmt.Sprintf("%s: %s: %s", u.name, shown(m.Action), shown(text))
}

// jsonView prints each message as one line of JSON.
type jsonView struct{ *lineView }

func (v *jsonView) message(_ *watched, m client.Message, _ bool) error {
	return v.print(v.out, jsonLine(m.Data))
}

func (v *jsonView) changed(*watched) error { return nil }

// jsonLine returns a message in one line in which every character is printable: others are written as escapes, which
// means the same, since they can only occur within strings.
func jsonLine(data []byte) string {
	var compact bytes.Buffer
	if json.Compact(&compact, data) != nil {
		return ""
	}
	var b strings.Builder
	for _, r := range compact.String() {
		switch {
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xFFFF:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}
