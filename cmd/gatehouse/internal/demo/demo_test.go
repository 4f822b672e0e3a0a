//go:build !nodemo

package demo

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"gatehouse/gateway/config"
)

const routes = "../../../../routes.yaml"

// TestOnce plays the whole story with the repository's own configuration.
func TestOnce(t *testing.T) {
	checkGoroutines(t)
	var out, log bytes.Buffer
	if err := Run(t.Context(), Options{Config: routes, Once: true, Out: &out, Log: &log}); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	t.Logf("\n%s", &out)
	if log.Len() > 0 {
		t.Errorf("warnings:\n%s", &log)
	}
	story := out.String()
	for _, want := range []string{
		"<- 201 Created ✓", "x-jwt-sub: admin2", "x-jwt-privileges: CREATE_HERO,ASSIGN_HERO", "x-jwt-email: admin2@example.com",
		"<- 403 Forbidden ✓", "reason: insufficient_privileges", "reason: policy_denied", "acr_values=\"urn:example:two-factors\"",
		"<- 401 Unauthorized ✓", "reason: invalid_token", "reason: missing_token", "reason: expired_token", "reason: revoked_token",
		"POST /seed/hero", "and the token (forward_token)",
		"X_Jwt_Sub: root", "no x-jwt- header",
		"<- 429 Too Many Requests ✓", "Retry-After: ",
		"SET revoked:jti:main:",
		"All 19 answers were the expected ones.",
	} {
		if !strings.Contains(story, want) {
			t.Errorf("the story does not say %q", want)
		}
	}
	for _, bad := range []string{"✗", "\x1b[", "eyJ"} {
		if strings.Contains(story, bad) {
			t.Errorf("the story says %q", bad)
		}
	}
}

// TestAGatewayThatLetsItHappenFailsTheDemo weakens the configuration in one
// place at a time: the story must notice, name the answer and fail.
func TestAGatewayThatLetsItHappenFailsTheDemo(t *testing.T) {
	text, err := os.ReadFile(routes)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, old, new, want string }{
		{"privilege", "- CREATE_HERO\n    policy: heroes.create", "- ASSIGN_HERO\n    policy: anybody", "admin1, who may only ASSIGN_HERO, tries too: expected 403"},
		{"public", "privileges: []    # any valid token\n    policy: heroes.read ", "public: true #", "admin1 claims to be root in headers of its own: expected 200"},
		{"token kept", "forward_token: true", "forward_token: false", "threats-service asks heroes-service"},
		{"limit", "burst: 5 ", "burst: 500 ", "admin1 asks more often than the limit per_user allows: expected 429"},
		{"revocation", "    - jti\n", "", "the thief tries again: expected 401 revoked_token, but the status is 200"},
		{"prefix", "limits:\n  per_ip:", "headers:\n  prefix: x-other-\n\nlimits:\n  per_ip:", "creates a hero"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if !strings.Contains(string(text), tt.old) {
				t.Fatalf("routes.yaml has no %q to change", tt.old)
			}
			file := filepath.Join(t.TempDir(), "routes.yaml")
			policies := filepath.Join(filepath.Dir(file), "policies")
			if err := os.CopyFS(policies, os.DirFS(filepath.Join(filepath.Dir(routes), "policies"))); err != nil {
				t.Fatal(err)
			}
			anybody := "allow:\n  - method: POST\ntests:\n  - expect: deny\n"
			if err := os.WriteFile(filepath.Join(policies, "anybody.yaml"), []byte(anybody), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(strings.Replace(string(text), tt.old, tt.new, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			var out, log bytes.Buffer
			err := Run(t.Context(), Options{Config: file, Once: true, Out: &out, Log: &log})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("the error is %v; it does not say %q\n%s", err, tt.want, &out)
			}
			if !strings.Contains(out.String(), "✗") {
				t.Errorf("the screen shows nothing wrong:\n%s", &out)
			}
		})
	}
}

// TestStaysUpUntilToldToEnd reads the invitation and then ends the demo.
func TestStaysUpUntilToldToEnd(t *testing.T) {
	checkGoroutines(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &watched{until: "Ctrl-C ends it.", then: cancel}
	if err := Run(ctx, Options{Config: routes, Out: out, Log: os.Stderr}); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	story := out.String()
	for _, want := range []*regexp.Regexp{
		regexp.MustCompile(`curl -i http://127\.0\.0\.1:\d+/heroes-service/hero -H 'Authorization: Bearer eyJ[\w.-]+' -d `),
		regexp.MustCompile(`/readyz\n`), regexp.MustCompile(`/metrics\n`), regexp.MustCompile(`Goodbye\.\n$`),
	} {
		if !want.MatchString(story) {
			t.Errorf("the story does not match %s:\n%s", want, story)
		}
	}
}

func TestAStoryCutShortIsAnError(t *testing.T) {
	checkGoroutines(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &watched{until: "logs in at the identity provider", then: cancel}
	err := Run(ctx, Options{Config: routes, Out: out, Log: os.Stderr})
	if err == nil || !strings.Contains(err.Error(), "cut short") {
		t.Errorf("the error is %v", err)
	}
}

func TestNoConfiguration(t *testing.T) {
	checkGoroutines(t)
	err := Run(t.Context(), Options{Config: filepath.Join(t.TempDir(), "routes.yaml"), Once: true, Out: &bytes.Buffer{}, Log: &bytes.Buffer{}})
	if err == nil || !strings.Contains(err.Error(), "--config") {
		t.Errorf("the error is %v; it does not say what to do", err)
	}
}

func TestListenTakesAnotherAddressIfTheFirstIsTaken(t *testing.T) {
	taken, err := listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	l, err := listen(taken.Addr().String(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if _, err := listen(taken.Addr().String()); err == nil {
		t.Error("an address was opened twice")
	}
}

// TestRoutesLoadWithoutAnyEnvironment is what `gatehouse check` meets on a
// clean clone.
func TestRoutesLoadWithoutAnyEnvironment(t *testing.T) {
	_, warnings, err := config.Load(routes, config.Options{Env: func(string) (string, bool) { return "", false }})
	if err != nil || len(warnings) > 0 {
		t.Errorf("%v, warnings %v", err, warnings)
	}
}

// watched is an output that calls then when it has been told until. Run writes
// it from one goroutine.
type watched struct {
	bytes.Buffer
	until string
	then  func()
}

func (w *watched) Write(p []byte) (int, error) {
	n, err := w.Buffer.Write(p)
	if bytes.Contains(p, []byte(w.until)) {
		w.then()
	}
	return n, err
}

// checkGoroutines fails the test if it ends with more goroutines than it began with.
func checkGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
			if time.Now().After(deadline) {
				stacks := make([]byte, 1<<20)
				t.Errorf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), stacks[:runtime.Stack(stacks, true)])
				return
			}
		}
	})
}
