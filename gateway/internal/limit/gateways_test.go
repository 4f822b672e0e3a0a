package limit

import (
	"context"
	"errors"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sony/gobreaker/v2"

	"gatehouse/gateway/token"
)

// rush sends n requests through each limiter, four at a time, and returns how
// many were admitted.
func rush(n int, s Subject, ls ...*Limiter) int {
	var passed atomic.Int64
	var wg sync.WaitGroup
	for _, l := range ls {
		for range 4 {
			wg.Go(func() { passed.Add(int64(admitted(n/4, s, l))) })
		}
	}
	wg.Wait()
	return int(passed.Load())
}

// TestExactAcrossGateways: three gateways, each with connections and a memory
// of its own, together admit what one bucket holds.
func TestExactAcrossGateways(t *testing.T) {
	r := startRedis(t)
	c := r.client(t)
	for _, test := range []struct {
		name  string
		rate  Rate
		burst int
		lease int
	}{
		{"slow", Rate{1, time.Hour}, 300, 0},
		{"fast", Rate{1000, time.Second}, 50, 0},
		{"uneven", Rate{3333, time.Second}, 7, 0},
		{"slow leased", Rate{1, time.Hour}, 300, 20},
		{"fast leased", Rate{1000, time.Second}, 60, 10},
	} {
		t.Run(test.name, func(t *testing.T) {
			var ls []*Limiter
			for range 3 {
				store := r.gateway(t, StoreOptions{OnFallback: func(_ string, _ OnError, err error) { t.Error(err) }})
				ls = append(ls, limiter(t, Options{Name: test.name, Rate: test.rate, Burst: test.burst, Lease: test.lease, Store: store}))
			}
			before := clockOf(t, c)
			n := rush(600, caller(1), ls...)
			took := clockOf(t, c).Sub(before)
			most := (float64(test.burst) + float64(test.rate.Count)*took.Seconds()/test.rate.Per.Seconds())
			t.Logf("%d admitted in %s, at most %.0f", n, took, most)
			if float64(n) > most*1.01 {
				t.Errorf("%d admitted in %s, more than burst + rate × time = %.1f", n, took, most)
			}
			if least := test.burst - 3*test.lease; n < least {
				t.Errorf("%d admitted, want at least %d", n, least)
			}
			if test.lease == 0 && test.name == "slow" && n != test.burst {
				t.Errorf("%d admitted, want the burst of %d", n, test.burst)
			}
		})
	}
}

// counter is a hook that counts the scripts that a client runs.
type counter struct{ scripts atomic.Int64 }

func (c *counter) DialHook(next redis.DialHook) redis.DialHook { return next }
func (c *counter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
func (c *counter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if strings.HasPrefix(cmd.Name(), "eval") {
			c.scripts.Add(1)
		}
		return next(ctx, cmd)
	}
}

// TestLease: it saves round trips, and its price is bounded. Over any time, at most one lease of
// each gateway is admitted beyond burst + rate × time, and none once the
// leases ended.
func TestLease(t *testing.T) {
	const burst, lease = 60, 20
	r := startRedis(t)
	c := r.client(t)
	for _, test := range []struct {
		name string
		idle time.Duration // of the gateways' clocks
		want int
	}{
		{"held", 0, burst + 2*(lease-1)},
		{"ended", leaseFills * lease * time.Hour, burst},
	} {
		t.Run(test.name, func(t *testing.T) {
			c.FlushAll(t.Context())
			clock := newClock()
			var hooks [2]counter
			var ls []*Limiter
			for i := range hooks {
				client := r.client(t)
				client.AddHook(&hooks[i])
				store := r.gateway(t, StoreOptions{Client: client, Replicas: 2})
				ls = append(ls, limiter(t, Options{Rate: Rate{1, time.Hour}, Burst: burst, Lease: lease, Store: store, Now: clock.Now}))
				if n := admitted(1, caller(1), ls[i]); n != 1 {
					t.Fatal("the first request was refused")
				}
			}
			if n := hooks[0].scripts.Load(); n > 2 { // EVALSHA, and EVAL where the script is new
				t.Errorf("%d commands for the first request", n)
			}
			r.age(t, c, 1000*time.Hour) // the bucket is full again, and each gateway holds the rest of a lease
			clock.Advance(test.idle)
			before := hooks[0].scripts.Load()
			n := admitted(lease-1, caller(1), ls[0])
			if n != lease-1 {
				t.Errorf("%d admitted, want %d", n, lease-1)
			}
			if sent := hooks[0].scripts.Load() - before; test.idle == 0 && sent != 0 || sent > 1 {
				t.Errorf("%d commands for the %d requests of a lease", sent, n)
			}
			n += admitted(200, caller(1), ls[0]) + admitted(200, caller(1), ls[1])
			if n > test.want || n < test.want-lease {
				t.Errorf("%d admitted, want at most %d", n, test.want)
			}
			if test.idle == 0 && n <= burst {
				t.Errorf("%d admitted: the bound is never reached", n)
			}
		})
	}
}

