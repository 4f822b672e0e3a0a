package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"gatehouse/gateway/internal/issuer"
	"gatehouse/gateway/internal/limit"
	"gatehouse/gateway/internal/revoke"
	"gatehouse/gateway/token"
)

const (
	// maxLogoutBody leaves room around the longest token that is read at all.
	maxLogoutBody = 32 << 10
	// logoutBodyTime is how long a body of that size may take to come.
	logoutBodyTime = 5 * time.Second
	// logoutLimit is the name of the limit of refused logout tokens.
	logoutLimit = "backchannel_logout"
)

// logout is where one issuer tells of sessions that ended (OpenID Connect
// Back-Channel Logout 1.0).
type logout struct {
	issuer    *issuer.Issuer
	audiences []string
	failures  *part[limit.FailureOptions, *limit.Failures]
	route     *builtRoute // lends its name to log and metrics
}

// logouts makes the endpoints. None may stand where a route was written for
// the same requests; a route for all that lies under a path is for what nothing
// else is for, as everywhere.
func (b *builder) logouts(s *snapshot) {
	for _, name := range slices.Sorted(maps.Keys(b.cfg.Issuers)) {
		c, at := b.cfg.Issuers[name].BackchannelLogout, "issuers."+name+".backchannel_logout"
		if !c.Enabled() || s.issuers[name] == nil {
			continue
		}
		for n, other := range b.cfg.Routes {
			open := strings.HasSuffix(other.Match.Path, "/") || strings.HasSuffix(other.Match.Path, "...}")
			probe := &http.Request{Method: http.MethodPost, Host: other.Match.Host, URL: &url.URL{Path: c.Path}}
			if m, err := s.table.Match(probe); !open && err == nil && m.Index == n {
				b.fault(at, fmt.Errorf("%s is %s, which routes[%d] (line %d) matches, too: such requests would never reach the route; choose another path", at, c.Path, n, b.cfg.At(fmt.Sprintf("routes[%d].match", n)).Line))
			}
		}
		l := &logout{issuer: s.issuers[name].value, audiences: c.Audiences, route: &builtRoute{name: at}}
		o := limit.FailureOptions{Name: logoutLimit, Rate: limit.Rate(c.Rate)}
		var old *part[limit.FailureOptions, *limit.Failures]
		if was := b.old.logouts[c.Path]; was != nil {
			old = was.failures
		}
		var err error
		if l.failures, err = carry(old, o, func() (*limit.Failures, error) { return limit.NewFailures(o) }); err != nil {
			b.fault(at+".rate", err)
			continue
		}
		if s.logouts == nil {
			s.logouts = map[string]*logout{}
		}
		s.logouts[c.Path] = l
	}
}

// logout returns the endpoint that the request is for, or nil. The path is
// compared as it was sent: one that is spelt with escapes is another's.
func (s *snapshot) logout(r *http.Request) *logout {
	if s.logouts == nil || r.Method != http.MethodPost || r.URL.RawPath != "" {
		return nil
	}
	return s.logouts[r.URL.Path]
}

// logOut answers a logout request (§2.5, §2.8).
func (x *exchange) logOut(l *logout) error {
	x.route = l.route
	if x.dry != nil {
		x.dry.unusable = fmt.Errorf("here the provider of the issuer %s tells of logouts (backchannel_logout); to explain one would be to log somebody out", l.issuer.Name())
		return x.dry.unusable
	}
	err := x.receiveLogout(l)
	outcome := logoutOutcome(err)
	x.gateway.metrics.logouts.WithLabelValues(l.issuer.Name(), outcome).Inc()
	h := x.w.Header()
	h.Set("X-Request-Id", x.requestID)
	switch outcome {
	case "logged_out":
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Length", "0")
		x.w.WriteHeader(http.StatusOK)
		return nil
	case "invalid", "replayed":
		l.failures.value.Add(x.client)
		x.refused = refuse(token.BadRequest, "%s", asRefusal(err).detail)
		x.audit(denied, x.refused, nil)
		x.leaveBody(h)
		oauthRefuse(x.w, http.StatusBadRequest, "invalid_request", "The logout token is not valid.")
		return nil
	}
	return err
}

