package issuer

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/gateway/token"
)

// The first stories happen on real sockets; those about time in a bubble whose
// clock jumps, so that a day takes no time and every fetch can be counted.

func TestDiscovery(t *testing.T) {
	good := newEd()
	type request = func(p *provider) http.HandlerFunc
	doc := func(change func(p *provider) m) request {
		return func(p *provider) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprint(w, encode(with(m{"issuer": p.url, "jwks_uri": p.url + "/jwks"}, change(p))))
			}
		}
	}
	say := func(status int, body string) request {
		return func(*provider) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status); fmt.Fprint(w, body) }
		}
	}
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("the other host was asked for %s", r.URL)
	}))
	defer other.Close()
	for _, c := range []struct {
		name string
		meta request
		err  string // "" if the keys are found
	}{
		{"good", doc(func(*provider) m { return nil }), ""},
		{"more members", doc(func(*provider) m { return m{"token_endpoint": "x", "x": []any{m{}}} }), ""},
		{"another issuer", doc(func(p *provider) m { return m{"issuer": p.url + "/other"} }), "is that of issuer"},
		{"a slash more", doc(func(p *provider) m { return m{"issuer": p.url + "/"} }), "is that of issuer"},
		{"no issuer", doc(func(*provider) m { return m{"issuer": nil} }), `issuer "missing"`},
		{"issuer a list", doc(func(p *provider) m { return m{"issuer": []string{p.url}} }), "is that of issuer"},
		{"no jwks_uri", doc(func(*provider) m { return m{"jwks_uri": nil} }), `jwks_uri is "missing"`},
		{"jwks_uri over http", doc(func(*provider) m { return m{"jwks_uri": "http://id.example.com/jwks"} }), "is http"},
		{"jwks_uri a file", doc(func(*provider) m { return m{"jwks_uri": "file:///etc/passwd"} }), "not an https URL"},
		{"jwks_uri relative", doc(func(*provider) m { return m{"jwks_uri": "/jwks"} }), "not an https URL"},
		{"a member twice", func(p *provider) http.HandlerFunc {
			return say(200, `{"issuer":"https://evil.example","issuer":"`+p.url+`","jwks_uri":"`+p.url+`/jwks"}`)(p)
		}, "stands twice"},
		{"HTML", say(200, "<html>"), "not a metadata document"},
		{"a list", say(200, "[]"), "not a metadata document"},
		{"nothing", say(200, ""), "not a metadata document"},
		{"500", say(500, "{}"), "500"},
		{"404 twice", say(404, ""), "404"},
		{"401", say(401, ""), "401"},
		{"204", say(204, ""), "204"},
		{"redirect to another host", func(*provider) http.HandlerFunc {
			return http.RedirectHandler(other.URL+"/.well-known/openid-configuration", http.StatusFound).ServeHTTP
		}, "another host"},
		{"redirect in a circle", func(p *provider) http.HandlerFunc {
			return http.RedirectHandler(p.url+"/.well-known/openid-configuration", http.StatusFound).ServeHTTP
		}, "more than 3 redirects"},
		{"redirect on the same host", func(p *provider) http.HandlerFunc {
			asked := new(atomic.Int64)
			return func(w http.ResponseWriter, r *http.Request) {
				if asked.Add(1) == 1 {
					http.Redirect(w, r, r.URL.Path+"?again", http.StatusFound)
					return
				}
				doc(func(*provider) m { return nil })(p)(w, r)
			}
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newProvider(t, jwkOf(good, "a"))
			p.answerMeta(c.meta(p))
			var seen []string
			o := p.options()
			o.OnFetch = func(kind string, err error) { seen = append(seen, fmt.Sprint(kind, " ", err == nil)) }
			i := start(t, o)
			h := i.Health()
			if c.err == "" {
				expect(t, i, p.edToken(good, "a"), "")
				if !h.Ready || h.Keys != 1 || h.Err != nil || h.Fetched.IsZero() || fmt.Sprint(seen) != "[discovery true jwks true]" {
					t.Fatalf("%+v, %v", h, seen)
				}
				return
			}
			if h.Ready || h.Err == nil || !strings.Contains(h.Err.Error(), c.err) || p.jwks.Load() != 0 || seen[0] != "discovery false" {
				t.Fatalf("%+v, %v, want one about %q", h, seen, c.err)
			}
			expect(t, i, p.edToken(good, "a"), token.IssuerUnavailable)
		})
	}
}

