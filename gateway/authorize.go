package gateway

import (
	"net/http"
	"slices"
	"strings"

	"gatehouse/gateway/internal/issuer"
	"gatehouse/gateway/policy"
	"gatehouse/gateway/token"
)

// place is one place of a request where a route's tokens may stand, with the
// issuers that allow theirs to stand there.
type place struct {
	source  token.Source
	issuers issuer.Set
}

// foundToken is the one token of a request.
type foundToken struct {
	place
	raw token.Raw
}

// findToken returns the request's token, or one without a source if it has none.
// Two tokens are refused, even if they are the same: the gateway would check one
// and the backend might read the other.
func (rt *builtRoute) findToken(r *http.Request) (found foundToken, err error) {
	for _, p := range rt.places {
		raw, ok, err := p.source.Find(r)
		switch {
		case err != nil:
			return foundToken{}, err
		case !ok:
		case found.source != nil:
			return foundToken{}, token.Errorf(token.BadRequest, "two tokens, in %s and in %s", found.source, p.source)
		default:
			found = foundToken{p, raw}
		}
	}
	return found, nil
}

func (rt *builtRoute) sourceNames() string {
	names := make([]string, len(rt.places))
	for i, p := range rt.places {
		names[i] = p.source.String()
	}
	return strings.Join(names, ", ")
}

// sameOrigin refuses what another site makes a browser do with its cookies.
// http.CrossOriginProtection passes GET; an upgrade is a GET that opens a
// two-way channel, so it is looked at as if it were a POST.
func (f *foundToken) sameOrigin(r *http.Request) error {
	if _, ok := f.source.(token.Cookie); !ok {
		return nil
	}
	if r.Header["Upgrade"] != nil || overridden(r) != nil {
		asPost := *r
		asPost.Method = http.MethodPost
		r = &asPost
	}
	if err := new(http.CrossOriginProtection).Check(r); err != nil {
		return refuse(crossOrigin, "%v", err)
	}
	return nil
}

// verify checks the token, and that whoever brings it may.
func (x *exchange) verify() error {
	v, err := x.vouched()
	if err != nil {
		return err
	}
	x.signed = v
	x.actor, x.acting = x.snapshot.actors[v.Issuer].Find(v.Claims)
	x.explain.actor(x)
	if err := x.snapshot.proxies.bound(x.r, v); err != nil {
		return err
	}
	x.verified = v
	x.explain.bound(x)
	return nil
}

// revoked refuses a token that was withdrawn, whatever the mode. In report mode
// it may be one that did not verify, be it that its issuer is down; then what
// it says of itself is held against it.
func (x *exchange) revoked() error {
	if x.snapshot.revocation == nil || x.assumes() {
		x.explain.revoked(x)
		return nil
	}
	x.enter(revocationRung)
	v := x.signed
	if v == nil {
		v = x.claimed()
	}
	if v == nil {
		return nil
	}
	if err := x.snapshot.revoked(x.during(x.r.Context(), revocationRung), x.found, v); err != nil {
		return err
	}
	x.explain.revoked(x)
	return nil
}

// mark changes the response to a token that stood elsewhere than in
// Authorization. Shared caches know that header (RFC 9111 §3.5) and no other,
// so they are told (RFC 6750 §2.3). And a browser that offered subprotocols
// fails the WebSocket unless one is chosen: where the backend chose none, the
// marker is.
func (f *foundToken) mark(res *http.Response) {
	if f.source == token.Source(token.Bearer) {
		return
	}
	var directives []string
	private := false
	for directive := range strings.SplitSeq(strings.Join(res.Header["Cache-Control"], ","), ",") {
		name, _, _ := strings.Cut(strings.ToLower(strings.TrimSpace(directive)), "=")
		switch name {
		case "", "public", "s-maxage":
			continue
		case "private", "no-store":
			private = private || !strings.Contains(directive, "=")
		}
		directives = append(directives, strings.TrimSpace(directive))
	}
	if !private {
		directives = append(directives, "private")
	}
	res.Header["Cache-Control"] = []string{strings.Join(directives, ", ")}
	if ws, ok := f.source.(token.WebSocketProtocol); ok && res.StatusCode == http.StatusSwitchingProtocols && res.Header["Sec-Websocket-Protocol"] == nil {
		res.Header["Sec-Websocket-Protocol"] = []string{ws.Marker}
	}
}

