package issuer

import (
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"gatehouse/gateway/token"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
	"golang.org/x/sync/singleflight"
)

// Options describe one issuer.
type Options struct {
	Name           string            // its name in the configuration: token.Verified.Issuer
	Issuer         string            // the iss claim, exactly; "" verifies tokens without one
	Insecure       bool              // http is allowed to other hosts than loopback
	Audiences      []string          // any of them must be in aud; nil means any audience
	Algorithms     []string          // JWS alg values that are accepted; HS* with Secret, and only then
	Leeway         time.Duration     // for clocks that differ: exp, nbf and iat
	PrivilegesFrom []PrivilegeSource // the claims that carry privileges
	Profile        string            // JWT (the default) or RFC9068
	AcceptIDTokens bool              // accept the claims of an ID token: nonce, at_hash, c_hash
	RequiredClaims []RequiredClaim   // what a token must have beyond its profile
	MaxLifetime    time.Duration     // the longest time from iat to exp; 0: any
	IgnoreCnf      bool              // accept tokens with cnf as if they had none

	// Exactly one of these three is where keys come from: static keys (each
	// item the text of a PEM or JWK or JWKS file), a shared secret for HS*, or,
	// without the two, what the issuer publishes.
	StaticKeys [][]byte
	Secret     []byte
	JWKSURI    string // the key set's address; "" finds it by discovery

	Refresh            time.Duration // how often keys are fetched; default 10 min
	MinRefreshInterval time.Duration // the least time between two fetches that unknown kids cause; default 30 s
	MaxStale           time.Duration // how long keys serve after the last good fetch; default 24 h
	Snapshot           string        // file that keeps the last good keys over a restart; "" = none
	SnapshotReadOnly   bool          // the file is another process's to write

	Introspection *Introspection // nil: nobody is asked about tokens

	// From is the Issuer that this one takes the place of, nil if none; it may be in
	// use. If both have their keys from the same place, Start begins with those of
	// From, as old as they are, and fetches them when From would have. From writes
	// its snapshot no more.
	From *Issuer

	Cache  *Cache           // of verified tokens, shared by issuers; nil: each token is verified each time
	Now    func() time.Time // default time.Now
	Log    *slog.Logger     // default: nothing is logged
	Client *http.Client     // default: its own; redirects, time and size are bounded in any case
	// Admit is asked before the issuer is asked about a token, with the request's
	// context; a refusal is the request's. It may be nil.
	Admit   func(ctx context.Context) *token.Error
	OnFetch func(kind string, err error) // called after each fetch of kind "discovery", "jwks" or "introspection", at the same time perhaps; may be nil
	// OnWait is called where a request, whose context it gets, waits for the
	// issuer: for "jwks" or "introspection". What it returns is called when the
	// wait is over, with why it was in vain. It may be nil.
	OnWait func(ctx context.Context, kind string) (done func(error))
}

// PrivilegeSource is one claim that carries privileges, and what is put before
// each of them.
type PrivilegeSource struct {
	Path   token.Path
	Prefix string
}

// Profiles of tokens.
const (
	JWT     = "jwt"     // any signed JWT that is no other kind of token (RFC 7519)
	RFC9068 = "rfc9068" // JWT access tokens: typ at+jwt and the claims of RFC 9068 §2.2
)

// RequiredClaim is a claim that a token must have: one of Values, or, if it is
// an array, one of them as an item; nil accepts any value but null.
type RequiredClaim struct {
	Path   token.Path
	Values []string
}

// Issuer is one party whose tokens are accepted. It is safe for concurrent use.
type Issuer struct {
	o         Options
	verifiers map[string]jws.Verifier // by alg
	keys      atomic.Pointer[keySet]  // nil until the first fetch
	remote    *remote                 // nil with static keys or a secret
	firsts    singleflight.Group      // first sights of a token, by token

	introspection *introspection // nil: nobody is asked about tokens
}

// Health is the state of an issuer's keys.
type Health struct {
	Ready   bool      // there are keys, and they are not too old
	Keys    int       // how many
	Fetched time.Time // when they were fetched; zero for static keys and before the first fetch
	Due     time.Time // when they are to be fetched again; zero for static keys and before the first fetch
	Err     error     // why the latest fetch failed; nil if it did not
}

