package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const logoutYAML = `
redis:
  url: REDIS
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
    max_lifetime: 1h
    jwks:
      min_refresh_interval: 1sJWKS
    backchannel_logout:
      path: /backchannel-logout
      audiences: [shop, kiosk]LOGOUT
revocation:
  mode: MODE
routes:
  - match: /heroes/{id}
    privileges: []
    upstream: BACKEND
  - match: /{rest...}
    public: true
    upstream: BACKEND
`

// startLogout gives two gateways that take logout tokens.
func startLogout(t *testing.T, words ...string) ([]*gateway, *redis, *idp) {
	t.Helper()
	return fleet(t, 2, logoutYAML, append(words, "LOGOUT", "", "MODE", "lookup", "JWKS", "")...)
}

// logoutToken is a good logout token (OpenID Connect Back-Channel Logout 1.0 §2.4), with changes.
func (p *idp) logoutToken(t *testing.T, changes ...claims) string {
	t.Helper()
	now := time.Now().Unix()
	return p.sign(t, claims{
		"iss": p.URL, "aud": "shop", "iat": now, "exp": now + 120, "jti": fmt.Sprint("l", serial.Add(1)),
		"events": claims{"http://schemas.openid.net/event/backchannel-logout": claims{}},
	}.with(changes...), claims{"typ": "logout+jwt"})
}

// logOut posts a logout token.
func (g *gateway) logOut(t *testing.T, token string) answer {
	t.Helper()
	return g.postForm(t, "/backchannel-logout", url.Values{"logout_token": {token}}.Encode())
}

func (g *gateway) postForm(t *testing.T, target, body string, headers ...string) answer {
	t.Helper()
	if headers == nil {
		headers = []string{"Content-Type: application/x-www-form-urlencoded"}
	}
	return g.send(t, fmt.Sprintf("POST %s HTTP/1.1\r\nHost: gatehouse.example\r\n%s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		target, strings.Join(headers, "\r\n"), len(body), body))
}

// invalidLogout fails the test unless the answer is what §2.8 and RFC 6749 §5.2 have for an invalid request.
func (a answer) invalidLogout(t *testing.T) {
	t.Helper()
	var e struct {
		Error       string
		Description string `json:"error_description"`
	}
	if a.status != http.StatusBadRequest || json.Unmarshal([]byte(a.body), &e) != nil || e.Error != "invalid_request" || e.Description == "" {
		t.Errorf("got %d %s, want 400 invalid_request", a.status, a.body)
	}
	if a.header.Get("Content-Type") != "application/json" || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("the headers are %v", a.header)
	}
}

func (a answer) loggedOut(t *testing.T) {
	t.Helper()
	if a.status != http.StatusOK || a.body != "" || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("got %d %s %v, want 200, empty and no-store", a.status, a.body, a.header)
	}
}