// authorize decides whether the token may do what the route asks: what it
// carries, who acts, how well the user was authenticated, and the policy.
func (x *exchange) authorize() error {
	x.enter(policyRung)
	rt, v := x.route, x.verified
	granted := x.snapshot.grants[v.Issuer]
	privileges := granted.of(v.Privileges)
	err := rt.carries(v, privileges, granted)
	x.explain.carried(x, privileges, err)
	if err != nil {
		return err
	}
	if detail, ok := rt.delegation.Check(x.actor, x.acting); !ok {
		return refuse(policyDenied, "%s", bounded(detail))
	}
	x.explain.delegated(x)
	now := x.gateway.now()
	if c := rt.stepUp.Check(v.Claims, now); c != nil {
		f := refuse(insufficientAuthentication, "%s", c.Detail)
		f.stepUp = c
		return f
	}
	x.explain.steppedUp(x)
	if rt.policy == nil {
		return nil
	}
	in := policy.Input{
		Claims: v.Claims, Privileges: privileges, PrivilegesMissing: v.PrivilegesMissing, PrivilegesUnreadable: v.PrivilegesUnreadable,
		Method: x.r.Method, Params: x.r, Header: x.r.Header, IP: x.client, Now: now,
	}
	x.policy = rt.policy.Decide(in, nil)
	x.explain.decided(x, rt.policy, in)
	if x.policy.Allowed {
		return nil
	}
	f := refuse(policyDenied, "no rule of policy %s allows it", rt.policy.Name())
	if x.policy.Undecided != "" {
		f.detail += "; its rule " + x.policy.Undecided + " asks about something that is missing or of another type"
	}
	return f
}

// carries decides whether the privileges that count are those that the route asks for.
func (rt *builtRoute) carries(v *token.Verified, privileges []string, granted *grants) error {
	missing, ok := rt.require.Check(privileges)
	if ok {
		return nil
	}
	f := refuse(token.InsufficientPrivileges, "missing privilege %s", missing)
	switch {
	case len(privileges) < len(v.Privileges):
		asked := slices.DeleteFunc(slices.Concat(rt.require.All, rt.require.Any), func(p string) bool { return !slices.Contains(v.Privileges, p) })
		for _, why := range granted.withheld(asked) {
			f.detail += "; it holds one that does not count: " + why
		}
	case v.PrivilegesMissing:
		f.detail += "; the token has no usable claim " + rt.privilegesFrom[v.Issuer]
		if could := couldCarryPrivileges(v.Claims); len(could) > 0 {
			f.detail += "; it could be meant to be " + bounded(strings.Join(could, " or ")) + " (privileges_from)"
		}
	}
	f.scope = rt.scope[v.Issuer]
	return f
}

// privilegeNames are parts of the names under which identity providers put
// what a token may do.
var privilegeNames = []string{"scp", "scope", "role", "privilege", "permission", "authorit", "group", "entitlement"}

// couldCarryPrivileges lists the paths of claims that look like privileges, in
// the token and one object further down, so that a log can say what was
// probably meant.
func couldCarryPrivileges(claims token.Claims) []string {
	var found []string
	var walk func(prefix string, name string, v token.Value, depth int)
	walk = func(prefix, name string, v token.Value, depth int) {
		path := prefix + name
		if strings.ContainsAny(name, "./") {
			path = "/" + strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
		}
		switch v.Kind() {
		case token.String, token.Array:
			if slices.ContainsFunc(privilegeNames, func(part string) bool { return strings.Contains(strings.ToLower(name), part) }) {
				found = append(found, path)
			}
		case token.Object:
			if depth < 3 {
				for n, member := range v.Members() {
					walk(path+".", n, member, depth+1)
				}
			}
		}
	}
	for name, v := range claims.All() {
		walk("", name, v, 1)
	}
	return found
}
