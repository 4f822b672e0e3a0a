//go:build image

package image

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// container is one that runs. It ends with the test.
type container struct {
	*podman
	name string
	pid  int
}

// start runs an image, locked down as a cluster would.
func (p *podman) start(t *testing.T, name, image string, args ...string) *container {
	t.Helper()
	command := append([]string{
		"run", "-d", "--name", name, "--read-only", "--read-only-tmpfs=false", "--cap-drop", "all",
		"--security-opt", "no-new-privileges", "--pids-limit", "128", "--memory", "128m",
	}, append(args, image)...)
	if _, err := p.run(command...); err != nil {
		t.Fatal(err)
	}
	c := &container{podman: p, name: name}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, c.log())
		}
		_, _ = p.runWithin(time.Minute, "rm", "-f", "-t", "0", name)
	})
	pid, err := strconv.Atoi(c.inspect(t, "{{.State.Pid}}"))
	if err != nil || pid == 0 {
		t.Fatalf("%s does not run: %v\n%s", name, err, c.log())
	}
	c.pid = pid
	return c
}

func (c *container) inspect(t *testing.T, format string) string {
	t.Helper()
	out, err := c.run("inspect", "--format", format, c.name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// log is what the container wrote.
func (c *container) log() string {
	cmd := exec.Command("podman", "logs", c.name)
	var all bytes.Buffer
	cmd.Env = append(os.Environ(), "CONTAINERS_CONF="+c.dir+"/containers.conf", "CONTAINERS_STORAGE_CONF="+c.dir+"/storage.conf")
	cmd.Stdout, cmd.Stderr = &all, &all
	_ = cmd.Run()
	return all.String()
}

// status is a line of the process's own /proc/PID/status.
func (c *container) status(t *testing.T, field string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.pid))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^` + field + `:\s+(.*)$`).FindSubmatch(text)
	if found == nil {
		t.Fatalf("the kernel tells no %s", field)
	}
	return string(found[1])
}

// get asks from inside the container's network.
func (c *container) get(url string, headers ...string) (status int, body string) {
	args := []string{"-t", strconv.Itoa(c.pid), "-n", "curl", "-sS", "--max-time", "60", "--noproxy", "*", "-w", "\n%{http_code}", url}
	for _, h := range headers {
		args = append(args, "-H", h)
	}
	out, _ := exec.Command("nsenter", args...).Output()
	i := bytes.LastIndexByte(out, '\n')
	if i < 0 {
		return 0, ""
	}
	status, _ = strconv.Atoi(string(out[i+1:]))
	return status, string(out[:i])
}

// healthy runs the image's own health check.
func (c *container) healthy(t *testing.T) bool {
	t.Helper()
	_, err := c.runWithin(30*time.Second, "healthcheck", "run", c.name)
	return err == nil
}

// eventually waits for what must come to be.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for tick := time.NewTicker(20 * time.Millisecond); !holds(); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		}
	}
}

// sidecar is a configuration beside a backend on 127.0.0.1:9000, and a token that
// it accepts. The provider and the Redis that it names do not exist: the key is in a
// file, and nothing needs Redis.
func sidecar(t *testing.T) (dir, bearer string) {
	t.Helper()
	dir = t.TempDir()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"routes.yaml": `server:
  status: 127.0.0.1:9902
redis:
  url: redis://127.0.0.1:6399
issuers:
  main:
    issuer: none
    audiences: any
    keys:
      - file: key.pem
routes:
  - match: /{rest...}
    privileges: [READ_HEROES]
    upstream: http://127.0.0.1:9000
`,
		"key.pem": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil { // another user reads it
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"EdDSA"}`)) + "." + encode(fmt.Appendf(nil, `{"sub":"alice","privileges":["READ_HEROES"],"iat":%d,"exp":%d}`, time.Now().Unix(), time.Now().Add(time.Hour).Unix()))
	return dir, "Authorization: Bearer " + signed + "." + encode(ed25519.Sign(private, []byte(signed)))
}

func probe(url string) int {
	response, err := http.Get(url)
	if err != nil {
		return 0
	}
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	return response.StatusCode
}
