package revoke

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/gateway/token"
)

func (l *ledger) revoke(kind Kind, name string, until int64, ttl time.Duration) bool {
	return l.set(kind, "main", name, mark{until, l.expiry(ttl)}, DefaultMaxEntries)
}

// TestLedger plays random writes against a plain map.
func TestLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		type entry struct {
			end    time.Time
			always bool
		}
		oracle := map[string]entry{}
		for range 20_000 {
			name := fmt.Sprint(rand.N(500))
			switch rand.N(10) {
			case 0:
				l.lift(JTI, "main", name)
				delete(oracle, name)
			case 1:
				l.sweep(rand.N(shards))
			case 2:
				time.Sleep(time.Duration(rand.N(50)) * time.Millisecond)
			case 3:
				l.revoke(JTI, name, everything, -1)
				oracle[name] = entry{always: true}
			default:
				ttl := time.Duration(rand.N(1000)) * time.Millisecond
				l.revoke(JTI, name, everything, ttl)
				oracle[name] = entry{end: time.Now().Add(ttl)}
			}
			name = fmt.Sprint(rand.N(500))
			e, ok := oracle[name]
			want := ok && (e.always || time.Now().Before(e.end))
			if got := l.revokes(withJTI(t, name), l.rows([]Kind{JTI})) == JTI; got != want {
				t.Fatalf("%s: %v, want %v", name, got, want)
			}
		}
		for n := range shards {
			l.sweep(n)
		}
		alive := 0
		for _, e := range oracle {
			if e.always || time.Now().Before(e.end) {
				alive++
			}
		}
		if got := int(l.size.Load()); got != alive || got != int(l.tables[JTI.index()].size.Load()) {
			t.Errorf("%d entries, want %d", got, alive)
		}
	})
}

// TestUnreadExpiries has entries that were found before their expiry was read:
// they hold, and end neither sooner nor for ever later than is known.
func TestUnreadExpiries(t *testing.T) {
	const short, long = 10 * time.Minute, time.Hour
	for _, c := range []struct {
		name string
		do   func(l *ledger, found func())
		ends time.Duration // 0: never
	}{
		{"nothing more is known", func(_ *ledger, found func()) { found() }, 0},
		{"it is read", func(l *ledger, found func()) { found(); l.ends(JTI, "main", "x", l.expiry(short)) }, short},
		{"there is none", func(l *ledger, found func()) { found(); l.ends(JTI, "main", "x", l.expiry(-1)) }, 0},
		{"the key has gone", func(l *ledger, found func()) { found(); l.settle() }, lostTTL},
		{"the key has gone that was seen before", func(l *ledger, found func()) {
			l.revoke(JTI, "x", everything, short)
			found()
			l.settle()
		}, short},
		{"the key has gone that had none", func(l *ledger, found func()) {
			l.revoke(JTI, "x", everything, -1)
			found()
			l.settle()
		}, 0},
		{"less is read than was seen before", func(l *ledger, found func()) {
			l.revoke(JTI, "x", everything, long)
			found()
			l.ends(JTI, "main", "x", l.expiry(short))
		}, long},
		{"more is read than was seen before", func(l *ledger, found func()) {
			l.revoke(JTI, "x", everything, short)
			found()
			l.ends(JTI, "main", "x", l.expiry(long))
		}, long},
		{"it is found twice", func(l *ledger, found func()) {
			l.revoke(JTI, "x", everything, short)
			found()
			found()
			l.settle()
		}, short},
		{"it is written anew", func(l *ledger, found func()) { found(); l.revoke(JTI, "x", everything, short); l.settle() }, short},
		{"another copy takes it for gone before it is read", func(l *ledger, found func()) {
			found()
			l.settle()
			l.ends(JTI, "main", "x", l.expiry(-1))
		}, 0},
		{"what was seen before has ended meanwhile", func(l *ledger, found func()) {
			l.revoke(JTI, "x", everything, time.Second)
			time.Sleep(2 * time.Second)
			found()
			l.ends(JTI, "main", "x", l.expiry(short))
		}, short},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLedger()
				c.do(l, func() { l.put(JTI, "main", "x", mark{everything, unread}, DefaultMaxEntries, true) })
				revoked := func() bool {
					for n := range shards {
						l.sweep(n)
					}
					return l.revokes(withJTI(t, "x"), l.rows([]Kind{JTI})) == JTI
				}
				if !revoked() {
					t.Fatal("not revoked")
				}
				if c.ends == 0 {
					time.Sleep(10 * 365 * 24 * time.Hour)
					if !revoked() {
						t.Error("it has ended")
					}
					return
				}
				time.Sleep(c.ends - time.Millisecond)
				if !revoked() {
					t.Error("ends too early")
				}
				time.Sleep(2 * time.Millisecond)
				if revoked() || l.size.Load() != 0 {
					t.Error("ends too late")
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.put(JTI, "main", "x", mark{everything, unread}, DefaultMaxEntries, true)
		l.lift(JTI, "main", "x")
		l.ends(JTI, "main", "x", never)
		if l.size.Load() != 0 {
			t.Error("an expiry brought back what was lifted")
		}
	})
}

