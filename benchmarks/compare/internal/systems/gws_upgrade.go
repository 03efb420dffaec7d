package systems

import (
	"errors"
	"net/http"

	"github.com/lxzan/gws"

	"github.com/shoal-go/shoal/internal/load"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
)

// gwsUpgrade is gws that upgrades a connection, reads from it and does nothing else: the limit for S6. Its
// clients are ready once the upgrade is answered. The settings are those of gws.
type gwsUpgrade struct {
	upgrader *gws.Upgrader
	*goroutines
}

func gwsUpgradeEntry() Entry {
	return Entry{
		Name:   "gws-upgrade",
		Kind:   Yardstick,
		Module: gwsModule,
		About:  "gws that upgrades and no more: no authentication, no subscription",
		Part:   StormOnly,
		New: func() (System, error) {
			return &gwsUpgrade{gws.NewUpgrader(&gws.BuiltinEventHandler{}, gwsOption()), newGoroutines()}, nil
		},
		Dialect: func(Audience) load.Dialect { return load.Dialect{Path: path} },
	}
}

func (s *gwsUpgrade) Handler() http.Handler {
	return s.goroutines.handler(func(w http.ResponseWriter, r *http.Request) {
		socket, err := s.upgrader.Upgrade(w, r)
		if err == nil {
			s.goroutines.start(socket.ReadLoop)
		}
	})
}

func (s *gwsUpgrade) Publish([]message.Message) error {
	return errors.New("systems: gws-upgrade publishes nothing")
}

// Subscriptions is 0: nobody subscribes to anything.
func (s *gwsUpgrade) Subscriptions() int { return 0 }
