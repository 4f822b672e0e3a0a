//go:build keycloak

package keycloak

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// issuer is the section of routes.yaml that trusts a realm, without what a story adds.
const issuer = `
issuers:
  main:
    issuer: REALM
    audiences: [https://heroes.example]
    privileges_from: realm_access.roles
`

const routes = `
routes:
  - match: GET /heroes/{id}
    privileges: [READ_HEROES]
    upstream: BACKEND
  - match: POST /heroes/{id}
    privileges: [CREATE_HERO]
    upstream: BACKEND
  - match: GET /me
    privileges: []
    upstream: BACKEND
`

// stage is Keycloak with two realms that are alike, and what trusts one of them.
type stage struct {
	*server
	realm   string // the URL of the one that is trusted
	backend *backend
	main    *gateway // reads the keys again each second
}

// yaml is a routes.yaml that trusts the realm heroes, with more keys of the issuer.
func (s *stage) yaml(more string) string {
	return strings.NewReplacer("REALM", s.realm, "BACKEND", s.backend.URL).Replace(issuer + more + routes)
}

// TestKeycloak is one story of many scenes, since one Keycloak takes long to start.
func TestKeycloak(t *testing.T) {
	s := &stage{server: startKeycloak(t), backend: newBackend(t)}
	s.makeRealm(t, "heroes")
	s.makeRealm(t, "villains")
	s.realm = s.URL + "/realms/heroes"
	s.main = start(t, t.TempDir(), s.yaml("    leeway: 0s\n    jwks:\n      refresh: 2s\n      min_refresh_interval: 1s\n      snapshot: main.jwks\n"))
	for _, scene := range []struct {
		name string
		play func(*stage, *testing.T)
	}{
		{"realm roles are privileges", (*stage).roles},
		{"what is no token for this API is refused", (*stage).strangers},
		{"expiry", (*stage).expiry},
		{"every algorithm", (*stage).algorithms},
		{"RFC 9068", (*stage).rfc9068},
		{"gatehouse token", (*stage).inspection},
		{"introspection", (*stage).introspection},
		{"back-channel logout", (*stage).logout},
		{"rotation", (*stage).rotation},
		{"death", (*stage).death}, // the last: it kills Keycloak
	} {
		if !t.Run(scene.name, func(t *testing.T) { scene.play(s, t) }) {
			t.FailNow()
		}
	}
}

func (s *stage) get(t *testing.T, token string) answer {
	t.Helper()
	return s.main.do(t, http.MethodGet, "/heroes/1", token)
}

func (s *stage) post(t *testing.T, token string) answer {
	t.Helper()
	return s.main.do(t, http.MethodPost, "/heroes/1", token)
}

func (s *stage) roles(t *testing.T) {
	reader, editor, nobody := s.user(t, "heroes", "reader").Access, s.user(t, "heroes", "editor").Access, s.user(t, "heroes", "nobody").Access

	s.get(t, "").refused(t, http.StatusUnauthorized, "missing_token", "")
	s.get(t, nobody).refused(t, http.StatusForbidden, "insufficient_privileges", "insufficient_scope")
	// The reader has CREATE_HERO too, but as a role of the client shop.
	s.post(t, reader).refused(t, http.StatusForbidden, "insufficient_privileges", "insufficient_scope")
	if n := s.backend.requests(); n != 0 {
		t.Errorf("%d requests reached the backend, want none", n)
	}

	s.get(t, reader).is(t, http.StatusOK)
	s.backend.got(t, "X-Jwt-Iss", s.realm)
	s.backend.got(t, "X-Jwt-Sub", part(t, reader, 1)["sub"].(string))
	s.backend.got(t, "X-Jwt-Preferred-Username", "reader")
	s.backend.got(t, "X-Jwt-Email", "reader@heroes.example")
	s.backend.got(t, "X-Jwt-Azp", "shop")
	s.backend.got(t, "X-Jwt-Aud", audience)
	s.backend.got(t, "X-Jwt-Realm-Access", `{"roles":["READ_HEROES"]}`)
	s.backend.got(t, "Authorization", "")

	// A composite role grants what it is made of.
	s.get(t, editor).is(t, http.StatusOK)
	s.post(t, editor).is(t, http.StatusOK)
	s.backend.got(t, "X-Jwt-Preferred-Username", "editor")

	// A client by itself.
	service := s.service(t, "heroes", "shop")
	s.get(t, service).is(t, http.StatusOK)
	s.backend.got(t, "X-Jwt-Preferred-Username", "service-account-shop")
	s.post(t, service).refused(t, http.StatusForbidden, "insufficient_privileges", "insufficient_scope")
}

