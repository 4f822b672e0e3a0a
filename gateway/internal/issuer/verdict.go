package issuer

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/singleflight"

	"gatehouse/gateway/token"
)

const (
	maxVerdictBytes = 16 << 20         // of active tokens, for one issuer
	maxRefused      = 20_000           // inactive tokens remembered, for one issuer
	refusedFor      = 10 * time.Second // an inactive token is asked about again
)

// introspection keeps what the issuer said of tokens. Each issuer has its own,
// so that no verdict ever serves a token of another one. Only what the issuer
// said is kept; audience and time are looked at on each request.
type introspection struct {
	asker   *asker
	flights singleflight.Group // by token: requests that bring one at the same time share a call
	// Two stores: a flood of made-up tokens must not push out those in use.
	active, refused *otter.Cache[digest, *verdict]
}

// verdict is what the issuer said of a token, immutable.
type verdict struct {
	facts   *facts       // what it vouches for; nil if it vouches for nothing
	refusal *token.Error // why, if it does not
	until   time.Time    // when it must be asked again
}

func newIntrospection(o *Options) (*introspection, error) {
	a, err := newAsker(o)
	if err != nil {
		return nil, err
	}
	return &introspection{
		asker: a,
		active: otter.Must(&otter.Options[digest, *verdict]{
			MaximumWeight: maxVerdictBytes,
			Weigher:       func(_ digest, v *verdict) uint32 { return v.facts.weight() },
		}),
		refused: otter.Must(&otter.Options[digest, *verdict]{MaximumSize: maxRefused}),
	}, nil
}

func (n *introspection) find(d digest) *verdict {
	if v, ok := n.active.GetIfPresent(d); ok {
		return v
	}
	v, _ := n.refused.GetIfPresent(d)
	return v
}

func (n *introspection) keep(d digest, v *verdict) {
	if v.facts != nil {
		n.active.Set(d, v)
		n.refused.Invalidate(d)
		return
	}
	n.refused.Set(d, v)
	n.active.Invalidate(d)
}

// isJWT says whether a token has the form of a signed JWT: three parts, and
// a header that is a JSON object in any spelling of base64. Such a token is
// never opaque, or one that fails here could be tried elsewhere, and another
// issuer's provider would see it.
func isJWT(text string) bool {
	header, rest, _ := strings.Cut(text, ".")
	if strings.Count(rest, ".") != 1 {
		return false
	}
	header = strings.NewReplacer("+", "-", "/", "_", "=", "").Replace(header[:min(len(header), maxHeader)])
	// The first bytes tell; what is bad further on is for parse to refuse.
	start, _ := base64.RawURLEncoding.DecodeString(header)
	return strings.HasPrefix(strings.TrimLeft(string(start), " \t\r\n"), "{")
}

// opaque returns the issuer to ask about a token that is no JWT, or nil. With
// several none is asked: each would see the others' tokens.
func (s Set) opaque(raw token.Raw) (asked *Issuer) {
	for _, i := range s {
		if i.introspection == nil {
			continue
		}
		if asked != nil {
			return nil
		}
		asked = i
	}
	if asked == nil || isJWT(raw.Reveal()) {
		return nil
	}
	return asked
}

// confirm asks the issuer about a token that was verified here, if it is to be
// asked about those.
func (i *Issuer) confirm(ctx context.Context, raw token.Raw, v *token.Verified, record Record) *token.Error {
	if i.introspection == nil || !i.o.Introspection.Always {
		return nil
	}
	said, refusal := i.introspect(ctx, raw, v)
	if refusal != nil {
		return refusal
	}
	if refusal := said.judge(i.o.Now(), nil); refusal != nil {
		return refusal
	}
	if record != nil {
		record("introspection", "the issuer says that it is active")
	}
	return nil
}

// introspect returns what the issuer vouches for: what it said lately, or what
// it says now. local is what was verified here of a JWT, nil for an opaque token.
func (i *Issuer) introspect(ctx context.Context, raw token.Raw, local *token.Verified) (*facts, *token.Error) {
	text := raw.Reveal()
	if len(text) > maxToken {
		return nil, token.Errorf(token.InvalidToken, "the token has %d bytes; %d are allowed", len(text), maxToken)
	}
	if text == "" || strings.ContainsFunc(text, func(c rune) bool { return c < 0x20 || c > 0x7e }) { // RFC 6749 §A.12
		return nil, token.Errorf(token.InvalidToken, "the token has bytes that no token has")
	}
	d := digestOf(raw)
	n := i.introspection
	v := n.find(d)
	if v != nil && i.o.Now().Before(v.until) {
		return v.facts, v.refusal
	}
	if i.o.Admit != nil && (v == nil || v.facts == nil) { // what was good a moment ago is not made up
		if refusal := i.o.Admit(ctx); refusal != nil {
			return nil, refusal
		}
	}
	flight := n.flights.DoChan(string(d[:]), func() (any, error) {
		if v := n.find(d); v != nil && i.o.Now().Before(v.until) { // another call has just ended
			return v, nil
		}
		// One caller's going away must not fail the others; a call is bounded by itself.
		answer, err := n.asker.ask(context.WithoutCancel(ctx), raw)
		if err != nil {
			return nil, err
		}
		v := i.decide(answer, raw, local)
		n.keep(d, v)
		return v, nil
	})
	select {
	case r := <-flight:
		if r.Err == nil {
			v := r.Val.(*verdict)
			return v.facts, v.refusal
		}
		if v := n.find(d); v != nil && i.o.Now().Before(v.until.Add(i.o.Introspection.MaxStale)) {
			return v.facts, v.refusal
		}
		return nil, i.untold(r.Err)
	case <-ctx.Done():
		return nil, i.untold(ctx.Err())
	}
}