func TestBackchannelLogout(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"lookup", "replica"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			gateways, r, p := startLogout(t, "MODE", mode)
			g := gateways[0]
			now := time.Now().Unix()
			here, there := p.token(t, claims{"sid": "s:1", "iat": now - 5}), p.token(t, claims{"sid": "s2", "iat": now - 5})
			everywhere := func(token string, status int) {
				t.Helper()
				for _, g := range gateways {
					eventually(t, "the token is judged", func() bool { return g.do(t, "GET /heroes/1", bearer(token)).status == status })
				}
			}
			everywhere(here, http.StatusOK)
			everywhere(there, http.StatusOK)

			// With a sid that session ends, and no other of the subject.
			g.logOut(t, p.logoutToken(t, claims{"sid": "s:1", "sub": "alice"})).loggedOut(t)
			g.output.says(t, `"door":"backchannel logout","actor":"issuer main","issuer":"main","kind":"sid","key":"revoked:sid:main:s:1"`)
			everywhere(here, http.StatusUnauthorized)
			gateways[1].do(t, "GET /heroes/1", bearer(here)).refused(t, http.StatusUnauthorized, "revoked_token")
			everywhere(there, http.StatusOK)
			if got := r.do(t, "GET", "revoked:sid:main:s:1"); got != "1" {
				t.Errorf("the sid's key holds %q", got)
			}
			if ttl := r.ttl(t, "revoked:sid:main:s:1"); ttl < 3600 || ttl > 3630 {
				t.Errorf("the sid's key lives for %d s, want max_lifetime and leeway", ttl)
			}
			if got := r.do(t, "EXISTS", "revoked:sub:main:alice"); got != "0" {
				t.Error("all sessions of the subject went")
			}

			// Ended once more, by another logout token, it is still a success (§2.7).
			gateways[1].logOut(t, p.logoutToken(t, claims{"sid": "s:1"})).loggedOut(t)

			// Without a sid all sessions end that were there at that time.
			gateways[1].logOut(t, p.logoutToken(t, claims{"sub": "alice", "iat": now - 1})).loggedOut(t)
			everywhere(there, http.StatusUnauthorized)
			everywhere(p.token(t, claims{"sid": "s3", "iat": now + 1}), http.StatusOK)
			if got := r.do(t, "GET", "revoked:sub:main:alice"); got != itoa(now-1) {
				t.Errorf("the subject's key holds %q, want the logout's iat %d", got, now-1)
			}
			if n := g.count(t, `gatehouse_logouts_total{issuer="main",outcome="logged_out"}`); n != 1 {
				t.Errorf("%d logouts are counted", n)
			}
		})
	}
}

// A logout takes back nothing that others revoked.
func TestLogoutLiftsNothing(t *testing.T) {
	t.Parallel()
	gateways, r, p := startLogout(t)
	g := gateways[0]
	now := time.Now().Unix()
	const key = "revoked:sub:main:alice"
	for _, c := range []struct {
		was  string // "" is no key
		ttl  int    // of it; 0 is for ever
		want string
		left int
	}{
		{"", 0, itoa(now), 3630},
		{"-", 100, itoa(now), 3630},
		{"-", 0, itoa(now), 3630},
		{itoa(now - 100), 100, itoa(now), 3630},
		{itoa(now - 100), 9000, itoa(now), 9000},
		{itoa(now - 100), 0, itoa(now), -1},
		{itoa(now + 100), 100, itoa(now + 100), 3630},
		{"1", 100, "1", 3630},
		{"1000000000", 100, "1000000000", 3630},
		{"99999999999999999999999", 100, "99999999999999999999999", 3630},
		{"banned", 9000, "banned", 9000},
		{"banned", 0, "banned", -1},
		{"-1", 100, "-1", 3630},
		{"1e10", 100, "1e10", 3630},
	} {
		r.do(t, "DEL", key)
		if c.was != "" {
			r.do(t, "SET", key, c.was)
		}
		if c.ttl != 0 {
			r.do(t, "EXPIRE", key, fmt.Sprint(c.ttl))
		}
		g.logOut(t, p.logoutToken(t, claims{"sub": "alice", "iat": now})).loggedOut(t)
		if got := r.do(t, "GET", key); got != c.want {
			t.Errorf("%q for %d s became %q, want %q", c.was, c.ttl, got, c.want)
		}
		if ttl := r.ttl(t, key); ttl > c.left || ttl < c.left-60 {
			t.Errorf("%q for %d s lives for %d s, want %d", c.was, c.ttl, ttl, c.left)
		}
	}
	// Of another type it revokes too.
	r.do(t, "DEL", key)
	r.do(t, "RPUSH", key, "x")
	g.logOut(t, p.logoutToken(t, claims{"sub": "alice"})).loggedOut(t)
	if got := r.do(t, "TYPE", key); got != "list" {
		t.Errorf("the list became a %s", got)
	}
	g.do(t, "GET /heroes/1", bearer(p.token(t, claims{"iat": now + 20}))).refused(t, http.StatusUnauthorized, "revoked_token")
	// Its own second is the last that counts.
	g.logOut(t, p.logoutToken(t, claims{"sub": "bob", "iat": float64(now) - 0.5})).loggedOut(t)
	if got := r.do(t, "GET", "revoked:sub:main:bob"); got != itoa(now-1) {
		t.Errorf("the subject's key holds %q, want %d", got, now-1)
	}
}

