// Package limit bounds how often a caller may be served: token buckets, one for
// each key, in this process or in a Redis that all gateways share. [Take] asks
// all limits of one place at once.
package limit

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"gatehouse/gateway/token"
)

// DefaultMaxEntries is how many keys one limit tells apart where [Options] do not say.
const DefaultMaxEntries = 100_000

// DefaultIPv6Prefix is how many bits of an IPv6 address tell callers apart
// where [Options] do not say.
const DefaultIPv6Prefix = 64

// maxTiers bounds the tiers of one limit: a key holds the tier's number in two bytes.
const maxTiers = math.MaxUint16

// Rate is so many requests in so long a time.
type Rate struct {
	Count int
	Per   time.Duration
}

// Tier is the rate of callers of one kind.
type Tier struct {
	Rate  Rate
	Burst int // 0: Rate.Count
}

// OnError says what a shared limit does while Redis cannot be asked.
type OnError string

// The postures of an outage.
const (
	OnErrorLocal OnError = "local" // each gateway admits its share
	OnErrorAllow OnError = "allow" // all pass
	OnErrorDeny  OnError = "deny"  // none passes: store_unavailable
)

// Mode says what comes of a request that a limit does not admit.
type Mode string

// The modes.
const (
	Enforce Mode = "enforce" // it is refused
	Report  Mode = "report"  // it is admitted, and told of in [Decision].Reported
)

// Options describe one limit.
type Options struct {
	Name  string   // as callers see it: printable ASCII
	Keys  []string // ip, route, issuer, claim:PATH, header:NAME; several together make one key
	Rate  Rate
	Burst int // the bucket's size in tokens; 0: Rate.Count

	IPv6Prefix int             // bits of an IPv6 address that count, 1 to 128; 0: DefaultIPv6Prefix
	TierBy     string          // claim:PATH; "": no tiers
	Tiers      map[string]Tier // by the claim's value; other values have Rate and Burst
	Cost       int             // tokens that one request takes; 0: 1
	Costs      map[string]int  // the same by method; 0 is free. HEAD costs what GET does, unless it is there itself
	Mode       Mode            // "": that of the [Subject]

	Store   *Store  // Redis; nil: buckets in this process
	Lease   int     // tokens taken from Store at once and spent here; 0: each request asks Store
	OnError OnError // "": OnErrorLocal

	MaxEntries int              // 0: DefaultMaxEntries
	Now        func() time.Time // nil: time.Now
}

// Subject is what a request is counted under.
type Subject struct {
	IP        netip.Addr // the caller's, as seen through trusted proxies
	Route     string     // the route's name
	Method    string     // for Options.Costs
	Overrides []string   // methods that a backend may take it to have instead: the dearest of all is charged
	Header    http.Header
	Verified  *token.Verified // nil before verification
	Report    bool            // limits without a [Mode] of their own only report
}

// plan is the rate of one tier, in all the forms that it is needed in.
type plan struct {
	rate   rate.Limit // per second
	burst  int
	gcra   gcra
	quota  int           // of the RateLimit-Policy field
	window time.Duration // whole seconds
	policy string        // the field's value
	quoted string        // the limit's name, as both fields have it
	suffix string        // of the key in Redis
}

// Limiter counts the requests of one limit. It is safe for concurrent use and
// starts no goroutine; dropping it frees it.
type Limiter struct {
	name    string
	parts   []part
	ipv6    int
	tierBy  token.Path
	tiers   map[string]int // number of a plan
	plans   []plan         // the first is for all who are in no tier
	cost    int
	costs   map[string]int
	mode    Mode
	store   *Store
	lease   int
	onError OnError
	now     func() time.Time
	epoch   time.Time
	id      uint64

	admitted, refused, reported, fallbacks atomic.Uint64

	mu     sync.Mutex
	last   time.Time            // the latest time seen
	table  *table[rate.Limiter] // of a local limit
	shared *table[account]      // of a shared one
	spills uint64
}

// ids numbers the limiters, for the one order in which [Take] locks them.
var ids atomic.Uint64

