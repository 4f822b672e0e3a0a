package upstream

import (
	"fmt"
	"net/http"
	"time"
)

// Outliers says which targets are ejected for how they answer requests. The
// words are those of Envoy's outlier detection.
type Outliers struct {
	ConsecutiveGatewayFailure int // refused, timed out, broken off, or answered with 502, 503 or 504, in a row; 0: not counted
	Consecutive5xx            int // the same, or answered with any other 5xx; 0: not counted
	BaseEjectionTime          time.Duration
	MaxEjectionTime           time.Duration
	MaxEjectionPercent        int // of the targets
}

// outcome is how a request to a target ended.
type outcome int

const (
	succeeded    outcome = iota // with any status but those below
	serverError                 // 5xx, but not:
	gatewayError                // 502, 503, 504
	refusedUs                   // no connection, or it broke before the headers
	timedOut                    // before the headers
	brokeOff                    // the response did so, or stood still
	clientEnded                 // which says nothing about the target
	outcomeCount
)

var outcomeNames = [outcomeCount]string{"success", "server_error", "gateway_error", "refused", "timeout", "broken_off", "client"}

// Failures in a row are counted in two ways.
const (
	gatewayFailures = iota
	anyFailures
	failureCount
)

// answered is the outcome of a response with that status, if it ends well.
func answered(status int) outcome {
	switch {
	case status == http.StatusBadGateway, status == http.StatusServiceUnavailable, status == http.StatusGatewayTimeout:
		return gatewayError
	case status >= 500:
		return serverError
	}
	return succeeded
}

func (t *target) begin() { t.inFlight.Add(1) }

// end takes down how a request ended that began, and ejects a target that fails
// too often.
func (p *Pool) end(t *target, o outcome) {
	t.inFlight.Add(-1)
	t.outcomes[o].Add(1)
	if p.Outliers == nil || o == clientEnded {
		return
	}
	p.count(t, gatewayFailures, o >= gatewayError, p.Outliers.ConsecutiveGatewayFailure, o)
	p.count(t, anyFailures, o >= serverError, p.Outliers.Consecutive5xx, o)
}

func (p *Pool) count(t *target, kind int, failed bool, limit int, o outcome) {
	row := &t.failures[kind]
	switch {
	case limit == 0:
	case !failed:
		if row.Load() != 0 { // no write where there is nothing to change: all requests share the line
			row.Store(0)
		}
	default:
		if n := row.Add(1); n%int64(limit) == 0 { // and again, should it not be the time to eject one
			p.eject(t, fmt.Sprintf("%d failures in a row, the last: %s", n, outcomeNames[o]))
		}
	}
}

// ejected says whether a target is out for its failures.
func (t *target) ejected(now time.Time) bool { return now.Before(t.ejectedUntil) }

// eject takes a target out, longer each time, unless too many are out.
func (p *Pool) eject(t *target, why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if t.gone || t.ejected(now) || p.closed {
		return // by requests that had begun before
	}
	out := 1
	for _, other := range p.targets {
		if other.ejected(now) {
			out++
		}
	}
	most := len(p.targets) * p.Outliers.MaxEjectionPercent / 100
	if len(p.targets) > 1 {
		most = max(1, most) // or a small percentage would never eject one of a few
	}
	base := p.Outliers.BaseEjectionTime
	if out > most {
		if now.Sub(t.spared) >= base { // or the log would grow with the requests
			t.spared = now
			p.Log.Warn("target is not ejected: too many are out", "upstream", p.Name(), "target", t.name, "why", why, "max_ejection_percent", p.Outliers.MaxEjectionPercent)
		}
		return
	}
	if t.times > 0 { // each base_ejection_time of good conduct takes one back
		t.times = max(0, t.times-int(now.Sub(t.readmitted)/base))
	}
	t.times++
	t.ejectedFor = min(base*time.Duration(t.times), max(base, p.Outliers.MaxEjectionTime))
	t.ejectedUntil, t.since = now.Add(t.ejectedFor), now
	t.ejections++
	p.Log.Warn("target ejected", "upstream", p.Name(), "target", t.name, "why", why, "for", t.ejectedFor.String())
	p.renew(now)
}

// readmit takes back a target whose time is over. mu is held.
func (p *Pool) readmit(t *target, now time.Time) {
	t.ejectedUntil, t.readmitted, t.since, t.warmed = time.Time{}, now, now, now
	for i := range t.failures {
		t.failures[i].Store(0)
	}
	p.Log.Info("target returns after its ejection", "upstream", p.Name(), "target", t.name, "after", t.ejectedFor.String())
}
