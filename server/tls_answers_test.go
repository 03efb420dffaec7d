package server_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// The types of a record's content (RFC 8446, B.1).
const (
	handshakeRecord byte = 22
	dataRecord      byte = 23
)

// updatingConn is a client's connection over TLS 1.3 that reads and writes its records itself after the handshake,
// because crypto/tls sends no KeyUpdate, and accepts only a few in a row.
type updatingConn struct {
	net.Conn
	in, out trafficKey
	data    []byte // has been decrypted and not read
}

// dialUpdating opens such a connection.
func dialUpdating(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return newUpdatingConn(ctx, conn)
}

func newUpdatingConn(ctx context.Context, conn net.Conn) (*updatingConn, error) {
	var secrets bytes.Buffer
	// Without a session cache, the server sends nothing between its handshake and its data.
	c := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, KeyLogWriter: &secrets})
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	if suite := c.ConnectionState().CipherSuite; suite != tls.TLS_AES_128_GCM_SHA256 {
		return nil, fmt.Errorf("the suite is %s", tls.CipherSuiteName(suite))
	}
	secret := func(side string) []byte {
		_, line, _ := strings.Cut(secrets.String(), side+"_TRAFFIC_SECRET_0 ")
		secret, _ := hex.DecodeString(strings.Fields(line)[1])
		return secret
	}
	return &updatingConn{Conn: conn, in: trafficKey{secret: secret("SERVER")}, out: trafficKey{secret: secret("CLIENT")}}, nil
}

// trafficKey is the state of one direction of a connection.
type trafficKey struct {
	secret   []byte
	sequence uint64
}

// expand is HKDF-Expand-Label (RFC 8446, 7.1).
func (k *trafficKey) expand(label string, size int) []byte {
	label = "tls13 " + label
	info := binary.BigEndian.AppendUint16(nil, uint16(size))
	info = append(append(append(info, byte(len(label))), label...), 0)
	out, err := hkdf.Expand(sha256.New, k.secret, string(info), size)
	if err != nil {
		panic(err)
	}
	return out
}

// update changes the key as a KeyUpdate does.
func (k *trafficKey) update() { *k = trafficKey{secret: k.expand("traffic upd", sha256.Size)} }

// next returns the cipher and the nonce of the next record.
func (k *trafficKey) next() (aead cipher.AEAD, nonce []byte) {
	block, err := aes.NewCipher(k.expand("key", 16))
	if err != nil {
		panic(err)
	}
	if aead, err = cipher.NewGCM(block); err != nil {
		panic(err)
	}
	nonce = k.expand("iv", aead.NonceSize())
	low := nonce[len(nonce)-8:]
	binary.BigEndian.PutUint64(low, binary.BigEndian.Uint64(low)^k.sequence)
	k.sequence++
	return aead, nonce
}

// seal appends a record to b (RFC 8446, 5.2).
func (k *trafficKey) seal(b []byte, kind byte, data []byte) []byte {
	aead, nonce := k.next()
	inner := append(bytes.Clone(data), kind)
	head := binary.BigEndian.AppendUint16([]byte{dataRecord, 3, 3}, uint16(len(inner)+aead.Overhead()))
	return aead.Seal(append(b, head...), nonce, inner, head)
}

// Read returns data of the next record that has some.
func (c *updatingConn) Read(p []byte) (int, error) {
	for len(c.data) == 0 {
		record := make([]byte, 5)
		if _, err := io.ReadFull(c.Conn, record); err != nil {
			return 0, err
		}
		head := record
		record = make([]byte, binary.BigEndian.Uint16(head[3:]))
		if _, err := io.ReadFull(c.Conn, record); err != nil {
			return 0, err
		}
		aead, nonce := c.in.next()
		inner, err := aead.Open(nil, nonce, record, head)
		if err != nil {
			return 0, err
		}
		switch last := len(inner) - 1; {
		case inner[last] == dataRecord:
			c.data = inner[:last]
		case inner[last] == handshakeRecord && bytes.Equal(inner[:last], []byte{24, 0, 0, 1, 0}):
			c.in.update()
		default:
			return 0, fmt.Errorf("got a record of type %d: %x", inner[last], inner[:last])
		}
	}
	n := copy(p, c.data)
	c.data = c.data[n:]
	return n, nil
}