func (i *Issuer) untold(err error) *token.Error {
	refusal := token.Errorf(token.IssuerUnavailable, "issuer %s: cannot introspect the token: %v", i.o.Name, err)
	refusal.RetryAfter = openFor
	if errors.Is(err, errBusy) {
		refusal.RetryAfter = time.Second
	}
	return refusal
}

// decide makes a verdict of an answer.
func (i *Issuer) decide(a answered, raw token.Raw, local *token.Verified) *verdict {
	now := i.o.Now()
	v := &verdict{}
	switch {
	case a.active:
		v.facts, v.refusal = i.vouched(a.claims, raw, local)
	case local != nil:
		v.refusal = token.Errorf(token.RevokedToken, "issuer %s: introspection says that the token is not active", i.o.Name)
	default:
		v.refusal = token.Errorf(token.InvalidToken, "issuer %s: introspection says that the token is not active", i.o.Name)
	}
	if v.facts == nil {
		v.until = now.Add(min(refusedFor, i.o.Introspection.Interval))
		return v
	}
	v.until = now.Add(i.o.Introspection.Interval)
	switch left := v.facts.verified.Expires - numericDate(now); {
	case left <= -i.o.Leeway.Seconds(): // it is refused as expired, and need not be asked about each time
		v.until = now.Add(min(refusedFor, i.o.Introspection.Interval))
	case left < i.o.Introspection.Interval.Seconds(): // a second at least, or each request within the leeway would ask
		v.until = now.Add(min(i.o.Introspection.Interval, max(time.Second, time.Duration(left*float64(time.Second)))))
	}
	return v
}

// vouched reads what an answer says of an active token (RFC 7662 §2.2), and
// refuses what does not fit.
func (i *Issuer) vouched(claims token.Claims, raw token.Raw, local *token.Verified) (*facts, *token.Error) {
	t := &compact{claims: claims, answer: true}
	at, refusal := i.times(t)
	if refusal != nil {
		return nil, refusal
	}
	if refusal := i.audience(t); refusal != nil {
		return nil, refusal
	}
	if i.o.Audiences != nil && claims.Get("aud").Kind() == token.Missing {
		return nil, i.invalid(t, "it does not say for whom the token is (aud); one of %s is expected", list(i.o.Audiences))
	}
	// Refresh tokens can be introspected, too; they must not pass for access tokens.
	if v := claims.Get("token_type"); v.Kind() != token.Missing && !strings.EqualFold(v.Text(), "Bearer") {
		return nil, i.invalid(t, "token_type is %s; Bearer is expected", show(v))
	}
	differs := func(name, expected string) bool {
		v := claims.Get(name)
		return v.Kind() != token.Missing && (v.Kind() != token.String || v.Text() != expected)
	}
	if differs("iss", i.o.Issuer) {
		return nil, i.invalid(t, "iss is %s; expected is %s", show(claims.Get("iss")), quote(i.o.Issuer))
	}
	binding, refusal := i.binding(t)
	if refusal != nil {
		return nil, refusal
	}
	if local == nil {
		if refusal := i.required(t); refusal != nil {
			return nil, refusal
		}
	} else if sub := local.Claims.Get("sub"); differs("sub", sub.Text()) {
		return nil, i.invalid(t, "sub is %s; that of the token is %s", show(claims.Get("sub")), show(sub))
	} else if binding != "" && binding != local.Certificate { // RFC 8705 §3.2: it may stand in the answer alone
		return nil, i.invalid(t, "cnf.x5t#S256 is %s; that of the token is %s", quote(binding), quote(cmp.Or(local.Certificate, "missing")))
	}
	if i.o.Issuer != "" && claims.Get("iss").Kind() == token.Missing {
		// It is optional (RFC 7662 §2.2), but backends and policies must see whose
		// subject this is, as with a JWT.
		claims = claims.With("iss", i.o.Issuer)
	}
	return i.factsOf(claims, at, []byte(raw.Reveal()), binding), nil
}

// never is the exp of an answer without one.
var never = math.Inf(1)

// opaque is Explain for a token that only the issuer can read.
func (i *Issuer) opaque(ctx context.Context, raw token.Raw, record Record) (*token.Verified, error) {
	if record != nil {
		record("form", "an opaque token of "+strconv.Itoa(raw.Len())+" bytes")
	}
	f, refusal := i.introspect(ctx, raw, nil)
	if refusal != nil {
		return nil, refusal
	}
	if record != nil {
		record("introspection", "issuer "+i.o.Name+" says that it is active; iss "+show(f.verified.Claims.Get("iss")))
	}
	if refusal := f.judge(i.o.Now(), record); refusal != nil {
		return nil, refusal
	}
	return &f.verified, nil
}

func defaults(c *Introspection) *Introspection {
	if c == nil {
		return nil
	}
	d := *c
	d.Interval = cmp.Or(d.Interval, 30*time.Second)
	d.Auth.Method = cmp.Or(d.Auth.Method, ClientSecretBasic)
	return &d
}
