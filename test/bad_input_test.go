package test

import (
	"crypto/ed25519"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// TestHostileRequests: each is refused, nothing reaches the backend, and the
// gateway neither falls nor grows.
func TestHostileRequests(t *testing.T) {
	t.Parallel()
	g, b, p := startOne(t, "")
	g.do(t, "GET /heroes/1").is(t, http.StatusUnauthorized)
	before := g.peak(t)
	deep := func(opening, closing string, n int) string {
		return strings.Replace(toJSON(t, p.good()), "{", `{"deep":`+strings.Repeat(opening, n)+"1"+strings.Repeat(closing, n)+",", 1)
	}
	for name, c := range map[string]struct {
		statuses []int
		headers  []string
	}{
		"a header of 1 MiB":           {[]int{431}, []string{"X-Big: " + strings.Repeat("x", 1<<20)}},
		"a thousand headers of 1 KiB": {[]int{431}, []string{strings.Repeat("X-Many: "+strings.Repeat("x", 1024)+"\r\n", 1024) + "X: y"}},
		"a token of 64 KiB":           {[]int{400, 401, 431}, []string{bearer(p.token(t, claims{"big": strings.Repeat("x", 48<<10)}))}},
		"a token of 64 KiB of dots":   {[]int{400, 401, 431}, []string{bearer(strings.Repeat(".", 64<<10) + "x")}},
		"10,000 arrays deep":          {[]int{401}, []string{bearer(p.seal(t, esHeader(p), deep("[", "]", 10_000)))}},
		"10,000 objects deep":         {[]int{400, 401, 431}, []string{bearer(p.seal(t, esHeader(p), deep(`{"a":`, "}", 10_000)))}},
		"10,000 deep header":          {[]int{401}, []string{bearer(p.seal(t, `{"alg":"ES256","x":`+strings.Repeat("[", 10_000)+strings.Repeat("]", 10_000)+`}`, toJSON(t, p.good())))}},
		"unclosed":                    {[]int{401}, []string{bearer(p.seal(t, esHeader(p), strings.Repeat("[", 10_000)))}},
		"exp of 1e400":                {[]int{401}, []string{bearer(p.seal(t, esHeader(p), strings.Replace(toJSON(t, p.good(claims{"exp": 1})), `"exp":1`, `"exp":1e400`, 1)))}},
		"exp of many digits":          {[]int{401}, []string{bearer(p.seal(t, esHeader(p), strings.Replace(toJSON(t, p.good(claims{"exp": 1})), `"exp":1`, `"exp":1e`+strings.Repeat("9", 5000), 1)))}},
		"duplicate exp":               {[]int{401}, []string{bearer(p.seal(t, esHeader(p), strings.Replace(toJSON(t, p.good()), "{", `{"exp":1,`, 1)))}},
		"duplicate deep inside":       {[]int{401}, []string{bearer(p.seal(t, esHeader(p), strings.Replace(toJSON(t, p.good()), "{", `{"x":{"a":1,"a":2},`, 1)))}},
		"invalid UTF-8":               {[]int{401}, []string{bearer(p.seal(t, esHeader(p), strings.Replace(toJSON(t, p.good()), "alice", "\xc0\xaf", 1)))}},
		"a lone surrogate":            {[]int{401}, []string{bearer(p.seal(t, esHeader(p), strings.Replace(toJSON(t, p.good()), "alice", `\ud800`, 1)))}},
		"a byte order mark":           {[]int{401}, []string{bearer(p.seal(t, esHeader(p), "\ufeff"+toJSON(t, p.good())))}},
		"a compressed JWE":            {[]int{401}, []string{bearer(b64(`{"alg":"PBES2-HS256+A128KW","enc":"A256GCM","zip":"DEF","p2c":2147483647,"p2s":"AAAA"}`) + ".AAAA.AAAA." + b64(strings.Repeat("x", 4000)) + ".AAAA")}},
		"a JSON serialised JWS":       {[]int{400}, []string{bearer(`{"payload":"e30","signatures":[{"signature":"AAAA"}]}`)}},
	} {
		a := g.do(t, "GET /heroes/1", c.headers...)
		ok := false
		for _, want := range c.statuses {
			ok = ok || a.status == want
		}
		if !ok {
			t.Errorf("%s: %d, want one of %v\n%.300s", name, a.status, c.statuses, a.body)
		}
	}
	b.untouched(t)
	g.do(t, "GET /heroes/1", bearer(p.token(t))).is(t, http.StatusOK)
	if grown := g.peak(t) - before; grown > 100 {
		t.Errorf("memory grew by %d MiB", grown)
	}
}

// TestHostileKeySets: whatever a provider sends, its tokens are 503, those of
// others go on, and memory is bounded.
func TestHostileKeySets(t *testing.T) {
	t.Parallel()
	many := make([]signer, 10_000)
	for i := range many {
		key := make(ed25519.PrivateKey, ed25519.PrivateKeySize)
		copy(key[32:], fmt.Sprintf("%032d", i))
		many[i] = signer{"EdDSA", fmt.Sprint("k", i), key}
	}
	for name, send := range map[string]func(w http.ResponseWriter, p *idp){
		"100 MB of white space": func(w http.ResponseWriter, p *idp) {
			_, _ = io.WriteString(w, `{"keys":[`+strings.Repeat(" ", 100<<20))
		},
		"100 MB that end well": func(w http.ResponseWriter, p *idp) {
			_, _ = io.WriteString(w, strings.Repeat(" ", 100<<20)+string(keySet(p.keys)))
		},
		"100 MB of a string": func(w http.ResponseWriter, p *idp) {
			_, _ = io.WriteString(w, `{"keys":[],"x":"`+strings.Repeat("x", 100<<20)+`"}`)
		},
		"10,000 keys": func(w http.ResponseWriter, p *idp) { _, _ = w.Write(keySet(append(many, p.signer))) },
		"an empty set": func(w http.ResponseWriter, p *idp) {
			_, _ = io.WriteString(w, `{"keys":[]}`)
		},
		"HTML": func(w http.ResponseWriter, p *idp) { _, _ = io.WriteString(w, "<html>") },
		"500": func(w http.ResponseWriter, p *idp) {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = w.Write(keySet(p.keys))
		},
		"10,000 arrays deep": func(w http.ResponseWriter, p *idp) {
			_, _ = io.WriteString(w, `{"keys":`+strings.Repeat("[", 10_000)+strings.Repeat("]", 10_000)+`}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			good, bad, b := newIDP(t), newIDP(t), newBackend(t)
			bad.serveJWKS(func(w http.ResponseWriter, _ *http.Request) { send(w, bad) })
			g := start(t, fill(`
issuers:
  good:
    issuer: GOOD
    audiences: [https://heroes.example]
  bad:
    issuer: BAD
    audiences: [https://heroes.example]
routes:
  - match: /good
    issuers: [good]
    privileges: []
    upstream: BACKEND
  - match: /bad
    issuers: [bad]
    privileges: []
    upstream: BACKEND
`, "GOOD", good.URL, "BAD", bad.URL, "BACKEND", b.URL))
			g.do(t, "GET /good", bearer(good.token(t))).is(t, http.StatusOK)
			before := b.count()
			g.do(t, "GET /bad", bearer(bad.token(t))).refused(t, http.StatusServiceUnavailable, "issuer_unavailable")
			if b.count() != before {
				t.Error("a token that nobody could verify reached the backend")
			}
			g.do(t, "GET /good", bearer(good.token(t))).is(t, http.StatusOK)
			if got := g.peak(t); got > 200 {
				t.Errorf("it took %d MiB", got)
			}
		})
	}
}

// TestDiscoveryMustBeTheIssuers: a discovery document speaks for the issuer
// that was asked, and for no other.
func TestDiscoveryMustBeTheIssuers(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request, p, evil string){
		"a redirect to another host": func(w http.ResponseWriter, r *http.Request, p, evil string) {
			http.Redirect(w, r, evil+"/.well-known/openid-configuration", http.StatusFound)
		},
		"another issuer": func(w http.ResponseWriter, r *http.Request, p, evil string) {
			_, _ = fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, evil, p+"/jwks")
		},
		"the issuer with a slash": func(w http.ResponseWriter, r *http.Request, p, evil string) {
			_, _ = fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, p+"/", p+"/jwks")
		},
		"no key set": func(w http.ResponseWriter, r *http.Request, p, evil string) {
			_, _ = fmt.Fprintf(w, `{"issuer":%q}`, p)
		},
		"a file as key set": func(w http.ResponseWriter, r *http.Request, p, evil string) {
			_, _ = fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":"file:///etc/passwd"}`, p)
		},
		"two key sets": func(w http.ResponseWriter, r *http.Request, p, evil string) {
			_, _ = fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q,"jwks_uri":%q}`, p, evil+"/jwks", p+"/jwks")
		},
		"a redirect round and round": func(w http.ResponseWriter, r *http.Request, p, evil string) {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		},
		"100 MB": func(w http.ResponseWriter, r *http.Request, p, evil string) {
			_, _ = fmt.Fprintf(w, `%s{"issuer":%q,"jwks_uri":%q}`, strings.Repeat(" ", 100<<20), p, p+"/jwks")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var evilAsked atomic.Int32
			p := newIDP(t)
			evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				evilAsked.Add(1)
				p.serve(w, r)
			}))
			t.Cleanup(evil.Close)
			evilURL := strings.Replace(evil.URL, "127.0.0.1", "localhost", 1)
			p.serveDiscovery(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.Host, "localhost") { // came by the redirect
					_, _ = fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, p.URL, p.URL+"/jwks")
					return
				}
				answer(w, r, p.URL, evilURL)
			})
			g, b := startFor(t, p, "")
			g.do(t, "GET /heroes/1", bearer(p.token(t))).refused(t, http.StatusServiceUnavailable, "issuer_unavailable")
			b.untouched(t)
			if n := evilAsked.Load(); n > 0 {
				t.Errorf("the other host was asked %d times", n)
			}
			if got := g.peak(t); got > 200 {
				t.Errorf("it took %d MiB", got)
			}
		})
	}
}

func TestBodiesAreBounded(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	g := start(t, fill(`
defaults:
  max_body: 1000B
routes:
  - match: /small
    public: true
    upstream: BACKEND
  - match: /large
    public: true
    max_body: 2KiB
    upstream: BACKEND
`, "BACKEND", b.URL))
	declared := func(n int) string { return "Content-Length: " + itoa(int64(n)) + "\r\n\r\n" + strings.Repeat("x", n) }
	chunked := func(n int) string {
		return "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("64\r\n"+strings.Repeat("x", 100)+"\r\n", n/100) + "0\r\n\r\n"
	}
	for _, c := range []struct {
		path, body string
		status     int
	}{
		{"/small", declared(1000), 200},
		{"/small", declared(1001), 413},
		{"/small", chunked(1000), 200},
		{"/small", chunked(1100), 413},
		{"/large", declared(2048), 200},
		{"/large", declared(2049), 413},
		{"/large", chunked(2000), 200},
		{"/large", chunked(2100), 413},
		{"/small", "Content-Length: 1000000000000\r\nExpect: 100-continue\r\n\r\n", 413}, // nothing of it need be sent
	} {
		before := b.count()
		a := g.send(t, "POST "+c.path+" HTTP/1.1\r\nHost: gatehouse.example\r\nConnection: close\r\n"+c.body)
		if c.status == 413 {
			a.refused(t, 413, "body_too_large")
			for _, r := range b.all()[before:] { // what reached the backend must not look whole
				if !strings.Contains(r.raw, "Transfer-Encoding: chunked") || strings.Contains(r.raw, "\r\n0\r\n\r\n") {
					t.Errorf("%.40q: the backend took it for whole: %.300q", c.body, r.raw)
				}
			}
			continue
		}
		a.is(t, c.status)
		if r := b.last(t); len(r.body) == 0 {
			t.Errorf("%.40q: the backend got nothing", c.body)
		}
	}
}
