package manager_test

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/manager/managertest"
	"github.com/shoal-go/shoal/manager/outqueue"
)

// A connection of one's own: a response of Server-Sent Events. The queue keeps to the rules of a Conn; the handler
// writes the messages of the queue.
func ExampleConn() {
	ctx := context.Background()
	m, err := manager.New(manager.Options{})
	if err != nil {
		log.Fatal(err)
	}
	events := func(w http.ResponseWriter, r *http.Request) {
		user, uploadID := r.Header.Get("X-User"), r.PathValue("upload") // a service authenticates and authorizes here
		q := outqueue.New(outqueue.Options{Variant: manager.VariantV1})
		if err := m.Connect(user, q); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		defer m.Disconnect(user, q)
		defer q.Abort()
		if err := m.SubscribeConn(r.Context(), user, q, uploadID, manager.SubscribeOptions{}); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		response := http.NewResponseController(w)
		for {
			message, err := q.Next(r.Context())
			if err != nil {
				return // the client has left, or *outqueue.ClosedError: the client comes back and recovers
			}
			_ = response.SetWriteDeadline(time.Now().Add(10 * time.Second))
			if message.Offset() > 0 {
				fmt.Fprintf(w, "id: %s:%d\n", message.Epoch(), message.Offset())
			}
			if _, err := fmt.Fprintf(w, "data: %s\n\n", message.AppendJSON(nil)); err != nil || response.Flush() != nil {
				return
			}
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /own/{upload}", events)
	web := httptest.NewServer(mux)
	defer web.Close()

	// A message that is published before the client comes is its snapshot.
	note, err := manager.Parse("upload-1", []byte(`{"action":"note","text":"hello"}`), time.Now())
	if err != nil {
		log.Fatal(err)
	}
	if _, err := m.Publish(ctx, "upload-1", note); err != nil {
		log.Fatal(err)
	}
	request, err := http.NewRequest(http.MethodGet, web.URL+"/own/upload-1", http.NoBody)
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set("X-User", "ann")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		if data, found := strings.CutPrefix(lines.Text(), "data: "); found {
			fmt.Println(data)
			break
		}
	}
	_ = answer.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	_ = m.Close(ctx)
	// Output: {"action":"note","text":"hello","offset":1,"upload_id":"upload-1"}
}

// A message reaches all users that follow the upload, and those that come later get the newest one.
func ExampleManager_Publish() {
	ctx := context.Background()
	m, err := manager.New(manager.Options{})
	if err != nil {
		log.Fatal(err)
	}
	message := manager.UploadFailed{ErrorMessage: "not a video", Timestamp: time.Unix(0, 0)}
	position, err := m.Publish(ctx, "upload-1", message)
	fmt.Println(position.Offset, err)

	newest, _, err := m.Newest(ctx, "upload-1")
	fmt.Println(string(newest.Payload), err)
	_ = m.Close(ctx)
	// Output:
	// 1 <nil>
	// {"action":"upload_failed","upload_id":"upload-1","error_message":"not a video","timestamp":"1970-01-01T00:00:00Z"} <nil>
}

// A worker reports its progress. Percentages that change by less than one are not published.
func ExampleManager_Progress() {
	ctx := context.Background()
	m, err := manager.New(manager.Options{})
	if err != nil {
		log.Fatal(err)
	}
	ann := managertest.NewBaseConn()
	if err := m.Connect("ann", ann); err != nil {
		log.Fatal(err)
	}
	if err := m.SubscribeUpload(ctx, "ann", "upload-1"); err != nil {
		log.Fatal(err)
	}

	progress := m.Progress("upload-1")
	progress.Stage(manager.StatusAnalyzing, manager.StageVisionAnalysis, 100, "Looking at the picture")
	progress.Bytes(256, 1024)
	progress.Bytes(258, 1024)
	if err := progress.Complete("A cat on a keyboard", 97); err != nil {
		log.Fatal(err)
	}

	for _, message := range ann.Messages() {
		fmt.Println(message.Action())
	}
	_ = m.Close(ctx)
	// Output:
	// upload_progress
	// upload_progress
	// upload_completed
}

// A user follows an upload on all connections. A connection of a test records what it gets.
func ExampleManager_SubscribeUpload() {
	ctx := context.Background()
	m, err := manager.New(manager.Options{})
	if err != nil {
		log.Fatal(err)
	}
	phone, laptop := managertest.NewBaseConn(), managertest.NewBaseConn()
	for _, c := range []*managertest.Conn{phone, laptop} {
		if err := m.Connect("ann", c); err != nil {
			log.Fatal(err)
		}
	}
	if err := m.SubscribeUpload(ctx, "ann", "upload-1"); err != nil {
		log.Fatal(err)
	}
	note, err := manager.Parse("upload-1", []byte(`{"action":"note","text":"hello"}`), time.Now())
	if err != nil {
		log.Fatal(err)
	}
	if _, err := m.Publish(ctx, "upload-1", note); err != nil {
		log.Fatal(err)
	}
	fmt.Println(phone.Messages()[0].JSON)
	fmt.Println(len(laptop.Messages()), m.UploadSubscriberIDs("upload-1"))
	_ = m.Close(ctx)
	// Output:
	// {"action":"note","text":"hello"}
	// 1 [ann]
}

// Two nodes of one process share a broker: a message published on one reaches the users of the other. A service uses
// natsbroker or redisbroker in the same way.
func ExampleOptions_broker() {
	ctx := context.Background()
	hub := broker.NewMemory(broker.MemoryOptions{})
	var nodes []*manager.Manager
	for _, name := range []string{"a", "b"} {
		m, err := manager.New(manager.Options{Broker: hub.Node(), NodeName: name})
		if err != nil {
			log.Fatal(err)
		}
		if err := m.WaitReady(ctx); err != nil {
			log.Fatal(err)
		}
		nodes = append(nodes, m)
	}
	ann := managertest.NewBaseConn()
	if err := nodes[0].Connect("ann", ann); err != nil {
		log.Fatal(err)
	}
	if err := nodes[0].SubscribeUpload(ctx, "ann", "upload-1"); err != nil {
		log.Fatal(err)
	}
	note, err := manager.Parse("upload-1", []byte(`{"action":"note","text":"hello"}`), time.Now())
	if err != nil {
		log.Fatal(err)
	}
	if _, err := nodes[1].Publish(ctx, "upload-1", note); err != nil {
		log.Fatal(err)
	}
	ann.WaitFor(logging{}, "the message", func(c *managertest.Conn) bool { return len(c.Messages()) == 1 })
	fmt.Println(ann.Messages()[0].JSON)
	for _, m := range nodes {
		_ = m.Close(ctx)
	}
	// Output: {"action":"note","text":"hello"}
}

// logging stands for the testing.T of a test.
type logging struct{}

func (logging) Helper()                           {}
func (logging) Fatalf(format string, args ...any) { log.Fatalf(format, args...) }
