package test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const watchedRoutes = `issuers:
  main:
    issuer: https://id.example.com
    audiences: any
    keys:
      - file: keys/main.pem
routes:
  - match: GET /heroes/{id}
    policy: own
    upstream: http://127.0.0.1:9000
`

const watchedPolicy = `allow:
  - claims:
      hero: {param: id}
tests:
  - claims: {hero: 7}
    params: {id: "7"}
    expect: allow
  - expect: deny
`

// watched is a gatehouse check --watch.
type watched struct {
	*process
	read int // of its output
}

func watch(t *testing.T, config string, args ...string) *watched {
	t.Helper()
	w := &watched{process: launch(t, binary, append([]string{"check", "--watch", "--config", config}, args...)...)}
	t.Cleanup(func() {
		w.signal(syscall.SIGTERM)
		if status := w.exit(t); status != 0 {
			t.Errorf("check --watch ended with status %d", status)
		}
	})
	return w
}

// says waits until what it printed since the last time has text.
func (w *watched) says(t *testing.T, text string) {
	t.Helper()
	eventually(t, "check --watch says "+text, func() bool { return strings.Contains(w.output.String()[w.read:], text) })
	w.read = len(w.output.String())
}

// replace writes a file as editors do: a new one in the place of the old.
func replace(t *testing.T, path, content string) {
	t.Helper()
	write(t, path+"~", content)
	if err := os.Rename(path+"~", path); err != nil {
		t.Fatal(err)
	}
}

func TestCheckWatchesEveryFileItReads(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write(t, at("routes.yaml"), watchedRoutes)
	w := watch(t, at("routes.yaml"))
	w.says(t, `unknown policy "own"`)
	write(t, at("policies/own.yaml"), watchedPolicy) // a directory that was not there
	w.says(t, "cannot read the key")
	replace(t, at("keys/main.pem"), newSigner(t, "ES256", "").pem(t))
	w.says(t, "ok\town\t2 tests")
	replace(t, at("policies/own.yaml"), strings.Replace(watchedPolicy, "expect: allow", "expect: deny", 1))
	w.says(t, "FAIL\town\t1 of 2 tests failed")
	write(t, at("policies/own.yaml"), watchedPolicy) // in place
	w.says(t, "ok\town\t2 tests")
	replace(t, at("routes.yaml"), strings.Replace(watchedRoutes, "audiences", "audience", 1))
	w.says(t, "routes.yaml:4:5: ")
	if err := os.Remove(at("routes.yaml")); err != nil {
		t.Fatal(err)
	}
	w.says(t, "no such file")
	write(t, at("routes.yaml"), watchedRoutes)
	w.says(t, "ok\town\t2 tests")
	// What is no file of the configuration's, and what leaves it as it was, is
	// no reason: the next thing that is said is about the key.
	before := len(w.output.String())
	write(t, at("notes.txt"), "x")
	replace(t, at("routes.yaml"), watchedRoutes)
	write(t, at("keys/main.pem"), "nothing")
	w.says(t, "neither PEM")
	eventually(t, "check --watch says its last line", func() bool { return strings.HasSuffix(w.output.String(), " has 1 fault\n") })
	if n := strings.Count(w.output.String()[before:], "\n"); n != 3 {
		t.Errorf("%d lines for one change:\n%s", n, w.output.String()[before:])
	}
}

// TestCheckWatchesLinksThatAreSwapped, as Kubernetes does it with a ConfigMap.
func TestCheckWatchesLinksThatAreSwapped(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	link := func(target, name string) {
		if err := os.Symlink(target, at(name+".new")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(at(name+".new"), at(name)); err != nil {
			t.Fatal(err)
		}
	}
	routes := strings.Replace(watchedRoutes, "    keys:\n      - file: keys/main.pem\n", "", 1)
	write(t, at("..1/routes.yaml"), routes)
	write(t, at("..1/policies/own.yaml"), watchedPolicy)
	link("..1", "..data")
	link("..data/routes.yaml", "routes.yaml")
	link("..data/policies", "policies")
	w := watch(t, at("routes.yaml"), "--json", "--junit", at("out.xml"))
	w.says(t, `"passed":true,"faults":[]`)
	write(t, at("..2/routes.yaml"), routes)
	write(t, at("..2/policies/own.yaml"), strings.Replace(watchedPolicy, "expect: allow", "expect: deny", 1))
	link("..2", "..data")
	if err := os.RemoveAll(at("..1")); err != nil {
		t.Fatal(err)
	}
	w.says(t, `"passed":false,"faults":[]`)
	write(t, at("..3/routes.yaml"), "nothing")
	link("..3", "..data")
	w.says(t, `"passed":false,"faults":[{"file":`)
	if text, err := os.ReadFile(at("out.xml")); err != nil || !strings.Contains(string(text), `failures="1"`) {
		t.Errorf("%v\n%s", err, text)
	}
}
