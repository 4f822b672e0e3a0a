package upstream

import (
	"fmt"
	"time"
)

// Status is what is known of a target at one moment.
type Status struct {
	Target       string            `json:"target"` // host:port or unix:/path
	URL          string            `json:"url"`
	Weight       int               `json:"weight"`
	State        string            `json:"state"` // healthy, unhealthy, unchecked, ejected; unknown where nobody asks
	Healthy      bool              `json:"-"`     // as far as checks know
	Since        time.Time         `json:"since"`
	Why          string            `json:"why,omitempty"` // what the last check found wrong
	EjectedUntil *time.Time        `json:"ejected_until,omitempty"`
	Ejections    uint64            `json:"ejections"`
	InFlight     int64             `json:"requests_in_flight"`
	Requests     map[string]uint64 `json:"requests"` // by outcome
}

// Usable says whether requests go to it.
func (s *Status) Usable() bool { return s.Healthy && s.EjectedUntil == nil }

// Status returns what is known of each target.
func (p *Pool) Status() []Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	list := make([]Status, len(p.targets))
	for i, t := range p.targets {
		s := Status{
			Target: t.name, URL: t.URL.String(), Weight: t.weight, State: t.state(now), Healthy: t.health == unknown || t.health == healthy, Since: t.since,
			Ejections: t.ejections, InFlight: t.inFlight.Load(), Requests: make(map[string]uint64, outcomeCount),
		}
		if t.why != nil {
			s.Why = t.why.Error()
		}
		if t.ejected(now) {
			until := t.ejectedUntil
			s.EjectedUntil = &until
		}
		for o := range t.outcomes {
			s.Requests[outcomeNames[o]] = t.outcomes[o].Load()
		}
		list[i] = s
	}
	return list
}

// state is the word for how a target fares. mu is held.
func (t *target) state(now time.Time) string {
	switch {
	case t.ejected(now):
		return "ejected"
	case t.health == unknown:
		return "unknown"
	}
	return string(t.health)
}

// Targets returns the targets' URLs, and where they are if not there.
func (p *Pool) Targets() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]string, len(p.targets))
	for i, t := range p.targets {
		list[i] = t.key
	}
	return list
}

// none says why no target can be asked, and for how long.
func (p *Pool) none() error {
	p.mu.Lock()
	e := &Error{Failure: NoHealthyTarget, Err: fmt.Errorf("%s has no targets", p.Name())}
	if n := len(p.targets); n > 0 {
		first := p.targets[0]
		e.Err = fmt.Errorf("none of the %d targets of %s is healthy; %s is %s", n, p.Name(), first.name, first.state(time.Now()))
	}
	p.mu.Unlock()
	if returns := p.view.Load().returns; !returns.IsZero() {
		e.RetryAfter = max(0, time.Until(returns))
	} else if p.Health != nil {
		e.RetryAfter = p.Health.Interval
	}
	return e
}
