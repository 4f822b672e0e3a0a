package revoke

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
)

const (
	// scanCount is how many keys one SCAN step looks at, which keeps Redis from
	// others for a millisecond or two. What it has touched is mostly still in the
	// processor's cache when the values are asked for; of larger pages it is not.
	scanCount = 1000
	// readers is how many pages are read at a time: one is parsed while Redis
	// works on another.
	readers = 2
	// readRound is after how many pages single keys may be read in between.
	readRound = 16
	// readChunk is how many keys one pipeline asks for at most: a page, which may
	// be a few more than scanCount, is one.
	readChunk = 2 * scanCount
	// readTimeout bounds one pipeline, and one step of a SCAN.
	readTimeout = 5 * time.Second
)

// reader reads revocations from one server into the ledger.
type reader struct {
	ledger *ledger
	limit  int
	node   *redis.Client // that server
	// keep is for a load: what is found may be older than what was seen, where
	// a replica became the master, and takes nothing of that back but by
	// [NotRevoked].
	keep bool
	// later leaves expiries to [reader.expiries]: they are what takes Redis
	// longest, and what is revoked is known without them.
	later bool
	// cluster answers for keys whose slot is on its way from or to node; nil
	// without a Cluster.
	cluster redis.UniversalClient
}

// errFull says that Redis holds more than the copy may.
type errFull struct{ limit int }

func (e errFull) Error() string {
	return fmt.Sprintf("Redis holds more than %d revocations, which is as many as the copy may take; give keys an expiry (EX), or use lookup mode", e.limit)
}

// scan reads every revocation there is. After each round of pages, and when no
// answer is under way, it calls between, which may read single keys: nothing
// older can come later and win.
func (r *reader) scan(ctx context.Context, between func() error) error {
	return r.pages(ctx, r.read, between)
}

// expiries reads when each revocation ends that a scan has left open.
func (r *reader) expiries(ctx context.Context, between func() error) error {
	err := r.pages(ctx, r.ttls, between)
	if err == nil {
		r.ledger.settle()
	}
	return err
}

// pages calls read with the names of all revocations, some at a time and
// several at once, and between after each round, when none of them runs.
func (r *reader) pages(ctx context.Context, read func(context.Context, []string) error, between func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	pages := make(chan []string, 4) // the next ones are on their way while these are read
	var failed error
	go func() {
		defer close(pages)
		failed = r.names(ctx, pages)
	}()
	defer func() {
		cancel()
		for range pages { //nolint:revive // until names has ended
		}
	}()
	for more := true; more; {
		round, ctx := errgroup.WithContext(ctx)
		round.SetLimit(readers)
		for range readRound {
			var page []string
			if page, more = <-pages; !more {
				break
			}
			if len(page) > 0 {
				round.Go(func() error { return read(ctx, page) })
			}
		}
		if err := round.Wait(); err != nil {
			return err
		}
		if err := between(); err != nil {
			return err
		}
	}
	return failed
}

// names sends the names of all revocations, page by page. Among many other keys
// most pages are empty; they are sent, too, or single keys would wait for all.
//
// To match a pattern is a tenth of Redis's work, so it is asked to only from
// the first page on of which most is none of ours.
func (r *reader) names(ctx context.Context, pages chan<- []string) error {
	match := ""
	for cursor := uint64(0); ; {
		var page []string
		err := within(ctx, readTimeout, func(ctx context.Context) (err error) {
			page, cursor, err = r.node.Scan(ctx, cursor, match, scanCount).Result()
			return err
		})
		if err != nil {
			return fmt.Errorf("cannot list the revocations (SCAN): %w", err)
		}
		found := len(page)
		page = slices.DeleteFunc(page, func(key string) bool { return !strings.HasPrefix(key, prefix) })
		if len(page) < found/2 {
			match = prefix + "*"
		}
		select {
		case pages <- page:
		case <-ctx.Done():
			return ctx.Err()
		}
		if cursor == 0 {
			return nil
		}
	}
}

func within(ctx context.Context, d time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return f(ctx)
}

