package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"

	"github.com/shoal-go/shoal/internal/wsframe"
)

// client is one connection of the clients' side.
type client struct {
	conn   net.Conn
	socket *net.TCPConn
	reader *bufio.Reader
}

// open opens all connections, some side by side. The first ones are those of stuck clients. On an error the clients
// that were opened are returned with it.
func (t trial) open(ctx context.Context, address string) ([]*client, error) {
	const parallel = 64
	var (
		mu     sync.Mutex // protects the slices below
		stuck  []*client
		others []*client
		failed []error
		wg     sync.WaitGroup
	)
	numbers := make(chan int)
	for range parallel {
		wg.Go(func() {
			for i := range numbers {
				c, err := t.dial(ctx, address, i)
				mu.Lock()
				switch {
				case err != nil:
					failed = append(failed, fmt.Errorf("client %d: %w", i, err))
				case i < t.stuck:
					stuck = append(stuck, c)
				default:
					others = append(others, c)
				}
				mu.Unlock()
			}
		})
	}
	for i := range t.connections {
		if ctx.Err() != nil {
			break
		}
		numbers <- i
	}
	close(numbers)
	wg.Wait()
	return append(stuck, others...), errors.Join(append(failed[:min(len(failed), 3)], ctx.Err())...)
}

const upgradeRequest = "GET /ws/uploads HTTP/1.1\r\nHost: s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"

// dial opens a WebSocket, authenticates and follows an upload.
func (t trial) dial(ctx context.Context, address string, number int) (*client, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	socket := conn.(*net.TCPConn) // of the network "tcp"
	upload := fmt.Sprint("upload-", number%100)
	if number < t.stuck {
		upload = stuckUpload
	}
	if t.secure {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // of this program
	}
	c := &client{conn, socket, bufio.NewReaderSize(conn, 512)}
	if err := c.greet(fmt.Sprint("user-", number), upload); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

// greet upgrades, authenticates and subscribes. It reads the answer to the upgrade and no message.
func (c *client) greet(user, upload string) error {
	if _, err := io.WriteString(c.conn, upgradeRequest); err != nil {
		return err
	}
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return err
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusSwitchingProtocols {
		return errors.New(response.Status)
	}
	frames := clientFrame(wsframe.Text, fmt.Appendf(nil, `{"type":"auth","token":%q}`, user))
	subscription := fmt.Appendf(nil, `{"action":"subscribe_upload","upload_id":%q}`, upload)
	frames = append(frames, clientFrame(wsframe.Text, subscription)...)
	_, err = c.conn.Write(frames)
	return err
}

// readToEnd reads until the connection ends. The error is nil if it ended with a close frame of code 1012 that the
// client has answered.
func (c *client) readToEnd() error {
	code := 0
	for {
		f, err := wsframe.Read(c.reader, 1<<16)
		switch {
		case err != nil && code == 1012 && !errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return fmt.Errorf("ended with code %d: %w", code, err)
		case f.First == wsframe.Close && len(f.Payload) >= 2:
			code = int(binary.BigEndian.Uint16(f.Payload))
			if _, err := c.conn.Write(clientFrame(wsframe.Close, f.Payload[:2])); err != nil {
				return fmt.Errorf("answering the close frame: %w", err)
			}
		}
	}
}

// drain reads everything that is left. The error is nil if the server has ended the connection.
func (c *client) drain() error {
	_, err := io.Copy(io.Discard, c.socket)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errors.New("the server has not closed the socket")
	}
	return nil
}

// clientFrame returns a frame of a client, masked with zeros.
func clientFrame(first byte, payload []byte) []byte {
	return wsframe.AppendMasked(nil, first, [4]byte{}, payload)
}
