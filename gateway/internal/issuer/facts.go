package issuer

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"gatehouse/gateway/token"
)

// facts are what stays true of a verified token whatever the time and the
// request: they may be kept and shared. What changes is asked of them anew
// each time, by [Issuer.trusts] and [facts.judge].
type facts struct {
	issuer   *Issuer
	verified token.Verified
	digest   digest // of the whole token, once it is remembered
	key      string // thumbprint of the key that verified
	nbf      float64
	hasNbf   bool
}

// times are the claims that are compared with the clock (RFC 7519 §4.1.4–6).
type times struct {
	exp, nbf, iat  float64
	hasNbf, hasIat bool
}

// latest is the end of the year 9999; what claims a later time is an overflow
// or a trick.
const latest = 253402300799

// identityClaims tell ID tokens (OpenID Connect Core §2, §3.3.2.11) from access
// tokens, as events tells logout tokens (Back-Channel Logout §2.4). Issuers
// sign all of them with the same keys, so that one would pass for the other
// (RFC 8725 §3.11, §3.12).
var identityClaims = []string{"nonce", "at_hash", "c_hash"}

// accessClaims are what RFC 9068 §2.2 demands, less exp and aud, which are
// looked at anyway.
var accessClaims = []string{"iss", "sub", "client_id", "jti"}

// admit decides what needs neither key nor clock: algorithm, type, and the
// form of the claims.
func (i *Issuer) admit(t *compact) (times, *token.Error) {
	if refusal := i.algorithm(t); refusal != nil {
		return times{}, refusal
	}
	if refusal := i.kind(t); refusal != nil {
		return times{}, refusal
	}
	at, refusal := i.times(t)
	if refusal != nil {
		return times{}, refusal
	}
	if refusal := i.audience(t); refusal != nil {
		return times{}, refusal
	}
	if refusal := i.required(t); refusal != nil {
		return times{}, refusal
	}
	return at, nil
}

func (i *Issuer) algorithm(t *compact) *token.Error {
	if !slices.Contains(i.o.Algorithms, t.alg) {
		return i.invalid(t, "alg %s is none of this issuer's algorithms %s", quote(t.alg), strings.Join(i.o.Algorithms, ", "))
	}
	t.pass("algorithm", "%s, one of %s", t.alg, strings.Join(i.o.Algorithms, ", "))
	return nil
}

func (i *Issuer) required(t *compact) *token.Error {
	for _, c := range i.o.RequiredClaims {
		if v := t.claims.Lookup(c.Path); !c.met(v) {
			return i.invalid(t, "the claim %s is %s; required is %s", c.Path, show(v), c.wanted())
		}
	}
	if i.o.RequiredClaims != nil {
		t.pass("required claims", "all %d are there", len(i.o.RequiredClaims))
	}
	return nil
}

// kind decides whether the token is an access token.
func (i *Issuer) kind(t *compact) *token.Error {
	if i.o.Profile == RFC9068 {
		if !mediaType(t.typ, "at+jwt") {
			return i.invalid(t, "typ is %s; profile rfc9068 expects at+jwt", quote(t.typ))
		}
		for _, name := range accessClaims {
			if v := t.claims.Get(name); v.Kind() != token.String || v.Text() == "" {
				return i.invalid(t, "the claim %s is %s; profile rfc9068 expects a string (RFC 9068 §2.2)", name, show(v))
			}
		}
		for _, name := range []string{"iat", "aud"} {
			if t.claims.Get(name).Kind() == token.Missing {
				return i.invalid(t, "the claim %s is missing; profile rfc9068 expects it (RFC 9068 §2.2)", name)
			}
		}
	} else if t.typ != "" && !mediaType(t.typ, "JWT") && !mediaType(t.typ, "at+jwt") {
		return i.invalid(t, "typ %s is not the type of an access token; JWT, at+jwt or none is expected", quote(t.typ))
	}
	if t.claims.Get("events").Kind() != token.Missing {
		return i.invalid(t, "the claim events is there: a logout token is not an access token")
	}
	if !i.o.AcceptIDTokens {
		for _, name := range identityClaims {
			if t.claims.Get(name).Kind() != token.Missing {
				return i.invalid(t, "the claim %s is there: an ID token is not an access token (accept_id_tokens: true takes it for one)", name)
			}
		}
	}
	if _, refusal := i.binding(t); refusal != nil {
		return refusal
	}
	t.pass("kind", "an access token of profile %s, typ %s", i.o.Profile, quote(t.typ))
	return nil
}

