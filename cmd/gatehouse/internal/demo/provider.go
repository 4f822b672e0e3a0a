//go:build !nodemo

package demo

import (
	"cmp"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"mime"
	"net/http"
	"net/url"
	"time"
)

const (
	tokenLife = 10 * time.Minute
	maxBody   = 64 << 10 // bytes of a request's body, at the provider and at the backends
)

// account is somebody who can get a token: a user or a client.
type account struct {
	name, secret string
	email        string
	privileges   []string
	acr          string // how the user logged in; empty for a client
}

// How users log in, as acr names it. Two factors are the password and this
// code, which anybody may know here.
const (
	onePassword = "urn:example:password"
	twoFactors  = "urn:example:two-factors"
	otp         = "123456"
)

// The demo's users and its one client. They exist on loopback, while the demo
// runs, and open nothing else; so their secrets need not be secret.
var (
	admin1 = account{"admin1", "admin1", "admin1@example.com", []string{"ASSIGN_HERO"}, onePassword}
	admin2 = account{"admin2", "admin2", "admin2@example.com", []string{"CREATE_HERO", "ASSIGN_HERO"}, onePassword}
	client = account{"demo", "demo-secret", "", []string{"ASSIGN_HERO"}, ""}
)

// claims are what the provider's tokens hold, and what its introspection
// answers say of a live one.
type claims struct {
	Issuer     string   `json:"iss"`
	Audience   string   `json:"aud"`
	Subject    string   `json:"sub"`
	ClientID   string   `json:"client_id"`
	Email      string   `json:"email,omitempty"`
	Privileges []string `json:"privileges"`
	ACR        string   `json:"acr,omitempty"`       // of users: how they logged in
	AuthTime   int64    `json:"auth_time,omitempty"` // and when
	ID         string   `json:"jti"`
	IssuedAt   int64    `json:"iat"`
	Expires    int64    `json:"exp"`
}

// provider is a small identity provider: OIDC discovery, a JWKS, a token
// endpoint and introspection. Its key lives as long as it does. It is an
// http.Handler, safe for concurrent use.
type provider struct {
	http.Handler
	issuer, audience string
	key              *rsa.PrivateKey
	kid              string
	now              func() time.Time
}

// newProvider makes a provider that stands at the URL issuer and whose tokens
// are for audience.
func newProvider(issuer, audience string) (*provider, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	p := &provider{mux, issuer, audience, key, thumbprint(&key.PublicKey), time.Now}
	mux.HandleFunc("GET /.well-known/openid-configuration", p.discovery)
	mux.HandleFunc("GET /jwks", p.jwks)
	mux.HandleFunc("POST /token", p.token)
	mux.HandleFunc("POST /introspect", p.introspect)
	return p, nil
}

// issue signs a token for a that was made at the time at.
func (p *provider) issue(a account, at time.Time) (string, claims, error) {
	c := claims{
		Issuer: p.issuer, Audience: p.audience, Subject: a.name, ClientID: client.name, Email: a.email,
		Privileges: a.privileges, ACR: a.acr, ID: rand.Text(), IssuedAt: at.Unix(), Expires: at.Add(tokenLife).Unix(),
	}
	if a.acr != "" {
		c.AuthTime = c.IssuedAt
	}
	token, err := sign(p.key, jwtHeader{Alg: "RS256", Typ: "at+jwt", Kid: p.kid}, c) // RFC 9068 §2.1
	return token, c, err
}

// discovery answers as OpenID Connect Discovery 1.0 §3 and RFC 8414 §2 say.
func (p *provider) discovery(w http.ResponseWriter, _ *http.Request) {
	auth := []string{"client_secret_basic", "client_secret_post"}
	writeJSON(w, http.StatusOK, map[string]any{
		"issuer":                                p.issuer,
		"jwks_uri":                              p.issuer + "/jwks",
		"token_endpoint":                        p.issuer + "/token",
		"token_endpoint_auth_methods_supported": auth,
		"introspection_endpoint":                p.issuer + "/introspect",
		"introspection_endpoint_auth_methods_supported": auth,
		"grant_types_supported":                         []string{"client_credentials", "password"},
		"response_types_supported":                      []string{"none"},
		"subject_types_supported":                       []string{"public"},
		"id_token_signing_alg_values_supported":         []string{"RS256"},
	})
}

// jwks answers with the public key (RFC 7517 §5).
func (p *provider) jwks(w http.ResponseWriter, _ *http.Request) {
	n, e := publicNumbers(&p.key.PublicKey)
	writeJSON(w, http.StatusOK, map[string]any{"keys": []map[string]string{
		{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": p.kid, "n": n, "e": e},
	}})
}

// token is the token endpoint (RFC 6749 §3.2): client_credentials (§4.4), and
// the password grant (§4.3) as older services have it. OAuth 2.1 drops that
// grant, and nothing but a demo should still offer it.
func (p *provider) token(w http.ResponseWriter, r *http.Request) {
	form, err := p.authenticated(w, r)
	if err != nil {
		err.write(w)
		return
	}
	var who account
	switch grant := form.Get("grant_type"); {
	case form.Get("scope") != "":
		err = &oauthError{Code: "invalid_scope", Description: "this provider has no scopes; leave the parameter out"}
	case grant == "":
		err = &oauthError{Code: "invalid_request", Description: "grant_type is missing"}
	case grant == "client_credentials":
		who = client
	case grant == "password":
		var ok bool
		if who, ok = find(form.Get("username"), form.Get("password"), admin1, admin2); !ok {
			err = &oauthError{Code: "invalid_grant", Description: "wrong user or password"}
		} else if code := form.Get("otp"); code == otp {
			who.acr = twoFactors
		} else if code != "" {
			err = &oauthError{Code: "invalid_grant", Description: "wrong code"}
		}
	default:
		err = &oauthError{Code: "unsupported_grant_type", Description: "client_credentials and password are supported"}
	}
	if err != nil {
		err.write(w)
		return
	}
	token, _, signErr := p.issue(who, p.now())
	if signErr != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"access_token": token, "token_type": "Bearer", "expires_in": int(tokenLife.Seconds()),
	})
}