// TestDiscoveryRFC8414: an authorization server that knows nothing of OpenID.
func TestDiscoveryRFC8414(t *testing.T) {
	k := newEd()
	var paths []string
	var s *httptest.Server
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.URL.Path)
		switch r.URL.Path {
		case "/.well-known/oauth-authorization-server/tenant/1":
			fmt.Fprint(w, encode(m{"issuer": s.URL + "/tenant/1", "jwks_uri": s.URL + "/keys"}))
		case "/keys":
			fmt.Fprint(w, encode(m{"keys": []m{jwkOf(k, "a")}}))
		default:
			http.NotFound(w, r)
		}
	}))
	defer s.Close()
	p := &provider{url: s.URL + "/tenant/1"}
	i := start(t, p.options())
	expect(t, i, p.edToken(k, "a"), "")
	if got := fmt.Sprint(paths); got != "[/tenant/1/.well-known/openid-configuration /.well-known/oauth-authorization-server/tenant/1 /keys]" {
		t.Fatal(got)
	}
}

// TestKeySetAnswers: what a provider may answer instead of its keys. Whatever
// it is, the keys at hand serve on, and the fetches are counted.
func TestKeySetAnswers(t *testing.T) {
	k := newEd()
	rotated := newEd()
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		t.Error("the other host was asked for keys")
		fmt.Fprint(w, encode(m{"keys": []m{jwkOf(rotated, "b")}}))
	}))
	defer other.Close()
	var sent atomic.Int64 // bytes of a huge body that were taken
	many := func(n int) string {
		return encode(m{"keys": func() (out []m) {
			for range n {
				out = append(out, m{"kty": "OKP"})
			}
			return append(out, jwkOf(rotated, "b"))
		}()})
	}
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		err    string
	}{
		{"500", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, "500"},
		{"500 with keys", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			fmt.Fprint(w, encode(m{"keys": []m{jwkOf(rotated, "b")}}))
		}, "500"},
		{"206", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(206)
			fmt.Fprint(w, encode(m{"keys": []m{jwkOf(rotated, "b")}}))
		}, "206"},
		{"304 that was not asked for", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(304) }, "304"},
		{"HTML", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>Please log in</html>") }, "not a JSON object"},
		{"an empty set", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"keys":[]}`) }, "empty"},
		{"a set of nothing usable", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, encode(m{"keys": []m{{"kty": "oct", "k": "AAAA", "kid": "b"}}}))
		}, "none of the 1 keys"},
		{"1,001 keys", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, many(1000)) }, "more than 1000 keys"},
		{"10,000 keys", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, many(10000)) }, "more than 1000 keys"},
		{"1 GB", func(w http.ResponseWriter, r *http.Request) {
			chunk := []byte(strings.Repeat(" ", 64<<10))
			for range 16 << 10 {
				n, err := w.Write(chunk)
				sent.Add(int64(n))
				if err != nil {
					return
				}
			}
		}, "more than 1048576 bytes"},
		{"100 MB, compressed", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = io.CopyN(z, spaces{}, 100<<20)
			_ = z.Close()
		}, "more than 1048576 bytes"},
		{"cut off", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, `{"keys":[`)
		}, "broke off"},
		{"no HTTP", func(w http.ResponseWriter, r *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				fmt.Fprint(c, "SSH-2.0-OpenSSH_9.2\r\n")
				_ = c.Close()
			}
		}, "malformed HTTP"},
		{"redirect to another host", http.RedirectHandler(other.URL+"/jwks", http.StatusFound).ServeHTTP, "another host"},
		{"hangs", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "deadline exceeded"},
		{"a slow drip", func(w http.ResponseWriter, r *http.Request) {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for r.Context().Err() == nil {
				fmt.Fprint(w, " ")
				w.(http.Flusher).Flush()
				select {
				case <-tick.C:
				case <-r.Context().Done():
				}
			}
		}, "deadline exceeded"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newProvider(t, jwkOf(k, "a"))
			at := newClock()
			o := p.options()
			o.Now, o.MinRefreshInterval = at.now, time.Hour
			i, err := New(o)
			if err != nil {
				t.Fatal(err)
			}
			i.remote.fetcher.timeout = 300 * time.Millisecond
			if !strings.Contains(c.err, "deadline") {
				i.remote.fetcher.timeout = time.Minute
			}
			i.remote.wait, i.remote.backOff = time.Minute, time.Hour
			i.Start(t.Context())
			t.Cleanup(i.Close)
			old := p.edToken(k, "a")
			expect(t, i, old, "")
			p.fetched(t, 1, 1)

			p.answer(c.answer)
			at.advance(2 * time.Hour)
			// The tokens' own time must not pass with it.
			i.o.Leeway = 48 * time.Hour
			expect(t, i, p.edToken(rotated, "b"), token.IssuerUnavailable)
			h := i.Health()
			if !h.Ready || h.Keys != 1 || h.Err == nil || !strings.Contains(h.Err.Error(), c.err) {
				t.Fatalf("%+v, want an error about %q", h, c.err)
			}
			expect(t, i, old, "")                                          // the last good key serves
			if asked := p.jwks.Load(); asked != 2 && c.name != "no HTTP" { // net/http asks again when a kept connection breaks
				t.Fatalf("%d fetches", asked)
			}

			p.answer(nil)
			p.rotate(jwkOf(rotated, "b"))
			at.advance(2 * time.Hour)
			expect(t, i, p.edToken(rotated, "b"), "")
			expect(t, i, old, token.InvalidToken) // and the retired one does not
		})
	}
	if n := sent.Load(); n > 16<<20 {
		t.Errorf("%d bytes of a huge key set were taken", n)
	}
}

type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// TestStorm: a thousand requests with unknown kids at once cause one fetch,
// and those of them whose key has just been published are served by it.
func TestStorm(t *testing.T) {
	old, rotated := newEd(), newEd()
	p := newProvider(t, jwkOf(old, "old"))
	at := newClock()
	o := p.options()
	o.Now, o.Leeway = at.now, 48*time.Hour
	i := start(t, o)
	i.remote.wait = time.Minute
	p.fetched(t, 1, 1)

	arrived, proceed := make(chan struct{}, 1), make(chan struct{})
	p.answer(func(w http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		<-proceed
		fmt.Fprint(w, encode(m{"keys": []m{jwkOf(old, "old"), jwkOf(rotated, "new")}}))
	})
	at.advance(time.Minute)
	var served, refused, other atomic.Int64
	var wg sync.WaitGroup
	for n := range 1000 {
		wg.Go(func() {
			kid := "new"
			if n%2 == 1 {
				kid = fmt.Sprint("forged", n)
			}
			switch reason, _ := verify(t, i, p.edToken(rotated, kid)); reason {
			case "":
				served.Add(1)
			case token.InvalidToken:
				refused.Add(1)
			default:
				other.Add(1)
			}
		})
	}
	<-arrived
	// A fetch is under way; whoever has a known key does not wait for it.
	for range 100 {
		expect(t, i, p.edToken(old, "old"), "")
	}
	close(proceed)
	wg.Wait()
	if served.Load() != 500 || refused.Load() != 500 || other.Load() != 0 {
		t.Fatalf("%d served, %d refused, %d otherwise", served.Load(), refused.Load(), other.Load())
	}
	p.fetched(t, 2, 1)

	// Within the interval no further kid causes another, a known one never does.
	p.answer(nil)
	p.rotate(jwkOf(old, "old"), jwkOf(rotated, "new"))
	for n := range 300 {
		expect(t, i, p.edToken(rotated, fmt.Sprint("later", n)), token.InvalidToken)
	}
	p.fetched(t, 2, 1)
	at.advance(time.Minute)
	for range 300 {
		expect(t, i, p.edToken(newEd(), "new"), token.InvalidToken) // known kid, bad signature
		expect(t, i, p.edToken(newEd(), ""), token.InvalidToken)    // no kid, bad signature
	}
	p.fetched(t, 2, 1)
	expect(t, i, p.edToken(rotated, "forged1"), token.InvalidToken)
	p.fetched(t, 3, 1)
	i.remote.mu.Lock()
	defer i.remote.mu.Unlock()
	if n := len(i.remote.misses); n > maxMisses {
		t.Fatalf("%d misses remembered", n)
	}
}

// bubble runs a story under a clock that jumps.
func bubble(t *testing.T, f func(t *testing.T)) {
	newEd()
	synctest.Test(t, f)
}

func TestRotation(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := newEd(), newEd()
		p := newPiped(t, jwkOf(a, "a"))
		i := start(t, p.options())
		expect(t, i, p.edToken(a, "a"), "")
		p.fetched(t, 1, 1)

		// A new key serves at once: its first token has it fetched.
		time.Sleep(time.Minute)
		p.rotate(jwkOf(a, "a"), jwkOf(b, "b"))
		expect(t, i, p.edToken(b, "b"), "")
		expect(t, i, p.edToken(a, "a"), "")
		p.fetched(t, 2, 1)

		// A retired key stops at the next refresh, within 11 minutes.
		p.rotate(jwkOf(b, "b"))
		expect(t, i, p.edToken(a, "a"), "")
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		p.fetched(t, 3, 2)
		expect(t, i, p.edToken(a, "a"), token.InvalidToken)
		expect(t, i, p.edToken(b, "b"), "")
	})
}

// TestGuessedKid: whoever names a key before the provider rotates to it must
// not thereby keep it out.
func TestGuessedKid(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := newEd(), newEd()
		p := newPiped(t, jwkOf(a, "a"))
		i := start(t, p.options())
		expect(t, i, p.edToken(newEd(), "b"), token.InvalidToken) // the schedule's own fetch was just now; this asks all the same
		p.fetched(t, 2, 1)
		p.rotate(jwkOf(b, "b"))
		expect(t, i, p.edToken(b, "b"), token.InvalidToken) // remembered
		p.fetched(t, 2, 1)
		time.Sleep(31 * time.Second)
		expect(t, i, p.edToken(b, "b"), "")
		p.fetched(t, 3, 1)
	})
}

func TestKeysWithoutKid(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := newEd(), newEd()
		p := newPiped(t, jwkOf(a, ""))
		i := start(t, p.options())
		time.Sleep(time.Minute)
		for _, kid := range []string{"", "any", "other"} {
			expect(t, i, p.edToken(a, kid), "")
		}
		p.fetched(t, 1, 1)
		// Without a kid a bad signature is only that.
		p.rotate(jwkOf(b, ""))
		expect(t, i, p.edToken(b, ""), token.InvalidToken)
		p.fetched(t, 1, 1)
		// A kid that no key bears may be of one that is not here yet.
		expect(t, i, p.edToken(b, "b"), "")
		p.fetched(t, 2, 1)
		expect(t, i, p.edToken(b, ""), "")
		// No kid, and no key that fits: the same.
		p.rotate(jwkOf(b, ""), jwkOf(&ec256().PublicKey, ""))
		time.Sleep(time.Minute)
		expect(t, i, sign("ES256", ec256(), `{"alg":"ES256"}`, encode(claims(p.url))), "")
		p.fetched(t, 3, 1)
		expect(t, i, sign("ES384", ec384(), `{"alg":"ES384"}`, encode(claims(p.url))), token.InvalidToken)
		p.fetched(t, 3, 1)
		time.Sleep(time.Minute)
		for range 10 {
			expect(t, i, sign("ES384", ec384(), `{"alg":"ES384"}`, encode(claims(p.url))), token.InvalidToken)
		}
		p.fetched(t, 4, 1)
	})
}

// TestUnusableKid: a kid that is published for a key of no use is not unknown.
func TestUnusableKid(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := newEd()
		p := newPiped(t, jwkOf(a, "a"), with(jwkOf(newEd(), "enc"), m{"use": "enc"}))
		log := new(logged)
		o := p.options()
		o.Log = log.logger()
		i := start(t, o)
		time.Sleep(time.Minute)
		reason, detail := verify(t, i, p.edToken(a, "enc"))
		if reason != token.InvalidToken || !strings.Contains(detail, `use \"enc\"`) && !strings.Contains(detail, `use "enc"`) {
			t.Fatal(reason, detail)
		}
		p.fetched(t, 1, 1)
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := strings.Count(log.String(), "left out"); n != 1 {
			t.Fatalf("the key was logged as left out %d times", n)
		}
	})
}

