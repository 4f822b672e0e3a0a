package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Health says how targets are asked whether they are well.
type Health struct {
	Path      string // with a query, perhaps; a target's own path is put before it
	Host      string // "": the target's
	Interval  time.Duration
	Timeout   time.Duration
	Healthy   int           // good checks in a row that make a target healthy
	Unhealthy int           // bad ones that make it unhealthy
	Expect    []StatusRange // of which the answer's status must be
}

// StatusRange is a range of HTTP statuses, both ends included.
type StatusRange struct{ From, To int }

// health is what checks say of a target.
type health string

const (
	unknown   health = ""          // nobody has asked; it is taken to be well
	unchecked health = "unchecked" // it joined others, and is not used before it was asked while one of them is well
	healthy   health = "healthy"
	unhealthy health = "unhealthy"
)

const maxCheckBody = 64 << 10

// watch begins to check a target. mu is held, and Start was called.
func (p *Pool) watch(t *target) {
	if p.Health == nil {
		return
	}
	var ctx context.Context
	ctx, t.unwatch = context.WithCancel(p.ctx)
	p.running.Go(func() {
		for {
			err := p.Health.ask(ctx, t)
			if ctx.Err() != nil {
				return
			}
			p.found(t, err)
			select {
			case <-time.After(jittered(p.Health.Interval)):
			case <-ctx.Done():
				return
			}
		}
	})
}

// jittered is d give or take a tenth, so that not all gateways ask at once.
func jittered(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}

// ask checks a target once, over the connections that requests use.
func (h *Health) ask(ctx context.Context, t *target) error {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	u := *t.url
	path, query, _ := strings.Cut(h.Path, "?")
	u.RawPath, u.RawQuery = strings.TrimSuffix(u.EscapedPath(), "/")+path, query
	var err error
	if u.Path, err = url.PathUnescape(u.RawPath); err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	r.Host = h.Host
	r.Header.Set("User-Agent", "gatehouse-health-check")
	res, err := t.transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode == http.StatusSwitchingProtocols {
		return errors.New("status 101") // what would be read is the connection, which ctx does not end
	}
	// Read, so that the connection serves again; a longer body costs it.
	if _, err := io.Copy(io.Discard, io.LimitReader(res.Body, maxCheckBody)); err != nil {
		return err
	}
	for _, s := range h.Expect {
		if s.From <= res.StatusCode && res.StatusCode <= s.To {
			return nil
		}
	}
	return fmt.Errorf("status %d", res.StatusCode)
}

// found takes down what a check found. The first decides alone: before it
// nothing was known.
func (p *Pool) found(t *target, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	is, needs := healthy, p.Health.Healthy
	if err != nil {
		is, needs = unhealthy, p.Health.Unhealthy
	}
	t.why = err
	was := t.health
	if first := was == unknown || was == unchecked; first {
		defer close(t.checked)
		needs = 1
	}
	if was == is {
		t.row = 0
		return
	}
	if t.row++; t.row < needs {
		return
	}
	now := time.Now()
	t.health, t.row, t.since = is, 0, now
	switch {
	case is == unhealthy:
		p.Log.Warn("target is unhealthy", "upstream", p.Name(), "target", t.name, "why", err.Error())
	case was == unknown: // as was taken for granted
		return
	default:
		if was == unhealthy {
			t.warmed = now
		}
		p.Log.Info("target is healthy", "upstream", p.Name(), "target", t.name, "was", string(was))
	}
	p.renew(now)
}
