package upstream

import (
	"fmt"
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

func (p *Pool) newBreaker() circuitbreaker.CircuitBreaker[any] {
	b := p.Breaker
	return circuitbreaker.NewBuilder[any]().
		WithFailureRateThreshold(float64(b.FailurePercentage)/100, uint(b.RequestVolume), b.Interval).
		WithDelay(b.OpenTime).
		WithSuccessThreshold(trials).
		OnOpen(func(e circuitbreaker.StateChangedEvent) {
			p.Log.Warn("circuit opens", "upstream", p.Name(), "why", fmt.Sprintf("%d of %d requests failed", e.Metrics().Failures(), e.Metrics().Executions()), "for", b.OpenTime.String())
		}).
		OnHalfOpen(func(circuitbreaker.StateChangedEvent) { p.Log.Info("circuit is half open", "upstream", p.Name()) }).
		OnClose(func(circuitbreaker.StateChangedEvent) { p.Log.Info("circuit closes", "upstream", p.Name()) }).
		Build()
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
	b := t.pool.breaker
	if b == nil || t.judged {
		return
	}
	t.judged = true
	switch {
	case o == clientEnded:
		// It says nothing; but a permit of a half-open circuit must be given
		// back, and without a good answer the circuit must not close.
		if b.IsHalfOpen() {
			b.RecordFailure()
		}
	case o >= gatewayError:
		b.RecordFailure()
	default:
		b.RecordSuccess()
	}
}