func TestProviderDies(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := newEd()
		p := newPiped(t, jwkOf(a, "a"))
		log := new(logged)
		o := p.options()
		o.Leeway, o.Log = 48*time.Hour, log.logger()
		i := start(t, o)
		good := p.edToken(a, "a")
		fetched := i.Health().Fetched

		dead := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }
		p.answer(dead)
		p.answerMeta(dead)
		time.Sleep(12 * time.Minute)
		synctest.Wait()
		h := i.Health()
		if !h.Ready || h.Err == nil || !h.Fetched.Equal(fetched) {
			t.Fatalf("%+v", h)
		}
		expect(t, i, good, "")
		// Nobody can tell now whether that key exists: not the token's fault.
		expect(t, i, p.edToken(newEd(), "b"), token.IssuerUnavailable)
		expect(t, i, p.edToken(newEd(), "a"), token.InvalidToken) // but this signature is bad in any case

		// It retries each half minute or so, no matter how many tokens come.
		before := p.jwks.Load()
		for range 600 {
			time.Sleep(time.Second)
			expect(t, i, p.edToken(newEd(), "b"), token.IssuerUnavailable)
		}
		if n := p.jwks.Load() - before; n < 17 || n > 24 {
			t.Fatalf("%d fetches in 10 minutes", n)
		}

		time.Sleep(23 * time.Hour)
		synctest.Wait()
		expect(t, i, good, "")
		time.Sleep(time.Hour)
		synctest.Wait()
		reason, detail := verify(t, i, good)
		if reason != token.IssuerUnavailable || !strings.Contains(detail, "503") || !strings.Contains(detail, "24h") {
			t.Fatal(reason, detail)
		}
		if i.Health().Ready {
			t.Fatal("ready with keys that are too old")
		}
		if err := i.trusts(i.keys.Load().keys[0].thumbprint, time.Now()); err == nil || err.Reason != token.IssuerUnavailable {
			t.Fatalf("a kept verification outlives its keys: %v", err)
		}

		p.answer(nil)
		p.answerMeta(nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		expect(t, i, good, "")
		if h := i.Health(); !h.Ready || h.Err != nil {
			t.Fatalf("%+v", h)
		}
		if !strings.Contains(log.String(), "can be fetched again") {
			t.Fatal("the log does not tell that all is well again")
		}
	})
}

