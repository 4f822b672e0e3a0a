package limit

import (
	"cmp"
	"net/netip"
	"time"
)

// FailureOptions describe the limit of failed authentications.
type FailureOptions struct {
	Name       string // as callers see it; "": FailuresName
	Rate       Rate
	Burst      int              // 0: Rate.Count
	IPv6Prefix int              // 0: DefaultIPv6Prefix
	MaxEntries int              // 0: DefaultMaxEntries
	Now        func() time.Time // nil: time.Now
}

// Failures counts the failed authentications of each address, in this process.
// Who is over the limit is not worth the cost of verifying another signature.
// It is safe for concurrent use.
type Failures struct{ l *Limiter }

// FailuresName is the name that callers see where [FailureOptions] say none.
const FailuresName = "auth_failures"

// NewFailures makes a Failures; the error says which option cannot be used.
func NewFailures(o FailureOptions) (*Failures, error) {
	l, err := New(Options{
		Name: cmp.Or(o.Name, FailuresName), Keys: []string{"ip"}, Rate: o.Rate, Burst: o.Burst,
		IPv6Prefix: o.IPv6Prefix, MaxEntries: o.MaxEntries, Now: o.Now,
	})
	return &Failures{l}, err
}

// Over returns a *[Refused] if the address has failed too often, else nil. It
// takes nothing, and remembers no address.
func (f *Failures) Over(ip netip.Addr) error {
	d := draw{Limiter: f.l, plan: &f.l.plans[0], cost: 1}
	d.key.write(f.l, &Subject{IP: ip}, 0)
	f.l.mu.Lock()
	defer f.l.mu.Unlock()
	b := f.l.table.look(d.key.bytes())
	if b == nil {
		return nil
	}
	if d.wait = d.plan.untilHeld(1 - b.TokensAt(f.l.tick())); d.wait == 0 {
		return nil
	}
	f.l.refused.Add(1)
	r := d.refusal()
	r.Violated = []string{d.name}
	return r
}

// Add counts a failed authentication of the address.
func (f *Failures) Add(ip netip.Addr) {
	l, p := f.l, &f.l.plans[0]
	var k key
	k.write(l, &Subject{IP: ip}, 0)
	l.admitted.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.tick()
	b, own := l.table.get(k.bytes(), p, now)
	if !own {
		l.spills++
	}
	b.AllowN(now, 1)
}

// Stats returns counts for metrics: Admitted are the failures that were
// counted, Refused the requests that Over refused.
func (f *Failures) Stats() Stats { return f.l.Stats() }