// TestLeaseUnderCrowd: many requests at once take one lease, not one each.
func TestLeaseUnderCrowd(t *testing.T) {
	r := startRedis(t)
	l := limiter(t, Options{Rate: Rate{1, time.Hour}, Burst: 1000, Lease: 100, Store: r.gateway(t, StoreOptions{})})
	if n := rush(40, caller(1), l); n != 40 {
		t.Fatalf("%d of 40 admitted", n)
	}
	var debt, at int64
	var k key
	s := caller(1)
	k.write(l, &s, 0)
	if _, err := scan(r.client(t).Get(t.Context(), k.redis("test", "")).Val(), &debt, &at); err != nil {
		t.Fatal(err)
	}
	if taken := (debt + int64(time.Minute)) / int64(time.Hour); taken < 40 || taken > 140 {
		t.Errorf("%d tokens were taken for 40 requests, want at most one lease of 100 more", taken)
	}
}

// TestOutage kills Redis in the middle and brings it back empty.
func TestOutage(t *testing.T) {
	const burst = 40
	r := startRedis(t)
	type event struct {
		how OnError
		err error
	}
	var mu sync.Mutex
	var events []event
	var states []bool
	var ls []*Limiter
	for range 2 {
		store := r.gateway(t, StoreOptions{
			Replicas: 2,
			OnFallback: func(limit string, how OnError, err error) {
				mu.Lock()
				defer mu.Unlock()
				events = append(events, event{how, err})
			},
			OnState: func(up bool) {
				mu.Lock()
				defer mu.Unlock()
				states = append(states, up)
			},
		})
		ls = append(ls, limiter(t, Options{Rate: Rate{1, time.Hour}, Burst: burst, Store: store}))
	}
	if n := admitted(10, caller(1), ls[0]) + admitted(10, caller(1), ls[1]); n != 20 {
		t.Fatalf("%d of 20 admitted", n)
	}
	r.kill()
	// Each goes on from what it last saw with half the rest: 15 and 10 tokens
	// at least, 30 and 20 of the whole at most.
	spent := [2]int{admitted(100, caller(1), ls[0]), admitted(100, caller(1), ls[1])}
	if spent != [2]int{15, 10} {
		t.Errorf("in the outage %d were admitted, want 15 and 10: half of what each last saw", spent)
	}
	if n := admitted(100, caller(2), ls[0]); n != burst/2 {
		t.Errorf("an unknown caller was admitted %d times, want the share of %d", n, burst/2)
	}
	e := refused(t, Allow(ls[:1], caller(1)))
	if !e.Reduced || e.Problem() != TemporaryReducedCapacity || e.RetryAfter < time.Hour || e.RetryAfter > 2*time.Hour {
		t.Errorf("%+v", e)
	}
	mu.Lock()
	open := 0
	for _, e := range events {
		if errors.Is(e.err, gobreaker.ErrOpenState) {
			open++
		}
	}
	if len(events) != 301 || open < 301-2*tripAfter-20 || events[0].how != OnErrorLocal {
		t.Errorf("%d fallbacks, %d of them by the breaker", len(events), open)
	}
	if !slices.Equal(states, []bool{false, false}) {
		t.Errorf("states %v", states)
	}
	mu.Unlock()
	if s := ls[0].Stats(); s.Fallbacks != 201 || s.Keys != 2 {
		t.Errorf("%+v", s)
	}

	r.start(t)
	for i, l := range ls {
		eventually(t, "the gateway asks Redis again", func() bool {
			before := l.Stats().Fallbacks
			_ = Allow([]*Limiter{l}, caller(1000+i))
			return l.Stats().Fallbacks == before
		})
	}
	mu.Lock()
	if !slices.Equal(states, []bool{false, false, true, true}) {
		t.Errorf("states %v", states)
	}
	mu.Unlock()
	// No burst: Redis came back empty, but the gateways remember. A caller that
	// only one gateway knows is known to all once that one asked.
	if n := admitted(100, caller(1), ls[0]) + admitted(100, caller(1), ls[1]); n != 0 {
		t.Errorf("%d admitted after the outage from a bucket that was spent before", n)
	}
	if n := admitted(100, caller(2), ls[0]); n != 0 {
		t.Errorf("%d admitted after the outage from a share that was spent in it", n)
	}
	if n := admitted(100, caller(2), ls[1]); n != 0 {
		t.Errorf("%d admitted by the other gateway", n)
	}
	if n := admitted(100, caller(3), ls[0]) + admitted(100, caller(3), ls[1]); n != burst {
		t.Errorf("a new caller was admitted %d times, want %d", n, burst)
	}
}

