package limit

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"gatehouse/gateway/token"
)

// clock is a time that moves only when told to.
type clock struct{ now time.Time }

func newClock() *clock                   { return &clock{time.Unix(1_700_000_000, 0)} }
func (c *clock) Now() time.Time          { return c.now }
func (c *clock) Advance(d time.Duration) { c.now = c.now.Add(d) }

func limiter(t testing.TB, o Options) *Limiter {
	t.Helper()
	if o.Name == "" {
		o.Name = "test"
	}
	if o.Keys == nil {
		o.Keys = []string{"ip"}
	}
	l, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func from(ip string) Subject { return Subject{IP: netip.MustParseAddr(ip)} }

// caller is the n-th address of its own.
func caller(n int) Subject {
	return Subject{IP: netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})}
}

func claims(t testing.TB, issuer, json string) Subject {
	t.Helper()
	c, err := token.ParseClaims([]byte(json))
	if err != nil {
		t.Fatal(err)
	}
	return Subject{IP: netip.MustParseAddr("192.0.2.1"), Route: "r", Verified: &token.Verified{Issuer: issuer, Claims: c}}
}

// admitted is how many of n requests pass.
func admitted(n int, s Subject, ls ...*Limiter) (passed int) {
	for range n {
		if Allow(ls, s) == nil {
			passed++
		}
	}
	return passed
}

func refused(t *testing.T, err error) *Refused {
	t.Helper()
	var r *Refused
	if !errors.As(err, &r) {
		t.Fatalf("%v is no refusal", err)
	}
	return r
}

func TestBurstThenRate(t *testing.T) {
	c := newClock()
	l := limiter(t, Options{Rate: Rate{100, time.Minute}, Burst: 20, Now: c.Now})
	if n := admitted(50, caller(1), l); n != 20 {
		t.Errorf("burst: %d of 50 admitted, want 20", n)
	}
	if n := admitted(1, caller(2), l); n != 1 {
		t.Error("another caller was refused")
	}
	c.Advance(6 * time.Second) // ten tokens
	if n := admitted(50, caller(1), l); n != 10 {
		t.Errorf("after 6 s: %d admitted, want 10", n)
	}
	c.Advance(time.Hour)
	if n := admitted(50, caller(1), l); n != 20 {
		t.Errorf("after an hour: %d admitted, want the burst of 20", n)
	}
	if n := admitted(7, caller(9), limiter(t, Options{Rate: Rate{5, time.Second}, Now: c.Now})); n != 5 {
		t.Errorf("without a burst: %d admitted, want the rate's count of 5", n)
	}
}

// TestAgainstOracle compares every decision of many random stories with a
// float token bucket, and every wait with the moment the oracle admits again.
func TestAgainstOracle(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		r := Rate{1 + rnd.IntN(1000), []time.Duration{time.Millisecond, 100 * time.Millisecond, time.Second, 7 * time.Second, time.Minute, time.Hour, 24 * time.Hour}[rnd.IntN(7)]}
		burst := 1 + rnd.IntN(30)
		c := newClock()
		l := limiter(t, Options{Rate: r, Burst: burst, Now: c.Now})
		perToken := float64(r.Per) / float64(r.Count)
		tokens, last := float64(burst), c.now
		for range 200 {
			c.Advance(time.Duration(rnd.ExpFloat64() * perToken))
			tokens = min(float64(burst), tokens+float64(c.now.Sub(last))/perToken)
			last = c.now
			err := Allow([]*Limiter{l}, caller(1))
			if near := math.Abs(tokens-1) * perToken; near > 2 && (err == nil) != (tokens > 1) { // nanoseconds from the edge
				t.Fatalf("seed %d, %+v, burst %d: %v with %v tokens", seed, r, burst, err, tokens)
			}
			if err == nil {
				tokens--
				continue
			}
			// Never earlier than the truth: a caller who comes back then is served.
			before := c.now
			c.Advance(time.Duration(ceilSeconds(refused(t, err).RetryAfter)) * time.Second)
			if l.plans[0].untilHeld(1-bucketOf(l, caller(1)).TokensAt(c.now)) != 0 {
				t.Fatalf("seed %d, %+v, burst %d: refused again after %v", seed, r, burst, c.now.Sub(before))
			}
			c.now = before
			// And not much later: a nanosecond earlier it is refused, unless that is below the precision.
			wait := refused(t, err).RetryAfter
			if truth := (1 - tokens) * perToken; math.Abs(float64(wait)-truth) > 2+truth*1e-9 {
				t.Fatalf("seed %d: a wait of %v, the oracle says %v", seed, wait, time.Duration(truth))
			}
		}
	}
}

