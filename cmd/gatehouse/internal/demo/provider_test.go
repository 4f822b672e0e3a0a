//go:build !nodemo

package demo

import (
	"crypto/rsa"
	"encoding/json"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// startProvider starts a provider on a real socket.
func startProvider(t *testing.T) *provider {
	t.Helper()
	srv := httptest.NewUnstartedServer(nil)
	p, err := newProvider("http://"+srv.Listener.Addr().String(), audience)
	if err != nil {
		t.Fatal(err)
	}
	srv.Config.Handler = p
	srv.Start()
	t.Cleanup(srv.Close)
	return p
}

// post sends a form; who is "id:secret" for HTTP Basic, or empty.
func post(t *testing.T, u, who, body string) (status int, header http.Header, answer map[string]any) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, u, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if id, secret, ok := strings.Cut(who, ":"); ok {
		req.SetBasicAuth(id, secret)
	}
	return do(t, req)
}

func do(t *testing.T, req *http.Request) (status int, header http.Header, answer map[string]any) {
	t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	_ = json.Unmarshal(body, &answer) // an answer that is no JSON stays nil
	return resp.StatusCode, resp.Header, answer
}

func get(t *testing.T, u string) map[string]any {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, u, nil)
	if err != nil {
		t.Fatal(err)
	}
	status, _, answer := do(t, req)
	if status != http.StatusOK {
		t.Fatalf("GET %s: %d", u, status)
	}
	return answer
}

// TestDiscoveryLeadsToAKeyThatVerifies goes the way of every relying party:
// the discovery document, the key set, a token, its signature and its claims.
func TestDiscoveryLeadsToAKeyThatVerifies(t *testing.T) {
	p := startProvider(t)
	found := get(t, p.issuer+"/.well-known/openid-configuration")
	if found["issuer"] != p.issuer {
		t.Fatalf("the document names the issuer %v, not %s", found["issuer"], p.issuer)
	}
	keys := get(t, found["jwks_uri"].(string))["keys"].([]any)
	if len(keys) != 1 {
		t.Fatalf("%d keys, not one", len(keys))
	}
	jwk := keys[0].(map[string]any)
	for name, want := range map[string]string{"kty": "RSA", "alg": "RS256", "use": "sig"} {
		if jwk[name] != want {
			t.Errorf("the key's %s is %v, not %s", name, jwk[name], want)
		}
	}
	for _, private := range []string{"d", "p", "q", "dp", "dq", "qi"} {
		if _, ok := jwk[private]; ok {
			t.Fatalf("the key set shows the private number %s", private)
		}
	}
	n, _ := b64.DecodeString(jwk["n"].(string))
	e, _ := b64.DecodeString(jwk["e"].(string))
	key := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}

	before := time.Now().Unix()
	status, header, answer := post(t, found["token_endpoint"].(string), "demo:demo-secret", "grant_type=password&username=admin2&password=admin2")
	if status != http.StatusOK || answer["token_type"] != "Bearer" || answer["expires_in"] != 600.0 || header.Get("Cache-Control") != "no-store" {
		t.Fatalf("token endpoint: %d %v %v", status, header, answer)
	}
	token := answer["access_token"].(string)
	payload, ok := verify(key, jwk["kid"].(string), token)
	if !ok {
		t.Fatal("the key of the set does not verify the token")
	}
	var c claims
	if err := json.Unmarshal(payload, &c); err != nil {
		t.Fatal(err)
	}
	if c.Issuer != p.issuer || c.Audience != audience || c.Subject != "admin2" || c.ClientID != "demo" || c.Email != "admin2@example.com" ||
		!slices.Equal(c.Privileges, []string{"CREATE_HERO", "ASSIGN_HERO"}) || c.ID == "" || c.IssuedAt < before || c.Expires-c.IssuedAt != 600 {
		t.Errorf("claims %+v", c)
	}

	if _, ok := verify(key, "another", token); ok {
		t.Error("a key verifies under a kid that is not its own")
	}
	forged, err := reencode(token, func(c map[string]any) { c["sub"] = "root" })
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := verify(key, p.kid, forged); ok {
		t.Error("a token with another payload verifies")
	}
}

