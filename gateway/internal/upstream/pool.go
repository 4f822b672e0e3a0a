package upstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options are what a pool is made from. Nothing in them is changed afterwards.
type Options struct {
	Name      string
	Targets   []Target    // to begin with
	Source    Source      // tells of others from [Pool.Start] on; nil: Targets are all
	TLS       *tls.Config // of https; nil is net/http's own
	Balance   Balance
	SlowStart time.Duration // how long a target that comes, or comes back, takes until it gets its whole share; 0: none
	Health    *Health       // nil: targets are not asked
	Outliers  *Outliers     // nil: no target is ejected
	TryAll    bool          // where no target is healthy all are taken; else requests fail

	NetHTTP        bool          // every request goes by net/http's Transport, those without a body, too
	ConnectTimeout time.Duration // to a connection, and once more to the end of its TLS handshake; 0: 5 s
	MaxRequests    int           // in flight; one more fails; 0: any number
	Retries        *Retries      // nil: a request is sent once
	Breaker        *Breaker      // nil: requests are sent however many fail

	Log *slog.Logger // is told of each change of a target's state; nil: nobody is
}

// Pool is an upstream: targets that all serve the same thing, and the
// connections to them. It is safe for concurrent use.
//
// A request reads one immutable view, without a lock. All that changes who may
// be picked goes through mu, and ends in a new view.
type Pool struct {
	Options
	view    atomic.Pointer[view]
	next    atomic.Uint64 // turn of the round
	random  func() uint64
	buffers buffers

	inFlight atomic.Int64 // with MaxRequests
	budget   *budget      // nil without Retries
	retried  [retryOutcomeCount]atomic.Uint64
	breaker  *circuit // nil without Breaker

	mu      sync.Mutex
	targets []*target // in the order of the source
	circle  circle    // of all targets; nil unless balanced by hash
	first   bool      // the source has told of targets
	told    chan struct{}
	timer   *time.Timer // makes the next view where time alone changes it
	ctx     context.Context
	cancel  context.CancelFunc
	closed  bool
	running sync.WaitGroup // the source and the checks
}

// New makes a pool; it opens no connection and starts nothing yet. A target's
// path, if it has one, is put before each request's. The scheme h2c stands for
// HTTP/2 without TLS, by prior knowledge (RFC 9113 §3.3).
func New(o Options) *Pool {
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	p := &Pool{Options: o, random: rand.Uint64, told: make(chan struct{})}
	p.ConnectTimeout = cmp.Or(o.ConnectTimeout, connectTimeout)
	if o.Retries != nil {
		p.budget = &budget{percent: o.Retries.BudgetPercent, start: time.Now()}
	}
	if o.Breaker != nil {
		p.breaker = p.newCircuit()
	}
	p.view.Store(&view{})
	if o.Targets != nil {
		p.set(o.Targets)
	}
	return p
}

// Start begins to follow the source and to check the targets. It returns when
// it knows each of the first targets from a check, or ctx ends. It is called
// once at most.
func (p *Pool) Start(ctx context.Context) {
	p.mu.Lock()
	p.ctx, p.cancel = context.WithCancel(context.Background())
	for _, t := range p.targets {
		p.watch(t)
	}
	if p.Source != nil {
		p.running.Go(func() { p.Source.Run(p.ctx, p.set) })
	}
	p.mu.Unlock()
	select {
	case <-p.told:
	case <-ctx.Done():
		return
	}
	if p.Health == nil {
		return
	}
	p.mu.Lock()
	first := slices.Clone(p.targets)
	p.mu.Unlock()
	for _, t := range first {
		select {
		case <-t.checked:
		case <-ctx.Done():
			return
		}
	}
}

// Name returns the upstream's name.
func (p *Pool) Name() string { return p.Options.Name }

// Close ends what Start began, and closes idle connections; those in use close
// when they become idle.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	if p.cancel != nil {
		p.cancel()
	}
	if p.timer != nil {
		p.timer.Stop()
	}
	p.mu.Unlock()
	p.running.Wait()
	for _, t := range p.targets {
		t.transport.CloseIdleConnections()
	}
}

// set replaces the targets. Those that stay keep their connections, counts and
// state; those that go finish the requests that they have.
func (p *Pool) set(list []Target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	now := time.Now()
	old, names := make(map[string]*target, len(p.targets)), make(map[string]bool, len(p.targets))
	for _, t := range p.targets {
		old[t.key], names[t.name] = t, true
	}
	targets, seen := make([]*target, 0, len(list)), make(map[string]bool, len(list))
	for _, told := range list {
		key := told.key()
		if seen[key] {
			continue
		}
		seen[key] = true
		t := old[key]
		delete(old, key)
		if t == nil {
			t = newTarget(told, key, &p.Options)
			if names[t.name] { // such as two schemes of one port
				t.name = key
			}
			names[t.name] = true
			p.add(t, now)
		}
		t.weight = max(1, told.Weight)
		targets = append(targets, t)
	}
	for _, t := range old {
		t.gone = true
		if t.unwatch != nil {
			t.unwatch()
		}
		t.transport.CloseIdleConnections()
		p.Log.Info("target removed", "upstream", p.Name(), "target", t.name)
	}
	p.targets = targets
	if p.Balance == Hash {
		p.circle = newCircle(targets)
	}
	p.renew(now)
	if !p.first {
		p.first = true
		close(p.told)
	}
}

// add takes up a target that was not there before. mu is held.
func (p *Pool) add(t *target, now time.Time) {
	if p.first { // others are there, and warm
		t.warmed = now
		if p.Health != nil {
			t.health = unchecked
		}
		p.Log.Info("target added", "upstream", p.Name(), "target", t.name)
	}
	if p.ctx != nil {
		p.watch(t)
	}
}

// renew makes the view that the targets' states ask for, and has the next one
// made when one is due. mu is held.
func (p *Pool) renew(now time.Time) {
	if p.closed {
		return
	}
	v := &view{}
	var shares, spare []share
	var due time.Time
	sooner := func(at *time.Time, other time.Time) {
		if at.IsZero() || other.Before(*at) {
			*at = other
		}
	}
	for _, t := range p.targets {
		if !t.ejectedUntil.IsZero() {
			if t.ejected(now) {
				sooner(&v.returns, t.ejectedUntil)
				continue
			}
			p.readmit(t, now)
		}
		warmth, more := p.warmth(t, now)
		switch t.health {
		case unhealthy:
		case unchecked:
			spare = append(spare, share{t, t.weight})
		default:
			shares = append(shares, share{t, t.weight * warmth})
			if more > 0 {
				sooner(&due, now.Add(more))
			}
		}
	}
	if len(shares) == 0 {
		shares = spare // nobody has said a bad word of them
	}
	if len(shares) == 0 && p.TryAll {
		for _, t := range p.targets {
			shares = append(shares, share{t, t.weight})
		}
	}
	if !v.returns.IsZero() {
		sooner(&due, v.returns)
	}
	v.turns = spread(shares)
	if p.circle != nil {
		v.circle = p.circle.of(shares, p.targets)
	}
	p.view.Store(v)
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	if !due.IsZero() {
		p.timer = time.AfterFunc(due.Sub(now), p.tick)
	}
}

// tick does what time alone changes: targets come back, and warm up.
func (p *Pool) tick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.renew(time.Now())
}

// buffers is an httputil.BufferPool.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if buf, ok := b.pool.Get().(*[copyBufferBytes]byte); ok {
		return buf[:]
	}
	return make([]byte, copyBufferBytes)
}

func (b *buffers) Put(buf []byte) { b.pool.Put((*[copyBufferBytes]byte)(buf)) }
