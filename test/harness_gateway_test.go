package test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// gateway is a running gateway.
type gateway struct {
	*process
	listen, status string // addresses
	config         string // path of its routes.yaml
	cutOff         bool   // it had to cut off a request, so that its exit status may tell of that
}

// file is one that lies beside routes.yaml.
type file struct{ name, content string }

// fill replaces each word in the text by the one that follows it:
// fill(text, "BACKEND", url). Tabs, which YAML forbids, do not come in.
func fill(text string, words ...string) string {
	return strings.NewReplacer(words...).Replace(text)
}

// start writes routes.yaml and the files beside it and starts a gateway on
// them. The server section's addresses are put in; a text with a server
// section of its own holds the word ADDRESSES in it.
//
// When the test ends the gateway must end too, in good order, having written
// no token, no data race and no panic.
func start(t *testing.T, yaml string, files ...file) *gateway {
	t.Helper()
	return startWith(t, nil, yaml, files...)
}

// startWith is start with further command line arguments.
func startWith(t *testing.T, args []string, yaml string, files ...file) *gateway {
	t.Helper()
	g := &gateway{listen: freeAddress(t), status: freeAddress(t)}
	g.config = filepath.Join(t.TempDir(), "routes.yaml")
	for _, f := range files {
		write(t, filepath.Join(filepath.Dir(g.config), f.name), f.content)
	}
	g.write(t, yaml)
	g.serve(t, args...)
	return g
}

// serve starts the gateway on its files.
func (g *gateway) serve(t *testing.T, args ...string) {
	t.Helper()
	g.process = launch(t, binary, append([]string{"serve", "--config", g.config}, args...)...)
	t.Cleanup(func() { g.close(t) })
	eventually(t, "the gateway is up", func() bool {
		if g.ended() {
			t.Fatalf("the gateway ended with status %d", g.exit(t))
		}
		return g.livez() == http.StatusOK && g.listens()
	})
}

// write replaces the gateway's routes.yaml.
func (g *gateway) write(t *testing.T, yaml string) {
	t.Helper()
	write(t, g.config, g.text(yaml))
}

// text is yaml with the addresses put in, and the transport that the whole
// suite is to run over.
func (g *gateway) text(yaml string) string {
	addresses := fmt.Sprintf("listen: %s\n  status: %s", g.listen, g.status)
	if !strings.Contains(yaml, "server:\n") {
		yaml = "server:\n  ADDRESSES\n" + strings.TrimLeft(yaml, "\n")
	}
	if transport := os.Getenv("GATEHOUSE_TEST_TRANSPORT"); transport != "" {
		if !strings.Contains(yaml, "\ndefaults:\n") {
			yaml += "\ndefaults:\n"
		}
		yaml = strings.Replace(yaml, "\ndefaults:\n", "\ndefaults:\n  transport: "+transport+"\n", 1)
	}
	return fill(yaml, "ADDRESSES", addresses)
}

// metric is the value of one series, 0 while there is none.
func (g *gateway) metric(t *testing.T, series string) float64 {
	t.Helper()
	for line := range strings.Lines(g.metrics(t)) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			value, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				t.Fatal(err)
			}
			return value
		}
	}
	return 0
}

const (
	goodReloads = `gatehouse_reloads_total{outcome="success"}`
	badReloads  = `gatehouse_reloads_total{outcome="failure"}`
)

// close ends the gateway as an orchestrator would and looks at what it leaves.
func (g *gateway) close(t *testing.T) {
	g.signal(syscall.SIGTERM)
	if status := g.exit(t); status != 0 && !g.cutOff && !t.Failed() {
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

func (g *gateway) livez() int { return g.probe("/livez") }

// probe asks the status listener and returns the status, 0 if nobody answers.
func (g *gateway) probe(path string) int {
	resp, err := http.Get("http://" + g.status + path)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func (g *gateway) listens() bool {
	conn, err := net.Dial("tcp", g.listen)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

var highWater = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// peak is the most memory that the gateway ever had resident, in MiB.
func (g *gateway) peak(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	found := highWater.FindSubmatch(status)
	if found == nil {
		t.Fatal("the kernel tells no VmHWM")
	}
	kib, err := strconv.Atoi(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	return kib / 1024
}

// command runs the binary with standard input from a string and returns its
// exit status and all that it printed, which must hold no token.
func command(t *testing.T, stdin string, args ...string) (status int, printed string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	forbidTokens(t, "the output of "+args[0], string(out))
	return cmd.ProcessState.ExitCode(), string(out)
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// reload replaces routes.yaml and tells the gateway.
func (g *gateway) reload(t *testing.T, yaml string) {
	t.Helper()
	g.write(t, yaml)
	g.signal(syscall.SIGHUP)
}
