package limit

import (
	"cmp"
	"context"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"gatehouse/gateway/token"
)

// Decision is what the limits of a request left it. The zero Decision is that
// of no limit at all.
type Decision struct {
	Limit     string        // the name of the tightest limit: with the fewest requests left
	Remaining int           // its tokens that can be taken now
	Reset     time.Duration // until there is one more; 0 where its bucket is full
	plan      *plan
	// Reported is what limits that only report would have said, a *[Refused] or
	// a *[token.Error]; nil where they would have admitted the request, too.
	Reported error
}

// Tighter returns the tighter of two decisions, for a request that was asked
// for in two places.
func (d Decision) Tighter(e Decision) Decision {
	tighter, reported := d, d.Reported
	if d.plan == nil || e.plan != nil && (e.Remaining < d.Remaining || e.Remaining == d.Remaining && e.Reset > d.Reset) {
		tighter = e
	}
	if reported == nil {
		reported = e.Reported
	}
	tighter.Reported = reported
	return tighter
}

// Allow is [Take] for those who ask for no decision.
func Allow(limiters []*Limiter, s Subject) error {
	_, err := Take(context.Background(), limiters, s)
	return err
}

// Take takes what s costs from every limiter, or from none, and says what the
// tightest has left. The error is a *[Refused] of the limit with the longest
// wait, or a *[token.Error] with [token.StoreUnavailable] where Redis cannot be
// asked and a limit is to deny then. A limiter that is listed twice counts
// once; all shared ones must have one [Store]. A call of Redis lasts no longer
// than [StoreOptions].Timeout, and goes on if ctx ends.
//
// Two things are not taken back: what an earlier call of Take took, and, in a
// Redis Cluster, what limits with another key took in another slot.
func Take(ctx context.Context, limiters []*Limiter, s Subject) (Decision, error) {
	var few [4]draw // enough for most routes without an allocation
	draws := prepare(few[:0], limiters, &s)
	admitted, asks := takeHere(draws)
	if admitted && asks {
		var err error
		if admitted, err = takeThere(ctx, draws); err != nil {
			return Decision{}, err
		}
	}
	count(draws, admitted)
	return conclude(draws, admitted)
}

// prepare appends what s asks of each limiter.
func prepare(draws []draw, limiters []*Limiter, s *Subject) []draw {
	for _, l := range limiters {
		if cost := l.costFor(s); cost > 0 {
			draws = append(draws, draw{Limiter: l, cost: cost, report: l.mode == Report || l.mode == "" && s.Report})
		}
	}
	if len(draws) > 1 {
		// One order for all callers, or two of them could wait for each other.
		slices.SortFunc(draws, func(a, b draw) int { return cmp.Compare(a.id, b.id) })
		draws = slices.CompactFunc(draws, func(a, b draw) bool { return a.Limiter == b.Limiter })
	}
	for i := range draws {
		d := &draws[i]
		tier := d.tier(s)
		d.plan = &d.plans[tier]
		d.key.write(d.Limiter, s, tier)
	}
	return draws
}

// draw is what a request asks of one limiter, and what it was told.
type draw struct {
	*Limiter
	plan   *plan
	cost   int
	report bool // it only reports
	key    key
	now    time.Time

	// While the limiter is locked:
	bucket *rate.Limiter // of a local limit
	acc    *account      // of a shared one
	own    bool          // acc is this key's, not that of all who found no room

	asks   bool  // Redis
	leads  bool  // the one that fetches a lease
	want   int   // tokens of Redis
	floor  int64 // the debt that Redis must know at least
	shares int   // this gateway decided alone, as one of so many; else 0
	silent bool  // nothing is known of the bucket
	denied error // what a limit that only reports would have said of that

	wait time.Duration // until the limit admits; 0: it does, for all that is known
	left int           // tokens
	next time.Duration // until there is one more
}

// admits says whether the limit lets the request pass, be it only because it
// is there to report.
func (d *draw) admits() bool { return d.wait == 0 || d.report }

// account is what a gateway knows of one bucket in Redis. The zero account is
// a full bucket.
type account struct {
	// debt is never more than Redis's own was at that time, and what was
	// admitted without Redis comes on top. It lets a gateway go on from there in
	// an outage, and tells a Redis that forgot.
	debt    int64 // ns
	at      int64 // ns since the limiter's epoch
	leased  int   // tokens taken from Redis and not spent
	until   int64 // when they are given up, ns since the limiter's epoch
	leading bool  // a request is out to fetch a lease
}

