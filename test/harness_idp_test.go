package test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const audience = "https://heroes.example"

// idp is a small identity provider that can be made to misbehave.
type idp struct {
	*httptest.Server
	signer
	fetches atomic.Int32 // of the key set

	mu              sync.Mutex
	keys            []signer
	discovery, jwks http.HandlerFunc // replace the usual answers if set

	asked         atomic.Int32     // about tokens, by introspection
	introspection http.HandlerFunc // what it says; without it, 500
}

// newIDP starts a provider that signs with a new ES256 key.
func newIDP(t *testing.T) *idp {
	t.Helper()
	p := &idp{signer: newSigner(t, "ES256", "main-1")}
	p.keys = []signer{p.signer}
	p.Server = httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(p.Close)
	return p
}

func (p *idp) serve(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	discovery, jwks, keys, introspection := p.discovery, p.jwks, p.keys, p.introspection
	p.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.URL.Path == "/.well-known/openid-configuration" && discovery != nil:
		discovery(w, r)
	case r.URL.Path == "/.well-known/openid-configuration":
		_, _ = fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q,"introspection_endpoint":%q}`, p.URL, p.URL+"/jwks", p.URL+"/introspect")
	case r.URL.Path == "/jwks" && jwks != nil:
		p.fetches.Add(1)
		jwks(w, r)
	case r.URL.Path == "/jwks":
		p.fetches.Add(1)
		_, _ = w.Write(keySet(keys))
	case r.URL.Path == "/introspect":
		p.asked.Add(1)
		if id, secret, _ := r.BasicAuth(); id != "gatehouse" || secret != "gatehouse-secret" {
			w.WriteHeader(http.StatusUnauthorized)
		} else if introspection == nil {
			w.WriteHeader(http.StatusInternalServerError)
		} else {
			introspection(w, r)
		}
	default:
		http.NotFound(w, r)
	}
}

func keySet(keys []signer) []byte {
	set := []byte(`{"keys":[`)
	for i, k := range keys {
		if i > 0 {
			set = append(set, ',')
		}
		jwk := k.jwk()
		set = fmt.Appendf(set, `{"kid":%q,"alg":%q,"use":"sig","kty":%q`, k.kid, k.alg, jwk["kty"])
		for _, name := range []string{"crv", "x", "y", "n", "e"} {
			if v, ok := jwk[name]; ok {
				set = fmt.Appendf(set, `,%q:%q`, name, v)
			}
		}
		set = append(set, '}')
	}
	return append(set, `]}`...)
}

// publish adds keys to the key set.
func (p *idp) publish(keys ...signer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = append(p.keys, keys...)
}

// serveDiscovery and serveJWKS replace an answer.
func (p *idp) serveDiscovery(h http.HandlerFunc) { p.mu.Lock(); p.discovery = h; p.mu.Unlock() }
func (p *idp) serveJWKS(h http.HandlerFunc)      { p.mu.Lock(); p.jwks = h; p.mu.Unlock() }

// says makes introspection answer these members for these tokens, and active:
// false for all others. An answer without tokens is for every token.
func (p *idp) says(t *testing.T, answer claims, tokens ...string) {
	t.Helper()
	text := toJSON(t, answer)
	p.introspect(func(w http.ResponseWriter, r *http.Request) {
		if len(tokens) == 0 || slices.Contains(tokens, r.PostFormValue("token")) {
			_, _ = io.WriteString(w, text)
		} else {
			_, _ = io.WriteString(w, `{"active":false}`)
		}
	})
}

func (p *idp) introspect(h http.HandlerFunc) { p.mu.Lock(); p.introspection = h; p.mu.Unlock() }

// good are the claims of a token that is accepted, with changes.
func (p *idp) good(changes ...claims) claims {
	now := time.Now().Unix()
	return claims{
		"iss": p.URL, "aud": audience, "sub": "alice", "client_id": "shop", "jti": fmt.Sprint("j", serial.Add(1)),
		"iat": now, "exp": now + 600, "privileges": []string{"READ_HEROES"},
	}.with(changes...)
}

var serial atomic.Int64

// token is a good token with changes, signed by the provider.
func (p *idp) token(t *testing.T, changes ...claims) string {
	t.Helper()
	return p.sign(t, p.good(changes...))
}