// introspect says whether a token is live, and whose (RFC 7662 §2.2). About a
// dead, forged or foreign one it says nothing but that it is not.
func (p *provider) introspect(w http.ResponseWriter, r *http.Request) {
	form, err := p.authenticated(w, r)
	if err == nil && form.Get("token") == "" {
		err = &oauthError{Code: "invalid_request", Description: "token is missing"}
	}
	if err != nil {
		err.write(w)
		return
	}
	var c claims
	if payload, ok := verify(&p.key.PublicKey, p.kid, form.Get("token")); !ok ||
		json.Unmarshal(payload, &c) != nil || p.now().Unix() >= c.Expires {
		writeJSON(w, http.StatusOK, map[string]bool{"active": false})
		return
	}
	writeJSON(w, http.StatusOK, struct {
		Active    bool   `json:"active"`
		TokenType string `json:"token_type"`
		claims
	}{true, "Bearer", c})
}

// authenticated reads the form of a request whose client proves who it is, by
// HTTP Basic or in the form, never both (RFC 6749 §2.3).
func (p *provider) authenticated(w http.ResponseWriter, r *http.Request) (url.Values, *oauthError) {
	form, err := readForm(w, r)
	if err != nil {
		return nil, err
	}
	id, secret := form.Get("client_id"), form.Get("client_secret")
	if user, password, basic := r.BasicAuth(); basic {
		if secret != "" {
			return nil, &oauthError{Code: "invalid_request", Description: "the client authenticates twice"}
		}
		// RFC 6749 §2.3.1: both halves are form-encoded before they are joined.
		var bad1, bad2 error
		id, bad1 = url.QueryUnescape(user)
		secret, bad2 = url.QueryUnescape(password)
		if bad1 != nil || bad2 != nil {
			id = ""
		}
	}
	if _, ok := find(id, secret, client); !ok {
		return nil, &oauthError{Status: http.StatusUnauthorized, Code: "invalid_client", Description: "wrong client or secret"}
	}
	return form, nil
}

// readForm reads a bounded form in which no parameter stands twice (RFC 6749 §3.2).
func readForm(w http.ResponseWriter, r *http.Request) (url.Values, *oauthError) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" {
		return nil, &oauthError{Code: "invalid_request", Description: "the body must be application/x-www-form-urlencoded"}
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if err := r.ParseForm(); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return nil, &oauthError{Status: http.StatusRequestEntityTooLarge, Code: "invalid_request", Description: "the body is too large"}
		}
		return nil, &oauthError{Code: "invalid_request", Description: "the form cannot be parsed"}
	}
	for name, values := range r.PostForm {
		if len(values) > 1 {
			return nil, &oauthError{Code: "invalid_request", Description: fmt.Sprintf("the parameter %q is there twice", name)}
		}
	}
	return r.PostForm, nil
}

// find returns the account of that name and secret. The comparison takes the
// same time for a secret that is nearly right.
func find(name, secret string, among ...account) (account, bool) {
	given := sha256.Sum256([]byte(secret))
	for _, a := range among {
		want := sha256.Sum256([]byte(a.secret))
		if a.name == name && subtle.ConstantTimeCompare(given[:], want[:]) == 1 {
			return a, true
		}
	}
	return account{}, false
}

// oauthError is an error answer of RFC 6749 §5.2.
type oauthError struct {
	Status      int    `json:"-"` // 0 means 400
	Code        string `json:"error"`
	Description string `json:"error_description"`
}

func (e *oauthError) write(w http.ResponseWriter) {
	if e.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="demo"`)
	}
	writeJSON(w, cmp.Or(e.Status, http.StatusBadRequest), e)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the caller is gone: nobody is left to tell
}

// publicNumbers returns a key's n and e as RFC 7518 §6.3.1 writes them.
func publicNumbers(key *rsa.PublicKey) (n, e string) {
	return b64.EncodeToString(key.N.Bytes()), b64.EncodeToString(big.NewInt(int64(key.E)).Bytes())
}

// thumbprint returns a key's RFC 7638 thumbprint, which serves as its kid.
func thumbprint(key *rsa.PublicKey) string {
	n, e := publicNumbers(key)
	sum := sha256.Sum256([]byte(`{"e":"` + e + `","kty":"RSA","n":"` + n + `"}`))
	return b64.EncodeToString(sum[:])
}