// TestStall pauses Redis in the middle: no request waits longer than the
// time-out, and after the third none waits at all.
func TestStall(t *testing.T) {
	r := startRedis(t)
	var failures []error
	store := r.gateway(t, StoreOptions{
		Replicas: 1, Timeout: 250 * time.Millisecond,
		OnFallback: func(_ string, _ OnError, err error) { failures = append(failures, err) },
	})
	l := limiter(t, Options{Rate: Rate{1, time.Hour}, Burst: 30, Store: store})
	eventually(t, "Redis answers in time", func() bool {
		failures = nil
		return Allow([]*Limiter{l}, caller(1000)) == nil && len(failures) == 0
	})
	c := r.client(t)
	before := admitted(5, caller(1), l)
	if err := c.Do(t.Context(), "CLIENT", "PAUSE", 2000, "ALL").Err(); err != nil {
		t.Fatal(err)
	}
	n := before + admitted(100, caller(1), l)
	if n != 30 {
		t.Errorf("%d admitted in all, want the burst of 30", n)
	}
	slow := 0
	for _, err := range failures {
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			slow++
		} else if !errors.Is(err, gobreaker.ErrOpenState) {
			t.Errorf("a failure of another kind: %v", err)
		}
	}
	if len(failures) != 100 || slow != tripAfter {
		t.Errorf("%d of %d requests waited, want %d of 100", slow, len(failures), tripAfter)
	}
	eventually(t, "the gateway asks Redis again", func() bool {
		before := l.Stats().Fallbacks
		_ = Allow([]*Limiter{l}, caller(1000))
		return l.Stats().Fallbacks == before
	})
	if n := admitted(50, caller(1), l); n != 0 {
		t.Errorf("%d admitted after the stall", n)
	}
}

