package manager

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-go/shoal/internal/frame"
)

// noon is the time at which the messages of the golden files are sent, in a zone that is not UTC.
var noon = time.Date(2026, 1, 31, 13, 0, 0, 0, time.FixedZone("", 3600))

func golden(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(string(data), "\n")
}

// progress returns a valid message, changed as the test needs it.
func progress(change func(*UploadProgress)) UploadProgress {
	p := UploadProgress{
		UploadID: "up-1", Status: StatusAnalyzing, Stage: StageVisionAnalysis, Percent: 42.5, Message: "frame 17 of 40",
	}
	change(&p)
	return p
}

func TestEncode_MatchesGoldenFiles(t *testing.T) {
	fault, score := "the index is \"full\"", 87.25
	precise := time.Date(2026, 1, 31, 12, 0, 0, 123456000, time.UTC)
	for _, test := range []struct {
		file     string
		uploadID string
		message  Message
		class    frame.Class
		action   string
	}{
		{"upload_progress.json", "up-1", progress(func(*UploadProgress) {}), frame.State, "upload_progress"},
		{"upload_progress_full.json", "", progress(func(p *UploadProgress) {
			p.Status, p.Stage, p.Percent = StatusFailed, StageFailed, 100
			p.ErrorMessage, p.AuditScore, p.Timestamp = &fault, &score, precise
		}), frame.State, "upload_progress"},
		{"upload_completed.json", "up-1", UploadCompleted{
			Description: "A <cat> & a \"dog\"\\\n\t\r\x00\x7f\u2028 größer 🐟 \xff\xfe", AuditScore: 0.00001,
		}, frame.Terminal, "upload_completed"},
		{"upload_failed.json", "up/ü \"1\"", UploadFailed{ErrorMessage: "no space left"}, frame.Terminal, "upload_failed"},
	} {
		t.Run(test.file, func(t *testing.T) {
			e, err := test.message.encode(&vocabulary{}, test.uploadID, noon)
			if err != nil {
				t.Fatal(err)
			}
			want := golden(t, test.file)
			if got := string(e.Payload()); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			if e.class != test.class || e.Action() != test.action {
				t.Errorf("class %d and action %s, want %d and %s", e.class, e.Action(), test.class, test.action)
			}
			again, err := Parse(test.uploadID, e.Payload(), time.Time{})
			if err != nil || string(again.Payload()) != want || again.class != test.class {
				t.Errorf("parsed again: %s, %v", again.Payload(), err)
			}
		})
	}
}

func TestEncode_Refuses(t *testing.T) {
	bad, nan := -0.5, math.NaN()
	far := time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name, uploadID string
		message        Message
		field, problem string
	}{
		{"no upload", "", progress(func(p *UploadProgress) { p.UploadID = "" }), "payload.upload_id", "must not be empty"},
		{"other upload", "up-2", progress(func(*UploadProgress) {}), "payload.upload_id", "must be the id of the upload"},
		{"bad id", "", UploadFailed{UploadID: "a\nb"}, "upload_id", "control characters"},
		{"status", "", progress(func(p *UploadProgress) { p.Status = "Pending" }), "payload.status",
			`is "Pending", must be 1 to 64 characters of a-z 0-9 _ - .`},
		{"stage", "", progress(func(p *UploadProgress) { p.Stage = "" }), "payload.stage",
			`is "", must be 1 to 64 characters of a-z 0-9 _ - .`},
		{"percent", "", progress(func(p *UploadProgress) { p.Percent = 100.1 }), "payload.progress_percent", "from 0 to 100"},
		{"percent NaN", "", progress(func(p *UploadProgress) { p.Percent = nan }), "payload.progress_percent", "from 0 to 100"},
		{"score", "", progress(func(p *UploadProgress) { p.AuditScore = &bad }), "payload.description_audit_score", "from 0 to 100"},
		{"audit score", "up-1", UploadCompleted{AuditScore: bad}, "audit_score", "from 0 to 100"},
		{"completed elsewhere", "up-1", UploadCompleted{UploadID: "up-2"}, "upload_id", "must be the id"},
		{"failed elsewhere", "up-1", UploadFailed{UploadID: "up-2"}, "upload_id", "must be the id"},
		{"timestamp", "up-1", UploadFailed{Timestamp: far}, "timestamp", "years 0 to 9999"},
		{"nothing", "up-1", Encoded{}, "", "is empty"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := test.message.encode(&vocabulary{}, test.uploadID, noon)
			wantInvalid(t, err, test.field, test.problem)
		})
	}
}

// wantInvalid checks that err is an *InvalidError of the field whose problem contains the text.
func wantInvalid(t *testing.T, err error, field, problem string) {
	t.Helper()
	var invalid *InvalidError
	if !errors.As(err, &invalid) {
		t.Fatalf("got %v, want an *InvalidError", err)
	}
	if invalid.Field != field || !strings.Contains(invalid.Problem, problem) {
		t.Errorf("got %q: %s\nwant %q: …%s…", invalid.Field, invalid.Problem, field, problem)
	}
}

// SendToUser validates the upload that a message was parsed for, which the message need not contain.
func TestSendToUser_RefusesMessageParsedForInvalidUpload(t *testing.T) {
	m := open(t, Options{})
	c := connect(t, m, "ann")
	e, err := Parse("a\x00b", []byte(`{"action":"note"}`), time.Now())
	must(t, err)
	_, err = m.SendToUser(t.Context(), "ann", e)
	wantInvalid(t, err, "upload_id", "control characters")
	if len(c.frames) > 0 {
		t.Error("the message was sent")
	}
}

func TestEncoded_IsSentOnlyToItsOwnUpload(t *testing.T) {
	for field, data := range map[string]string{
		"payload.upload_id": golden(t, "upload_progress.json"),
		"upload_id":         `{"action":"note","upload_id":"up-1"}`,
	} {
		e, err := Parse("", []byte(data), noon)
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range []string{"", "up-1"} {
			if again, err := e.encode(&vocabulary{}, to, noon); err != nil || string(again.Payload()) != data {
				t.Errorf("sent to %q: %s, %v", to, again.Payload(), err)
			}
		}
		_, err = e.encode(&vocabulary{}, "up-2", noon)
		wantInvalid(t, err, field, "must be the id of the upload")
	}
}

func TestEncode_AllocatesOnlyThePayload(t *testing.T) {
	var m Message = progress(func(*UploadProgress) {})
	v := new(vocabulary)
	allocs := testing.AllocsPerRun(100, func() {
		if _, err := m.encode(v, "up-1", noon); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 1 {
		t.Errorf("%v allocations, want 1", allocs)
	}
}
