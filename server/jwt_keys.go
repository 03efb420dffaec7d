package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	"golang.org/x/time/rate"
)

const (
	// maxJWKSBytes bounds a set of keys: some hundreds of them.
	maxJWKSBytes = 1 << 20
	// keysTimeout bounds one attempt to fetch the keys, the one at the start included.
	keysTimeout = 10 * time.Second
	// keysInterval is how often the keys are fetched unasked, so that a withdrawn key is noticed.
	keysInterval = time.Hour
	// unknownKeyInterval is how often a token with an unknown key may cause a fetch, unknownKeyTimeout
	// how long it waits for that.
	unknownKeyInterval = 10 * time.Second
	unknownKeyTimeout  = 3 * time.Second
	// fileInterval is how often a file of keys is looked at.
	fileInterval = time.Second
)

// signatureUses are the values of a key's "use" with which it may check signatures.
var signatureUses = []jwkset.USE{jwkset.UseSig, ""}

// keySource holds the public keys that tokens are checked with.
type keySource interface {
	current() keyfunc.Keyfunc
	close()
}

func newKeySource(o JWTOptions) (keySource, error) {
	if isURL(o.JWKS) {
		return newURLKeys(o)
	}
	return newFileKeys(o.JWKS, o.Logger)
}

// urlKeys are keys behind a URL.
type urlKeys struct {
	keys   keyfunc.Keyfunc
	cancel context.CancelFunc
	client *http.Client
}

func newURLKeys(o JWTOptions) (*urlKeys, error) {
	if err := checkServiceURL(o.JWKS); err != nil {
		return nil, err
	}
	client := boundedClient(o.Client, maxJWKSBytes)
	ctx, cancel := context.WithCancel(context.Background())
	fetched, err := jwkset.NewStorageFromHTTP(o.JWKS, jwkset.HTTPClientStorageOptions{
		Client:          client,
		Ctx:             ctx,
		HTTPTimeout:     keysTimeout,
		RefreshInterval: keysInterval,
		RefreshErrorHandler: func(_ context.Context, err error) {
			o.Logger.Warn("reading the JWKS failed, going on with the keys there are", "error", withoutURL(err))
		},
	})
	var keys keyfunc.Keyfunc
	if err == nil {
		keys, err = refreshing(o.JWKS, fetched)
	}
	if err != nil {
		cancel()
		client.CloseIdleConnections()
		return nil, withoutURL(err)
	}
	return &urlKeys{keys, cancel, client}, nil
}

// refreshing returns keys that are fetched again when a token names one that is not there.
func refreshing(url string, fetched jwkset.Storage) (keyfunc.Keyfunc, error) {
	storage, err := jwkset.NewHTTPClient(jwkset.HTTPClientOptions{
		HTTPURLs:          map[string]jwkset.Storage{url: fetched},
		RateLimitWaitMax:  unknownKeyTimeout,
		RefreshUnknownKID: rate.NewLimiter(rate.Every(unknownKeyInterval), 1),
	})
	if err != nil {
		return nil, err
	}
	return keyfunc.New(keyfunc.Options{Storage: storage, UseWhitelist: signatureUses})
}

func (u *urlKeys) current() keyfunc.Keyfunc { return u.keys }

func (u *urlKeys) close() {
	u.cancel()
	u.client.CloseIdleConnections()
}

// fileKeys are keys in a file, which is looked at when keys are needed.
type fileKeys struct {
	path   string
	logger *slog.Logger

	// mu protects the rest. Reading the file under it makes others wait for the same reading.
	mu     sync.Mutex
	keys   keyfunc.Keyfunc
	looked time.Time
	seen   fileVersion
}

// fileVersion tells one content of a file from the next.
type fileVersion struct {
	modified time.Time
	size     int64
}

func newFileKeys(path string, logger *slog.Logger) (*fileKeys, error) {
	f := &fileKeys{path: path, logger: logger}
	if err := f.readIfChangedLocked(); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *fileKeys) current() keyfunc.Keyfunc {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.looked) >= fileInterval {
		if err := f.readIfChangedLocked(); err != nil {
			f.logger.Warn("reading the JWKS failed, going on with the keys there are", "error", err)
		}
	}
	return f.keys
}

func (f *fileKeys) readIfChangedLocked() error {
	f.looked = time.Now()
	info, err := os.Stat(f.path)
	if err != nil {
		return err
	}
	version := fileVersion{info.ModTime(), info.Size()}
	if version == f.seen {
		return nil
	}
	f.seen = version
	keys, err := readKeys(f.path)
	if err != nil {
		return err
	}
	f.keys = keys
	return nil
}

func (f *fileKeys) close() {}

// readKeys reads a set of keys from a file.
func readKeys(path string) (keyfunc.Keyfunc, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxJWKSBytes+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxJWKSBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxJWKSBytes)
	}
	keys, err := parseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("%s is not a JSON Web Key Set: %w", path, err)
	}
	return keys, nil
}

func parseKeys(text []byte) (keyfunc.Keyfunc, error) {
	var set jwkset.JWKSMarshal
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, err
	}
	if len(set.Keys) == 0 {
		return nil, errors.New("it has no keys")
	}
	storage, err := set.ToStorage()
	if err != nil {
		return nil, err
	}
	return keyfunc.New(keyfunc.Options{Storage: storage, UseWhitelist: signatureUses})
}
