package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "routes.yaml")
	const good = `issuers:
  main:
    issuer: https://id.example.com
    audiences: [https://api.example.com]
routes:
  - match: GET /heroes/{id}
    privileges: [READ_HEROES]
    upstream: http://127.0.0.1:9000
`
	write(t, path, good)
	if status, out := command(t, "", "check", "--config", path); status != 0 {
		t.Errorf("check of a good file: %d\n%s", status, out)
	}
	for _, c := range []struct {
		old, new string
		says     []string
	}{
		{"audiences:", "audience:", []string{"routes.yaml:4:5", "audiences"}},
		{"privileges:", "priviledges:", []string{"routes.yaml:7:5", "privileges"}},
		{"    audiences: [https://api.example.com]\n", "", []string{"routes.yaml:2:", "audiences"}},
		{"https://id", "http://id", []string{"routes.yaml:3:13", "https"}},
		{"{id}", "{id", []string{"routes.yaml:6:12"}},
		{"http://127.0.0.1:9000", "heroes", []string{"routes.yaml:8:15", "heroes"}},
		{"[READ_HEROES]", "[]\n    publik: true", []string{"routes.yaml:8:5", "public"}},
		{"routes:", "routes: []\nroutes:", []string{"routes.yaml:6:1"}},
		{"  - match", "  - match: GET /heroes/{name}\n    public: true\n    upstream: http://127.0.0.1:9000\n  - match", []string{"routes.yaml:9:"}},
		{"routes:", "routes", []string{"routes.yaml:"}},
		{"https://id.example.com", "${env:NO_SUCH_VARIABLE}", []string{"routes.yaml:3:13", "NO_SUCH_VARIABLE"}},
	} {
		write(t, path, strings.Replace(good, c.old, c.new, 1))
		status, out := command(t, "", "check", "--config", path)
		if status == 0 {
			t.Errorf("check of a file with %q instead of %q: status 0\n%s", c.new, c.old, out)
		}
		for _, want := range c.says {
			if !strings.Contains(out, want) {
				t.Errorf("check of a file with %q instead of %q does not say %s:\n%s", c.new, c.old, want, out)
			}
		}
	}
	// All faults at once.
	write(t, path, strings.NewReplacer("audiences:", "audience:", "upstream:", "upstraem:").Replace(good))
	if _, out := command(t, "", "check", "--config", path); !strings.Contains(out, "routes.yaml:4:5") || !strings.Contains(out, "routes.yaml:8:5") {
		t.Errorf("check tells one fault of two:\n%s", out)
	}
	if status, out := command(t, "", "check", "--config", filepath.Join(dir, "nowhere.yaml")); status == 0 || !strings.Contains(out, "nowhere.yaml") {
		t.Errorf("check of no file: %d\n%s", status, out)
	}
	if status, out := command(t, "", "serve", "--config", path); status == 0 || !strings.Contains(out, "routes.yaml:4:5") {
		t.Errorf("serve of a bad file: %d\n%s", status, out)
	}
}

func TestInitWritesAFileThatCheckAccepts(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "routes.yaml")
	if status, out := command(t, "", "init", path); status != 0 {
		t.Fatalf("init: %d\n%s", status, out)
	}
	if status, out := command(t, "", "check", "--config", path); status != 0 {
		t.Errorf("check of what init wrote: %d\n%s", status, out)
	}
	write(t, path, "mine")
	if status, out := command(t, "", "init", path); status == 0 || !strings.Contains(out, path) {
		t.Errorf("init over a file: %d\n%s", status, out)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "mine" {
		t.Errorf("the file became %q, %v", text, err)
	}
}

func TestUnknownCommandsAndFlags(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"sevre"}, {"check", "--cnofig", "x"}, {"serve", "extra"}} {
		if status, out := command(t, "", args...); status == 0 || out == "" {
			t.Errorf("%v: status %d, and it said %q", args, status, out)
		}
	}
	if _, out := command(t, "", "sevre"); !strings.Contains(out, "serve") {
		t.Errorf("no nearest right spelling: %s", out)
	}
	for _, args := range [][]string{{"--help"}, {"--version"}, {"help", "serve"}} {
		if status, out := command(t, "", args...); status != 0 || out == "" {
			t.Errorf("%v: status %d, and it said %q", args, status, out)
		}
	}
}

// TestDemo plays the whole story; its status is 0 only if every answer was the
// expected one.
func TestDemo(t *testing.T) {
	t.Parallel()
	if status, out := command(t, "", "demo", "--once", "--config", "../routes.yaml"); status != 0 {
		t.Errorf("demo --once: %d\n%s", status, out)
	}
}