// TestDeadFromTheStart: each retry comes later than the one before, up to the
// interval, and the first good one serves.
func TestDeadFromTheStart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := newEd()
		p := newPiped(t, jwkOf(a, "a"))
		dead := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }
		p.answerMeta(dead)
		i := start(t, p.options())
		expect(t, i, p.edToken(a, "a"), token.IssuerUnavailable)
		p.fetched(t, 0, 1)
		for _, c := range []struct {
			at   time.Duration
			want int64
		}{{1200 * time.Millisecond, 2}, {2200 * time.Millisecond, 3}, {4400 * time.Millisecond, 4}, {8800 * time.Millisecond, 5}, {17600 * time.Millisecond, 6}, {33 * time.Second, 7}, {33 * time.Second, 8}} {
			time.Sleep(c.at)
			synctest.Wait()
			if got := p.meta.Load(); got != c.want && got != c.want+1 {
				t.Fatalf("%d fetches, want %d", got, c.want)
			}
			expect(t, i, p.edToken(a, "a"), token.IssuerUnavailable)
		}
		p.answerMeta(nil)
		time.Sleep(34 * time.Second)
		synctest.Wait()
		expect(t, i, p.edToken(a, "a"), "")
	})
}

// TestHangingProvider: known keys never wait, unknown kids wait two seconds
// once, and a fetch ends after ten.
func TestHangingProvider(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := newEd()
		p := newPiped(t, jwkOf(a, "a"))
		i := start(t, p.options())
		p.answer(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		time.Sleep(time.Minute)
		took := func(f func()) time.Duration { at := time.Now(); f(); return time.Since(at) }

		if d := took(func() { expect(t, i, p.edToken(newEd(), "b"), token.IssuerUnavailable) }); d != 2*time.Second {
			t.Fatalf("an unknown kid waited %s", d)
		}
		if d := took(func() { expect(t, i, p.edToken(newEd(), "b"), token.IssuerUnavailable) }); d != 0 {
			t.Fatalf("the same again waited %s", d)
		}
		if d := took(func() { expect(t, i, p.edToken(a, "a"), "") }); d != 0 {
			t.Fatalf("a known key waited %s", d)
		}
		// A caller that is gone is not waited for, and leaves no mark on the kid.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if d := took(func() {
			_, err := Set{i}.Verify(ctx, token.NewRaw(p.edToken(newEd(), "c")))
			if e := (*token.Error)(nil); !errors.As(err, &e) || e.Reason != token.IssuerUnavailable {
				t.Error(err)
			}
		}); d != time.Second {
			t.Fatalf("waited %s for a caller that was gone after 1s", d)
		}
		if _, missed := i.remote.misses["c"]; missed {
			t.Fatal("remembered")
		}
		p.fetched(t, 2, 1)
		time.Sleep(7500 * time.Millisecond) // over ten with the waits above, and before the first retry
		synctest.Wait()
		if h := i.Health(); h.Err == nil || !strings.Contains(h.Err.Error(), "deadline exceeded") {
			t.Fatalf("%+v", h)
		}

		// However many kids there are, few are remembered, and none longer than
		// to the next good fetch.
		for n := range 5 * maxMisses {
			i.remote.missed(fmt.Sprint(n), time.Now(), i.keys.Load())
			if len(i.remote.misses) > maxMisses {
				t.Fatalf("%d kids are remembered", len(i.remote.misses))
			}
		}
		p.answer(nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		p.fetched(t, 3, 2)
		if n := len(i.remote.misses); n != 0 {
			t.Fatalf("%d kids are remembered", n)
		}
		// A wish that a fetch has met meanwhile does not cause another.
		i.remote.wake <- struct{}{}
		synctest.Wait()
		p.fetched(t, 3, 2)
	})
}

