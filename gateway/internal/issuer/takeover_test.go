package issuer

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"gatehouse/gateway/token"
)

// succeed puts an issuer of options o in i's place, as a reload does.
func succeed(t testing.TB, i *Issuer, o Options) *Issuer {
	t.Helper()
	o.From = i
	next := start(t, o)
	i.Close()
	return next
}

func dead(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }

// TestTakeOver: while the provider is down, an issuer whose settings change keeps
// the keys that the new settings would have fetched, and no others.
func TestTakeOver(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(o *Options)
		keys   int
	}{
		{"nothing", func(*Options) {}, 2},
		{"leeway", func(o *Options) { o.Leeway = 47 * time.Hour }, 2},
		{"audiences", func(o *Options) { o.Audiences = append([]string{"x"}, o.Audiences...) }, 2},
		{"max_stale", func(o *Options) { o.MaxStale = 48 * time.Hour }, 2},
		{"a secret for introspection", func(o *Options) {
			o.Introspection = &Introspection{Endpoint: "http://localhost:1/x", Auth: ClientAuth{ClientID: "a", Secret: "b"}}
		}, 2},
		{"fewer algorithms", func(o *Options) { o.Algorithms = []string{"EdDSA"} }, 1},
		{"other algorithms", func(o *Options) { o.Algorithms = []string{"RS256"} }, 0},
		{"another issuer", func(o *Options) { o.Issuer += "/tenant" }, 0},
		{"another address of the keys", func(o *Options) { o.JWKSURI = o.Issuer + "/keys" }, 0},
		{"an address that was discovered before", func(o *Options) { o.JWKSURI = o.Issuer + "/jwks" }, 0},
		{"http allowed", func(o *Options) { o.Insecure = true }, 0},
		{"another way there", func(o *Options) { client := *o.Client; o.Client = &client }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			key := &ec256().PublicKey
			bubble(t, func(t *testing.T) {
				a := newEd()
				p := newPiped(t, jwkOf(a, "a"), jwkOf(key, "p256"))
				o := p.options()
				o.Leeway = 48 * time.Hour
				i := start(t, o)
				good := p.edToken(a, "a")
				fetched := i.Health().Fetched
				p.answer(dead)
				p.answerMeta(dead)
				time.Sleep(20 * time.Minute)
				synctest.Wait()
				due, asked, at := i.Health().Due, p.meta.Load()+p.jwks.Load(), time.Now()
				changed := p.options()
				changed.Leeway = o.Leeway
				c.change(&changed)
				next := succeed(t, i, changed)
				if h := next.Health(); h.Keys != c.keys {
					t.Fatalf("%+v", h)
				}
				next = succeed(t, next, changed) // a second reload loses nothing more
				h := next.Health()
				if h.Keys != c.keys || h.Ready != (c.keys > 0) || h.Err == nil {
					t.Fatalf("%+v", h)
				}
				if c.keys == 0 {
					return
				}
				if !h.Fetched.Equal(fetched) || !h.Due.Equal(due) || time.Since(at) != 0 || p.meta.Load()+p.jwks.Load() != asked {
					t.Errorf("fetched %s, due %s, after %s; want %s, %s and at once", h.Fetched, h.Due, time.Since(at), fetched, due)
				}
				expect(t, next, good, "")
				expect(t, next, p.edToken(newEd(), "b"), token.IssuerUnavailable)

				// The keys are as old as they were, and the provider is waited for as before.
				p.answer(nil)
				p.answerMeta(nil)
				time.Sleep(34 * time.Second)
				synctest.Wait()
				if h := next.Health(); h.Err != nil || !h.Fetched.After(fetched) {
					t.Errorf("the provider is well again: %+v", h)
				}
			})
		})
	}
}

// Keys that are too old for the settings that are left serve again where the new
// ones let them.
func TestTakeOverWithALongerMaxStale(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := newEd()
		p := newPiped(t, jwkOf(a, "a"))
		o := p.options()
		o.Leeway, o.MaxStale = 100*time.Hour, time.Hour
		i := start(t, o)
		good := p.edToken(a, "a")
		p.answerMeta(dead)
		p.answer(dead)
		time.Sleep(2 * time.Hour)
		expect(t, i, good, token.IssuerUnavailable)
		o.MaxStale = 3 * time.Hour
		next := succeed(t, i, o)
		expect(t, next, good, "")
		time.Sleep(time.Hour + time.Second)
		expect(t, next, good, token.IssuerUnavailable)
	})
}