// New makes an issuer and reads its static keys; it does no I/O and starts
// nothing. The error says what is wrong with which key or option.
func New(o Options) (*Issuer, error) {
	o.Refresh = cmp.Or(o.Refresh, 10*time.Minute)
	o.MinRefreshInterval = cmp.Or(o.MinRefreshInterval, 30*time.Second)
	o.MaxStale = cmp.Or(o.MaxStale, 24*time.Hour)
	o.Profile = cmp.Or(o.Profile, JWT)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.OnFetch == nil {
		o.OnFetch = func(string, error) {}
	}
	if o.OnWait == nil {
		o.OnWait = func(context.Context, string) func(error) { return func(error) {} }
	}
	o.Log = o.Log.With("issuer", o.Name)
	o.Introspection = defaults(o.Introspection)
	from := o.From
	o.From = nil // or every reload would keep all before it in memory

	i := &Issuer{o: o, verifiers: map[string]jws.Verifier{}}
	switch {
	case o.Profile != JWT && o.Profile != RFC9068:
		return nil, fmt.Errorf("%q is no profile; known are %s and %s", o.Profile, JWT, RFC9068)
	case o.Profile == RFC9068 && o.Audiences == nil:
		return nil, errors.New("profile rfc9068 needs audiences to check aud against (RFC 9068 §4)")
	}
	if len(o.Algorithms) == 0 {
		return nil, errors.New("an issuer needs at least one algorithm")
	}
	for _, alg := range o.Algorithms {
		a, known := algorithms[alg]
		switch {
		case !known:
			return nil, fmt.Errorf("%q is no algorithm that can be verified; known are %s", alg, strings.Join(names(), ", "))
		case a.kty == "oct" && len(o.Secret) == 0:
			return nil, fmt.Errorf("%s needs a secret: a public key must never serve as one (RFC 8725 §2.1)", alg)
		case a.kty != "oct" && len(o.Secret) > 0:
			return nil, fmt.Errorf("%s cannot be verified with a secret; beside a secret only HS256, HS384 and HS512 can stand", alg)
		case a.kty == "oct" && len(o.Secret) < a.hash.Size():
			return nil, fmt.Errorf("the secret has %d bytes, and %s needs at least %d (RFC 7518 §3.2)", len(o.Secret), alg, a.hash.Size())
		}
		v, err := jws.NewVerifier(jwa.SignatureAlgorithm(alg))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", alg, err)
		}
		i.verifiers[alg] = v
	}

	switch {
	case len(o.Secret) > 0 && (len(o.StaticKeys) > 0 || o.JWKSURI != ""):
		return nil, errors.New("an issuer with a secret can have no other keys")
	case len(o.StaticKeys) > 0 && o.JWKSURI != "":
		return nil, errors.New("an issuer has either static keys or the address of a key set")
	case len(o.Secret) > 0:
		// Not named by its RFC 7638 thumbprint: §7 there warns that a hash of a
		// secret helps to guess it, and names of keys are logged.
		secret := &key{thumbprint: "secret", algs: o.Algorithms, public: slices.Clone(o.Secret)}
		i.keys.Store(newKeySet([]*key{secret}, nil))
	case len(o.StaticKeys) > 0:
		var keys []*key
		for n, text := range o.StaticKeys {
			ks, err := parseStatic(text, o.Algorithms)
			if err != nil {
				return nil, fmt.Errorf("key %d: %w", n+1, err)
			}
			keys = append(keys, ks...)
		}
		i.keys.Store(newKeySet(keys, nil))
	case o.Issuer == "" && o.JWKSURI == "":
		return nil, errors.New("an issuer without a name in iss needs static keys or a secret: there is nothing to discover")
	default:
		remote, err := newRemote(&i.o, &i.keys)
		if err != nil {
			return nil, err
		}
		i.remote = remote
		if from != nil {
			remote.from = from.remote
		}
	}
	if o.Introspection != nil {
		if o.Introspection.Endpoint == "" && (i.remote == nil || o.JWKSURI != "") {
			return nil, errors.New("introspection needs an endpoint: there is no discovery that would find it")
		}
		n, err := newIntrospection(&i.o)
		if err != nil {
			return nil, err
		}
		i.introspection = n
		if i.remote != nil {
			i.remote.fetcher.asker = n.asker
		}
	}
	return i, nil
}

