package test

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const operatorToken = "an-operator-token-of-32-bytes-or-more"

// startAdmin gives a gateway with revocation, an audit log and an admin listener.
func startAdmin(t *testing.T) (g, admin *gateway, r *redis, p *idp) {
	t.Helper()
	b := newBackend(t)
	p, r = newIDP(t), startRedis(t)
	admin = &gateway{listen: freeAddress(t)}
	g = start(t, fill(`
server:
  ADDRESSES
  admin: ADMIN
  admin_auth:
    token_file: operator
    clients:
      shop:
        client_secret: the-shops-own-secret
      a:b &c:
        client_secret: 100% +plus/and:colon
  audit:
    file: audit.log
redis:
  url: REDIS
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
revocation: {}
routes:
  - name: heroes
    match: GET /heroes/{id}
    privileges: [READ_HEROES]
    upstream: BACKEND
`, "ADMIN", admin.listen, "IDP", p.URL, "REDIS", r.URL, "BACKEND", b.URL), file{"operator", operatorToken + "\n"})
	return g, admin, r, p
}

// post sends a form.
func (g *gateway) post(t *testing.T, path string, form url.Values, headers ...string) answer {
	t.Helper()
	body := form.Encode()
	head := "POST " + path + " HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: " + itoa(int64(len(body))) + "\r\nConnection: close\r\n"
	if !strings.Contains(strings.Join(headers, "\n"), "Host:") {
		head += "Host: " + g.listen + "\r\n"
	}
	for _, h := range headers {
		head += h + "\r\n"
	}
	return g.send(t, head+"\r\n"+body)
}

func basic(id, secret string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(id)+":"+url.QueryEscape(secret)))
}

func tokenForm(token string) url.Values { return url.Values{"token": {token}} }

// oauth expects a refusal of RFC 6749 §5.2.
func (a answer) oauth(t *testing.T, status int, code string) {
	t.Helper()
	var body struct{ Error string }
	if err := json.Unmarshal([]byte(a.body), &body); err != nil || a.status != status || body.Error != code {
		t.Errorf("got %d %s, want %d and the error %s", a.status, a.body, status, code)
	}
	if a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("the answer %d may be stored", a.status)
	}
}

func TestRevocationEndpoint(t *testing.T) {
	t.Parallel()
	g, admin, r, p := startAdmin(t)
	reader := claims{"privileges": []string{"READ_HEROES"}}
	own := p.token(t, reader, claims{"client_id": "shop", "jti": "own"})
	others := p.token(t, reader, claims{"client_id": "bank", "jti": "others"})
	nobodys := p.token(t, reader, claims{"client_id": nil, "jti": "nobodys"})
	odd := p.token(t, reader, claims{"client_id": nil, "azp": "a:b &c", "jti": "odd"})
	shop := basic("shop", "the-shops-own-secret")
	several := p.token(t, reader, claims{"client_id": []string{"bank"}, "azp": "shop", "jti": "several"})
	for _, token := range []string{own, others, nobodys, odd, several} {
		g.do(t, "GET /heroes/1", bearer(token)).is(t, http.StatusOK)
	}

	admin.post(t, "/revoke", tokenForm(others), shop).oauth(t, 400, "unauthorized_client")
	g.output.says(t, `"actor":"client shop","issuer":"main","issued_to":"bank"`)
	admin.post(t, "/revoke", tokenForm(nobodys), shop).oauth(t, 400, "unauthorized_client")
	admin.post(t, "/revoke", tokenForm(several), shop).oauth(t, 400, "unauthorized_client")
	g.do(t, "GET /heroes/1", bearer(others)).is(t, http.StatusOK)
	g.do(t, "GET /heroes/1", bearer(nobodys)).is(t, http.StatusOK)

	admin.post(t, "/revoke", tokenForm(own), shop).is(t, http.StatusOK)
	g.do(t, "GET /heroes/1", bearer(own)).refused(t, 401, "revoked_token")
	admin.post(t, "/revoke", tokenForm(own), shop).is(t, http.StatusOK) // a second time
	admin.post(t, "/revoke", tokenForm(odd), basic("a:b &c", "100% +plus/and:colon")).is(t, http.StatusOK)
	g.do(t, "GET /heroes/1", bearer(odd)).refused(t, 401, "revoked_token")
	admin.post(t, "/revoke", tokenForm(others), "Authorization: Bearer "+operatorToken).is(t, http.StatusOK)
	g.do(t, "GET /heroes/1", bearer(others)).refused(t, 401, "revoked_token")
	form := tokenForm(p.token(t, claims{"client_id": "shop"}))
	form.Set("client_id", "shop")
	form.Set("client_secret", "the-shops-own-secret")
	form.Set("token_type_hint", "refresh_token") // a wrong hint changes nothing
	admin.post(t, "/revoke", form).is(t, http.StatusOK)

	// One that is not good yet would be, later.
	for what, early := range map[string]claims{"nbf": {"nbf": time.Now().Unix() + 300}, "iat": {"iat": time.Now().Unix() + 300}} {
		token := p.token(t, claims{"client_id": "shop", "exp": time.Now().Unix() + 600}, early)
		admin.post(t, "/revoke", tokenForm(token), shop).is(t, http.StatusOK)
		if left := r.ttl(t, "revoked:jws:main:"+hash(token)); left < 500 {
			t.Errorf("%s: the revocation holds for %d s", what, left)
		}
	}

	// What is no good already is a success, and nothing is written for it.
	before := r.do(t, "DBSIZE")
	gone := claims{"client_id": "shop", "exp": time.Now().Unix() - 100}
	for _, token := range []string{"nonsense", "a.b.c", p.token(t, gone), p.token(t, gone, claims{"aud": "another"}), p.token(t, gone, claims{"nbf": time.Now().Unix() + 300}), newSigner(t, "ES256", p.kid).sign(t, p.good(claims{"client_id": "shop"}))} {
		admin.post(t, "/revoke", tokenForm(token), shop).is(t, http.StatusOK)
	}
	if after := r.do(t, "DBSIZE"); after != before {
		t.Errorf("%s keys became %s: something was written for a token that is no good", before, after)
	}
	if left := r.ttl(t, "revoked:jws:main:"+hash(own)); left < 1 {
		t.Errorf("the revocation holds for %d s", left)
	}

	records := g.audit(t, "revocation")
	if len(records) != 6 { // the second time there was nothing to do
		t.Fatalf("%d audit records of 6 revocations: %v", len(records), records)
	}
	for i, actor := range []string{"client shop", "client a:b &c", "operator", "client shop"} {
		if rec := records[i]; rec["actor"] != actor || rec["door"] != "revocation endpoint" || rec["issuer"] != "main" || rec["kind"] != "jws" || rec["action"] != "revoke" || rec["expires"] == nil {
			t.Errorf("audit record %d is %v, want one of %s", i, rec, actor)
		}
	}

	r.proc.kill()
	admin.post(t, "/revoke", tokenForm(nobodys), "Authorization: Bearer "+operatorToken).oauth(t, 503, "temporarily_unavailable")
}

