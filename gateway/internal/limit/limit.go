// Package limit bounds how often a caller may be served: token buckets in this
// process, one for each key, in a table of bounded size.
package limit

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"gatehouse/gateway/token"
)

// DefaultMaxEntries is how many keys one limit tells apart where [Options] do not say.
const DefaultMaxEntries = 100_000

// Rate is so many requests in so long a time.
type Rate struct {
	Count int
	Per   time.Duration
}

// Options describe one limit.
type Options struct {
	Name       string   // as callers see it: printable ASCII
	Keys       []string // ip, route, claim:PATH; several together make one key
	Rate       Rate
	Burst      int              // the bucket's size in requests; 0: Rate.Count
	MaxEntries int              // 0: DefaultMaxEntries
	Now        func() time.Time // nil: time.Now
}

// Subject is what a request is counted under.
type Subject struct {
	IP       netip.Addr // the caller's, as seen through trusted proxies
	Route    string     // the route's name
	Verified *token.Verified
}

// Limiter counts the requests of one limit. It is safe for concurrent use and
// starts no goroutine; dropping it frees it.
type Limiter struct {
	name   string
	parts  []part
	rate   rate.Limit // per second
	burst  int
	quota  int           // of the RateLimit-Policy field
	window time.Duration // whole seconds
	now    func() time.Time
	id     uint64

	mu     sync.Mutex
	last   time.Time // the latest time seen
	table  *table
	spills uint64
}

// ids numbers the limiters, for the one order in which [Allow] locks them.
var ids atomic.Uint64

// New makes the limiter that o describes, with every bucket full. The error
// says which of the options cannot be used and why.
func New(o Options) (*Limiter, error) {
	switch {
	case o.Name == "" || !printable(o.Name):
		return nil, fmt.Errorf("the limit's name %q must be printable ASCII: callers see it in RateLimit (RFC 9651 §3.3.3)", o.Name)
	case o.Rate.Count < 1 || o.Rate.Per <= 0:
		return nil, fmt.Errorf("limit %s: a rate of %d per %s admits nothing; write a count and a time above zero, such as 100/1m", o.Name, o.Rate.Count, o.Rate.Per)
	case o.Burst < 0 || o.MaxEntries < 0:
		return nil, fmt.Errorf("limit %s: a burst or number of entries below zero", o.Name)
	case len(o.Keys) == 0:
		return nil, fmt.Errorf("limit %s has no key; use ip, route or claim:PATH", o.Name)
	}
	l := &Limiter{
		name:  o.Name,
		rate:  rate.Limit(float64(o.Rate.Count) / o.Rate.Per.Seconds()),
		burst: cmp.Or(o.Burst, o.Rate.Count),
		now:   o.Now,
		id:    ids.Add(1),
	}
	if l.now == nil {
		l.now = time.Now
	}
	for _, key := range o.Keys {
		p, err := parsePart(key)
		if err != nil {
			return nil, fmt.Errorf("limit %s: %w", o.Name, err)
		}
		l.parts = append(l.parts, p)
	}
	l.quota, l.window = policy(o.Rate)
	l.table = newTable(cmp.Or(o.MaxEntries, DefaultMaxEntries), l.rate, l.burst, l.now())
	return l, nil
}

// NeedsClaims says whether a key asks for a claim, so that the limit belongs
// after verification.
func (l *Limiter) NeedsClaims() bool {
	return slices.ContainsFunc(l.parts, func(p part) bool { return p.kind == claimPart })
}

// Stats are counts for metrics.
type Stats struct {
	Keys   int    // that have a bucket of their own now
	Spills uint64 // requests that fell to the shared bucket because the table was full
}

// Stats returns the limiter's counts.
func (l *Limiter) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Stats{len(l.table.entries), l.spills}
}

// pick returns the key's bucket and the time to use with it. l.mu is held,
// and the clock is read under it: x/time/rate would count time twice that it
// is told out of order.
func (l *Limiter) pick(key []byte) (*rate.Limiter, time.Time) {
	if now := l.now(); now.After(l.last) {
		l.last = now
	}
	b, own := l.table.get(key, l.last)
	if !own {
		l.spills++
	}
	return b, l.last
}

// wait returns how long it is until the bucket holds a whole token. It is
// x/time/rate's own arithmetic, down to the truncation to nanoseconds, so that
// 0 here is what its AllowN admits.
func (l *Limiter) wait(b *rate.Limiter, now time.Time) time.Duration {
	missing := 1 - b.TokensAt(now)
	if missing <= 0 {
		return 0
	}
	ns := missing / float64(l.rate) * float64(time.Second)
	if ns >= math.MaxInt64 {
		return math.MaxInt64
	}
	return time.Duration(ns)
}

// draw is one token that a request asks of one limiter.
type draw struct {
	*Limiter
	key    key
	bucket *rate.Limiter
	now    time.Time
}

// Allow takes one token for s from every limiter, or from none: nil, or the
// *[Refused] of the limit with the longest wait. A limiter that is listed
// twice counts once.
func Allow(limiters []*Limiter, s Subject) error {
	var few [4]draw // enough for most routes without an allocation
	draws := few[:0]
	for _, l := range limiters {
		draws = append(draws, draw{Limiter: l})
	}
	// One order for all callers, or two of them could wait for each other.
	slices.SortFunc(draws, func(a, b draw) int { return cmp.Compare(a.id, b.id) })
	draws = slices.CompactFunc(draws, func(a, b draw) bool { return a.Limiter == b.Limiter })
	for i := range draws {
		draws[i].key.write(draws[i].parts, s)
	}

	var tightest *Limiter
	var longest time.Duration
	for i := range draws {
		d := &draws[i]
		d.mu.Lock()
		d.bucket, d.now = d.pick(d.key.bytes())
		if wait := d.wait(d.bucket, d.now); wait > longest {
			tightest, longest = d.Limiter, wait
		}
	}
	for i := range draws {
		if tightest == nil {
			draws[i].bucket.AllowN(draws[i].now, 1)
		}
		draws[i].mu.Unlock()
	}
	if tightest == nil {
		return nil
	}
	return &Refused{tightest.name, tightest.quota, tightest.window, longest}
}
