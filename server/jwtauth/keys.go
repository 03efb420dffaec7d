package jwtauth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"time"

	"github.com/shoal-go/shoal/internal/logs"
	"github.com/shoal-go/shoal/internal/reload"
	"github.com/shoal-go/shoal/internal/strictjson"
)

const (
	// maxJWKSBytes bounds a key set.
	maxJWKSBytes = 1 << 20
	// maxKeys bounds the usable keys of a set, and so the work for a token that names none of them.
	maxKeys = 256
	// maxSkippedLines bounds the log lines about the unusable keys of one set.
	maxSkippedLines = 20
	// minRSABits and maxRSABits bound the accepted RSA keys. RFC 7518 requires 2048 bits.
	minRSABits, maxRSABits = 2048, 8192
)

// keySource holds the public keys that verify tokens.
type keySource interface {
	// current returns the newest set that could be read; nil before the first.
	current() *keySet
	// refresh reads the keys again and returns the current set, which is that of the time asOf or later. An error means
	// that a key that is not in this set may exist all the same.
	refresh(ctx context.Context) (set *keySet, asOf time.Time, err error)
	ready() error
	close()
}

func newKeySource(o Options) (keySource, error) {
	if isURL(o.JWKS) {
		return newURLKeys(o)
	}
	return newFileKeys(o.JWKS, o.Logger)
}

// keySet is a set of public keys. It is immutable; nil is the empty set.
type keySet struct {
	keys     []publicKey
	skipped  []skippedKey
	identity [sha256.Size]byte // of the text that it was decoded from
}

// publicKey is a key with the only algorithm that it may verify.
type publicKey struct {
	id        string // "" if it has none; several keys may have the same
	algorithm string
	key       crypto.PublicKey
}

// skippedKey is an entry of a set that cannot verify tokens.
type skippedKey struct {
	index  int
	id     string
	reason error
}

// verify returns nil if a key of the set verifies the token, errUnknownKey if no key may, or errBadSignature.
func (s *keySet) verify(t signedToken) error {
	result := errUnknownKey
	if s == nil {
		return result
	}
	for _, k := range s.keys {
		if t.keyID != "" && k.id != t.keyID {
			continue
		}
		if t.keyID != "" || k.algorithm == t.algorithm {
			result = errBadSignature
		}
		if k.algorithm == t.algorithm && signingMethods[k.algorithm].Verify(t.signed, t.signature, k.key) == nil {
			return nil
		}
	}
	return result
}

// equal reports whether two sets were decoded from the same text.
func (s *keySet) equal(other *keySet) bool {
	return other != nil && s.identity == other.identity
}

// logSkipped logs the entries that were skipped, for a set that is new.
func (s *keySet) logSkipped(logger *slog.Logger) {
	for i, k := range s.skipped {
		if i == maxSkippedLines {
			logger.Info("JWKS keys skipped", "further", len(s.skipped)-i)
			return
		}
		logger.Info("JWKS key skipped", "index", k.index, "kid", logs.Truncate(k.id), "reason", k.reason)
	}
}

// parseKeySet decodes a JSON Web Key Set (RFC 7517). Each entry is judged by itself: the set is refused only if no
// entry is usable.
func parseKeySet(text []byte) (*keySet, error) {
	o, err := strictjson.Decode(reload.TrimBOM(text))
	if err != nil {
		return nil, fmt.Errorf("not a JSON Web Key Set: it %w", err)
	}
	list, _ := o.Get("keys")
	var entries []json.RawMessage
	if len(list) == 0 || json.Unmarshal(list, &entries) != nil || o.Duplicate("keys") != nil {
		return nil, errors.New(`not a JSON Web Key Set: it has no array "keys"`)
	}
	s := &keySet{identity: sha256.Sum256(text)}
	for i, entry := range entries {
		k, err := parseKey(entry)
		if err == nil && len(s.keys) == maxKeys {
			err = fmt.Errorf("the set has more than %d usable keys", maxKeys)
		}
		if err != nil {
			s.skipped = append(s.skipped, skippedKey{i, k.id, err})
			continue
		}
		s.keys = append(s.keys, k)
	}
	switch {
	case len(s.keys) > 0:
		return s, nil
	case len(s.skipped) > 0:
		first := s.skipped[0]
		return nil, fmt.Errorf("it has no usable key among %d: key %d: %w", len(entries), first.index, first.reason)
	}
	return nil, errors.New("it has no keys")
}

// keyType is a kind of keys. names are those of its only algorithm: as tokens have it, then others (RFC 9864).
type keyType struct {
	names []string
	parse func(strictjson.Object) (crypto.PublicKey, error)
}

// keyTypes are the accepted kinds by their kty.
var keyTypes = map[string]keyType{
	"RSA": {[]string{"RS256"}, rsaKey},
	"EC":  {[]string{"ES256"}, ecKey},
	"OKP": {[]string{"EdDSA", "Ed25519"}, edKey},
}