// TestTakeOverFetchesWhenDue: a reload fetches nothing early, and a key that left
// the set stops no later for it.
func TestTakeOverFetchesWhenDue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := newEd(), newEd()
		p := newPiped(t, jwkOf(a, "a"), jwkOf(b, "b"))
		o := p.options()
		o.Leeway = 48 * time.Hour
		i := start(t, o)
		old := p.edToken(a, "a")
		p.rotate(jwkOf(b, "b"))
		due := i.Health().Due
		for time.Now().Before(due) {
			expect(t, i, old, "")
			p.fetched(t, 1, 1)
			o.Leeway += time.Second
			i = succeed(t, i, o)
			if !i.Health().Due.Equal(due) {
				t.Fatalf("due %s, want %s", i.Health().Due, due)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		p.fetched(t, 2, 2)
		expect(t, i, old, token.InvalidToken) // which asks once for the kid that is unknown now
		expect(t, i, p.edToken(b, "b"), "")

		// A shorter interval counts from the last fetch.
		o.Refresh = 2 * time.Minute
		succeed(t, i, o)
		p.fetched(t, 3, 2)
		time.Sleep(2*time.Minute + 13*time.Second)
		synctest.Wait()
		p.fetched(t, 4, 3)
	})
}

// Of the provider itself is known what was: the key set's ETag, and the set that
// it stands for.
func TestTakeOverKeepsTheETag(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := newEd()
		p := newPiped(t)
		var unchanged, full atomic.Int64
		p.answer(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"1"`)
			if r.Header.Get("If-None-Match") == `"1"` {
				unchanged.Add(1)
				w.WriteHeader(http.StatusNotModified)
				return
			}
			full.Add(1)
			fmt.Fprint(w, encode(m{"keys": []m{jwkOf(a, "a")}}))
		})
		o := p.options()
		i := start(t, o)
		o.Leeway, o.Snapshot = time.Hour, filepath.Join(t.TempDir(), "main.jwks")
		i = succeed(t, i, o)
		time.Sleep(12 * time.Minute)
		synctest.Wait()
		if full.Load() != 1 || unchanged.Load() != 1 {
			t.Fatalf("%d full answers, %d unchanged", full.Load(), unchanged.Load())
		}
		expect(t, i, p.edToken(a, "a"), "")
		if text := string(must(os.ReadFile(o.Snapshot))); !strings.Contains(text, `"kid":"a"`) {
			t.Fatalf("the snapshot holds %s", text)
		}
	})
}

// TestTakeOverOfTheSnapshot: one that is left fetches on as long as requests use
// it, and writes what it fetches no more: a restart could not use that.
func TestTakeOverOfTheSnapshot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPiped(t, jwkOf(newEd(), "a"))
		o := p.options()
		o.Snapshot = filepath.Join(t.TempDir(), "main.jwks")
		i := start(t, o)
		o.From, o.JWKSURI, o.Refresh = i, p.url+"/jwks", time.Hour
		start(t, o)
		fetched := i.Health().Fetched
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		if !i.Health().Fetched.After(fetched) {
			t.Fatal("the one that is left fetched nothing")
		}
		if text := string(must(os.ReadFile(o.Snapshot))); !strings.Contains(text, o.JWKSURI) {
			t.Errorf("the snapshot holds %s", text)
		}
	})
}

// What a fetch that is under way brings would go to an issuer that is left.
func TestTakeOverDuringAFetch(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := newEd(), newEd()
		p := newPiped(t, jwkOf(a, "a"))
		i := start(t, p.options())
		time.Sleep(time.Minute)
		arrived, proceed := make(chan struct{}, 2), make(chan struct{})
		p.answer(func(w http.ResponseWriter, _ *http.Request) {
			arrived <- struct{}{}
			<-proceed
			fmt.Fprint(w, encode(m{"keys": []m{jwkOf(a, "a"), jwkOf(b, "b")}}))
		})
		go func() { _, _ = (Set{i}).Verify(t.Context(), token.NewRaw(p.edToken(b, "b"))) }()
		<-arrived
		o := p.options()
		o.From, o.Leeway = i, time.Hour
		next := start(t, o)
		expect(t, next, p.edToken(a, "a"), "")
		close(proceed)
		synctest.Wait()
		expect(t, next, p.edToken(b, "b"), "")
	})
}

// TestTakeOverOfTheEndpoint: the endpoint for introspection stays known, unless
// nobody ever asked for it.
func TestTakeOverOfTheEndpoint(t *testing.T) {
	o := newOracle(t)
	o.says(active(nil))
	discovered := func(o *Options) { o.Introspection = &Introspection{Auth: ClientAuth{ClientID: "a", Secret: "b"}} }
	for _, c := range []struct {
		name          string
		before, after func(*Options)
		asks          int64 // for metadata, by the second
	}{
		{"another secret", discovered, func(o *Options) { discovered(o); o.Introspection.Auth.Secret = "c" }, 0},
		{"not known yet", func(*Options) {}, discovered, 1},
		{"no longer given", func(options *Options) { discovered(options); options.Introspection.Endpoint = o.url + "/old" }, discovered, 1},
		{"given now", discovered, func(options *Options) { discovered(options); options.Introspection.Endpoint = o.url }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newProvider(t, jwkOf(edKey(), "ed"))
			p.answerMeta(func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprint(w, encode(m{"issuer": p.url, "jwks_uri": p.url + "/jwks", "introspection_endpoint": o.url}))
			})
			before, after := p.options(), p.options()
			c.before(&before)
			c.after(&after)
			i := succeed(t, start(t, before), after)
			expect(t, i, opaque, "")
			expect(t, i, p.edToken(edKey(), "ed"), "")
			p.fetched(t, 1+c.asks, 1+c.asks)
		})
	}
}

// TestTakeOverOfTheEndpointAlone: nor does the endpoint depend on the keys.
func TestTakeOverOfTheEndpointAlone(t *testing.T) {
	o := newOracle(t)
	o.says(active(nil))
	for _, c := range []struct {
		name        string
		keys, later http.HandlerFunc // the key set when the one before starts, and afterwards
	}{
		{"while keys are fetched", nil, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
		{"before there are any", dead, dead},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newProvider(t, jwkOf(edKey(), "ed"))
			p.answer(c.keys)
			p.answerMeta(func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprint(w, encode(m{"issuer": p.url, "jwks_uri": p.url + "/jwks", "introspection_endpoint": o.url}))
			})
			options := p.options()
			options.Introspection = &Introspection{Auth: ClientAuth{ClientID: "a", Secret: "b"}}
			i := start(t, options)
			expect(t, i, opaque, "")
			p.answerMeta(dead)
			p.answer(c.later)
			fetches := p.jwks.Load()
			go func() { _, _ = (Set{i}).Verify(context.Background(), token.NewRaw(p.edToken(newEd(), "new"))) }()
			eventually(t, "keys are asked for", func() bool { return p.jwks.Load() > fetches })
			options.From, options.Leeway = i, time.Hour
			gone, cancel := context.WithCancel(t.Context())
			cancel() // nobody waits for the fetch
			next := must(New(options))
			t.Cleanup(next.Close)
			next.Start(gone)
			expect(t, next, opaque, "")
		})
	}
}

// TestTakeOverWhileItFetches: the one that is left serves and fetches on.
func TestTakeOverWhileItFetches(t *testing.T) {
	p := newProvider(t, jwkOf(edKey(), "ed"))
	o := p.options()
	o.Refresh, o.MinRefreshInterval = time.Millisecond, time.Microsecond
	i := start(t, o)
	good := p.edToken(edKey(), "ed")
	for range 50 {
		o.Leeway += time.Second
		o.From = i
		next := start(t, o)
		expect(t, i, good, "")
		expect(t, next, good, "")
		i.Close()
		i = next
	}
}

// TestTakeOverKeepsNothingElse: what was left is left, however many reloads come.
func TestTakeOverKeepsNothingElse(t *testing.T) {
	p := newProvider(t, jwkOf(edKey(), "ed"))
	cache := NewCache(8 << 20)
	theirs := sign("EdDSA", edKey(), encode(m{"alg": "EdDSA", "kid": "ed"}), encode(with(claims(p.url), m{"sub": "theirs"})))
	left := func() (weak.Pointer[Issuer], *Issuer) {
		o := p.options()
		o.Cache = cache
		i := must(New(o))
		i.Start(t.Context())
		expect(t, i, p.edToken(edKey(), "ed"), "")
		o.From, o.Leeway = i, time.Hour
		next := must(New(o))
		next.Start(t.Context())
		expect(t, next, theirs, "")
		i.Close()
		return weak.Make(i), next
	}
	old, next := left()
	defer next.Close()
	eventually(t, "the issuer that was left is freed", func() bool { runtime.GC(); return old.Value() == nil })
	if n, _ := cache.Size(); n != 1 || !(Set{next}).Remembers(token.NewRaw(theirs)) {
		t.Errorf("%d tokens are remembered, and not what the one that stays verified", n)
	}
	expect(t, next, p.edToken(edKey(), "ed"), "")
}
