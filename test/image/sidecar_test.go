//go:build image

package image

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// idleMemory is what a sidecar may hold resident when nothing happens, in KiB.
const idleMemory = 32 << 10

// TestSidecar is the life of one: beside a backend that listens on loopback alone,
// with everything taken away that it does not need.
func TestSidecar(t *testing.T) {
	dir, bearer := sidecar(t)
	backend := built.start(t, "backend", "localhost/backend", "--network", "none", "--entrypoint", "/backend")
	g := built.start(t, "sidecar", built.name, "--network", "container:"+backend.name, "--cpus", "2", "-v", dir+":/etc/gatehouse:ro")
	eventually(t, "it is ready", func() bool { s, _ := g.get("http://127.0.0.1:9902/readyz"); return s == http.StatusOK })

	t.Run("locked down", func(t *testing.T) {
		for field, want := range map[string]string{
			"Uid": "65532\t65532\t65532\t65532", "Gid": "65532\t65532\t65532\t65532",
			"CapEff": "0000000000000000", "CapPrm": "0000000000000000", "CapBnd": "0000000000000000", "CapAmb": "0000000000000000",
			"NoNewPrivs": "1", "Seccomp": "2",
		} {
			if got := g.status(t, field); got != want {
				t.Errorf("%s is %q, want %q", field, got, want)
			}
		}
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/root/written", g.pid), nil, 0o600); !errors.Is(err, syscall.EROFS) {
			t.Errorf("a write to its root: %v, want %v", err, syscall.EROFS)
		}
	})
	t.Run("fits the container", func(t *testing.T) {
		log := g.log()
		if want := fmt.Sprintf(`"gomemlimit":%d`, 128<<20*9/10); !strings.Contains(log, want) {
			t.Errorf("the log does not say %s:\n%s", want, log)
		}
		if !strings.Contains(log, `"gomaxprocs":2`) {
			t.Errorf("two processors of many, and the log says\n%s", log)
		}
	})
	t.Run("idle", func(t *testing.T) {
		kib, err := strconv.Atoi(strings.TrimSuffix(g.status(t, "VmRSS"), " kB"))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d KiB", kib)
		if kib > idleMemory {
			t.Errorf("%d KiB resident, want at most %d", kib, idleMemory)
		}
	})
	t.Run("stands before the backend", func(t *testing.T) {
		if status, body := g.get("http://127.0.0.1:8080/x", bearer, "X-Jwt-Sub: mallory"); status != http.StatusOK || !strings.Contains(body, `"X-Jwt-Sub":["alice"]`) {
			t.Errorf("%d %s", status, body)
		}
		if status, body := g.get("http://127.0.0.1:8080/x"); status != http.StatusUnauthorized || !strings.Contains(body, "missing_token") {
			t.Errorf("without a token: %d %s", status, body)
		}
	})
	t.Run("healthy, whatever becomes of its file", func(t *testing.T) {
		if !g.healthy(t) {
			t.Error("it is not healthy")
		}
		file := filepath.Join(dir, "routes.yaml")
		good, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(good, "routs: []\n"...), 0o644); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the fault is seen", func() bool { return strings.Contains(g.log(), "was not reloaded") })
		if !g.healthy(t) {
			t.Error("a file with a fault, which it did not take, makes it unhealthy")
		}
		if err := os.WriteFile(file, good, 0o644); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("drains", func(t *testing.T) {
		type answer struct {
			status int
			body   string
		}
		answers := make(chan answer, 1)
		go func() {
			status, body := g.get("http://127.0.0.1:8080/held", bearer)
			answers <- answer{status, body}
		}()
		backend.get("http://127.0.0.1:9000/waiting")
		if _, err := g.run("kill", "--signal", "TERM", g.name); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is not ready any more", func() bool {
			s, body := g.get("http://127.0.0.1:9902/readyz")
			return s == http.StatusServiceUnavailable && strings.Contains(body, "draining")
		})
		if g.healthy(t) {
			t.Error("it is healthy while it drains")
		}
		backend.get("http://127.0.0.1:9000/release")
		if a := <-answers; a.status != http.StatusOK || a.body != "late, but here" {
			t.Errorf("the request in flight got %d %q", a.status, a.body)
		}
		if out, err := g.run("wait", g.name); err != nil || strings.TrimSpace(out) != "0" {
			t.Errorf("exit status %s, %v", out, err)
		}
	})
}

// TestMemoryLimitOfTheEnvironmentStays: who sets GOMEMLIMIT knows better.
func TestMemoryLimitOfTheEnvironmentStays(t *testing.T) {
	dir, _ := sidecar(t)
	g := built.start(t, "limited", built.name, "--network", "none", "-e", "GOMEMLIMIT=64MiB", "-v", dir+":/etc/gatehouse:ro")
	eventually(t, "it says its limit", func() bool { return strings.Contains(g.log(), fmt.Sprintf(`"gomemlimit":%d`, 64<<20)) })
}

// TestReadyAtOnce: with a snapshot of its provider's keys nothing is waited for,
// the provider is down. The image's own program is measured, without the time that
// podman takes; the best of several starts, since other programs run here too.
func TestReadyAtOnce(t *testing.T) {
	const most = 100 * time.Millisecond
	program := filepath.Join(t.TempDir(), "gatehouse")
	if err := os.WriteFile(program, built.binary(t), 0o755); err != nil {
		t.Fatal(err)
	}
	provider := httptest.NewUnstartedServer(nil)
	provider.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/jwks" {
			fmt.Fprint(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","alg":"EdDSA","use":"sig","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`)
			return
		}
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, provider.URL, provider.URL+"/jwks")
	})
	provider.Start()
	dir := t.TempDir()
	listen, status := freeAddress(t), freeAddress(t)
	text := fmt.Sprintf("server:\n  listen: %s\n  status: %s\nissuers:\n  main:\n    issuer: %s\n    audiences: any\n    jwks:\n      snapshot: main.jwks\nroutes:\n  - match: /\n    privileges: []\n    upstream: http://127.0.0.1:9\n", listen, status, provider.URL)
	if err := os.WriteFile(filepath.Join(dir, "routes.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	start := func() time.Duration {
		cmd := exec.Command(program, "serve", "--config", filepath.Join(dir, "routes.yaml"))
		begun := time.Now()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Wait() }()
		for probe("http://"+status+"/readyz") != http.StatusOK {
			if time.Since(begun) > time.Minute {
				t.Fatal("it never gets ready")
			}
		}
		return time.Since(begun)
	}
	start()
	provider.Close()
	if _, err := os.Stat(filepath.Join(dir, "main.jwks")); err != nil {
		t.Fatal(err)
	}
	best := time.Hour
	for range 10 {
		if best = min(best, start()); best < most {
			break
		}
	}
	t.Log(best)
	if best > most {
		t.Errorf("ready after %v, want %v", best, most)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