func TestReplayedLogout(t *testing.T) {
	t.Parallel()
	gateways, r, p := startLogout(t)
	token := p.logoutToken(t, claims{"sub": "alice"})
	gateways[0].logOut(t, token).loggedOut(t)
	for _, g := range gateways {
		g.logOut(t, token).invalidLogout(t)
	}
	if n := gateways[1].count(t, `gatehouse_logouts_total{issuer="main",outcome="replayed"}`); n != 1 {
		t.Errorf("%d replays are counted", n)
	}
	gateways[1].output.says(t, "was used before")
	// The jti is remembered for as long as the token counts, outside of what is revoked.
	names := strings.Fields(r.do(t, "KEYS", "logout:main:*"))
	if len(names) != 1 {
		t.Fatalf("the names of logouts are %q", names)
	}
	if ttl := r.ttl(t, names[0]); ttl < 100 || ttl > 151 {
		t.Errorf("a logout's name lives for %d s, want what is left of the token with leeway", ttl)
	}
	// The same jti of another logout is a replay, too; a replay revokes nothing.
	gateways[0].logOut(t, p.logoutToken(t, claims{"jti": "twice", "sid": "s1"})).loggedOut(t)
	gateways[1].logOut(t, p.logoutToken(t, claims{"jti": "twice", "sid": "s2"})).invalidLogout(t)
	if got := r.do(t, "EXISTS", "revoked:sid:main:s2"); got != "0" {
		t.Error("a replayed jti ended another session")
	}

	// Sent by many at the same time it counts once.
	token = p.logoutToken(t, claims{"sid": "s3"})
	var mu sync.Mutex
	answers := map[int]int{}
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			status := gateways[n%2].logOut(t, token).status
			mu.Lock()
			defer mu.Unlock()
			answers[status]++
		})
	}
	all.Wait()
	if answers[http.StatusOK] != 1 || answers[http.StatusBadRequest]+answers[http.StatusServiceUnavailable] != 7 {
		t.Errorf("the answers are %v, want one 200", answers)
	}
}

// Every rule has its row in gateway/internal/issuer; here is that the door asks for them.
func TestForgedLogouts(t *testing.T) {
	t.Parallel()
	gateways, r, p := startLogout(t, "LOGOUT", "\n      rate: 1000/1s")
	g := gateways[0]
	good := claims{"sid": "s1", "sub": "alice"}
	stranger := newSigner(t, "ES256", p.kid)
	seal := func(token string) string { return "logout_token=" + url.QueryEscape(token) }
	id := p.sign(t, p.good(claims{"aud": "shop", "nonce": "n", "sid": "s1"}))
	for name, body := range map[string]string{
		"no exp":           seal(p.logoutToken(t, good, claims{"exp": nil})),
		"expired":          seal(p.logoutToken(t, good, claims{"exp": time.Now().Unix() - 60})),
		"old":              seal(p.logoutToken(t, good, claims{"iat": time.Now().Unix() - 3600})),
		"nonce":            seal(p.logoutToken(t, good, claims{"nonce": "n"})),
		"no events":        seal(p.logoutToken(t, good, claims{"events": nil})),
		"no jti":           seal(p.logoutToken(t, good, claims{"jti": nil})),
		"another audience": seal(p.logoutToken(t, good, claims{"aud": "https://heroes.example"})),
		"nobody":           seal(p.logoutToken(t)),
		"a stranger's":     seal(stranger.sign(t, claims{"iss": p.URL, "aud": "shop"}.with(good))),
		"an access token":  seal(p.token(t, good, claims{"aud": "shop"})),
		"an ID token":      seal(id),
		"no token":         seal("opaque"),
		"an empty one":     "logout_token=",
		"none":             "",
		"another name":     "token=" + p.logoutToken(t, good),
		"two":              seal(p.logoutToken(t, good)) + "&" + seal(p.logoutToken(t, good)),
		"a bad form":       seal(p.logoutToken(t, good)) + "&x=%zz",
		"a long one":       seal(p.logoutToken(t, good)) + "&x=" + strings.Repeat("x", 40<<10),
	} {
		t.Run(name, func(t *testing.T) { g.postForm(t, "/backchannel-logout", body).invalidLogout(t) })
	}
	body := seal(p.logoutToken(t, good))
	g.postForm(t, "/backchannel-logout", body, "Content-Type: application/json").invalidLogout(t)
	g.postForm(t, "/backchannel-logout", body, "Accept: */*").invalidLogout(t)
	g.postForm(t, "/backchannel-logout?"+body, "").invalidLogout(t)
	if keys := r.do(t, "KEYS", "*"); keys != "" {
		t.Fatalf("Redis holds %q", keys)
	}
	// And the same without a fault is good, whatever stands beside it.
	g.postForm(t, "/backchannel-logout?x=1", body+"&x=1", "Content-Type: application/x-www-form-urlencoded; charset=utf-8").loggedOut(t)
	// It is no access token.
	anyone := p.logoutToken(t, good, claims{"aud": "https://heroes.example", "sid": "s9"})
	g.do(t, "GET /heroes/1", bearer(anyone)).refused(t, http.StatusUnauthorized, "invalid_token")

	// A key that was blocked by hand logs nobody out.
	r.do(t, "SET", "revoked:kid:main:"+p.kid, "1")
	g.logOut(t, p.logoutToken(t, claims{"sid": "s10"})).invalidLogout(t)
	if got := r.do(t, "EXISTS", "revoked:sid:main:s10"); got != "0" {
		t.Error("a blocked key ended a session")
	}
}