func (s *stage) strangers(t *testing.T) {
	good := s.user(t, "heroes", "reader")
	s.get(t, good.Access).is(t, http.StatusOK)
	before := s.backend.requests()
	for _, c := range []struct{ what, token string }{
		{"an ID token", good.ID},
		{"a refresh token", good.Refresh},
		{"a token without the audience", s.service(t, "heroes", "stranger")},
		{"a token of another realm", s.user(t, "villains", "reader").Access},
		{"a token of another realm that says it is of this one", forge(t, s.user(t, "villains", "reader").Access, 1, object{"iss": s.realm})},
		{"a token with changed claims", forge(t, good.Access, 1, object{"realm_access": object{"roles": []string{"READ_HEROES"}}, "sub": "root"})},
		{"a token with another algorithm", forge(t, good.Access, 0, object{"alg": "HS256"})},
		{"a token without a signature", forge(t, good.Access[:strings.LastIndex(good.Access, ".")+1], 0, object{"alg": "none"})},
	} {
		t.Run(c.what, func(t *testing.T) {
			// Another realm's kid asks for the keys anew, which a slow Keycloak may answer too late.
			eventually(t, "it is judged", func() bool { return s.get(t, c.token).status != http.StatusServiceUnavailable })
			s.get(t, c.token).refused(t, http.StatusUnauthorized, "invalid_token", "invalid_token")
		})
	}

	// An ID token is refused as one, not only for whom it is meant.
	anyone := start(t, t.TempDir(), strings.Replace(s.yaml(""), "[https://heroes.example]", "any", 1))
	anyone.do(t, http.MethodGet, "/heroes/1", good.Access).is(t, http.StatusOK)
	anyone.do(t, http.MethodGet, "/me", s.service(t, "heroes", "stranger")).is(t, http.StatusOK)
	before += 2
	anyone.do(t, http.MethodGet, "/me", good.ID).refused(t, http.StatusUnauthorized, "invalid_token", "invalid_token")
	anyone.do(t, http.MethodGet, "/me", good.Refresh).refused(t, http.StatusUnauthorized, "invalid_token", "invalid_token")
	if n := s.backend.requests(); n != before {
		t.Errorf("%d requests too many reached the backend", n-before)
	}
}

func (s *stage) expiry(t *testing.T) {
	me := func(token string) answer { return s.main.do(t, http.MethodGet, "/me", token) }
	var token string
	eventually(t, "a token is used before it expires", func() bool {
		token = s.service(t, "heroes", "brief")
		return me(token).status == http.StatusOK
	})
	eventually(t, "it expires", func() bool { return me(token).status != http.StatusOK })
	me(token).refused(t, http.StatusUnauthorized, "expired_token", "invalid_token")
}

// algorithms has Keycloak make a key for each algorithm when it is first asked
// for one, so that each token names a key that the gateway has never seen.
func (s *stage) algorithms(t *testing.T) {
	for _, alg := range []string{"PS256", "ES256", "EdDSA"} {
		t.Run(alg, func(t *testing.T) {
			token := s.service(t, "heroes", alg)
			if got := part(t, token, 0)["alg"]; got != alg {
				t.Fatalf("Keycloak signed with %v", got)
			}
			eventually(t, "the new key is found", func() bool { return s.main.do(t, http.MethodGet, "/me", token).status == http.StatusOK })
			forged := forge(t, token, 1, object{"azp": "root"})
			s.main.do(t, http.MethodGet, "/me", forged).refused(t, http.StatusUnauthorized, "invalid_token", "invalid_token")
		})
	}
}

