package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
	"github.com/shoal-go/shoal/server/jwtauth"
)

// minSecretBytes is the minimum length of a JWT secret outside development: the output length of HS256.
const minSecretBytes = 32

// check complains of all values and combinations that make no sense, then fills in those of development.
func (f *serveFlags) check(s *settings) {
	f.readSecrets(s)
	f.checkAddresses(s)
	f.checkAuthentication(s)
	f.checkAuthorize(s)
	f.checkBroker(s)
	f.checkAPI(s)
	f.checkTLS(s)
	f.checkWebhook(s)
	f.checkTracing(s)
	f.checkLimits(s)
	f.checkVocabulary(s)
	if f.Dev {
		f.applyDev()
	}
}

func (f *serveFlags) checkAddresses(s *settings) {
	seen := map[string]bool{}
	for _, address := range f.Addr {
		if f.checkListener(s, "addr", address) && seen[address] && !strings.HasSuffix(address, ":0") {
			s.complain("addr", address, "each address once")
		}
		seen[address] = true
	}
	if f.checkListener(s, "admin-addr", f.AdminAddr) && seen[f.AdminAddr] && !strings.HasSuffix(f.AdminAddr, ":0") {
		s.complain("admin-addr", f.AdminAddr, "another address than "+s.key("addr"))
	}
	if mode, err := strconv.ParseUint(f.SocketMode, 8, 32); err != nil || mode > 0o777 {
		s.complain("socket-mode", f.SocketMode, "an octal number from 0 to 777, such as 0660")
	}
}

// socketMode returns the mode of Unix sockets. check has refused any other text.
func (f *serveFlags) socketMode() os.FileMode {
	mode, _ := strconv.ParseUint(f.SocketMode, 8, 32)
	return os.FileMode(mode) // at most 0777
}

// maxSocketPath is the longest path of a Unix socket that every system takes.
const maxSocketPath = 103

// checkListener is checkAddress for a listener that may be a Unix socket.
func (f *serveFlags) checkListener(s *settings, flag, address string) bool {
	path, ok := strings.CutPrefix(address, unixScheme)
	if !ok {
		return f.checkAddress(s, flag, address)
	}
	if !filepath.IsAbs(path) || len(path) > maxSocketPath {
		s.complain(flag, address, fmt.Sprintf("unix: and an absolute path of at most %d bytes", maxSocketPath))
		return false
	}
	return true
}

// checkAddress reports whether an address can be listened on, and complains if not.
func (f *serveFlags) checkAddress(s *settings, flag, address string) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil || !isPort(port) || !isVisibleASCII(host) {
		s.complain(flag, address, "host:port, with a port from 0 to 65535")
		return false
	}
	if f.Dev && !isLoopback(host) {
		s.complain(flag, address, "a loopback address such as 127.0.0.1:"+port+", because --dev lets everybody in")
		return false
	}
	return true
}

func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && strconv.FormatUint(n, 10) == text
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

func (f *serveFlags) checkAuthentication(s *settings) {
	if len(f.JWTSecret) == 0 && f.JWKS == "" && !f.Dev {
		s.refuse("jwt-secret", "and "+s.key("jwks")+" are both missing, want one of them, or --dev to try things out")
	}
	for _, secret := range f.JWTSecret {
		if !f.Dev && len(secret) < minSecretBytes {
			s.refuse("jwt-secret", tooShort(len(secret)))
		}
		if strings.Contains(secret, ",") {
			s.refuse("jwt-secret", "has an entry with a comma, which separates secrets in "+variable("jwt-secret")+
				", want a secret without")
		}
		if err := jwtauth.CheckSecret([]byte(secret)); err != nil {
			s.refuse("jwt-secret", err.Error())
		}
	}
	if len(f.JWTAudience) > 1 && slices.Contains(f.JWTAudience, anyAudience) {
		s.refuse("jwt-audience", "has any beside other entries, want one or the other")
	}
	if f.JWKS == "" {
		return
	}
	if strings.Contains(f.JWKS, "://") {
		checkURL(s, "jwks", f.JWKS, "the path of a file, or a URL with http:// or https:// and a host")
		if len(f.JWTAudience) == 0 {
			s.refuse("jwt-audience", "is missing, want the aud claim of this application's tokens, "+
				"or any to accept every token that the keys of "+s.key("jwks")+" have signed")
		}
		return
	}
	keys, err := jwtauth.New(jwtauth.Options{JWKS: f.JWKS})
	if err != nil {
		s.complain("jwks", f.JWKS, "the path of a JSON Web Key Set, but "+keysProblem(err))
		return
	}
	keys.Close()
}

