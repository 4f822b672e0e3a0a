package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Retries says which requests are sent once more, to another target. The words
// are those of Envoy's retry policy.
type Retries struct {
	NumRetries     int // for one request
	ConnectFailure bool
	Reset          bool          // the connection broke before the response's headers
	Statuses       []int         // of responses that are not sent on while there is another target
	PerTryTimeout  time.Duration // to the response's headers, after which another target is asked; 0: none but Call.Timeout, which bounds all tries together
	BudgetPercent  int           // of the requests of the last ten seconds
}

// maxReplay is how long a request's body may be to be kept for another try.
const maxReplay = 64 << 10

var errTryOver = fmt.Errorf("no headers within per_try_timeout: %w", os.ErrDeadlineExceeded)

// RoundTrip implements http.RoundTripper. Until it returns, the client has
// received nothing.
func (t *tries) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.pool.Retries == nil {
		return t.target.roundTrip(r, &t.added, t.ending)
	}
	t.added.into(r.Header)
	if t.ending != nil {
		r = r.WithContext(t.ending.context(r.Context()))
	}
	var replay []byte
	twice := idempotent(r) && !t.call.Once
	whole := t.body == nil // or kept
	if t.body != nil && twice && 0 < r.ContentLength && r.ContentLength <= maxReplay {
		var err error
		if replay, err = io.ReadAll(t.body); err != nil {
			_ = t.body.Close()
			return nil, err
		}
		whole = true
	}
	for {
		res, err, sent := t.once(r, replay, twice && whole)
		other := t.other(r, res, err, !sent || twice && whole, sent)
		if other == nil {
			if t.tried != nil && r.Context().Err() == nil {
				t.pool.retried[t.success(res, err)].Add(1)
			}
			return res, err
		}
		if res != nil {
			_ = res.Body.Close()
			t.cancel(nil)
		}
		t.tried, t.target = append(t.tried, t.target), other
		other.begin()
		r = r.WithContext(r.Context())
		u := *r.URL
		r.URL = &u
		aim(r, other.url, t.call)
	}
}

func (t *tries) success(res *http.Response, err error) retryOutcome {
	if err != nil || slices.Contains(t.pool.Retries.Statuses, res.StatusCode) {
		return retryFailed
	}
	return retrySucceeded
}

// once asks the present target; sent says that a part of the request may have
// reached it.
func (t *tries) once(r *http.Request, replay []byte, again bool) (_ *http.Response, _ error, sent bool) {
	var connected atomic.Bool
	var ctx context.Context
	ctx, t.cancel = context.WithCancelCause(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		GotConn:        func(httptrace.GotConnInfo) { connected.Store(true) },
		Got1xxResponse: func(int, textproto.MIMEHeader) error { t.told.Store(true); return nil },
	}))
	out := r.WithContext(ctx)
	switch {
	case replay != nil:
		out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(replay)), nil }
		out.Body, _ = out.GetBody()
	case t.body != nil:
		out.Body = &heldBody{t.body, &connected}
	}
	cancel := t.cancel
	var alarm *time.Timer
	if after := t.pool.Retries.PerTryTimeout; after > 0 && again {
		alarm = time.AfterFunc(after, func() { cancel(errTryOver) })
	}
	res, err := t.target.transport.RoundTrip(out)
	if alarm != nil && !alarm.Stop() && context.Cause(ctx) == errTryOver {
		if err == nil {
			_ = res.Body.Close()
		}
		res, err = nil, errTryOver
	}
	if err != nil {
		cancel(err)
	} // else when the response has been read
	return res, err, connected.Load()
}

// other is the target that is asked next; nil if what came is to be sent on.
func (t *tries) other(r *http.Request, res *http.Response, err error, safe, sent bool) *target {
	on := t.pool.Retries
	var again bool
	o := refusedUs
	var timeout net.Error
	switch {
	case r.Context().Err() != nil, t.body != nil && t.body.failed.Load() != nil:
		return nil // the client's doing, or the time for all tries is over
	case err == nil:
		again, o = slices.Contains(on.Statuses, res.StatusCode), answered(res.StatusCode)
	case !sent:
		again = on.ConnectFailure
	case errors.Is(err, errTryOver):
		again = true
	default:
		again = on.Reset
	}
	if err != nil && errors.As(err, &timeout) && timeout.Timeout() {
		o = timedOut
	}
	if !again || !safe || t.told.Load() || len(t.tried) >= on.NumRetries || sent && r.Header["Upgrade"] != nil {
		return nil
	}
	other := t.pool.another(t.call.HashKey, append(t.tried, t.target))
	if other == nil {
		return nil
	}
	if !t.pool.budget.take(time.Now()) {
		t.pool.retried[retryBudgetExhausted].Add(1)
		return nil
	}
	t.pool.end(t.target, o)
	return other
}

// idempotent says whether a request means the same if it is received twice (RFC
// 9110 §9.2.2).
func idempotent(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete, http.MethodTrace:
		return true
	}
	return false
}

// heldBody is a body that stays open, for another target, until a connection
// may have taken of it.
type heldBody struct {
	*requestBody
	connected *atomic.Bool
}

func (b *heldBody) Read(p []byte) (int, error) {
	b.connected.Store(true)
	return b.requestBody.Read(p)
}

func (b *heldBody) Close() error {
	if !b.connected.Load() {
		return nil
	}
	return b.requestBody.Close()
}

// retryOutcome is what became of a request that was to be tried again.
type retryOutcome int

const (
	retrySucceeded retryOutcome = iota
	retryFailed
	retryBudgetExhausted
	retryOutcomeCount
)

var retryOutcomeNames = [retryOutcomeCount]string{"success", "failure", "budget_exhausted"}

// Retried returns how many requests were tried again, by outcome: success,
// failure; and budget_exhausted: those that would have been.
func (p *Pool) Retried() map[string]uint64 {
	counts := make(map[string]uint64, retryOutcomeCount)
	for o := range p.retried {
		counts[retryOutcomeNames[o]] = p.retried[o].Load()
	}
	return counts
}

// A budget lets so many retries pass in budgetWindow as a share of its requests
// allows, and leastRetries, so that where requests are few one can be retried
// at all. Without it, retries would multiply the load of what fails of it.
const (
	budgetWindow = 10 // seconds
	leastRetries = 10
)

type budget struct {
	percent int
	start   time.Time

	mu    sync.Mutex
	slots [budgetWindow]struct{ second, requests, retries int }
}

// slot is that of now, begun anew if it is older. mu is held.
func (b *budget) slot(now time.Time) (second, at int) {
	second = int(now.Sub(b.start) / time.Second)
	at = second % budgetWindow
	if s := &b.slots[at]; s.second != second {
		s.second, s.requests, s.retries = second, 0, 0
	}
	return second, at
}

// request counts one that is no retry.
func (b *budget) request(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, at := b.slot(now)
	b.slots[at].requests++
}

// take counts a retry, unless there were too many.
func (b *budget) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	second, at := b.slot(now)
	requests, retries := 0, 0
	for _, s := range b.slots {
		if second-s.second < budgetWindow {
			requests, retries = requests+s.requests, retries+s.retries
		}
	}
	if retries >= leastRetries+requests*b.percent/100 {
		return false
	}
	b.slots[at].retries++
	return true
}
