package limit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"
)

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }

// backend is a place where buckets can be.
type backend struct {
	t     *testing.T
	c     *clock
	age   func(time.Duration) // of what is not in this process
	store *Store
	lease int
}

func (b *backend) limiter(o Options) *Limiter {
	o.Now, o.Store, o.Lease = b.c.Now, b.store, b.lease
	return limiter(b.t, o)
}

func (b *backend) advance(d time.Duration) {
	b.c.Advance(d)
	b.age(d)
}

// take wants the request to be admitted.
func (b *backend) take(s Subject, ls ...*Limiter) Decision {
	b.t.Helper()
	d, err := Take(context.Background(), ls, s)
	if err != nil {
		b.t.Fatalf("refused: %v", err)
	}
	return d
}

func (b *backend) refused(s Subject, ls ...*Limiter) *Refused {
	b.t.Helper()
	_, err := Take(context.Background(), ls, s)
	return refused(b.t, err)
}

// TestEveryBackend tells the same stories wherever the buckets are. Redis's
// clock is a real one, so rates are of hours: what a test takes is nothing.
func TestEveryBackend(t *testing.T) {
	r := startRedis(t)
	client := r.client(t)
	for _, place := range []struct {
		name   string
		shared bool
		lease  int
	}{{"local", false, 0}, {"shared", true, 0}, {"leased", true, 2}} {
		for _, story := range stories {
			t.Run(place.name+"/"+story.name, func(t *testing.T) {
				b := &backend{t: t, c: newClock(), age: func(time.Duration) {}, lease: place.lease}
				if place.shared {
					client.FlushAll(t.Context())
					b.store = r.gateway(t, StoreOptions{Client: client, OnFallback: func(_ string, _ OnError, err error) { t.Error(err) }})
					b.age = func(d time.Duration) { r.age(t, client, d) }
				}
				story.tell(b)
			})
		}
	}
}

// near allows what a second of Redis's own time makes of a wait.
func near(got, want time.Duration) bool { return got <= want && got > want-patient }

