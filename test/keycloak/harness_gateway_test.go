//go:build keycloak

package keycloak

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// gateway is a running gateway.
type gateway struct {
	*process
	URL, status string
	config      string // path of its routes.yaml
}

// start runs a gateway on the directory's routes.yaml, which is replaced. Its
// server section is put in. When the test ends the gateway must end too, in
// good order, having written no token, no data race and no panic.
func start(t *testing.T, dir, yaml string) *gateway {
	t.Helper()
	listen, status := "127.0.0.1:"+freePort(t), "127.0.0.1:"+freePort(t)
	g := &gateway{URL: "http://" + listen, status: "http://" + status, config: filepath.Join(dir, "routes.yaml")}
	write(t, g.config, "server:\n  listen: "+listen+"\n  status: "+status+"\n"+yaml)
	g.process = launch(t, exec.Command(binary, "serve", "--config", g.config))
	t.Cleanup(func() { g.close(t) })
	eventually(t, "the gateway is up", func() bool {
		if g.ended() {
			t.Fatalf("the gateway ended with status %d", g.cmd.ProcessState.ExitCode())
		}
		return g.ready() == http.StatusOK
	})
	return g
}

// close ends the gateway as an orchestrator would and looks at what it leaves.
func (g *gateway) close(t *testing.T) {
	t.Helper()
	if g.ended() {
		return
	}
	_ = g.cmd.Process.Signal(syscall.SIGTERM)
	eventually(t, "the gateway ends", g.ended)
	if status := g.cmd.ProcessState.ExitCode(); status != 0 {
		t.Errorf("the gateway ended with status %d", status)
	}
	log := g.output.String()
	for _, never := range []string{"WARNING: DATA RACE", "panic: ", "goroutine 1 ["} {
		if strings.Contains(log, never) {
			t.Errorf("the gateway wrote %q", never)
		}
	}
	forbidTokens(t, "the gateway's output", log)
}

// ready asks /readyz and returns the status, 0 if nobody answers.
func (g *gateway) ready() int {
	resp, err := client.Get(g.status + "/readyz")
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// answer is what a caller got.
type answer struct {
	status    int
	header    http.Header
	reason    string // of a refusal
	challenge string
}

// do sends a request with a token, or without one if it is empty.
func (g *gateway) do(t *testing.T, method, path, token string) answer {
	t.Helper()
	req, err := http.NewRequest(method, g.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{status: resp.StatusCode, header: resp.Header, challenge: resp.Header.Get("WWW-Authenticate")}
	if a.status >= 400 {
		forbidTokens(t, "a refusal", string(body))
		var problem struct{ Reason string }
		_ = json.Unmarshal(body, &problem)
		a.reason = problem.Reason
	}
	return a
}

// is fails the test unless the answer has that status.
func (a answer) is(t *testing.T, status int) {
	t.Helper()
	if a.status != status {
		t.Errorf("got %d %s, want %d", a.status, a.reason, status)
	}
}

// refused fails the test unless the answer is a refusal of that status and
// reason whose challenge has that error code; "" is a challenge without one.
func (a answer) refused(t *testing.T, status int, reason, code string) {
	t.Helper()
	if a.status != status || a.reason != reason {
		t.Errorf("got %d %s, want %d %s", a.status, a.reason, status, reason)
	}
	if !strings.HasPrefix(a.challenge, `Bearer realm="`) || strings.Contains(a.challenge, "error=") != (code != "") ||
		!strings.Contains(a.challenge, code) {
		t.Errorf("%d %s: the challenge is %q, want the error %q", a.status, a.reason, a.challenge, code)
	}
}

// backend answers 200 and keeps the headers of the last request.
type backend struct {
	*httptest.Server
	mu    sync.Mutex
	count int
	last  http.Header
}

func newBackend(t *testing.T) *backend {
	t.Helper()
	b := &backend{}
	b.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.count, b.last = b.count+1, r.Header
	}))
	t.Cleanup(b.Close)
	return b
}

// requests returns how many came so far.
func (b *backend) requests() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count
}

// got fails the test unless the last request had that one line of that header; "" is none.
func (b *backend) got(t *testing.T, name, value string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if got := strings.Join(b.last.Values(name), "\n"); got != value {
		t.Errorf("the backend got %s: %q, want %q", name, got, value)
	}
}

// inspect gives a token to gatehouse token and returns its exit status and what it printed.
func (g *gateway) inspect(t *testing.T, token string) (status int, printed string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "token", "--config", g.config)
	cmd.Stdin = strings.NewReader(token)
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	forbidTokens(t, "the output of gatehouse token", string(out))
	return cmd.ProcessState.ExitCode(), string(out)
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// tokens are all those that the stories used. None may ever show in what the
// gateway writes.
var tokens struct {
	sync.Mutex
	all []string
}

// minted remembers a token and returns it.
func minted(token string) string {
	tokens.Lock()
	defer tokens.Unlock()
	tokens.all = append(tokens.all, token)
	return token
}

// forbidTokens fails the test if the text holds a token or a part of one that
// would do to use or to read it.
func forbidTokens(t *testing.T, where, text string) {
	t.Helper()
	tokens.Lock()
	defer tokens.Unlock()
	for _, token := range tokens.all {
		_, rest, _ := strings.Cut(token, ".") // a header alone tells nothing
		for part := range strings.SplitSeq(rest, ".") {
			if len(part) >= 20 && strings.Contains(text, part) {
				t.Errorf("%s holds a part of a token: %.40s…", where, part)
				return
			}
		}
	}
}
