package systems

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
	"github.com/shoal-go/shoal/internal/load"
)

// centrifugoSystem is a whole Centrifugo: the program in a process of its own, with its memory engine, published to
// through its HTTP API. The settings:
//
//   - client.insecure and http_api.insecure: nobody is authenticated, which favours it;
//   - no log, no usage statistics, any origin; everything else as it comes, so without history;
//   - messages that are published together go into one call of /api/batch.
//
// The variant centrifugo-history keeps 64 messages of each channel for ten minutes, as this project does by default.
type centrifugoSystem struct {
	history bool
	end     func() error // nil before Start
	url     string
	client  http.Client
}

// The module that holds Centrifugo, and the version of it that is compared.
const (
	CentrifugoModule  = "github.com/centrifugal/centrifugo/v6"
	CentrifugoVersion = "v6.9.1"
)

func newCentrifugo(history bool) (System, error) { return &centrifugoSystem{history: history}, nil }

func centrifugoDialect(a Audience) load.Dialect {
	d := centrifugeDialect(a)
	d.Path = "/connection/websocket"
	d.Hello = func(i int) [][]byte {
		return [][]byte{
			[]byte(`{"id":1,"connect":{}}`), fmt.Appendf(nil, `{"id":2,"subscribe":{"channel":%q}}`, a.channelOf(i)),
		}
	}
	return d
}

// centrifugoPublishing publishes one message by /api/publish, and several by /api/batch.
func centrifugoPublishing(messages []message.Message) (path string, body []byte) {
	one := func(body []byte, m message.Message) []byte {
		return append(m.AppendJSON(fmt.Appendf(body, `{"channel":%q,"data":`, m.Channel)), '}')
	}
	if len(messages) == 1 {
		return "/api/publish", one(nil, messages[0])
	}
	body = []byte(`{"commands":[`)
	for i, m := range messages {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(one(append(body, `{"publish":`...), m), '}')
	}
	return "/api/batch", append(body, "]}"...)
}

// Start implements Program.
func (s *centrifugoSystem) Start(path, host, certificate, key string) (addr string, pid int, err error) {
	if addr, err = worker.FreeAddress(host); err != nil {
		return "", 0, err
	}
	_, port, _ := net.SplitHostPort(addr)
	environment := map[string]string{
		"HTTP_SERVER_ADDRESS": host, "HTTP_SERVER_PORT": port, "CLIENT_INSECURE": "true", "HTTP_API_INSECURE": "true",
		"CLIENT_ALLOWED_ORIGINS": "*", "LOG_LEVEL": "none", "USAGE_STATS_DISABLED": "true",
	}
	scheme := "http://"
	if certificate != "" {
		scheme = "https://"
		environment["HTTP_SERVER_TLS_ENABLED"] = "true"
		environment["HTTP_SERVER_TLS_CERT_PEM"], environment["HTTP_SERVER_TLS_KEY_PEM"] = certificate, key
	}
	if s.history {
		environment["CHANNEL_WITHOUT_NAMESPACE_HISTORY_SIZE"] = "64"
		environment["CHANNEL_WITHOUT_NAMESPACE_HISTORY_TTL"] = "10m"
	}
	command := exec.Command(path) // the program that the user has named or that was installed
	command.Env = os.Environ()
	for name, value := range environment {
		command.Env = append(command.Env, "CENTRIFUGO_"+name+"="+value)
	}
	s.url = scheme + addr
	s.client.Transport = &http.Transport{TLSClientConfig: ClientTLS()}
	if s.end, err = worker.StartProgram(command, addr); err != nil {
		return "", 0, fmt.Errorf("systems: centrifugo: %w", err)
	}
	return addr, command.Process.Pid, nil
}

// call posts to the API and returns the answer.
func (s *centrifugoSystem) call(path string, body []byte) ([]byte, error) {
	response, err := s.client.Post(s.url+path, "application/json", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && (response.StatusCode != http.StatusOK || bytes.Contains(answer, []byte(`"error"`))) {
		err = fmt.Errorf("systems: centrifugo answers %s: %.200s", response.Status, answer)
	}
	return answer, err
}

// Handler is not used: the clients connect to the program.
func (s *centrifugoSystem) Handler() http.Handler { return http.NotFoundHandler() }

func (s *centrifugoSystem) Publish(messages []message.Message) error {
	_, err := s.call(centrifugoPublishing(messages))
	return err
}

// Subscriptions asks the program, whose own count is up to three seconds old.
func (s *centrifugoSystem) Subscriptions() int {
	var info struct {
		Result struct {
			Nodes []struct {
				Subscriptions int `json:"num_subs"`
			} `json:"nodes"`
		} `json:"result"`
	}
	if answer, err := s.call("/api/info", []byte("{}")); err != nil || json.Unmarshal(answer, &info) != nil {
		return 0
	}
	n := 0
	for _, node := range info.Result.Nodes {
		n += node.Subscriptions
	}
	return n
}

func (s *centrifugoSystem) Close() error {
	s.client.CloseIdleConnections()
	if s.end == nil {
		return nil
	}
	return s.end()
}
