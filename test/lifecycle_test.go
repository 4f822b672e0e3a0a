package test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/coder/websocket"
)

const oneRoute = `
routes:
  - match: GET /one
    public: true
    upstream: BACKEND
`

func TestReloadTakesAGoodFile(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	g := start(t, fill(oneRoute, "BACKEND", b.URL))
	g.do(t, "GET /one").is(t, http.StatusOK)
	g.do(t, "GET /two").is(t, http.StatusNotFound)
	g.reload(t, fill(strings.Replace(oneRoute, "/one", "/two", 1), "BACKEND", b.URL))
	eventually(t, "the new route is there", func() bool { return g.do(t, "GET /two").status == http.StatusOK })
	g.do(t, "GET /one").is(t, http.StatusNotFound)
}

func TestReloadRejectsABadFileWhole(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	g := start(t, fill(oneRoute, "BACKEND", b.URL))
	// A good new route, and a fault: line 9, after the harness's own three.
	g.reload(t, fill(`
routes:
  - match: GET /two
    public: true
    upstream: BACKEND
  - match: GET /three
    publik: true
    upstream: BACKEND
`, "BACKEND", b.URL))
	g.output.says(t, "routes.yaml:9:5")
	if !strings.Contains(g.output.String(), "public") {
		t.Error("the log does not name the nearest right spelling")
	}
	g.do(t, "GET /one").is(t, http.StatusOK)
	g.do(t, "GET /two").is(t, http.StatusNotFound)
	if got := g.probe("/readyz"); got != http.StatusOK {
		t.Errorf("/readyz: %d", got)
	}
	for _, bad := range []string{"", "routes: [", "\x00", "- a", "routes:\n  - match: GET /x\n"} {
		g.reload(t, bad)
	}
	if err := os.Remove(g.config); err != nil {
		t.Fatal(err)
	}
	g.signal(syscall.SIGHUP)
	g.do(t, "GET /one").is(t, http.StatusOK)
	// It was not worn out by all that.
	g.reload(t, fill(strings.Replace(oneRoute, "/one", "/four", 1), "BACKEND", b.URL))
	eventually(t, "the new route is there", func() bool { return g.do(t, "GET /four").status == http.StatusOK })
}

func TestReloadCannotMoveTheListener(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	g := start(t, fill(oneRoute, "BACKEND", b.URL))
	elsewhere := freeAddress(t)
	g.reload(t, fill("server:\n  listen: ELSEWHERE\n  status: STATUS\n"+oneRoute, "ELSEWHERE", elsewhere, "STATUS", g.status, "BACKEND", b.URL))
	g.output.says(t, elsewhere)
	g.do(t, "GET /one").is(t, http.StatusOK)
}

func TestReloadDropsNoRequest(t *testing.T) {
	t.Parallel()
	came, release := make(chan struct{}, 1), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		came <- struct{}{}
		hold(r, release)
		_, _ = io.WriteString(w, "from the old upstream")
	}))
	t.Cleanup(slow.Close)
	g := start(t, fill(oneRoute, "BACKEND", slow.URL))
	conn := dial(t, g.listen)
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "GET /one HTTP/1.1\r\nHost: x\r\n\r\n")
	receive(t, "the request at the backend", came)
	g.reload(t, fill(strings.Replace(oneRoute, "/one", "/two", 1), "BACKEND", newBackend(t).URL))
	eventually(t, "the new file is in force", func() bool { return g.do(t, "GET /two").status == http.StatusOK })
	close(release)
	if a := readAnswer(t, bufio.NewReader(conn), "GET"); a.status != http.StatusOK || a.body != "from the old upstream" {
		t.Errorf("the request in flight got %d %q", a.status, a.body)
	}
}

