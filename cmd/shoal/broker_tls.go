package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/natsbroker"
)

// overTLS reports whether the broker's URL asks for TLS.
func (f *serveFlags) overTLS() bool {
	return strings.HasPrefix(f.Broker, "rediss") || strings.HasPrefix(f.Broker, "tls://")
}

// brokerTLS returns the configuration of TLS to the broker, nil if the default does.
func (f *serveFlags) brokerTLS() (*tls.Config, error) {
	if f.BrokerTLSCA == "" && f.BrokerTLSCert == "" && (f.BrokerTLSMin != "1.3" || !f.overTLS()) {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tlsVersion(f.BrokerTLSMin)}
	if f.BrokerTLSCA != "" {
		text, err := os.ReadFile(f.BrokerTLSCA)
		if err == nil {
			config.RootCAs, err = parseAuthorities(text)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read --broker-tls-ca: %w", err)
		}
	}
	if f.BrokerTLSCert != "" {
		pair, err := tls.LoadX509KeyPair(f.BrokerTLSCert, f.BrokerTLSKey)
		if err != nil {
			return nil, fmt.Errorf("cannot read --broker-tls-cert and --broker-tls-key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// checkBrokerAccess reports files and names for the broker that will not do.
func (f *serveFlags) checkBrokerAccess(s *settings) {
	if f.ChannelPrefix != "" {
		if err := broker.CheckPrefix(f.ChannelPrefix); err != nil {
			s.complain("channel-prefix", f.ChannelPrefix, strings.TrimPrefix(err.Error(), "want "))
		}
	}
	if (f.BrokerTLSCert == "") != (f.BrokerTLSKey == "") {
		s.refuse("broker-tls-cert", "and "+s.key("broker-tls-key")+" belong together, want both or none")
		return
	}
	if _, err := f.brokerTLS(); err != nil {
		s.note(err.Error())
	}
	if f.engine() != natsEngine || f.NATSCredentials == "" && f.NATSNKey == "" {
		return
	}
	_, err := natsbroker.New(natsbroker.Options{
		URL: "nats://127.0.0.1", CredentialsFile: f.NATSCredentials, NKeyFile: f.NATSNKey,
	})
	for _, problem := range splitErrors(err) {
		s.note("--nats-credentials and --nats-nkey: " + problem)
	}
}

// splitErrors returns the texts of joined errors.
func splitErrors(err error) (texts []string) {
	var joined interface{ Unwrap() []error }
	switch {
	case err == nil:
	case errors.As(err, &joined):
		for _, e := range joined.Unwrap() {
			texts = append(texts, splitErrors(e)...)
		}
	default:
		texts = append(texts, err.Error())
	}
	return texts
}
