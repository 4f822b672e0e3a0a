package revoke

import (
	"crypto/rand"
	"encoding/binary"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dchest/siphash"

	"gatehouse/gateway/token"
)

// ledger is the copy in memory: what was seen revoked, until when. An entry
// ends by its own expiry or by lift, by nothing else. It is safe for
// concurrent use, and what is looked up costs the same however much it holds.
type ledger struct {
	// Names are kept as 128 bits of SipHash under a key of this process alone.
	// Who chooses names (a subject, a jti) must not be able to find two that
	// collide, as it would be with an unkeyed or a 64-bit hash.
	k0, k1 uint64
	start  time.Time // monotonic: no step of the clock ends a revocation
	size   atomic.Int64
	tables [len(kinds)]table
}

// table holds the revocations of one kind, so that a kind of which there are
// none, as kid mostly, costs a token neither hash nor lock.
type table struct {
	size   atomic.Int64
	shards [shards]shard
}

const shards = 64

type shard struct {
	mu   sync.RWMutex
	m    map[digest]mark
	peak int // most entries since m was made: maps do not shrink
}

type digest struct{ lo, hi uint64 }

// mark is a revocation: no pointers, so that the collector has nothing to scan.
type mark struct {
	until int64 // as of cutoff
	// expires is on the ledger's clock; never if the key has no expiry. Below 0
	// the key was found and its expiry is not read yet: the entry holds, and no
	// less long than minus that, which was known before.
	expires int64
}

const (
	// never is the expiry of a key without one.
	never int64 = math.MaxInt64
	// unread is the expiry of a key of which nothing is known yet.
	unread int64 = -1
	// lostTTL is for how long an entry holds whose key had gone before its
	// expiry was read: most have ended just then, and one that was deleted
	// holds longer than tokens mostly live.
	lostTTL = 24 * time.Hour
)

func (m mark) ended(now int64) bool { return 0 <= m.expires && m.expires <= now }

// atLeast is when the entry ends at the soonest.
func (m mark) atLeast() int64 {
	if m.expires < 0 {
		return -m.expires
	}
	return m.expires
}

// entryBytes is what an entry takes on average, measured by the test of the
// bound: 32 bytes, a control byte, and the map's free places.
const entryBytes = 70

func newLedger() *ledger {
	var key [16]byte
	_, _ = rand.Read(key[:]) // never fails
	return &ledger{k0: binary.LittleEndian.Uint64(key[:]), k1: binary.LittleEndian.Uint64(key[8:]), start: time.Now()}
}

// now is the ledger's clock, in milliseconds.
func (l *ledger) now() int64 { return time.Since(l.start).Milliseconds() }

func (l *ledger) time(at int64) time.Time { return l.start.Add(time.Duration(at) * time.Millisecond) }

// expiry says when a key ends that Redis gives ttl from now; below 0: never.
func (l *ledger) expiry(ttl time.Duration) int64 {
	if ttl < 0 {
		return never
	}
	return l.now() + ttl.Milliseconds()
}

func (l *ledger) digest(issuer, value string) digest {
	var place [192]byte // on the stack; longer names cost an allocation
	name := append(place[:0], issuer...)
	name = append(name, ':') // no issuer's name holds one
	name = append(name, value...)
	lo, hi := siphash.Hash128(l.k0, l.k1, name)
	return digest{lo, hi}
}

// set writes an entry or replaces it. It returns false if that would be one
// more than limit.
func (l *ledger) set(kind Kind, issuer, value string, m mark, limit int) bool {
	return l.put(kind, issuer, value, m, limit, false)
}

// put is set, but with atLeast an entry that withdraws more, or for longer,
// stays what it is in that.
func (l *ledger) put(kind Kind, issuer, value string, m mark, limit int, atLeast bool) bool {
	t, d := &l.tables[kind.index()], l.digest(issuer, value)
	s := &t.shards[d.lo%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if before, old := s.m[d]; old {
		known := before.atLeast()
		switch {
		case !atLeast || before.ended(l.now()) || before.until < m.until:
		case m.expires == unread:
			m = mark{before.until, -known}
		case before.until > m.until || known > m.expires:
			m = mark{before.until, max(known, m.expires)}
		}
	} else {
		if l.size.Load() >= int64(limit) {
			return false
		}
		if s.m == nil {
			s.m = map[digest]mark{}
		}
		l.count(t, 1)
		s.peak = max(s.peak, len(s.m)+1)
	}
	s.m[d] = m
	return true
}

// ends takes down when an entry ends that was found before its expiry was read.
// One that is known to hold longer does.
func (l *ledger) ends(kind Kind, issuer, value string, expires int64) {
	d := l.digest(issuer, value)
	s := &l.tables[kind.index()].shards[d.lo%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if m, ok := s.m[d]; ok {
		m.expires = max(m.atLeast(), expires)
		s.m[d] = m
	}
}

// settle ends the waiting for expiries: what has none yet belongs to a key that
// has gone.
func (l *ledger) settle() {
	lost := l.expiry(lostTTL)
	for i := range l.tables {
		for n := range l.tables[i].shards {
			s := &l.tables[i].shards[n]
			s.mu.Lock()
			for d, m := range s.m {
				if m.expires == unread {
					s.m[d] = mark{m.until, lost}
				} else if m.expires < 0 {
					s.m[d] = mark{m.until, m.atLeast()}
				}
			}
			s.mu.Unlock()
		}
	}
}

// lift forgets an entry.
func (l *ledger) lift(kind Kind, issuer, value string) {
	t, d := &l.tables[kind.index()], l.digest(issuer, value)
	s := &t.shards[d.lo%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, old := s.m[d]; old {
		delete(s.m, d)
		l.count(t, -1)
	}
}

func (l *ledger) count(t *table, n int) {
	t.size.Add(int64(n))
	l.size.Add(int64(n))
}

// row is a kind and its table.
type row struct {
	kind  Kind
	table *table
}

func (l *ledger) rows(kinds []Kind) []row {
	rows := make([]row, len(kinds))
	for i, kind := range kinds {
		rows[i] = row{kind, &l.tables[kind.index()]}
	}
	return rows
}

// revokes returns the first of rows by which v is withdrawn, or "".
func (l *ledger) revokes(v *token.Verified, rows []row) Kind {
	for _, r := range rows {
		if r.table.size.Load() == 0 {
			continue
		}
		name := r.kind.named(v)
		if name == "" {
			continue
		}
		d := l.digest(v.Issuer, name)
		s := &r.table.shards[d.lo%shards]
		s.mu.RLock()
		m, ok := s.m[d]
		s.mu.RUnlock()
		if ok && withdraws(m.until, v) && (m.expires == never || !m.ended(l.now())) {
			return r.kind
		}
	}
	return ""
}

// sweep frees what has expired in the n-th shard of every table.
func (l *ledger) sweep(n int) {
	now := l.now()
	for i := range l.tables {
		t := &l.tables[i]
		s := &t.shards[n%shards]
		s.mu.Lock()
		before := len(s.m)
		for d, m := range s.m {
			if m.ended(now) {
				delete(s.m, d)
			}
		}
		l.count(t, len(s.m)-before)
		if len(s.m) < s.peak/4 {
			smaller := make(map[digest]mark, len(s.m))
			for d, m := range s.m {
				smaller[d] = m
			}
			s.m, s.peak = smaller, len(s.m)
		}
		s.mu.Unlock()
	}
}
