//go:build !linux

package server

import "time"

// sinceAcknowledged returns 0: on this system only a failing write shows that the client of an event stream is gone.
func (c *Client) sinceAcknowledged() time.Duration { return 0 }
