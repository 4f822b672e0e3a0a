package gateway

import (
	"fmt"
	"math"
	"testing"

	"github.com/cespare/xxhash/v2"
)

// weighted are destinations of those weights, by the names a, b, c and so on.
func weighted(weights ...float64) *destinations {
	d := &destinations{}
	for i, w := range weights {
		d.weighted = append(d.weighted, destination{weight: w, seed: xxhash.Sum64String(string(rune('a' + i)))})
	}
	return d
}

func (d *destinations) index(to *destination) int {
	for i := range d.weighted {
		if to == &d.weighted[i] {
			return i
		}
	}
	return -1
}

// Values are spread by the weights, and move only to who gains a share.
func TestOwners(t *testing.T) {
	const values = 20_000
	owners := func(d *destinations) (list []int, counts []int) {
		counts = make([]int, len(d.weighted))
		for i := range values {
			owner := d.index(d.owner(fmt.Sprintf("user-%d", i)))
			list, counts[owner] = append(list, owner), counts[owner]+1
		}
		return list, counts
	}
	for _, c := range []struct{ before, after []float64 }{
		{[]float64{95, 5}, []float64{90, 10}},
		{[]float64{95, 5}, []float64{95, 5}},
		{[]float64{95, 5}, []float64{19, 1}}, // the same shares
		{[]float64{50, 30, 20}, []float64{60, 30, 20}},
		{[]float64{1, 1, 1}, []float64{1, 1, 1, 1}},
	} {
		before, counts := owners(weighted(c.before...))
		total := 0.0
		for _, w := range c.before {
			total += w
		}
		for i, n := range counts {
			share := c.before[i] / total
			if want := values * share; math.Abs(float64(n)-want) > 5*math.Sqrt(want*(1-share)) {
				t.Errorf("%v: %d has %d of %d", c.before, i, n, values)
			}
		}
		after, _ := owners(weighted(c.after...))
		for i := range before {
			if from, to := before[i], after[i]; from != to && to < len(c.before) && c.after[to]/c.before[to] <= c.after[from]/c.before[from] {
				t.Fatalf("%v to %v: user-%d moved from %d to %d", c.before, c.after, i, from, to)
			}
		}
	}
}

func TestDraw(t *testing.T) {
	d := weighted(3, 1, 6)
	for at, want := range map[float64]int{0: 0, 0.299: 0, 0.301: 1, 0.399: 1, 0.401: 2, 0.999999: 2, 1: 2} {
		if got := d.index(d.draw(at)); got != want {
			t.Errorf("%v: %d, want %d", at, got, want)
		}
	}
	if d.heaviest() != &d.weighted[2] {
		t.Error("the heaviest is another")
	}
}

func BenchmarkOwner(b *testing.B) {
	d := weighted(95, 5)
	b.ReportAllocs()
	for b.Loop() {
		d.owner("0c4a2b5e-alice")
	}
}
