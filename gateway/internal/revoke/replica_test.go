package revoke

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"gatehouse/gateway/token"
)

// both runs a story with either way of following.
func both(t *testing.T, story func(t *testing.T, sync Sync)) {
	for _, sync := range []Sync{Tracking, Poll} {
		t.Run(string(sync), func(t *testing.T) {
			t.Parallel() // they mostly wait
			story(t, sync)
		})
	}
}

func replicaOf(t *testing.T, s *instance, sync Sync) following {
	t.Helper()
	return loaded(t, Options{Client: connect(t, s.addr), Sync: sync, PollInterval: 5 * time.Millisecond})
}

func TestFollows(t *testing.T) {
	both(t, func(t *testing.T, sync Sync) {
		s := serve(t)
		s.revoke("before")
		f := replicaOf(t, s, sync)
		if h := f.Health(); h.Mode != sync || !h.Connected || h.Entries != 1 || h.Denies || h.Err != nil || h.Warning != "" || h.Servers != 1 || h.Resyncs != 1 || h.LastGood.IsZero() {
			t.Errorf("%+v", h)
		}
		if !f.revoked("before") || f.revoked("other") {
			t.Error("the load is wrong")
		}

		s.revoke("now")
		f.sees("now")
		s.do("SET", Key(JTI, "main", "now"), NotRevoked, "KEEPTTL")
		f.seesNot("now")

		s.do("SET", Key(JTI, "main", "short"), "1", "PX", "3000")
		f.sees("short")
		f.seesNot("short")
		f.fence(s.Client)
		if f.revoked("short") {
			t.Error("revoked again after its expiry")
		}

		// A later expiry is taken over, and so is an earlier one.
		s.do("SET", Key(JTI, "main", "longer"), "1", "PX", "3000")
		s.do("SET", Key(JTI, "main", "shorter"), "1")
		f.sees("longer")
		f.sees("shorter")
		s.do("PERSIST", Key(JTI, "main", "longer"))
		s.do("PEXPIRE", Key(JTI, "main", "shorter"), "3000")
		f.seesNot("shorter")
		f.holds(s.Client, "longer")

		s.do("DEL", Key(JTI, "main", "longer"))
		f.holds(s.Client, "longer")

		// The last write wins, also if it says less.
		v := withJTI(t, "x")
		for value, want := range map[string]bool{"1700000001": true, "1699999999": false, "yes": true, "-": false} {
			s.do("SET", Key(Subject, "main", "u1"), value)
			eventually(t, "sub "+value, func() bool { return (f.verdict(v) == token.RevokedToken) == want })
		}

		s.do("RPUSH", Key(SID, "main", "s1"), "a list")
		c, err := token.ParseClaims([]byte(`{"sid":"s1"}`))
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "a key of another type revokes", func() bool {
			return f.verdict(&token.Verified{Issuer: "main", Claims: c}) == token.RevokedToken
		})
		for kind, v := range map[Kind]*token.Verified{KeyID: {Issuer: "main", Key: "bad"}, JWS: {Issuer: "main", Hash: "abc"}} {
			s.do("SET", Key(kind, "main", map[Kind]string{KeyID: "bad", JWS: "abc"}[kind]), "")
			eventually(t, string(kind), func() bool { return f.verdict(v) == token.RevokedToken })
		}

		s.do("SET", "revoked:", "1")
		s.do("SET", "revoked:jti", "1")
		s.do("SET", "revoked:jti:main", "1")
		s.do("SET", "revoked:what:main:x", "1")
		f.fence(s.Client)
		if !f.Health().InStep {
			t.Error("keys that are no revocations disturb it")
		}
	})
}

