package upstream

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/cespare/xxhash/v2"
)

// A target has so many points for each unit of its weight, fewer where all
// would have more than maxPoints.
const (
	pointsPerWeight = 160 // as ketama: shares within some 8 % of the weights
	maxPoints       = 1 << 18
)

// circle is the ring of consistent hashing (Karger et al. 1997), in the order of
// its points. A key belongs to the first point after it: whoever goes leaves
// to others only what was its own, and whoever comes takes only what becomes
// its own. It is the same in every gateway.
type circle []point

type point struct {
	hash uint64
	*target
}

func newCircle(targets []*target) circle {
	total := 0
	for _, t := range targets {
		total += t.weight * pointsPerWeight
	}
	// Halves, so that one more target seldom changes the points of others, and
	// then takes away points only.
	shift := 0
	for total>>shift > maxPoints {
		shift++
	}
	c := make(circle, 0, total>>shift+len(targets))
	var text []byte
	for _, t := range targets {
		for i := range max(1, t.weight*pointsPerWeight>>shift) {
			text = strconv.AppendInt(append(append(text[:0], t.key...), '#'), int64(i), 10)
			c = append(c, point{xxhash.Sum64(text), t})
		}
	}
	slices.SortFunc(c, func(a, b point) int {
		if a.hash == b.hash {
			return cmp.Compare(a.key, b.key)
		}
		return cmp.Compare(a.hash, b.hash)
	})
	return c
}

// of is the circle without the points of those that have no share.
func (c circle) of(shares []share, all []*target) circle {
	if len(shares) == len(all) {
		return c
	}
	for _, t := range all {
		t.picked = false
	}
	for _, s := range shares {
		s.picked = true
	}
	left := make(circle, 0, len(c))
	for _, p := range c {
		if p.picked {
			left = append(left, p)
		}
	}
	return left
}

// owner returns the target of a key; the circle has a point at least.
func (c circle) owner(key string) *target { return c[c.find(key)].target }

// next returns who owns a key once those tried are gone; nil without anybody
// else.
func (c circle) next(key string, tried []*target) *target {
	for i, from := 0, c.find(key); i < len(c); i++ {
		if t := c[(from+i)%len(c)].target; !slices.Contains(tried, t) {
			return t
		}
	}
	return nil
}

// find returns the first point after the key's, if there is any point.
func (c circle) find(key string) int {
	hash := xxhash.Sum64String(key)
	low, high := 0, len(c)
	for low < high {
		if middle := int(uint(low+high) >> 1); c[middle].hash < hash {
			low = middle + 1
		} else {
			high = middle
		}
	}
	if low == len(c) {
		return 0
	}
	return low
}
