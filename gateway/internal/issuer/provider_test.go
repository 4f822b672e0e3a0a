package issuer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/gateway/token"
)

// The keys of all tests; making RSA keys is slow, so each is made once.
var (
	rsaKey   = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	rsaOther = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	ec256    = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	ec384    = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)) })
	ec521    = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)) })
	edKey    = sync.OnceValue(func() ed25519.PrivateKey { _, k, err := ed25519.GenerateKey(rand.Reader); return must(k, err) })
	secret   = sync.OnceValue(func() []byte { b := make([]byte, 64); _, _ = rand.Read(b); return b })
)

// newEd makes a key that only one test uses.
func newEd() ed25519.PrivateKey { _, k, err := ed25519.GenerateKey(rand.Reader); return must(k, err) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var b64 = base64.RawURLEncoding

var hashes = map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}

// mac signs input with std crypto; key is a private key or a secret.
func mac(alg string, key any, input string) []byte {
	if alg == "EdDSA" {
		return ed25519.Sign(key.(ed25519.PrivateKey), []byte(input))
	}
	hash := hashes[alg[2:]]
	if k, ok := key.([]byte); ok {
		h := hmac.New(hash.New, k)
		h.Write([]byte(input))
		return h.Sum(nil)
	}
	h := hash.New()
	h.Write([]byte(input))
	sum := h.Sum(nil)
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if alg[0] == 'P' {
			return must(rsa.SignPSS(rand.Reader, k, hash, sum, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}))
		}
		return must(rsa.SignPKCS1v15(nil, k, hash, sum))
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, k, sum)
		if err != nil {
			panic(err)
		}
		size := (k.Curve.Params().BitSize + 7) / 8
		out := make([]byte, 2*size)
		r.FillBytes(out[:size])
		s.FillBytes(out[size:])
		return out
	}
	panic(fmt.Sprintf("no way to sign with %T", key))
}

// sign makes a token of any header and payload, good or bad JSON alike.
func sign(alg string, key any, header, payload string) string {
	input := b64.EncodeToString([]byte(header)) + "." + b64.EncodeToString([]byte(payload))
	return input + "." + b64.EncodeToString(mac(alg, key, input))
}

// m is a JSON object.
type m = map[string]any

func encode(v any) string { return string(must(json.Marshal(v))) }

// with returns base changed by the pairs; a nil value deletes.
func with(base m, changes m) m {
	out := m{}
	for k, v := range base {
		out[k] = v
	}
	for k, v := range changes {
		if v == nil {
			delete(out, k)
		} else {
			out[k] = v
		}
	}
	return out
}

// jwkOf writes a public key as a JWK.
func jwkOf(public any, kid string) m {
	j := m{"use": "sig"}
	if kid != "" {
		j["kid"] = kid
	}
	switch k := public.(type) {
	case *rsa.PublicKey:
		j["kty"], j["n"], j["e"] = "RSA", b64.EncodeToString(k.N.Bytes()), b64.EncodeToString(big.NewInt(int64(k.E)).Bytes())
	case *ecdsa.PublicKey:
		point := must(k.Bytes())[1:] // without the 4 that says "uncompressed"
		j["kty"], j["crv"] = "EC", k.Curve.Params().Name
		j["x"], j["y"] = b64.EncodeToString(point[:len(point)/2]), b64.EncodeToString(point[len(point)/2:])
	case ed25519.PublicKey:
		j["kty"], j["crv"], j["x"] = "OKP", "Ed25519", b64.EncodeToString(k)
	case ed25519.PrivateKey:
		return jwkOf(k.Public(), kid)
	}
	return j
}

// provider is an identity provider in the test's own process.
type provider struct {
	url     string
	client  *http.Client
	jwks    atomic.Int64 // requests for the key set
	meta    atomic.Int64 // requests for metadata
	missing atomic.Int64 // requests for anything else

	mu     sync.Mutex
	keys   []m
	onJWKS http.HandlerFunc // instead of the keys
	onMeta http.HandlerFunc // instead of the metadata
	header http.Header      // added to the key set
}

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	keys, onJWKS, onMeta, header := p.keys, p.onJWKS, p.onMeta, p.header
	p.mu.Unlock()
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		p.meta.Add(1)
		if onMeta != nil {
			onMeta(w, r)
			return
		}
		fmt.Fprint(w, encode(m{"issuer": p.url, "jwks_uri": p.url + "/jwks"}))
	case "/jwks":
		p.jwks.Add(1)
		if onJWKS != nil {
			onJWKS(w, r)
			return
		}
		for name, values := range header {
			w.Header()[name] = values
		}
		fmt.Fprint(w, encode(m{"keys": keys}))
	default:
		p.missing.Add(1)
		http.NotFound(w, r)
	}
}