// Name returns the issuer's name in the configuration.
func (i *Issuer) Name() string { return i.o.Name }

// Start takes over the keys of [Options.From], or reads the snapshot, if there is
// one, and starts to fetch keys in the background. It returns when the first
// fetch ended, well or badly, or ctx is done, soon if a snapshot can serve
// meanwhile, and at once if keys that were taken over are not due. ctx bounds
// only this wait; [Issuer.Close] stops the work. A second Start, and one of an
// issuer with static keys, does nothing.
func (i *Issuer) Start(ctx context.Context) {
	if i.remote != nil {
		i.remote.start(ctx)
	}
}

// Close stops what Start started, waits for its end, and has the cache forget
// what i verified. The keys at hand serve on until they are too old.
func (i *Issuer) Close() {
	if i.remote != nil {
		i.remote.close()
	}
	if i.introspection != nil {
		i.introspection.asker.client.CloseIdleConnections()
	}
	if i.o.Cache != nil {
		i.o.Cache.drop(i)
	}
}

// Health reports on the issuer's keys. It is cheap.
func (i *Issuer) Health() Health {
	set, err := i.current(i.o.Now())
	h := Health{Ready: err == nil}
	if set == nil {
		set = i.keys.Load() // too old, but worth telling how old
	}
	if set != nil {
		h.Keys, h.Fetched = len(set.keys), set.fetched
	}
	if i.remote != nil {
		h.Due, h.Err = i.remote.standing()
	}
	return h
}

// current returns the keys that count at now, or why there are none.
func (i *Issuer) current(now time.Time) (*keySet, *token.Error) {
	set := i.keys.Load()
	switch {
	case i.remote == nil:
		return set, nil
	case set == nil:
		return nil, i.unavailable(now, "no keys yet: %v", i.remote.why())
	}
	if age := now.Sub(set.fetched); age > i.o.MaxStale {
		return nil, i.unavailable(now, "its keys are %s old, more than %s: %v", age.Round(time.Second), i.o.MaxStale, i.remote.why())
	}
	return set, nil
}

// trusts says whether the key of that thumbprint is among the keys that count
// at now. It is what binds a verification that is kept for later requests to
// the key that it rests on.
func (i *Issuer) trusts(thumbprint string, now time.Time) *token.Error {
	set, err := i.current(now)
	if err != nil {
		return err
	}
	if !set.has(thumbprint) {
		return token.Errorf(token.InvalidToken, "issuer %s: the key %q is no longer in the key set", i.o.Name, thumbprint)
	}
	return nil
}

func (i *Issuer) unavailable(now time.Time, format string, args ...any) *token.Error {
	err := token.Errorf(token.IssuerUnavailable, "issuer %s: "+format, append([]any{i.o.Name}, args...)...)
	err.RetryAfter = i.remote.retryAfter(now)
	return err
}

// algorithm is what an alg value asks of a key.
type algorithm struct {
	kty  string
	crv  string // EC and OKP
	hash crypto.Hash
}

// algorithms are those that can be verified: RFC 7518 §3.1 less none, and
// EdDSA with Ed25519 of RFC 8037 §3.1.
var algorithms = map[string]algorithm{
	"RS256": {kty: "RSA"}, "RS384": {kty: "RSA"}, "RS512": {kty: "RSA"},
	"PS256": {kty: "RSA"}, "PS384": {kty: "RSA"}, "PS512": {kty: "RSA"},
	"ES256": {kty: "EC", crv: "P-256"},
	"ES384": {kty: "EC", crv: "P-384"},
	"ES512": {kty: "EC", crv: "P-521"},
	"EdDSA": {kty: "OKP", crv: "Ed25519"},
	"HS256": {kty: "oct", hash: crypto.SHA256},
	"HS384": {kty: "oct", hash: crypto.SHA384},
	"HS512": {kty: "oct", hash: crypto.SHA512},
}

func names() []string {
	var out []string
	for name := range algorithms {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