func TestWaitIsRenderedUp(t *testing.T) {
	c := newClock()
	for _, test := range []struct {
		rate          Rate
		limit, policy string
		after         string
		forward       time.Duration
	}{
		{Rate{1, time.Second}, `"test";r=0;t=1`, `"test";q=1;w=1`, "1", 0},
		{Rate{1, time.Minute}, `"test";r=0;t=60`, `"test";q=1;w=60`, "60", 0},
		{Rate{1, time.Minute}, `"test";r=0;t=1`, `"test";q=1;w=60`, "1", 60*time.Second - 1},
		{Rate{1, time.Minute}, `"test";r=0;t=49`, `"test";q=1;w=60`, "49", 11*time.Second + 1},
		{Rate{1, 100 * time.Millisecond}, `"test";r=0;t=1`, `"test";q=10;w=1`, "1", 0},
		{Rate{1, 1500 * time.Millisecond}, `"test";r=0;t=2`, `"test";q=1;w=2`, "2", 0},
		{Rate{1, 24 * time.Hour}, `"test";r=0;t=86400`, `"test";q=1;w=86400`, "86400", 0},
	} {
		l := limiter(t, Options{Rate: test.rate, Burst: 1, Now: c.Now})
		if err := Allow([]*Limiter{l}, caller(1)); err != nil {
			t.Fatal(err)
		}
		c.Advance(test.forward)
		limit, policy, after := refused(t, Allow([]*Limiter{l}, caller(1))).Headers()
		if limit != test.limit || policy != test.policy || after != test.after {
			t.Errorf("%+v after %s: %s | %s | %s", test.rate, test.forward, limit, policy, after)
		}
	}
}

func TestPolicy(t *testing.T) {
	for _, test := range []struct {
		rate   Rate
		quota  int
		window time.Duration
	}{
		{Rate{100, time.Minute}, 100, time.Minute},
		{Rate{50, time.Second}, 50, time.Second},
		{Rate{5, 100 * time.Millisecond}, 50, time.Second},
		{Rate{7, 700 * time.Millisecond}, 10, time.Second},
		{Rate{1, time.Nanosecond}, 1_000_000_000, time.Second},
		{Rate{10, 1500 * time.Millisecond}, 13, 2 * time.Second}, // rounded down: never promise more
		{Rate{1, 1500 * time.Millisecond}, 1, 2 * time.Second},
		{Rate{math.MaxInt, time.Second}, 999_999_999_999_999, time.Second},
	} {
		if q, w := policy(test.rate); q != test.quota || w != test.window {
			t.Errorf("%+v: q=%d;w=%s, want %d and %s", test.rate, q, w, test.quota, test.window)
		}
	}
	limit, policy, _ := (&Refused{Limit: `a"b\c`, Window: time.Second}).Headers()
	if !strings.HasPrefix(limit, `"a\"b\\c";`) || !strings.HasPrefix(policy, `"a\"b\\c";`) {
		t.Errorf("a name is not escaped: %s %s", limit, policy)
	}
}