// parseKey decodes one entry of a set. With an error the key has its id, if that could be decoded.
func parseKey(entry []byte) (publicKey, error) {
	o, err := strictjson.Decode(entry)
	if err == nil {
		err = o.Duplicate()
	}
	if err != nil {
		return publicKey{}, err
	}
	id, err := o.Text("kid")
	if err != nil {
		return publicKey{}, err
	}
	k := publicKey{id: id}
	kty, err := o.Text("kty")
	if err != nil {
		return k, err
	}
	kind, known := keyTypes[kty]
	if !known {
		return k, errors.New("kty is not RSA, EC or OKP")
	}
	k.algorithm = kind.names[0]
	if err := checkPurpose(o, kind); err != nil {
		return k, err
	}
	k.key, err = kind.parse(o)
	return k, err
}

// checkPurpose returns an error for a key that is not for verifying tokens with the algorithm of its kind.
func checkPurpose(o strictjson.Object, kind keyType) error {
	if use, given := o.Get("use"); given && string(use) != `"sig"` {
		return errors.New(`use is not "sig"`)
	}
	if value, given := o.Get("key_ops"); given {
		operations, err := strictjson.Strings(value)
		if err != nil || !slices.Contains(operations, "verify") {
			return errors.New(`key_ops does not contain "verify"`)
		}
	}
	if value, given := o.Get("alg"); given {
		algorithm, err := strictjson.String(value)
		if err != nil || !slices.Contains(kind.names, algorithm) {
			return errors.New("alg is not " + kind.names[0])
		}
	}
	return nil
}

// keyBytes returns a member that is base64url.
func keyBytes(o strictjson.Object, name string) ([]byte, error) {
	text, err := o.Text(name)
	if err != nil {
		return nil, err
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) == 0 {
		return nil, &strictjson.MemberError{Name: name, Problem: "must be base64url without padding"}
	}
	return b, nil
}

func rsaKey(o strictjson.Object) (crypto.PublicKey, error) {
	n, err := keyBytes(o, "n")
	if err != nil {
		return nil, err
	}
	e, err := keyBytes(o, "e")
	if err != nil {
		return nil, err
	}
	k := &rsa.PublicKey{N: new(big.Int).SetBytes(n)}
	if bits := k.N.BitLen(); bits < minRSABits || bits > maxRSABits {
		return nil, fmt.Errorf("the RSA key has %d bits, want %d to %d", bits, minRSABits, maxRSABits)
	}
	exponent := new(big.Int).SetBytes(e)
	if exponent.BitLen() > 31 || exponent.Int64() < 3 || exponent.Bit(0) == 0 || k.N.Bit(0) == 0 {
		return nil, errors.New("it is not a valid RSA key")
	}
	k.E = int(exponent.Int64())
	return k, nil
}

func ecKey(o strictjson.Object) (crypto.PublicKey, error) {
	const size = 32
	if curve, err := o.Text("crv"); err != nil || curve != "P-256" {
		return nil, errors.New("crv is not P-256")
	}
	point := []byte{4} // an uncompressed point
	for _, name := range []string{"x", "y"} {
		b, err := keyBytes(o, name)
		if err != nil {
			return nil, err
		}
		if len(b) != size {
			return nil, &strictjson.MemberError{Name: name, Problem: "must have 32 bytes"}
		}
		point = append(point, b...)
	}
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
}

func edKey(o strictjson.Object) (crypto.PublicKey, error) {
	if curve, err := o.Text("crv"); err != nil || curve != "Ed25519" {
		return nil, errors.New("crv is not Ed25519")
	}
	x, err := keyBytes(o, "x")
	if err != nil {
		return nil, err
	}
	if len(x) != ed25519.PublicKeySize {
		return nil, &strictjson.MemberError{Name: "x", Problem: "must have 32 bytes"}
	}
	return ed25519.PublicKey(x), nil
}

// fileInterval is the minimum time between two reads of a file of keys.
const fileInterval = reload.Interval

// fileKeys are keys in a file, which is read again when its contents have changed.
type fileKeys struct{ files *reload.Files[*keySet] }

func newFileKeys(path string, logger *slog.Logger) (fileKeys, error) {
	files, err := reload.New(reload.Options[*keySet]{
		Name: "JWKS", Paths: []string{path}, MaxBytes: maxJWKSBytes, Logger: logger,
		Parse: func(contents [][]byte) (*keySet, error) {
			set, err := parseKeySet(contents[0])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			set.logSkipped(logger)
			return set, nil
		},
		Attrs: func(set *keySet) []slog.Attr { return []slog.Attr{slog.Int("keys", len(set.keys))} },
	})
	return fileKeys{files}, err
}

func (f fileKeys) current() *keySet { return f.files.Current() }

func (f fileKeys) refresh(context.Context) (*keySet, time.Time, error) {
	return f.files.Refresh(50 * time.Millisecond)
}

func (f fileKeys) ready() error { return nil }
func (f fileKeys) close()       {}