// TestPostures: nothing listens where Redis should be.
func TestPostures(t *testing.T) {
	r := startRedis(t)
	r.kill()

	for _, test := range []struct {
		how    OnError
		report bool
		want   int
	}{
		{"", false, 2}, {OnErrorLocal, false, 2}, {OnErrorAllow, false, 5}, {OnErrorDeny, false, 0}, {OnErrorDeny, true, 5}, {OnErrorLocal, true, 5},
	} {
		store := r.gateway(t, StoreOptions{Replicas: 2})
		l := limiter(t, Options{Name: "shared", Rate: Rate{4, time.Hour}, Store: store, OnError: test.how, Mode: map[bool]Mode{true: Report}[test.report]})
		local := limiter(t, Options{Name: "local", Rate: Rate{5, time.Hour}})
		n := 0
		for range 10 {
			d, err := Take(t.Context(), []*Limiter{l, local}, caller(1))
			var denied *token.Error
			switch {
			case err == nil:
				n++
				if test.want == 5 && d.Limit != "local" {
					t.Errorf("%s: callers see %+v", test.how, d)
				}
			case test.how == OnErrorDeny && !test.report && (!errors.As(err, &denied) || denied.Reason != token.StoreUnavailable || denied.RetryAfter <= 0):
				t.Errorf("%s: %v", test.how, err)
			}
		}
		if n != test.want {
			t.Errorf("%q: %d admitted, want %d", test.how, n, test.want)
		}
		if left := admitted(10, caller(1), local); left != 5-test.want {
			t.Errorf("%q: %d left of the local limit, want %d", test.how, left, 5-test.want)
		}
	}
}

// TestShareHoldsOneRequest: with more gateways than tokens each still serves
// somebody.
func TestShareHoldsOneRequest(t *testing.T) {
	r := startRedis(t)
	r.kill()
	c := newClock()
	l := limiter(t, Options{Rate: Rate{2, time.Hour}, Cost: 2, Store: r.gateway(t, StoreOptions{Replicas: 10}), Now: c.Now})
	if n := admitted(5, caller(1), l); n != 1 {
		t.Errorf("%d admitted, want 1", n)
	}
	c.Advance(10*time.Hour - 1)
	if n := admitted(5, caller(1), l); n != 0 {
		t.Errorf("%d admitted before the share of a tenth had refilled", n)
	}
	c.Advance(1)
	if n := admitted(5, caller(1), l); n != 1 {
		t.Errorf("%d admitted, want 1", n)
	}
}

// TestLeaseOutlivesRedis: what was taken may be spent.
func TestLeaseOutlivesRedis(t *testing.T) {
	r := startRedis(t)
	l := limiter(t, Options{Rate: Rate{1, time.Hour}, Burst: 10, Lease: 4, Store: r.gateway(t, StoreOptions{Replicas: 1}), OnError: OnErrorDeny})
	admitted(1, caller(1), l)
	r.kill()
	if n := admitted(10, caller(1), l); n != 3 {
		t.Errorf("%d admitted, want the 3 that are left of the lease", n)
	}
}

// TestUse: what is known of the buckets outlives a change of client, which is
// then the only one that is asked.
func TestUse(t *testing.T) {
	r := startRedis(t)
	before := r.client(t)
	store := r.gateway(t, StoreOptions{Client: before, Replicas: 1})
	l := limiter(t, Options{Rate: Rate{1, time.Hour}, Burst: 10, Lease: 4, Store: store})
	admitted(1, caller(1), l)
	store.Use(r.client(t), 5)
	before.Close()
	if n := store.Replicas(); n != 5 {
		t.Errorf("%d replicas, 5 were given", n)
	}
	r.kill()
	if n := admitted(10, caller(1), l); n != 3+1 { // 6 are left in the bucket: one costs 5
		t.Errorf("%d admitted, want the 3 that are left of the lease and the share of the rest", n)
	}
	r.start(t)
	eventually(t, "the new client is asked", func() bool {
		before := l.Stats().Fallbacks
		_ = Allow([]*Limiter{l}, caller(2))
		return l.Stats().Fallbacks == before
	})
}

