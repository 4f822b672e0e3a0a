package revoke

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// Write puts one revocation into Redis. ttl is how long it holds, 0 for ever;
// it is rounded up to a second, so that a revocation never ends early.
func Write(ctx context.Context, client redis.UniversalClient, key, value string, ttl time.Duration) error {
	if r := ttl % time.Second; r != 0 {
		ttl += time.Second - r
	}
	if err := client.Set(ctx, key, value, ttl).Err(); err != nil {
		return fmt.Errorf("cannot write %s to Redis: %w", key, err)
	}
	return nil
}
