package main

import (
	"context"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoal-go/shoal/cmd/shoal/internal/webhook"
	"github.com/shoal-go/shoal/server"
)

// minWebhookSecret is the length of the shortest secret that is not soon guessed.
const minWebhookSecret = 16

// checkWebhook reports a webhook that cannot work.
func (f *serveFlags) checkWebhook(s *settings) {
	if f.Webhook == "" {
		for flag, set := range map[string]bool{
			"webhook-secret": f.WebhookSecret != "", "webhook-events": len(f.WebhookEvents) > 0,
		} {
			if set {
				s.refuse(flag, "is set, want a "+s.key("webhook")+" with it")
			}
		}
		return
	}
	checkURL(s, "webhook", f.Webhook, "the http(s):// URL of a service")
	if _, err := webhook.ParseKinds(f.WebhookEvents); err != nil {
		s.refuse("webhook-events", err.Error())
	}
	switch secret := len(f.WebhookSecret); {
	case secret == 0:
		s.refuse("webhook-secret", "is missing, want one that the service knows too, such as openssl rand -hex 32 prints")
	case secret < minWebhookSecret:
		s.refuse("webhook-secret", "has "+strconv.Itoa(secret)+" bytes, want at least "+strconv.Itoa(minWebhookSecret))
	}
}

// openWebhook sets the hooks of the server's options, if there is a webhook.
func (n *node) openWebhook(options *server.Options) error {
	if n.flags.Webhook != "" {
		kinds, err := webhook.ParseKinds(n.flags.WebhookEvents)
		if err != nil {
			return err
		}
		n.webhook, err = webhook.New(webhook.Options{
			URL: n.flags.Webhook, Secret: []byte(n.flags.WebhookSecret), Node: n.name, Kinds: kinds, Logger: n.log,
		})
		if err != nil {
			return err
		}
		n.hooks = webhook.NewHooks(n.webhook, n.manager.Followers)
		n.hooks.Set(options)
	}
	n.metrics.countWebhook(n.webhookCounts)
	return nil
}

// webhookCounts returns the counts of the webhook, zeros without one.
func (n *node) webhookCounts() webhook.Counts {
	if n.webhook == nil {
		return webhook.Counts{}
	}
	return n.webhook.Counts()
}

// webhookFlush bounds the time for the events that are left at the end: a service that is away does not delay it.
const webhookFlush = 2 * time.Second

// closeWebhook sends the events that are left, as far as the time allows.
func (n *node) closeWebhook(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, webhookFlush)
	defer cancel()
	if n.webhook != nil {
		n.hooks.Close()
		n.webhook.Close(ctx)
	}
}

// countWebhook exports the counts of the webhook.
func (m *metrics) countWebhook(counts func() webhook.Counts) {
	counter := func(name, help string, labels prometheus.Labels, value func(webhook.Counts) uint64) {
		m.registry.MustRegister(prometheus.NewCounterFunc(
			prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels},
			func() float64 { return float64(value(counts())) }))
	}
	const events, help = "shoal_webhook_events_total", "Events for the webhook, by outcome."
	counter(events, help, prometheus.Labels{"outcome": "sent"}, func(c webhook.Counts) uint64 { return c.Sent })
	counter(events, help, prometheus.Labels{"outcome": "dropped"}, func(c webhook.Counts) uint64 { return c.Dropped })
	counter("shoal_webhook_failed_attempts_total", "Failed webhook requests.", nil,
		func(c webhook.Counts) uint64 { return c.FailedAttempts })
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "shoal_webhook_queue_events", Help: "Events that wait for the webhook's service.",
	}, func() float64 { return float64(counts().Queued) }))
}
