package upstream

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"gatehouse/gateway/internal/inject"
)

// tries is one request's way to its targets, of which it asks one after the
// other; only one in a pool without retries.
type tries struct {
	pool   *Pool
	call   *Call
	target *target                 // that is asked now
	ended  outcome                 // of its try
	body   *requestBody            // nil without one
	ending *ending                 // of the exchange; nil: the request's context ends with it
	added  added                   // to its headers
	own    [5]inject.Header        // added: one allocation
	tried  []*target               // those before
	cancel context.CancelCauseFunc // ends the present try; nil without retries
	told   atomic.Bool             // the client has an informational response
	round  uint64                  // of the breaker, that it was admitted in
	judged bool                    // the breaker knows what became of the request
}

// begin admits a request, and picks its first target. The error is an *[Error].
func (p *Pool) begin(c *Call) (*tries, error) {
	if p.MaxRequests > 0 && p.inFlight.Add(1) > int64(p.MaxRequests) {
		p.inFlight.Add(-1)
		return nil, &Error{Failure: Overloaded, Err: fmt.Errorf("%s has %d requests in flight, as many as max_requests allows", p.Name(), p.MaxRequests)}
	}
	target := p.pick(c.HashKey)
	var round uint64
	var err error
	if target == nil {
		err = p.none()
	} else if p.breaker != nil {
		round, err = p.breaker.admit()
	}
	if err != nil {
		p.leave()
		return nil, err
	}
	if p.budget != nil {
		p.budget.request(time.Now())
	}
	target.begin()
	return &tries{pool: p, call: c, target: target, ended: clientEnded, round: round}, nil
}

func (p *Pool) leave() {
	if p.MaxRequests > 0 {
		p.inFlight.Add(-1)
	}
}

// end takes down what became of the request's last try.
func (t *tries) end() {
	if t.cancel != nil {
		t.cancel(nil)
	}
	t.judge(clientEnded)
	t.pool.end(t.target, t.ended)
	t.pool.leave()
}