// TestReplicas: gateways count each other, and forget who is gone.
func TestReplicas(t *testing.T) {
	r := startRedis(t)
	c := newClock()
	var stores []*Store
	var ls []*Limiter
	for range 3 {
		s := r.gateway(t, StoreOptions{Now: c.Now})
		if s.Replicas() != 1 {
			t.Errorf("%d replicas before Redis was asked", s.Replicas())
		}
		stores, ls = append(stores, s), append(ls, limiter(t, Options{Rate: Rate{100, time.Hour}, Store: s}))
		admitted(1, caller(1), ls[len(ls)-1])
	}
	if stores[0].Replicas() != 1 || stores[2].Replicas() != 3 {
		t.Errorf("%d and %d replicas", stores[0].Replicas(), stores[2].Replicas())
	}
	c.Advance(beatEvery)
	admitted(1, caller(1), ls[0])
	if stores[0].Replicas() != 3 {
		t.Errorf("%d replicas after the next beat", stores[0].Replicas())
	}
	rc := r.client(t)
	rc.ZAdd(t.Context(), "limit:replicas", redis.Z{Score: float64(time.Now().Add(-beatWindow - patient).UnixMicro()), Member: stores[2].id})
	c.Advance(beatEvery)
	admitted(1, caller(1), ls[0])
	if stores[0].Replicas() != 2 {
		t.Errorf("%d replicas after one was gone", stores[0].Replicas())
	}
	if ttl := rc.TTL(t.Context(), "limit:replicas").Val(); ttl <= 0 || ttl > beatWindow {
		t.Errorf("the set lives for %s", ttl)
	}
	if n := r.gateway(t, StoreOptions{Replicas: 5}).Replicas(); n != 5 {
		t.Errorf("%d replicas, 5 were given", n)
	}
}

// TestCluster: in a Cluster the buckets of one caller under one key share a
// slot, and so a step; buckets in two slots are two steps.
func TestCluster(t *testing.T) {
	r := startRedis(t, "--cluster-enabled", "yes")
	admin := r.client(t)
	if err := admin.Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	c := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{r.addr}, ContextTimeoutEnabled: true})
	t.Cleanup(func() { c.Close() })
	eventually(t, "the Cluster is up", func() bool { return c.Set(t.Context(), "x", 1, 0).Err() == nil })
	store := r.gateway(t, StoreOptions{Client: c, OnFallback: func(_ string, _ OnError, err error) { t.Error(err) }})
	wide := limiter(t, Options{Name: "wide", Rate: Rate{10, 24 * time.Hour}, Store: store})
	tight := limiter(t, Options{Name: "tight", Rate: Rate{3, 24 * time.Hour}, Store: store})
	if n := admitted(9, caller(1), wide, tight); n != 3 {
		t.Errorf("%d admitted, want 3", n)
	}
	if n := admitted(20, caller(1), wide); n != 7 {
		t.Errorf("%d left, want 7: one step, all or nothing", n)
	}
	route := limiter(t, Options{Name: "route", Keys: []string{"route"}, Rate: Rate{5, 24 * time.Hour}, Store: store})
	both := limiter(t, Options{Name: "both", Keys: []string{"route", "ip"}, Rate: Rate{2, 24 * time.Hour}, Store: store})
	if n := admitted(9, caller(2), route, both, wide); n != 2 {
		t.Errorf("over three slots %d admitted, want 2", n)
	}
}

// TestForgetsNothing: a Redis that lost its data is told what this gateway
// knows, in a failover or after FLUSHALL.
func TestForgetsNothing(t *testing.T) {
	r := startRedis(t)
	one := limiter(t, Options{Rate: Rate{10, time.Hour}, Store: r.gateway(t, StoreOptions{})})
	two := limiter(t, Options{Rate: Rate{10, time.Hour}, Store: r.gateway(t, StoreOptions{})})
	admitted(6, caller(1), one)
	r.client(t).FlushAll(t.Context())
	if n := admitted(1, caller(1), one); n != 1 {
		t.Error("refused with tokens left")
	}
	if n := admitted(20, caller(1), two); n != 3 {
		t.Errorf("the other gateway admitted %d, want the 3 that are left", n)
	}
}

