package revoke

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"gatehouse/gateway/token"
)

const (
	// topologyInterval is how often a Cluster is asked for its masters.
	topologyInterval = time.Second
	// sweepInterval is how often all expired entries are freed.
	sweepInterval = time.Minute
)

// Replica keeps a copy of all revocations in memory and follows Redis, so that
// a request waits for nothing. What it has seen revoked stays so until its own
// expiry, whatever Redis loses; only a write of [NotRevoked] lifts it. It is
// safe for concurrent use.
type Replica struct {
	o      Options
	rows   []row // of the kinds to look at
	ledger *ledger

	inStep  atomic.Bool
	good    atomic.Int64 // last time at which everything was known, on the ledger's clock; 0: never
	resyncs atomic.Uint64

	mu      sync.Mutex
	servers map[string]*server
	err     error // why there are no servers
	told    Health
	first   chan struct{} // closed once every server was tried

	stop context.CancelFunc
	wg   sync.WaitGroup
}

// server is a follower and how it stands.
type server struct {
	*follower
	standing
	tried bool
}

// NewReplica makes a Replica; it opens no connection yet.
func NewReplica(o Options) *Replica {
	o.Sync = cmp.Or(o.Sync, Tracking)
	o.PollInterval = cmp.Or(o.PollInterval, DefaultPollInterval)
	o.MaxStale = cmp.Or(o.MaxStale, DefaultMaxStale)
	o.MaxEntries = cmp.Or(o.MaxEntries, DefaultMaxEntries)
	r := &Replica{o: o, servers: map[string]*server{}, first: make(chan struct{})}
	if from := o.From; from == nil {
		r.ledger = newLedger()
	} else {
		r.ledger = from.ledger
		if o.Database != "" && o.Database == from.o.Database {
			r.good.Store(from.good.Load())
		}
		r.o.From = nil // or every reload would keep all before it in memory
	}
	r.rows = r.ledger.rows(looked(o.Check))
	return r
}

// Start begins to follow Redis, and returns when the first load has ended,
// well or badly, or ctx is done; ctx ends nothing else. Call it once.
func (r *Replica) Start(ctx context.Context) {
	var own context.Context
	own, r.stop = context.WithCancel(context.WithoutCancel(ctx))
	r.wg.Go(func() { r.follow(own) })
	r.wg.Go(func() { r.sweep(own) })
	select {
	case <-r.first:
	case <-ctx.Done():
	}
}

// Close stops it and waits. What it has seen still decides afterwards, for as
// long as MaxStale says.
func (r *Replica) Close() {
	if r.stop != nil {
		r.stop()
	}
	r.wg.Wait()
}

// retryAfter is told to callers while nobody knows what is revoked.
const retryAfter = time.Second

// Check returns nil if v was not revoked, else an *[token.Error] with
// [token.RevokedToken], or with [token.StoreUnavailable] if what is known is
// older than MaxStale and the posture is to deny. It does no I/O and never
// waits for any.
func (r *Replica) Check(_ context.Context, v *token.Verified) error {
	if kind := r.ledger.revokes(v, r.rows); kind != "" {
		return token.Errorf(token.RevokedToken, "revoked by %s (issuer %s)", kind, v.Issuer)
	}
	if r.current() {
		return nil
	}
	err := r.stale()
	if r.o.OnError != nil {
		r.o.OnError(err)
	}
	if r.o.Allow {
		return nil
	}
	return &token.Error{Reason: token.StoreUnavailable, Detail: err.Error(), RetryAfter: retryAfter}
}

// current says whether the copy may decide.
func (r *Replica) current() bool {
	if r.inStep.Load() {
		return true
	}
	good := r.good.Load()
	return good > 0 && r.ledger.now()-good <= r.o.MaxStale.Milliseconds()
}

// stale says why the copy may not decide.
func (r *Replica) stale() error {
	h := r.Health()
	if h.LastGood.IsZero() {
		return fmt.Errorf("revocations were never loaded: %w", h.Err)
	}
	return fmt.Errorf("revocations are %s old, more than max_stale (%s): %w", h.Age.Round(time.Second), r.o.MaxStale, h.Err)
}

// Health is how a Replica stands. Of a Cluster it tells the worst server's.
type Health struct {
	Mode      Sync          // "" before it is known
	Connected bool          // to every server that it has to follow
	InStep    bool          // every revocation in Redis is in the copy, or will be at once
	LastGood  time.Time     // when that was last certain; zero if never
	Age       time.Duration // since LastGood
	Denies    bool          // tokens that are not known to be revoked are refused now
	Servers   int
	Entries   int
	Bytes     int64  // estimate of what the entries take
	Resyncs   uint64 // loads of everything from a server, the first included
	Warning   string // what an operator should change, or ""
	Err       error  // why it is not in step; nil if it is
}

// Health tells how r stands. It does no I/O.
func (r *Replica) Health() Health {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.health()
}

var errNotYet = errors.New("the first load has not ended")