// logoutOutcome is one word for what became of a logout.
func logoutOutcome(err error) string {
	switch {
	case err == nil:
		return "logged_out"
	case errors.Is(err, revoke.ErrReplayed):
		return "replayed"
	}
	switch asRefusal(err).reason {
	case rateLimited:
		return "limited"
	case token.BadRequest, token.InvalidToken, token.ExpiredToken, token.RevokedToken:
		return "invalid"
	}
	return "unavailable"
}

// receiveLogout checks a logout token and writes what it revokes.
func (x *exchange) receiveLogout(l *logout) error {
	if err := l.failures.value.Over(x.client); err != nil {
		return err
	}
	raw, err := x.logoutToken()
	if err != nil {
		return err
	}
	out, err := l.issuer.VerifyLogout(x.r.Context(), raw, l.audiences)
	if err != nil {
		return err
	}
	name, s := l.issuer.Name(), x.snapshot
	// A key that was blocked by hand must not log anyone out; a subject that
	// is revoked already may log out all the same.
	if err := s.revocation.value.Check(x.r.Context(), &token.Verified{Issuer: name, Key: out.Key, Hash: out.Hash}); err != nil {
		return err
	}
	r := Revocation{Issuer: name, Kind: string(revoke.SID), Value: out.Session}
	if out.Session == "" { // §2.4: all sessions of the subject
		r.Kind, r.Value = string(revoke.Subject), out.Subject
	}
	// By the issuer's own clock, by which its tokens are dated too: whoever has
	// logged in again since keeps the new session.
	w, err := plan(s.config, r, time.Unix(int64(out.IssuedAt), 0))
	if err != nil {
		return err
	}
	// A provider that goes away must not leave a logout half done.
	now := x.gateway.now()
	err = revoke.LogOut(context.WithoutCancel(x.r.Context()), s.redis.value, revoke.Logout{
		Issuer: name, ID: out.ID, Left: max(time.Second, out.Until.Sub(now)),
		Key: w.Key, Value: w.Value, TTL: w.TTL,
	})
	switch {
	case errors.Is(err, revoke.ErrReplayed):
		return fmt.Errorf("%w: %w", token.Errorf(token.InvalidToken, "issuer %s: the logout token with the jti %q was used before", name, bounded(out.ID)), err)
	case err != nil:
		return &token.Error{Reason: token.StoreUnavailable, Detail: "the logout cannot be written down: " + err.Error(), RetryAfter: revoke.RetryLogOut}
	}
	x.gateway.auditRevocation(s, w.record(now, revocationRecord{
		Door: doorLogout, Actor: "issuer " + name, Action: "revoke", RequestID: x.requestID, Client: x.client.String(),
	}))
	return nil
}

// logoutToken reads the one parameter of a logout request that counts; others
// are ignored (§2.5).
func (x *exchange) logoutToken() (token.Raw, error) {
	bad := func(format string, args ...any) (token.Raw, error) {
		return token.Raw{}, refuse(token.BadRequest, "no logout request: "+format, args...)
	}
	media, _, err := mime.ParseMediaType(x.r.Header.Get("Content-Type"))
	if err != nil || media != "application/x-www-form-urlencoded" {
		return bad("its Content-Type is %q, not application/x-www-form-urlencoded", bounded(x.r.Header.Get("Content-Type")))
	}
	_ = http.NewResponseController(x.w).SetReadDeadline(time.Now().Add(logoutBodyTime)) // net/http takes it off for the next request
	body, err := io.ReadAll(http.MaxBytesReader(x.w, x.r.Body, maxLogoutBody))
	if err != nil {
		return bad("its body cannot be read: %v", err)
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return bad("its body is no form") // the error could show a part of the token
	}
	if values := form["logout_token"]; len(values) != 1 {
		return bad("it has %d parameters logout_token, not one", len(values))
	}
	return token.NewRaw(form.Get("logout_token")), nil
}
