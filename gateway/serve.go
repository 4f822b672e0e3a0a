package gateway

import (
	"net/http"

	"gatehouse/gateway/token"
)

// ServeHTTP implements http.Handler: it forwards the request to its route's
// upstream, or refuses it with application/problem+json (RFC 9457).
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := g.acquire()
	defer s.release()
	x := g.begin(s, w, r)
	defer x.end()
	if err := x.serve(); err != nil {
		x.refuse(err)
	}
}

// serve is the request's way: a ladder whose every rung yields a value, or the
// error that ends the request.
func (x *exchange) serve() error {
	if err := x.canonical(); err != nil {
		return err
	}
	if l := x.snapshot.logout(x.r); l != nil && x.verdict == nil {
		return x.logOut(l)
	}
	if err := x.match(); err != nil {
		return err
	}
	if x.asksFirst {
		x.preflight()
		return nil
	}
	if err := x.boundBody(); err != nil {
		return err
	}
	rt := x.route
	if err := x.take(rt.limits.before); err != nil {
		return err
	}
	if rt.public {
		return x.forward()
	}
	if err := x.findToken(); err != nil {
		return err
	}
	if x.found == nil && !rt.optional {
		if err := x.tolerate(token.Errorf(token.MissingToken, "no token in %s", rt.sourceNames())); err != nil {
			return err
		}
	}
	if x.found != nil {
		if err := x.found.sameOrigin(x.r); err != nil {
			return err
		}
		if err := x.tolerate(x.snapshot.overFailures(x.client, x.found)); err != nil {
			return err
		}
		if err := x.tolerate(x.verify()); err != nil {
			return err
		}
		if err := x.revoked(); err != nil {
			return err
		}
	}
	if err := x.take(rt.limits.after); err != nil {
		return err
	}
	if x.verified != nil {
		if err := x.tolerate(x.authorize()); err != nil {
			return err
		}
		if err := x.claimHeaders(); err != nil {
			return err
		}
	}
	return x.forward()
}