// keysProblem returns an error of jwtauth.New about a JWKS without its prefix.
func keysProblem(err error) string { return strings.TrimPrefix(err.Error(), "jwtauth: JWKS: ") }

func tooShort(secret int) string {
	return fmt.Sprintf("has %d bytes, want at least %d, such as openssl rand -hex 32 prints", secret, minSecretBytes)
}

// checkURL reports an invalid URL without repeating a password in it.
func checkURL(s *settings, flag, address, want string) {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		s.refuse(flag, "cannot be parsed, want "+want)
	case u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		s.complain(flag, u.Redacted(), want)
	case u.Port() != "" && !isPort(u.Port()) || u.Port() == "0":
		s.complain(flag, u.Redacted(), "a port from 1 to 65535 in it")
	}
}

func (f *serveFlags) checkAuthorize(s *settings) {
	switch {
	case f.Authorize == "" && !f.Dev:
		s.refuse("authorize", "is missing, want open, claims, or the http(s):// URL of a service to be asked")
	case f.Authorize != "" && f.Authorize != "open" && f.Authorize != "claims":
		checkURL(s, "authorize", f.Authorize, "open, claims, or the http(s):// URL of a service to be asked")
	}
}

func (f *serveFlags) checkAPI(s *settings) {
	for _, key := range f.APIKey {
		if err := server.CheckAPIKey(key); err != nil {
			s.refuse("api-key", "has an entry that "+err.Error())
		}
		if strings.Contains(key, ",") {
			s.refuse("api-key", "has an entry with a comma, which separates keys in "+variable("api-key")+", want a key without")
		}
	}
	for _, proxy := range f.TrustedProxy {
		if err := server.CheckTrustedProxy(proxy); err != nil {
			s.refuse("trusted-proxy", "is "+strconv.Quote(proxy)+", "+err.Error())
		}
	}
	if f.PathPrefix != "" {
		f.checkPathPrefix(s)
	}
	for _, origin := range f.AllowedOrigin {
		if err := server.CheckOrigin(origin); err != nil {
			s.refuse("allowed-origin", "is "+strconv.Quote(origin)+", "+err.Error())
		}
	}
}

func (f *serveFlags) checkPathPrefix(s *settings) {
	if err := server.CheckPath(f.PathPrefix); err != nil {
		s.refuse("path-prefix", "is "+strconv.Quote(f.PathPrefix)+", it "+err.Error()+", want a path like /shoal")
	}
	if f.Dev {
		s.refuse("path-prefix", "is given beside "+s.key("dev")+", whose demo page has its own paths; leave one of them out")
	}
}

func isVisibleASCII(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
}

func (f *serveFlags) checkTLS(s *settings) {
	if f.TLSClientCA != "" {
		if _, err := newAuthorities("client certificate authorities", f.TLSClientCA, nil); err != nil {
			s.complain("tls-client-ca", f.TLSClientCA, "a file of certificates in PEM, but "+err.Error())
		}
		if f.TLSCert == "" {
			s.complain("tls-client-ca", f.TLSClientCA, "a "+s.key("tls-cert")+" with it")
		}
	}
	switch {
	case f.TLSCert == "" && f.TLSKey == "":
	case f.TLSKey == "":
		s.complain("tls-cert", f.TLSCert, "a "+s.key("tls-key")+" with it")
	case f.TLSCert == "":
		s.complain("tls-key", f.TLSKey, "a "+s.key("tls-cert")+" with it")
	default:
		files, err := newCertificate("certificate", f.TLSCert, f.TLSKey, func(time.Time) {}, nil)
		if err != nil {
			s.complain("tls-cert", f.TLSCert,
				fmt.Sprintf("a certificate that fits %s %q, but %v", s.key("tls-key"), f.TLSKey, err))
			return
		}
		s.checkValidity("tls-cert", files.Current())
	}
}