func TestOnlyALiftLifts(t *testing.T) {
	both(t, func(t *testing.T, sync Sync) {
		s := serve(t)
		f := replicaOf(t, s, sync)
		s.revoke("a")
		s.revoke("b")
		f.sees("a")
		f.sees("b")

		s.do("FLUSHALL")
		f.holds(s.Client, "a")

		s.kill()
		f.outOfStep()
		if !f.revoked("a") || f.verdict(withJTI(t, "other")) != "" {
			t.Error("within max_stale the copy does not decide")
		}
		s.start()
		f.inStep()
		f.holds(s.Client, "a")

		s.kill()
		f.outOfStep()
		s.start()
		s.do("SET", Key(JTI, "main", "a"), NotRevoked)
		s.revoke("while away")
		f.seesNot("a")
		f.sees("while away")
		f.holds(s.Client, "b")
	})
}

// A full Redis refuses writes; reading goes on.
func TestFullRedis(t *testing.T) {
	s := serve(t)
	s.revoke("a")
	s.do("CONFIG", "SET", "maxmemory", "1")
	f := replicaOf(t, s, Tracking)
	if err := s.Set(t.Context(), Key(JTI, "main", "b"), "1", 0).Err(); err == nil || !strings.HasPrefix(err.Error(), "OOM") {
		t.Fatal(err)
	}
	if h := f.Health(); !h.InStep || h.Mode != Tracking || !f.revoked("a") {
		t.Errorf("%+v", h)
	}
}

func TestKilledConnections(t *testing.T) {
	for name, flag := range map[string]string{"tracking": "t", "listening": "P"} {
		t.Run(name, func(t *testing.T) {
			s := serve(t)
			f := replicaOf(t, s, Tracking)
			for range 3 {
				loads := f.Health().Resyncs
				ids := s.connections(flag)
				if len(ids) != 1 {
					t.Fatalf("%d connections with flag %s", len(ids), flag)
				}
				s.do("CLIENT", "KILL", "ID", ids[0])
				s.revoke("x" + ids[0])
				f.sees("x" + ids[0])
				eventually(t, "it starts again", func() bool { h := f.Health(); return h.InStep && h.Resyncs > loads })
			}
		})
	}
}

func TestSilence(t *testing.T) {
	both(t, func(t *testing.T, sync Sync) {
		for name, hush := range map[string]func(*instance) (wake func()){
			"stopped": func(s *instance) func() {
				s.signal(syscall.SIGSTOP)
				return func() { s.signal(syscall.SIGCONT) }
			},
			"paused": func(s *instance) func() {
				s.do("CLIENT", "PAUSE", "7000", "ALL") // longer than any poll may take; nothing but time ends it
				return func() {}
			},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := serve(t)
				s.revoke("known")
				fallbacks := make(chan error, 10000)
				told := func(err error) {
					select {
					case fallbacks <- err:
					default:
					}
				}
				deny := loaded(t, Options{Client: connect(t, s.addr), Sync: sync, PollInterval: time.Millisecond, MaxStale: 10 * time.Millisecond, OnError: told})
				allow := loaded(t, Options{Client: connect(t, s.addr), Sync: sync, PollInterval: time.Millisecond, MaxStale: 10 * time.Millisecond, OnError: told, Allow: true})
				patient := loaded(t, Options{Client: connect(t, s.addr), Sync: sync, PollInterval: time.Millisecond, MaxStale: time.Hour})
				other := withJTI(t, "other")
				for _, f := range []following{deny, allow, patient} {
					if f.verdict(other) != "" || f.Health().Denies {
						t.Fatal("refused while in step")
					}
				}
				wake := hush(s)
				for _, f := range []following{deny, allow, patient} {
					f.outOfStep()
				}
				if len(fallbacks) > 0 {
					t.Error("a fallback without a request")
				}
				eventually(t, "deny denies", func() bool { return deny.verdict(other) == token.StoreUnavailable })
				if h := deny.Health(); !h.Denies || h.Err == nil || h.Connected || h.Age < 10*time.Millisecond {
					t.Errorf("%+v", h)
				}
				var e *token.Error
				if err := deny.Check(t.Context(), other); !errors.As(err, &e) || e.RetryAfter <= 0 || !strings.Contains(e.Detail, "max_stale") {
					t.Error(err)
				}
				before := len(fallbacks)
				if allow.verdict(other) != "" || allow.Health().Denies || len(fallbacks) != before+1 {
					t.Error("allow does not allow, or does not say so")
				}
				if patient.verdict(other) != "" || patient.Health().Denies {
					t.Error("within max_stale the copy does not decide")
				}
				for _, f := range []following{deny, allow, patient} {
					if !f.revoked("known") {
						t.Error("a revocation that was seen does not hold")
					}
				}
				wake()
				for _, f := range []following{deny, allow, patient} {
					f.inStep()
				}
				if deny.verdict(other) != "" {
					t.Error("still refused")
				}
			})
		}
	})
}