// Whose logout tokens are refused too often is not listened to for a while.
func TestLogoutLimit(t *testing.T) {
	t.Parallel()
	gateways, _, p := startLogout(t, "LOGOUT", "\n      rate: 3/1h")
	g := gateways[0]
	for range 5 { // good ones are not counted
		g.logOut(t, p.logoutToken(t, claims{"sid": "s"})).loggedOut(t)
	}
	for range 3 {
		g.logOut(t, "nonsense").invalidLogout(t)
	}
	a := g.logOut(t, p.logoutToken(t, claims{"sid": "s"}))
	a.refused(t, http.StatusTooManyRequests, "rate_limited")
	if a.header.Get("Retry-After") == "" || !strings.Contains(a.header.Get("RateLimit-Policy"), `"backchannel_logout"`) {
		t.Errorf("the headers are %v", a.header)
	}
	if n := g.count(t, `gatehouse_logouts_total{issuer="main",outcome="limited"}`); n != 1 {
		t.Errorf("%d limited ones are counted", n)
	}
	g.do(t, "GET /heroes/1", bearer(p.token(t))).is(t, http.StatusOK)
	gateways[1].logOut(t, p.logoutToken(t, claims{"sid": "s"})).loggedOut(t)
	// A reload forgives nothing.
	before := strings.Count(g.output.String(), "configuration reloaded")
	g.signal(syscall.SIGHUP)
	eventually(t, "it is reloaded", func() bool { return strings.Count(g.output.String(), "configuration reloaded") > before })
	g.logOut(t, p.logoutToken(t, claims{"sid": "s"})).refused(t, http.StatusTooManyRequests, "rate_limited")
}