// health needs r.mu.
func (r *Replica) health() Health {
	h := Health{Servers: len(r.servers), Entries: int(r.ledger.size.Load()), Resyncs: r.resyncs.Load(), InStep: r.inStep.Load()}
	h.Bytes = int64(h.Entries) * entryBytes
	if good := r.good.Load(); good > 0 {
		h.LastGood = r.ledger.time(good)
		h.Age = time.Since(h.LastGood)
	}
	h.Connected = len(r.servers) > 0
	h.Err = r.err
	for _, s := range r.servers {
		h.Connected = h.Connected && s.connected
		if h.Mode != Poll { // the worse of the two
			h.Mode = cmp.Or(s.mode, h.Mode)
		}
		h.Warning = cmp.Or(h.Warning, s.warning)
		h.Err = cmp.Or(h.Err, s.standing.err)
	}
	if h.InStep {
		h.Err = nil
	} else if h.Err == nil {
		h.Err = errNotYet
	}
	h.Denies = !r.o.Allow && !r.current()
	return h
}

// Tolerant says whether requests pass while nobody can tell what is revoked.
func (r *Replica) Tolerant() bool { return r.o.Allow }

// report takes down how a server stands.
func (r *Replica) report(name string, f *follower, now standing) {
	r.mu.Lock()
	s := r.servers[name]
	if s == nil || s.follower != f {
		r.mu.Unlock()
		return // of a server that has left
	}
	s.tried = s.tried || now.inStep || now.err != nil
	if now.loaded {
		r.resyncs.Add(1)
	}
	now.good = max(now.good, s.good)
	if now.mode == "" {
		now.mode, now.warning = s.mode, s.warning
	}
	s.standing = now
	r.settle()
}

// settle draws the sum of all servers. It needs r.mu, and unlocks it.
func (r *Replica) settle() {
	inStep, tried := len(r.servers) > 0, len(r.servers) > 0 || r.err != nil
	good := never
	for _, s := range r.servers {
		inStep, tried = inStep && s.inStep, tried && s.tried
		good = min(good, s.good)
	}
	if len(r.servers) > 0 {
		r.good.Store(max(r.good.Load(), good))
	}
	r.inStep.Store(inStep)
	if tried {
		select {
		case <-r.first:
		default:
			close(r.first)
		}
	}
	h, before := r.health(), r.told
	changed := h.InStep != before.InStep || h.Mode != before.Mode || h.Warning != before.Warning || text(h.Err) != text(before.Err)
	if changed {
		r.told = h
	}
	if changed && r.o.OnChange != nil {
		// Under the lock, so that changes are told in their order.
		r.o.OnChange(h)
	}
	r.mu.Unlock()
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// follow keeps a follower for each server until ctx ends.
func (r *Replica) follow(ctx context.Context) {
	defer r.inStep.Store(false)
	defer r.leave(nil)
	tick := time.NewTicker(topologyInterval)
	defer tick.Stop()
	for {
		r.attend(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// attend starts followers for servers that have come, and stops those of
// servers that have gone.
func (r *Replica) attend(ctx context.Context) {
	masters, err := r.masters(ctx)
	if err != nil {
		// Whoever is followed already says itself how it stands.
		r.mu.Lock()
		if len(r.servers) == 0 {
			r.err = err
		}
		r.settle()
		return
	}
	r.leave(masters)
	r.mu.Lock()
	r.err = nil
	for name, f := range masters {
		if r.servers[name] != nil {
			continue
		}
		f.done = make(chan struct{})
		f.report = func(s standing) { r.report(name, f, s) }
		var own context.Context
		own, f.stop = context.WithCancel(ctx)
		r.servers[name] = &server{follower: f}
		go f.run(own)
	}
	r.settle()
}

// leave stops the followers of all servers but those.
func (r *Replica) leave(but map[string]*follower) {
	var gone []*server
	r.mu.Lock()
	for name, s := range r.servers {
		if but[name] == nil {
			gone = append(gone, s)
			delete(r.servers, name)
		}
	}
	r.mu.Unlock()
	for _, s := range gone {
		s.stop()
		<-s.done
	}
}

// masters returns the servers to follow by their names.
func (r *Replica) masters(ctx context.Context) (map[string]*follower, error) {
	of := func(o *redis.Options) *follower {
		return &follower{
			options:  *o,
			reader:   reader{ledger: r.ledger, limit: r.o.MaxEntries},
			sync:     r.o.Sync,
			pause:    r.o.PollInterval,
			patience: r.o.MaxStale,
		}
	}
	switch client := r.o.Client.(type) {
	case *redis.Client:
		f := of(client.Options())
		f.current = func(ctx context.Context) string { return identity(ctx, client) }
		return map[string]*follower{"": f}, nil
	case *redis.ClusterClient:
		var mu sync.Mutex
		found := map[string]*follower{}
		err := within(ctx, readTimeout, func(ctx context.Context) error {
			return client.ForEachMaster(ctx, func(_ context.Context, node *redis.Client) error {
				f := of(node.Options())
				f.reader.cluster = client
				mu.Lock()
				defer mu.Unlock()
				found[node.Options().Addr] = f
				return nil
			})
		})
		if err == nil && len(found) == 0 {
			err = errors.New("the Cluster names no master")
		}
		return found, err
	}
	return nil, fmt.Errorf("cannot follow a %T: revocations need a single server, Sentinel or a Cluster", r.o.Client)
}

// sweep frees expired entries, one shard at a time, until ctx ends.
func (r *Replica) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepInterval / shards)
	defer tick.Stop()
	for n := 0; ; n = (n + 1) % shards {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.ledger.sweep(n)
		}
	}
}
