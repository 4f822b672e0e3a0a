package gateway

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"gatehouse/gateway/internal/revoke"
	"gatehouse/gateway/token"
)

// A request that lasts is asked about again and again: in the memory of a
// replica often, in Redis now and then. Without revocation only the clock can
// have changed the answer, by being set.
const (
	askReplica = time.Second
	askLookup  = 5 * time.Second
	askClock   = time.Minute
)

// ask is how long a request may go unasked about.
func (s *snapshot) ask() time.Duration {
	if s.revocation == nil {
		return askClock
	}
	if _, ok := s.revocation.value.(*revoke.Lookup); ok {
		return askLookup
	}
	return askReplica
}

// lasts is how long the request may last until it is asked about again; not
// above 0 once its token has expired. The leeway is the grace: the request ends
// when a new one with the same token would be refused.
func (x *exchange) lasts() time.Duration {
	ask := x.snapshot.ask()
	if x.route.introspects {
		ask = min(ask, askLookup) // what the provider said lately is remembered
	}
	now := x.gateway.now()
	left := x.verified.Expires + x.snapshot.config.Issuers[x.verified.Issuer].Leeway.Seconds() - float64(now.UnixNano())/1e9
	if left >= ask.Seconds() { // an exp may be far beyond what a Duration holds
		return ask
	}
	return time.Duration(left * float64(time.Second))
}

// renew says how much longer the request may last, or why it must end. An
// outage ends nothing that was admitted before: all callers would come back at
// once, to a gateway that cannot decide about them.
func (x *exchange) renew(ctx context.Context) (time.Duration, error) {
	left := x.lasts()
	if left <= 0 {
		err := token.Errorf(token.ExpiredToken, "issuer %s: the token expired while the request lasted", x.verified.Issuer)
		if !x.reports() {
			x.ends(ctx, err)
			return 0, err
		}
		if left = x.snapshot.ask(); !x.overdue {
			x.overdue = true
			x.gateway.metrics.wouldRefuse.WithLabelValues(x.route.name, string(token.ExpiredToken)).Inc()
			x.tell(ctx, "would have ended with its token", err)
			x.audit(allowed, nil, asRefusal(err))
		}
	}
	if err := x.withdrawn(ctx, left); err != nil {
		x.ends(ctx, err)
		return 0, err
	}
	return left, nil
}

// ends writes down that the request was cut off.
func (x *exchange) ends(ctx context.Context, err error) {
	x.tell(ctx, "ended with its token", err)
	x.audit(ended, asRefusal(err), x.would)
}

// tell writes the line about the end of a token in use.
func (x *exchange) tell(ctx context.Context, message string, err error) {
	f := asRefusal(err)
	x.gateway.log.LogAttrs(ctx, slog.LevelInfo, message, append(x.caller(nil),
		slog.String("request_id", x.requestID),
		slog.String("trace_id", x.trace.id()),
		slog.String("route", x.route.name),
		slog.String("reason", string(f.reason)),
		slog.String("detail", f.detail),
	)...)
}

// withdrawn says whether the token, which has that long to live, was revoked
// here or is no longer good to the issuer that is asked about it.
func (x *exchange) withdrawn(ctx context.Context, left time.Duration) error {
	if err := x.snapshot.revoked(ctx, x.found, x.verified); isRevoked(err) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, left) // a provider that hangs must not let it outlive its expiry
	defer cancel()
	err := x.found.issuers.Confirm(ctx, x.found.raw, x.verified)
	var refused *token.Error
	if !errors.As(err, &refused) {
		return nil
	}
	switch refused.Reason {
	case token.InvalidToken, token.ExpiredToken:
		if x.reports() {
			return nil
		}
		return err
	case token.RevokedToken:
		return err
	}
	return nil // an outage
}

func isRevoked(err error) bool {
	if err == nil { // most often; the variable below would be an allocation
		return false
	}
	var refused *token.Error
	return errors.As(err, &refused) && refused.Reason == token.RevokedToken
}
