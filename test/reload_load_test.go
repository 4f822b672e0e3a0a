package test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

const reloadedRoutes = `
server:
  ADDRESSES
  tls:
    certificates:
      - cert_file: front.pem
        key_file: front.key
redis:
  url: REDIS
revocation:
  mode: replica
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
ISSUER
limits:
  scarce:
    key: [claim:sub]
    rate: 3/1h
  plenty:
    key: [claim:sub]
    rate: PLENTY/1s
defaults:
  issuers: [main]
routes:
  - match: GET /scarce
    privileges: []
    limits: [scarce]
    upstream: BACKEND
  - match: /swapped
    privileges: []
    limits: [plenty]
    upstream: SWAPPED
  - match: /{rest...}
    privileges: []
    upstream: BACKEND
ROUTE
`

// reloads is how many TestReloadsUnderLoad makes; RELOADS says another number.
func reloads(t *testing.T) int {
	t.Helper()
	text := os.Getenv("RELOADS")
	if text == "" {
		return 60
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// fds is how many files and sockets the gateway has open.
func (g *gateway) fds(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", g.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}

// TestReloadsUnderLoad changes the file again and again under requests of all
// kinds: none fails, what lasts lives on, nothing is left behind, and nothing is
// fetched, refilled or loaded again.
func TestReloadsUnderLoad(t *testing.T) {
	t.Parallel()
	end := make(chan struct{})
	backend := func() *httptest.Server {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/ws":
				echoFrames(w, r)
			case "/events":
				w.Header().Set("Content-Type", "text/event-stream")
				for tick := time.NewTicker(20 * time.Millisecond); ; {
					_, _ = io.WriteString(w, "data: x\n\n")
					_ = http.NewResponseController(w).Flush()
					select {
					case <-tick.C:
					case <-end:
						return
					case <-r.Context().Done():
						return
					}
				}
			default:
				n, _ := io.Copy(io.Discard, r.Body)
				_, _ = fmt.Fprint(w, n)
			}
		}))
		t.Cleanup(s.Close)
		return s
	}
	one, two := backend(), backend()
	p, other, r := newIDP(t), newIDP(t), startRedis(t)
	authority := newAuthority(t)
	front := authority.issue(t, "127.0.0.1")
	vary := func(words ...string) string {
		return fill(reloadedRoutes, append(words, "BACKEND", one.URL, "SWAPPED", one.URL, "IDP", p.URL, "REDIS", r.URL, "PLENTY", "1000000", "\nISSUER", "", "\nROUTE", "")...)
	}
	g := startWith(t, []string{"--watch=false"}, vary(), front.files("front")...)
	token := p.token(t)

	// What lasts from the first configuration to the last.
	c := g.caller(t, "http/1.1", trusting(authority))
	c.Timeout = 0
	lasting, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	ws, _, err := websocket.Dial(lasting, strings.Replace(c.URL, "https", "wss", 1)+"/ws", &websocket.DialOptions{HTTPClient: c.Client, HTTPHeader: http.Header{"Authorization": {"Bearer " + token}}})
	if err != nil {
		t.Fatal(err)
	}
	events := c.sendAs(t, lasting, "GET", "/events", nil, bearer(token))
	if events.StatusCode != http.StatusOK {
		t.Fatalf("/events: %d", events.StatusCode)
	}
	var seen atomic.Int64
	eventsEnd := make(chan error, 1)
	go func() {
		lines := bufio.NewScanner(events.Body)
		for lines.Scan() {
			seen.Add(1)
		}
		eventsEnd <- lines.Err()
	}()
	for range 3 {
		if got := c.send(t, "GET", "/scarce", nil, bearer(token)).StatusCode; got != http.StatusOK {
			t.Fatalf("/scarce: %d", got)
		}
	}

	// load sends requests until it is told to stop, and says how many.
	var failed atomic.Int64
	load := func() (stop func() int64) {
		var done atomic.Bool
		var sent atomic.Int64
		var clients sync.WaitGroup
		upload := bytes.Repeat([]byte("x"), 100_000)
		for _, protocol := range []string{"http/1.1", "h2"} {
			caller := g.caller(t, protocol, trusting(authority))
			for _, path := range []string{"/heroes", "/swapped", "/upload"} {
				clients.Go(func() {
					for !done.Load() {
						var body io.Reader
						method, want := "GET", "0"
						if path == "/upload" {
							method, want, body = "POST", "100000", bytes.NewReader(upload)
						}
						req, err := http.NewRequest(method, caller.URL+path, body)
						if err != nil {
							t.Error(err)
							return
						}
						req.Header.Set("Authorization", "Bearer "+token)
						resp, err := caller.Do(req)
						got, status := "", 0
						if err == nil {
							var text []byte
							text, err = io.ReadAll(resp.Body)
							_ = resp.Body.Close()
							got, status = string(text), resp.StatusCode
						}
						if sent.Add(1); (err != nil || got != want) && failed.Add(1) <= 5 {
							t.Errorf("%s %s: %v, %d %.300s", protocol, path, err, status, got)
						}
					}
				})
			}
			t.Cleanup(func() { done.Store(true); clients.Wait() })
		}
		return func() int64 { done.Store(true); clients.Wait(); return sent.Load() }
	}
	good, bad := 0.0, 0.0
	reload := func(i int) {
		t.Helper()
		yaml, broken := vary(), false
		switch i % 10 {
		case 1:
			yaml = vary("\nROUTE", "\n  - match: GET /added\n    privileges: [READ_HEROES]\n    upstream: "+one.URL)
		case 3:
			yaml = vary("PLENTY", "2000000")
		case 4, 5:
			yaml = vary("SWAPPED", two.URL)
		case 6:
			yaml = vary("\nISSUER", "\n  other:\n    issuer: "+other.URL+"\n    audiences: any")
		case 8:
			for _, f := range authority.issue(t, "127.0.0.1").files("front") {
				write(t, g.beside(f.name), f.content)
			}
		case 9:
			yaml, broken = "routes: [", true
		}
		write(t, g.config, g.text(yaml))
		g.signal(syscall.SIGHUP)
		series, n := goodReloads, &good
		if broken {
			series, n = badReloads, &bad
		}
		*n++
		eventually(t, fmt.Sprint("reload ", i), func() bool { return g.metric(t, series) == *n })
		payload := []byte(strconv.Itoa(i))
		if err := ws.Write(lasting, websocket.MessageText, payload); err != nil {
			t.Fatalf("the WebSocket after reload %d: %v", i, err)
		}
		if _, got, err := ws.Read(lasting); err != nil || !bytes.Equal(got, payload) {
			t.Fatalf("the WebSocket after reload %d: %q %v", i, got, err)
		}
	}
	const resyncs = "gatehouse_revocation_replica_resyncs_total"
	total := reloads(t)
	stop := load()
	for i := range 20 { // until all is warm
		reload(i)
	}
	stop()
	goroutines, fds := g.metric(t, "go_goroutines"), g.fds(t)
	fetches, loads := p.fetches.Load(), g.metric(t, resyncs)
	stop = load()
	for i := 20; i < total; i++ {
		reload(i)
	}
	sent := stop()
	t.Logf("%d requests during %d reloads; %v goroutines and %d files before, %v and %d after", sent, total-20, goroutines, fds, g.metric(t, "go_goroutines"), g.fds(t))
	if sent == 0 {
		t.Error("nothing was sent meanwhile")
	}
	// Some connections more or less are kept idle; a leak would grow with each reload.
	eventually(t, "goroutines and files are as before", func() bool {
		return g.metric(t, "go_goroutines") <= goroutines+8 && g.fds(t) <= fds+4
	})
	if n := p.fetches.Load(); n != fetches || n != 1 {
		t.Errorf("%d fetches of keys, %d before", n, fetches)
	}
	if n := g.metric(t, resyncs); n != loads || n != 1 {
		t.Errorf("%v loads of all revocations, %v before", n, loads)
	}
	if got := c.send(t, "GET", "/scarce", nil, bearer(token)).StatusCode; got != http.StatusTooManyRequests {
		t.Errorf("the bucket that was empty: %d", got)
	}
	before := seen.Load()
	eventually(t, "events go on", func() bool { return seen.Load() > before })
	close(end)
	if err := receive(t, "the end of the events", eventsEnd); err != nil {
		t.Errorf("the events broke off: %v", err)
	}
	if err := ws.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Errorf("the WebSocket: %v", err)
	}
	if n := failed.Load(); n > 0 {
		t.Errorf("%d requests failed", n)
	}
}
