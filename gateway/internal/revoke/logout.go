package revoke

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// logOutTimeout bounds one logout's steps together; claimTime is longer, so
	// that no other gateway begins while one is at it.
	logOutTimeout = 2 * time.Second
	claimTime     = 5 * time.Second
)

// What stands at a logout's name in Redis.
const (
	begun = "begun"
	done  = "done"
)

// ErrReplayed says that a logout took effect before.
var ErrReplayed = errors.New("it was used before")

// A Logout is a session or a subject that ended, as the issuer told in a token
// that counts once.
type Logout struct {
	Issuer string        // the issuer's name in the configuration
	ID     string        // of the logout token: its jti, unique to the issuer
	Left   time.Duration // how long the token itself would be accepted

	Key   string        // as [Key] makes it, of the kind SID or Subject
	Value string        // "1", or seconds since the epoch
	TTL   time.Duration // how long the revocation holds; 0: for ever
}

// LogOut writes the revocation of l, on the first call of all gateways:
// [ErrReplayed] is for the others. Any other error means that it may not have
// been written, and that the same logout can be tried again after the time
// that [RetryLogOut] tells.
//
// The logout's name is claimed in one step, for a moment at first: only when
// the revocation has been written it is kept for as long as the token counts.
// So a Redis that fails in between loses no logout. The name is a hash, since a
// jti may be long.
func LogOut(ctx context.Context, client redis.UniversalClient, l Logout) error {
	ctx, cancel := context.WithTimeout(ctx, logOutTimeout)
	defer cancel()
	sum := sha256.Sum256([]byte(l.ID))
	name := "logout:" + l.Issuer + ":" + base64.RawURLEncoding.EncodeToString(sum[:])
	claimed, err := client.SetNX(ctx, name, begun, claimTime).Result()
	if err != nil {
		return fmt.Errorf("cannot write %s to Redis: %w", name, err)
	}
	if !claimed {
		switch state, err := client.Get(ctx, name).Result(); {
		case err != nil:
			return fmt.Errorf("cannot read %s in Redis: %w", name, err)
		case state == begun:
			return errors.New("another call is at this logout, or failed at it a moment ago")
		}
		return ErrReplayed
	}
	if err := atLeast.Run(ctx, client, []string{l.Key}, l.Value, seconds(l.TTL).Milliseconds()).Err(); err != nil {
		return fmt.Errorf("cannot write %s to Redis: %w", l.Key, err)
	}
	if err := client.Set(ctx, name, done, seconds(l.Left)).Err(); err != nil {
		return fmt.Errorf("cannot write %s to Redis: %w", name, err)
	}
	return nil
}

// RetryLogOut is how long to wait until a failed [LogOut] can succeed.
const RetryLogOut = claimTime

// seconds rounds up to whole seconds.
func seconds(d time.Duration) time.Duration {
	if r := d % time.Second; r != 0 {
		d += time.Second - r
	}
	return d
}

// atLeast writes the revocation KEYS[1] with the value ARGV[1] for ARGV[2]
// milliseconds, 0 for ever. Who may only log out must not lift what others
// revoked: a content that withdraws more stays, and no key ends sooner than it
// would have. Contents are read as [cutoff] does.
var atLeast = redis.NewScript(`
local type = redis.call('TYPE', KEYS[1]).ok
local was = false
if type == 'string' then
	was = redis.call('GET', KEYS[1])
	if was == '-' then was = false end
elseif type ~= 'none' then
	was = ''
end
local value, ttl, keep = ARGV[1], tonumber(ARGV[2]), false
if was then
	local seconds = string.match(was, '^%d+$') and tonumber(was)
	keep = not seconds or seconds <= 1000000000 or seconds >= tonumber(value)
	local left = redis.call('PTTL', KEYS[1])
	if left < 0 then ttl = 0 elseif ttl > 0 and left > ttl then ttl = left end
end
if keep then
	if ttl == 0 then redis.call('PERSIST', KEYS[1]) else redis.call('PEXPIRE', KEYS[1], ttl) end
elseif ttl == 0 then
	redis.call('SET', KEYS[1], value)
else
	redis.call('SET', KEYS[1], value, 'PX', ttl)
end
return ttl
`)
