package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"

	"github.com/shoal-go/shoal/client"
	"github.com/shoal-go/shoal/internal/printable"
	"github.com/shoal-go/shoal/internal/reload"
	"github.com/shoal-go/shoal/internal/service"
)

const (
	// devWatcher is the user whom a development server issues the token for.
	devWatcher = "watch"
	// maxTokenBytes bounds a token.
	maxTokenBytes = 64 << 10
)

// token is the client's Options.Token.
func (c *watchCommand) token(ctx context.Context) (string, error) {
	switch {
	case c.Dev:
		return c.devToken(ctx)
	case c.TokenFile != "":
		return c.fileToken()
	}
	return c.Token, nil
}

// fileToken returns the token that check has read, and afterwards reads the file again. Another program may be
// replacing it: an error is tried again, within --give-up-after.
func (c *watchCommand) fileToken() (string, error) {
	if token := c.checked; token != "" {
		c.checked = ""
		return token, nil
	}
	token, err := readToken(c.TokenFile)
	if err != nil {
		return "", fmt.Errorf("--token-file %w", err)
	}
	return token, nil
}

func readToken(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("cannot be read: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxTokenBytes+1))
	switch {
	case err != nil:
	case len(data) > maxTokenBytes:
		err = fmt.Errorf("it is larger than %d bytes", maxTokenBytes)
	case isUTF16(data):
		err = errUTF16
	}
	if err != nil {
		return "", fmt.Errorf("cannot be read: %w", err)
	}
	token := string(bytes.TrimSpace(reload.TrimBOM(data)))
	if token == "" {
		return "", errors.New("holds no token, want a file with a JSON Web Token")
	}
	return token, nil
}

// devToken gets a token from a development server.
func (c *watchCommand) devToken(ctx context.Context) (string, error) {
	address := strings.TrimSuffix(c.URL, "/") + "/dev/token?user=" + url.QueryEscape(devWatcher)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", client.Permanent(errors.New("--url cannot be used"))
	}
	transport := http.DefaultTransport.(*http.Transport).Clone() // of package http
	transport.DisableKeepAlives = true
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return "", service.WithoutURL(err)
	}
	defer response.Body.Close()
	var answer struct {
		Token string `json:"token"`
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxTokenBytes))
	switch {
	case err != nil:
		return "", err
	case response.StatusCode >= http.StatusInternalServerError:
		return "", fmt.Errorf("the server answered %s", printable.Text(response.Status))
	case response.StatusCode != http.StatusOK || json.Unmarshal(body, &answer) != nil || answer.Token == "":
		return "", client.Permanent(errNotDev)
	}
	return answer.Token, nil
}

var errNotDev = errors.New("not a development server")

// explain returns one line about an error of the client, with the remedy.
func (c *watchCommand) explain(err error) string {
	address := c.URL
	if u, failed := url.Parse(c.URL); failed == nil {
		address = u.Redacted()
	}
	last := err
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) { // that the server is out of reach, and why
		last = joined.Unwrap()[len(joined.Unwrap())-1]
	}
	text := strings.TrimPrefix(strings.TrimPrefix(last.Error(), "client: "), "Options.Token: ")
	var refused *client.RefusedError
	if errors.As(err, &refused) {
		text = refused.Message
	}
	var dial *net.OpError
	reason, known := networkReason(last)
	switch {
	case errors.Is(err, errNotDev):
		return "the server at " + address + " is not a development server; give a token with --token"
	case errors.As(err, &dial) && dial.Op == "proxyconnect":
		text = "the proxy that HTTP_PROXY or HTTPS_PROXY names cannot be reached: " + text + "; NO_PROXY exempts servers"
	case errors.Is(err, syscall.ECONNREFUSED):
		text = "nothing answers at " + address + "; start the server with shoal serve, or name its address with --url"
	case errors.Is(err, client.ErrUnauthorized):
		return fmt.Sprintf("the server refuses the token: %s; give a valid one with --token", text)
	case errors.Is(err, client.ErrForbidden) && refused != nil && refused.UploadID != "":
		return fmt.Sprintf("the token's user may not follow the upload %s: %s", printable.Text(refused.UploadID), text)
	case errors.Is(err, client.ErrForbidden):
		return fmt.Sprintf("the server at %s refuses the connection: %s", address, text)
	case errors.Is(err, client.ErrNotShoal):
		return fmt.Sprintf("the server at %s is not a shoal server; check --url (it answered: %s)", address, err)
	case errors.Is(err, client.ErrLimit):
		return fmt.Sprintf("a limit of the server was exceeded: %s", text)
	case known:
		text = "cannot reach the server at " + address + ": " + reason
	}
	if errors.Is(err, client.ErrUnreachable) && c.GiveUpAfter > 0 {
		return fmt.Sprintf("given up after %v: %s", c.GiveUpAfter, text)
	}
	return text
}