// TestManyKeysAreBounded: a gateway remembers so many buckets, and Redis the rest.
func TestManyKeysAreBounded(t *testing.T) {
	r := startRedis(t)
	l := limiter(t, Options{Rate: Rate{2, time.Hour}, Lease: 2, MaxEntries: 10, Store: r.gateway(t, StoreOptions{})})
	for range 2 {
		for n := range 50 {
			if admitted(1, caller(n), l) != 1 {
				t.Fatalf("caller %d was refused too early", n)
			}
		}
	}
	for n := range 50 {
		if admitted(1, caller(n), l) != 0 {
			t.Fatalf("caller %d was admitted a third time", n)
		}
	}
	if s := l.Stats(); s.Keys != 10 {
		t.Errorf("%+v", s)
	}
}

// TestOverflowIsNobodysMemory: in an outage those who found no room share a
// bucket; what it holds says nothing about any of them afterwards.
func TestOverflowIsNobodysMemory(t *testing.T) {
	r := startRedis(t)
	l := limiter(t, Options{Rate: Rate{3, time.Hour}, MaxEntries: 2, Store: r.gateway(t, StoreOptions{Replicas: 1})})
	admitted(1, caller(0), l)
	admitted(1, caller(1), l)
	r.kill()
	if n := admitted(5, caller(2), l) + admitted(5, caller(3), l); n != 3 {
		t.Errorf("%d admitted without room, want the 3 of one bucket", n)
	}
	if s := l.Stats(); s.Spills != 10 || s.Fallbacks != 10 {
		t.Errorf("%+v", s)
	}
	r.start(t)
	eventually(t, "the gateway asks Redis again", func() bool {
		before := l.Stats().Fallbacks
		admitted(1, caller(1), l)
		return l.Stats().Fallbacks == before
	})
	if n := admitted(5, caller(4), l); n != 3 {
		t.Errorf("a new caller was admitted %d times, want 3", n)
	}
}

// TestNoGoroutineStays: a Store needs no closing.
func TestNoGoroutineStays(t *testing.T) {
	r := startRedis(t)
	before := runtime.NumGoroutine()
	c := redis.NewClient(&redis.Options{Addr: r.addr, MaxRetries: -1, ContextTimeoutEnabled: true})
	l := limiter(t, Options{Rate: Rate{10, time.Hour}, Store: NewStore(StoreOptions{Client: c, Timeout: patient})})
	rush(40, caller(1), l)
	c.Close()
	eventually(t, "all goroutines end", func() bool { return runtime.NumGoroutine() <= before })
}

// TestCallerThatLeaves: a request that ended breaks neither connection nor count.
func TestCallerThatLeaves(t *testing.T) {
	r := startRedis(t)
	l := limiter(t, Options{Rate: Rate{2, time.Hour}, Store: r.gateway(t, StoreOptions{OnFallback: func(_ string, _ OnError, err error) { t.Error(err) }})})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for n := range 4 {
		if _, err := Take(ctx, []*Limiter{l}, caller(1)); (err == nil) != (n < 2) {
			t.Errorf("request %d: %v", n, err)
		}
	}
}

func BenchmarkTake(b *testing.B) {
	r := startRedis(b)
	store := r.gateway(b, StoreOptions{})
	dead := startRedis(b)
	dead.kill()
	for _, test := range []struct {
		name  string
		store *Store
		lease int
	}{{"local", nil, 0}, {"shared", store, 0}, {"leased", store, 50}, {"outage", dead.gateway(b, StoreOptions{Replicas: 3}), 0}} {
		for _, keys := range []int{1e3, 1e5, 1e6} {
			b.Run(test.name+"/keys="+formatCount(keys), func(b *testing.B) {
				l := limiter(b, Options{Rate: Rate{1 << 20, time.Second}, Store: test.store, Lease: test.lease, MaxEntries: keys})
				ls := []*Limiter{l}
				for range 4 { // the breaker opens
					_ = Allow(ls, caller(0))
				}
				b.ReportAllocs()
				n := 0
				for b.Loop() {
					if n++; n%100 == 0 { // a caller sends some at a time
						n += 7919 * 100
					}
					if _, err := Take(b.Context(), ls, caller(n/100%keys)); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
