package issuer

import (
	"cmp"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/maypok86/otter/v2"

	"gatehouse/gateway/token"
)

// Cache remembers verified tokens, so that a caller's second request costs a
// look-up. An entry is found by the end of the token, most of its signature,
// and hit only if the whole token has the same digest: no other token will ever
// hit it; the token itself is not kept. It holds facts of the token and its
// issuer alone; time, audience and whether its key still counts are decided on
// each request, so that a token may be here that is refused each time.
//
// It is bounded in bytes, and so in entries, since an entry counts
// entryBytes at least. A flood of tokens that come once does not push out those
// that come often (W-TinyLFU). It is safe for concurrent use.
type Cache struct {
	entries      *otter.Cache[tail, *facts]
	hits, misses atomic.Uint64
}

// tail is the end of a token. Hashing 800 bytes would cost more than all the
// rest of a hit.
type tail [32]byte

func tailOf(raw token.Raw) (t tail) {
	s := raw.Reveal()
	copy(t[:], s[max(0, len(s)-len(t)):])
	return t
}

// entryBytes is what an entry takes beside its claims, roughly: the facts, what
// surrounds the headers, and the cache's own node. BenchmarkCacheMemory
// measures the whole.
const entryBytes = 416

// weight is how many bytes of memory the facts take once they are remembered,
// with the headers that are made from them, where all claims are sent.
func (f *facts) weight() uint32 {
	v := &f.verified
	n := entryBytes + v.Claims.Size() + cap(v.Privileges)*int(unsafe.Sizeof(""))
	for _, p := range v.Privileges {
		n += len(p) + 16 // rounded up: with a prefix each is a piece of its own
	}
	for _, claim := range v.Claims.All() {
		n += headerBytes(claim)
	}
	return uint32(n + n/8) // as the allocator rounds
}

// headerBytes is what a claim's header takes beside the claim: its place, and
// its text unless that is the claim's own. An escaped byte is three.
func headerBytes(claim token.Value) int {
	const place = 40 // name and value, rounded up
	text, copied := cmp.Or(claim.Text(), claim.JSON()), claim.Kind() == token.Array || claim.Kind() == token.Object
	n := place + len(text)
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c > '~' || c == '%' || c == ',' || c == '\\' {
			n, copied = n+2, true
		}
	}
	if !copied {
		return place
	}
	return n
}

// NewCache makes a cache of at most maxBytes bytes.
func NewCache(maxBytes uint64) *Cache {
	return &Cache{entries: otter.Must(&otter.Options[tail, *facts]{
		MaximumWeight: maxBytes,
		Weigher:       func(_ tail, f *facts) uint32 { return f.weight() },
	})}
}

// Size returns the number of tokens and the bytes that they are taken to need.
func (c *Cache) Size() (entries int, bytes uint64) {
	return c.entries.EstimatedSize(), c.entries.WeightedSize()
}

// Hits returns how many look-ups found a token that still counts.
func (c *Cache) Hits() uint64 { return c.hits.Load() }

// Misses returns how many did not.
func (c *Cache) Misses() uint64 { return c.misses.Load() }

func (c *Cache) put(raw token.Raw, f *facts) {
	f.digest = digestOf(raw)
	c.entries.Set(tailOf(raw), f)
}

// remembered returns the facts of a token that one of the issuers verified
// before, with a key that still counts, or nil. After a reload an issuer that
// changed is another one, so that what the old one verified is not found.
func (s Set) remembered(raw token.Raw) *facts {
	c := s.cache()
	if c == nil {
		return nil
	}
	f := s.find(c, raw)
	if f == nil {
		c.misses.Add(1)
		return nil
	}
	if f.issuer.trusts(f.key, f.issuer.o.Now()) != nil {
		// The key left the set, or nobody knows any more: verifying it again says which.
		c.entries.Invalidate(tailOf(raw))
		c.misses.Add(1)
		return nil
	}
	c.hits.Add(1)
	return f
}

func (s Set) find(c *Cache, raw token.Raw) *facts {
	f, ok := c.entries.GetIfPresent(tailOf(raw))
	if !ok || f.digest != digestOf(raw) || !slices.Contains(s, f.issuer) {
		return nil
	}
	return f
}

// Remembers says whether the token was verified before, so that checking it
// again costs next to nothing.
func (s Set) Remembers(raw token.Raw) bool {
	if i := s.opaque(raw); i != nil {
		v := i.introspection.find(digestOf(raw))
		return v != nil && v.facts != nil && i.o.Now().Before(v.until)
	}
	c := s.cache()
	return c != nil && s.find(c, raw) != nil
}

// drop forgets what i verified: each entry keeps its issuer, and so all of its
// keys and answers, in memory. One that another issuer wrote meanwhile may go
// along, and is only verified again.
func (c *Cache) drop(i *Issuer) {
	for t, f := range c.entries.All() {
		if f.issuer == i {
			c.entries.Invalidate(t)
		}
	}
	c.entries.CleanUp() // what was dropped would stay in its queues
}

func (s Set) cache() *Cache {
	if len(s) == 0 {
		return nil
	}
	return s[0].o.Cache
}

// Forget drops a token from the cache: it was revoked.
func (s Set) Forget(raw token.Raw) {
	if c := s.cache(); c != nil {
		c.entries.Invalidate(tailOf(raw))
	}
}
