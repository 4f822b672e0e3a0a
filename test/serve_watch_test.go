package test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// followedRoutes reads a file of each kind that a route's answer depends on.
const followedRoutes = `
server:
  ADDRESSES
  audit:
    file: audit.log
issuers:
  main:
    issuer: https://id.example.com
    audiences: any
    keys:
      - file: keys/main.pem
routes:
  - match: GET /heroes/{id}
    policy: own
    upstream: BACKEND
    response_headers:
      set:
        X-Edition: ${file:edition}
`

// followed is a gateway on these files that nobody sends a signal to, and the
// one whose tokens it takes.
func followed(t *testing.T, args ...string) (g *gateway, main signer, b *backend) {
	t.Helper()
	b, main = newBackend(t), newSigner(t, "ES256", "")
	return startWith(t, args, fill(followedRoutes, "BACKEND", b.URL), file{"edition", "first"},
		file{"policies/own.yaml", watchedPolicy}, file{"keys/main.pem", main.pem(t)}), main, b
}

func (g *gateway) beside(name string) string { return filepath.Join(filepath.Dir(g.config), name) }

// hero asks for hero 7, whose policy lets in those who say they are that one.
func (g *gateway) hero(t *testing.T, s signer) answer {
	t.Helper()
	return g.do(t, "GET /heroes/7", bearer(s.sign(t, claims{"iss": "https://id.example.com", "hero": 7, "exp": 4102444800})))
}

func TestServeTakesUpEveryFileThatItReads(t *testing.T) {
	t.Parallel()
	g, main, b := followed(t)
	if a := g.hero(t, main); a.status != http.StatusOK || a.header.Get("X-Edition") != "first" {
		t.Fatalf("got %d, edition %q", a.status, a.header.Get("X-Edition"))
	}
	write(t, g.beside("edition"), "second") // in place
	eventually(t, "the included file is taken up", func() bool { return g.hero(t, main).header.Get("X-Edition") == "second" })
	replace(t, g.beside("policies/own.yaml"), strings.NewReplacer("param: id", "equals: 8", "hero: 7", "hero: 8").Replace(watchedPolicy))
	eventually(t, "the policy is taken up", func() bool { return g.hero(t, main).status == http.StatusForbidden })
	replace(t, g.beside("policies/own.yaml"), watchedPolicy)
	next := newSigner(t, "ES256", "")
	replace(t, g.beside("keys/main.pem"), next.pem(t))
	eventually(t, "the key is taken up", func() bool { return g.hero(t, next).status == http.StatusOK })
	g.hero(t, main).refused(t, http.StatusUnauthorized, "invalid_token")
	replace(t, g.config, g.text(fill(strings.Replace(followedRoutes, "/heroes/", "/heroines/", 1), "BACKEND", b.URL)))
	eventually(t, "routes.yaml is taken up", func() bool { return g.hero(t, next).status == http.StatusNotFound })

	// And the signal still works, once for a change.
	before := g.metric(t, goodReloads)
	g.reload(t, fill(followedRoutes, "BACKEND", b.URL))
	eventually(t, "the signal is obeyed", func() bool { return g.hero(t, next).status == http.StatusOK })
	write(t, g.beside("edition"), "third")
	eventually(t, "the included file is taken up", func() bool { return g.hero(t, next).header.Get("X-Edition") == "third" })
	if n := g.metric(t, goodReloads) - before; n != 2 {
		t.Errorf("%v reloads for a signal and a change", n)
	}
}