// Write writes one record of data.
func (c *updatingConn) Write(p []byte) (int, error) {
	if _, err := c.Conn.Write(c.out.seal(nil, dataRecord, p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// update sends KeyUpdates that request answers. crypto/tls takes no more than 16 such records without data.
func (c *updatingConn) update() error {
	var all []byte
	for range 14 {
		all = c.out.seal(all, handshakeRecord, []byte{24, 0, 0, 1, 1})
		c.out.update()
	}
	_, err := c.Conn.Write(all)
	return err
}

// updating upgrades a connection that can send KeyUpdates.
func (n *node) updating(t *testing.T) (*raw, *updatingConn) {
	t.Helper()
	dial := n.dial
	n.dial = dialUpdating
	defer func() { n.dial = dial }()
	c := n.raw(t, v1Header())
	return c, c.conn.(*updatingConn)
}

// follow authenticates and subscribes to an upload.
func (r *raw) follow(user, upload string) {
	r.t.Helper()
	r.enter(user)
	r.write(0x81, `{"action":"subscribe_upload","upload_id":"`+upload+`"}`)
	r.read()
}

// wantNotes reads the notes with these numbers, and skips answers.
func (r *raw) wantNotes(from, to int) {
	r.t.Helper()
	for i := from; i < to; {
		switch _, payload := r.read(); {
		case strings.Contains(payload, fmt.Sprintf(`"n":%d,`, i)):
			i++
		case strings.Contains(payload, `"note"`):
			r.t.Fatalf("got %.80s, want message %d", payload, i)
		}
	}
}

func (n *node) publishNotes(upload string, from, to, size int) {
	n.t.Helper()
	for i := from; i < to; i++ {
		n.publishJSON(upload, fmt.Sprintf(`{"action":"note","n":%d,"pad":"%s"}`, i, strings.Repeat("x", size)))
	}
}

// narrowListener accepts connections with small send buffers, which few bytes fill.
type narrowListener struct{ net.Listener }

func (l narrowListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		_ = conn.(*net.TCPConn).SetWriteBuffer(1)
	}
	return conn, err
}

// startNarrow runs a node over TLS with small send buffers, which closes no client for being slow or fast.
func startNarrow(t *testing.T) *node {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startTLSOn(t, narrowListener{ln}, withoutPings, func(_ *manager.Options, o *server.Options) {
		o.QueueMessages, o.QueueBytes, o.QueueAge, o.ClientMessageRate = 1<<20, 1<<30, time.Hour, -1
	})
}

// TestTLSListener_UnreadAnswersDelayNobody: the answers to KeyUpdates that the socket of a client does not take wait
// until it reads on. They delay neither a publisher nor another client, and reach the client in their order among the
// messages.
func TestTLSListener_UnreadAnswersDelayNobody(t *testing.T) {
	n := startNarrow(t)
	healthy := n.raw(t, v1Header())
	healthy.follow("good", "a")
	c, conn := n.updating(t)
	c.follow("evil", "a")
	published := 0
	for ; n.server.Stats().Stalled == 0; published++ {
		if err := conn.update(); err != nil {
			t.Fatal(err)
		}
		action, followers := "subscribe_upload", 1
		if published%2 == 1 {
			action, followers = "unsubscribe_upload", 0
		}
		c.write(0x81, `{"action":"`+action+`","upload_id":"b"}`)
		waitFor(t, func() bool { return len(n.manager.UploadSubscriberIDs("b")) == followers })
		n.publishNotes("a", published, published+1, 0)
		healthy.wantNotes(published, published+1)
	}
	const more = 100
	n.publishNotes("a", published, published+more, 0)
	healthy.wantNotes(published, published+more)
	c.wantNotes(0, published+more)
	waitFor(t, func() bool { return n.server.Stats().Stalled == 0 })
	if err := conn.update(); err != nil {
		t.Fatal(err)
	}
	c.write(0x89, "still there?")
	for first := byte(0); first != 0x8A; {
		first, _ = c.read()
	}
}

// TestTLSListener_TooManyUnreadAnswers: a client that goes on sending KeyUpdates without reading the answers is closed,
// whether it has authenticated or not, and nobody waits for it.
func TestTLSListener_TooManyUnreadAnswers(t *testing.T) {
	for _, user := range []string{"evil", ""} {
		n := startNarrow(t)
		healthy := n.raw(t, v1Header())
		healthy.follow("good", "a")
		c, conn := n.updating(t)
		if user != "" {
			c.follow(user, "a")
		}
		for published := 0; conn.update() == nil; published++ {
			c.write(0x8A, "")
			n.publishNotes("a", published, published+1, 0)
			healthy.wantNotes(published, published+1)
		}
		waitFor(t, func() bool { return n.server.Stats().Open == 1 })
	}
}

// TestTLSListener_AnswersWhileDraining: while a goroutine waits for the socket of a client that does not read, its
// KeyUpdates are answered and its messages are handled, so the goroutine that reads does not wait for the writing one.
func TestTLSListener_AnswersWhileDraining(t *testing.T) {
	n := startNarrow(t)
	c, conn := n.updating(t)
	c.follow("evil", "a")
	published := 0
	for ; n.server.Stats().Stalled == 0; published++ {
		n.publishNotes("a", published, published+1, 16<<10)
	}
	n.publishNotes("a", published, published+1, 60<<10) // more than one record
	published++
	if err := conn.update(); err != nil {
		t.Fatal(err)
	}
	c.write(0x81, `{"action":"subscribe_upload","upload_id":"b"}`)
	waitFor(t, func() bool { return len(n.manager.UploadSubscriberIDs("b")) == 1 })
	c.wantNotes(0, published)
}

// TestTLSListener_UnreadAnswersToARequest: a client that has not completed its request, and does not read the answers to
// its KeyUpdates, has its connection for a bounded time, and does not delay the end of the server.
func TestTLSListener_UnreadAnswersToARequest(t *testing.T) {
	for _, closing := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			ln := newPipeListener()
			n := startTLSOn(t, ln)
			below, err := ln.dial(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			defer below.Close()
			conn, err := newUpdatingConn(t.Context(), below)
			if err != nil {
				t.Fatal(err)
			}
			sent := make(chan error, 1)
			go func() {
				_, err := conn.Write([]byte("GET / HTTP/1.1\r\n"))
				for err == nil {
					err = conn.update() // the first answer is not read
				}
				sent <- err
			}()
			synctest.Wait()
			begin := time.Now()
			if closing {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := n.server.Close(ctx); err != nil {
					t.Error(err)
				}
				if took := time.Since(begin); took > time.Second {
					t.Errorf("the server closed after %v", took)
				}
			}
			if err := <-sent; err == nil {
				t.Error("the connection is open")
			}
			if took := time.Since(begin); took > 40*time.Second {
				t.Errorf("the connection was closed after %v", took)
			}
		})
	}
}
