package test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// oidc is panva's oidc-provider, a real identity provider; see
// oidc-provider/provider.js.
type oidc struct {
	*process
	URL  string
	port string
}

// newOIDC chooses a place for a provider; start starts it.
func newOIDC(t *testing.T) *oidc {
	t.Helper()
	port := fmt.Sprint(freePort(t))
	return &oidc{URL: "http://127.0.0.1:" + port, port: port}
}

// start starts it; args are further arguments of provider.js.
func (o *oidc) start(t *testing.T, args ...string) {
	t.Helper()
	o.process = launch(t, "node", append([]string{"oidc-provider/provider.js", o.port}, args...)...)
	o.output.says(t, `{"ready":"`+o.URL+`"}`)
}

// tell gives the provider a word and waits until it says what followed.
func (o *oidc) tell(t *testing.T, word string) {
	t.Helper()
	before := strings.Count(o.output.String(), `{"published":`)
	if _, err := io.WriteString(o.stdin, word+"\n"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the provider obeys "+word, func() bool {
		return strings.Count(o.output.String(), `{"published":`) > before
	})
}

// token gets an access token by client credentials (RFC 6749 §4.4).
func (o *oidc) token(t *testing.T, client, alg string) string {
	t.Helper()
	resp := o.post(t, client, "/token", url.Values{"grant_type": {"client_credentials"}, "scope": {"heroes"}, "resource": {"urn:heroes:" + alg}})
	defer func() { _ = resp.Body.Close() }()
	var grant struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&grant); err != nil || grant.AccessToken == "" {
		t.Fatalf("the provider gave no token: %d %v", resp.StatusCode, err)
	}
	return minted(grant.AccessToken)
}

// revoke withdraws a token of that client (RFC 7009).
func (o *oidc) revoke(t *testing.T, client, token string) {
	t.Helper()
	resp := o.post(t, client, "/token/revocation", url.Values{"token": {token}})
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("the provider revoked no token: %d", resp.StatusCode)
	}
}

func (o *oidc) post(t *testing.T, client, path string, form url.Values) *http.Response {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, o.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(client, client)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}
