package test

import (
	"net/http"
	"strings"
	"testing"
)

func TestPrivilegesAllAnyBoth(t *testing.T) {
	t.Parallel()
	p, b := newIDP(t), newBackend(t)
	g := start(t, fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
routes:
  - match: /all
    privileges: [A, B]
    upstream: BACKEND
  - match: /any
    privileges:
      any: [A, B]
    upstream: BACKEND
  - match: /both
    privileges:
      all: [A]
      any: [B, C]
    upstream: BACKEND
  - match: /none
    privileges: []
    upstream: BACKEND
`, "IDP", p.URL, "BACKEND", b.URL))
	for _, c := range []struct {
		has  any
		open string // the routes that it opens
	}{
		{[]string{"A", "B"}, "/all /any /both /none"},
		{[]string{"B", "C", "A"}, "/all /any /both /none"},
		{[]string{"A"}, "/any /none"},
		{[]string{"B"}, "/any /none"},
		{[]string{"A", "C"}, "/any /both /none"},
		{[]string{"C", "D"}, "/none"},
		{[]string{}, "/none"},
		{"A B", "/all /any /both /none"}, // a string is split at spaces
		{"A,B", "/none"},
		{[]string{"A B"}, "/none"}, // an array's items are not
		{[]string{"A,B"}, "/none"},
		{[]string{"a", "b"}, "/none"},
		{[]string{"A\x00", "B\n"}, "/none"},
		{"", "/none"},
		// A claim of another type is no privilege, and no crash.
		{nil, "/none"},
		{7, "/none"},
		{true, "/none"},
		{map[string]any{"A": true, "B": true}, "/none"},
		{[]any{[]string{"A", "B"}}, "/none"},
		{[]any{1, true, map[string]any{"A": 1}}, "/none"},
	} {
		token := p.token(t, claims{"privileges": c.has})
		for _, path := range []string{"/all", "/any", "/both", "/none"} {
			before := b.count()
			a := g.do(t, "GET "+path, bearer(token))
			if strings.Contains(c.open+" ", path+" ") {
				a.is(t, http.StatusOK)
			} else {
				a.refused(t, http.StatusForbidden, "insufficient_privileges")
				a.challenges(t, "insufficient_scope")
				if b.count() != before {
					t.Error("a refused request reached the backend")
				}
			}
			if t.Failed() {
				t.Fatalf("^ privileges %#v on %s", c.has, path)
			}
		}
	}
}

func TestPrivilegesFromElsewhere(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from string
		good claims
		bad  claims
	}{
		{"privileges_from: scp", claims{"scp": "A B"}, claims{"privileges": "A"}},
		{"privileges_from: realm_access.roles", claims{"realm_access": claims{"roles": []string{"A"}}}, claims{"realm_access.roles": "A"}},
		{"privileges_from: /https:~1~1x.example~1roles", claims{"https://x.example/roles": []string{"A"}}, claims{"https:": "A"}},
		{`privileges_from:
      - roles
      - claim: scope
        prefix: "scope:"`, claims{"roles": []string{"A"}, "scope": "x"}, claims{"scope": "A"}},
	} {
		p, b := newIDP(t), newBackend(t)
		g := start(t, fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
    FROM
routes:
  - match: /heroes/{id}
    privileges: [A]
    upstream: BACKEND
`, "IDP", p.URL, "BACKEND", b.URL, "FROM", c.from))
		without := claims{"privileges": nil}
		g.do(t, "GET /heroes/1", bearer(p.token(t, without, c.good))).is(t, http.StatusOK)
		g.do(t, "GET /heroes/1", bearer(p.token(t, without, c.bad))).refused(t, http.StatusForbidden, "insufficient_privileges")
	}
}

func TestChallengeNamesTheScopeOnlyIfItIsOne(t *testing.T) {
	t.Parallel()
	for from, want := range map[string]bool{"scope": true, "privileges": false} {
		p, b := newIDP(t), newBackend(t)
		g := start(t, fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
    privileges_from: FROM
routes:
  - match: /heroes/{id}
    privileges: [read, write]
    upstream: BACKEND
`, "IDP", p.URL, "BACKEND", b.URL, "FROM", from))
		a := g.do(t, "GET /heroes/1", bearer(p.token(t)))
		a.challenges(t, "insufficient_scope")
		if got := a.header.Get("WWW-Authenticate"); strings.Contains(got, `scope="read write"`) != want {
			t.Errorf("privileges_from %s: %s", from, got)
		}
	}
}

func TestLogNamesTheClaimsThatCouldHaveBeenMeant(t *testing.T) {
	t.Parallel()
	g, _, p := startOne(t, "")
	g.do(t, "GET /heroes/1", bearer(p.token(t, claims{"privileges": nil, "my_roles": []string{"READ_HEROES"}}))).
		refused(t, http.StatusForbidden, "insufficient_privileges")
	g.output.says(t, "my_roles")
}