// read brings the ledger to what Redis says of the keys now. A key that is not
// there changes nothing: only a write of [NotRevoked] lifts.
func (r *reader) read(ctx context.Context, keys []string) error {
	for part := range slices.Chunk(keys, readChunk) {
		if err := r.chunk(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) chunk(ctx context.Context, keys []string) error {
	var torn, moved []string
	var err error
	if r.cluster == nil && len(keys) > 1 {
		torn, err = r.many(ctx, keys)
	} else {
		torn, moved, err = r.once(ctx, r.node, keys)
	}
	for range 3 {
		switch {
		case err != nil:
			return err
		case len(torn) > 0:
			var more []string
			torn, more, err = r.once(ctx, r.node, torn)
			moved = append(moved, more...)
		case len(moved) > 0 && r.cluster != nil:
			torn, moved, err = r.once(ctx, r.cluster, moved)
		default:
			if len(moved) > 0 {
				return errors.New("the server sends us elsewhere (MOVED): redis.url leads to one node of a Cluster and does not say so")
			}
			return nil
		}
	}
	if err == nil && len(torn)+len(moved) > 0 {
		err = errors.New("revocations change faster than they can be read")
	}
	return err
}

// once reads each key's expiry and value, in that order. torn are the keys
// written between the two, moved those that another node answers for.
//
// PTTL, not PEXPIRETIME: what is left is the same on every clock, whereas a
// gateway whose clock is a minute fast would end a revocation a minute early.
// It is also there before Redis 7. The copy holds at most one round trip
// longer than Redis.
func (r *reader) once(ctx context.Context, client redis.UniversalClient, keys []string) (torn, moved []string, err error) {
	ttls := make([]*redis.DurationCmd, len(keys))
	values := make([]*redis.StringCmd, len(keys))
	_ = within(ctx, readTimeout, func(ctx context.Context) error {
		// The pipeline's error is its first command's, and a missing key is
		// one: each is looked at instead.
		_, err := client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, key := range keys {
				ttls[i], values[i] = p.PTTL(ctx, key), p.Get(ctx, key)
			}
			return nil
		})
		return err
	})
	for i, key := range keys {
		ttl, err := ttls[i].Result()
		value, valueErr := values[i].Result()
		wrongType := isWrongType(valueErr)
		switch {
		case isMoved(err) || isMoved(valueErr):
			moved = append(moved, key)
			continue
		case err != nil:
			return nil, nil, fmt.Errorf("cannot read the revocations (PTTL): %w", err)
		case errors.Is(valueErr, redis.Nil):
			continue
		case valueErr != nil && !wrongType:
			return nil, nil, fmt.Errorf("cannot read the revocations (GET): %w", valueErr)
		case ttl == noKey:
			torn = append(torn, key)
			continue
		}
		if err := r.apply(key, value, wrongType, r.ledger.expiry(ttl)); err != nil {
			return nil, nil, err
		}
	}
	return torn, moved, nil
}

// many is once for the many keys of a load, with one MGET in place of a
// thousand GETs: it takes Redis half the time. torn are also the keys of another
// type than string, whose value MGET does not tell from none. A node of a
// Cluster refuses an MGET over several slots.
func (r *reader) many(ctx context.Context, keys []string) (torn []string, err error) {
	var ttls []*redis.DurationCmd
	var values *redis.SliceCmd
	_ = within(ctx, readTimeout, func(ctx context.Context) error {
		_, err := r.node.Pipelined(ctx, func(p redis.Pipeliner) error {
			if !r.later {
				ttls = askTTLs(ctx, p, keys)
			}
			values = p.MGet(ctx, keys...)
			return nil
		})
		return err
	})
	if values.Err() != nil {
		return nil, fmt.Errorf("cannot read the revocations (MGET): %w", values.Err())
	}
	for i, key := range keys {
		expires := unread
		var ttl time.Duration
		if !r.later {
			if ttl, err = ttls[i].Result(); err != nil {
				return nil, fmt.Errorf("cannot read the revocations (PTTL): %w", err)
			}
			expires = r.ledger.expiry(ttl)
		}
		value, there := values.Val()[i].(string)
		if !there && ttl == noKey {
			continue
		}
		if !there || ttl == noKey {
			torn = append(torn, key)
			continue
		}
		if err := r.apply(key, value, false, expires); err != nil {
			return nil, err
		}
	}
	return torn, nil
}

func askTTLs(ctx context.Context, p redis.Pipeliner, keys []string) []*redis.DurationCmd {
	ttls := make([]*redis.DurationCmd, len(keys))
	for i, key := range keys {
		ttls[i] = p.PTTL(ctx, key)
	}
	return ttls
}

// ttls takes down when the keys' entries end.
func (r *reader) ttls(ctx context.Context, keys []string) error {
	var ttls []*redis.DurationCmd
	_ = within(ctx, readTimeout, func(ctx context.Context) error {
		_, err := r.node.Pipelined(ctx, func(p redis.Pipeliner) error {
			ttls = askTTLs(ctx, p, keys)
			return nil
		})
		return err
	})
	for i, key := range keys {
		ttl, err := ttls[i].Result()
		if err != nil {
			return fmt.Errorf("cannot read when revocations end (PTTL): %w", err)
		}
		if kind, issuer, name, ok := parseKey(key); ok && ttl != noKey {
			r.ledger.ends(kind, issuer, name, r.ledger.expiry(ttl))
		}
	}
	return nil
}

// noKey is PTTL's answer for a key that is not there (as go-redis gives it).
const noKey = time.Duration(-2)

// isWrongType says that a key is there, of another type than string.
func isWrongType(err error) bool { return err != nil && strings.HasPrefix(err.Error(), "WRONGTYPE") }

func isMoved(err error) bool {
	if err == nil {
		return false
	}
	text := err.Error()
	return strings.HasPrefix(text, "MOVED ") || strings.HasPrefix(text, "ASK ") || strings.HasPrefix(text, "TRYAGAIN")
}

func (r *reader) apply(key, value string, wrongType bool, expires int64) error {
	kind, issuer, name, ok := parseKey(key)
	if !ok {
		return nil
	}
	until := everything // a key of another type: somebody meant to revoke
	if !wrongType {
		until = cutoff(kind, value)
	}
	if until == nothing {
		r.ledger.lift(kind, issuer, name)
	} else if !r.ledger.put(kind, issuer, name, mark{until, expires}, r.limit, r.keep) {
		return errFull{r.limit}
	}
	return nil
}