func TestCacheControl(t *testing.T) {
	for _, c := range []struct {
		header  string
		fetches int64 // in the first hour, after the first one
	}{
		{"", 6}, {"max-age=300", 12}, {"public, Max-Age=\"300\"", 12}, {"max-age=1", 120}, {"max-age=0", 120}, {"no-store", 120},
		{"no-cache", 120}, {"max-age=86400", 6}, {"max-age=-1", 6}, {"max-age=99999999999", 6}, {"max-age=x", 6}, {"max-age=600, max-age=300", 12},
	} {
		t.Run(c.header, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPiped(t, jwkOf(newEd(), "a"))
				p.header = http.Header{"Cache-Control": {c.header}}
				start(t, p.options())
				time.Sleep(time.Hour)
				synctest.Wait()
				n := p.jwks.Load() - 1
				if float64(n) < 0.85*float64(c.fetches)-1 || float64(n) > 1.15*float64(c.fetches)+1 {
					t.Fatalf("%d fetches in an hour, want about %d", n, c.fetches)
				}
			})
		})
	}
}

// TestJitter: gateways that started together do not fetch together.
func TestJitter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPiped(t, jwkOf(newEd(), "a"))
		due := map[time.Time]bool{}
		for range 8 {
			i := start(t, p.options())
			i.remote.mu.Lock()
			wait := time.Until(i.remote.due)
			due[i.remote.due] = true
			i.remote.mu.Unlock()
			if wait < 9*time.Minute || wait > 11*time.Minute {
				t.Fatalf("the next fetch is due in %s", wait)
			}
		}
		if len(due) < 7 {
			t.Fatalf("%d of 8 are due at different times", len(due))
		}
	})
}

