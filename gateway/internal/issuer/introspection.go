package issuer

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"
	"github.com/sony/gobreaker/v2"

	"gatehouse/gateway/token"
)

// Introspection says which tokens the issuer is asked about (RFC 7662), and how.
type Introspection struct {
	Always   bool          // JWTs too, once they are verified here; else opaque tokens only
	Interval time.Duration // how long an answer holds; default 30 s
	Endpoint string        // "": found by discovery
	Auth     ClientAuth
	MaxStale time.Duration // how long an answer holds beyond Interval while the issuer cannot be asked
}

// ClientAuth is how the gateway shows the endpoint who it is (OpenID Connect
// Core §9).
type ClientAuth struct {
	Method   string // ClientSecretBasic (the default), ClientSecretPost or PrivateKeyJWT
	ClientID string
	Secret   string // for the first two
	Key      []byte // for the third: a private key in PEM or JWK
}

// Methods of client authentication.
const (
	ClientSecretBasic = "client_secret_basic"
	ClientSecretPost  = "client_secret_post"
	PrivateKeyJWT     = "private_key_jwt"
)

const (
	askTimeout  = 5 * time.Second // for one answer, from dialling to its last byte
	maxAnswer   = 64 << 10        // bytes of one answer, decompressed
	maxInFlight = 64              // calls at one time
	// After tripAfter failures in a row the endpoint is left alone for openFor,
	// so that an outage holds nobody up; then one request tries.
	tripAfter = 5
	openFor   = 2 * time.Second
	// assertionLife is how long a signed assertion would serve whoever got hold of it.
	assertionLife = time.Minute
)

// asker asks an introspection endpoint, bounded in time, size and number. It is
// safe for concurrent use.
type asker struct {
	o       *Options
	client  *http.Client
	breaker *gobreaker.CircuitBreaker[answered]
	slots   chan struct{}

	key        jwk.Key // of PrivateKeyJWT
	alg        jwa.SignatureAlgorithm
	discovered atomic.Pointer[found]
}

// found is what discovery said of the endpoint.
type found struct {
	uri string
	err error
}

// answered is an answer that could be read.
type answered struct {
	active bool
	claims token.Claims
}

var errBusy = fmt.Errorf("%d calls are under way already", maxInFlight)

func newAsker(o *Options) (*asker, error) {
	a := &asker{o: o, slots: make(chan struct{}, maxInFlight)}
	c := o.Introspection
	if c.Endpoint != "" {
		if err := checkEndpoint(c.Endpoint, o.Insecure); err != nil {
			return nil, err
		}
		a.discovered.Store(&found{uri: c.Endpoint})
	} else {
		a.discovered.Store(&found{err: errors.New("its metadata were not fetched yet")})
	}
	if c.Auth.ClientID == "" {
		return nil, errors.New("introspection needs a client id (RFC 7662 §2.1)")
	}
	switch c.Auth.Method {
	case ClientSecretBasic, ClientSecretPost:
		if c.Auth.Secret == "" {
			return nil, fmt.Errorf("%s needs a secret", c.Auth.Method)
		}
	case PrivateKeyJWT:
		var err error
		if a.key, a.alg, err = parsePrivate(c.Auth.Key); err != nil {
			return nil, fmt.Errorf("the key for introspection: %w", err)
		}
	default:
		return nil, fmt.Errorf("%q is no method of client authentication; known are %s, %s and %s", c.Auth.Method, ClientSecretBasic, ClientSecretPost, PrivateKeyJWT)
	}
	a.client = &http.Client{Transport: &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: askTimeout / 2}).DialContext,
		TLSHandshakeTimeout:    askTimeout / 2,
		MaxResponseHeaderBytes: maxAnswer,
		MaxIdleConnsPerHost:    maxInFlight,
		IdleConnTimeout:        time.Minute,
		ForceAttemptHTTP2:      true,
	}}
	if o.Client != nil {
		client := *o.Client
		a.client = &client
	}
	// A redirect would hand a live token and the client's secret to whoever it names.
	a.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	a.breaker = gobreaker.NewCircuitBreaker[answered](gobreaker.Settings{
		Name:        "introspection",
		Timeout:     openFor,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= tripAfter },
		// Else whoever sends odd tokens could shut everybody out.
		IsExcluded: func(err error) bool { return errors.As(err, new(*oddTokenError)) },
		OnStateChange: func(_ string, _, now gobreaker.State) {
			switch now {
			case gobreaker.StateOpen:
				o.Log.Warn("introspection fails", "next_try_in", openFor)
			case gobreaker.StateClosed:
				o.Log.Info("introspection works again")
			}
		},
	})
	return a, nil
}

func checkEndpoint(uri string, insecure bool) error {
	if err := checkURL(uri, insecure); err != nil {
		return fmt.Errorf("introspection endpoint: %w", err)
	}
	return nil
}