func TestNewRefuses(t *testing.T) {
	store := NewStore(StoreOptions{})
	good := Options{Name: "n", Keys: []string{"ip"}, Rate: Rate{10, time.Second}}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Options){
		`name ""`:                   func(o *Options) { o.Name = "" },
		`name "a\nb"`:               func(o *Options) { o.Name = "a\nb" },
		`name "é"`:                  func(o *Options) { o.Name = "é" },
		"admits nothing":            func(o *Options) { o.Rate.Count = 0 },
		"a rate of 10 per 0s":       func(o *Options) { o.Rate.Per = 0 },
		"below zero":                func(o *Options) { o.Burst = -1 },
		"prefix of 129 bits":        func(o *Options) { o.IPv6Prefix = 129 },
		"want a header's name":      func(o *Options) { o.Keys = []string{"header:"} },
		`"header:a b"`:              func(o *Options) { o.Keys = []string{"header:a b"} },
		`unknown key "issuer:a"`:    func(o *Options) { o.Keys = []string{"issuer:a"} },
		"only a shared limit has":   func(o *Options) { o.Lease = 5 },
		"asks what to do on errors": func(o *Options) { o.OnError = OnErrorDeny },
		"way \"hope\" to meet":      func(o *Options) { o.Store, o.OnError = store, "hope" },
		"a lease of 11 tokens":      func(o *Options) { o.Store, o.Lease = store, 11 },
		"a lease of -1 tokens":      func(o *Options) { o.Store, o.Lease = store, -1 },
		"104 days":                  func(o *Options) { o.Store, o.Rate = store, Rate{10, 105 * 24 * time.Hour} },
		"braces":                    func(o *Options) { o.Store, o.Name = store, "a{b" },
		"a cost of 1 to 11":         func(o *Options) { o.Costs = map[string]int{"GET": 11} },
		"a cost of -1 to":           func(o *Options) { o.Costs = map[string]int{"GET": -1} },
		"a cost of 11 to 11":        func(o *Options) { o.Cost = 11 },
		"want a claim and":          func(o *Options) { o.TierBy = "claim:plan" },
		"want a claim and 1":        func(o *Options) { o.Tiers = map[string]Tier{"gold": {Rate: Rate{1, 1}}} },
		"anything else the caller":  func(o *Options) { o.TierBy, o.Tiers = "header:Plan", map[string]Tier{"gold": {Rate: Rate{1, 1}}} },
		"a tier without a name":     func(o *Options) { o.TierBy, o.Tiers = "claim:plan", map[string]Tier{"": {Rate: Rate{1, 1}}} },
		`tier "gold": a rate of 0`:  func(o *Options) { o.TierBy, o.Tiers = "claim:plan", map[string]Tier{"gold": {}} },
		`tier "tin": a cost of 2 to 2`: func(o *Options) {
			o.Cost, o.TierBy, o.Tiers = 2, "claim:plan", map[string]Tier{"tin": {Rate: Rate{9, 1}, Burst: 1}}
		},
		"number of entries below":      func(o *Options) { o.MaxEntries = -1 },
		"has no key":                   func(o *Options) { o.Keys = nil },
		`unknown key "sub"`:            func(o *Options) { o.Keys = []string{"ip", "sub"} },
		`claim:IP for the claim`:       func(o *Options) { o.Keys = []string{"IP"} },
		"an empty key":                 func(o *Options) { o.Keys = []string{""} },
		"a claim path must not be":     func(o *Options) { o.Keys = []string{"claim:"} },
		`claim path "a..b" has an emp`: func(o *Options) { o.Keys = []string{"claim:a..b"} },
	} {
		o := good
		change(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestNeedsClaims(t *testing.T) {
	for keys, want := range map[string]bool{"ip": false, "route": false, "ip route": false, "claim:sub": true, "route claim:client_id": true, "issuer": true, "header:X-Api-Key": false} {
		if got := limiter(t, Options{Keys: strings.Fields(keys), Rate: Rate{1, time.Second}}).NeedsClaims(); got != want {
			t.Errorf("%s: %t", keys, got)
		}
	}
	if !limiter(t, Options{Rate: Rate{1, time.Second}, TierBy: "claim:plan", Tiers: map[string]Tier{"gold": {Rate: Rate{2, time.Second}}}}).NeedsClaims() {
		t.Error("tiers are read from a claim that nobody verified")
	}
}

// TestSeveralLimits: all must admit, and where one refuses none is charged.
func TestSeveralLimits(t *testing.T) {
	c := newClock()
	fast := limiter(t, Options{Name: "fast", Rate: Rate{10, time.Second}, Now: c.Now})
	slow := limiter(t, Options{Name: "slow", Rate: Rate{3, time.Minute}, Now: c.Now})
	both := []*Limiter{fast, slow}
	if n := admitted(20, caller(1), both...); n != 3 {
		t.Errorf("%d admitted, want the 3 of the slow limit", n)
	}
	if n := admitted(20, caller(1), fast); n != 7 {
		t.Errorf("the fast limit had %d left, want 7: a refused request was charged", n)
	}
	// All are spent now; the longest wait is the slow one's, whatever the order.
	later := limiter(t, Options{Name: "later", Rate: Rate{10, time.Second}, Now: c.Now})
	admitted(10, caller(1), later)
	for _, ls := range [][]*Limiter{{fast, slow, later}, {later, slow, fast}, {slow, later, fast}} {
		if r := refused(t, Allow(ls, caller(1))); r.Limit != "slow" || r.RetryAfter != 20*time.Second {
			t.Errorf("refused by %+v", r)
		}
	}
	if r := refused(t, Allow([]*Limiter{fast}, caller(1))); r.Limit != "fast" {
		t.Errorf("refused by %+v", r)
	}
	if n := admitted(5, caller(2), slow, slow, slow); n != 3 {
		t.Errorf("listed three times, %d admitted: it must count once", n)
	}
	if n := admitted(5, caller(3)); n != 5 {
		t.Errorf("no limits: %d of 5 admitted", n)
	}
}

// TestClockThatGoesBack: x/time/rate on its own would count the ten seconds
// between the two requests a second time.
func TestClockThatGoesBack(t *testing.T) {
	c := newClock()
	l := limiter(t, Options{Rate: Rate{1, time.Second}, Burst: 2, Now: c.Now})
	admitted(1, caller(1), l)
	c.Advance(-10 * time.Second)
	admitted(1, caller(1), l)
	c.Advance(10 * time.Second)
	if n := admitted(5, caller(1), l); n != 0 {
		t.Errorf("%d admitted from an empty bucket", n)
	}
}

// TestEvictionNeverRefills plays random callers against a table that is far
// too small. Whoever is served from a bucket of his own must be treated as if
// the table were endless; the rest share one bucket of the same rate.
func TestEvictionNeverRefills(t *testing.T) {
	evictions, spills := 0, uint64(0)
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		c := newClock()
		burst := 1 + rnd.IntN(4)
		size := 1 + rnd.IntN(20)
		l := limiter(t, Options{Rate: Rate{1, time.Second}, Burst: burst, MaxEntries: size, Now: c.Now})
		type model struct {
			tokens float64
			last   time.Time
		}
		endless := map[string]*model{}
		seen := map[string]bool{}
		for range 2000 {
			c.Advance(time.Duration(rnd.IntN(8)) * 125 * time.Millisecond) // exact in binary
			s := caller(rnd.IntN(40))
			k := keyOf(l, s)
			known := l.table.entries[k] != nil
			before := l.Stats().Spills
			err := Allow([]*Limiter{l}, s)
			who := k
			if l.Stats().Spills > before {
				who = "overflow"
				if len(l.table.entries) < size {
					t.Fatalf("seed %d: spilled with room left", seed)
				}
			} else if !known && seen[k] {
				evictions++
			}
			seen[k] = true
			m := endless[who]
			if m == nil {
				m = &model{float64(burst), c.now}
				endless[who] = m
			}
			m.tokens = min(float64(burst), m.tokens+c.now.Sub(m.last).Seconds())
			m.last = c.now
			if (err == nil) != (m.tokens >= 1) {
				t.Fatalf("seed %d: %v for %x with %v tokens", seed, err, who, m.tokens)
			}
			if err == nil {
				m.tokens--
			}
			checkList(t, l.table, size)
		}
		spills += l.Stats().Spills
	}
	if evictions == 0 || spills == 0 {
		t.Errorf("%d evictions and %d spills: the story never came to the point", evictions, spills)
	}
}

// checkList compares the list with the map.
func checkList(t *testing.T, tab *table[rate.Limiter], size int) {
	t.Helper()
	n := 0
	for e := tab.order.next; e != &tab.order; e = e.next {
		if n++; tab.entries[e.key] != e || e.next.prev != e || n > size {
			t.Fatalf("the list and the map disagree after %d of %d entries", n, len(tab.entries))
		}
	}
	if n != len(tab.entries) {
		t.Fatalf("%d in the list, %d in the map", n, len(tab.entries))
	}
}

func TestOverflowIsShared(t *testing.T) {
	c := newClock()
	l := limiter(t, Options{Rate: Rate{1, time.Minute}, Burst: 3, MaxEntries: 5, Now: c.Now})
	for n := range 5 {
		admitted(1, caller(n), l) // five spent buckets
	}
	passed := 0
	for n := 100; n < 150; n++ {
		passed += admitted(1, caller(n), l)
	}
	if passed != 3 || l.Stats() != (Stats{Admitted: 8, Refused: 47, Keys: 5, Spills: 50}) {
		t.Errorf("%d strangers admitted, want the 3 of one bucket; %+v", passed, l.Stats())
	}
	if n := admitted(5, caller(0), l); n != 2 {
		t.Errorf("a known caller was admitted %d times, want his own 2", n)
	}
	c.Advance(time.Hour) // all are full again
	if n := admitted(5, caller(200), l); n != 3 || l.Stats().Spills != 50 {
		t.Errorf("with room again %d admitted, %+v", n, l.Stats())
	}
}

// TestSpentBucketsHideNoFullOnes: a spent bucket at the cold end must not keep
// new callers in the overflow bucket while full ones lie behind it.
func TestSpentBucketsHideNoFullOnes(t *testing.T) {
	c := newClock()
	l := limiter(t, Options{Rate: Rate{1, time.Second}, Burst: 100, MaxEntries: 100, Now: c.Now})
	for n := range looks {
		admitted(100, caller(n), l) // coldest, and full again after 100 s
	}
	for n := looks; n < 100; n++ {
		admitted(1, caller(n), l)
	}
	c.Advance(2 * time.Second) // those are full again
	admitted(1, caller(1000), l)
	admitted(1, caller(1001), l)
	if s := l.Stats(); s.Spills != 1 {
		t.Errorf("%d spills, want only the first", s.Spills)
	}
}

// TestExactUnderConcurrency admits exactly the burst while the clock stands
// still, whatever order the callers list the limits in.
func TestExactUnderConcurrency(t *testing.T) {
	c := newClock()
	wide := limiter(t, Options{Name: "wide", Rate: Rate{1000, time.Hour}, Now: c.Now})
	tight := limiter(t, Options{Name: "tight", Rate: Rate{300, time.Hour}, Now: c.Now})
	var passed atomic.Int64
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			ls := []*Limiter{wide, tight}
			if g%2 == 1 {
				ls = []*Limiter{tight, wide}
			}
			passed.Add(int64(admitted(200, caller(1), ls...)))
		})
	}
	wg.Wait()
	if passed.Load() != 300 {
		t.Errorf("%d admitted, want 300", passed.Load())
	}
	if n := admitted(2000, caller(1), wide); n != 700 {
		t.Errorf("%d left in the wide one, want 700", n)
	}
}