func TestETag(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := newEd(), newEd()
		p := newPiped(t)
		var unchanged, full atomic.Int64
		key, tag := atomic.Pointer[string]{}, atomic.Pointer[string]{}
		set := func(k m, etag string) { s := encode(m{"keys": []m{k}}); key.Store(&s); tag.Store(&etag) }
		set(jwkOf(a, "a"), `"1"`)
		p.answer(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", *tag.Load())
			if r.Header.Get("If-None-Match") == *tag.Load() {
				unchanged.Add(1)
				w.WriteHeader(304)
				return
			}
			full.Add(1)
			fmt.Fprint(w, *key.Load())
		})
		o := p.options()
		o.Leeway, o.Snapshot = 240*time.Hour, filepath.Join(t.TempDir(), "main.jwks")
		i := start(t, o)
		good := p.edToken(a, "a")
		time.Sleep(72 * time.Hour) // far beyond MaxStale: "unchanged" is as fresh as a full answer
		synctest.Wait()
		expect(t, i, good, "")
		if full.Load() != 1 || unchanged.Load() < 300 {
			t.Fatalf("%d full answers, %d unchanged", full.Load(), unchanged.Load())
		}
		// A bad answer's ETag is not taken over: else the next would be "unchanged".
		s := `{"keys":[]}`
		key.Store(&s)
		two := `"2"`
		tag.Store(&two)
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		if i.Health().Err == nil {
			t.Fatal("an empty set is no error")
		}
		expect(t, i, good, "")
		set(jwkOf(b, "b"), `"2"`)
		time.Sleep(time.Minute)
		synctest.Wait()
		expect(t, i, p.edToken(b, "b"), "")
		expect(t, i, good, token.InvalidToken)
	})
}

