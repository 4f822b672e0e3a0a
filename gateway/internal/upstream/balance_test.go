package upstream

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestRoundRobin(t *testing.T) {
	for _, c := range []struct {
		weights []int
		want    string // one round and the beginning of the next
	}{
		{[]int{1}, "a a a"},
		{[]int{7}, "a a a"},
		{[]int{1, 1, 1}, "a c b a c b"},
		{[]int{4, 4}, "a b a b"},
		{[]int{5, 1, 1}, "a a c a a b a a a c"}, // nginx has a a b a c a a
	} {
		p := newPool(t, Options{Targets: targetsOf(c.weights...)})
		var order []string
		for range strings.Fields(c.want) {
			order = append(order, p.pick("").name)
		}
		if got := strings.Join(order, " "); got != c.want {
			t.Errorf("%v: %s, want %s", c.weights, got, c.want)
		}
	}
}

// Within a round each target gets exactly its weight, and at no moment is it
// further from its share than a few turns.
func TestRoundRobinIsSmooth(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		weights := make([]int, 1+random.IntN(20))
		total := 0
		for i := range weights {
			weights[i] = 1 + random.IntN(50)
			total += weights[i]
		}
		p := newPool(t, Options{Targets: targetsOf(weights...)})
		got := map[string]int{}
		for n := 1; n <= 2*total; n++ {
			got[p.pick("").name]++
			for i, w := range weights {
				if off := float64(got[string(rune('a'+i))]) - float64(n*w)/float64(total); off < -2 || off > 2 {
					t.Fatalf("%v: after %d picks target %d is %.1f turns from its share", weights, n, i, off)
				}
			}
		}
		for i, w := range weights {
			if n := got[string(rune('a'+i))]; n != 2*w {
				t.Fatalf("%v: target %d got %d in two rounds", weights, i, n)
			}
		}
	}
}

// However large weights are, a round stays small, and nobody is forgotten.
func TestRoundIsBounded(t *testing.T) {
	p := newPool(t, Options{Targets: targetsOf(65535, 65534, 1)})
	turns := p.view.Load().turns
	if len(turns) > maxTurns+3 {
		t.Errorf("%d turns", len(turns))
	}
	got := p.picks(len(turns), nil)
	if got["c"] != 1 || got["a"]-got["b"] > 1 || got["b"]-got["a"] > 1 {
		t.Errorf("a round: %v", got)
	}
}

func fixed(p *Pool) *Pool {
	p.random = rand.New(rand.NewPCG(3, 4)).Uint64
	return p
}

// Idle targets share by weight (chi-square, 2 degrees of freedom: 13.8 is
// exceeded once in a thousand seeds; the seed is fixed).
func TestLeastRequestsOfIdleTargets(t *testing.T) {
	p := fixed(newPool(t, Options{Targets: targetsOf(1, 2, 5), Balance: LeastRequests}))
	const n = 80_000
	got := p.picks(n, nil)
	chi := 0.0
	for name, w := range map[string]float64{"a": 1, "b": 2, "c": 5} {
		want := n * w / 8
		chi += (float64(got[name]) - want) * (float64(got[name]) - want) / want
	}
	if chi > 13.8 {
		t.Errorf("%v, chi-square %.1f", got, chi)
	}
}

func TestLeastRequestsAvoidsTheBusy(t *testing.T) {
	p := fixed(newPool(t, Options{Targets: targetsOf(1, 1), Balance: LeastRequests}))
	p.target(t, "a").inFlight.Store(5)
	if got := p.picks(1000, nil); got["a"] != 0 {
		t.Errorf("of two the busier was taken: %v", got)
	}
	p = fixed(newPool(t, Options{Targets: targetsOf(1, 1, 1, 1), Balance: LeastRequests}))
	p.target(t, "a").inFlight.Store(5)
	if got := p.picks(12_000, nil); got["a"] != 0 || got["b"] < 3600 || got["c"] < 3600 || got["d"] < 3600 {
		t.Errorf("of four: %v", got)
	}
	p = fixed(newPool(t, Options{Targets: targetsOf(3, 1), Balance: LeastRequests}))
	p.target(t, "a").inFlight.Store(5)
	p.target(t, "b").inFlight.Store(2)
	if got := p.picks(1000, nil); got["b"] != 0 {
		t.Errorf("five requests of weight 3 are fewer than two of weight 1: %v", got)
	}
}

// As requests begin and end at random, least requests keeps the load of slow
// targets bounded where round robin lets it grow.
func TestLeastRequestsUnderLoad(t *testing.T) {
	worst := map[Balance]int64{}
	for _, balance := range []Balance{RoundRobin, LeastRequests} {
		p := fixed(newPool(t, Options{Targets: targetsOf(1, 1, 1, 1), Balance: balance}))
		random := rand.New(rand.NewPCG(5, 6))
		for range 20_000 {
			p.pick("").inFlight.Add(1)
			for i, target := range p.targets {
				speed := 0.4 // requests a step
				if i == 0 {
					speed = 0.1
				}
				if target.inFlight.Load() > 0 && random.Float64() < speed {
					target.inFlight.Add(-1)
				}
			}
		}
		worst[balance] = p.targets[0].inFlight.Load()
	}
	if worst[LeastRequests] > 50 || worst[RoundRobin] < 1000 {
		t.Errorf("in flight at the slow one at the end: %v", worst)
	}
}