// leaseFills is how many times over the bucket refills a lease before what is
// not spent of it is given up. So a gateway that a caller hardly uses wastes at
// most a hundredth of the caller's rate.
const leaseFills = 100

// accountFull says that nothing is lost but an unspent lease.
func (l *Limiter) accountFull(a *account, now time.Time) bool {
	return decay(a.debt, int64(now.Sub(l.epoch))-a.at) == 0
}

// open finds the key's account, and brings its debt and lease up to date.
// l.mu is held.
func (d *draw) open() {
	d.now = d.tick()
	d.acc, d.own = d.shared.get(d.key.bytes(), d.plan, d.now)
	a, at := d.acc, d.at()
	a.debt, a.at = decay(a.debt, at-a.at), at
	if at >= a.until {
		a.leased = 0
	}
}

// at returns the draw's time in nanoseconds since the limiter's epoch.
func (d *draw) at() int64 { return int64(d.now.Sub(d.epoch)) }

// takeHere takes what needs no Redis: local buckets and leases. It says
// whether they admit, and whether a limit is left that asks Redis.
func takeHere(draws []draw) (admitted, asks bool) {
	admitted = true
	for i := range draws {
		d := &draws[i]
		d.mu.Lock()
		if d.store == nil {
			d.lookLocal()
		} else {
			d.lookShared()
		}
		asks = asks || d.asks
		admitted = admitted && (d.asks || d.admits())
	}
	for i := range draws {
		d := &draws[i]
		switch {
		case !admitted:
		case d.asks:
			if d.lease > 0 && d.own && !d.acc.leading { // others take what they need, or a crowd would take a lease each
				d.acc.leading, d.leads = true, true
				d.want = max(d.cost, d.lease-d.acc.leased)
			}
		case d.wait > 0: // only watched
		case d.bucket != nil:
			d.bucket.AllowN(d.now, d.cost)
		default:
			d.acc.leased -= d.cost
		}
		d.mu.Unlock()
	}
	return admitted, asks
}

func (d *draw) lookLocal() {
	d.now = d.tick()
	var own bool
	if d.bucket, own = d.table.get(d.key.bytes(), d.plan, d.now); !own {
		d.spills++
	}
	d.measure(d.bucket.TokensAt(d.now))
}

// measure books what a bucket with so many tokens says to the request.
func (d *draw) measure(tokens float64) {
	d.wait = d.plan.untilHeld(float64(d.cost) - tokens)
	if d.wait == 0 {
		tokens = max(0, tokens-float64(d.cost))
	}
	if d.left = int(tokens); d.left < d.plan.burst {
		d.next = d.plan.untilHeld(float64(d.left+1) - tokens)
	}
}

func (d *draw) lookShared() {
	d.open()
	g := d.plan.gcra
	if d.own {
		d.floor = d.acc.debt
	}
	if d.own && d.acc.leased >= d.cost {
		d.left, d.next = d.acc.leased-d.cost+g.left(d.floor), time.Duration(g.next(d.floor))
		return
	}
	d.asks, d.want = true, d.cost
	d.wait = time.Duration(g.wait(d.floor, d.cost)) // at least, should others refuse before Redis is asked
}

// takeThere asks Redis for the rest. Where it cannot, every limit does what it
// is told to do then.
func takeThere(ctx context.Context, draws []draw) (admitted bool, err error) {
	var store *Store
	asks := make([]ask, 0, len(draws))
	for i := range draws {
		if d := &draws[i]; d.asks {
			store = d.store
			asks = append(asks, ask{
				draw: i, key: d.key.redis(d.name, d.plan.suffix), gcra: d.plan.gcra,
				cost: d.cost, want: d.want, floor: d.floor, must: !d.report,
			})
		}
	}
	admitted, down := store.take(ctx, asks)
	for i := range asks {
		draws[asks[i].draw].settle(&asks[i], admitted)
	}
	if down != nil {
		admitted, err = takeShares(draws, down)
	}
	if !admitted || err != nil {
		giveBack(draws)
	}
	return admitted, err
}

