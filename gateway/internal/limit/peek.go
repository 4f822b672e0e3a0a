package limit

import (
	"context"
	"time"
)

// State is what one limit says to a request that has not been charged.
type State struct {
	Limit     string
	Quota     int           // tokens that the limit allows in Window, in the long run
	Window    time.Duration // whole seconds
	Cost      int           // tokens that the request takes
	Remaining int           // tokens that are left once it has
	Wait      time.Duration // until the request is admitted; 0: it is
	Report    bool          // it would pass all the same
	Shared    bool
	Down      error // why Redis could not be asked; nil if it was, or need not be
}

// Peek says what [Take] would say to s, and takes nothing, counts nothing and
// remembers nobody. Of shared limits it asks Redis. The states are those of the
// limits that cost something; the decision and the error are Take's.
func Peek(ctx context.Context, limiters []*Limiter, s Subject) ([]State, Decision, error) {
	draws := prepare(nil, limiters, &s)
	var asks []ask
	var store *Store
	for i := range draws {
		d := &draws[i]
		d.mu.Lock()
		if d.store == nil {
			d.peekLocal()
		} else if d.peekShared(); d.asks {
			store = d.store
			asks = append(asks, ask{draw: i, key: d.key.redis(d.name, d.plan.suffix), gcra: d.plan.gcra, cost: d.cost})
		}
		d.mu.Unlock()
	}
	var down, refused error
	if asks != nil {
		down = store.look(ctx, asks)
	}
	for _, a := range asks {
		d := &draws[a.draw]
		switch {
		case a.answered:
			d.owes(d.plan.gcra, max(a.debt, d.floor))
		case d.onError == OnErrorLocal:
			d.shares = store.Replicas()
			d.owes(d.share(), d.floor)
		case d.onError == OnErrorDeny && d.report:
			d.silent, d.denied = true, d.unavailable(down)
		case d.onError == OnErrorDeny:
			refused = d.unavailable(down)
		default:
			d.silent = true
		}
	}
	states := make([]State, len(draws))
	admitted := true
	for i := range draws {
		d := &draws[i]
		admitted = admitted && d.admits()
		states[i] = State{
			Limit: d.name, Quota: d.plan.quota, Window: d.plan.window, Cost: d.cost, Remaining: d.left,
			Wait: d.wait, Report: d.report, Shared: d.store != nil,
		}
		if d.asks {
			states[i].Down = down
		}
	}
	if refused != nil {
		return states, Decision{}, refused
	}
	decision, err := conclude(draws, admitted)
	return states, decision, err
}

// peekLocal is lookLocal that makes no bucket.
func (d *draw) peekLocal() {
	tokens := float64(d.plan.burst)
	if b := d.table.look(d.key.bytes()); b != nil {
		tokens = b.TokensAt(d.tick())
	}
	d.measure(tokens)
}

// peekShared is lookShared that makes no account.
func (d *draw) peekShared() {
	d.now = d.tick()
	var a account
	if e, own := d.shared.entries[string(d.key.bytes())]; own {
		a = e.bucket
	}
	d.floor = decay(a.debt, d.at()-a.at)
	if a.leased >= d.cost && d.at() < a.until {
		d.left, d.next = a.leased-d.cost+d.plan.gcra.left(d.floor), time.Duration(d.plan.gcra.next(d.floor))
		return
	}
	d.asks = true
}

// owes books what a bucket with that debt says to the request.
func (d *draw) owes(g gcra, debt int64) {
	if d.wait = time.Duration(g.wait(debt, d.cost)); d.wait == 0 {
		debt += int64(d.cost) * g.interval
	}
	d.left, d.next = g.left(debt), time.Duration(g.next(debt))
}
