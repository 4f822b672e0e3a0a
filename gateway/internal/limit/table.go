package limit

import (
	"time"

	"golang.org/x/time/rate"
)

// table holds one bucket for each key, at most max of them, in the order of
// their last use. A full bucket is like none, so it may be forgotten and made
// anew; one that is not full may not, or filling the table with made-up keys
// would refill a spent bucket. Keys that find no room share the overflow
// bucket, which has the same rate.
type table struct {
	max      int
	rate     rate.Limit
	burst    int
	entries  map[string]*entry
	order    entry // the list's ends: next is the hottest, prev the coldest
	overflow entry
}

// entry is one bucket by value: a million of them are a million objects for
// the garbage collector, not three.
type entry struct {
	bucket     rate.Limiter
	key        string
	prev, next *entry
}

// looks is how many of the coldest buckets a new key may look at for a full
// one. It bounds the work that a flood of new keys can cause, and since what
// was looked at in vain goes to the hot end, no full bucket stays hidden
// behind spent ones for more than len/looks new keys.
const looks = 8

func newTable(maxEntries int, r rate.Limit, burst int, now time.Time) *table {
	t := &table{max: maxEntries, rate: r, burst: burst, entries: map[string]*entry{}}
	t.order.next, t.order.prev = &t.order, &t.order
	t.fill(&t.overflow, now)
	return t
}

// get returns the bucket of the key, which a new key finds full. own is false
// for the overflow bucket.
func (t *table) get(key []byte, now time.Time) (b *rate.Limiter, own bool) {
	e, found := t.entries[string(key)]
	switch {
	case found:
		e.unlink()
	case len(t.entries) < t.max || t.evict(now):
		e = &entry{key: string(key)}
		t.fill(e, now)
		t.entries[e.key] = e
	default:
		return &t.overflow.bucket, false
	}
	t.heat(e)
	return &e.bucket, true
}

// evict makes room by dropping a full bucket, if it finds one.
func (t *table) evict(now time.Time) bool {
	for range looks {
		e := t.order.prev
		e.unlink()
		if e.bucket.TokensAt(now) >= float64(t.burst) {
			delete(t.entries, e.key)
			return true
		}
		t.heat(e)
	}
	return false
}

// fill makes a zero bucket a full one, in place since it holds a mutex: for an
// instant of infinite rate any time that passed fills it.
func (t *table) fill(e *entry, now time.Time) {
	e.bucket.SetBurstAt(time.Time{}, t.burst)
	e.bucket.SetLimitAt(time.Time{}, rate.Inf)
	e.bucket.SetLimitAt(now, t.rate)
}

func (e *entry) unlink() { e.prev.next, e.next.prev = e.next, e.prev }

// heat links e at the hot end.
func (t *table) heat(e *entry) {
	e.prev, e.next = &t.order, t.order.next
	e.prev.next, e.next.prev = e, e
}