// TestMovedKeySet: discovery is refreshed with the keys; while it fails, the
// address that it gave before holds, but not for ever.
func TestMovedKeySet(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := newEd()
		p := newPiped(t, jwkOf(a, "a"))
		o := p.options()
		o.Leeway = 240 * time.Hour
		i := start(t, o)
		good := p.edToken(a, "a")
		p.answerMeta(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, encode(m{"issuer": "https://evil.example", "jwks_uri": "https://evil.example/jwks"}))
		})
		time.Sleep(12 * time.Hour)
		synctest.Wait()
		expect(t, i, good, "")
		if p.jwks.Load() < 60 || i.Health().Err != nil {
			t.Fatalf("%d fetches, %v", p.jwks.Load(), i.Health().Err)
		}
		time.Sleep(13 * time.Hour)
		synctest.Wait()
		if err := i.Health().Err; err == nil || !strings.Contains(err.Error(), "is that of issuer") {
			t.Fatal(err)
		}
		p.answerMeta(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, encode(m{"issuer": p.url, "jwks_uri": p.url + "/moved"}))
		})
		before := p.jwks.Load()
		time.Sleep(time.Minute)
		synctest.Wait()
		if p.jwks.Load() != before || p.missing.Load() == 0 {
			t.Fatal("the new address was not asked")
		}
	})
}

func TestKnownAddress(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := newEd()
		p := newPiped(t, jwkOf(a, "a"))
		o := p.options()
		o.JWKSURI, o.Issuer = p.url+"/jwks", "joe"
		i := start(t, o)
		time.Sleep(time.Hour)
		synctest.Wait()
		if p.meta.Load() != 0 || p.jwks.Load() < 5 {
			t.Fatal("discovery was asked, or the keys were not")
		}
		expect(t, i, sign("EdDSA", a, `{"alg":"EdDSA","kid":"a"}`, encode(claims("joe"))), "")
	})
}

func TestSnapshot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := newEd()
		p := newPiped(t, jwkOf(a, "a"))
		o := p.options()
		o.Leeway, o.Snapshot = 48*time.Hour, filepath.Join(t.TempDir(), "main.jwks")
		i := start(t, o)
		good := p.edToken(a, "a")
		fetched := i.Health().Fetched
		i.Close()
		info, err := os.Stat(o.Snapshot)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatal(info, err)
		}
		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(o.Snapshot), "*")); len(left) != 1 {
			t.Fatalf("left behind: %v", left)
		}

		// The provider dies, the gateway restarts: it serves at once.
		dead := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }
		p.answerMeta(dead)
		time.Sleep(20 * time.Hour)
		again := start(t, o)
		expect(t, again, good, "")
		if h := again.Health(); !h.Ready || h.Err == nil || !h.Fetched.Equal(fetched) {
			t.Fatalf("%+v", h)
		}
		expect(t, again, p.edToken(a, "b"), token.IssuerUnavailable)
		// Its age counts from the fetch that it holds, not from the restart.
		time.Sleep(4*time.Hour + time.Second)
		expect(t, again, good, token.IssuerUnavailable)
		again.Close()
		late := start(t, o)
		expect(t, late, good, token.IssuerUnavailable)
		if h := late.Health(); h.Keys != 0 {
			t.Fatalf("%+v", h)
		}
		late.Close()

		// A provider that hangs delays a start with a snapshot by two seconds only.
		p.answerMeta(nil)
		start(t, o).Close()
		p.answerMeta(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		at := time.Now()
		start(t, o)
		if d := time.Since(at); d != 2*time.Second {
			t.Fatalf("the start took %s", d)
		}
	})
}

