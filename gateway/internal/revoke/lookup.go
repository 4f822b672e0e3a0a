package revoke

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sony/gobreaker/v2"

	"gatehouse/gateway/token"
)

const (
	// lookupTimeout bounds what a slow Redis can cost one request.
	lookupTimeout = 500 * time.Millisecond
	// After tripAfter failures in a row Redis is left alone for openFor, so
	// that an outage costs later requests nothing; then one request tries.
	tripAfter = 3
	openFor   = time.Second
)

// Lookup asks Redis about every token: one pipelined call per request. It
// remembers nothing. It is safe for concurrent use.
type Lookup struct {
	o       Options
	breaker *gobreaker.CircuitBreaker[Kind]
}

// NewLookup makes a Lookup; it opens no connection yet.
func NewLookup(o Options) *Lookup {
	return &Lookup{o, gobreaker.NewCircuitBreaker[Kind](gobreaker.Settings{
		Name:        "revocation",
		Timeout:     openFor,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= tripAfter },
	})}
}

// Check returns nil if v was not revoked, else an *[token.Error] with
// [token.RevokedToken], or with [token.StoreUnavailable] if Redis cannot be
// asked and the posture is to deny.
func (l *Lookup) Check(ctx context.Context, v *token.Verified) error {
	found, err := l.breaker.Execute(func() (Kind, error) { return l.ask(ctx, v) })
	if err != nil {
		if l.o.OnError != nil {
			l.o.OnError(err)
		}
		if l.o.Allow {
			return nil
		}
		return &token.Error{Reason: token.StoreUnavailable, Detail: "cannot ask Redis whether the token was revoked: " + err.Error(), RetryAfter: openFor}
	}
	if found != "" {
		return token.Errorf(token.RevokedToken, "revoked by %s (issuer %s)", found, v.Issuer)
	}
	return nil
}

// ask returns the kind of the first key that withdraws v, or "".
func (l *Lookup) ask(ctx context.Context, v *token.Verified) (Kind, error) {
	// A client that goes away says nothing about Redis: it must not pass as in an
	// outage, with a request that is sent on already.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupTimeout)
	defer cancel()
	kinds := looked(l.o.Check)
	answers := make([]*redis.StringCmd, len(kinds))
	// The pipeline's own error is the first of its commands', and a key that
	// is not there is one: each command is looked at instead.
	_, _ = l.o.Client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, kind := range kinds {
			if name := kind.named(v); name != "" {
				answers[i] = p.Get(ctx, Key(kind, v.Issuer, name))
			}
		}
		return nil
	})
	var failed error
	for i, answer := range answers {
		if answer == nil {
			continue
		}
		value, err := answer.Result()
		switch {
		case err == nil:
			if withdraws(cutoff(kinds[i], value), v) {
				return kinds[i], nil
			}
		case errors.Is(err, redis.Nil):
		case isWrongType(err):
			return kinds[i], nil // there is a key, of whatever type: somebody meant to revoke
		default:
			failed = err
		}
	}
	return "", failed
}

// Ping asks Redis for a sign of life, for readiness.
func (l *Lookup) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	return l.o.Client.Ping(ctx).Err()
}

// Tolerant says whether requests pass while Redis is down.
func (l *Lookup) Tolerant() bool { return l.o.Allow }
