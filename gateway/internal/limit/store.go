package limit

import (
	"cmp"
	"context"
	"crypto/rand"
	_ "embed" // the script
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sony/gobreaker/v2"
)

const (
	// DefaultTimeout bounds what a slow Redis can cost one request.
	DefaultTimeout = 150 * time.Millisecond
	// After tripAfter failures in a row Redis is left alone for openFor, so
	// that an outage costs later requests nothing; then one request tries.
	tripAfter = 3
	openFor   = time.Second
	// Gateways that asked Redis within beatWindow count as replicas; each says
	// so every beatEvery.
	beatEvery  = 5 * time.Second
	beatWindow = 30 * time.Second
)

// StoreOptions describe the Redis that gateways share.
type StoreOptions struct {
	Client   redis.UniversalClient // with ContextTimeoutEnabled and without retries
	Replicas int                   // gateways on this Redis, for their shares; 0: as last seen in Redis
	Timeout  time.Duration         // of one call; 0: DefaultTimeout
	// OnFallback is told of every limit that decided a request without Redis,
	// by which posture and why. It may be nil.
	OnFallback func(limit string, how OnError, err error)
	// OnState is told when Redis is given up for a while (up is false) and when
	// it answers again. It may be nil, and must not call the Store.
	OnState func(up bool)
	Now     func() time.Time // nil: time.Now
}

// Store is the Redis that gateways share, for all limits of one gateway. It is
// safe for concurrent use, starts no goroutine and does not own its client.
type Store struct {
	o        StoreOptions
	link     atomic.Pointer[link] // in place of o's Client and Replicas
	cluster  bool
	breaker  *gobreaker.CircuitBreaker[bool]
	id       string
	epoch    time.Time
	nextBeat atomic.Int64 // ns since epoch
	seen     atomic.Int64 // gateways
}

// NewStore makes a Store; it opens no connection yet.
func NewStore(o StoreOptions) *Store {
	o.Timeout = cmp.Or(o.Timeout, DefaultTimeout)
	if o.Now == nil {
		o.Now = time.Now
	}
	settings := gobreaker.Settings{
		Name:        "limits",
		Timeout:     openFor,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= tripAfter },
	}
	if o.OnState != nil {
		settings.OnStateChange = func(_ string, from, to gobreaker.State) {
			switch {
			case from == gobreaker.StateClosed:
				o.OnState(false)
			case to == gobreaker.StateClosed:
				o.OnState(true)
			}
		}
	}
	_, cluster := o.Client.(*redis.ClusterClient)
	s := &Store{
		o: o, cluster: cluster, epoch: o.Now(), id: rand.Text(),
		breaker: gobreaker.NewCircuitBreaker[bool](settings),
	}
	s.Use(o.Client, o.Replicas)
	s.o.Client = nil // or the first would stay in memory
	return s
}

// link is what may change while the buckets stay the same.
type link struct {
	client   redis.UniversalClient
	replicas int
}

// Use puts others in the place of [StoreOptions].Client and Replicas: what is
// known of the buckets outlives a change of credentials. The client must be of
// the same kind and lead to the same database; a call that is under way ends
// with the one before.
func (s *Store) Use(client redis.UniversalClient, replicas int) {
	s.link.Store(&link{client, replicas})
}

// Replicas returns how many gateways share the limits: as configured, or as
// last seen in Redis; 1 where Redis was never reached.
func (s *Store) Replicas() int {
	return max(1, cmp.Or(s.link.Load().replicas, int(s.seen.Load())))
}

// ask is what one call wants of one bucket, and what it got.
type ask struct {
	draw       int // number of the draw that asks
	key        string
	gcra       gcra
	cost, want int   // tokens: to be admitted, and to take if they are there
	floor      int64 // ns: a debt that the bucket is known to have
	must       bool

	answered bool
	debt     int64 // ns
	taken    int   // tokens
}

//go:embed take.lua
var takeLua string

var takeScript = redis.NewScript(takeLua)

// take asks for tokens from all buckets, in one atomic step. In a Cluster one
// step reaches one slot, so there the buckets of each slot are a step; a
// refusal ends it, and what earlier steps took stays taken. admitted says
// whether every bucket that must admit did.
func (s *Store) take(ctx context.Context, asks []ask) (admitted bool, err error) {
	return s.breaker.Execute(func() (bool, error) {
		// A caller that goes away must not break the connection that others use next.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.o.Timeout)
		defer cancel()
		admitted, err := s.steps(ctx, asks)
		if err == nil {
			s.beat(ctx)
		}
		return admitted, err
	})
}

// look asks about buckets and takes nothing: with asks that want nothing the
// script writes nothing. Who only looks is no gateway, and so is not counted.
func (s *Store) look(ctx context.Context, asks []ask) error {
	_, err := s.breaker.Execute(func() (bool, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.o.Timeout)
		defer cancel()
		return s.steps(ctx, asks)
	})
	return err
}

func (s *Store) steps(ctx context.Context, asks []ask) (admitted bool, err error) {
	if !s.cluster {
		return s.step(ctx, asks)
	}
	slices.SortStableFunc(asks, func(a, b ask) int { return strings.Compare(a.slot(), b.slot()) })
	for start := 0; start < len(asks); {
		end := start + 1
		for end < len(asks) && asks[end].slot() == asks[start].slot() {
			end++
		}
		if admitted, err = s.step(ctx, asks[start:end]); !admitted || err != nil {
			return false, err
		}
		start = end
	}
	return true, nil
}

// slot is what decides the key's slot in a Cluster, the first braces' content.
func (a *ask) slot() string {
	_, rest, _ := strings.Cut(a.key, "{")
	tag, _, _ := strings.Cut(rest, "}")
	return tag
}

func (s *Store) step(ctx context.Context, asks []ask) (admitted bool, err error) {
	keys := make([]string, len(asks))
	args := make([]any, 0, 6*len(asks))
	for i, a := range asks {
		keys[i] = a.key
		args = append(args, a.gcra.capacity, a.gcra.interval, a.cost, a.want, a.floor, a.must)
	}
	answer, err := takeScript.Run(ctx, s.link.Load().client, keys, args...).Int64Slice()
	if err != nil {
		return false, err
	}
	if len(answer) != 1+2*len(asks) {
		return false, fmt.Errorf("an answer of %d numbers from Redis for %d buckets", len(answer), len(asks))
	}
	for i := range asks {
		asks[i].answered, asks[i].debt, asks[i].taken = true, answer[1+2*i], int(answer[2+2*i])
	}
	return answer[0] == 1, nil
}

// The gateways are the members of a sorted set; the scores are microseconds
// since 1970 by Redis's clock, the window is in microseconds too.
var beatScript = redis.NewScript(`
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - ARGV[2]))
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[2] / 1000))
return redis.call('ZCARD', KEYS[1])
`)

// beat says now and then that this gateway is there, and counts the others. It
// goes with a request that Redis just answered, so no goroutine is needed;
// that it failed shows with the next one.
func (s *Store) beat(ctx context.Context) {
	now, due, link := int64(s.o.Now().Sub(s.epoch)), s.nextBeat.Load(), s.link.Load()
	if link.replicas > 0 || now < due || !s.nextBeat.CompareAndSwap(due, now+int64(beatEvery)) {
		return
	}
	if n, err := beatScript.Run(ctx, link.client, []string{"limit:replicas"}, s.id, beatWindow.Microseconds()).Int64(); err == nil {
		s.seen.Store(n)
	}
}