func (s *stage) rfc9068(t *testing.T) {
	strict, plain := s.service(t, "heroes", "strict"), s.user(t, "heroes", "reader").Access
	g := start(t, t.TempDir(), s.yaml("    profile: rfc9068\n"))
	g.do(t, http.MethodGet, "/me", strict).is(t, http.StatusOK)
	s.backend.got(t, "X-Jwt-Client-Id", "strict")
	g.do(t, http.MethodGet, "/me", plain).refused(t, http.StatusUnauthorized, "invalid_token", "invalid_token")
	// The usual profile takes both.
	s.main.do(t, http.MethodGet, "/me", strict).is(t, http.StatusOK)
	s.main.do(t, http.MethodGet, "/me", plain).is(t, http.StatusOK)
}

func (s *stage) inspection(t *testing.T) {
	good := s.user(t, "heroes", "reader")
	status, said := s.main.inspect(t, good.Access)
	if status != 0 {
		t.Errorf("a good token: status %d", status)
	}
	for _, want := range []string{part(t, good.Access, 0)["kid"].(string), "realm_access", "X-Jwt-Preferred-Username: reader"} {
		if !strings.Contains(strings.ToLower(said), strings.ToLower(want)) {
			t.Errorf("of a good token it does not say %q", want)
		}
	}
	if t.Failed() {
		t.Log(said)
	}
	for _, c := range []struct {
		what, token string
		says        []string // what it found and what it wants
	}{
		{"an ID token", good.ID, []string{"FAIL", "at_hash"}},
		{"another realm's token", s.user(t, "villains", "reader").Access, []string{"FAIL", s.URL + "/realms/villains", s.realm}},
		{"a token without the audience", s.service(t, "heroes", "stranger"), []string{"FAIL", "account", audience}},
		{"a refresh token", good.Refresh, []string{"FAIL", "HS512"}},
	} {
		status, said := s.main.inspect(t, c.token)
		if status == 0 {
			t.Errorf("%s: status 0\n%s", c.what, said)
		}
		for _, want := range c.says {
			if !strings.Contains(said, want) {
				t.Errorf("of %s it does not say %q:\n%s", c.what, want, said)
			}
		}
	}
}

// asking is how the gateway asks Keycloak about tokens, as a client of its own.
const asking = `
    introspection:
      when: WHEN
      interval: 1s
      auth:
        client_id: gatehouse
        client_secret: SECRET
`

func (s *stage) introspection(t *testing.T) {
	ask := func(when, secret string) *gateway {
		return start(t, t.TempDir(), s.yaml(strings.NewReplacer("WHEN", when, "SECRET", secret).Replace(asking[1:])))
	}
	get := func(g *gateway, token string) answer { return g.do(t, http.MethodGet, "/heroes/1", token) }
	// Keycloak answers only a client that is in the token's audience.
	s.admin(t, http.MethodPost, "/heroes/clients", app("gatehouse", nil, nil), nil)
	s.admin(t, http.MethodPost, "/heroes/clients", app("till", append([]object{{
		"name": "gatehouse", "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper",
		"config": object{"included.client.audience": "gatehouse", "access.token.claim": "true", "introspection.token.claim": "true"},
	}}, forHeroes...), nil), nil)
	always, opaque := ask("always", "gatehouse"), ask("opaque", "gatehouse")
	here, there := s.login(t, "heroes", "till", "reader"), s.login(t, "heroes", "till", "reader")
	for _, g := range []*gateway{always, opaque} {
		get(g, here.Access).is(t, http.StatusOK)
		get(g, there.Access).is(t, http.StatusOK)
		get(g, s.user(t, "villains", "reader").Access).refused(t, http.StatusUnauthorized, "invalid_token", "invalid_token")
		get(g, s.login(t, "heroes", "till", "nobody").Access).refused(t, http.StatusForbidden, "insufficient_privileges", "insufficient_scope")
		// Keycloak says so of what is no token of its own.
		get(g, minted("no-token.of-this-realm-at-all")).refused(t, http.StatusUnauthorized, "invalid_token", "invalid_token")
	}
	s.backend.got(t, "X-Jwt-Preferred-Username", "reader")
	get(always, s.user(t, "heroes", "reader").Access).is(t, http.StatusUnauthorized) // gatehouse is not in its audience

	// A session that ends takes its token along: only who asks can know.
	s.logOut(t, "heroes", "till", here)
	eventually(t, "the session's token is refused", func() bool { return get(always, here.Access).status != http.StatusOK })
	get(always, here.Access).refused(t, http.StatusUnauthorized, "revoked_token", "invalid_token")
	get(always, there.Access).is(t, http.StatusOK)
	get(opaque, here.Access).is(t, http.StatusOK)
	// A token of a session that had ended before anybody asked.
	gone := s.login(t, "heroes", "till", "reader")
	s.logOut(t, "heroes", "till", gone)
	get(always, gone.Access).is(t, http.StatusUnauthorized)

	// That Keycloak does not know the gateway is the gateway's fault.
	wrong := ask("always", "wrong")
	if a := get(wrong, there.Access); a.status != http.StatusServiceUnavailable || a.reason != "issuer_unavailable" {
		t.Errorf("with a wrong secret: %d %s", a.status, a.reason)
	}
}

