package limit

import "time"

// table holds one bucket for each key, at most max of them, in the order of
// their last use. A full bucket is like none, so it may be forgotten and made
// anew; one that is not full may not, or filling the table with made-up keys
// would refill a spent bucket. Keys that find no room share the overflow
// bucket, which has the limit's own rate.
type table[B any] struct {
	max      int
	fill     func(b *B, p *plan, now time.Time) // makes a zero bucket a full one
	full     func(b *B, now time.Time) bool
	entries  map[string]*entry[B]
	order    entry[B] // the list's ends: next is the hottest, prev the coldest
	overflow entry[B]
}

// entry is one bucket by value: a million of them are a million objects for
// the garbage collector, not three.
type entry[B any] struct {
	bucket     B
	key        string
	prev, next *entry[B]
}

// looks is how many of the coldest buckets a new key may look at for a full
// one. It bounds the work that a flood of new keys can cause, and since what
// was looked at in vain goes to the hot end, no full bucket stays hidden
// behind spent ones for more than len/looks new keys.
const looks = 8

func newTable[B any](maxEntries int, p *plan, now time.Time, fill func(*B, *plan, time.Time), full func(*B, time.Time) bool) *table[B] {
	t := &table[B]{max: maxEntries, fill: fill, full: full, entries: map[string]*entry[B]{}}
	t.order.next, t.order.prev = &t.order, &t.order
	t.fill(&t.overflow.bucket, p, now)
	return t
}

// get returns the bucket of the key, which a new key finds full. own is false
// for the overflow bucket.
func (t *table[B]) get(key []byte, p *plan, now time.Time) (b *B, own bool) {
	e, found := t.entries[string(key)]
	switch {
	case found:
		e.unlink()
	case len(t.entries) < t.max || t.evict(now):
		e = &entry[B]{key: string(key)}
		t.fill(&e.bucket, p, now)
		t.entries[e.key] = e
	default:
		return &t.overflow.bucket, false
	}
	t.heat(e)
	return &e.bucket, true
}

// look returns the bucket that get would, without making one; nil for a new
// key that would find room.
func (t *table[B]) look(key []byte) *B {
	if e, found := t.entries[string(key)]; found {
		return &e.bucket
	}
	if len(t.entries) < t.max {
		return nil
	}
	return &t.overflow.bucket
}

// evict makes room by dropping a full bucket, if it finds one.
func (t *table[B]) evict(now time.Time) bool {
	for range looks {
		e := t.order.prev
		e.unlink()
		if t.full(&e.bucket, now) {
			delete(t.entries, e.key)
			return true
		}
		t.heat(e)
	}
	return false
}

func (e *entry[B]) unlink() { e.prev.next, e.next.prev = e.next, e.prev }

// heat links e at the hot end.
func (t *table[B]) heat(e *entry[B]) {
	e.prev, e.next = &t.order, t.order.next
	e.prev.next, e.next.prev = e, e
}
