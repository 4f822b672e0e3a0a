package issuer

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"gatehouse/gateway/token"
)

// cached is static with a cache of its own.
func cached(t testing.TB, change func(*Options)) (*Issuer, *Cache) {
	t.Helper()
	c := NewCache(8 << 20)
	return static(t, func(o *Options) {
		o.Cache = c
		if change != nil {
			change(o)
		}
	}), c
}

func edToken(changes m) string {
	return sign("EdDSA", edKey(), encode(m{"alg": "EdDSA", "kid": "ed"}), encode(with(claims(iss), changes)))
}

func TestCacheRemembersWhatWasVerified(t *testing.T) {
	i, c := cached(t, nil)
	raw := token.NewRaw(edToken(nil))
	first, err := Set{i}.Verify(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Set{i}.Verify(t.Context(), token.NewRaw(strings.Clone(raw.Reveal())))
	if err != nil || again != first {
		t.Errorf("the second time: %p, %v; want the first one's %p", again, err, first)
	}
	c.entries.CleanUp()
	if n, bytes := c.Size(); n != 1 || bytes == 0 || c.Hits() != 1 || c.Misses() != 1 {
		t.Errorf("%d entries of %d bytes, %d hits, %d misses", n, bytes, c.Hits(), c.Misses())
	}
	Set{i}.Forget(raw)
	if n, _ := c.Size(); n != 0 {
		t.Errorf("%d entries after Forget", n)
	}
}

// Nothing but the very token hits its entry, however alike another one is.
func TestCacheIsKeyedByTheWholeToken(t *testing.T) {
	i, c := cached(t, nil)
	good := edToken(nil)
	expect(t, i, good, "")
	parts := strings.Split(good, ".")
	other := b64.EncodeToString([]byte(encode(with(claims(iss), m{"sub": "root"}))))
	for _, forged := range []string{
		good + "A", good[:len(good)-1], good + "=", strings.ToUpper(good), " " + good,
		parts[0] + "." + other + "." + parts[2], parts[0] + "." + parts[1] + ".",
	} {
		expect(t, i, forged, token.InvalidToken)
	}
	if n, _ := c.Size(); n != 1 || c.Hits() != 0 {
		t.Errorf("%d entries, %d hits: a refused token entered the cache or hit it", n, c.Hits())
	}
}

func TestCachedTokensAreJudgedEachTime(t *testing.T) {
	clock := newClock()
	i, c := cached(t, func(o *Options) { o.Now = clock.now })
	now := clock.now()
	text := edToken(m{"exp": now.Add(time.Minute).Unix(), "nbf": now.Add(-time.Minute).Unix()})
	expect(t, i, text, "")
	expect(t, i, text, "")
	clock.advance(2 * time.Minute)
	expect(t, i, text, token.ExpiredToken)
	clock.advance(-4 * time.Minute) // a clock that was set back: not valid yet
	expect(t, i, text, token.InvalidToken)
	if c.Hits() != 3 {
		t.Errorf("%d hits, want the last three to be", c.Hits())
	}
}

// Another issuer, as after a reload that changed it, shares the cache, and not
// what the old one verified.
func TestCacheIsTheIssuersOwn(t *testing.T) {
	old, c := cached(t, nil)
	text := edToken(nil)
	expect(t, old, text, "")
	stricter := static(t, func(o *Options) { o.Cache, o.Audiences = c, []string{"another"} })
	expect(t, stricter, text, token.InvalidToken)
	withoutKey := static(t, func(o *Options) {
		o.Cache, o.StaticKeys = c, [][]byte{[]byte(encode(jwkOf(&rsaKey().PublicKey, "rsa")))}
	})
	expect(t, withoutKey, text, token.InvalidToken)
	if c.Hits() != 0 {
		t.Errorf("%d hits", c.Hits())
	}
}

func TestCacheForgetsWithTheKey(t *testing.T) {
	leaving, staying := newEd(), newEd()
	clock := newClock()
	p := newProvider(t, jwkOf(leaving, "leaving"), jwkOf(staying, "staying"))
	o := p.options()
	o.Now, o.Cache, o.MaxStale = clock.now, NewCache(8<<20), time.Hour
	i := start(t, o)
	gone, stays := p.edToken(leaving, "leaving"), p.edToken(staying, "staying")
	for range 2 {
		expect(t, i, gone, "")
		expect(t, i, stays, "")
	}
	p.rotate(jwkOf(staying, "staying"))
	clock.advance(time.Minute)
	unknown := p.edToken(newEd(), "unknown") // makes the set be fetched again
	expect(t, i, unknown, token.InvalidToken)
	expect(t, i, gone, token.InvalidToken)
	expect(t, i, stays, "")

	// Nobody knows any more which keys count: not even a remembered token passes.
	p.answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	p.answerMeta(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	clock.advance(2 * time.Hour)
	expect(t, i, stays, token.IssuerUnavailable)
}

// A thousand requests bring one new token at once: it is verified once. The
// verification is made to wait for the fetch of its key, so that all are there.
func TestFirstSightsAreOne(t *testing.T) {
	i, c := cached(t, nil)
	text := edToken(nil)
	var verified atomic.Int64
	release := make(chan struct{})
	t0, _ := parse(text)
	t0.record = func(check, _ string) {
		if check == "algorithm" {
			verified.Add(1)
			<-release
		}
	}
	const callers = 100
	var wait sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for n := range callers {
		wait.Go(func() {
			c := ctx
			if n > 0 {
				c = t.Context()
			}
			if f, refusal := i.first(c, t0, token.NewRaw(text)); refusal != nil || f == nil {
				t.Errorf("caller %d: %v", n, refusal)
			}
		})
	}
	eventually(t, "one verification is under way", func() bool { return verified.Load() == 1 })
	cancel() // the first caller goes away; the others must not suffer
	close(release)
	wait.Wait()
	// Callers that came after the first verification ended verified for themselves: through Verify they would have hit.
	if n, _ := c.Size(); n != 1 {
		t.Errorf("%d entries", n)
	}
}

// A flood of tokens that come once leaves those that come often, and the bound holds.
func TestCacheUnderAFlood(t *testing.T) {
	const max = 1 << 20
	c := NewCache(max)
	i := static(t, func(o *Options) { o.Cache = c })
	regulars := make([]token.Raw, 50)
	for n := range regulars {
		regulars[n] = token.NewRaw(edToken(m{"sub": fmt.Sprintf("regular-%d", n)}))
	}
	visit := func() {
		for _, raw := range regulars {
			if _, err := (Set{i}).Verify(t.Context(), raw); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 5 {
		visit()
	}
	for n := range 2000 {
		expect(t, i, edToken(m{"sub": fmt.Sprintf("once-%d", n)}), "")
		if n%100 == 0 {
			visit()
		}
	}
	c.entries.CleanUp()
	if _, bytes := c.Size(); bytes > max {
		t.Errorf("%d bytes, more than %d", bytes, max)
	}
	before := c.Hits()
	visit()
	if hits := c.Hits() - before; hits < uint64(len(regulars))*8/10 {
		t.Errorf("only %d of %d tokens that come often survived the flood", hits, len(regulars))
	}
}

func TestACacheHitAllocatesNothing(t *testing.T) {
	i, _ := cached(t, nil)
	set, raw, ctx := Set{i}, token.NewRaw(edToken(nil)), t.Context()
	if _, err := set.Verify(ctx, raw); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(1000, func() { _, _ = set.Verify(ctx, raw) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkCacheHit measures a hit among so many live tokens, taken in turn,
// as far as 4 GiB of cache hold them.
func BenchmarkCacheHit(b *testing.B) {
	for _, live := range []int{1, 10_000, 1_000_000} {
		b.Run(fmt.Sprintf("live=%d", live), func(b *testing.B) {
			c := NewCache(8 << 30)
			i := static(b, func(o *Options) { o.Cache = c })
			set, raws := fillCache(b, i, c, live)
			// A request's token was read from the connection a moment ago: it lies in
			// the processor's cache, whereas a million of them do not. So it is copied
			// to where the last one was, and what the copying takes is a case of its own.
			here := make([]byte, len(raws[0].Reveal()))
			raw := token.NewRaw(unsafe.String(&here[0], len(here)))
			for name, find := range map[string]bool{"copy": false, "copy_and_hit": true} {
				b.Run(name, func(b *testing.B) {
					b.ReportAllocs()
					n := 0
					for b.Loop() {
						copy(here, raws[n%live].Reveal())
						n += 7919
						if find && set.remembered(raw) == nil {
							b.Fatal("a miss")
						}
					}
				})
			}
		})
	}
}

// What a token is taken to need is what it takes, whatever its claims are made
// of, so that the bound is one of memory. The rest is for its headers.
func TestTheWeightIsTheMemory(t *testing.T) {
	const tokens = 500
	for name, claims := range map[string]m{
		"few claims":      {},
		"a long text":     {"text": strings.Repeat("x", 4000)},
		"many escapes":    {"text": strings.Repeat("\n", 2000)},
		"many numbers":    {"numbers": make([]int, 2000)},
		"many lists":      {"lists": make([][]int, 500)},
		"many privileges": {"privileges": strings.Repeat("a ", 2000)},
		"many spaces":     {"privileges": "a" + strings.Repeat(" ", 4000)},
		"no privileges":   {"privileges": make([]int, 2000)},
	} {
		t.Run(name, func(t *testing.T) {
			i, _ := cached(t, func(o *Options) {
				o.PrivilegesFrom = []PrivilegeSource{{Path: token.MustPath("privileges"), Prefix: "scope:"}}
			})
			c := NewCache(1 << 30)
			raws := make([]token.Raw, tokens)
			for n := range raws {
				claims["jti"] = fmt.Sprint("token-", 1000+n)
				raws[n] = token.NewRaw(edToken(claims))
			}
			put := func(raw token.Raw) {
				parsed, refusal := parse(raw.Reveal())
				if refusal != nil {
					t.Fatal(refusal)
				}
				at, refusal := i.admit(parsed)
				if refusal != nil {
					t.Fatal(refusal)
				}
				c.put(raw, i.facts(parsed, at, i.keys.Load().byKid["ed"][0]))
			}
			put(token.NewRaw(edToken(claims)))
			before := heap()
			for _, raw := range raws {
				put(raw)
			}
			c.entries.CleanUp()
			taken := (heap() - before) / tokens
			_, weight := c.Size()
			if weight /= tokens + 1; taken > weight || taken < weight/3 {
				t.Errorf("%d bytes of memory, %d are counted", taken, weight)
			}
			runtime.KeepAlive(raws)
		})
	}
}

// heap returns how many bytes are in use.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what a sync.Pool holds
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkCacheMemory reports the bytes of a remembered token, less those of
// its headers.
func BenchmarkCacheMemory(b *testing.B) {
	const live = 100_000
	for b.Loop() {
		c := NewCache(8 << 30)
		i := static(b, func(o *Options) { o.Cache = c })
		before := heap()
		_, raws := fillCache(b, i, c, live)
		text := raws[0].Len()
		clear(raws) // the benchmark's own
		b.ReportMetric(float64(heap()-before-16*live)/live, "B/token")
		_, weight := c.Size()
		b.ReportMetric(float64(weight)/live, "weight/token")
		b.ReportMetric(float64(text), "B/text")
		runtime.KeepAlive(c)
	}
}

// fillCache puts distinct tokens of about 800 bytes into c without verifying
// their signatures, which would take too long.
func fillCache(b *testing.B, i *Issuer, c *Cache, live int) (Set, []token.Raw) {
	b.Helper()
	raws := make([]token.Raw, live)
	signer := i.keys.Load().byKid["ed"][0]
	padding := strings.Repeat("x", 342-86) // before the signature's end: as long as an RS256 one
	body := with(claims(iss), m{"email": "hero@example.com", "name": "Admin Two", "client_id": "web", "scope": "openid profile email", "privileges": []string{"CREATE_HERO", "ASSIGN_HERO"}})
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	for n := range raws {
		body["jti"] = fmt.Sprintf("0f3c2b1a-1111-2222-3333-%012d", n)
		payload, err := json.Marshal(body)
		if err != nil {
			b.Fatal(err)
		}
		text := sign("EdDSA", key, `{"alg":"EdDSA","kid":"ed","typ":"at+jwt"}`, string(payload))
		t, refusal := parse(text)
		if refusal != nil {
			b.Fatal(refusal)
		}
		at, refusal := i.admit(t)
		if refusal != nil {
			b.Fatal(refusal)
		}
		text = text[:len(text)-60] + padding + text[len(text)-60:]
		c.put(token.NewRaw(text), i.facts(t, at, signer))
		raws[n] = token.NewRaw(strings.Clone(text)) // as each request brings its own copy
	}
	return Set{i}, raws
}
