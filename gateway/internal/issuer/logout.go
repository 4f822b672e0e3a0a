package issuer

import (
	"context"
	"math"
	"time"

	"gatehouse/gateway/token"
)

// Logout is what a logout token says (OpenID Connect Back-Channel Logout 1.0
// §2.4). Session or Subject is there, or both; with a Session only that
// session of the subject has ended.
type Logout struct {
	ID               string    // jti
	Session, Subject string    // sid and sub; "" if they are not there
	IssuedAt         float64   // iat, in seconds since the epoch
	Until            time.Time // from then on the token is refused
	Key              string    // of the key that verified, as [token.Verified.Key]
	Hash             string    // as [token.Verified.Hash]
}

const (
	logoutEvent = "http://schemas.openid.net/event/backchannel-logout"
	// maxLogoutAge bounds how long a logout token counts, whatever its exp says,
	// and with it how long its jti has to be remembered. Two minutes is what
	// §4 advises; the rest is for a provider that tries again.
	maxLogoutAge = 10 * time.Minute
)

// VerifyLogout checks all of a logout token (§2.6) but whether it was used
// before. audiences are the names of which aud must hold one: the client ids
// under which the provider knows who it sends the token to. The error is a
// *[token.Error]: [token.InvalidToken], [token.ExpiredToken] or
// [token.IssuerUnavailable].
//
// What tells a logout token from an ID or access token of the same keys (RFC
// 8725 §3.11, §3.12) are its claims: events must be there and nonce must not.
// typ is logout+jwt, as §2.4 recommends, or JWT or absent, as providers older
// than that send it; any other names another kind of token.
func (i *Issuer) VerifyLogout(ctx context.Context, raw token.Raw, audiences []string) (*Logout, error) {
	t, refusal := parse(raw.Reveal())
	if refusal != nil {
		return nil, refusal
	}
	if _, refusal = (Set{i}).choose(t); refusal != nil {
		return nil, refusal
	}
	at, refusal := i.admitLogout(t, audiences)
	if refusal != nil {
		return nil, refusal
	}
	signer, refusal := i.signer(ctx, t)
	if refusal != nil {
		return nil, refusal
	}
	f := i.facts(t, at, signer)
	now := i.o.Now()
	if refusal := f.timely(now, nil); refusal != nil {
		return nil, refusal
	}
	until := min(at.exp, at.iat+maxLogoutAge.Seconds()) + i.o.Leeway.Seconds()
	if clock := float64(now.UnixMilli()) / 1000; clock >= until {
		return nil, f.refuse(token.ExpiredToken, "iat was %s, %s ago; a logout token counts for %s at most", moment(at.iat), span(clock-at.iat), maxLogoutAge)
	}
	return &Logout{
		ID: t.claims.Get("jti").Text(), Session: t.claims.Get("sid").Text(), Subject: t.claims.Get("sub").Text(),
		IssuedAt: at.iat, Until: time.Unix(int64(math.Ceil(until)), 0), Key: f.verified.Key, Hash: f.verified.Hash,
	}, nil
}

// admitLogout decides what needs neither key nor clock.
func (i *Issuer) admitLogout(t *compact, audiences []string) (times, *token.Error) {
	no := func(format string, args ...any) (times, *token.Error) { return times{}, i.invalid(t, format, args...) }
	if refusal := i.algorithm(t); refusal != nil {
		return times{}, refusal
	}
	if t.typ != "" && !mediaType(t.typ, "JWT") && !mediaType(t.typ, "logout+jwt") {
		return no("typ %s is not the type of a logout token; logout+jwt, JWT or none is expected", quote(t.typ))
	}
	if refusal := i.audience(t); refusal != nil {
		return times{}, refusal
	}
	if aud := t.claims.Get("aud"); !meets(aud, audiences) {
		return no("aud is %s; one of %s is expected of a logout token", show(aud), list(audiences))
	}
	at, hasExp, refusal := i.dates(t)
	switch {
	case refusal != nil:
		return times{}, refusal
	case !hasExp:
		return no("the claim exp is missing; a logout token must end")
	case !at.hasIat:
		return no("the claim iat is missing; a logout token must say when it was issued")
	}
	if jti := t.claims.Get("jti"); jti.Kind() != token.String || jti.Text() == "" {
		return no("the claim jti is %s; a logout token must have a name of its own, so that it counts once", show(jti))
	}
	events := t.claims.Get("events")
	members := 0
	for range events.Members() {
		members++
	}
	if events.Member(logoutEvent).Kind() != token.Object || members != 1 {
		return no("the claim events is %s; an object with the one member %s, an object, is expected", show(events), logoutEvent)
	}
	if t.claims.Get("nonce").Kind() != token.Missing {
		return no("the claim nonce is there: an ID token is not a logout token")
	}
	named := false
	for _, name := range []string{"sid", "sub"} {
		switch v := t.claims.Get(name); {
		case v.Kind() == token.Missing:
		case v.Kind() != token.String || v.Text() == "":
			return no("the claim %s is %s; a string is expected", name, show(v))
		default:
			named = true
		}
	}
	if !named {
		return no("neither sid nor sub is there, so that nobody is logged out")
	}
	return at, nil
}
