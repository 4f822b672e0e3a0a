package revoke

import (
	"time"

	"github.com/redis/go-redis/v9"
)

// Sync is how a [Replica] learns of changes.
type Sync string

// The ways to follow Redis.
const (
	Tracking Sync = "tracking" // server-assisted invalidation; [Poll] while Redis refuses it
	Poll     Sync = "poll"     // everything is read again and again
)

// The defaults of [Options].
const (
	DefaultMaxStale     = 5 * time.Minute
	DefaultPollInterval = time.Second
	DefaultMaxEntries   = 20_000_000
)

// Options configures a [Lookup] or a [Replica].
type Options struct {
	// Client leads to a single server, to what Sentinel calls the master, or to
	// a Cluster. A Replica opens further connections with the same settings. It
	// must not read from replicas: they may not yet know what was revoked.
	Client redis.UniversalClient
	// Database names the servers and the database that Client leads to, whoever
	// logs in and however: where two names are the same, so are the revocations.
	// "" is the same as no other.
	Database string
	Check    []Kind
	// Allow lets tokens pass while nobody can tell whether they were revoked;
	// the default is to refuse them with store_unavailable.
	Allow bool
	// OnError is told of every request that Allow decided, either way. It may
	// be nil, and must be safe for concurrent use.
	OnError func(error)

	// The rest is a Replica's.

	Sync         Sync          // default [Tracking]
	PollInterval time.Duration // pause between two polls; they never take more than half of the time
	MaxStale     time.Duration // how long the copy decides after the last good state
	// MaxEntries bounds the copy. With more revocations than that in Redis it
	// is not in step, which is better than a process without memory.
	MaxEntries int
	// From is the Replica that this one takes the place of, nil if none: what
	// was seen revoked stays so over a change of settings. If its Database is
	// the same, MaxStale counts on from its last good state.
	From *Replica
	// OnChange is told when the Replica falls out of step, comes back, changes
	// its mode or finds a warning. It may be nil; it must not block, nor call
	// the Replica.
	OnChange func(Health)
}