func TestIntrospectionEndpoint(t *testing.T) {
	t.Parallel()
	g, admin, r, p := startAdmin(t)
	const inactive = `{"active":false}`
	shop := basic("shop", "the-shops-own-secret")
	// A claim cannot speak for the endpoint, and other claims come byte for byte.
	token := p.token(t, claims{"jti": "j1", "active": false, "token_type": "x", "scope": "a b", "list": []string{"a\"", "b"}, "yes": true, "big": json.RawMessage("12345678901234567890")})
	a := admin.post(t, "/introspect", tokenForm(token), shop)
	a.is(t, http.StatusOK)
	var got map[string]json.RawMessage
	if err := json.Unmarshal([]byte(a.body), &got); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	for name, want := range map[string]string{
		"active": "true", "token_type": `"Bearer"`, "jti": `"j1"`, "scope": `"a b"`, "list": `["a\"","b"]`, "yes": "true",
		"big": "12345678901234567890", "iss": `"` + p.URL + `"`,
	} {
		if string(got[name]) != want {
			t.Errorf("%s is %s, want %s", name, got[name], want)
		}
	}
	if strings.Count(a.body, `"active"`) != 1 {
		t.Errorf("two say whether it is active: %s", a.body)
	}
	for what, bad := range map[string]string{
		"expired":   p.token(t, claims{"exp": time.Now().Unix() - 100}),
		"forged":    newSigner(t, "ES256", p.kid).sign(t, p.good()),
		"another's": p.token(t, claims{"aud": "https://other.example"}),
		"nonsense":  "nonsense",
	} {
		if a := admin.post(t, "/introspect", tokenForm(bad), shop); a.status != 200 || strings.TrimSpace(a.body) != inactive {
			t.Errorf("a token that is %s: %d %s, want %s", what, a.status, a.body, inactive)
		}
	}
	r.do(t, "SET", "revoked:jti:main:j1", "1", "EX", "60")
	if a := admin.post(t, "/introspect", tokenForm(token), shop); strings.TrimSpace(a.body) != inactive {
		t.Errorf("a revoked token: %s", a.body)
	}
	r.proc.kill() // whether it is revoked cannot be said now
	admin.post(t, "/introspect", tokenForm(p.token(t)), shop).oauth(t, 503, "temporarily_unavailable")
	_ = g
}