func TestLedgerKeepsKindsAndIssuersApart(t *testing.T) {
	l := newLedger()
	l.revoke(SID, "a", everything, -1)
	l.set(JTI, "other", "a", mark{everything, never}, 10)
	l.set(JTI, "main:", "a", mark{everything, never}, 10)
	if kind := l.revokes(withJTI(t, "a"), l.rows(kinds[:])); kind != "" {
		t.Errorf("revoked by %s", kind)
	}
	l.revoke(JTI, "a", everything, -1)
	if kind := l.revokes(withJTI(t, "a"), l.rows(kinds[:])); kind != JTI {
		t.Errorf("revoked by %q", kind)
	}
	long := strings.Repeat("x", 5000)
	l.revoke(JTI, long, everything, -1)
	if l.revokes(withJTI(t, long), l.rows(kinds[:])) != JTI || l.revokes(withJTI(t, long[1:]), l.rows(kinds[:])) != "" {
		t.Error("a long name")
	}
}

func TestLedgerLimit(t *testing.T) {
	l := newLedger()
	for n := range 10 {
		if !l.set(JTI, "main", fmt.Sprint(n), mark{everything, never}, 10) {
			t.Fatal(n)
		}
	}
	if l.set(JTI, "main", "10", mark{everything, never}, 10) {
		t.Error("one too many")
	}
	if !l.set(JTI, "main", "3", mark{everything, 0}, 10) {
		t.Error("a change is no growth")
	}
	for n := range shards {
		l.sweep(n)
	}
	if !l.set(JTI, "main", "10", mark{everything, never}, 10) {
		t.Error("what expired still counts")
	}
}

// TestBytesPerEntry fills maps to where they are best and worst filled.
func TestBytesPerEntry(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for _, n := range []int{50_000, 60_000, 70_000, 80_000, 100_000, 300_000} {
		before := heap()
		l := newLedger()
		for i := range n {
			l.revoke(JTI, fmt.Sprint("0123456789abcdef-", i), everything, time.Hour)
		}
		perEntry := float64(heap()-before) / float64(n)
		t.Logf("%d entries: %.1f bytes each", n, perEntry)
		if perEntry > 100 {
			t.Errorf("%d entries: %.1f bytes each", n, perEntry)
		}
		// What has expired is given back, not only forgotten.
		for i := range l.tables[JTI.index()].shards {
			for d := range l.tables[JTI.index()].shards[i].m {
				l.tables[JTI.index()].shards[i].m[d] = mark{everything, 0}
			}
			l.sweep(i)
		}
		if left := int64(heap()) - int64(before); left > int64(n) {
			t.Errorf("%d bytes left of %d expired entries", left, n)
		}
		runtime.KeepAlive(l)
	}
}

func TestCheckAllocatesNothing(t *testing.T) {
	r := NewReplica(Options{Check: all})
	r.inStep.Store(true)
	for _, kind := range kinds {
		r.ledger.revoke(kind, "somebody else", everything, time.Hour)
	}
	v := fullToken(t)
	if n := testing.AllocsPerRun(100, func() {
		if r.Check(t.Context(), v) != nil {
			t.Fatal("revoked")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func fullToken(t testing.TB) *token.Verified {
	c, err := token.ParseClaims([]byte(`{"iss":"https://id.example.com","sub":"f7b3a1c2-0000-4000-8000-0123456789ab","aud":"x","exp":1800000000,"iat":1700000000,"jti":"01234567-89ab-4def-8000-0123456789ab","client_id":"frontend","sid":"76543210-89ab-4def-8000-0123456789ab"}`))
	if err != nil {
		t.Fatal(err)
	}
	return &token.Verified{Issuer: "main", Claims: c, Key: "2026-05", Hash: "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU", IssuedAt: 1700000000, HasIssuedAt: true}
}

func TestParseKey(t *testing.T) {
	for key, want := range map[string]string{
		"revoked:jti:main:a:b":  "jti main a:b",
		"revoked:client_id:m:":  "client_id m ",
		"revoked:jti::x":        "jti  x",
		"revoked:jti:main":      "",
		"revoked:jti":           "",
		"revoked:":              "",
		"revoked:JTI:main:x":    "",
		"revoked:what:main:x":   "",
		"Revoked:jti:main:x":    "",
		"xrevoked:jti:main:x":   "",
		"revoked::jti:main:x":   "",
		"revoked:sub:main:\x00": "sub main \x00",
	} {
		kind, issuer, value, ok := parseKey(key)
		got := ""
		if ok {
			got = fmt.Sprintf("%s %s %s", kind, issuer, value)
		}
		if got != want {
			t.Errorf("%q: %q, want %q", key, got, want)
		}
	}
}

// FuzzParseKey: a key that is understood is the one that Key makes.
func FuzzParseKey(f *testing.F) {
	f.Add("revoked:jti:main:a:b")
	f.Add("revoked:sub::")
	f.Add("revoked:")
	f.Fuzz(func(t *testing.T, key string) {
		if kind, issuer, value, ok := parseKey(key); ok && Key(kind, issuer, value) != key {
			t.Errorf("%q", key)
		}
	})
}

func TestPending(t *testing.T) {
	p := newPending()
	if err := p.add([]string{"a", "b", "a"}); err != nil {
		t.Fatal(err)
	}
	p.pong(7)
	<-p.wake
	if keys, good := p.take(); len(keys) != 2 || good != 7 {
		t.Error(keys, good)
	}
	if keys, good := p.take(); len(keys) != 0 || good != 0 {
		t.Error("told twice", keys, good)
	}
	many := make([]string, maxPending+1)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	if p.add(many) == nil {
		t.Error("what waits has no bound")
	}
}