// What comes or returns gets a tenth of its share first, and the whole of it
// when slow_start is over.
func TestSlowStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, Options{Targets: targetsOf(1, 1), SlowStart: 20 * time.Second, Outliers: &Outliers{ConsecutiveGatewayFailure: 1, BaseEjectionTime: time.Minute, MaxEjectionTime: time.Minute, MaxEjectionPercent: 50}})
		if got := p.picks(100, nil); got["a"] != 50 {
			t.Errorf("those that were there at the start: %v", got)
		}
		p.set(targetsOf(1, 1, 1))
		share := func(name string, want float64) {
			t.Helper()
			synctest.Wait()
			got := p.picks(10_000, nil)
			if part := float64(got[name]) / float64(got["a"]); part < want-.01 || part > want+.01 {
				t.Errorf("%s gets %.3f of what a gets, want %.3f", name, part, want)
			}
		}
		share("c", .1)
		time.Sleep(5 * time.Second)
		share("c", .25)
		share("b", 1)
		time.Sleep(5 * time.Second)
		share("c", .5)
		p.set(targetsOf(1, 1, 1)) // nothing new
		share("c", .5)
		time.Sleep(10 * time.Second)
		share("c", 1)

		p.serves(p.target(t, "b"), 1, refusedUs)
		share("b", 0)
		time.Sleep(time.Minute)
		share("b", .1)
		time.Sleep(10 * time.Second)
		share("b", .5)
		time.Sleep(10 * time.Second)
		share("b", 1)
		if p.timer != nil {
			t.Error("a timer runs where time changes nothing")
		}
		p.Close()
	})
}

// Those that stay keep what is known of them; a weight may change.
func TestSetKeepsWhatStays(t *testing.T) {
	p := newPool(t, Options{Targets: targetsOf(1, 1)})
	a := p.target(t, "a")
	p.serves(a, 3, succeeded)
	p.set([]Target{named("c", 1), named("a", 3), named("a", 3)})
	if p.target(t, "a") != a || p.Status()[1].Requests["success"] != 3 {
		t.Error("a is another than before")
	}
	if got := p.picks(40, nil); !maps.Equal(got, map[string]int{"a": 30, "c": 10}) {
		t.Errorf("%v", got)
	}
	p.set([]Target{})
	if got := p.picks(1, nil); got["nobody"] != 1 {
		t.Errorf("without targets: %v", got)
	}
	if err := p.none(); err.Error() != "heroes has no targets" {
		t.Error(err)
	}
}

// Labels of metrics must differ.
func TestNamesDiffer(t *testing.T) {
	p := newPool(t, Options{})
	at := func(scheme, host, path, dial string) Target {
		u := named(host, 1)
		u.URL.Scheme, u.URL.Path, u.Dial = scheme, path, dial
		return u
	}
	p.set([]Target{
		at("http", "h:80", "", ""), at("https", "h:80", "", ""), at("http", "h", "/base/", ""), at("https", "h", "", ""),
		at("http", "x", "", "10.0.0.1:80"), at("http", "y", "", "10.0.0.1:80"), at("http", "localhost", "", "unix:/run/app.sock"),
	})
	want := "h:80 unknown, https://h:80 unknown, h:80/base unknown, h:443 unknown, 10.0.0.1:80 unknown, http://y at 10.0.0.1:80 unknown, unix:/run/app.sock unknown"
	if got := p.states(); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

func BenchmarkPick(b *testing.B) {
	for _, n := range []int{1, 10, 1000} {
		for _, balance := range []Balance{RoundRobin, LeastRequests, Hash} {
			b.Run(fmt.Sprintf("%s/%d", balance, n), func(b *testing.B) {
				list := make([]Target, n)
				for i := range list {
					list[i] = named(fmt.Sprintf("10.0.%d.%d:80", i/256, i%256), 1+i%3)
				}
				p := newPool(b, Options{Targets: list, Balance: balance})
				b.ReportAllocs()
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if p.pick("alice@example.com") == nil {
							b.Fail()
						}
					}
				})
			})
		}
	}
}

// BenchmarkRenew is what a change of one target costs.
func BenchmarkRenew(b *testing.B) {
	for _, balance := range []Balance{RoundRobin, Hash} {
		b.Run(string(balance), func(b *testing.B) {
			list := make([]Target, 1000)
			for i := range list {
				list[i] = named(fmt.Sprintf("10.0.%d.%d:80", i/256, i%256), 1+i%3)
			}
			p := newPool(b, Options{Targets: list, Balance: balance})
			p.targets[5].health = unhealthy
			for b.Loop() {
				p.renew(time.Now())
			}
		})
	}
}
