package test

import (
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// TestHealthcheck: one line and a status that a container's health check goes by.
func TestHealthcheck(t *testing.T) {
	b, p := newBackend(t), newIDP(t)
	t.Setenv("HTTP_PROXY", b.URL) // it answers everything with 200, and must not be asked
	healthcheck := func(args ...string) (int, string) {
		status, out := command(t, "", append([]string{"healthcheck"}, args...)...)
		if strings.Count(out, "\n") != 1 {
			t.Errorf("%v printed %q, want one line", args, out)
		}
		return status, out
	}
	g := start(t, fill(oneRoute, "BACKEND", b.URL))
	if status, out := healthcheck("--config", g.config); status != 0 || !strings.Contains(out, g.status+"/readyz answers 200") {
		t.Errorf("a gateway that is ready: %d %s", status, out)
	}
	if status, out := healthcheck("--url", "http://"+g.status+"/livez"); status != 0 {
		t.Errorf("/livez: %d %s", status, out)
	}
	// A file with faults, which the gateway does not take, still says where it is.
	g.reload(t, "server:\n  ADDRESSES\n  lisen: nowhere\nroutes: 7\n")
	g.output.says(t, "was not reloaded")
	if status, out := healthcheck("--config", g.config); status != 0 {
		t.Errorf("with a faulty file: %d %s", status, out)
	}

	p.Close() // a gateway whose only issuer has no keys
	blind := start(t, fill("issuers:\n  main:\n    issuer: IDP\n    audiences: any\nroutes:\n  - match: /\n    privileges: []\n    upstream: BACKEND\n", "IDP", p.URL, "BACKEND", b.URL))
	if status, out := healthcheck("--config", blind.config); status != 1 || !strings.Contains(out, `answers 503: "no issuer has keys"`) {
		t.Errorf("a gateway without keys: %d %s", status, out)
	}

	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and answers nothing
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	elsewhere := backends(t, http.RedirectHandler("http://"+g.status+"/livez", http.StatusFound).ServeHTTP, newAuthority(t).issue(t, "127.0.0.1"))["one"]
	for _, url := range []string{"http://" + silent.Addr().String() + "/readyz", "http://" + freeAddress(t) + "/readyz", strings.Replace("http://"+freeAddress(t), "127.0.0.1", "0.0.0.0", 1), elsewhere, "::", ""} {
		if status, out := healthcheck("--url", url, "--timeout", "300ms"); status != 1 {
			t.Errorf("%q: %d %s", url, status, out)
		}
	}
	dir := t.TempDir()
	for name, c := range map[string]struct{ text, says string }{
		"none.yaml":    {"routes: []\n", "has no server.status"},
		"bad.yaml":     {"server:\n  status: 9902\n", "bad.yaml:2:11"},
		"broken.yaml":  {"server: [\n", "broken.yaml:"},
		"missing.yaml": {"", "missing.yaml"},
	} {
		path := filepath.Join(dir, name)
		if c.text != "" {
			write(t, path, c.text)
		}
		if status, out := healthcheck("--config", path); status != 1 || !strings.Contains(out, c.says) {
			t.Errorf("%s: %d %s; want it to say %s", name, status, out, c.says)
		}
	}
}