// listening is how the gateway takes Keycloak's logout tokens.
const listening = `
    max_lifetime: 1h
    backchannel_logout:
      path: /backchannel-logout
      audiences: [portal, kiosk]
redis:
  url: REDIS
revocation:
  mode: MODE
`

func (s *stage) logout(t *testing.T) {
	redis := startRedis(t)
	listen := func(mode string) *gateway {
		return start(t, t.TempDir(), s.yaml(strings.NewReplacer("REDIS", redis, "MODE", mode).Replace(listening[1:])))
	}
	gateways := []*gateway{listen("lookup"), listen("replica")}
	everywhere := func(what, token string, status int) {
		t.Helper()
		for _, g := range gateways {
			eventually(t, what, func() bool { return g.do(t, http.MethodGet, "/heroes/1", token).status == status })
		}
	}
	// Keycloak knows the first gateway only.
	for name, withSession := range map[string]string{"portal": "true", "kiosk": "false"} {
		s.admin(t, http.MethodPost, "/heroes/clients", app(name, forHeroes, object{
			"backchannel.logout.url": gateways[0].URL + "/backchannel-logout", "backchannel.logout.session.required": withSession,
		}), nil)
	}
	at := func(client, user string) grant { t.Helper(); return s.login(t, "heroes", client, user) }
	here, there, editor := at("portal", "reader"), at("portal", "reader"), at("portal", "editor")
	for _, g := range []grant{here, there, editor} {
		everywhere("the session lives", g.Access, http.StatusOK)
	}

	// The user logs out of one session.
	s.logOut(t, "heroes", "portal", here)
	everywhere("the session is over", here.Access, http.StatusUnauthorized)
	for _, g := range gateways {
		g.do(t, http.MethodGet, "/heroes/1", here.Access).refused(t, http.StatusUnauthorized, "revoked_token", "invalid_token")
	}
	everywhere("the other session lives", there.Access, http.StatusOK)
	everywhere("who logs in again is in", at("portal", "reader").Access, http.StatusOK)

	// Without a session's name all of the user's go.
	kiosk := at("kiosk", "reader")
	everywhere("the kiosk's session lives", kiosk.Access, http.StatusOK)
	s.logOut(t, "heroes", "kiosk", kiosk)
	everywhere("the kiosk's session is over", kiosk.Access, http.StatusUnauthorized)
	everywhere("so is the other", there.Access, http.StatusUnauthorized)

	// An administrator throws a user out.
	everywhere("another user's session lives", editor.Access, http.StatusOK)
	s.admin(t, http.MethodPost, "/heroes/users/"+part(t, editor.Access, 1)["sub"].(string)+"/logout", nil, nil)
	everywhere("it is over", editor.Access, http.StatusUnauthorized)
	if out := gateways[0].output.String(); strings.Count(out, `"route":"issuers.main.backchannel_logout","status":200`) != 3 {
		t.Errorf("the gateway took other logouts than three")
	}
}

