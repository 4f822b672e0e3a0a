package issuer

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"time"

	"gatehouse/gateway/token"
)

// Set are the issuers of one route. No two may share an iss value.
type Set []*Issuer

// Verify implements [token.Verifier]. The token's unverified iss only selects
// an issuer, by exact string (RFC 8725 §3.8): no key of another one is tried.
// A token that was verified before costs a look-up: only what may have changed
// since is decided again.
func (s Set) Verify(ctx context.Context, raw token.Raw) (*token.Verified, error) {
	return s.Explain(ctx, raw, nil)
}

// Explain is Verify, and tells record, which may be nil, of each check that the
// token passes.
func (s Set) Explain(ctx context.Context, raw token.Raw, record Record) (*token.Verified, error) {
	if i := s.opaque(raw); i != nil {
		return i.opaque(ctx, raw, record)
	}
	f, err := s.signed(ctx, raw, record)
	if err != nil {
		return nil, err
	}
	if refusal := f.judge(f.issuer.o.Now(), record); refusal != nil {
		return nil, refusal
	}
	if refusal := f.issuer.confirm(ctx, raw, &f.verified, record); refusal != nil {
		return nil, refusal
	}
	return &f.verified, nil
}

// Signed is Verify for a token that is to be withdrawn: one that the issuer
// signed for some other audience or for a later time is good all the same, and
// only one that has expired is of no use to anybody. A JWT's issuer is not asked.
func (s Set) Signed(ctx context.Context, raw token.Raw) (*token.Verified, error) {
	if s.opaque(raw) != nil {
		return s.Verify(ctx, raw)
	}
	f, err := s.signed(ctx, raw, nil)
	if err != nil {
		return nil, err
	}
	if refusal := f.ended(f.issuer.o.Now()); refusal != nil {
		return nil, refusal
	}
	return &f.verified, nil
}

// signed is what is known of a JWT whatever the time.
func (s Set) signed(ctx context.Context, raw token.Raw, record Record) (*facts, error) {
	f := s.remembered(raw)
	if f != nil && record != nil {
		record("memory", "this very token was verified before by issuer "+f.issuer.o.Name+", and its key "+quote(f.verified.Key)+" still counts")
	}
	if f == nil {
		t, refusal := parse(raw.Reveal())
		if refusal != nil {
			return nil, refusal
		}
		t.record = record
		if record != nil {
			t.pass("form", "a JWS of %d bytes; alg %s, kid %s, typ %s", raw.Len(), quote(t.alg), kidText(t.kid), quote(t.typ))
		}
		i, refusal := s.choose(t)
		if refusal != nil {
			return nil, refusal
		}
		if record != nil {
			t.pass("issuer", "%s, by iss %s", i.o.Name, show(t.claims.Get("iss")))
		}
		if f, refusal = i.first(ctx, t, raw); refusal != nil {
			return nil, refusal
		}
	}
	return f, nil
}

// Unverified is what a token says of itself, under the issuer that it selects;
// nil if it selects none or cannot be read. Anyone can have written it, so it
// may only be held against its bearer.
func (s Set) Unverified(raw token.Raw) *token.Verified {
	if i := s.opaque(raw); i != nil {
		sum := sha256.Sum256([]byte(raw.Reveal()))
		return &token.Verified{Issuer: i.o.Name, Hash: base64.RawURLEncoding.EncodeToString(sum[:])}
	}
	t, refusal := parse(raw.Reveal())
	if refusal != nil {
		return nil
	}
	i, refusal := s.choose(t)
	if refusal != nil {
		return nil
	}
	sum := sha256.Sum256(t.input)
	v := &token.Verified{Issuer: i.o.Name, Claims: t.claims, Key: t.kid, Hash: base64.RawURLEncoding.EncodeToString(sum[:])}
	v.IssuedAt, v.HasIssuedAt = t.claims.Get("iat").Float()
	return v
}

// Claimed is Unverified for claims alone.
func (s Set) Claimed(claims token.Claims) *token.Verified {
	i, refusal := s.choose(&compact{claims: claims})
	if refusal != nil {
		return nil
	}
	return &token.Verified{Issuer: i.o.Name, Claims: claims}
}

// Confirm asks the issuer of a token that [Set.Verify] accepted a while ago
// whether it is still good, if it is one that is asked about such tokens. It
// costs a look-up while the issuer's last answer holds. The error is a
// *[token.Error].
func (s Set) Confirm(ctx context.Context, raw token.Raw, v *token.Verified) error {
	for _, i := range s {
		if i.o.Name != v.Issuer || i.introspection == nil {
			continue
		}
		var refusal *token.Error
		if v.Key != "" {
			refusal = i.confirm(ctx, raw, v, nil)
		} else {
			var f *facts
			if f, refusal = i.introspect(ctx, raw, nil); refusal == nil {
				refusal = f.judge(i.o.Now(), nil)
			}
		}
		if refusal != nil {
			return refusal
		}
	}
	return nil
}

// Assume is Explain for claims that nobody signed: the issuer that they name is
// taken to have signed them with a key that counts, at the time now. All that
// the claims themselves decide is decided. It does no I/O.
func (s Set) Assume(claims token.Claims, now time.Time, record Record) (*token.Verified, error) {
	t := &compact{claims: claims, typ: "JWT", alg: "assumed", kid: "assumed", record: func(check, found string) {
		if record != nil && check != "algorithm" { // there is none
			record(check, found)
		}
	}}
	i, refusal := s.choose(t)
	if refusal != nil {
		return nil, refusal
	}
	t.pass("issuer", "%s, by iss %s", i.o.Name, show(claims.Get("iss")))
	t.alg = i.o.Algorithms[0]
	if i.o.Profile == RFC9068 {
		t.typ = "at+jwt"
	}
	at, refusal := i.admit(t)
	if refusal != nil {
		return nil, refusal
	}
	t.pass("signature", "not checked: the claims are taken to be signed")
	f := i.facts(t, at, &key{kid: "assumed"})
	if refusal := f.judge(now, record); refusal != nil {
		return nil, refusal
	}
	return &f.verified, nil
}

