package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"time"
)

// minRamp is the smallest --ramp but 0, a client in a quarter of an hour.
const minRamp = 0.001

// benchCommand measures a running server.
type benchCommand struct {
	URL       string   `name:"url" default:"http://127.0.0.1:8080" help:"Address of the server."`
	APIKey    []string `name:"api-key" secret:"" sep:"none" placeholder:"KEY" help:"Key of the HTTP API. Of several, the first is used."`
	JWTSecret []string `name:"jwt-secret" secret:"" sep:"none" placeholder:"SECRET" help:"Secret to sign the clients' tokens with: the server's. Of several, the first is used."`

	APIKeyFile    string `name:"api-key-file" placeholder:"FILE" help:"File with the key of the HTTP API instead; of several, one a line, the first is used."`
	JWTSecretFile string `name:"jwt-secret-file" placeholder:"FILE" help:"File with the secret of tokens instead; of several, one a line, the first is used."`

	JWTAudience []string `name:"jwt-audience" sep:"none" placeholder:"NAME" help:"The aud claim of tokens: the server's; of several, the first; any is none."`
	JWTIssuer   []string `name:"jwt-issuer" sep:"none" placeholder:"NAME" help:"The iss claim of tokens: the server's; of several, the first."`

	Dev bool `help:"Use the key and the secret of a development server."`

	Connections int     `default:"100" min:"1" max:"1000000" help:"Clients, each a user of its own."`
	Uploads     int     `default:"1" min:"1" max:"1000000" help:"Uploads that the clients are spread over: 1 is a fan-out, as many as connections is unicast."`
	Stalled     float64 `default:"0" min:"0" max:"1" help:"Share of the clients that follow and then do not read at all."`
	Ramp        float64 `default:"0" min:"0" max:"1000000" help:"Clients that begin to connect in a second; 0: as fast as they can."`
	Pollers     int     `default:"1" min:"1" max:"64" help:"Goroutines that read for the clients."`

	Rate       float64       `default:"10" min:"0.01" max:"1000000" help:"Messages published in a second, in all, planned ahead."`
	Burst      int           `default:"1" min:"1" max:"100000" help:"Messages that are published back to back, to one upload, at the same rate in all."`
	Payload    size          `default:"256" min:"64" max:"1MiB" help:"Bytes of a message."`
	Publishers int           `default:"2" min:"1" max:"64" help:"Requests that publish at a time. The messages of an upload go through one of them, in order."`
	Duration   time.Duration `default:"10s" min:"1ms" max:"24h" help:"Time over which messages are planned."`
	Messages   int           `default:"0" min:"0" max:"1000000000" help:"Messages to publish at most; 0: as many as the rate and the duration make."`

	JSON   bool   `name:"json" help:"Print the result as JSON."`
	Report string `placeholder:"FILE.html|FILE.svg" help:"Draw the percentiles of latency into this file."`
}

func (c *benchCommand) check(s *settings) {
	// It publishes and signs tokens as the commands of these names do.
	publish := publishCommand{UploadID: "bench", URL: c.URL, APIKey: c.APIKey, APIKeyFile: c.APIKeyFile, Dev: c.Dev}
	publish.check(s)
	c.APIKey = publish.APIKey
	token := tokenCommand{UserID: "bench", JWTSecret: c.JWTSecret, JWTSecretFile: c.JWTSecretFile, Dev: c.Dev}
	token.check(s)
	c.JWTSecret = token.JWTSecret
	if c.Ramp > 0 && c.Ramp < minRamp {
		s.complain("ramp", fmt.Sprint(c.Ramp), fmt.Sprintf("0 or at least %v", minRamp))
	}
	if c.Uploads > c.Connections {
		s.complain("uploads", fmt.Sprint(c.Uploads), fmt.Sprintf("at most --connections, which is %d", c.Connections))
	}
	if c.stalled() == c.Connections {
		s.complain("stalled", fmt.Sprint(c.Stalled), "less: no client would be left that reads")
	}
	if form := filepath.Ext(c.Report); c.Report != "" && form != ".svg" && form != ".html" {
		s.complain("report", c.Report, "a name that ends in .html or .svg")
	}
}

// stalled is how many of the clients do not read.
func (c *benchCommand) stalled() int { return int(math.Round(c.Stalled * float64(c.Connections))) }

// messages is how many messages are planned: those whose time is before the end.
func (c *benchCommand) messages() int {
	const rounding = 1e-9
	n := max(int(math.Ceil(c.Rate*c.Duration.Seconds()-rounding)), 1)
	if c.Messages > 0 {
		n = min(n, c.Messages)
	}
	return n
}

// Run measures and prints the result. An interrupt ends the measurement early, in order; a second one is
// the system's again.
func (c *benchCommand) Run(ctx context.Context, io streams) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	report, err := openReport(c.Report)
	if err != nil {
		return err
	}
	defer report.close()
	r, failed := newBench(c, newLive(io.err)).run(ctx)
	if r == nil {
		return failed
	}
	text := r.table
	if c.JSON {
		text = r.json
	}
	return errors.Join(failed, printLine(io.out, text()), report.write(r))
}