func (s *stage) rotation(t *testing.T) {
	old, unseen := s.user(t, "heroes", "reader").Access, s.user(t, "heroes", "reader").Access
	s.get(t, old).is(t, http.StatusOK)

	s.addKey(t, "heroes", "second", "200", "true")
	fresh := s.user(t, "heroes", "editor").Access
	if was, is := part(t, old, 0)["kid"], part(t, fresh, 0)["kid"]; was == is {
		t.Fatalf("Keycloak signs with the key %v as before", is)
	}
	eventually(t, "the new key is found", func() bool { return s.get(t, fresh).status == http.StatusOK })
	s.post(t, fresh).is(t, http.StatusOK)
	s.get(t, old).is(t, http.StatusOK) // as long as its key is published

	s.setKey(t, "heroes", "rsa-generated", "enabled", "false")
	eventually(t, "the old key is dropped", func() bool { return s.get(t, old).status != http.StatusOK })
	s.get(t, old).refused(t, http.StatusUnauthorized, "invalid_token", "invalid_token")
	s.get(t, unseen).refused(t, http.StatusUnauthorized, "invalid_token", "invalid_token")
	s.get(t, fresh).is(t, http.StatusOK)

	// A key that is published before it signs: nobody is refused in between.
	s.addKey(t, "heroes", "third", "300", "false")
	kid := s.passive(t, "heroes")
	s.main.output.says(t, kid)
	s.setKey(t, "heroes", "third", "active", "true")
	announced := s.user(t, "heroes", "reader").Access
	if got := part(t, announced, 0)["kid"]; got != kid {
		t.Errorf("Keycloak signs with the key %v, want %s", got, kid)
	}
	s.get(t, announced).is(t, http.StatusOK)
}

func (s *stage) death(t *testing.T) {
	seen, unseen := s.user(t, "heroes", "reader").Access, s.user(t, "heroes", "editor").Access
	s.get(t, seen).is(t, http.StatusOK)
	// A key that nobody has: refused while Keycloak says so, and unknowable afterwards.
	unknown := forge(t, seen, 0, object{"kid": "nobody's"})
	eventually(t, "Keycloak says that it has no such key", func() bool { return s.get(t, unknown).status == http.StatusUnauthorized })

	s.kill()
	s.main.output.says(t, "connection refused")
	s.get(t, seen).is(t, http.StatusOK)
	s.post(t, unseen).is(t, http.StatusOK)
	s.post(t, seen).refused(t, http.StatusForbidden, "insufficient_privileges", "insufficient_scope")
	s.get(t, forge(t, seen, 1, object{"sub": "root"})).refused(t, http.StatusUnauthorized, "invalid_token", "invalid_token")
	unknowable := s.get(t, unknown)
	if unknowable.status != http.StatusServiceUnavailable || unknowable.reason != "issuer_unavailable" || unknowable.header.Get("Retry-After") == "" {
		t.Errorf("a key that cannot be asked for: got %d %s, Retry-After %q", unknowable.status, unknowable.reason, unknowable.header.Get("Retry-After"))
	}
	if got := s.main.ready(); got != http.StatusOK {
		t.Errorf("/readyz: %d", got)
	}

	// A gateway that starts now has the snapshot.
	dir := t.TempDir()
	snapshot, err := os.ReadFile(filepath.Join(filepath.Dir(s.main.config), "main.jwks"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "main.jwks"), string(snapshot))
	g := start(t, dir, s.yaml("    jwks:\n      snapshot: main.jwks\n"))
	g.do(t, http.MethodGet, "/heroes/1", seen).is(t, http.StatusOK)
	g.do(t, http.MethodGet, "/heroes/1", unknown).is(t, http.StatusServiceUnavailable)
	// gatehouse token reads the gateway's snapshot, and so tells what the gateway would do.
	if status, said := g.inspect(t, seen); status != 0 {
		t.Errorf("gatehouse token without Keycloak: status %d\n%s", status, said)
	}
}