// binding returns the certificate that the token is bound to, as the claim
// cnf.x5t#S256 has it (RFC 8705 §3.1), or "" for a bearer token. A binding of
// another kind cannot be verified here, so that the token must not pass as if
// it had none (RFC 7800 §3.1).
func (i *Issuer) binding(t *compact) (string, *token.Error) {
	cnf := t.claims.Get("cnf")
	if i.o.IgnoreCnf || cnf.Kind() == token.Missing {
		return "", nil
	}
	print := cnf.Member("x5t#S256")
	members := 0
	for range cnf.Members() {
		members++
	}
	if members != 1 || print.Kind() != token.String || print.Text() == "" {
		return "", i.invalid(t, "the claim cnf is %s: only a binding to a client certificate (x5t#S256, RFC 8705 §3.1) can be verified here", show(cnf))
	}
	return print.Text(), nil
}

// dates reads the claims that the clock is held against.
func (i *Issuer) dates(t *compact) (at times, hasExp bool, refusal *token.Error) {
	for _, c := range []struct {
		name string
		at   *float64
		has  *bool
	}{{"exp", &at.exp, &hasExp}, {"nbf", &at.nbf, &at.hasNbf}, {"iat", &at.iat, &at.hasIat}} {
		v := t.claims.Get(c.name)
		if v.Kind() == token.Missing {
			continue
		}
		seconds, ok := v.Float()
		if !ok || math.IsNaN(seconds) || seconds < 0 || seconds > latest {
			return times{}, false, i.invalid(t, "the claim %s is %s; a number of seconds from 0 to %d is expected (RFC 7519 §2)", c.name, show(v), latest)
		}
		*c.at, *c.has = seconds, true
	}
	return at, hasExp, nil
}

// times decides whether the token ends, and soon enough.
func (i *Issuer) times(t *compact) (times, *token.Error) {
	at, hasExp, refusal := i.dates(t)
	if refusal != nil {
		return times{}, refusal
	}
	switch {
	case hasExp:
	case t.answer && i.o.MaxLifetime == 0: // RFC 7662 §2.2: exp is optional
		at.exp = never
	default:
		return times{}, i.invalid(t, "the claim exp is missing; a token that never ends is not accepted")
	}
	if i.o.MaxLifetime > 0 {
		switch {
		case !at.hasIat:
			return times{}, i.invalid(t, "the claim iat is missing, so that the token's lifetime cannot be held against max_lifetime %s", i.o.MaxLifetime)
		case at.exp-at.iat > i.o.MaxLifetime.Seconds():
			return times{}, i.invalid(t, "the token lives %s from iat to exp; max_lifetime is %s", span(at.exp-at.iat), i.o.MaxLifetime)
		}
	}
	return at, nil
}

// audience decides whether aud has the form that it must have.
func (i *Issuer) audience(t *compact) *token.Error {
	aud := t.claims.Get("aud")
	switch aud.Kind() {
	case token.Missing, token.String:
	case token.Array:
		for item := range aud.Items() {
			if item.Kind() != token.String {
				return i.invalid(t, "the claim aud holds a JSON %s, not only strings (RFC 7519 §4.1.3)", item.Kind())
			}
		}
	default:
		return i.invalid(t, "the claim aud is a JSON %s, not a string or an array of strings (RFC 7519 §4.1.3)", aud.Kind())
	}
	return nil
}