func TestSIGTERMDrains(t *testing.T) {
	t.Parallel()
	came, release := make(chan struct{}, 1), make(chan struct{})
	p := newIDP(t)
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/ws" {
			echoFrames(w, r)
			return
		}
		came <- struct{}{}
		hold(r, release)
		_, _ = io.WriteString(w, "late, but here")
	}))
	t.Cleanup(b.Close)
	g := start(t, fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
routes:
  - match: /{rest...}
    privileges: []
    upstream: BACKEND
`, "IDP", p.URL, "BACKEND", b.URL))
	ws := g.websocket(t, p.token(t))
	echoes(t, ws, "before")
	conn := dial(t, g.listen)
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "GET /slow HTTP/1.1\r\nHost: x\r\n"+bearer(p.token(t))+"\r\n\r\n")
	receive(t, "the request at the backend", came)
	if got := g.probe("/readyz"); got != http.StatusOK {
		t.Errorf("/readyz: %d", got)
	}

	g.signal(syscall.SIGTERM)
	eventually(t, "/readyz says so", func() bool { return g.probe("/readyz") == http.StatusServiceUnavailable })
	if got := g.livez(); got != http.StatusOK {
		t.Errorf("/livez while draining: %d", got)
	}
	echoes(t, ws, "still here")
	close(release)
	if a := readAnswer(t, bufio.NewReader(conn), "GET"); a.status != http.StatusOK || a.body != "late, but here" {
		t.Errorf("the request in flight got %d %q", a.status, a.body)
	}
	echoes(t, ws, "to the last")
	if g.ended() {
		t.Fatal("it ended while a WebSocket was open")
	}
	if err := ws.Close(websocket.StatusNormalClosure, "bye"); err != nil {
		t.Errorf("the close handshake: %v", err)
	}
	if status := g.exit(t); status != 0 {
		t.Errorf("it ended with status %d", status)
	}
	if g.listens() {
		t.Error("somebody still listens")
	}
}

func TestGraceEnds(t *testing.T) {
	t.Parallel()
	const clients = 100
	came := make(chan struct{}, clients)
	b := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		came <- struct{}{}
		hold(r, nil)
	}))
	t.Cleanup(b.Close)
	g := startWith(t, []string{"--grace", "300ms"}, fill(oneRoute, "BACKEND", b.URL))
	conns := make([]net.Conn, clients)
	for i := range conns {
		conns[i] = dial(t, g.listen)
		_, _ = io.WriteString(conns[i], "GET /one HTTP/1.1\r\nHost: x\r\n\r\n")
		receive(t, "the request at the backend", came)
	}
	g.signal(syscall.SIGTERM)
	g.cutOff = true
	if status := g.exit(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
	for _, conn := range conns {
		if got, _ := io.ReadAll(conn); len(got) > 0 {
			t.Errorf("a request that was cut off was answered: %q", firstLine(string(got)))
		}
		_ = conn.Close()
	}
	if n := strings.Count(g.output.String(), `"msg":"request"`); n != clients {
		t.Errorf("%d of %d requests are in the log", n, clients)
	}
}

func TestSIGINTEndsIt(t *testing.T) {
	t.Parallel()
	g := start(t, fill(oneRoute, "BACKEND", newBackend(t).URL))
	g.signal(os.Interrupt)
	if status := g.exit(t); status != 0 {
		t.Errorf("it ended with status %d", status)
	}
}

func TestOccupiedAddressIsSaid(t *testing.T) {
	t.Parallel()
	g := start(t, fill(oneRoute, "BACKEND", newBackend(t).URL))
	status, out := command(t, "", "serve", "--config", g.config)
	if status == 0 || !strings.Contains(out, g.listen) && !strings.Contains(out, g.status) {
		t.Errorf("a second gateway on the same address: %d\n%s", status, out)
	}
	g.do(t, "GET /one").is(t, http.StatusOK)
}

// A WebSocket client that does not read cannot hold the gateway up for ever.
func TestStuckWebSocketEndsWithTheGrace(t *testing.T) {
	t.Parallel()
	flooding := make(chan struct{}, 1)
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_ = rw.Flush()
		flooding <- struct{}{}
		for {
			if _, err := conn.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	}))
	t.Cleanup(b.Close)
	g := startWith(t, []string{"--grace", "500ms"}, fill("routes:\n  - match: /ws\n    public: true\n    upstream: BACKEND\n", "BACKEND", b.URL))
	g.cutOff = true
	conn := dial(t, g.listen)
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	receive(t, "the tunnel", flooding)
	g.signal(syscall.SIGTERM)
	if status := g.exit(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
}
