package gateway

// rung is a part of the ladder whose time is measured.
type rung int

// The rungs, in the words of the explanation.
const (
	routeRung      rung = iota // from the headers to the route: path, match, preflight
	limitsRung                 // before and after the token is known
	tokenRung                  // found and verified; here an issuer may be asked
	revocationRung             // in lookup mode Redis is asked
	policyRung                 // privileges, delegation, step-up, policy
	headersRung                // claims become headers
	forwardRung                // the target and both bodies, to the end
	rungs
)

func (r rung) String() string {
	return [...]string{"route", "limits", "token", "revocation", "policy", "headers", "forward"}[r]
}

// enter ends the rung that the request is on and begins the next one.
func (x *exchange) enter(next rung) {
	if x.gateway.metrics == nil || x.dry != nil {
		return
	}
	now := x.gateway.now()
	x.gateway.metrics.rungs[x.rung].Observe(now.Sub(x.entered).Seconds())
	x.rung, x.entered = next, now
}
