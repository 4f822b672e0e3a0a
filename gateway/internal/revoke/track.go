package revoke

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// invalidations is the channel on which RESP2 connections get what
// CLIENT TRACKING redirects to them.
const invalidations = "__redis__:invalidate"

// refusal says that the server does not let us track.
type refusal struct{ err error }

func (r refusal) Error() string { return "Redis refuses CLIENT TRACKING: " + r.err.Error() }
func (r refusal) Unwrap() error { return r.err }

// text is for the operator; the zero refusal has none.
func (r refusal) text() string {
	if r.err == nil {
		return ""
	}
	return r.Error() + "; polling instead"
}

// refused makes a refusal of err if asking again would not help: an old
// server, a managed one, an ACL. Everything else may pass.
func refused(err error) error {
	var answer redis.Error
	if !errors.As(err, &answer) {
		return err
	}
	text := strings.ToLower(answer.Error())
	for _, word := range []string{"noperm", "unknown", "unsupported", "not supported", "not allowed", "permission", "disabled", "forbidden", "syntax error"} {
		if strings.Contains(text, word) {
			return refusal{err}
		}
	}
	return err
}

// track follows by server-assisted invalidation: one connection switches it
// on, another hears of it, and all that is there is read after that, so that
// no write falls in between. It returns why it cannot go on.
func (s *session) track(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)

	var id int64
	ears := s.ears(&id)
	defer func() { _ = ears.Close() }()
	sub := ears.Subscribe(ctx)
	defer func() { _ = sub.Close() }()
	if err := sub.Subscribe(ctx, invalidations); err != nil {
		return refused(err)
	}
	if first, err := sub.ReceiveTimeout(ctx, readTimeout); err != nil {
		return refused(err)
	} else if _, ok := first.(*redis.Subscription); !ok {
		return fmt.Errorf("Redis answers SUBSCRIBE with %T", first)
	}
	tracker := s.reader.node.Conn()
	defer func() { _ = tracker.Close() }()
	if err := tracker.Do(ctx, "client", "tracking", "on", "redirect", id, "bcast", "prefix", prefix).Err(); err != nil {
		return refused(err)
	}
	s.report(standing{mode: Tracking, connected: true, warning: s.warning})

	told := newPending()
	pings := &pings{}
	var wg sync.WaitGroup
	defer wg.Wait() // after fail and Close below
	defer func() { _ = sub.Close() }()
	defer fail(nil)
	wg.Go(func() { fail(s.listen(ctx, sub, told, pings)) })
	wg.Go(func() { fail(s.ping(ctx, sub, tracker, pings)) })

	err := s.keep(ctx, told)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// keep loads everything and then reads what the server tells of. It is in step
// as soon as it knows what is revoked; until when comes after.
func (s *session) keep(ctx context.Context, told *pending) error {
	readTold := func() error {
		keys, good := told.take()
		if err := s.reader.read(ctx, keys); err != nil {
			return err
		}
		if good > 0 {
			s.report(standing{mode: Tracking, connected: true, inStep: true, good: good, warning: s.warning})
		}
		return nil
	}
	start := max(s.reader.ledger.now(), 1)
	load := s.reader
	load.keep, load.later = true, s.reader.cluster == nil
	err := load.scan(ctx, func() error {
		keys, _ := told.take()
		return s.reader.read(ctx, keys)
	})
	if err != nil {
		return err
	}
	s.report(standing{mode: Tracking, connected: true, inStep: true, good: start, loaded: true, warning: s.warning})
	if load.later {
		if err := load.expiries(ctx, readTold); err != nil {
			return err
		}
	}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-told.wake:
			if err := readTold(); err != nil {
				return err
			}
		}
	}
}

// listen takes the server's messages until something is wrong. That includes
// a message without names, which FLUSHALL sends: all may have changed, and
// reading everything again is what a new session does.
func (s *session) listen(ctx context.Context, sub *redis.PubSub, told *pending, pings *pings) error {
	for {
		message, err := sub.Receive(ctx)
		if err != nil {
			return fmt.Errorf("the invalidation connection ended: %w", err)
		}
		switch m := message.(type) {
		case *redis.Message:
			keys := m.PayloadSlice
			if m.Payload != "" {
				keys = append(keys, m.Payload)
			}
			if err := told.add(keys); err != nil {
				return err
			}
		case *redis.Pong:
			if at, ok := pings.answered(m.Payload); ok {
				told.pong(at)
			}
		}
	}
}

// ping asks both connections for a sign of life until one gives none.
func (s *session) ping(ctx context.Context, sub *redis.PubSub, tracker *redis.Conn, pings *pings) error {
	tick := time.NewTicker(pingInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		if pings.waiting() {
			return errors.New("the invalidation connection is silent")
		}
		at := s.reader.ledger.now()
		// The tracking connection first: without it the other would answer
		// cheerfully and never be told anything.
		err := within(ctx, pingTimeout, func(ctx context.Context) error { return tracker.Ping(ctx).Err() })
		if err != nil {
			return fmt.Errorf("the tracking connection gives no sign of life: %w", err)
		}
		if err := s.replaced(ctx); err != nil {
			return err
		}
		if err := sub.Ping(ctx, pings.next(at)); err != nil {
			return fmt.Errorf("the invalidation connection gives no sign of life: %w", err)
		}
	}
}

// replaced is an error if new connections would reach another server.
func (s *session) replaced(ctx context.Context) error {
	if s.current == nil {
		return nil
	}
	return within(ctx, pingTimeout, func(ctx context.Context) error { return s.same(s.current(ctx)) })
}

// pings numbers the pings of the invalidation connection.
type pings struct {
	mu     sync.Mutex
	number int64
	sent   int64 // when the open one was sent; 0: none is open
}

func (p *pings) next(at int64) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.number++
	p.sent = max(at, 1)
	return strconv.FormatInt(p.number, 10)
}

func (p *pings) answered(number string) (at int64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if number != strconv.FormatInt(p.number, 10) {
		return 0, false
	}
	at, p.sent = p.sent, 0
	return at, at > 0
}

func (p *pings) waiting() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent > 0
}
