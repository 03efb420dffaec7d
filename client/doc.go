// Package client follows uploads of a Shoal server over one WebSocket, through reconnects, and publishes to them over
// the HTTP API.
//
//	c, err := client.New("https://shoal.example.com", client.Options{Token: fetchToken})
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//	for m, err := range c.Follow(ctx, "upload-1") {
//		if err != nil {
//			return err
//		}
//		fmt.Println(m.Action, m.Offset)
//	}
//
// # Delivery
//
// A loop over [Client.Follow] gets the newest message of the upload, then each later one, in order and once. After an
// interruption the client continues from the position of the last message that it received. If the server no longer has
// the missed messages, the loop gets a [*GapError], followed by the newest message.
//
// A loop that is slower than its upload does not slow down others, and its queue is bounded. When the queue is full,
// states in it are replaced by newer ones of the same key, which then show the number in Message.Skipped. If events
// fill the queue, the client stops queueing and reads the messages again from the server's history when the loop has
// emptied the queue.
//
// # Connection
//
// The client connects when the first upload is followed and keeps the connection until [Client.Close]. It reconnects
// after a random part of a doubling delay, or after the delay that the server asked for. A server from which nothing
// comes within Options.IdleTimeout counts as lost. Options.Token is called for each connection that needs a fresh
// token, and again before the token expires.
//
// # Errors
//
// The last error of a loop is final. It matches one of the variables below with errors.Is, and [RefusedError],
// [ProtocolError] or [APIError] with errors.As where there is more to know. Texts of the server in errors are printable
// and short.
package client
