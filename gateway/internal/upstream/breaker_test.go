package upstream

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// asks begins n requests; the test fails if one is refused.
func asks(t *testing.T, p *Pool, n int) []*tries {
	t.Helper()
	list := make([]*tries, n)
	for i := range list {
		var err error
		if list[i], err = p.begin(&Call{}); err != nil {
			t.Fatalf("request %d: %v", i+1, err)
		}
	}
	return list
}

// ended ends requests as Forward does.
func ended(o outcome, list ...*tries) {
	for _, request := range list {
		request.ended = o
		request.judge(o)
		request.end()
	}
}

// refused fails the test unless the next request is.
func refused(t *testing.T, p *Pool, after time.Duration) {
	t.Helper()
	request, err := p.begin(&Call{})
	var e *Error
	if !errors.As(err, &e) || e.Failure != CircuitOpen || e.RetryAfter != after {
		if request != nil {
			request.end()
		}
		t.Fatalf("%v, want the circuit to refuse it, for %s", err, after)
	}
}

func (p *Pool) circuitIs(t *testing.T, want string) {
	t.Helper()
	if got := p.Circuit(); got != want {
		t.Fatalf("the circuit is %s, want %s", got, want)
	}
}

const openTime = 5 * time.Second

// broken is a pool whose circuit has just opened.
func broken(t *testing.T) *Pool {
	t.Helper()
	p := newPool(t, Options{Targets: targetsOf(1), Breaker: &Breaker{FailurePercentage: 50, RequestVolume: 4, Interval: 10 * time.Second, OpenTime: openTime}})
	ended(gatewayError, asks(t, p, 4)...)
	p.circuitIs(t, "open")
	return p
}

// A client that goes away tells nothing of an upstream: neither does it open a
// half-open circuit again, nor keep the place that others could have.
func TestClientsThatGoWhileHalfOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := broken(t)
		time.Sleep(openTime - time.Nanosecond)
		refused(t, p, time.Nanosecond)
		time.Sleep(time.Nanosecond)
		for range 1000 {
			going := asks(t, p, trials)
			p.circuitIs(t, "half-open")
			refused(t, p, 0)
			ended(clientEnded, going...)
		}
		ended(succeeded, asks(t, p, trials-1)...)
		ended(clientEnded, asks(t, p, trials)...)
		p.circuitIs(t, "half-open")
		ended(succeeded, asks(t, p, 1)...)
		p.circuitIs(t, "closed")
		asks(t, p, 10*trials)
	})
}

// One that fails opens it, and what went before does not count any more.
func TestOneBadTrialOpensTheCircuit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := broken(t)
		for range 3 {
			time.Sleep(openTime)
			ended(succeeded, asks(t, p, trials-1)...)
			ended(gatewayError, asks(t, p, 1)...)
			p.circuitIs(t, "open")
			refused(t, p, openTime)
		}
	})
}

// Requests that were sent before the circuit opened say nothing about how the
// upstream fares when it is tried again, and take nobody's place.
func TestLateOutcomesAreNoTrials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, Options{Targets: targetsOf(1), Breaker: &Breaker{FailurePercentage: 50, RequestVolume: 4, Interval: 10 * time.Second, OpenTime: openTime}})
		late := asks(t, p, 20)
		ended(gatewayError, asks(t, p, 4)...)
		time.Sleep(openTime)
		held := asks(t, p, trials)
		for _, o := range []outcome{succeeded, timedOut, clientEnded} {
			ended(o, late[:5]...)
			late = late[5:]
			p.circuitIs(t, "half-open")
			refused(t, p, 0)
		}
		ended(timedOut, held[0])
		p.circuitIs(t, "open")
		time.Sleep(openTime)
		ended(succeeded, asks(t, p, 1)...)
		ended(timedOut, append(late, held[1:]...)...) // of the trial before
		p.circuitIs(t, "half-open")
		ended(succeeded, asks(t, p, trials-1)...)
		p.circuitIs(t, "closed")
	})
}

// Whoever keeps a place, such as by a body that never ends, cannot keep all
// others out.
func TestPlacesThatAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := broken(t)
		time.Sleep(openTime)
		kept := asks(t, p, trials)
		time.Sleep(openTime - time.Nanosecond)
		refused(t, p, 0)
		time.Sleep(time.Nanosecond)
		kept = append(kept, asks(t, p, trials-1)...)
		ended(succeeded, asks(t, p, 1)...)
		ended(succeeded, asks(t, p, 1)...)
		p.circuitIs(t, "half-open")
		ended(succeeded, asks(t, p, 1)...)
		p.circuitIs(t, "closed")
		ended(clientEnded, kept...)
		p.circuitIs(t, "closed")
	})
}

// Never are more tried at one time than said, whoever comes and goes.
func TestTrialsAtOneTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := broken(t)
		time.Sleep(openTime)
		var inFlight, admitted atomic.Int64
		var clients sync.WaitGroup
		for range 16 {
			clients.Go(func() {
				for range 500 {
					request, err := p.begin(&Call{})
					if err != nil {
						continue
					}
					admitted.Add(1)
					if n := inFlight.Add(1); n > trials {
						t.Errorf("%d at one time", n)
					}
					runtime.Gosched() // so that others come meanwhile
					inFlight.Add(-1)
					ended(clientEnded, request)
				}
			})
		}
		clients.Wait()
		if admitted.Load() < trials {
			t.Errorf("%d of 8000 were tried", admitted.Load())
		}
		p.circuitIs(t, "half-open")
		ended(succeeded, asks(t, p, trials)...)
		p.circuitIs(t, "closed")
	})
}
