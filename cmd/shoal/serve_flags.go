package main

import (
	"strings"
	"time"
)

// serveFlags are the settings of the server.
type serveFlags struct {
	Addr       []string `sep:"none" placeholder:"HOST:PORT|unix:PATH" default:"127.0.0.1:8080" help:"Public listener; may be repeated; port 0 takes a free one."`
	AdminAddr  string   `default:"127.0.0.1:9090" placeholder:"HOST:PORT|unix:PATH" help:"Listener of /healthz, /readyz, /metrics and /dashboard."`
	Dashboard  string   `default:"auto" oneof:"auto open key off" help:"Who may read users, addresses and messages on /dashboard of the admin listener. open: everyone who can reach the listener; key: only holders of an API key; auto: everyone on this machine if --admin-addr is a loopback address, otherwise as key; off: no dashboard."`
	SocketMode string   `default:"0660" placeholder:"0660" help:"File mode of Unix sockets: who may connect."`
	Dev        bool     `help:"Development: a demo page, tokens for everybody, JWT secret and API key \"dev\". Loopback only."`

	JWTSecret     []string `sep:"none" secret:"" placeholder:"SECRET" help:"Secret of HS256 tokens, at least 32 bytes; may be repeated for a rotation."`
	JWTSecretFile string   `name:"jwt-secret-file" placeholder:"FILE" help:"File with the secrets of HS256 tokens instead, one a line."`
	JWKS          string   `placeholder:"FILE|URL" help:"JSON Web Key Set of RS256, ES256 and EdDSA tokens."`
	APIKey        []string `sep:"none" secret:"" placeholder:"KEY" help:"Key of the HTTP API; may be repeated."`
	APIKeyFile    string   `name:"api-key-file" placeholder:"FILE" help:"File with the keys of the HTTP API instead, one a line."`

	JWTAudience []string      `name:"jwt-audience" sep:"none" placeholder:"NAME" help:"Accepted aud claim of tokens; may be repeated. Required with a --jwks URL, any to accept all tokens of its keys."`
	JWTIssuer   []string      `name:"jwt-issuer" sep:"none" placeholder:"NAME" help:"Accepted iss claim of tokens; may be repeated. Default: not checked."`
	JWTLeeway   time.Duration `name:"jwt-leeway" default:"5s" min:"0s" max:"5m" help:"Accepted clock difference to the issuer for nbf and iat; exp is exact."`

	PathPrefix    string   `placeholder:"PATH" help:"In front of every public path, for a reverse proxy that passes paths on unchanged: with /shoal the API is at /shoal/v1/."`
	AllowedOrigin []string `sep:"none" placeholder:"ORIGIN" help:"Origin of pages that may connect; may be repeated. Default: the same host."`
	Authorize     string   `placeholder:"open|claims|URL" help:"Who may follow which upload: open, claims, or the URL of a service to ask."`

	Broker            string   `secret:"" default:"memory" placeholder:"memory|URL|nats-embedded" help:"How nodes share messages: memory (one node alone), nats://…, redis://…, redis+sentinel://…, redis+cluster://…, or nats-embedded, a NATS server in each node."`
	BrokerFile        string   `placeholder:"FILE" help:"File with the value of --broker instead, for a URL with a password."`
	NodeName          string   `placeholder:"NAME" help:"Name of this node, unique in the cluster. Default: a random name."`
	BrokerStateRate   float64  `default:"0" min:"0" max:"1000" help:"Maximum number of state messages of one upload that this node sends to the broker per second; the newest one is always sent. 0: unlimited."`
	BrokerReplicas    int      `default:"0" min:"0" max:"5" help:"NATS servers that keep each message; 0 is 3 for a cluster of nats-embedded, else 1."`
	BrokerStorage     string   `default:"memory" oneof:"memory file" help:"Where NATS keeps messages: memory or file."`
	BrokerDir         string   `placeholder:"DIR" help:"Folder of nats-embedded for --broker-storage file."`
	ChannelPrefix     string   `placeholder:"NAME" help:"In front of every channel of the broker, with a dot: deployments with different ones share a broker. 1 to 32 letters, digits, - or _."`
	NATSCredentials   string   `name:"nats-credentials" placeholder:"FILE" help:"Credentials (.creds) for --broker nats://…."`
	NATSNKey          string   `name:"nats-nkey" placeholder:"FILE" help:"Seed of an nkey for --broker nats://…."`
	BrokerTLSCA       string   `name:"broker-tls-ca" placeholder:"FILE" help:"Certificate authorities in PEM for the broker's certificate. Default: those of the system."`
	BrokerTLSCert     string   `name:"broker-tls-cert" placeholder:"FILE" help:"Client certificate in PEM for the broker."`
	BrokerTLSKey      string   `name:"broker-tls-key" placeholder:"FILE" help:"Private key in PEM of the client certificate for the broker."`
	BrokerTLSMin      string   `name:"broker-tls-min-version" default:"1.2" oneof:"1.2 1.3" help:"Lowest version of TLS to the broker: 1.2 or 1.3."`
	ClusterAddr       string   `placeholder:"HOST:PORT" help:"Listener of nats-embedded for the other nodes."`
	ClusterRoute      []string `sep:"none" placeholder:"HOST:PORT" help:"The --cluster-addr of each node; repeated, the same on all nodes."`
	ClusterSecretFile string   `placeholder:"FILE" help:"File with the shared secret of the nodes instead."`
	ClusterSecret     string   `secret:"" placeholder:"SECRET" help:"Shared secret of the nodes, at least 16 bytes; required unless all run on this machine."`

	MaxConnections      int           `default:"0" min:"0" max:"10000000" help:"Maximum number of WebSockets; 0: as many as the limit of open files allows."`
	TrustedProxy        []string      `sep:"none" placeholder:"CIDR" help:"Address or range of proxies whose X-Forwarded-For or Forwarded header, or PROXY protocol, is believed; unix for peers on Unix sockets; may be repeated."`
	MaxConnectionsPerIP int           `name:"max-connections-per-ip" default:"0" min:"0" max:"10000000" help:"Maximum number of connections of one address, or one IPv6 /64; 0: unlimited. Set --trusted-proxy behind a proxy."`
	ConnectRate         float64       `default:"0" min:"0" max:"1000000" help:"Connections accepted per second, after a burst of as many; 0: unlimited."`
	MaxAge              time.Duration `default:"0s" min:"0s" max:"720h" help:"Age at which a connection is closed with 1012, less up to a quarter at random; 0: unlimited."`

	MaxConnectionsPerUser   int  `default:"32" min:"0" max:"1000000" help:"Maximum number of connections of one user; 0: unlimited."`
	MaxSubscriptionsPerUser int  `default:"1024" min:"0" max:"10000000" help:"Maximum number of uploads that one user follows; 0: unlimited."`
	MaxMessageBytes         size `default:"64KiB" min:"1KiB" max:"64MiB" help:"Largest message of a publisher."`
	MaxClientMessageBytes   size `default:"64KiB" min:"1KiB" max:"64MiB" help:"Largest message of a client. @shoal/client and the Go client send up to 32 KiB when they return to many uploads."`
	ClientMessageRate       rate `default:"50/s,200" placeholder:"50/s,200" help:"Maximum rate of messages of one client, and after the comma their number in a burst. @shoal/client and the Go client send up to 40/s and 150 at once, where they follow many uploads."`

	TokenExpiry string `default:"enforce" oneof:"enforce connect" help:"enforce: a connection ends with its token; connect: exp is checked on connecting only."`

	AuthTimeout  time.Duration `default:"5s" min:"100ms" max:"1m" help:"Time for a client's first message."`
	PingInterval time.Duration `default:"30s" min:"1s" max:"1h" help:"Time between two pings."`
	IdleTimeout  time.Duration `default:"90s" min:"1s" max:"24h" help:"Time without a sign of life after which a client is closed."`

	QueueBytes    size          `default:"1MiB" min:"4KiB" max:"1GiB" help:"Maximum number of bytes queued for one connection."`
	QueueMessages int           `default:"1024" min:"1" max:"1000000" help:"Maximum number of messages queued for one connection."`
	QueueAge      time.Duration `default:"10s" min:"100ms" max:"10m" help:"Maximum time that a message is queued for a connection."`
	RecoveryBytes size          `default:"8MiB" min:"4KiB" max:"1GiB" help:"Stored messages queued for one recovering connection; the rest is read later."`

	UnsentBytes size `default:"16KiB" min:"0" max:"64MiB" help:"Unsent bytes that the kernel may hold for one connection, so that states on slow links stay fresh; 0 is the system's limit."`

	Class    []string `sep:"none" placeholder:"ACTION=CLASS[:FIELD]" help:"Class of an own action: event, state or terminal, and the field that holds its key; may be repeated, the same on all nodes."`
	Statuses []string `placeholder:"WORD,…" help:"Allowed statuses of upload_progress; may be repeated. Default: any of a-z 0-9 _ - ."`
	Stages   []string `placeholder:"WORD,…" help:"Allowed stages of upload_progress; may be repeated. Default: any of a-z 0-9 _ - ."`

	HistoryMessages int           `default:"64" min:"1" max:"100000" help:"Messages kept of one upload."`
	HistoryBytes    size          `default:"1MiB" min:"1KiB" max:"1GiB" help:"Bytes kept of one upload's messages; the newest is kept in any case."`
	HistoryTTL      time.Duration `default:"10m" min:"1s" max:"168h" help:"Time that an upload's messages are kept."`

	HistoryTotalBytes size `default:"0" min:"0" max:"1TiB" help:"Memory of all histories together, and of the stream of NATS; 0 is a quarter of the memory limit, but for a stream in files or at nats://… the bound that it has, none for a new one. Beyond it, the histories of uploads without followers are evicted, least recently published first, and a stream drops its oldest messages."`
	MaxUploads        int  `default:"1000000" min:"1" max:"100000000" help:"Maximum number of uploads with a history; beyond it, histories are evicted as for --history-total-bytes."`

	TLSCert string `placeholder:"FILE" help:"Certificate chain in PEM; reloaded when it changes."`
	TLSKey  string `placeholder:"FILE" help:"Private key in PEM; reloaded when it changes."`

	TLSMinVersion string `name:"tls-min-version" default:"1.2" oneof:"1.2 1.3" help:"Lowest version of TLS that is accepted: 1.2 or 1.3."`
	TLSClientCA   string `name:"tls-client-ca" placeholder:"FILE" help:"Certificate authorities in PEM; clients must then have a certificate of one of them."`

	Webhook           string   `secret:"" placeholder:"URL" help:"Service that receives events of clients and followers by POST, see docs/webhooks.md."`
	WebhookEvents     []string `sep:"none" placeholder:"EVENT" help:"Event that is sent: connected, disconnected, subscribed, unsubscribed, upload_followed or upload_unfollowed; may be repeated. Default: all."`
	WebhookSecret     string   `secret:"" placeholder:"SECRET" help:"Secret that signs the requests to --webhook, at least 16 bytes."`
	WebhookSecretFile string   `placeholder:"FILE" help:"File with the secret of --webhook instead."`

	TraceEndpoint   string   `placeholder:"URL" help:"OpenTelemetry collector that receives a sample of the traces by OTLP over HTTP, see docs/tracing.md. Default: no tracing."`
	TraceSample     float64  `default:"0.01" min:"0" max:"1" help:"Share of the publications that are traced; callers decide for their own with a traceparent header."`
	TraceHeader     []string `sep:"none" secret:"" placeholder:"NAME: VALUE" help:"Header of the requests to --trace-endpoint, such as Authorization; may be repeated."`
	TraceHeaderFile string   `placeholder:"FILE" help:"File with the headers of --trace-header instead, one a line."`

	ShutdownDelay time.Duration `default:"0s" min:"0s" max:"10m" help:"After SIGTERM, before draining, keeps serving for this long while /readyz answers 503."`
	Drain         time.Duration `default:"8s" min:"100ms" max:"10m" help:"Maximum time of the shutdown after that; connections are closed with 1012."`

	LogLevel  string `default:"info" oneof:"debug info warn error" help:"debug, info, warn or error."`
	LogFormat string `default:"text" oneof:"text json" help:"text or json."`
	PProf     bool   `name:"pprof" help:"Profiles of the Go runtime under /debug/pprof/ of the admin listener."`
}

// devSecret is the JWT secret and the API key of development.
const devSecret = "dev"

// applyDev sets the defaults of development.
func (f *serveFlags) applyDev() {
	if len(f.JWTSecret) == 0 {
		f.JWTSecret = []string{devSecret}
	}
	if len(f.APIKey) == 0 {
		f.APIKey = []string{devSecret}
	}
	if f.Authorize == "" {
		f.Authorize = "open"
	}
}

// checkConfigCommand is serve without serving.
type checkConfigCommand struct {
	serveFlags
}

// Run says that the configuration is valid, and which of its parts are probably not as meant.
func (*checkConfigCommand) Run(std streams, s *settings) error {
	lines := append([]string{"configuration ok"}, s.warnings...)
	if len(s.others) > 0 {
		lines = append(lines, "keys of other commands, which serve does not use: "+strings.Join(s.others, ", "))
	}
	return printLine(std.out, strings.Join(lines, "\n"))
}
