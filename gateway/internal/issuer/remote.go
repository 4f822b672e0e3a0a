package issuer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxMisses = 1024             // unknown kids remembered
	maxWait   = 2 * time.Second  // for a fetch under way
	maxFetch  = 10 * time.Second // for one answer, from dialling to its last byte
	backOff   = time.Second      // from a first failed fetch to the next; each further one waits twice as long
)

// remote keeps the keys that an issuer publishes: one goroutine fetches them,
// in good time or when a token names a key that is not there, and replaces
// the set. Nothing but a token with an unknown kid ever waits for it.
type remote struct {
	o       *Options
	keys    *atomic.Pointer[keySet]
	fetcher fetcher
	wait    time.Duration // maxWait
	backOff time.Duration // backOff

	start1 sync.Once
	stop   context.CancelFunc // set by start
	ended  chan struct{}      // closed when the goroutine is gone
	first  chan struct{}      // closed when the first fetch ended
	wake   chan struct{}      // asks the goroutine for a fetch

	mu     sync.Mutex
	flight chan struct{} // closed when the fetch asked for or under way ends; nil without one
	state
	misses map[string]time.Time // kids that the fetch asked for then did not bring
	closed bool

	from     *remote         // whose place this one takes, until it starts; may be nil
	replaced atomic.Bool     // by one that started: the snapshot is that one's to write
	reasons  map[string]bool // keys that were logged as left out; of the goroutine alone
}

// state is how fetching stands, beside the keys.
type state struct {
	started  time.Time // when the last fetch was asked for
	sought   time.Time // when an unknown kid last asked for one
	due      time.Time // when the next one is
	err      error     // why the last one failed; nil if it did not
	failures int       // in a row
	brought  brought   // what the fetcher knew after the last one
}

func newRemote(o *Options, keys *atomic.Pointer[keySet]) (*remote, error) {
	f, err := newFetcher(o)
	if err != nil {
		return nil, err
	}
	return &remote{
		o: o, keys: keys, fetcher: f, wait: maxWait, backOff: backOff,
		ended: make(chan struct{}), first: make(chan struct{}), wake: make(chan struct{}, 1),
		state:  state{err: errors.New("not fetched yet")},
		misses: map[string]time.Time{}, reasons: map[string]bool{},
	}, nil
}

func (r *remote) start(ctx context.Context) {
	r.start1.Do(func() {
		r.takeOver()
		if r.keys.Load() == nil {
			r.readSnapshot()
		}
		background, stop := context.WithCancel(context.WithoutCancel(ctx))
		r.mu.Lock()
		defer r.mu.Unlock()
		r.brought = r.fetcher.brought
		if r.closed {
			stop()
			close(r.ended)
			return
		}
		r.stop = stop
		go r.run(background)
	})
	var patience <-chan time.Time
	if r.keys.Load() != nil { // a snapshot serves while a dead provider is waited for
		timer := time.NewTimer(r.wait)
		defer timer.Stop()
		patience = timer.C
	}
	select {
	case <-r.first:
	case <-r.ended:
	case <-ctx.Done():
	case <-patience:
	}
}

func (r *remote) close() {
	r.mu.Lock()
	r.closed = true
	stop := r.stop
	r.mu.Unlock()
	if stop != nil {
		stop()
		<-r.ended
	}
}

func (r *remote) run(ctx context.Context) {
	defer close(r.ended)
	due, _ := r.standing()
	timer := time.NewTimer(due.Sub(r.o.Now())) // at once, but for keys that were taken over
	defer timer.Stop()
	for {
		full := true
		select {
		case <-ctx.Done():
			r.mu.Lock()
			r.land()
			r.mu.Unlock()
			return
		case <-timer.C:
			r.mu.Lock()
			if r.flight == nil {
				r.takeOff()
			}
			r.mu.Unlock()
		case <-r.wake:
			r.mu.Lock()
			served := r.flight == nil // by a fetch that was due at the same time
			r.mu.Unlock()
			if served {
				continue
			}
			full = false
		}
		timer.Reset(r.refresh(ctx, full))
	}
}

// takeOff marks a fetch as under way; land as ended. r.mu must be held.
func (r *remote) takeOff() {
	r.flight, r.started = make(chan struct{}), r.o.Now()
}

func (r *remote) land() {
	if r.flight != nil {
		close(r.flight)
		r.flight = nil
	}
}

// refresh fetches the keys and returns when to do so again. full asks for
// discovery too.
func (r *remote) refresh(ctx context.Context, full bool) time.Duration {
	r.mu.Lock()
	started := r.started
	r.mu.Unlock()
	set, wait, err := r.fetch(ctx, full, started)
	r.fetcher.client.CloseIdleConnections()
	before := r.keys.Load()

	r.mu.Lock()
	recovered := err == nil && r.failures > 0
	r.err = err
	if err != nil {
		wait = min(r.backOff<<min(r.failures, 20), r.o.MinRefreshInterval)
		r.failures++
	} else {
		r.failures = 0
		clear(r.misses)
		r.keys.Store(set)
		wait = max(r.o.MinRefreshInterval, min(wait, r.o.Refresh))
	}
	// Many gateways that were started together must not fetch together.
	wait = time.Duration(float64(wait) * (0.9 + 0.2*rand.Float64()))
	r.due = r.o.Now().Add(wait)
	r.brought = r.fetcher.brought
	r.land()
	r.mu.Unlock()

	if ctx.Err() == nil { // not when a fetch was cut off by Close
		switch {
		case err != nil:
			r.o.Log.Warn("cannot fetch the issuer's keys", "error", err, "retry_in", wait.Round(time.Millisecond), "keys_at_hand", before != nil)
		case before == nil || !maps.Equal(before.prints, set.prints):
			r.o.Log.Info("the issuer's keys", "keys", names4log(set))
		case recovered:
			r.o.Log.Info("the issuer's keys can be fetched again")
		}
	}
	if err == nil && !r.o.SnapshotReadOnly && !r.replaced.Load() {
		r.writeSnapshot(set.fetched)
	}
	select {
	case <-r.first:
	default:
		close(r.first)
	}
	return wait
}