// mediaType says whether typ names that type. It is a media type, so its case
// does not matter, and application/ may be left out (RFC 7515 §4.1.9, RFC 9068
// §2.1).
func mediaType(typ, name string) bool {
	const prefix = "application/"
	if len(typ) > len(prefix) && strings.EqualFold(typ[:len(prefix)], prefix) {
		typ = typ[len(prefix):]
	}
	return strings.EqualFold(typ, name)
}

// met says whether v is what the claim must be.
func (c RequiredClaim) met(v token.Value) bool {
	if c.Values == nil {
		return v.Kind() != token.Missing && v.Kind() != token.Null
	}
	if v.Kind() == token.Array {
		for item := range v.Items() {
			if item.Text() != "" && slices.Contains(c.Values, item.Text()) {
				return true
			}
		}
		return false
	}
	return v.Text() != "" && slices.Contains(c.Values, v.Text())
}

func (c RequiredClaim) wanted() string {
	if c.Values == nil {
		return "any value"
	}
	return list(c.Values)
}

// facts makes what is kept of a token that k verified.
func (i *Issuer) facts(t *compact, at times, k *key) *facts {
	binding, _ := i.binding(t) // admit has refused what is wrong with it
	f := i.factsOf(t.claims, at, t.input, binding)
	f.key, f.verified.Key = k.thumbprint, k.name()
	return f
}

// factsOf makes what is kept of a token with these claims. named is what the hash
// that names it is taken of.
func (i *Issuer) factsOf(claims token.Claims, at times, named []byte, binding string) *facts {
	sum := sha256.Sum256(named)
	privileges, found, unreadable := i.privileges(claims)
	return &facts{issuer: i, nbf: at.nbf, hasNbf: at.hasNbf, verified: token.Verified{
		Issuer:               i.o.Name,
		Claims:               claims,
		Hash:                 base64.RawURLEncoding.EncodeToString(sum[:]),
		Expires:              at.exp,
		IssuedAt:             at.iat,
		HasIssuedAt:          at.hasIat,
		Privileges:           privileges,
		PrivilegesMissing:    !found,
		PrivilegesUnreadable: unreadable,
		Certificate:          binding,
	}}
}

// privileges collects what the claims grant. A string is split at spaces, as
// scope is (RFC 6749 §3.3); an array's items are taken whole, so that an item
// "a b" does not become two privileges. unreadable says that a claim or an item
// is there and of another type.
func (i *Issuer) privileges(c token.Claims) (out []string, found, unreadable bool) {
	for _, from := range i.o.PrivilegesFrom {
		v := c.Lookup(from.Path)
		switch v.Kind() {
		case token.String:
			found = true
			out = slices.Grow(out, 1+strings.Count(v.Text(), " "))
			for p := range strings.SplitSeq(v.Text(), " ") {
				if p != "" {
					out = append(out, from.Prefix+p)
				}
			}
		case token.Array:
			found = true
			items := 0
			for range v.Items() {
				items++
			}
			out = slices.Grow(out, items)
			for item := range v.Items() {
				if item.Kind() != token.String {
					unreadable = true
				} else if p := item.Text(); p != "" {
					out = append(out, from.Prefix+p)
				}
			}
		case token.Missing:
			unreadable = unreadable || c.Blocked(from.Path)
		case token.Null: // as good as left out
		default:
			unreadable = true
		}
	}
	return out, found, unreadable
}

// judge decides what may change between two requests: whether the token is
// for this audience, has begun and has not ended. It allocates nothing unless it
// refuses or has a record.
func (f *facts) judge(now time.Time, record Record) *token.Error {
	o := &f.issuer.o
	if o.Audiences != nil {
		aud := f.verified.Claims.Get("aud")
		if !meets(aud, o.Audiences) {
			return f.refuse(token.InvalidToken, "aud is %s; one of %s is expected", show(aud), list(o.Audiences))
		}
	}
	if record != nil {
		record("audience", "aud is "+show(f.verified.Claims.Get("aud"))+"; expected "+audiences(o.Audiences))
	}
	return f.timely(now, record)
}