// New makes the limiter that o describes, with every bucket full. The error
// says which of the options cannot be used and why.
func New(o Options) (*Limiter, error) {
	switch {
	case o.Name == "" || !printable(o.Name):
		return nil, fmt.Errorf("the limit's name %q must be printable ASCII: callers see it in RateLimit (RFC 9651 §3.3.3)", o.Name)
	case o.Store != nil && strings.ContainsAny(o.Name, "{}"):
		return nil, fmt.Errorf("limit %s: braces in the name would decide the Redis Cluster's slot", o.Name)
	case o.MaxEntries < 0:
		return nil, fmt.Errorf("limit %s: a number of entries below zero", o.Name)
	case len(o.Keys) == 0:
		return nil, fmt.Errorf("limit %s has no key; use %s", o.Name, kinds)
	case o.IPv6Prefix < 0 || o.IPv6Prefix > 128:
		return nil, fmt.Errorf("limit %s: an IPv6 prefix of %d bits; want 1 to 128", o.Name, o.IPv6Prefix)
	case o.Store == nil && (o.Lease != 0 || o.OnError != ""):
		return nil, fmt.Errorf("limit %s: only a shared limit has a lease or asks what to do on errors", o.Name)
	}
	l := &Limiter{
		name:    o.Name,
		ipv6:    cmp.Or(o.IPv6Prefix, DefaultIPv6Prefix),
		tiers:   map[string]int{},
		cost:    cmp.Or(o.Cost, 1),
		costs:   o.Costs,
		mode:    o.Mode,
		store:   o.Store,
		lease:   o.Lease,
		onError: cmp.Or(o.OnError, OnErrorLocal),
		now:     o.Now,
		id:      ids.Add(1),
	}
	if l.now == nil {
		l.now = time.Now
	}
	l.epoch = l.now()
	for _, key := range o.Keys {
		p, err := parsePart(key)
		if err != nil {
			return nil, fmt.Errorf("limit %s: %w", o.Name, err)
		}
		l.parts = append(l.parts, p)
	}
	if err := l.setPlans(o); err != nil {
		return nil, fmt.Errorf("limit %s: %w", o.Name, err)
	}
	if !slices.Contains([]OnError{OnErrorLocal, OnErrorAllow, OnErrorDeny}, l.onError) {
		return nil, fmt.Errorf("limit %s: unknown way %q to meet an error; use local, allow or deny", o.Name, l.onError)
	}
	size, first := cmp.Or(o.MaxEntries, DefaultMaxEntries), &l.plans[0]
	if l.store == nil {
		l.table = newTable(size, first, l.epoch, fillBucket, bucketFull)
	} else {
		l.shared = newTable(size, first, l.epoch, func(*account, *plan, time.Time) {}, l.accountFull)
	}
	return l, nil
}

func (l *Limiter) setPlans(o Options) error {
	if (o.TierBy == "") != (len(o.Tiers) == 0) || len(o.Tiers) > maxTiers {
		return fmt.Errorf("tiers want a claim and 1 to %d rates", maxTiers)
	}
	if err := l.addPlan(Tier{o.Rate, o.Burst}, ""); err != nil || o.TierBy == "" {
		return err
	}
	path, isClaim := strings.CutPrefix(o.TierBy, "claim:")
	if !isClaim {
		return fmt.Errorf("tiers by %q: only a claim can say a caller's tier, such as claim:plan; anything else the caller chooses", o.TierBy)
	}
	var err error
	if l.tierBy, err = token.ParsePath(path); err != nil {
		return err
	}
	for value, t := range o.Tiers {
		if value == "" {
			return errors.New("a tier without a name: a claim without a value has the limit's own rate")
		}
		l.tiers[value] = len(l.plans)
		if err := l.addPlan(t, ":"+value); err != nil {
			return fmt.Errorf("tier %q: %w", value, err)
		}
	}
	return nil
}

