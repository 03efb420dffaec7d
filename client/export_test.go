package client

// HeldBytes returns the bytes that the queues of a client hold.
func HeldBytes(c *Client) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.budget.held
}