func names4log(set *keySet) []string {
	var out []string
	for _, k := range set.keys[:min(len(set.keys), 20)] {
		out = append(out, k.name())
	}
	return out
}

// fetch returns the keys as the issuer publishes them now, and how long that
// answer may be believed.
func (r *remote) fetch(ctx context.Context, full bool, now time.Time) (*keySet, time.Duration, error) {
	uri, err := r.fetcher.keySetURI(ctx, full || r.failure() != nil, now)
	if err != nil {
		return nil, 0, err
	}
	set, wait, err := r.fetchKeys(ctx, uri, now)
	if err != nil {
		err = fmt.Errorf("key set %s: %w", uri, err)
	}
	r.o.OnFetch("jwks", err)
	return set, wait, err
}

func (r *remote) fetchKeys(ctx context.Context, uri string, now time.Time) (*keySet, time.Duration, error) {
	answer, err := r.fetcher.keySet(ctx, uri)
	if err != nil {
		return nil, 0, err
	}
	if answer.unchanged {
		return r.keys.Load().at(now), answer.maxAge, nil
	}
	set, reasons, err := parseJWKS(answer.body, r.o.Algorithms)
	r.logSkipped(reasons)
	if err != nil {
		return nil, 0, err
	}
	r.fetcher.accept(uri, answer)
	return set.at(now), answer.maxAge, nil
}

// logSkipped tells once of each key that is left out.
func (r *remote) logSkipped(reasons map[string]error) {
	if len(r.reasons) > maxKeys {
		clear(r.reasons)
	}
	for _, which := range slices.Sorted(maps.Keys(reasons)) {
		err := reasons[which]
		if line := which + ": " + err.Error(); !r.reasons[line] {
			r.reasons[line] = true
			log := r.o.Log.Warn
			if errors.Is(err, errOtherUse) {
				log = r.o.Log.Debug
			}
			log("a published key is left out", "key", which, "reason", err)
		}
	}
}

// seek has the keys fetched again for the sake of a kid that they lack, if
// that is allowed now, and waits for the fetch under way. asked is when the
// fetch that was waited for was asked for, or zero. An error says that nobody
// can tell whether such a key exists.
func (r *remote) seek(ctx context.Context, kid string) (asked time.Time, err error) {
	now := r.o.Now()
	r.mu.Lock()
	if at, missed := r.misses[kid]; missed && now.Sub(at) < r.o.MinRefreshInterval {
		defer r.mu.Unlock()
		return asked, r.doubt(now)
	}
	if r.flight == nil {
		// Only such fetches count, not those of the schedule: a provider that is
		// polled often would else never be asked about its new key at once. While
		// fetches fail the schedule alone asks again, often enough.
		last := r.sought
		if r.err != nil {
			last = r.started
		}
		if r.closed || now.Sub(last) < r.o.MinRefreshInterval {
			defer r.mu.Unlock()
			return asked, r.doubt(now)
		}
		r.sought = now
		r.takeOff()
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
	flight, started := r.flight, r.started
	r.mu.Unlock()

	done := r.o.OnWait(ctx, "jwks")
	defer func() { done(err) }()
	timer := time.NewTimer(r.wait)
	defer timer.Stop()
	select {
	case <-flight:
		return started, r.failure()
	case <-timer.C:
		return started, fmt.Errorf("no answer within %s", r.wait)
	case <-ctx.Done(): // this caller's haste says nothing about the kid
		return asked, ctx.Err()
	}
}

// doubt is why the keys at hand may not be the issuer's latest. r.mu must be held.
func (r *remote) doubt(now time.Time) error {
	if slow := now.Sub(r.started); r.err == nil && r.flight != nil && slow >= r.wait {
		return fmt.Errorf("no answer for %s", slow.Round(time.Second))
	}
	return r.err
}

// missed remembers a kid that no fetch brought, so that tokens with it need not
// wait for the next one that is under way. It is forgotten with the next good
// fetch, and when one may be asked for again: a kid that was guessed before
// the provider rotated to it must not stay refused.
func (r *remote) missed(kid string, asked time.Time, seen *keySet) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if asked.IsZero() || r.keys.Load() != seen {
		return
	}
	if len(r.misses) >= maxMisses {
		clear(r.misses)
	}
	r.misses[kid] = asked
}

// failure is why the last fetch failed, or nil.
func (r *remote) failure() error {
	_, err := r.standing()
	return err
}

// standing is when the next fetch is due, and why the last one failed.
func (r *remote) standing() (due time.Time, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.due, r.err
}

// why is failure for a message.
func (r *remote) why() error {
	if err := r.failure(); err != nil {
		return err
	}
	return errors.New("the last fetch was good, but long ago")
}

func (r *remote) retryAfter(now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return max(time.Second, r.due.Sub(now).Round(time.Second))
}