func TestNeverLoaded(t *testing.T) {
	for _, allow := range []bool{false, true} {
		f := NewReplica(Options{Client: connect(t, freeAddr(t)), Check: all, Allow: allow, MaxStale: time.Hour})
		defer f.Close()
		check := func() {
			t.Helper()
			if got, want := reasonOf(f.Check(t.Context(), withJTI(t, "x"))), map[bool]token.Reason{false: token.StoreUnavailable}[allow]; got != want {
				t.Errorf("allow %v: %q", allow, got)
			}
		}
		check()
		f.Start(t.Context()) // returns although there is nobody
		check()
		if h := f.Health(); h.Denies == allow || h.InStep || h.Err == nil || h.Connected || !h.LastGood.IsZero() || f.Tolerant() != allow {
			t.Errorf("%+v", h)
		}
	}
}

func TestStartWaitsForTheLoad(t *testing.T) {
	s := serve(t)
	s.revoke("a")
	r := NewReplica(Options{Client: connect(t, s.addr), Check: all})
	defer r.Close()
	r.Start(t.Context())
	if h := r.Health(); !h.InStep || reasonOf(r.Check(t.Context(), withJTI(t, "a"))) != token.RevokedToken {
		t.Errorf("%+v", h)
	}
}

func TestPermissions(t *testing.T) {
	// What the documentation says that the user needs.
	const whole = "+ping +client|id +client|info +client|tracking +subscribe +scan +get +mget +pttl +info"
	for _, c := range []struct {
		name, rules string
		mode        Sync
		err         string
	}{
		{"least privilege", whole + " ~revoked:* &__redis__:invalidate", Tracking, ""},
		{"no INFO", strings.ReplaceAll(whole, " +info", "") + " ~revoked:* &__redis__:invalidate", Tracking, ""},
		{"no CLIENT TRACKING", strings.ReplaceAll(whole, "+client|tracking ", "") + " ~revoked:* &__redis__:invalidate", Poll, ""},
		{"no CLIENT ID", strings.ReplaceAll(whole, "+client|id ", "") + " ~revoked:* &__redis__:invalidate", Poll, ""},
		{"no SUBSCRIBE", strings.ReplaceAll(whole, "+subscribe ", "") + " ~revoked:* &__redis__:invalidate", Poll, ""},
		{"no channel", whole + " ~revoked:* resetchannels", Poll, ""},
		{"no SCAN", strings.ReplaceAll(whole, "+scan ", "") + " ~revoked:* &__redis__:invalidate", Tracking, "SCAN"},
		{"no keys", whole + " ~other:* &__redis__:invalidate", Tracking, "PTTL"},
		{"wrong password", whole + " ~revoked:* resetpass >other", "", "WRONGPASS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t)
			s.revoke("a")
			args := []any{"ACL", "SETUSER", "gate", "on", ">secret", "resetchannels"}
			for _, rule := range strings.Fields(c.rules) {
				args = append(args, rule)
			}
			s.do(args...)
			client := redis.NewClient(&redis.Options{Addr: s.addr, Username: "gate", Password: "secret", MaxRetries: -1, DisableIdentity: true})
			t.Cleanup(func() { client.Close() })
			f := follow(t, Options{Client: client, PollInterval: 5 * time.Millisecond})
			if c.err != "" {
				if h := f.outOfStep(); !strings.Contains(h.Err.Error(), c.err) || !h.Denies || strings.Contains(h.Err.Error(), "secret") {
					t.Errorf("%+v", h)
				}
				return
			}
			f.inStep()
			h := f.Health()
			if h.Mode != c.mode || (c.mode == Poll) != strings.Contains(h.Warning, "refuses CLIENT TRACKING") {
				t.Errorf("%+v", h)
			}
			s.revoke("b")
			f.sees("b")
			if !f.revoked("a") {
				t.Error("the load is wrong")
			}
		})
	}
}

