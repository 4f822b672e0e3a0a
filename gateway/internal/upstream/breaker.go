package upstream

import (
	"fmt"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
)

// Breaker says when an upstream as a whole fails so much that it is left alone.
type Breaker struct {
	FailurePercentage int           // of the requests in Interval, from which on the circuit opens
	RequestVolume     int           // so many requests at least say something
	Interval          time.Duration // that is looked at
	OpenTime          time.Duration // until some requests are tried again
}

// trials are how many requests a half-open circuit lets pass at one time; so
// many must succeed, and none fail, for it to close.
const trials = 3

// circuit counts for itself who is under way while it is half open: a permit of
// the library's comes back only with a success or a failure, and a client that
// goes away is neither.
type circuit struct {
	circuitbreaker.CircuitBreaker[any]
	pool *Pool

	mu      sync.Mutex
	round   uint64    // begins with half-open; what was admitted before says nothing about now
	began   time.Time // the round
	awaited int       // requests that were admitted in it, and not judged
}

func (p *Pool) newCircuit() *circuit {
	b := p.Breaker
	return &circuit{pool: p, CircuitBreaker: circuitbreaker.NewBuilder[any]().
		WithFailureRateThreshold(float64(b.FailurePercentage)/100, uint(b.RequestVolume), b.Interval).
		WithDelay(b.OpenTime).
		WithSuccessThreshold(trials).
		OnOpen(func(e circuitbreaker.StateChangedEvent) {
			p.Log.Warn("circuit opens", "upstream", p.Name(), "why", fmt.Sprintf("%d of %d requests failed", e.Metrics().Failures(), e.Metrics().Executions()), "for", b.OpenTime.String())
		}).
		OnHalfOpen(func(circuitbreaker.StateChangedEvent) { p.Log.Info("circuit is half open", "upstream", p.Name()) }).
		OnClose(func(circuitbreaker.StateChangedEvent) { p.Log.Info("circuit closes", "upstream", p.Name()) }).
		Build()}
}

// admit lets a request pass, which must then be judged once, with the round
// that it was admitted in. The error is an *[Error].
func (c *circuit) admit() (round uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	state, left := c.State(), c.RemainingDelay()
	if state == circuitbreaker.OpenState && left == 0 {
		c.HalfOpen()
		c.round, c.began, c.awaited = c.round+1, time.Now(), 0
		state = circuitbreaker.HalfOpenState
	}
	// Clients that send their bodies byte by byte, or targets that hang, keep
	// their places: so there are as many more after each open time.
	if state == circuitbreaker.OpenState || state == circuitbreaker.HalfOpenState && c.awaited >= trials*(1+int(time.Since(c.began)/c.pool.Breaker.OpenTime)) {
		return 0, &Error{Failure: CircuitOpen, Err: fmt.Errorf("the circuit of %s is %s", c.pool.Name(), state), RetryAfter: left}
	}
	c.awaited++
	return c.round, nil
}

// judge takes down what became of a request that was admitted.
func (c *circuit) judge(round uint64, o outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if round != c.round {
		return
	}
	c.awaited--
	switch {
	case o == clientEnded: // which says nothing about the upstream
	case o >= gatewayError:
		c.RecordFailure()
	default:
		c.RecordSuccess()
	}
}

// Circuit returns the breaker's state: closed, open or half-open; "" without one.
func (p *Pool) Circuit() string {
	if p.breaker == nil {
		return ""
	}
	return p.breaker.State().String()
}

// judge tells the breaker, as soon as it is known, what became of the request.
func (t *tries) judge(o outcome) {
	if t.pool.breaker == nil || t.judged {
		return
	}
	t.judged = true
	t.pool.breaker.judge(t.round, o)
}