// rotate replaces the published keys.
func (p *provider) rotate(keys ...m) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = keys
}

// answer makes the provider serve the key set with h; nil makes it well again.
func (p *provider) answer(h http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.onJWKS = h
}

func (p *provider) answerMeta(h http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.onMeta = h
}

func (p *provider) fetched(t *testing.T, jwks, meta int64) {
	t.Helper()
	if gotJ, gotM := p.jwks.Load(), p.meta.Load(); gotJ != jwks || gotM != meta {
		t.Fatalf("%d fetches of the key set and %d of the metadata, want %d and %d", gotJ, gotM, jwks, meta)
	}
}

// newProvider serves on a real socket.
func newProvider(t testing.TB, keys ...m) *provider {
	p := &provider{keys: keys}
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	p.url = s.URL
	return p
}

// newPiped serves on pipes, for tests inside a synctest bubble: there a
// goroutine that waits on a socket would stop the clock.
func newPiped(t testing.TB, keys ...m) *provider {
	p := &provider{keys: keys, url: "http://localhost:1"}
	l := pipes{make(chan net.Conn), make(chan struct{})}
	server := &http.Server{Handler: p, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	go func() { _ = server.Serve(l) }()
	p.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		near, far := net.Pipe()
		select {
		case l.conns <- far:
			return near, nil
		case <-l.closed:
			return nil, errors.New("connection refused")
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}}
	t.Cleanup(func() { _ = server.Close() })
	return p
}

type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l pipes) Close() error   { close(l.closed); return nil }
func (l pipes) Addr() net.Addr { return &net.TCPAddr{} }

const audience = "https://api.example.com"

var allAlgorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// options are those of an issuer that trusts p.
func (p *provider) options() Options {
	return Options{
		Name: "main", Issuer: p.url, Audiences: []string{audience}, Algorithms: allAlgorithms,
		Leeway: 30 * time.Second, Client: p.client,
		PrivilegesFrom: []PrivilegeSource{{Path: token.MustPath("privileges")}},
	}
}

// claims are good ones.
func claims(iss string) m {
	now := time.Now().Unix()
	return m{"iss": iss, "aud": audience, "sub": "admin2", "iat": now, "exp": now + 300, "jti": "t1", "privileges": []string{"CREATE_HERO", "ASSIGN_HERO"}}
}

// edToken is a good token of p with that kid, "" for none.
func (p *provider) edToken(k ed25519.PrivateKey, kid string) string {
	h := m{"alg": "EdDSA", "typ": "at+jwt"}
	if kid != "" {
		h["kid"] = kid
	}
	return sign("EdDSA", k, encode(h), encode(claims(p.url)))
}

// start makes an issuer, starts it and closes it at the test's end.
func start(t testing.TB, o Options) *Issuer {
	t.Helper()
	i, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	i.Start(t.Context())
	t.Cleanup(i.Close)
	return i
}

// verify returns the reason of the refusal, "" if there is none, and its detail.
func verify(t testing.TB, i *Issuer, text string) (token.Reason, string) {
	t.Helper()
	v, err := Set{i}.Verify(t.Context(), token.NewRaw(text))
	if err == nil {
		if v == nil {
			t.Fatal("neither a verified token nor an error")
		}
		return "", ""
	}
	if v != nil {
		t.Fatal("a verified token beside an error")
	}
	e := (*token.Error)(nil)
	if !errors.As(err, &e) {
		t.Fatalf("%T is no *token.Error: %v", err, err)
	}
	if len(text) > 40 && strings.Contains(e.Detail, text[len(text)-20:]) {
		t.Fatalf("the detail holds the token: %s", e.Detail)
	}
	if len(e.Detail) > 1500 {
		t.Fatalf("the detail has %d bytes", len(e.Detail))
	}
	if e.Reason == token.IssuerUnavailable && e.RetryAfter <= 0 {
		t.Fatalf("%s without RetryAfter", e)
	}
	return e.Reason, e.Detail
}

func expect(t testing.TB, i *Issuer, text string, want token.Reason) {
	t.Helper()
	if got, detail := verify(t, i, text); got != want {
		t.Fatalf("got %q (%s), want %q", got, detail, want)
	}
}

// clock is a time that the test sets.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Now()} }

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.at }

func (c *clock) advance(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.at = c.at.Add(d) }

// eventually waits until ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("it never came about that %s", what)
		case <-tick.C:
		}
	}
}

// logged collects log lines.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) { l.mu.Lock(); defer l.mu.Unlock(); return l.b.Write(p) }

func (l *logged) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

func (l *logged) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