func TestEvictionWarning(t *testing.T) {
	for policy, want := range map[string]bool{"noeviction": false, "allkeys-lru": true, "volatile-ttl": true} {
		s := serve(t, "--maxmemory-policy", policy)
		if h := replicaOf(t, s, Tracking).Health(); strings.Contains(h.Warning, policy) != want || (h.Warning != "") != want {
			t.Errorf("%s: %q", policy, h.Warning)
		}
		s.do("ACL", "SETUSER", "gate", "on", ">x", "allkeys", "allchannels", "allcommands", "-config")
		c := redis.NewClient(&redis.Options{Addr: s.addr, Username: "gate", Password: "x", DisableIdentity: true})
		t.Cleanup(func() { c.Close() })
		if h := loaded(t, Options{Client: c}).Health(); strings.Contains(h.Warning, policy) != want {
			t.Errorf("%s without CONFIG: %q", policy, h.Warning)
		}
	}
}

// TestSingleKeysAreReadAlone: what is read of a key that changed must come after
// every answer about it that is under way, or an old one would win.
func TestSingleKeysAreReadAlone(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := serve(t)
	fill := s.Pipeline()
	for n := range 3 * readRound * scanCount / 2 {
		fill.Set(ctx, Key(JTI, "main", fmt.Sprint(n)), 1, time.Hour)
	}
	if _, err := fill.Exec(ctx); err != nil {
		t.Fatal(err)
	}
	r := reader{ledger: newLedger(), limit: DefaultMaxEntries, node: connect(t, s.addr)}
	var reading, most atomic.Int32
	rounds := 0
	err := r.pages(ctx, func(ctx context.Context, _ []string) error {
		n := reading.Add(1)
		defer reading.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		for range 10 { // whoever does not wait comes meanwhile
			if err := s.Ping(ctx).Err(); err != nil {
				return err
			}
		}
		return nil
	}, func() error {
		rounds++
		if n := reading.Load(); n != 0 {
			t.Errorf("round %d: %d pages are still being read", rounds, n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if most.Load() != readers || rounds != 2 {
		t.Errorf("%d pages at a time, %d rounds", most.Load(), rounds)
	}
}

// TestSingleKeysAreReadAmongOthers: few revocations among many other keys are
// few pages with something in them, which single keys need not wait for.
func TestSingleKeysAreReadAmongOthers(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := serve(t)
	fill := s.Pipeline()
	for n := range 3 * readRound * scanCount {
		fill.Set(ctx, fmt.Sprint("session:", n), 1, time.Hour)
	}
	if _, err := fill.Exec(ctx); err != nil {
		t.Fatal(err)
	}
	s.Set(ctx, Key(JTI, "main", "stolen"), 1, time.Hour)
	r := reader{ledger: newLedger(), limit: DefaultMaxEntries, node: connect(t, s.addr)}
	rounds := 0
	if err := r.expiries(ctx, func() error { rounds++; return nil }); err != nil {
		t.Fatal(err)
	}
	if rounds < 3 {
		t.Errorf("%d rounds", rounds)
	}
}

// TestNoOtherKeyIsAskedFor: the gateway's user may read revocations alone, so
// that a value asked for of any other key ends the load, however many others
// there are.
func TestNoOtherKeyIsAskedFor(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, others := range []int{0, 500, 2000, 20_000} {
		t.Run(strconv.Itoa(others), func(t *testing.T) {
			t.Parallel()
			s := serve(t)
			keys := s.Pipeline()
			for n := range others {
				keys.Set(ctx, fmt.Sprint("session:revoked:", n), 1, time.Hour)
			}
			for n := range 2000 {
				keys.Set(ctx, Key(JTI, "main", strconv.Itoa(n)), 1, time.Hour)
			}
			if _, err := keys.Exec(ctx); err != nil {
				t.Fatal(err)
			}
			s.do("ACL", "SETUSER", "default", "resetkeys", "~"+prefix+"*")
			l := newLedger()
			r := reader{ledger: l, limit: DefaultMaxEntries, node: connect(t, s.addr)}
			if err := r.scan(ctx, func() error { return nil }); err != nil {
				t.Fatal(err)
			}
			if n := l.size.Load(); n != 2000 {
				t.Errorf("%d revocations", n)
			}
		})
	}
}

// TestExpiriesAreReadAfterwards loads what is revoked first, and takes down
// when it ends then: of keys of every type, and of such as have gone meanwhile.
func TestExpiriesAreReadAfterwards(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := serve(t)
	set := func(name string, ttl time.Duration) { s.Set(ctx, Key(JTI, "main", name), 1, ttl) }
	set("hour", time.Hour)
	set("ever", 0)
	set("lifted", time.Hour)
	set("deleted", time.Hour)
	s.HSet(ctx, Key(JTI, "main", "hash"), "a", "b")
	s.Expire(ctx, Key(JTI, "main", "hash"), time.Hour)
	l := newLedger()
	r := reader{ledger: l, limit: DefaultMaxEntries, node: connect(t, s.addr), keep: true, later: true}
	again := r
	again.keep, again.later = false, false
	nothing := func() error { return nil }
	if err := r.scan(ctx, nothing); err != nil {
		t.Fatal(err)
	}
	revoked := func(name string) bool { return l.revokes(withJTI(t, name), l.rows([]Kind{JTI})) == JTI }
	for _, name := range []string{"hour", "ever", "lifted", "deleted", "hash"} {
		if !revoked(name) {
			t.Errorf("%s: not revoked after the first reading", name)
		}
	}
	s.Del(ctx, Key(JTI, "main", "deleted"))
	s.Set(ctx, Key(JTI, "main", "lifted"), NotRevoked, time.Hour)
	if err := again.read(ctx, []string{Key(JTI, "main", "deleted"), Key(JTI, "main", "lifted")}); err != nil {
		t.Fatal(err)
	}
	if err := r.expiries(ctx, nothing); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]time.Duration{"hour": time.Hour, "deleted": lostTTL, "hash": time.Hour} {
		d := l.digest("main", name)
		m := l.tables[JTI.index()].shards[d.lo%shards].m[d]
		if left := time.Until(l.time(m.expires)); !revoked(name) || left > want || left < want-time.Minute {
			t.Errorf("%s: revoked %v for %s, want %s", name, revoked(name), left, want)
		}
	}
	d := l.digest("main", "ever")
	if m := l.tables[JTI.index()].shards[d.lo%shards].m[d]; m.expires != never {
		t.Errorf("ever: ends at %d", m.expires)
	}
	if revoked("lifted") {
		t.Error("lifted: revoked")
	}
}

func TestTooMany(t *testing.T) {
	s := serve(t)
	for n := range 20 {
		s.revoke(fmt.Sprint(n))
	}
	f := follow(t, Options{Client: connect(t, s.addr), MaxEntries: 10})
	if h := f.outOfStep(); h.Entries > 10 || !errors.As(h.Err, new(errFull)) || !h.Denies {
		t.Errorf("%+v", h)
	}
	for n := range 15 {
		s.do("DEL", Key(JTI, "main", fmt.Sprint(n)))
	}
	ok := loaded(t, Options{Client: connect(t, s.addr), MaxEntries: 10})
	for n := range 10 {
		s.revoke(fmt.Sprint("more", n))
	}
	if h := ok.outOfStep(); h.Entries != 10 || !errors.As(h.Err, new(errFull)) {
		t.Errorf("%+v", h)
	}
}

// TestNoGap writes all the time while replicas lose their connections, and
// compares what they know at the end with what stands in Redis.
func TestNoGap(t *testing.T) {
	both(t, func(t *testing.T, sync_ Sync) {
		s := serve(t)
		const names = 3000
		fill := s.Pipeline()
		for n := range 8 * names {
			fill.Set(t.Context(), Key(JTI, "main", fmt.Sprint("n", n)), "1", time.Hour)
		}
		if _, err := fill.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		hammering, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				for hammering.Err() == nil {
					p := s.Pipeline()
					for range 50 {
						p.Set(context.Background(), Key(JTI, "main", fmt.Sprint("n", rand.N(names))), []string{"1", NotRevoked}[rand.N(2)], time.Hour)
					}
					if _, err := p.Exec(context.Background()); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		f := replicaOf(t, s, sync_)
		late := replicaOf(t, s, sync_)
		for range 5 {
			loads := f.Health().Resyncs
			if sync_ == Poll {
				s.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
				break // the writers' connections end, too
			}
			for _, id := range append(s.connections("t"), s.connections("P")...) {
				_ = s.Do(t.Context(), "CLIENT", "KILL", "ID", id).Err() // may be gone already
			}
			eventually(t, "resynchronised under fire", func() bool { h := f.Health(); return h.InStep && h.Resyncs > loads })
		}
		stop()
		wg.Wait()
		for _, f := range []following{f, late} {
			f.inStep()
			f.fence(s.Client)
			for n := range 8 * names {
				name := fmt.Sprint("n", n)
				value, err := s.Get(t.Context(), Key(JTI, "main", name)).Result()
				if err != nil {
					t.Fatal(err)
				}
				if f.revoked(name) != (value != NotRevoked) {
					t.Fatalf("%s is %q in Redis, the copy says %v", name, value, f.revoked(name))
				}
			}
		}
	})
}

// A change of settings forgets nothing.
func TestFrom(t *testing.T) {
	s := serve(t)
	client := connect(t, s.addr)
	old := loaded(t, Options{Client: client, Database: "one"})
	s.revoke("a")
	old.sees("a")
	s.do("FLUSHALL")
	s.kill()
	good := old.outOfStep().LastGood

	from := old.Replica
	for range 3 { // however often it is replaced, by another client at last
		from = NewReplica(Options{Client: client, Database: "one", Check: []Kind{JTI}, From: from})
		client = connect(t, s.addr)
		if reasonOf(from.Check(t.Context(), withJTI(t, "a"))) != token.RevokedToken || reasonOf(from.Check(t.Context(), withJTI(t, "b"))) != "" {
			t.Error("the copy does not decide")
		}
		if h := from.Health(); !h.LastGood.Equal(good) || h.InStep {
			t.Errorf("good at %v became %v, in step %v, and nobody asked Redis", good, h.LastGood, h.InStep)
		}
	}
	late := NewReplica(Options{Client: client, Database: "one", Check: all, MaxStale: time.Millisecond, From: from})
	eventually(t, "max_stale counts from what was good before", func() bool {
		return reasonOf(late.Check(t.Context(), withJTI(t, "b"))) == token.StoreUnavailable
	})

	for _, database := range []string{"two", ""} {
		moved := NewReplica(Options{Client: connect(t, freeAddr(t)), Database: database, Check: all, From: from})
		back := NewReplica(Options{Client: client, Database: "one", Check: all, From: moved})
		nameless := NewReplica(Options{Client: client, Check: all, From: moved})
		for _, r := range []*Replica{moved, back, nameless} {
			if reasonOf(r.Check(t.Context(), withJTI(t, "a"))) != token.RevokedToken {
				t.Error("what was seen does not hold")
			}
			if reasonOf(r.Check(t.Context(), withJTI(t, "b"))) != token.StoreUnavailable || !r.Health().LastGood.IsZero() {
				t.Error("nobody has asked that Redis, but the copy decides")
			}
		}
	}
}

func TestChangesAreTold(t *testing.T) {
	s := serve(t)
	changes := make(chan Health, 100)
	f := loaded(t, Options{Client: connect(t, s.addr), OnChange: func(h Health) { changes <- h }})
	next := func(inStep bool) {
		t.Helper()
		for {
			select {
			case h := <-changes:
				if h.InStep == inStep {
					return
				}
			case <-t.Context().Done():
				t.Fatal("not told")
			}
		}
	}
	next(true)
	s.kill()
	next(false)
	s.start()
	next(true)
	f.Close()
	if f.Health().InStep {
		t.Error("in step after Close")
	}
}

// TestClose: nothing is left running, in whichever state it is closed.
func TestClose(t *testing.T) {
	s := serve(t)
	for n := range 3000 {
		s.revoke(fmt.Sprint(n))
	}
	dead := connect(t, freeAddr(t))
	client := connect(t, s.addr)
	for _, o := range []Options{{Client: client}, {Client: client, Sync: Poll}, {Client: dead}} {
		f := follow(t, o) // in the middle of the load
		f.Close()
		f = follow(t, o)
		if o.Client == client {
			f.inStep()
		} else {
			f.outOfStep()
		}
		f.Close()
		f.Close()
	}
	eventually(t, "no goroutine left", func() bool {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		n := strings.Count(string(stacks), "created by gatehouse/gateway/internal/revoke.(")
		return n == 0
	})
	eventually(t, "no connection left", func() bool { return len(s.connections("t"))+len(s.connections("P")) == 0 })
}

func TestUnknownClient(t *testing.T) {
	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": freeAddr(t)}})
	defer ring.Close()
	r := NewReplica(Options{Client: ring})
	defer r.Close()
	r.Start(t.Context())
	if h := r.Health(); h.Err == nil || !strings.Contains(h.Err.Error(), "Ring") || !h.Denies {
		t.Errorf("%+v", h)
	}
}

// A replica that became the master may not have heard of the last write to a
// key: what it has instead says less, and lifts nothing.
func TestOlderWritesLiftNothing(t *testing.T) {
	s := serve(t)
	f := replicaOf(t, s, Tracking)
	v := withJTI(t, "x")
	s.do("SET", Key(Subject, "main", "u1"), "1700000001", "EX", "600")
	eventually(t, "revoked", func() bool { return f.verdict(v) == token.RevokedToken })
	s.kill()
	f.outOfStep()
	s.start()
	s.do("SET", Key(Subject, "main", "u1"), "1600000001", "EX", "3") // as the new master has it
	f.inStep()
	f.fence(s.Client)
	if f.verdict(v) != token.RevokedToken {
		t.Error("an older revocation took the place of a newer one")
	}
	eventually(t, "the older one has expired", func() bool { return s.Exists(t.Context(), Key(Subject, "main", "u1")).Val() == 0 })
	if f.verdict(v) != token.RevokedToken {
		t.Error("it ends with an older one's expiry")
	}
	// A write that it hears of still says what it says.
	s.do("SET", Key(Subject, "main", "u1"), "1600000001", "EX", "600")
	eventually(t, "not revoked", func() bool { return f.verdict(v) == "" })
}