// checkValidity warns of a certificate that is not valid now.
func (s *settings) checkValidity(flag string, pair *tls.Certificate) {
	if !isValidNow(pair) {
		from, until := validity(pair)
		s.warn(flag, fmt.Sprintf("is valid from %s until %s only; %s", from, until, renew))
	}
}

func (f *serveFlags) checkLimits(s *settings) {
	if f.IdleTimeout <= f.PingInterval {
		s.complain("idle-timeout", f.IdleTimeout.String(),
			fmt.Sprintf("more than %s, which is %v", s.key("ping-interval"), f.PingInterval))
	}
	const answers = 2 // a pong and the page's own message
	if least := answers / f.PingInterval.Seconds(); f.ClientMessageRate.perSecond < least {
		s.complain("client-message-rate", fmt.Sprintf("%g/s", f.ClientMessageRate.perSecond), fmt.Sprintf(
			"at least %.2g/s, because clients send %d messages in each %s, which is %v",
			least, answers, s.key("ping-interval"), f.PingInterval))
	}
	if f.MaxAge > 0 && f.MaxAge < time.Second {
		s.complain("max-age", f.MaxAge.String(), "0 or at least 1s")
	}
	if total := f.HistoryTotalBytes; total > 0 && total < f.HistoryBytes {
		s.complain("history-total-bytes", strconv.Itoa(int(total)), fmt.Sprintf("at least %s, which is %d, or 0",
			s.key("history-bytes"), f.HistoryBytes))
	}
	if least := f.MaxMessageBytes + server.FrameOverhead; f.QueueBytes < least {
		s.complain("queue-bytes", strconv.Itoa(int(f.QueueBytes)),
			fmt.Sprintf("at least %s, which is %d, and %d bytes more, or a message of that size could never be sent",
				s.key("max-message-bytes"), f.MaxMessageBytes, server.FrameOverhead))
	}
}

// checkVocabulary complains of classes and words that the manager would refuse.
func (f *serveFlags) checkVocabulary(s *settings) {
	classes := make(map[string]manager.ActionClass)
	for _, text := range f.Class {
		action, class, err := manager.ParseActionClass(text)
		if err != nil {
			s.refuse("class", "has the entry "+strconv.Quote(text)+", which "+err.Error()+
				"; an example is build_progress=state:build_id")
			continue
		}
		if other, twice := classes[action]; twice && other != class {
			s.refuse("class", "gives "+strconv.Quote(action)+" two classes, "+other.String()+" and "+class.String())
		}
		classes[action] = class
	}
	checkWords(s, "statuses", f.Statuses)
	checkWords(s, "stages", f.Stages)
}

func checkWords(s *settings, flag string, words []string) {
	for _, word := range splitWords(words) {
		if err := manager.CheckWord(word); err != nil {
			s.refuse(flag, "has the entry "+strconv.Quote(word)+", which "+err.Error())
		}
	}
}

// splitWords returns the words of lists that are separated by commas.
func splitWords(lists []string) (words []string) {
	for _, list := range lists {
		words = append(words, strings.Split(list, ",")...)
	}
	return words
}

// classes returns the manager's option; checkVocabulary has refused any error.
func (f *serveFlags) classes() map[string]manager.ActionClass {
	classes := make(map[string]manager.ActionClass, len(f.Class))
	for _, text := range f.Class {
		action, class, _ := manager.ParseActionClass(text)
		classes[action] = class
	}
	return classes
}
