package test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// A caller reports the request id of a 403. The operator asks why, tries the
// same token by the command line, and revokes it; then both ways tell of that.
func TestWhyWasThisRefused(t *testing.T) {
	t.Parallel()
	g, admin, r, p := startAdmin(t)
	here := "Host: " + admin.listen
	raw := p.token(t, claims{"sub": "alice", "jti": "one", "privileges": []string{"READ_THREATS"}})
	refused := g.do(t, "GET /heroes/7?secret=hidden", bearer(raw))
	refused.refused(t, http.StatusForbidden, "insufficient_privileges")

	var list struct{ Refusals []map[string]any }
	if err := json.Unmarshal([]byte(admin.do(t, "GET /refusals", here).body), &list); err != nil || len(list.Refusals) != 1 {
		t.Fatalf("%d refusals, %v", len(list.Refusals), err)
	}
	for key, want := range map[string]any{"request_id": refused.header.Get("X-Request-Id"), "route": "heroes", "path": "/heroes/7", "client": "127.0.0.1", "sub": "alice", "reason": "insufficient_privileges", "status": 403.0} {
		if got := list.Refusals[0][key]; got != want {
			t.Errorf("%s is %v, want %v", key, got, want)
		}
	}
	one := admin.do(t, "GET /refusals/"+refused.header.Get("X-Request-Id"), here).body
	if !strings.Contains(one, "needs READ_HEROES; the token has READ_THREATS") || strings.Contains(one, raw) || strings.Contains(one, "hidden") {
		t.Errorf("the explanation is %s", one)
	}
	admin.do(t, "GET /refusals/nothing", here).is(t, http.StatusNotFound)

	good := p.token(t, claims{"jti": "two", "privileges": []string{"READ_HEROES"}})
	explain := func(raw string) (int, string) {
		return command(t, raw, "explain", "--config", g.config, "GET", "/heroes/7", "--token-file", "-")
	}
	if status, out := explain(raw); status != 1 || !strings.Contains(out, "needs READ_HEROES; the token has READ_THREATS") || !strings.Contains(out, "refused: 403 insufficient_privileges") {
		t.Errorf("status %d\n%s", status, out)
	}
	if status, out := explain(good); status != 0 || !strings.Contains(out, "not revoked") || !strings.Contains(out, "fetched") || !strings.Contains(out, "X-Jwt-Sub: ") {
		t.Errorf("status %d\n%s", status, out)
	}
	body := func() string {
		text, err := json.Marshal(map[string]string{"url": "/heroes/7", "token": good})
		if err != nil {
			t.Fatal(err)
		}
		return admin.send(t, "POST /explain HTTP/1.1\r\n"+here+"\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: "+itoa(int64(len(text)))+"\r\n\r\n"+string(text)).body
	}
	if text := body(); !strings.Contains(text, `"upstream"`) || strings.Contains(text, good) {
		t.Errorf("the gateway explains %s", text)
	}
	r.do(t, "SET", "revoked:jti:main:two", "1")
	if status, out := explain(good); status != 1 || !strings.Contains(out, "FAIL  revoked_token") {
		t.Errorf("status %d\n%s", status, out)
	}
	if text := body(); !strings.Contains(text, "revoked_token") {
		t.Errorf("the gateway explains %s", text)
	}
}

// From elsewhere, and from a browser's page, nobody learns of refusals.
func TestRefusalsAreForOperators(t *testing.T) {
	t.Parallel()
	g, admin, _, _ := startAdmin(t)
	g.do(t, "GET /heroes/7").refused(t, http.StatusUnauthorized, "missing_token")
	for _, request := range []string{"GET /refusals", "GET /refusals/x", "POST /explain"} {
		for _, headers := range [][]string{{"Host: evil.example"}, {"Host: " + admin.listen, basic("shop", "the-shops-own-secret")}} {
			if a := admin.do(t, request, headers...); !slices.Contains([]int{http.StatusMisdirectedRequest, http.StatusForbidden}, a.status) {
				t.Errorf("%s with %v: %d %s", request, headers[0], a.status, a.body)
			}
		}
	}
	a := admin.do(t, "POST /explain", "Host: "+admin.listen, "Origin: https://evil.example", "Content-Length: 0")
	a.is(t, http.StatusForbidden)
}

// What verifies a token is asked; backends are not.
func TestCommandsAskNoBackend(t *testing.T) {
	t.Parallel()
	p, b := newIDP(t), newBackend(t)
	config, token := t.TempDir()+"/routes.yaml", p.token(t)
	write(t, config, fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
upstreams:
  heroes:
    targets: [BACKEND]
    health:
      path: /healthz
routes:
  - match: /heroes/{id}
    privileges: []
    upstream: heroes
`, "IDP", p.URL, "BACKEND", b.URL))
	for _, args := range [][]string{{"token", "-"}, {"explain", "/heroes/1", "--token-file", "-"}} {
		if status, out := command(t, token, append(args, "--config", config)...); status != 0 {
			t.Errorf("%s: status %d, %s", args[0], status, out)
		}
		if n := b.count(); n != 0 {
			t.Errorf("%s: %d requests reached the backend", args[0], n)
		}
	}
}

// Whoever gives a token where a file's name belongs finds no copy of it in the
// output, which a CI system may keep.
func TestTokenInPlaceOfItsFile(t *testing.T) {
	t.Parallel()
	config, raw := t.TempDir()+"/routes.yaml", newSigner(t, "ES256", "k").sign(t, claims{"sub": "alice"})
	write(t, config, "routes:\n  - match: /\n    public: true\n    upstream: http://127.0.0.1:9\n")
	for _, args := range [][]string{{"explain", "/", "--token-file", raw}, {"explain", "/", "--claims", raw}, {"explain", "/", "--client-ip", raw}, {"explain", "/", "--issuer", raw}, {"token", raw}, {"revoke", "--token-file", raw}} {
		if status, out := command(t, "", append(args, "--config", config)...); status == 0 || strings.Contains(out, raw[:30]) {
			t.Errorf("%s: status %d, %s", args[0], status, out)
		}
	}
}
