package revoke

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Write puts one revocation into Redis. ttl is how long it holds, 0 for ever;
// it is rounded up to a second, so that a revocation never ends early.
func Write(ctx context.Context, client redis.UniversalClient, key, value string, ttl time.Duration) error {
	if err := client.Set(ctx, key, value, seconds(ttl)).Err(); err != nil {
		return fmt.Errorf("cannot write %s to Redis: %w", key, err)
	}
	return nil
}

// Lift writes [NotRevoked] in place of a revocation, with the time that it had
// left, so that a gateway that is away learns of it as long as it would
// remember the revocation; ttl is for a key that is not there.
func Lift(ctx context.Context, client redis.UniversalClient, key string, ttl time.Duration) (left time.Duration, err error) {
	left, err = client.PTTL(ctx, key).Result()
	switch {
	case err != nil:
		return 0, fmt.Errorf("cannot read %s in Redis: %w", key, err)
	case left == noKey:
		left = ttl
	case left < 0: // for ever
		left = 0
	}
	return left, Write(ctx, client, key, NotRevoked, left)
}

// Entry is one revocation as Redis has it.
type Entry struct {
	Kind          Kind
	Issuer, Value string        // what the key names
	Content       string        // what stands in it; "" for a key of another type than string
	Left          time.Duration // until it expires; 0: never
}

// List calls yield for each revocation, in no order, until it returns false.
// A key that expires meanwhile is left out; one that is written, or moves to
// another node of a Cluster, may be, too. An error says that the list is not whole.
func List(ctx context.Context, client redis.UniversalClient, yield func(Entry) bool) error {
	if cluster, ok := client.(*redis.ClusterClient); ok {
		var mu sync.Mutex // the masters are asked at the same time
		more := true
		return cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
			return list(ctx, node, func(e Entry) bool {
				mu.Lock()
				defer mu.Unlock()
				more = more && yield(e)
				return more
			})
		})
	}
	return list(ctx, client, yield)
}

func list(ctx context.Context, client redis.Cmdable, yield func(Entry) bool) error {
	keys := client.Scan(ctx, 0, "revoked:*", 1000).Iterator()
	for keys.Next(ctx) {
		parts := strings.SplitN(keys.Val(), ":", 4)
		if len(parts) != 4 {
			continue
		}
		e := Entry{Kind: Kind(parts[1]), Issuer: parts[2], Value: parts[3]}
		content, err := client.Get(ctx, keys.Val()).Result()
		switch {
		case errors.Is(err, redis.Nil), isMoved(err):
			continue
		case err != nil && !isWrongType(err):
			return fmt.Errorf("cannot read %s in Redis: %w", keys.Val(), err)
		}
		left, err := client.PTTL(ctx, keys.Val()).Result()
		switch {
		case err == nil && left == noKey, isMoved(err):
			continue
		case err != nil:
			return fmt.Errorf("cannot read until when %s holds in Redis: %w", keys.Val(), err)
		}
		e.Content, e.Left = content, max(left, 0)
		if !yield(e) {
			return nil
		}
	}
	return keys.Err()
}
