package gateway

import (
	"slices"

	"gatehouse/gateway/token"
)

// tolerable are the reasons that report mode lets pass: what a backend without
// a gateway would decide itself. All else is no matter of who may do what. A
// path with two readings or a second token could be taken in another way by the
// backend, and a token that was withdrawn, or of which that cannot be known
// where the posture is to deny, is out for good: whoever withdrew it did so
// because it is in wrong hands.
var tolerable = []token.Reason{
	token.MissingToken, token.InvalidToken, token.ExpiredToken, token.IssuerUnavailable,
	token.InsufficientPrivileges, insufficientAuthentication, policyDenied, rateLimited,
}

// tolerate returns the error of a rung, or nil where it is only to be reported.
// store_unavailable is never tolerated here; a limit that only reports does so
// itself.
func (x *exchange) tolerate(err error) error {
	if err == nil || !x.reports() || !slices.Contains(tolerable, asRefusal(err).reason) {
		return err
	}
	x.note(err)
	return nil
}

// note takes down what would have been refused. The first reason counts: it is
// the one that the caller would have been told.
func (x *exchange) note(err error) {
	f := asRefusal(err)
	if x.would == nil {
		x.would = f
	}
	x.explain.tolerated(f)
}

// reports says whether the mode of the request is to report: that of the issuer
// which its token selects, else that of the route. A token that did not verify
// selects one by what it says of itself.
func (x *exchange) reports() bool {
	rt := x.route
	if x.found == nil || len(rt.reports) == 0 {
		return rt.report
	}
	v := x.signed
	if v == nil {
		v = x.claimed()
	}
	if v != nil {
		if report, ok := rt.reports[v.Issuer]; ok {
			return report
		}
	}
	return rt.report
}

// claimed is what the token says of itself; nil if it cannot be read.
func (x *exchange) claimed() *token.Verified {
	if x.assumes() {
		return x.found.issuers.Claimed(x.dry.claims)
	}
	return x.found.issuers.Unverified(x.found.raw)
}