func TestServeWaitsOutWhatIsNoConfiguration(t *testing.T) {
	t.Parallel()
	g, main, b := followed(t)
	yaml := g.text(fill(followedRoutes, "BACKEND", b.URL))
	serves := func(edition string) {
		t.Helper()
		if a := g.hero(t, main); a.status != http.StatusOK || a.header.Get("X-Edition") != edition {
			t.Errorf("got %d, edition %q; want %s", a.status, a.header.Get("X-Edition"), edition)
		}
	}
	for i, harm := range []struct {
		what, says string
		do         func()
	}{
		{"half of routes.yaml", "routes.yaml:", func() { write(t, g.config, yaml[:strings.Index(yaml, "    upstream")]) }},
		{"no routes.yaml", "no such file", func() { rename(t, g.config, g.config+".away") }},
		{"half a key", "neither PEM", func() { write(t, g.config, yaml); write(t, g.beside("keys/main.pem"), main.pem(t)[:40]) }},
		{"no key", "cannot read the key", func() { rename(t, g.beside("keys/main.pem"), g.beside("main.away")) }},
		{"half a policy", "own.yaml:", func() {
			rename(t, g.beside("main.away"), g.beside("keys/main.pem"))
			write(t, g.beside("keys/main.pem"), main.pem(t))
			write(t, g.beside("policies/own.yaml"), watchedPolicy[:strings.Index(watchedPolicy, "param")])
		}},
		{"a pipe", "the file is empty", func() {
			write(t, g.beside("policies/own.yaml"), watchedPolicy)
			rename(t, g.config, g.config+".away")
			if err := syscall.Mkfifo(g.config, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		harm.do()
		eventually(t, harm.what+" is told of", func() bool {
			return g.metric(t, badReloads) == float64(i+1) && strings.Contains(g.output.String(), harm.says)
		})
		serves("first")
	}
	write(t, g.beside("edition"), "second")
	rename(t, g.config+".away", g.config)
	eventually(t, "what is whole again is taken up", func() bool { return g.hero(t, main).header.Get("X-Edition") == "second" })
}

func TestServeReloadsNothingForNothing(t *testing.T) {
	t.Parallel()
	g, main, b := followed(t)
	yaml := g.text(fill(followedRoutes, "BACKEND", b.URL))
	g.hero(t, main).is(t, http.StatusOK)                     // writes audit.log
	write(t, g.beside("notes.txt"), "x")                     // no file of the configuration's
	replace(t, g.config, yaml)                               // another file, the same content
	write(t, g.beside("edition"), "first")                   // written, the same
	rename(t, g.beside("edition"), g.beside("edition.away")) // gone for a moment
	rename(t, g.beside("edition.away"), g.beside("edition"))
	write(t, g.config, yaml[:len(yaml)/2]) // half of it for a moment
	write(t, g.config, yaml)
	write(t, g.beside("edition"), "second")
	eventually(t, "the one change is taken up", func() bool { return g.hero(t, main).header.Get("X-Edition") == "second" })
	if good, bad := g.metric(t, goodReloads), g.metric(t, badReloads); good != 1 || bad != 0 || strings.Contains(g.output.String(), "not reloaded") {
		t.Errorf("%v reloads and %v that failed, for one change", good, bad)
	}
}

// TestServeFollowsAConfigMap that is mounted as Kubernetes does it: each version
// is a directory, ..data a link to the newest, and every file a link through it.
func TestServeFollowsAConfigMap(t *testing.T) {
	t.Parallel()
	dir, main, b := t.TempDir(), newSigner(t, "ES256", ""), newBackend(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	g := &gateway{listen: freeAddress(t), status: freeAddress(t), config: at("routes.yaml")}
	link := func(target, name string) {
		if err := os.Symlink(target, at(name+"_tmp")); err != nil {
			t.Fatal(err)
		}
		rename(t, at(name+"_tmp"), at(name))
	}
	// publish makes a version, swaps to it, and removes the one before.
	version := ""
	publish := func(next, yaml, edition string) {
		t.Helper()
		write(t, at(next+"/routes.yaml"), yaml)
		write(t, at(next+"/edition"), edition)
		write(t, at(next+"/main.pem"), main.pem(t))
		link(next, "..data")
		if version != "" {
			if err := os.RemoveAll(at(version)); err != nil {
				t.Fatal(err)
			}
		}
		version = next
	}
	yaml := g.text(fill(strings.NewReplacer("policy: own", "privileges: []", "keys/main.pem", "main.pem", "  audit:\n    file: audit.log\n", "").Replace(followedRoutes), "BACKEND", b.URL))
	publish("..2026_01_01", yaml, "first")
	for _, name := range []string{"routes.yaml", "edition", "main.pem"} {
		link("..data/"+name, name)
	}
	g.serve(t)
	edition := func() string { return g.hero(t, main).header.Get("X-Edition") }
	if got := edition(); got != "first" {
		t.Fatalf("edition %q", got)
	}
	publish("..2026_01_02", yaml, "second")
	eventually(t, "an included file is taken up", func() bool { return edition() == "second" })
	publish("..2026_01_03", strings.Replace(yaml, "X-Edition: ", "X-Edition: v", 1), "third")
	eventually(t, "routes.yaml is taken up", func() bool { return edition() == "vthird" })
	publish("..2026_01_04", "routes: [", "third")
	g.output.says(t, "routes.yaml:1:")
	if got := edition(); got != "vthird" {
		t.Errorf("edition %q after a version with a fault", got)
	}
	publish("..2026_01_05", yaml, "fifth")
	eventually(t, "the version after it is taken up", func() bool { return edition() == "fifth" })
	if n := g.metric(t, goodReloads); n != 3 {
		t.Errorf("%v reloads for 3 versions without a fault", n)
	}
	publish("..2026_01_06", yaml, "sixth")
	g.signal(syscall.SIGHUP)
	eventually(t, "the signal is obeyed", func() bool { return edition() == "sixth" })
}

func TestServeNeedNotWatch(t *testing.T) {
	t.Parallel()
	edition := filepath.Join(t.TempDir(), "edition")
	write(t, edition, "first")
	b := newBackend(t)
	yaml := fill("routes:\n  - match: /one\n    public: true\n    upstream: BACKEND\n    response_headers:\n      set:\n        X-Edition: ${file:EDITION}\n", "BACKEND", b.URL, "EDITION", edition)
	deaf, watching := startWith(t, []string{"--watch=false"}, yaml), start(t, yaml)
	write(t, edition, "second")
	eventually(t, "the one that watches takes it up", func() bool { return watching.do(t, "GET /one").header.Get("X-Edition") == "second" })
	if got := deaf.do(t, "GET /one").header.Get("X-Edition"); got != "first" {
		t.Errorf("the one that does not has edition %q", got)
	}
	deaf.signal(syscall.SIGHUP)
	eventually(t, "the signal is obeyed", func() bool { return deaf.do(t, "GET /one").header.Get("X-Edition") == "second" })
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}
