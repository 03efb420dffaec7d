// Package natsbroker joins nodes through NATS.
package natsbroker