func TestBadSnapshot(t *testing.T) {
	a := newEd()
	p := newProvider(t, jwkOf(newEd(), "new"))
	good := m{"issuer": p.url, "fetched": time.Now(), "jwks": m{"keys": []m{jwkOf(a, "a")}}}
	p.answerMeta(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	for _, c := range []struct {
		name, text string
		want       token.Reason
	}{
		{"good", encode(good), ""},
		{"from the future", encode(with(good, m{"fetched": time.Now().Add(time.Hour)})), ""},
		{"of another issuer", encode(with(good, m{"issuer": "https://evil.example"})), token.IssuerUnavailable},
		{"of another address", encode(with(good, m{"jwks_uri": p.url + "/other"})), token.IssuerUnavailable},
		{"of other care", encode(with(good, m{"insecure": true})), token.IssuerUnavailable},
		{"too old", encode(with(good, m{"fetched": time.Now().Add(-25 * time.Hour)})), token.IssuerUnavailable},
		{"without time", encode(with(good, m{"fetched": nil})), token.IssuerUnavailable},
		{"without keys", encode(with(good, m{"jwks": m{"keys": []m{}}})), token.IssuerUnavailable},
		{"without a set", encode(with(good, m{"jwks": nil})), token.IssuerUnavailable},
		{"no JSON", "{", token.IssuerUnavailable},
		{"empty", "", token.IssuerUnavailable},
		{"huge", encode(good) + strings.Repeat(" ", 3<<20), token.IssuerUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := new(logged)
			o := p.options()
			o.Snapshot, o.Log = filepath.Join(t.TempDir(), "main.jwks"), log.logger()
			if err := os.WriteFile(o.Snapshot, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			i := start(t, o)
			expect(t, i, p.edToken(a, "a"), c.want)
			if told := strings.Contains(log.String(), "is not used"); told == (c.want == "") {
				t.Fatal(log.String())
			}
			// From the future is not for ever.
			if set := i.keys.Load(); set != nil && set.fetched.After(time.Now()) {
				t.Fatal(set.fetched)
			}
		})
	}
	t.Run("cannot be written", func(t *testing.T) {
		p := newProvider(t, jwkOf(a, "a"))
		log := new(logged)
		o := p.options()
		o.Snapshot, o.Log = filepath.Join(t.TempDir(), "missing", "main.jwks"), log.logger()
		i := start(t, o)
		expect(t, i, p.edToken(a, "a"), "")
		if !strings.Contains(log.String(), "cannot write the snapshot") {
			t.Fatal(log.String())
		}
	})
	t.Run("holds what was fetched", func(t *testing.T) {
		p := newProvider(t, jwkOf(a, "a"))
		o := p.options()
		o.Snapshot = filepath.Join(t.TempDir(), "main.jwks")
		start(t, o)
		var s snapshot
		if err := json.Unmarshal(must(os.ReadFile(o.Snapshot)), &s); err != nil || s.Issuer != p.url || time.Since(s.Fetched) > time.Minute || !strings.Contains(string(s.JWKS), `"kid":"a"`) {
			t.Fatal(s, err)
		}
	})
}

// TestClose: nothing is left behind, whatever was under way, and the keys
// at hand serve on.
func TestClose(t *testing.T) {
	a := newEd()
	p := newProvider(t, jwkOf(a, "a"))
	before := runtime.NumGoroutine()

	never := must(New(p.options()))
	never.Close()
	never.Close()
	never.Start(t.Context())
	expect(t, never, p.edToken(a, "a"), token.IssuerUnavailable)
	p.fetched(t, 0, 0)

	i := start(t, p.options())
	i.Start(t.Context())
	p.fetched(t, 1, 1)
	i.Close()
	i.Close()
	expect(t, i, p.edToken(a, "a"), "")
	i.o.MinRefreshInterval = time.Nanosecond
	expect(t, i, p.edToken(newEd(), "b"), token.InvalidToken)
	p.fetched(t, 1, 1)

	// A start whose caller gives up goes on in the background, until Close.
	asked := make(chan struct{})
	p.answerMeta(func(_ http.ResponseWriter, r *http.Request) { close(asked); <-r.Context().Done() })
	hung := must(New(p.options()))
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	hung.Start(ctx)
	hung.Close()
	eventually(t, "all goroutines are gone", func() bool { return runtime.NumGoroutine() <= before })
}

func TestSameHost(t *testing.T) {
	request := func(at string) *http.Request { return must(http.NewRequest(http.MethodGet, at, nil)) }
	for _, c := range []struct {
		next string
		via  []string
		ok   bool
	}{
		{"https://id.example.com/b", []string{"https://id.example.com/a"}, true},
		{"https://ID.example.com/b", []string{"https://id.example.com/a"}, true},
		{"https://localhost/b", []string{"http://localhost/a"}, true},
		{"http://id.example.com/b", []string{"https://id.example.com/a"}, false},
		{"https://id.example.com:8443/b", []string{"https://id.example.com/a"}, false},
		{"https://id.example.com.evil.example/b", []string{"https://id.example.com/a"}, false},
		{"https://id.example.com/d", []string{"https://id.example.com/a", "https://id.example.com/b", "https://id.example.com/c"}, true},
		{"https://id.example.com/e", []string{"https://id.example.com/a", "https://id.example.com/b", "https://id.example.com/c", "https://id.example.com/d"}, false},
	} {
		var via []*http.Request
		for _, at := range c.via {
			via = append(via, request(at))
		}
		if err := sameHost(request(c.next), via); (err == nil) != c.ok {
			t.Errorf("%v to %s: %v", c.via, c.next, err)
		}
	}
}