// settle books what Redis answered.
func (d *draw) settle(a *ask, admitted bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	asked := d.at() // before Redis's step, so that the debt is not told too large
	d.open()
	if d.leads {
		d.acc.leading = false
	}
	if !a.answered {
		return
	}
	g, debt, spent := d.plan.gcra, decay(a.debt, d.at()-asked), 0
	if admitted && a.taken > 0 {
		spent = d.cost
	}
	if d.own {
		d.acc.debt = max(d.acc.debt, debt)
		if rest := a.taken - spent; rest > 0 && d.lease > 0 {
			d.acc.leased, d.acc.until = min(d.lease, d.acc.leased+rest), asked+int64(d.lease)*g.interval*leaseFills
		}
	}
	d.wait = 0
	if a.taken == 0 { // as Redis saw it, or a wait could be over by now
		d.wait = time.Duration(g.wait(a.debt, d.cost))
	}
	d.left, d.next = g.left(debt)+a.taken-spent, time.Duration(g.next(debt))
}

// takeShares decides without Redis: every limit that is to go on takes from
// this gateway's share of the bucket, all or none.
func takeShares(draws []draw, down error) (admitted bool, err error) {
	for i := range draws {
		d := &draws[i]
		if !d.asks {
			continue
		}
		d.wait = 0
		d.fallbacks.Add(1)
		if hook := d.store.o.OnFallback; hook != nil {
			hook(d.name, d.onError, down)
		}
		switch d.onError {
		case OnErrorLocal:
			d.shares = d.store.Replicas()
		case OnErrorDeny:
			refused := d.unavailable(down)
			if !d.report {
				return false, refused
			}
			d.silent, d.denied = true, refused
		case OnErrorAllow:
			d.silent = true
		}
	}
	admitted = true
	for i := range draws {
		if d := &draws[i]; d.shares > 0 {
			d.mu.Lock()
			if d.open(); !d.own {
				d.spills++
			}
			d.wait = time.Duration(d.share().wait(d.acc.debt, d.cost))
			admitted = admitted && d.admits()
		}
	}
	for i := range draws {
		if d := &draws[i]; d.shares > 0 {
			g := d.share()
			if admitted && d.wait == 0 {
				d.acc.debt += int64(d.cost) * g.interval
			}
			d.left, d.next = g.left(d.acc.debt), time.Duration(g.next(d.acc.debt))
			d.mu.Unlock()
		}
	}
	return admitted, nil
}

func (d *draw) unavailable(down error) *token.Error {
	return &token.Error{Reason: token.StoreUnavailable, Detail: "cannot ask Redis about the limit " + d.name + ": " + down.Error(), RetryAfter: openFor}
}

func (d *draw) share() gcra { return d.plan.gcra.share(d.shares, d.cost) }

// giveBack returns what takeHere took, after another limit refused.
func giveBack(draws []draw) {
	for i := range draws {
		d := &draws[i]
		if d.asks || d.wait > 0 {
			continue
		}
		d.mu.Lock()
		if d.store == nil {
			// A Reservation's Cancel would give back less if others took
			// meanwhile, and nothing once its time has come.
			d.bucket.AllowN(d.tick(), -d.cost)
		} else if d.open(); d.own && d.at() < d.acc.until {
			d.acc.leased = min(d.lease, d.acc.leased+d.cost)
		}
		d.mu.Unlock()
	}
}

// count keeps the metrics.
func count(draws []draw, admitted bool) {
	for i := range draws {
		d := &draws[i]
		switch {
		case d.wait > 0 && d.report, d.denied != nil:
			d.reported.Add(1)
		case d.wait > 0:
			d.refused.Add(1)
		case admitted:
			d.admitted.Add(1)
		}
	}
}

// conclude tells the caller.
func conclude(draws []draw, admitted bool) (Decision, error) {
	var tightest Decision
	var worst, reported *draw
	for i := range draws {
		d := &draws[i]
		switch {
		case d.wait > 0 && d.report:
			if reported == nil || d.wait > reported.wait {
				reported = d
			}
		case d.denied != nil:
			tightest.Reported = d.denied
		case d.wait > 0 && (worst == nil || d.wait > worst.wait):
			worst = d
		}
		if admitted && !d.report && !d.silent {
			tightest = tightest.Tighter(Decision{Limit: d.name, Remaining: d.left, Reset: d.next, plan: d.plan})
		}
	}
	if admitted {
		if reported != nil && tightest.Reported == nil {
			tightest.Reported = reported.refusal()
		}
		return tightest, nil
	}
	r := worst.refusal()
	for i := range draws {
		if d := &draws[i]; d.wait > 0 && !d.report {
			r.Violated = append(r.Violated, d.name)
		}
	}
	return Decision{}, r
}

func (d *draw) refusal() *Refused {
	return &Refused{
		Limit: d.name, Quota: d.plan.quota, Window: d.plan.window,
		Remaining: d.left, RetryAfter: d.wait, Reduced: d.shares > 0,
	}
}
