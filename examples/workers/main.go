// Command workers is a service with a pool of workers that report the progress of their jobs.
//
//	go run ./examples/workers -addr 127.0.0.1:8080
//	curl --data-binary @file http://127.0.0.1:8080/jobs/job-1
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "address to listen on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ln, err := net.Listen("tcp", *addr)
	if err == nil {
		log.Printf("workers: http://%s", ln.Addr())
		err = run(ctx, ln)
	}
	if err != nil {
		log.Fatal("workers: ", err)
	}
}

// job is a file to be processed.
type job struct {
	id   string
	file []byte
}

// pool processes jobs with a fixed number of workers and a bounded queue.
type pool struct {
	manager *manager.Manager
	jobs    chan job
	mu      sync.Mutex // protects ended, and jobs from being closed while a job is queued
	ended   bool
}

const (
	workers  = 4
	maxQueue = 100
	maxFile  = 10 << 20
)

// run serves until ctx ends.
func run(ctx context.Context, ln net.Listener) error {
	m, err := manager.New(manager.Options{})
	if err != nil {
		return err
	}
	s, err := server.New(server.Options{Manager: m, Identify: identify, Authorize: server.AuthorizeOpen})
	if err != nil {
		return errors.Join(err, m.Close(context.Background()))
	}
	p := &pool{manager: m, jobs: make(chan job, maxQueue)}
	var working sync.WaitGroup
	for range workers {
		working.Go(p.work)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /ws/uploads", s.Handler())
	mux.HandleFunc("POST /jobs/{id}", p.accept)
	web := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- web.Serve(ln) }()
	select {
	case err = <-served:
	case <-ctx.Done():
	}

	// No more jobs, then the end of the jobs, whose progress clients still see, then the connections.
	closing, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	p.end()
	working.Wait()
	return errors.Join(err, s.Close(closing), web.Shutdown(closing), m.Close(closing))
}

// identify trusts a header, which a proxy that authenticates users has to set.
func identify(r *http.Request) (server.Identity, error) {
	user := r.Header.Get("X-User")
	if user == "" {
		return server.Identity{}, &server.TokenError{Message: "not logged in"}
	}
	return server.Identity{UserID: user}, nil
}

// accept queues the job of a request, or refuses it.
func (p *pool) accept(w http.ResponseWriter, r *http.Request) {
	file, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxFile))
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	if !p.queue(job{r.PathValue("id"), file}) {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "busy", http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

// queue queues a job, and reports false if the queue is full or has ended.
func (p *pool) queue(j job) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return false
	}
	select {
	case p.jobs <- j:
		return true
	default:
		return false
	}
}

// end refuses further jobs, and ends the workers when they have processed those in the queue.
func (p *pool) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	close(p.jobs)
}

// work processes jobs until there are no more.
func (p *pool) work() {
	for j := range p.jobs {
		if err := p.process(j); err != nil {
			log.Printf("job %q: %v", j.id, err)
		}
	}
}

// process reads a file. Progress is published when the whole percentage has changed, and after 100 ms.
func (p *pool) process(j job) (err error) {
	progress := p.manager.Progress(j.id)
	defer func() {
		if err != nil {
			err = errors.Join(err, progress.Fail("processing was given up"))
		}
	}()
	if err := progress.Stage(manager.StatusAnalyzing, manager.StageVisionAnalysis, 100, "Reading"); err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(sum, progress.Writer(int64(len(j.file)))), bytes.NewReader(j.file)); err != nil {
		return err
	}
	return progress.Complete(fmt.Sprintf("sha256 %x", sum.Sum(nil)), 100)
}