// timely decides whether the token has begun and has not ended.
func (f *facts) timely(now time.Time, record Record) *token.Error {
	o, v := &f.issuer.o, &f.verified
	clock, leeway := numericDate(now), o.Leeway.Seconds()
	switch {
	case f.hasNbf && f.nbf > clock+leeway:
		return f.refuse(token.InvalidToken, "nbf is %s, %s from now; leeway %s", moment(f.nbf), span(f.nbf-clock), o.Leeway)
	case v.HasIssuedAt && v.IssuedAt > clock+leeway:
		return f.refuse(token.InvalidToken, "iat is %s, %s from now; leeway %s", moment(v.IssuedAt), span(v.IssuedAt-clock), o.Leeway)
	}
	if refusal := f.ended(now); refusal != nil {
		return refusal
	}
	if record != nil {
		until := "without end"
		if v.Expires != never {
			until = "until " + moment(v.Expires)
		}
		record("time", until+", leeway "+o.Leeway.String())
	}
	return nil
}

// ended decides whether the token has ended, whatever else is wrong with it.
func (f *facts) ended(now time.Time) *token.Error {
	o, v := &f.issuer.o, &f.verified
	if clock := numericDate(now); clock >= v.Expires+o.Leeway.Seconds() {
		return f.refuse(token.ExpiredToken, "exp was %s, %s ago; leeway %s", moment(v.Expires), span(clock-v.Expires), o.Leeway)
	}
	return nil
}

// numericDate is now as the claims have it (RFC 7519 §2).
func numericDate(now time.Time) float64 { return float64(now.Unix()) + float64(now.Nanosecond())/1e9 }

func (f *facts) refuse(r token.Reason, format string, args ...any) *token.Error {
	args = append([]any{f.issuer.o.Name}, args...)
	if f.verified.Key == "" {
		return token.Errorf(r, "issuer %s: the introspection answer: "+format, args...)
	}
	return token.Errorf(r, "issuer %s: "+format+" (key %s)", append(args, quote(f.verified.Key))...)
}

func meets(aud token.Value, wanted []string) bool {
	if aud.Kind() == token.String {
		return slices.Contains(wanted, aud.Text())
	}
	for item := range aud.Items() {
		if item.Kind() == token.String && slices.Contains(wanted, item.Text()) {
			return true
		}
	}
	return false
}

func (i *Issuer) invalid(t *compact, format string, args ...any) *token.Error {
	args = append([]any{i.o.Name}, args...)
	if t.answer {
		return token.Errorf(token.InvalidToken, "issuer %s: the introspection answer: "+format, args...)
	}
	return token.Errorf(token.InvalidToken, "issuer %s: "+format+" (alg %s, kid %s)", append(args, quote(t.alg), kidText(t.kid))...)
}

// show writes a claim's value for the log.
func show(v token.Value) string {
	switch v.Kind() {
	case token.String:
		return quote(v.Text())
	case token.Array, token.Object:
		return quote(v.JSON())
	}
	return quote(cmp.Or(v.Text(), v.Kind().String()))
}

func kidText(kid string) string {
	if kid == "" {
		return "none"
	}
	return quote(kid)
}

// moment writes a NumericDate with the time that it means.
func moment(seconds float64) string {
	return strconv.FormatFloat(seconds, 'f', -1, 64) + " (" + time.Unix(int64(seconds), 0).UTC().Format(time.RFC3339) + ")"
}

func span(seconds float64) string {
	if seconds > math.MaxInt64/1e9 {
		return "centuries"
	}
	return time.Duration(seconds * float64(time.Second)).Round(time.Second).String()
}