var stories = []struct {
	name string
	tell func(*backend)
}{
	{"burst then rate", func(b *backend) {
		l := b.limiter(Options{Rate: Rate{100, 100 * time.Hour}, Burst: 20})
		if n := admitted(50, caller(1), l); n != 20 {
			b.t.Errorf("burst: %d of 50 admitted, want 20", n)
		}
		if n := admitted(1, caller(2), l); n != 1 {
			b.t.Error("another caller was refused")
		}
		b.advance(10*time.Hour + time.Minute)
		if n := admitted(50, caller(1), l); n != 10 {
			b.t.Errorf("after 10 h: %d admitted, want 10", n)
		}
		b.advance(1000 * time.Hour)
		if n := admitted(50, caller(1), l); n != 20 {
			b.t.Errorf("after 1000 h: %d admitted, want the burst of 20", n)
		}
	}},
	{"retry after", func(b *backend) {
		l := b.limiter(Options{Rate: Rate{1, time.Hour}, Burst: 2})
		admitted(2, caller(1), l)
		e := b.refused(caller(1), l)
		if !near(e.RetryAfter, time.Hour) || e.Limit != "test" || e.Remaining != 0 || e.Quota != 1 || e.Window != time.Hour || e.Reduced || e.Problem() != QuotaExceeded {
			b.t.Errorf("%+v", e)
		}
		b.advance(e.RetryAfter - patient)
		_ = b.refused(caller(1), l)
		b.advance(patient)
		b.take(caller(1), l)
	}},
	{"against the oracle", func(b *backend) {
		rnd := newRand(1)
		l := b.limiter(Options{Rate: Rate{1, time.Hour}, Burst: 5, Costs: map[string]int{"POST": 2}})
		tokens := 5.0
		for range 150 {
			d := time.Duration(rnd.IntN(8)) * 15 * time.Minute
			if b.lease > 0 {
				d *= 8 * leaseFills // beyond the lease's end, so that no token is held back
			}
			b.advance(d)
			tokens = min(5, tokens+d.Hours())
			s, cost := caller(1), 1.0
			if rnd.IntN(3) == 0 {
				s.Method, cost = "POST", 2
			}
			decision, err := Take(context.Background(), []*Limiter{l}, s)
			if (err == nil) != (tokens >= cost) {
				b.t.Fatalf("%v with %v tokens for %v", err, tokens, cost)
			}
			if err == nil {
				tokens -= cost
				if b.lease == 0 && decision.Remaining != int(tokens) {
					b.t.Fatalf("%+v, want %v left", decision, tokens)
				}
			}
		}
	}},
	{"a look says what a request would be told, and takes nothing", func(b *backend) {
		rnd := newRand(3)
		ls := []*Limiter{
			b.limiter(Options{Name: "five", Rate: Rate{1, time.Hour}, Burst: 5, Costs: map[string]int{"POST": 2}}),
			b.limiter(Options{Name: "three", Rate: Rate{1, time.Hour}, Burst: 3, Mode: Report}),
		}
		for range 60 {
			b.advance(time.Duration(rnd.IntN(4)) * 15 * time.Minute)
			s := caller(1 + rnd.IntN(2))
			if rnd.IntN(3) == 0 {
				s.Method = "POST"
			}
			_, _, _ = Peek(b.t.Context(), ls, s)
			states, seen, refusal := Peek(b.t.Context(), ls, s)
			told, err := Take(b.t.Context(), ls, s)
			if (err == nil) != (refusal == nil) || len(states) != 2 || err == nil && (seen.Remaining != told.Remaining || seen.Limit != told.Limit) {
				b.t.Fatalf("a look: %+v, %v; a request: %+v, %v", seen, refusal, told, err)
			}
			if (states[0].Wait == 0) != (err == nil) {
				b.t.Fatalf("%+v, %v", states, err)
			}
		}
	}},
	{"what is left", func(b *backend) {
		l := b.limiter(Options{Rate: Rate{1, time.Hour}, Burst: 3})
		for left := 2; left >= 0; left-- {
			d := b.take(caller(1), l)
			if d.Limit != "test" || d.Remaining != left || d.Reset <= 0 || d.Reset > time.Hour {
				b.t.Errorf("%+v, want %d left and more within an hour", d, left)
			}
			if limit, policy := d.Headers(); policy != `"test";q=1;w=3600` || limit != fmt.Sprintf(`"test";r=%d;t=%d`, left, ceilSeconds(d.Reset)) {
				b.t.Errorf("%s and %s", limit, policy)
			}
		}
	}},
	{"cost", func(b *backend) {
		l := b.limiter(Options{Rate: Rate{1, time.Hour}, Burst: 10, Cost: 2, Costs: map[string]int{"POST": 5, "GET": 3, "OPTIONS": 0}})
		s := caller(1)
		s.Method = "POST"
		if d := b.take(s, l); d.Remaining != 5 {
			b.t.Errorf("after a POST %+v", d)
		}
		s.Method = "HEAD" // does the work of a GET
		if d := b.take(s, l); d.Remaining != 2 {
			b.t.Errorf("after a HEAD %+v", d)
		}
		s.Method = "POST"
		if e := b.refused(s, l); !near(e.RetryAfter, 3*time.Hour) {
			b.t.Errorf("%+v", e)
		}
		s.Method = "BREW"
		if d := b.take(s, l); d.Remaining != 0 {
			b.t.Errorf("after another method %+v", d)
		}
		_ = b.refused(s, l)
		s.Method = "OPTIONS"
		if d := b.take(s, l); d != (Decision{}) {
			b.t.Errorf("a free request: %+v", d)
		}
		s = caller(2)
		s.Method, s.Overrides = "OPTIONS", []string{"GET", "POST", "BREW"}
		if d := b.take(s, l); d.Remaining != 5 {
			b.t.Errorf("after a free request that may be taken for a POST %+v", d)
		}
		s.Method, s.Overrides = "POST", []string{"OPTIONS"}
		if d := b.take(s, l); d.Remaining != 0 {
			b.t.Errorf("after a POST that may be taken for a free request %+v", d)
		}
	}},
	{"tiers", func(b *backend) {
		l := b.limiter(Options{
			Keys: []string{"claim:sub"}, Rate: Rate{2, 24 * time.Hour}, TierBy: "claim:plan",
			Tiers: map[string]Tier{"gold": {Rate: Rate{6, time.Hour}}, "7": {Rate: Rate{4, time.Hour}}},
		})
		for _, test := range []struct {
			claims string
			want   int
			policy string
		}{
			{`{"sub":"a","plan":"gold"}`, 6, `"test";q=6;w=3600`},
			{`{"sub":"b","plan":7}`, 4, `"test";q=4;w=3600`},
			{`{"sub":"c","plan":"platinum"}`, 2, `"test";q=2;w=86400`},
			{`{"sub":"d","plan":["gold"]}`, 2, `"test";q=2;w=86400`},
			{`{"sub":"e"}`, 2, `"test";q=2;w=86400`},
		} {
			s := claims(b.t, "main", test.claims)
			if n := admitted(10, s, l); n != test.want {
				b.t.Errorf("%s: %d admitted, want %d", test.claims, n, test.want)
			}
			if _, policy, _ := b.refused(s, l).Headers(); policy != test.policy {
				b.t.Errorf("%s: %s", test.claims, policy)
			}
		}
		s := caller(1) // a token that is not verified chooses nothing
		s.Header = http.Header{"Authorization": {"Bearer gold"}, "Plan": {"gold"}}
		if n := admitted(10, s, l); n != 2 {
			b.t.Errorf("without a token %d admitted, want 2", n)
		}
	}},
	{"several limits", func(b *backend) {
		wide := b.limiter(Options{Name: "wide", Rate: Rate{10, 10 * time.Hour}})
		tight := b.limiter(Options{Name: "tight", Rate: Rate{3, 24 * time.Hour}})
		route := b.limiter(Options{Name: "route", Keys: []string{"route"}, Rate: Rate{100, time.Hour}})
		if d := b.take(caller(1), wide, route, tight); d.Limit != "tight" || d.Remaining != 2 {
			b.t.Errorf("the tightest is %+v", d)
		}
		if n := admitted(9, caller(1), tight, wide, route); n != 2 {
			b.t.Errorf("%d admitted, want the 2 that the tight limit has left", n)
		}
		if n := admitted(20, caller(1), wide); n != 7 {
			b.t.Errorf("the wide limit had %d left, want 7: a refused request was charged", n)
		}
		for _, ls := range [][]*Limiter{{wide, tight}, {tight, wide}} {
			if e := b.refused(caller(1), ls...); e.Limit != "tight" || len(e.Violated) != 2 || !near(e.RetryAfter, 8*time.Hour) {
				b.t.Errorf("%+v", e)
			}
		}
		if s := tight.Stats(); s.Admitted != 3 || s.Refused != 9 || s.Reported != 0 || s.Fallbacks != 0 {
			b.t.Errorf("%+v", s)
		}
	}},
	{"local beside", func(b *backend) {
		here := limiter(b.t, Options{Name: "here", Rate: Rate{3, time.Hour}, Now: b.c.Now})
		there := b.limiter(Options{Name: "there", Rate: Rate{2, time.Hour}})
		if n := admitted(5, caller(1), here, there); n != 2 {
			b.t.Errorf("%d admitted, want 2", n)
		}
		if n := admitted(5, caller(1), here); n != 1 {
			b.t.Errorf("the local limit had %d left, want 1: it was charged although the other refused", n)
		}
		other := b.limiter(Options{Name: "other", Rate: Rate{4, time.Hour}})
		if n := admitted(5, caller(1), other, here); n != 0 {
			b.t.Errorf("%d admitted past the local limit", n)
		}
		if n := admitted(9, caller(1), other); n != 4 {
			b.t.Errorf("%d left, want 4: it was charged although the local limit refused", n)
		}
	}},
	{"report", func(b *backend) {
		watched := b.limiter(Options{Name: "watched", Rate: Rate{2, time.Hour}, Mode: Report})
		real := b.limiter(Options{Name: "real", Rate: Rate{5, time.Hour}})
		if n := admitted(10, caller(1), watched, real); n != 5 {
			b.t.Errorf("%d admitted, want the 5 of the limit that is enforced", n)
		}
		if s := watched.Stats(); s.Admitted != 2 || s.Reported < 3 || s.Refused != 0 {
			b.t.Errorf("%+v", s)
		}
		if d := b.take(caller(2), watched, real); d.Limit != "real" {
			b.t.Errorf("callers see %+v", d)
		}
		if e := b.refused(caller(1), watched, real); e.Limit != "real" || len(e.Violated) != 1 {
			b.t.Errorf("callers see %+v", e)
		}
		if d := b.take(caller(3), watched); d != (Decision{}) {
			b.t.Errorf("callers see %+v", d)
		}
		// A limit without a mode of its own has that of its subject.
		inherits, enforced, c := b.limiter(Options{Name: "inherits", Rate: Rate{2, time.Hour}}), b.limiter(Options{Name: "enforced", Rate: Rate{4, time.Hour}, Mode: Enforce}), caller(4)
		c.Report = true
		if n := admitted(3, c, inherits, enforced); n != 3 {
			b.t.Errorf("%d admitted", n)
		}
		var told *Refused
		if d := b.take(c, inherits, enforced); !errors.As(d.Reported, &told) || told.Limit != "inherits" || d.Limit != "enforced" {
			b.t.Errorf("%+v", d)
		}
		if e := b.refused(c, inherits, enforced); e.Limit != "enforced" {
			b.t.Errorf("%+v", e)
		}
		if e := b.refused(caller(4), inherits); e.Limit != "inherits" {
			b.t.Errorf("%+v", e)
		}
	}},
}
