package upstream

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"
)

const keys = 20_000

func userKey(i int) string { return "user-" + strconv.Itoa(i) }

// owners says whom each key belongs to.
func (p *Pool) owners() []string {
	list := make([]string, keys)
	for i := range list {
		list[i] = p.pick(userKey(i)).name
	}
	return list
}

func ten(weight func(int) int) []Target {
	var list []Target
	for i := range 10 {
		list = append(list, named(fmt.Sprintf("10.0.0.%d:80", i), weight(i)))
	}
	return list
}

func one(int) int { return 1 }

// Keys are shared by weight, within what 160 points of each unit leave to chance.
func TestHashShares(t *testing.T) {
	for name, weight := range map[string]func(int) int{"equal": one, "unequal": func(i int) int { return 1 + i%3 }} {
		p := newPool(t, Options{Targets: ten(weight), Balance: Hash})
		counts, total := map[string]int{}, 0
		for _, owner := range p.owners() {
			counts[owner]++
		}
		for i := range 10 {
			total += weight(i)
		}
		for i := range 10 {
			want := float64(keys*weight(i)) / float64(total)
			if got := float64(counts[fmt.Sprintf("10.0.0.%d:80", i)]); got < .7*want || got > 1.3*want {
				t.Errorf("%s: target %d has %.0f keys of %.0f", name, i, got, want)
			}
		}
	}
}

// When a target goes, is ejected or unhealthy, only its own keys move; when one
// comes, keys move to it alone; when it comes back, all is as before. The order
// of the source means nothing.
func TestHashMovesNoMoreThanItsShare(t *testing.T) {
	all := ten(func(i int) int { return 1 + i%3 })
	outliers := &Outliers{ConsecutiveGatewayFailure: 1, BaseEjectionTime: time.Hour, MaxEjectionTime: time.Hour, MaxEjectionPercent: 50}
	p := newPool(t, Options{Targets: all, Balance: Hash, Outliers: outliers, Health: &Health{Healthy: 1, Unhealthy: 1, Interval: time.Hour}})
	before := p.owners()
	gone := all[3].Dial
	onlyFrom := func(how string) {
		t.Helper()
		for i, owner := range p.owners() {
			if was := before[i]; owner == gone || was != gone && owner != was {
				t.Fatalf("%s: %s moved from %s to %s", how, userKey(i), was, owner)
			}
		}
	}
	same := func(how string) {
		t.Helper()
		if !slices.Equal(p.owners(), before) {
			t.Fatalf("%s: the keys are not where they were", how)
		}
	}
	p.set(slices.Delete(slices.Clone(all), 3, 4))
	onlyFrom("gone")
	back := slices.Clone(all)
	rand.New(rand.NewPCG(7, 8)).Shuffle(len(back), func(i, j int) { back[i], back[j] = back[j], back[i] })
	p.set(back)
	p.found(p.target(t, gone), nil)
	same("back")
	p.found(p.target(t, gone), fmt.Errorf("status 500"))
	onlyFrom("unhealthy")
	p.found(p.target(t, gone), nil)
	same("healthy")
	p.serves(p.target(t, gone), 1, timedOut)
	onlyFrom("ejected")

	more := newPool(t, Options{Targets: append(slices.Clone(all), named("10.0.0.99:80", 1)), Balance: Hash})
	moved := 0
	for i, owner := range more.owners() {
		if owner != before[i] {
			moved++
			if owner != "10.0.0.99:80" {
				t.Fatalf("one came, and %s moved from %s to %s", userKey(i), before[i], owner)
			}
		}
	}
	if share := float64(keys) / 20; float64(moved) > 1.3*share { // 19 units of weight were there
		t.Errorf("%d keys moved, more than its share of %.0f", moved, share)
	}
}

// Every gateway, and every version of it, gives a key to the same target.
func TestHashIsStable(t *testing.T) {
	p := newPool(t, Options{Targets: ten(one), Balance: Hash})
	for key, want := range map[string]string{"alice": "10.0.0.0:80", "bob": "10.0.0.9:80", "4711": "10.0.0.0:80"} {
		if got := p.pick(key).name; got != want {
			t.Errorf("%s belongs to %s, want %s", key, got, want)
		}
	}
}

func TestWithoutHashKeyInTurn(t *testing.T) {
	p := newPool(t, Options{Targets: ten(one), Balance: Hash})
	got := p.picks(100, nil)
	for name, n := range got {
		if n != 10 {
			t.Errorf("%s got %d of 100", name, n)
		}
	}
}

// A thousand heavy targets do not take more memory than is meant for them, and
// one more moves few keys though the points become fewer.
func TestHashOfMany(t *testing.T) {
	var list []Target
	for i := range 1000 {
		list = append(list, named(fmt.Sprintf("10.0.%d.%d:80", i/256, i%256), 100))
	}
	p := newPool(t, Options{Targets: list, Balance: Hash})
	if n := len(p.circle); n > maxPoints+1000 || n < maxPoints/3 {
		t.Errorf("%d points", n)
	}
}
