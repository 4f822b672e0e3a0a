package gateway

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gatehouse/gateway/config"
)

// catalogueConfig reads a routes.yaml with the policy p beside it.
func catalogueConfig(t *testing.T, routes, policy string) *config.Config {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "policies"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "policies", "p.yaml"), []byte(policy+"tests:\n  - expect: deny\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, _, err := config.Parse(filepath.Join(dir, "routes.yaml"), []byte(routes), config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

const catalogueIssuers = `issuers:
  main:
    issuer: https://id.example.com
    audiences: any
    may_grant: [READ, CREATE]
  seed:
    issuer: https://seed.example.com
    audiences: any
    may_grant: [SEED]
    privileges_from:
      - claim: scope
        prefix: "s:"
      - claim: roles
        prefix: "r:"
`

func TestCatalogue(t *testing.T) {
	const catalogue = "privileges:\n  READ: {}\n  CREATE: {from: [main]}\n  SEED: {from: [seed]}\n" // lines 15 to 18
	for _, c := range []struct{ name, catalogue, routes, policy, want string }{
		{"all used", catalogue, "privileges: [READ, CREATE]\nissuers: [main]\n-\nprivileges: []\nissuers: [seed]\npolicy: p", "allow:\n  - when: '\"SEED\" in privileges'\n", ""},
		{"misspelt, unused", catalogue, "privileges:\n  all: [REED]\n  any: [CREATE, SEED]\nissuers: [main]", "",
			`routes.yaml:16:9: no route and no policy asks for the privilege READ
routes.yaml:23:13: there is no privilege "REED" in the catalogue; did you mean "READ"?`},
		{"in a policy", catalogue, "policy: p\nissuers: [main]\n-\nprivileges: {any: [READ, SEED]}\nissuers: [main]",
			"allow:\n  - any:\n      - privileges: [CRATE]\n      - not: {privileges: {any: [REED]}}\n  - when: '\"CREATE\" in privileges || \"SED\" in privileges'\n",
			`p.yaml:3:22: there is no privilege "CRATE" in the catalogue; did you mean "CREATE"?
p.yaml:4:34: there is no privilege "REED" in the catalogue; did you mean "READ"?
p.yaml:5:11: there is no privilege "SED" in the catalogue; did you mean "SEED"?`},
		{"closed by from", catalogue, "privileges: [SEED]\nissuers: [main]\n-\nprivileges: [READ, CREATE]\nissuers: [main]", "",
			"routes.yaml:22:17: no token can open routes[0]: tokens of main do not give SEED (privileges.SEED.from)"},
		{"closed by may_grant on a route with one issuer", "", "privileges: [ADMIN]\nissuers: [main]", "",
			"routes.yaml:18:17: no token can open routes[0]: main may not grant ADMIN (may_grant)"},
		{"may_grant against from", strings.Replace(catalogue, "[seed]", "[main]", 1), "privileges: {any: [READ, CREATE, SEED]}\nissuers: [main]", "",
			"routes.yaml:9:17: seed may grant SEED, but privileges.SEED.from (line 18) does not name it; one of the two is wrong"},
		{"may_grant against from, on a route with both", strings.Replace(catalogue, "[seed]", "[main]", 1), "privileges: {any: [READ, CREATE, SEED]}\nissuers: [main, seed]", "",
			"routes.yaml:9:17: seed may grant SEED, but privileges.SEED.from (line 18) does not name it; one of the two is wrong"},
		{"in may_grant", "privileges:\n  READ: {}\n  SEED: {}\n", "privileges: {any: [READ, SEED]}\nissuers: [main]", "",
			`routes.yaml:5:23: there is no privilege "CREATE" in the catalogue`},
		// Without a catalogue.
		{"closed by the prefix", "", "privileges: [SEED]\nissuers: [seed]", "",
			"routes.yaml:18:17: no token can open routes[0]: no source of seed begins with what SEED does (privileges_from)"},
		{"with the prefix", "  all:\n    issuer: https://all.example.com\n    audiences: any\n    privileges_from: [{claim: roles, prefix: 'r:'}]\n",
			"privileges: ['r:READ']\nissuers: [all]", "", ""},
		{"a policy's rules", "", "privileges: [READ]\npolicy: p\nissuers: [main, seed]", "allow:\n  - privileges: [SEED]\n",
			"routes.yaml:18:17: no token can open routes[0]: every rule of the policy p asks for a privilege that tokens of main do not have here; seed may not grant READ (may_grant)"},
		{"a policy's privilege", "", "policy: p\nissuers: [main, seed]", "allow:\n  - privileges: [OTHER]\n  - when: '\"ELSE\" in privileges'\n",
			"p.yaml:2:18: no token has OTHER on a route that names this policy: main may not grant OTHER (may_grant); seed may not grant OTHER (may_grant)\n" +
				"p.yaml:3:11: no token has ELSE on a route that names this policy: main may not grant ELSE (may_grant); seed may not grant ELSE (may_grant)"},
		{"a policy's privilege on a route with one issuer", catalogue, "privileges: {any: [READ, CREATE]}\nissuers: [main]\npolicy: p", "allow:\n  - privileges: [SEED]\n  - ip: [10.0.0.0/8]\n",
			"p.yaml:2:18: no token has SEED on a route that names this policy: tokens of main do not give SEED (privileges.SEED.from)"},
		{"a policy on another route, too", "", "policy: p\nissuers: [main, seed]\n-\npolicy: p\nissuers: [main]", "allow:\n  - privileges: [SEED]\n  - ip: [10.0.0.0/8]\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := catalogueIssuers + c.catalogue + "routes:\n"
			for i, route := range strings.Split(c.routes, "-\n") {
				text += "  - match: /" + string(rune('a'+i)) + "\n    upstream: http://127.0.0.1:9000\n    " + strings.TrimRight(strings.ReplaceAll(route, "\n", "\n    "), " ")
				text = strings.TrimRight(text, "\n") + "\n"
			}
			if c.policy == "" {
				c.policy = "allow: [{ip: 10.0.0.1}]\n"
			}
			got := ""
			if _, err := Check(catalogueConfig(t, text, c.policy)); err != nil {
				got = regexp.MustCompile(`(?m)^.*/`).ReplaceAllString(err.Error(), "")
			}
			for _, want := range strings.Split(c.want, "\n") {
				if (want == "") != (got == "") || !strings.Contains(got, want) {
					t.Errorf("got\n%s\nwant\n%s\nof\n%s", got, c.want, text)
					return
				}
			}
			if strings.Count(got, "\n") != strings.Count(c.want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}
