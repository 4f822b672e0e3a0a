package test

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestH2spec: what h2spec finds amiss with the gateway it finds amiss with
// net/http's own server, too.
func TestH2spec(t *testing.T) {
	t.Parallel()
	h2spec := filepath.Join(t.TempDir(), "h2spec")
	if out, err := exec.Command("go", "build", "-C", "h2spec", "-o", h2spec, "github.com/summerwind/h2spec/cmd/h2spec").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	shown := newAuthority(t).issue(t, "127.0.0.1")
	bare := backends(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "hello")
	}, shown)
	yaml := fill(`
server:
  ADDRESSES
TLS
routes:
  - match: /{rest...}
    public: true
    upstream: BACKEND
`, "BACKEND", bare["one"])
	clear := start(t, fill(yaml, "TLS", ""))
	secure := start(t, fill(yaml, "TLS", "  tls:\n    cert_file: api.pem\n    key_file: api.key"), shown.files("api")...)
	for name, c := range map[string]struct{ bare, gateway, flag string }{
		"TLS": {bare["two"], secure.listen, "--tls"},
		"h2c": {bare["prior"], clear.listen, "--tls=false"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, address, _ := strings.Cut(c.bare, "://")
			all, known := runH2spec(t, h2spec, address, c.flag)
			for try := 1; ; try++ { // some of its cases go by time, so that a busy machine fails them
				n, failed := runH2spec(t, h2spec, c.gateway, c.flag)
				t.Logf("%d cases: %d pass, with net/http's own server %d", n, n-len(failed), all-len(known))
				for name := range known {
					delete(failed, name)
				}
				if n == all && len(failed) == 0 {
					return
				}
				if try == 3 {
					t.Fatalf("%d of %d cases; only with the gateway these fail: %v", n, all, failed)
				}
			}
		})
	}
}

// runH2spec returns how many cases were tried and which failed.
func runH2spec(t *testing.T, h2spec, address, flag string) (cases int, failed map[string]string) {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	report := filepath.Join(t.TempDir(), "report.xml")
	ctx, cancel := context.WithTimeout(context.Background(), 6*patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, h2spec, "--host", host, "--port", port, flag, "--insecure", "--junit-report", report).CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var junit struct {
		Suites []struct {
			Cases []struct {
				Package string  `xml:"package,attr"`
				Name    string  `xml:"classname,attr"`
				Failure *string `xml:"failure"`
				Error   *string `xml:"error"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(text, &junit); err != nil {
		t.Fatal(err)
	}
	failed = map[string]string{}
	for _, s := range junit.Suites {
		for _, c := range s.Cases {
			cases++
			if c.Failure != nil {
				failed[c.Package+": "+c.Name] = *c.Failure
			} else if c.Error != nil {
				failed[c.Package+": "+c.Name] = *c.Error
			}
		}
	}
	if cases < 100 {
		t.Fatalf("h2spec tried %d cases\n%s", cases, out)
	}
	return cases, failed
}
