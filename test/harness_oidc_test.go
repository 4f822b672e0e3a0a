package test

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
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

// browser is a user's, with the cookies of the provider's session.
type browser struct {
	*oidc
	client *http.Client
	id     string // the latest ID token
}

func (o *oidc) browser(t *testing.T) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{oidc: o, client: &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if r.URL.Host == "shop.example" {
			return http.ErrUseLastResponse
		}
		return nil
	}}}
}

// logIn returns the access token of a user who logs in at that client (RFC
// 6749 §4.1, RFC 7636), or comes back to it while the session lasts.
func (b *browser) logIn(t *testing.T, client, user string) string {
	t.Helper()
	verifier := rand.Text() + rand.Text()
	sum := sha256.Sum256([]byte(verifier))
	resp, err := b.client.Get(b.URL + "/auth?" + url.Values{
		"client_id": {client}, "response_type": {"code"}, "redirect_uri": {"https://shop.example/callback"}, "scope": {"openid heroes"},
		"resource": {"urn:heroes:ES256"}, "login_hint": {user}, "state": {"s"}, "code_challenge_method": {"S256"}, "code_challenge": {b64(string(sum[:]))},
	}.Encode())
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	to, err := resp.Location()
	if err != nil || to.Query().Get("code") == "" {
		t.Fatalf("the provider gave no code: %d %v %.2000s", resp.StatusCode, to, body)
	}
	resp = b.post(t, client, "/token", url.Values{"grant_type": {"authorization_code"}, "code": {to.Query().Get("code")},
		"redirect_uri": {"https://shop.example/callback"}, "code_verifier": {verifier}, "resource": {"urn:heroes:ES256"}})
	defer func() { _ = resp.Body.Close() }()
	var grant struct {
		AccessToken string `json:"access_token"`
		IDToken     string `json:"id_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&grant); err != nil || grant.AccessToken == "" || grant.IDToken == "" {
		t.Fatalf("the provider gave no token: %d %v", resp.StatusCode, err)
	}
	b.id = minted(grant.IDToken)
	return minted(grant.AccessToken)
}

var xsrf = regexp.MustCompile(`name="xsrf" value="([^"]+)"`)

// logOut ends the session at the provider (OpenID Connect RP-Initiated Logout
// 1.0), which tells every client that the user logged in at.
func (b *browser) logOut(t *testing.T) {
	t.Helper()
	resp, err := b.client.Get(b.URL + "/session/end?" + url.Values{"id_token_hint": {b.id}}.Encode())
	if err != nil {
		t.Fatal(err)
	}
	page, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	secret := xsrf.FindSubmatch(page)
	if secret == nil {
		t.Fatalf("the provider asked for no confirmation: %d %.2000s", resp.StatusCode, page)
	}
	resp, err = b.client.PostForm(b.URL+"/session/end/confirm", url.Values{"xsrf": {string(secret[1])}, "logout": {"yes"}})
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("the provider ended no session: %d", resp.StatusCode)
	}
}