// An outage is never the logout's fault: the provider may try again.
func TestLogoutInAnOutage(t *testing.T) {
	t.Parallel()
	gateways, r, p := startLogout(t)
	g := gateways[0]
	token, access := p.logoutToken(t, claims{"sid": "s1"}), bearer(p.token(t, claims{"sid": "s1"}))
	g.do(t, "GET /heroes/1", access).is(t, http.StatusOK)
	r.proc.kill()
	for range 5 {
		a := g.logOut(t, token)
		a.refused(t, http.StatusServiceUnavailable, "store_unavailable")
		if a.header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	r.start(t)
	eventually(t, "the same logout is taken", func() bool { return g.logOut(t, token).status == http.StatusOK })
	eventually(t, "the session is over", func() bool { return g.do(t, "GET /heroes/1", access).status == http.StatusUnauthorized })

	// A Redis that forbids the script says so after the name was claimed.
	r.do(t, "ACL", "SETUSER", "default", "-eval", "-evalsha")
	token = p.logoutToken(t, claims{"sid": "s2"})
	g.logOut(t, token).refused(t, http.StatusServiceUnavailable, "store_unavailable")
	g.logOut(t, token).refused(t, http.StatusServiceUnavailable, "store_unavailable")
	r.do(t, "ACL", "SETUSER", "default", "+eval", "+evalsha")
	eventually(t, "the same logout is taken", func() bool { return gateways[1].logOut(t, token).status == http.StatusOK })
	if got := r.do(t, "EXISTS", "revoked:sid:main:s2"); got != "1" {
		t.Error("the session lives on")
	}

	// So it is where nobody can tell whether the provider has such a key.
	p.serveJWKS(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	stranger := newSigner(t, "ES256", "next")
	g.logOut(t, stranger.sign(t, claims{"iss": p.URL, "aud": "shop", "iat": time.Now().Unix(), "exp": time.Now().Unix() + 60, "jti": "x", "sid": "s",
		"events": claims{"http://schemas.openid.net/event/backchannel-logout": claims{}}})).refused(t, http.StatusServiceUnavailable, "issuer_unavailable")
	if n := g.count(t, `gatehouse_logouts_total{issuer="main",outcome="unavailable"}`); n < 7 {
		t.Errorf("%d are counted as unavailable", n)
	}
}

// The endpoint is one path and one method; everything else is the routes'.
func TestLogoutPath(t *testing.T) {
	t.Parallel()
	p, b, r := newIDP(t), newBackend(t), startRedis(t)
	words := []string{"IDP", p.URL, "BACKEND", b.URL, "REDIS", r.URL, "LOGOUT", "", "MODE", "lookup", "JWKS", ""}
	g := start(t, fill(logoutYAML, words...))
	body := "logout_token=" + p.logoutToken(t, claims{"sid": "s1"})
	form := "Content-Type: application/x-www-form-urlencoded"
	for _, elsewhere := range []string{"/backchannel-logout/", "/backchannel-logout/x", "/backchannel%2Dlogout", "/Backchannel-logout", "/backchannel-logou"} {
		before := b.count()
		if a := g.postForm(t, elsewhere, body, form); a.status != http.StatusOK || b.count() != before+1 {
			t.Errorf("%s: %d, and %d requests reached the backend", elsewhere, a.status, b.count()-before)
		}
	}
	for _, method := range []string{"GET", "PUT", "OPTIONS"} {
		before := b.count()
		if a := g.do(t, method+" /backchannel-logout"); a.status != http.StatusOK || b.count() != before+1 {
			t.Errorf("%s: %d, and %d requests reached the backend", method, a.status, b.count()-before)
		}
	}
	before := b.count()
	g.postForm(t, "//backchannel-logout", body, form).refused(t, http.StatusBadRequest, "bad_path")
	g.postForm(t, "/x/../backchannel-logout", body, form).refused(t, http.StatusBadRequest, "bad_path")
	g.postForm(t, "/backchannel-logout", body, form).loggedOut(t)
	if b.count() != before {
		t.Error("a logout reached the backend")
	}

	// A route that is for that very request is a fault.
	for _, match := range []string{"/backchannel-logout", "POST /{name}", "POST heroes.example/backchannel-logout"} {
		faulty := strings.Replace(fill(logoutYAML, words...), "- match: /heroes/{id}", "- match: "+match, 1)
		write(t, g.config+".yaml", "server:\n  listen: :0\n"+strings.TrimLeft(faulty, "\n"))
		if status, out := command(t, "", "check", "--config", g.config+".yaml"); status == 0 || !strings.Contains(out, "backchannel_logout") || !strings.Contains(out, "routes[0]") {
			t.Errorf("%s: %d %s", match, status, out)
		}
	}
	for _, match := range []string{"GET /backchannel-logout", "POST /backchannel-logout/", "POST /backchannel-logout/{id}", "/"} {
		fine := strings.Replace(fill(logoutYAML, words...), "- match: /heroes/{id}", "- match: "+match, 1)
		if match == "/" {
			fine = strings.Replace(fine, "/{rest...}", "/other/", 1)
		}
		write(t, g.config+".yaml", "server:\n  listen: :0\n"+strings.TrimLeft(fine, "\n"))
		if status, out := command(t, "", "check", "--config", g.config+".yaml"); status != 0 {
			t.Errorf("%s: %d %s", match, status, out)
		}
	}

	// A reload moves it.
	g.reload(t, strings.Replace(fill(logoutYAML, words...), "path: /backchannel-logout", "path: /moved", 1))
	eventually(t, "it has moved", func() bool {
		g.postForm(t, "/moved", "logout_token="+p.logoutToken(t, claims{"sid": "s2"}), form)
		return r.do(t, "EXISTS", "revoked:sid:main:s2") == "1"
	})
}

// TestRealProviderLogsOut is a user's session at panva's oidc-provider, seen by
// two gateways of which the provider knows one.
func TestRealProviderLogsOut(t *testing.T) {
	t.Parallel()
	o, b, r := newOIDC(t), newBackend(t), startRedis(t)
	gateways := make([]*gateway, 2)
	for i := range gateways {
		gateways[i] = start(t, fill(logoutYAML, "IDP", o.URL, "BACKEND", b.URL, "REDIS", r.URL, "MODE", "replica", "JWKS", "", "LOGOUT", "",
			"[shop, kiosk]", "[browser, kiosk]"))
	}
	o.start(t, "", "http://"+gateways[0].listen+"/backchannel-logout")
	everywhere := func(what, token string, status int) {
		t.Helper()
		for _, g := range gateways {
			eventually(t, what, func() bool { return g.do(t, "GET /heroes/1", bearer(token)).status == status })
		}
	}
	// Two sessions of alice, one of bob.
	here, there, bob := o.browser(t), o.browser(t), o.browser(t)
	token, other, bobs := here.logIn(t, "browser", "alice"), there.logIn(t, "browser", "alice"), bob.logIn(t, "browser", "bob")
	everywhere("alice is here", token, http.StatusOK)
	everywhere("alice is there", other, http.StatusOK)
	everywhere("bob is here", bobs, http.StatusOK)
	gateways[0].logOut(t, here.id).invalidLogout(t)
	gateways[0].logOut(t, token).invalidLogout(t)

	here.logOut(t)
	o.output.says(t, `{"told":"browser"}`)
	everywhere("alice is no longer here", token, http.StatusUnauthorized)
	for _, g := range gateways {
		g.do(t, "GET /heroes/1", bearer(token)).refused(t, http.StatusUnauthorized, "revoked_token")
	}
	everywhere("alice is there", other, http.StatusOK)
	everywhere("alice is here again", here.logIn(t, "browser", "alice"), http.StatusOK)

	// The kiosk's logouts name no session: all that alice had go.
	everywhere("alice is at the kiosk", there.logIn(t, "kiosk", "alice"), http.StatusOK)
	there.logOut(t)
	o.output.says(t, `{"told":"kiosk"}`)
	everywhere("alice is no longer there", other, http.StatusUnauthorized)
	everywhere("bob is here", bobs, http.StatusOK)
	if strings.Contains(o.output.String(), "untold") {
		t.Error("the provider could not tell of a logout")
	}
	if n := gateways[0].count(t, `gatehouse_logouts_total{issuer="main",outcome="logged_out"}`); n != 3 {
		t.Errorf("%d logouts are counted, want 3", n)
	}
}

// count is the value of one series of the metrics, 0 if it is not there.
func (g *gateway) count(t *testing.T, series string) int {
	t.Helper()
	for line := range strings.Lines(g.metrics(t)) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			var n int
			if _, err := fmt.Sscan(value, &n); err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	return 0
}