func TestAdminListenerAsksWhoIsCalling(t *testing.T) {
	for _, path := range []string{"/revoke", "/introspect"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			asksWhoIsCalling(t, path)
		})
	}
}

func asksWhoIsCalling(t *testing.T, path string) {
	g, admin, _, p := startAdmin(t)
	token := p.token(t, claims{"client_id": "shop", "privileges": []string{"READ_HEROES"}})
	shop, operator := basic("shop", "the-shops-own-secret"), "Authorization: Bearer "+operatorToken
	withSecret := tokenForm(token)
	withSecret.Set("client_id", "shop")
	withSecret.Set("client_secret", "the-shops-own-secret")
	two := tokenForm(token)
	two.Add("token", token)
	for _, c := range []struct {
		name    string
		form    url.Values
		headers []string
		status  int
		code    string
	}{
		{"nobody", tokenForm(token), nil, 401, "invalid_client"},
		{"a wrong secret", tokenForm(token), []string{basic("shop", "wrong")}, 401, "invalid_client"},
		{"another's secret", tokenForm(token), []string{basic("shop", "100% +plus/and:colon")}, 401, "invalid_client"},
		{"an unknown client", tokenForm(token), []string{basic("nobody", "")}, 401, "invalid_client"},
		{"a wrong operator", tokenForm(token), []string{operator + "x"}, 401, "invalid_client"},
		{"an operator of another scheme", tokenForm(token), []string{"Authorization: Token " + operatorToken}, 401, "invalid_client"},
		{"two ways", withSecret, []string{shop}, 400, "invalid_request"},
		{"two lines", tokenForm(token), []string{shop, operator}, 400, "invalid_request"},
		{"no token", url.Values{}, []string{shop}, 400, "invalid_request"},
		{"two tokens", two, []string{shop}, 400, "invalid_request"},
		{"an unknown issuer", url.Values{"token": {token}, "issuer": {"other"}}, []string{shop}, 400, "invalid_request"},
		{"another site's name", tokenForm(token), []string{"Host: evil.example", shop}, 421, "invalid_request"},
		{"another site's page", tokenForm(token), []string{"Origin: https://evil.example", shop}, 403, "invalid_request"},
		{"another site's page, told by the browser", tokenForm(token), []string{"Sec-Fetch-Site: cross-site", operator}, 403, "invalid_request"},
		{"a form of a megabyte", url.Values{"token": {strings.Repeat("x", 1<<20)}}, []string{shop}, 400, "invalid_request"},
	} {
		t.Run(c.name, func(t *testing.T) { admin.post(t, path, c.form, c.headers...).oauth(t, c.status, c.code) })
	}
	admin.do(t, "GET "+path+"?token="+token, "Host: "+admin.listen, operator).is(t, http.StatusMethodNotAllowed)
	admin.do(t, "POST "+path+"?token="+token, "Host: "+admin.listen, operator, "Content-Length: 0").oauth(t, 400, "invalid_request")
	g.do(t, "GET /heroes/1", bearer(token)).is(t, http.StatusOK) // none of it revoked the token
	// Guessing ends after ten failures, even with the right secret.
	for range 10 {
		admin.post(t, path, tokenForm(token), basic("shop", "guess"))
	}
	admin.post(t, path, tokenForm(token), shop).is(t, http.StatusTooManyRequests)
}

// Who writes to a registry can name the admin listener as a target; what is
// open to this machine is not open to whoever asks through the gateway.
func TestAdminListenerAsATarget(t *testing.T) {
	t.Parallel()
	admin := &gateway{listen: freeAddress(t)}
	g := start(t, fill(`
server:
  ADDRESSES
  admin: ADMIN
routes:
  - match: /{path...}
    public: true
    upstream: http://ADMIN
`, "ADMIN", admin.listen))
	for _, path := range []string{"/upstreams", "/refusals"} {
		admin.do(t, "GET "+path, "Host: localhost").is(t, http.StatusOK)
		g.do(t, "GET "+path, "Host: localhost").is(t, http.StatusForbidden)
		g.do(t, "GET "+path, "Host: localhost", "Connection: X-Forwarded-For").is(t, http.StatusForbidden)
	}
}

// A token that is no JWT can have a part that looks like claims: the provider
// is asked about it whole, and whole it is revoked.
func TestRevocationOfOddTokens(t *testing.T) {
	t.Parallel()
	g, r, p, _ := startRevocation(t, fill(asking, "WHEN", "opaque"), "")
	token := minted("v2." + b64(`{"iss":"`+p.URL+`","exp":99999999999}`) + ".c2lnbmF0dXJl")
	p.says(t, p.said(), token)
	get := func() answer { return g.do(t, "GET /heroes/1", bearer(token)) }
	get().is(t, http.StatusOK)
	if status, printed := command(t, token, "revoke", "--config", g.config, "--token-file", "-"); status != 0 {
		t.Errorf("gatehouse revoke: %d %s", status, printed)
	}
	get().refused(t, http.StatusUnauthorized, "revoked_token")
	_ = r
}