// parsePrivate reads a client's private key and chooses what it signs with
// (RFC 7518 §3.1, RFC 8037 §3.1). The errors hold nothing of it.
func parsePrivate(text []byte) (jwk.Key, jwa.SignatureAlgorithm, error) {
	k, err := jwk.ParseKey(text, jwk.WithPEM(!bytes.HasPrefix(bytes.TrimSpace(text), []byte("{"))))
	if err != nil {
		return nil, "", errors.New("it is no private key in PEM or JWK")
	}
	alg := ""
	switch k := k.(type) {
	case jwk.RSAPrivateKey:
		var raw rsa.PrivateKey
		if err := k.Raw(&raw); err != nil || raw.N.BitLen() < 2048 {
			return nil, "", errors.New("an RSA key needs at least 2,048 bits (RFC 7518 §3.3)")
		}
		alg = "RS256"
		if stated := k.Algorithm().String(); algorithms[stated].kty == "RSA" {
			alg = stated
		}
	case jwk.ECDSAPrivateKey:
		alg = map[jwa.EllipticCurveAlgorithm]string{jwa.P256: "ES256", jwa.P384: "ES384", jwa.P521: "ES512"}[k.Crv()]
	case jwk.OKPPrivateKey:
		if k.Crv() == jwa.Ed25519 {
			alg = "EdDSA"
		}
	}
	if alg == "" {
		return nil, "", errors.New("it is no private key for RS, PS or ES 256 to 512 or EdDSA")
	}
	return k, jwa.SignatureAlgorithm(alg), nil
}

// discover takes the endpoint from the issuer's metadata (RFC 8414 §2).
func (a *asker) discover(metadata token.Claims) {
	if a.o.Introspection.Endpoint != "" {
		return
	}
	f := &found{}
	if v := metadata.Get("introspection_endpoint"); v.Kind() != token.String {
		f.err = fmt.Errorf("introspection_endpoint in its metadata is %s; say introspection.endpoint", show(v))
	} else if f.err = checkEndpoint(v.Text(), a.o.Insecure); f.err == nil {
		f.uri = v.Text()
	}
	a.discovered.Store(f)
}

// takeOver takes the endpoint that the issuer's metadata gave to from, which may
// be nil, and says whether a knows one now.
func (a *asker) takeOver(from *asker) bool {
	if a.o.Introspection.Endpoint != "" {
		return true
	}
	if from == nil || from.o.Introspection.Endpoint != "" {
		return false
	}
	f := from.discovered.Load()
	if f.err == nil {
		a.discovered.Store(f)
	}
	return f.err == nil
}

// ask asks about one token. The error says that nobody can tell.
func (a *asker) ask(ctx context.Context, raw token.Raw) (answered, error) {
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	default:
		return answered{}, errBusy
	}
	endpoint := a.discovered.Load()
	if endpoint.err != nil {
		return answered{}, endpoint.err
	}
	return a.breaker.Execute(func() (answered, error) {
		done := a.o.OnWait(ctx, "introspection")
		answer, err := a.post(ctx, endpoint.uri, raw)
		done(err)
		a.o.OnFetch("introspection", err)
		return answer, err
	})
}

// oddTokenError is a failure that another token need not meet.
type oddTokenError struct{ error }

func (a *asker) post(ctx context.Context, endpoint string, raw token.Raw) (answered, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	form := url.Values{"token": {raw.Reveal()}, "token_type_hint": {"access_token"}}
	auth := &a.o.Introspection.Auth
	switch auth.Method {
	case ClientSecretPost:
		form.Set("client_id", auth.ClientID)
		form.Set("client_secret", auth.Secret)
	case PrivateKeyJWT:
		assertion, err := a.assertion(endpoint)
		if err != nil {
			return answered{}, err
		}
		form.Set("client_id", auth.ClientID)
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", assertion)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return answered{}, err
	}
	if auth.Method == ClientSecretBasic { // form-encoded first: RFC 6749 §2.3.1
		req.SetBasicAuth(url.QueryEscape(auth.ClientID), url.QueryEscape(auth.Secret))
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "gatehouse")
	resp, err := a.client.Do(req)
	if err != nil {
		if e := (*url.Error)(nil); errors.As(err, &e) {
			err = e.Err
		}
		return answered{}, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity, http.StatusRequestHeaderFieldsTooLarge:
		return answered{}, &oddTokenError{&statusError{resp.StatusCode}}
	default: // 401 and 403 are about the gateway's own credentials, never about the caller's
		return answered{}, &statusError{resp.StatusCode}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return answered{}, fmt.Errorf("the answer broke off: %w", err)
	}
	if len(body) > maxAnswer {
		return answered{}, &oddTokenError{fmt.Errorf("the answer has more than %d bytes", maxAnswer)}
	}
	claims, err := token.ParseClaims(body)
	if err != nil {
		return answered{}, fmt.Errorf("not an introspection response: %w", err)
	}
	active := claims.Get("active")
	if active.Kind() != token.Bool { // RFC 7662 §2.2; "false" in quotes must not pass for true
		return answered{}, fmt.Errorf("not an introspection response: active is %s, not true or false", show(active))
	}
	return answered{active.Text() == "true", claims}, nil
}

// assertion authenticates the gateway by its key (RFC 7523 §2.2, §3). Its
// audience is the issuer, which no other server passes for; without one it is
// the endpoint.
func (a *asker) assertion(endpoint string) (string, error) {
	aud := a.o.Issuer
	if !strings.Contains(aud, "://") {
		aud = endpoint
	}
	now, id := a.o.Now(), a.o.Introspection.Auth.ClientID
	payload, err := json.Marshal(map[string]any{
		"iss": id, "sub": id, "aud": aud, "jti": rand.Text(),
		"iat": now.Unix(), "exp": now.Add(assertionLife).Unix(),
	})
	if err != nil {
		return "", err
	}
	// The key's own kid, if it has one, goes into the header.
	signed, err := jws.Sign(payload, jws.WithKey(a.alg, a.key))
	if err != nil {
		return "", errors.New("the client's assertion cannot be signed")
	}
	return string(signed), nil
}
