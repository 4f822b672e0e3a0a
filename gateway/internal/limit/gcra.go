package limit

import (
	"errors"
	"math"
	"time"
)

// gcra is the arithmetic of a bucket that is kept as one number, its debt: the
// nanoseconds until it is full again, if nobody takes from it. Taking a token
// adds one interval, time takes away, and the debt may never pass the capacity.
// It is the generic cell rate algorithm (ITU-T I.371) with the theoretical
// arrival time told relative to now. take.lua is the same in Redis.
type gcra struct {
	interval int64 // ns of refill that one token costs
	capacity int64 // ns; burst intervals
}

// maxDebt is what a number of Lua holds exactly: 2^53 ns, 104 days.
const maxDebt = 1 << 53

// newGCRA rounds the interval up, so that the bucket never refills faster than
// r, and by less than a nanosecond.
func newGCRA(r Rate, burst int) (gcra, error) {
	interval := int64((r.Per-1)/time.Duration(r.Count) + 1)
	if int64(burst) > maxDebt/interval {
		return gcra{}, errors.New("an empty bucket would take more than 104 days to fill; take a smaller burst or a higher rate")
	}
	return gcra{interval, interval * int64(burst)}, nil
}

// decay returns what is left of a debt after some nanoseconds. A clock that
// went back takes nothing away.
func decay(debt, elapsed int64) int64 { return max(0, debt-max(0, elapsed)) }

// share is the bucket of one of n gateways that cannot speak to each other: one
// token costs it what n cost the whole. Where the burst is smaller than n
// times the cost it still holds one request, or nobody would be served.
func (g gcra) share(n, cost int) gcra {
	interval := g.interval * min(int64(n), math.MaxInt64/2/g.interval/int64(cost))
	return gcra{interval, max(g.capacity, interval*int64(cost))}
}

// wait returns the nanoseconds until cost tokens can be taken; 0 is now.
func (g gcra) wait(debt int64, cost int) int64 {
	return max(0, debt+int64(cost)*g.interval-g.capacity)
}

// left returns the whole tokens that can be taken now.
func (g gcra) left(debt int64) int { return int(max(0, g.capacity-debt) / g.interval) }

// next returns the nanoseconds until there is one token more than now; 0 where
// the bucket holds all it can.
func (g gcra) next(debt int64) int64 {
	if debt == 0 {
		return 0
	}
	return debt - (g.capacity - int64(g.left(debt)+1)*g.interval)
}