func TestTokenEndpoint(t *testing.T) {
	p := startProvider(t)
	tests := []struct {
		name, who, body string
		status          int
		err             string // "" where a token is expected
	}{
		{"client credentials by basic", "demo:demo-secret", "grant_type=client_credentials", 200, ""},
		{"client credentials by post", "", "grant_type=client_credentials&client_id=demo&client_secret=demo-secret", 200, ""},
		{"basic is form-encoded", "d%65mo:demo%2Dsecret", "grant_type=client_credentials", 200, ""},
		{"password", "demo:demo-secret", "grant_type=password&username=admin1&password=admin1", 200, ""},
		{"wrong secret by basic", "demo:guess", "grant_type=client_credentials", 401, "invalid_client"},
		{"wrong secret by post", "", "grant_type=client_credentials&client_id=demo&client_secret=guess", 401, "invalid_client"},
		{"bad escape in basic", "%zz:demo-secret", "grant_type=client_credentials", 401, "invalid_client"},
		{"no client", "", "grant_type=client_credentials", 401, "invalid_client"},
		{"a user is no client", "admin1:admin1", "grant_type=client_credentials", 401, "invalid_client"},
		{"both ways", "demo:demo-secret", "grant_type=client_credentials&client_secret=demo-secret", 400, "invalid_request"},
		{"wrong password", "demo:demo-secret", "grant_type=password&username=admin1&password=admin2", 400, "invalid_grant"},
		{"a client is no user", "demo:demo-secret", "grant_type=password&username=demo&password=demo-secret", 400, "invalid_grant"},
		{"no grant", "demo:demo-secret", "", 400, "invalid_request"},
		{"unknown grant", "demo:demo-secret", "grant_type=implicit", 400, "unsupported_grant_type"},
		{"a scope", "demo:demo-secret", "grant_type=client_credentials&scope=all", 400, "invalid_scope"},
		{"twice", "demo:demo-secret", "grant_type=password&grant_type=client_credentials", 400, "invalid_request"},
		{"bad form", "demo:demo-secret", "grant_type=%zz", 400, "invalid_request"},
		{"too large", "demo:demo-secret", "grant_type=client_credentials&x=" + strings.Repeat("x", maxBody), 413, "invalid_request"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, header, answer := post(t, p.issuer+"/token", tt.who, tt.body)
			if code, _ := answer["error"].(string); status != tt.status || code != tt.err {
				t.Fatalf("%d %v, not %d %q", status, answer, tt.status, tt.err)
			}
			if _, ok := answer["access_token"]; ok != (tt.err == "") {
				t.Fatalf("answer %v", answer)
			}
			if challenged := header.Get("WWW-Authenticate") != ""; challenged != (status == 401) {
				t.Errorf("%d with WWW-Authenticate %q", status, header.Get("WWW-Authenticate"))
			}
		})
	}
	t.Run("not a form", func(t *testing.T) {
		req, err := http.NewRequest(http.MethodPost, p.issuer+"/token", strings.NewReader(`{}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if status, _, answer := do(t, req); status != 400 || answer["error"] != "invalid_request" {
			t.Errorf("%d %v", status, answer)
		}
	})
}

func TestClientCredentialsNameTheClient(t *testing.T) {
	p := startProvider(t)
	_, _, answer := post(t, p.issuer+"/token", "demo:demo-secret", "grant_type=client_credentials")
	payload, ok := verify(&p.key.PublicKey, p.kid, answer["access_token"].(string))
	var c map[string]any
	if !ok || json.Unmarshal(payload, &c) != nil {
		t.Fatal("no token that verifies")
	}
	if _, email := c["email"]; c["sub"] != "demo" || c["client_id"] != "demo" || email {
		t.Errorf("claims %v", c)
	}
}

func TestIntrospection(t *testing.T) {
	p, other := startProvider(t), startProvider(t)
	live, c, err := p.issue(admin1, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	expired, _, err := p.issue(admin1, time.Now().Add(-tokenLife))
	if err != nil {
		t.Fatal(err)
	}
	foreign, _, err := other.issue(admin1, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	forged, err := reencode(live, func(c map[string]any) { c["privileges"] = []string{"CREATE_HERO"} })
	if err != nil {
		t.Fatal(err)
	}
	u := p.issuer + "/introspect"

	status, header, answer := post(t, u, "demo:demo-secret", "token="+live)
	if status != 200 || answer["active"] != true || answer["sub"] != "admin1" || answer["iss"] != p.issuer || answer["aud"] != audience ||
		answer["jti"] != c.ID || answer["exp"] != float64(c.Expires) || answer["token_type"] != "Bearer" || header.Get("Cache-Control") != "no-store" {
		t.Errorf("live: %d %v", status, answer)
	}
	for name, token := range map[string]string{
		"expired": expired, "of another provider": foreign, "forged": forged, "garbage": "garbage",
		"two dots": "..", "many dots": strings.Repeat(".", 1000), "with a tail": live + ".x", "of no payload": "e30..e30",
	} {
		status, _, answer := post(t, u, "demo:demo-secret", url.Values{"token": {token}}.Encode())
		if status != 200 || answer["active"] != false || len(answer) != 1 {
			t.Errorf("a token %s: %d %v", name, status, answer)
		}
	}
	for name, tt := range map[string]struct {
		who, body string
		status    int
		err       string
	}{
		"wrong secret": {"demo:guess", "token=" + live, 401, "invalid_client"},
		"no client":    {"", "token=" + live, 401, "invalid_client"},
		"no token":     {"demo:demo-secret", "", 400, "invalid_request"},
	} {
		if status, _, answer := post(t, u, tt.who, tt.body); status != tt.status || answer["error"] != tt.err || answer["active"] != nil {
			t.Errorf("%s: %d %v", name, status, answer)
		}
	}
}
