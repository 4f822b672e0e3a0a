package revoke

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	pingInterval = time.Second
	// A server that does not answer for that long is silent.
	pingTimeout = time.Second
	dialTimeout = 2 * time.Second
	// Pauses between attempts double from minBackoff to maxBackoff; each is
	// shortened at random by up to a half, so that many gateways do not come
	// back to a restarted Redis at one moment.
	minBackoff = 50 * time.Millisecond
	maxBackoff = 5 * time.Second
	// retryTracking is how often a server that refused tracking is asked again.
	retryTracking = time.Minute
)

// follower keeps the ledger in step with one server: the only one, the one
// that Sentinel names, or one master of a Cluster.
type follower struct {
	options redis.Options // of the gateway's own client
	reader  reader
	sync    Sync
	pause   time.Duration // between polls
	// patience is how long a poll may take: older than max_stale it would be
	// of no use.
	patience time.Duration
	// current tells which server a new connection of the gateway would reach;
	// "" if that is not known. A master that was replaced may still answer.
	current func(context.Context) string
	// report tells the Replica how it stands.
	report func(standing)

	stop context.CancelFunc
	done chan struct{}
}

// standing is how a follower stands.
type standing struct {
	mode      Sync // "" until it is known
	connected bool
	inStep    bool
	good      int64 // on the ledger's clock; 0: no news
	loaded    bool  // everything was read once more
	err       error // why it is not in step
	warning   string
}

// run follows until ctx ends.
func (f *follower) run(ctx context.Context) {
	defer close(f.done)
	wait := minBackoff
	for {
		loaded := false
		err := f.session(ctx, func(s standing) {
			loaded = loaded || s.loaded
			f.report(s)
		})
		if ctx.Err() != nil {
			return
		}
		f.report(standing{err: err})
		if loaded {
			wait = minBackoff
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait - rand.N(wait/2)):
		}
		wait = min(2*wait, maxBackoff)
	}
}

// session is one stretch of being in step; it returns why that is over.
func (f *follower) session(ctx context.Context, report func(standing)) error {
	for {
		var no refusal
		if f.sync != Poll {
			err := f.connect(ctx, report, "", (*session).track)
			if !errors.As(err, &no) {
				return err
			}
		}
		if err := f.connect(ctx, report, no.text(), (*session).poll); err != nil {
			return err
		}
	}
}

// session holds the connections of one stretch. All lead to one server, or
// the number of one connection would mean a stranger's on another.
type session struct {
	*follower
	reader  reader
	report  func(standing)
	warning string

	mu       sync.Mutex
	identity string // of that server; "" before the first connection or if it does not tell
}

func (f *follower) connect(ctx context.Context, report func(standing), warning string, follow func(*session, context.Context) error) error {
	s := &session{follower: f, reader: f.reader, report: report}
	s.reader.node = redis.NewClient(s.options())
	defer func() { _ = s.reader.node.Close() }()
	eviction, err := evictionWarning(ctx, s.reader.node)
	if err != nil {
		return err
	}
	s.warning = join(warning, eviction)
	return follow(s, ctx)
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}

var errOtherServer = errors.New("another server answers now")

// options are the gateway's own, made fit for the session's connections.
func (s *session) options() *redis.Options {
	o := s.follower.options
	o.Protocol = 2 // invalidations come as Pub/Sub messages (RESP2), whatever the gateway speaks
	o.DisableIdentity = true
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	o.MaxRetries = -1 // an error is the end of the session
	o.DialerRetries = 1
	o.DialTimeout = dialTimeout
	o.ReadTimeout, o.WriteTimeout = readTimeout, readTimeout
	o.ContextTimeoutEnabled = true
	o.PoolSize, o.MinIdleConns, o.MaxIdleConns, o.MaxActiveConns = 8, 0, 0, 0
	o.ConnMaxIdleTime, o.ConnMaxLifetime = -1, -1 // a connection that was retired would lose its tracking
	dial, before := o.Dialer, o.OnConnect
	o.Dialer = func(ctx context.Context, network, addr string) (cn net.Conn, err error) {
		err = within(ctx, dialTimeout, func(ctx context.Context) error {
			cn, err = dial(ctx, network, addr)
			return err
		})
		return cn, err
	}
	o.OnConnect = func(ctx context.Context, cn *redis.Conn) error {
		if before != nil {
			if err := before(ctx, cn); err != nil {
				return err
			}
		}
		return s.same(identity(ctx, cn))
	}
	return &o
}

// ears opens the client of the invalidation connection. It dials a single
// time: go-redis' Pub/Sub would reconnect by itself, and what was said in
// between be lost. id is that connection's number once it is there.
func (s *session) ears(id *int64) *redis.Client {
	o := s.options()
	same, dial, dialled := o.OnConnect, o.Dialer, atomic.Bool{}
	o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if dialled.Swap(true) {
			return nil, net.ErrClosed
		}
		return dial(ctx, network, addr)
	}
	o.OnConnect = func(ctx context.Context, cn *redis.Conn) (err error) {
		if err := same(ctx, cn); err != nil {
			return err
		}
		*id, err = cn.ClientID(ctx).Result()
		return err
	}
	return redis.NewClient(o)
}

// same notes the identity of the session's server, or refuses another's.
func (s *session) same(identity string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.identity == "" {
		s.identity = identity
	}
	if identity != "" && identity != s.identity {
		return errOtherServer
	}
	return nil
}

// identity tells servers apart: the run id, or where that is forbidden the
// address at which the server sees the connection.
func identity(ctx context.Context, cn interface {
	Info(context.Context, ...string) *redis.StringCmd
	Do(context.Context, ...any) *redis.Cmd
}) string {
	info, err := cn.Info(ctx, "server").Result()
	if id := field(info, "run_id:", "\r\n"); err == nil && id != "" {
		return id
	}
	info, _ = cn.Do(ctx, "client", "info").Text()
	return field(info, "laddr=", " ")
}

// field returns what stands between name and end in text.
func field(text, name, end string) string {
	_, rest, _ := strings.Cut(text, name)
	value, _, _ := strings.Cut(rest, end)
	return value
}

// evictionWarning says what is wrong with the server's way of making room, or
// "" if nothing is or it does not tell. The error is that it does not answer.
func evictionWarning(ctx context.Context, node *redis.Client) (string, error) {
	// A hung server must not hold us up longer than an absent one: Sentinel may
	// know another by now.
	if err := within(ctx, dialTimeout, func(ctx context.Context) error { return node.Ping(ctx).Err() }); err != nil {
		return "", fmt.Errorf("cannot reach Redis: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	answer, err := node.ConfigGet(ctx, "maxmemory-policy").Result()
	policy := answer["maxmemory-policy"]
	if err != nil { // often forbidden
		info, _ := node.Info(ctx, "memory").Result()
		policy = field(info, "maxmemory_policy:", "\r\n")
	}
	if policy == "" || policy == "noeviction" {
		return "", nil
	}
	return "maxmemory-policy is " + policy + ": a full Redis forgets revocations before any gateway has seen them; set it to noeviction", nil
}
