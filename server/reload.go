package server

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"golang.org/x/time/rate"
)

// Settings are the options that Server.Reload replaces while the server runs; Options describes them.
type Settings struct {
	AllowedOrigins []string
	APIKeys        []string
	TrustedProxies []string

	MaxConnections      int
	MaxSockets          int
	MaxConnectionsPerIP int
	ConnectRate         float64
	// ClientMessageRate and ClientMessageBurst hold for connections that are opened from now on.
	ClientMessageRate  float64
	ClientMessageBurst int
}

// settings are Settings in the form in which they are used. They are immutable, but for the state of connectRate.
type settings struct {
	Settings
	keys        apiKeys
	origins     []origin
	proxies     proxies
	connectRate *rate.Limiter // nil: no bound
}

// settings returns the Settings among the options.
func (o *Options) settings() Settings {
	return Settings{
		AllowedOrigins: o.AllowedOrigins, APIKeys: o.APIKeys, TrustedProxies: o.TrustedProxies,
		MaxConnections: o.MaxConnections, MaxSockets: o.MaxSockets, MaxConnectionsPerIP: o.MaxConnectionsPerIP,
		ConnectRate: o.ConnectRate, ClientMessageRate: o.ClientMessageRate, ClientMessageBurst: o.ClientMessageBurst,
	}
}

// Reload replaces settings; 0 and negative values mean the same as in Options. Connections that are open stay open,
// also beyond a lower limit or without an allowed origin. After an error, which names every invalid field, nothing has
// changed.
func (s *Server) Reload(to Settings) error {
	if s.manager == nil {
		return errNotMade
	}
	to = to.withDefaults()
	if err := to.validate(s.opt.PingInterval); err != nil {
		return err
	}
	now := to.prepared()
	if before := s.settings.Load(); before.ConnectRate == to.ConnectRate {
		now.connectRate = before.connectRate
	}
	s.settings.Store(now)
	return nil
}

func (o Settings) withDefaults() Settings {
	o.ClientMessageRate = cmp.Or(o.ClientMessageRate, 50)
	o.ClientMessageBurst = cmp.Or(o.ClientMessageBurst, 200)
	unlimitedRate(&o.ClientMessageRate)
	return o
}

// unlimitedRate replaces a negative rate by one that limits nothing.
func unlimitedRate(perSecond *float64) {
	if *perSecond < 0 {
		*perSecond = float64(rate.Inf)
	}
}

// prepared returns valid settings in the form in which they are used.
func (o Settings) prepared() *settings {
	o.AllowedOrigins, o.APIKeys = slices.Clone(o.AllowedOrigins), slices.Clone(o.APIKeys)
	o.TrustedProxies = slices.Clone(o.TrustedProxies)
	s := &settings{Settings: o, keys: newAPIKeys(o.APIKeys), proxies: newProxies(o.TrustedProxies)}
	for _, allowed := range o.AllowedOrigins {
		parsed, _ := parseOrigin(allowed) // validate has refused any error
		s.origins = append(s.origins, parsed)
	}
	if o.ConnectRate > 0 {
		s.connectRate = rate.NewLimiter(rate.Limit(o.ConnectRate), int(math.Ceil(o.ConnectRate)))
	}
	return s
}

// validate checks settings with defaults, for clients that are pinged at an interval.
func (o Settings) validate(pings time.Duration) error {
	var all []error
	refuse := func(field string, value any, want string) {
		all = append(all, fmt.Errorf("server: Options.%s is %v, want %s", field, value, want))
	}
	for _, s := range o.AllowedOrigins {
		if err := CheckOrigin(s); err != nil {
			all = append(all, fmt.Errorf("server: Options.AllowedOrigins has %q: %w", s, err))
		}
	}
	for i, key := range o.APIKeys {
		if err := CheckAPIKey(key); err != nil {
			all = append(all, fmt.Errorf("server: Options.APIKeys[%d] %w", i, err))
		}
	}
	for _, s := range o.TrustedProxies {
		if err := CheckTrustedProxy(s); err != nil {
			all = append(all, fmt.Errorf("server: Options.TrustedProxies has %q: %w", s, err))
		}
	}
	if o.MaxSockets > 0 && o.MaxConnections > o.MaxSockets {
		refuse("MaxSockets", o.MaxSockets, "0 (no bound), or at least MaxConnections")
	}
	if !(o.ConnectRate <= maxConnectRate) { // the negation refuses NaN too
		refuse("ConnectRate", o.ConnectRate, fmt.Sprintf("0 (no bound) to %d", int(maxConnectRate)))
	}
	least := 0.0
	if pings > 0 { // else the interval is refused
		least = pingAnswers / pings.Seconds()
	}
	if !(o.ClientMessageRate >= least) { // NaN
		refuse("ClientMessageRate", o.ClientMessageRate, fmt.Sprintf(
			"at least %.2g, because clients send %d messages in each PingInterval, which is %v", least, pingAnswers, pings))
	}
	if o.ClientMessageBurst < minMessageBurst {
		refuse("ClientMessageBurst", o.ClientMessageBurst, fmt.Sprintf("at least %d", minMessageBurst))
	}
	return errors.Join(all...)
}

const (
	// pingAnswers is the number of messages with which a client answers a ping: a pong and the page's own message.
	pingAnswers = 2
	// minMessageBurst is a burst that every client needs: its first message, a subscription and the answers to a ping.
	minMessageBurst = 2 + pingAnswers
)

// maxConnectRate bounds ConnectRate: beyond it there might as well be none.
const maxConnectRate = 1e6
