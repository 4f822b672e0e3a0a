package upstream

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Balance is how requests are spread over targets.
type Balance string

// The ways of spreading them. Each goes by the targets' weights.
const (
	RoundRobin    Balance = "round_robin"    // in turn
	LeastRequests Balance = "least_requests" // of two at random the one with fewer requests in flight
	Hash          Balance = "hash"           // by Call.HashKey, consistently; without one in turn
)

// view is whom requests go to, until something changes.
type view struct {
	turns   []turn    // one round; empty where nobody may be asked
	circle  circle    // of the same targets; nil unless balanced by hash
	returns time.Time // when the first of the ejected comes back; zero: unknown
}

// turn is one of as many as a target's weight.
type turn struct {
	*target
	weight int64
}

type share struct {
	*target
	weight int
}

// pick returns the target for a request, nil if there is none. It takes no lock
// and allocates nothing.
func (p *Pool) pick(key string) *target {
	v := p.view.Load()
	n := uint64(len(v.turns))
	switch {
	case n == 0:
		return nil
	case n == 1:
		return v.turns[0].target
	case v.circle != nil && key != "":
		return v.circle.owner(key)
	case p.Balance == LeastRequests:
		// Two choices are nearly as good as looking at all (Mitzenmacher, "The
		// power of two choices in randomized load balancing", 2001), and unlike
		// it do not send every gateway to the same idle target. The turns are
		// drawn by weight, so of idle targets each gets its share.
		r := p.random()
		i, j := r>>32*n>>32, r&math.MaxUint32*(n-1)>>32
		if j >= i {
			j++
		}
		a, b := v.turns[i], v.turns[j]
		if b.inFlight.Load()*a.weight < a.inFlight.Load()*b.weight {
			return b.target
		}
		return a.target
	}
	return v.turns[(p.next.Add(1)-1)%n].target
}

// another returns a target that is none of those tried; nil if there is none.
func (p *Pool) another(key string, tried []*target) *target {
	v := p.view.Load()
	if v.circle != nil && key != "" {
		return v.circle.next(key, tried)
	}
	n := uint64(len(v.turns))
	for i, from := uint64(0), p.random(); i < n; i++ {
		if t := v.turns[(from%n+i)%n].target; !slices.Contains(tried, t) {
			return t
		}
	}
	return nil
}

// A round has at most maxTurns turns, or some for each target where there are
// more of them: beyond that weights are rounded.
const (
	maxTurns  = 4096
	fewTurns  = 4
	golden    = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio
	warmSteps = 20                 // of slow start
	coldSteps = 2                  // at which it begins: a tenth, as Envoy's min_weight_percent
)

// spread lays out a round in which each target has turns by its weight, as far
// from each other as can be: what nginx's smooth weighted round robin finds with
// each request is worked out once here, so that picking is one addition.
func spread(shares []share) []turn {
	total, divisor := 0, 0
	for _, s := range shares {
		total += s.weight
		divisor = gcd(divisor, s.weight)
	}
	if total == 0 {
		return nil
	}
	total /= divisor
	limit := max(maxTurns, fewTurns*len(shares))
	type place struct {
		at float64
		turn
	}
	places := make([]place, 0, min(total, limit)+len(shares))
	for i, s := range shares {
		weight := s.weight / divisor
		if total > limit {
			weight = max(1, int(math.Round(float64(weight)*float64(limit)/float64(total))))
		}
		// Where each begins is spread, too, or all of weight 1 would follow on each other.
		phase := float64(uint64(i)*golden) / (1 << 64)
		for k := range weight {
			places = append(places, place{(float64(k) + phase) / float64(weight), turn{s.target, int64(weight)}})
		}
	}
	slices.SortStableFunc(places, func(a, b place) int { return cmp.Compare(a.at, b.at) })
	turns := make([]turn, len(places))
	for i, p := range places {
		turns[i] = p.turn
	}
	return turns
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// warmth is how much of its share a target gets, in warmSteps, and for how long.
func (p *Pool) warmth(t *target, now time.Time) (steps int, more time.Duration) {
	step := p.SlowStart / warmSteps
	past := now.Sub(t.warmed)
	if t.warmed.IsZero() || step <= 0 || past >= p.SlowStart {
		return warmSteps, 0
	}
	at := max(coldSteps, int(past/step))
	return at, time.Duration(at+1)*step - past
}