func (l *Limiter) addPlan(t Tier, suffix string) error {
	switch {
	case t.Rate.Count < 1 || t.Rate.Per <= 0:
		return fmt.Errorf("a rate of %d per %s admits nothing; write a count and a time above zero, such as 100/1m", t.Rate.Count, t.Rate.Per)
	case t.Burst < 0:
		return fmt.Errorf("a burst of %d is below zero", t.Burst)
	}
	p := plan{rate: rate.Limit(float64(t.Rate.Count) / t.Rate.Per.Seconds()), burst: cmp.Or(t.Burst, t.Rate.Count), suffix: suffix}
	p.quota, p.window = policy(t.Rate)
	p.policy, p.quoted = policyField(l.name, p.quota, p.window), quote(l.name)
	if l.lease < 0 || l.lease > p.burst {
		return fmt.Errorf("a lease of %d tokens from a bucket of %d; want at most the burst, and better a small part of it", l.lease, p.burst)
	}
	costs := []int{l.cost}
	for _, cost := range l.costs {
		costs = append(costs, cost)
	}
	if low, high := slices.Min(costs), slices.Max(costs); low < 0 || high > p.burst {
		return fmt.Errorf("a cost of %d to %d tokens; want 0 to the burst of %d, or no request is ever admitted", low, high, p.burst)
	}
	if l.store != nil {
		var err error
		if p.gcra, err = newGCRA(t.Rate, p.burst); err != nil {
			return err
		}
	}
	l.plans = append(l.plans, p)
	return nil
}

// NeedsClaims says whether a key or the tiers ask for what only a verified
// token says, so that the limit belongs after verification.
func (l *Limiter) NeedsClaims() bool {
	return !l.tierBy.IsZero() || slices.ContainsFunc(l.parts, func(p part) bool { return p.kind == claimPart || p.kind == issuerPart })
}

// Stats are counts for metrics, since the limiter was made.
type Stats struct {
	Admitted  uint64 // requests
	Refused   uint64
	Reported  uint64 // that [Report] let pass
	Fallbacks uint64 // that were decided without Redis, which could not be asked
	Spills    uint64 // that fell to the shared bucket because the table was full
	Keys      int    // that have a bucket of their own now
}

// Stats returns the limiter's counts.
func (l *Limiter) Stats() Stats {
	s := Stats{Admitted: l.admitted.Load(), Refused: l.refused.Load(), Reported: l.reported.Load(), Fallbacks: l.fallbacks.Load()}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Spills = l.spills
	if l.store != nil {
		s.Keys = len(l.shared.entries)
	} else {
		s.Keys = len(l.table.entries)
	}
	return s
}

// tier returns the number of the plan of s.
func (l *Limiter) tier(s *Subject) int {
	if len(l.tiers) == 0 {
		return 0
	}
	return l.tiers[claimText(l.tierBy, s.Verified)]
}

// costFor returns the tokens that s takes.
func (l *Limiter) costFor(s *Subject) int {
	cost := l.costOf(s.Method)
	for _, method := range s.Overrides {
		cost = max(cost, l.costOf(method))
	}
	return cost
}

// costOf returns the tokens that a request of that method takes.
func (l *Limiter) costOf(method string) int {
	if len(l.costs) == 0 {
		return l.cost
	}
	cost, ok := l.costs[method]
	if !ok && method == http.MethodHead { // or half the work of a GET would be had for nothing
		cost, ok = l.costs[http.MethodGet]
	}
	if !ok {
		return l.cost
	}
	return cost
}

// tick returns the time, which never goes back: x/time/rate would count time
// twice that it is told out of order. l.mu is held, so that two requests tell
// it in order.
func (l *Limiter) tick() time.Time {
	if now := l.now(); now.After(l.last) {
		l.last = now
	}
	return l.last
}

// fillBucket makes a zero bucket a full one, in place since it holds a mutex:
// for an instant of infinite rate any time that passed fills it.
func fillBucket(b *rate.Limiter, p *plan, now time.Time) {
	b.SetBurstAt(time.Time{}, p.burst)
	b.SetLimitAt(time.Time{}, rate.Inf)
	b.SetLimitAt(now, p.rate)
}

func bucketFull(b *rate.Limiter, now time.Time) bool {
	return b.TokensAt(now) >= float64(b.Burst())
}

// untilHeld returns how long it is until a bucket that misses so many tokens
// has them. It is x/time/rate's own arithmetic, down to the truncation to
// nanoseconds, so that 0 here is what its AllowN admits.
func (p *plan) untilHeld(missing float64) time.Duration {
	if missing <= 0 {
		return 0
	}
	ns := missing / float64(p.rate) * float64(time.Second)
	if ns >= math.MaxInt64 {
		return math.MaxInt64
	}
	return time.Duration(ns)
}