// TestManyCallersConcurrently runs a small table under many keys with a real
// clock: nothing to count but that the race detector and the list agree.
func TestManyCallersConcurrently(t *testing.T) {
	l := limiter(t, Options{Rate: Rate{1000, time.Second}, Burst: 1, MaxEntries: 50})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 500 {
				_ = Allow([]*Limiter{l}, caller(g*i%200))
			}
		})
	}
	wg.Wait()
	checkList(t, l.table, 50)
}

func TestAllowAllocatesNothing(t *testing.T) {
	ip := limiter(t, Options{Rate: Rate{1 << 30, time.Second}})
	sub := limiter(t, Options{Name: "sub", Keys: []string{"claim:sub", "route"}, Rate: Rate{1 << 30, time.Second}})
	s := claims(t, "main", `{"sub":"jane"}`)
	s.IP = netip.MustParseAddr("2001:db8::1")
	header := limiter(t, Options{
		Keys: []string{"header:X-Api-Key"}, Rate: Rate{1 << 30, time.Second}, Costs: map[string]int{"GET": 2},
		TierBy: "claim:plan", Tiers: map[string]Tier{"gold": {Rate: Rate{1 << 30, time.Second}}},
	})
	s.Method, s.Header = "GET", http.Header{"X-Api-Key": {"k"}}
	leased := limiter(t, Options{Rate: Rate{1 << 20, time.Hour}, Lease: 10_000, Store: startRedis(t).gateway(t, StoreOptions{})})
	_ = Allow([]*Limiter{leased}, s)
	for _, ls := range [][]*Limiter{{ip}, {sub}, {sub, ip}, {header, ip}, {leased}, {leased, ip, sub}} {
		if n := testing.AllocsPerRun(100, func() {
			if err := Allow(ls, s); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%d limits: %v allocations", len(ls), n)
		}
	}
}

func BenchmarkAllow(b *testing.B) {
	for _, keys := range []int{1e3, 1e6} {
		b.Run(fmt.Sprintf("keys=%g", float64(keys)), func(b *testing.B) {
			l := limiter(b, Options{Rate: Rate{1 << 30, time.Second}, MaxEntries: keys})
			ls := []*Limiter{l}
			for n := range keys {
				_ = Allow(ls, caller(n))
			}
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				n = (n + 7919) % keys
				if err := Allow(ls, caller(n)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkFlood is the cost of a new key where the table is full of spent buckets.
func BenchmarkFlood(b *testing.B) {
	const size = 100_000
	l := limiter(b, Options{Rate: Rate{1, time.Hour}, Burst: 1, MaxEntries: size})
	ls := []*Limiter{l}
	for n := range size {
		_ = Allow(ls, caller(n))
	}
	n := size
	for b.Loop() {
		n++
		_ = Allow(ls, caller(n))
	}
}

// BenchmarkMemory reports the bytes for each of a million keys of eight bytes
// of payload, the key itself included: of local buckets, and of what a gateway
// remembers of shared ones.
func BenchmarkMemory(b *testing.B) {
	const keys = 1_000_000
	gone := startRedis(b)
	gone.kill()
	for _, test := range []struct {
		name  string
		store *Store
	}{{"local", nil}, {"shared", gone.gateway(b, StoreOptions{Replicas: 2})}} {
		b.Run(test.name, func(b *testing.B) {
			for b.Loop() {
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				l := limiter(b, Options{Rate: Rate{1, time.Hour}, MaxEntries: keys, Store: test.store})
				for n := range keys {
					_ = Allow([]*Limiter{l}, caller(n))
				}
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/keys, "B/key")
				runtime.KeepAlive(l)
			}
		})
	}
}
