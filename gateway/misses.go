package gateway

import (
	"context"
	"errors"
	"net/netip"

	"gatehouse/gateway/config"
	"gatehouse/gateway/internal/limit"
	"gatehouse/gateway/token"
)

// clientKey is where a context keeps the address of who is calling.
type clientKey struct{}

// asking is the request's context, with the caller's address where an issuer
// may have to be asked about the token.
func (x *exchange) asking() context.Context {
	if !x.route.introspects {
		return x.r.Context()
	}
	return context.WithValue(x.r.Context(), clientKey{}, x.client)
}

// misses limits how many tokens of one address an issuer is asked about: made-up
// tokens cost whoever sends them nothing, and the provider a call each.
func misses(issuer string, c config.Misses) (func(context.Context) *token.Error, error) {
	l, err := limit.New(limit.Options{Name: "introspection", Keys: []string{"ip"}, Rate: limit.Rate(c.Rate), Burst: c.Burst})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) *token.Error {
		ip, ok := ctx.Value(clientKey{}).(netip.Addr)
		if !ok {
			return nil // a command asks, or a connection that lasts: nobody sends tokens at will there
		}
		var refused *limit.Refused
		if _, err := limit.Take(ctx, []*limit.Limiter{l}, limit.Subject{IP: ip}); errors.As(err, &refused) {
			refusal := token.Errorf(rateLimited, "issuer %s is asked about no more tokens of this address now (introspection.misses)", issuer)
			refusal.RetryAfter, refusal.Cause = refused.RetryAfter, refused
			return refusal
		}
		return nil
	}, nil
}
