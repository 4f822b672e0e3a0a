package test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// A sample of what went well is enough; of what did not, every line counts.
func TestAccessLogIsSampled(t *testing.T) {
	b := newBackend(t)
	failing := newBackend(t)
	failing.Answer = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
	g := start(t, fill(`
server:
  ADDRESSES
  access_log:
    sample_allows: 1000000
issuers:
  main:
    issuer: none
    audiences: any
    secret: 0123456789abcdef0123456789abcdef
    algorithms: [HS256]
routes:
  - match: /open
    public: true
    upstream: BACKEND
  - match: /failing
    public: true
    upstream: FAILING
  - match: /guarded
    privileges: []
    upstream: BACKEND
  - match: /reported
    privileges: []
    mode: report
    upstream: BACKEND
`, "BACKEND", b.URL, "FAILING", failing.URL))
	for range 20 {
		g.do(t, "GET /open").is(t, http.StatusOK)
		g.do(t, "GET /failing").is(t, http.StatusInternalServerError)
		g.do(t, "GET /guarded").refused(t, http.StatusUnauthorized, "missing_token")
		g.do(t, "GET /reported").is(t, http.StatusOK)
	}
	lines := func(path string) int { return strings.Count(g.output.String(), `"path":"`+path+`"`) }
	eventually(t, "what did not go well is written", func() bool {
		return lines("/failing") == 20 && lines("/guarded") == 20 && lines("/reported") == 20
	})
	if n := lines("/open"); n > 1 {
		t.Errorf("%d of 20 requests are written", n)
	}
}

// For a reader without a tool for JSON.
func TestLogAsText(t *testing.T) {
	g := startWith(t, []string{"--log-format", "text"}, fill(`
routes:
  - match: /open
    public: true
    upstream: BACKEND
`, "BACKEND", newBackend(t).URL))
	g.do(t, "GET /open").is(t, http.StatusOK)
	g.output.says(t, "msg=request request_id=")
	g.output.says(t, "path=/open route=/open status=200")
	if strings.Contains(g.output.String(), `{"time"`) {
		t.Error("there is JSON among the text")
	}
	if status, printed := command(t, "", "serve", "--config", g.config, "--log-format", "xml"); status != 1 || !strings.Contains(printed, "json or text") {
		t.Errorf("--log-format xml: %d %s", status, printed)
	}
}

// Lines that wait for others are not lost, and what else goes to the same pipe
// comes between them: here the audit log's records.
func TestEveryRequestIsLogged(t *testing.T) {
	t.Parallel()
	g := start(t, fill(`
server:
  ADDRESSES
  audit:
    file: "-"
routes:
  - match: /open
    public: true
    upstream: BACKEND
`, "BACKEND", newBackend(t).URL))
	const clients, each = 8, 50
	client := http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	defer client.CloseIdleConnections()
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for range each {
				res, err := client.Get("http://" + g.listen + "/open")
				if err != nil {
					t.Error(err)
					continue
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
			}
		})
	}
	all.Wait()
	g.signal(syscall.SIGTERM)
	if status := g.exit(t); status != 0 {
		t.Errorf("it ended with status %d", status)
	}
	requests, records := map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(g.output.String()) {
		var said struct {
			Msg, Event string
			ID         string `json:"request_id"`
		}
		if err := json.Unmarshal([]byte(line), &said); err != nil {
			t.Errorf("%q: %v", line, err)
		}
		if said.Msg == "request" {
			requests[said.ID] = true
		}
		if said.Event == "decision" {
			records[said.ID] = true
		}
	}
	if len(requests) != clients*each || len(records) != clients*each {
		t.Errorf("%d lines and %d records of %d requests", len(requests), len(records), clients*each)
	}
}