// Operators may show a certificate instead of a token; another authority's is nobody's.
func TestOperatorsWithCertificates(t *testing.T) {
	t.Parallel()
	b, p, r := newBackend(t), newIDP(t), startRedis(t)
	servers, operators := newAuthority(t), newAuthority(t)
	admin := &gateway{listen: freeAddress(t)}
	yaml := fill(`
server:
  ADDRESSES
  admin: ADMIN
  admin_auth:
    clients:
      shop:
        client_secret: the-shops-own-secret
    tls:
      cert_file: admin.pem
      key_file: admin.key
      client_ca_file: operators.pem
      client_auth: request
  audit:
    file: audit.log
redis:
  url: REDIS
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
revocation: {}
routes:
  - match: /heroes/{id}
    privileges: []
    upstream: BACKEND
`, "ADMIN", admin.listen, "IDP", p.URL, "REDIS", r.URL, "BACKEND", b.URL)
	g := start(t, yaml, append(servers.issue(t, "127.0.0.1").files("admin"), file{"operators.pem", operators.cert})...)
	token := p.token(t)
	post := func(c *caller, headers ...string) int {
		req, err := http.NewRequest(http.MethodPost, c.URL+"/revoke", strings.NewReader(tokenForm(token).Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			req.Header.Set(name, value)
		}
		resp, err := c.Do(req)
		if err != nil {
			return 0
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	operator := operators.issue(t, "alice")
	for _, c := range []struct {
		name   string
		caller *caller
		header []string
		status int
	}{
		{"clear text", admin.caller(t, "http/1.1", nil), nil, http.StatusBadRequest},
		{"no certificate", admin.caller(t, "http/1.1", trusting(servers)), nil, http.StatusUnauthorized},
		{"another authority's", admin.caller(t, "http/1.1", trusting(servers, servers.issue(t, "mallory").shown(t))), nil, 0},
		{"a wrong secret beside a certificate", admin.caller(t, "http/1.1", trusting(servers, operator.shown(t))), []string{basic("shop", "wrong")}, http.StatusUnauthorized},
		{"a client's secret", admin.caller(t, "http/1.1", trusting(servers)), []string{basic("shop", "the-shops-own-secret")}, http.StatusOK},
	} {
		if status := post(c.caller, c.header...); status != c.status {
			t.Errorf("%s: %d, want %d", c.name, status, c.status)
		}
	}
	token = p.token(t, claims{"client_id": "bank"})
	if status := post(admin.caller(t, "http/1.1", trusting(servers, operator.shown(t)))); status != http.StatusOK {
		t.Errorf("an operator's: %d", status)
	}
	both := trusting(servers, operator.shown(t)) // as a browser does
	both.NextProtos = []string{"h2", "http/1.1"}
	conn, err := tls.Dial("tcp", admin.listen, both)
	if err != nil {
		t.Fatal(err)
	}
	if chosen := conn.ConnectionState().NegotiatedProtocol; chosen != "http/1.1" {
		t.Errorf("the listener chooses %q, which it does not speak", chosen)
	}
	_ = conn.Close()
	g.do(t, "GET /heroes/1", bearer(token)).refused(t, http.StatusUnauthorized, "revoked_token")
	records := g.audit(t, "revocation")
	if actor := records[len(records)-1]["actor"]; actor != "operator "+operator.leaf.Subject.String() {
		t.Errorf("the record says %v", actor)
	}

	// What a connection once showed is worth what the file says by now.
	kept := func(c *pair) *caller {
		t.Helper()
		k := admin.caller(t, "http/1.1", trusting(servers, c.shown(t)))
		eventually(t, "the operator is known", func() bool { return post(k) == http.StatusOK })
		return k
	}
	alice, others := kept(operator), newAuthority(t)
	replace(t, filepath.Join(filepath.Dir(g.config), "operators.pem"), others.cert)
	g.reload(t, yaml)
	eventually(t, "an authority that was replaced vouches for nobody", func() bool { return post(alice) == http.StatusUnauthorized })
	bob := kept(others.issue(t, "bob"))
	g.reload(t, strings.Replace(yaml, "      client_ca_file: operators.pem\n      client_auth: request\n", "", 1))
	eventually(t, "an authority that was taken out vouches for nobody", func() bool { return post(bob) == http.StatusUnauthorized })
}