// first verifies a token that is not remembered. Requests that bring the same
// one at the same time wait for one verification.
func (i *Issuer) first(ctx context.Context, t *compact, raw token.Raw) (*facts, *token.Error) {
	if i.o.Cache == nil {
		return i.verify(ctx, t)
	}
	type result struct {
		facts   *facts
		refusal *token.Error
	}
	r, _, _ := i.firsts.Do(raw.Reveal(), func() (any, error) {
		// One caller's going away must not fail the others; what verify waits
		// for is bounded by itself.
		f, refusal := i.verify(context.WithoutCancel(ctx), t)
		if refusal == nil {
			i.o.Cache.put(raw, f)
		}
		return result{f, refusal}, nil
	})
	return r.(result).facts, r.(result).refusal
}

func audiences(wanted []string) string {
	if wanted == nil {
		return "any"
	}
	return "one of " + list(wanted)
}

func (s Set) choose(t *compact) (*Issuer, *token.Error) {
	iss := t.claims.Get("iss")
	var expected []string
	for _, i := range s {
		if i.o.Issuer == "" && iss.Kind() == token.Missing ||
			i.o.Issuer != "" && iss.Kind() == token.String && iss.Text() == i.o.Issuer {
			return i, nil
		}
		if i.o.Issuer != "" {
			expected = append(expected, i.o.Issuer)
		}
	}
	if expected == nil {
		expected = []string{"no iss claim"}
	}
	return nil, token.Errorf(token.InvalidToken, "iss is %s; expected is one of %s (alg %s, kid %s)", show(iss), list(expected), quote(t.alg), kidText(t.kid))
}

// verify checks all of a token but audience and time.
func (i *Issuer) verify(ctx context.Context, t *compact) (*facts, *token.Error) {
	at, refusal := i.admit(t)
	if refusal != nil {
		return nil, refusal
	}
	signer, refusal := i.signer(ctx, t)
	if refusal != nil {
		return nil, refusal
	}
	if t.record != nil {
		t.pass("signature", "by the key %s, %s", quote(signer.name()), i.origin())
	}
	return i.facts(t, at, signer), nil
}

// origin says where the keys at hand come from.
func (i *Issuer) origin() string {
	switch set := i.keys.Load(); {
	case len(i.o.Secret) > 0:
		return "the secret of the configuration"
	case i.remote == nil:
		return "a key of the configuration"
	case set == nil || set.fetched.IsZero(): // not reached: something verified
		return "a published key"
	default:
		return "of " + strconv.Itoa(len(set.keys)) + " that were fetched " + i.o.Now().Sub(set.fetched).Round(time.Second).String() + " ago"
	}
}

// signer returns the key that made the token's signature. If the token names
// a key that is not in the set, the set is fetched again, once for all.
func (i *Issuer) signer(ctx context.Context, t *compact) (*key, *token.Error) {
	// The verifier is the one that jws.Verify hands a message to once it has
	// parsed it, with all its checks of key and signature. Here the message is
	// parsed already, once and more strictly, and no second reading can differ.
	v := i.verifiers[t.alg]
	set, refusal := i.current(i.o.Now())
	if refusal != nil {
		return nil, refusal
	}
	k, known := set.verify(t, v)
	if k != nil {
		return k, nil
	}
	if known || i.remote == nil {
		return nil, i.unsigned(t, set, known)
	}

	// Keys without a kid are told apart by what they would have to fit.
	wanted := t.kid
	if wanted == "" {
		wanted = " " + t.alg
	}
	asked, doubt := i.remote.seek(ctx, wanted)
	if newer := i.keys.Load(); newer != set {
		set = newer
		if k, known = set.verify(t, v); k != nil {
			return k, nil
		}
	}
	if known {
		return nil, i.unsigned(t, set, known)
	}
	i.remote.missed(wanted, asked, set)
	if doubt != nil {
		return nil, i.unavailable(i.o.Now(), "no key has the kid %s, and the key set could not be fetched: %v (alg %s)", kidText(t.kid), doubt, quote(t.alg))
	}
	return nil, i.unsigned(t, set, false)
}

// unsigned says why no key verified the token.
func (i *Issuer) unsigned(t *compact, set *keySet, known bool) *token.Error {
	why, skipped := set.skipped[t.kid]
	_, named := set.byKid[t.kid]
	switch {
	case known && t.kid == "":
		return i.invalid(t, "the signature is that of no fitting key (%d keys in the set, at most %d tried)", len(set.keys), maxTried)
	case named:
		for _, k := range set.byKid[t.kid] {
			if k.fits(t.alg) {
				return i.invalid(t, "the signature is not that of the key of this kid")
			}
		}
		return i.invalid(t, "the key of this kid is for %v", set.byKid[t.kid][0].algs)
	case skipped:
		return i.invalid(t, "the key of this kid cannot be used: %v", why)
	}
	var names []string
	for _, k := range set.keys {
		names = append(names, k.name())
	}
	return i.invalid(t, "no key has this kid, or none without kid verifies; the set of %d holds %s", len(set.keys), list(names))
}
