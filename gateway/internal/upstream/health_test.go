package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestThresholds(t *testing.T) {
	bad := errors.New("status 500")
	var log logged
	p := newPool(t, Options{Targets: targetsOf(1, 1), Log: log.logger(), Health: &Health{Healthy: 2, Unhealthy: 3, Interval: 7 * time.Second}})
	a, b := p.target(t, "a"), p.target(t, "b")
	for i, c := range []struct {
		err  error
		want string
	}{
		{nil, "healthy"}, {bad, "healthy"}, {bad, "healthy"}, {nil, "healthy"}, {bad, "healthy"}, {bad, "healthy"}, {bad, "unhealthy"},
		{nil, "unhealthy"}, {bad, "unhealthy"}, {nil, "unhealthy"}, {nil, "healthy"},
	} {
		p.found(a, c.err)
		if got := p.states(); got != "a "+c.want+", b unknown" {
			t.Errorf("check %d: %s, want %s", i, got, c.want)
		}
		if got := p.picks(10, nil); (got["a"] > 0) != (c.want == "healthy") {
			t.Errorf("check %d: %v", i, got)
		}
	}
	p.found(b, bad) // the first decides alone
	if got := p.picks(10, nil); got["a"] != 10 {
		t.Errorf("one check, and that bad: %v", got)
	}
	for range 3 {
		p.found(a, bad)
	}
	var failed *Error
	if err := p.none(); p.pick("") != nil || !errors.As(err, &failed) || failed.RetryAfter != 7*time.Second {
		t.Errorf("all unhealthy: %v", err)
	}
	if got := p.Status()[0].Why; got != "status 500" {
		t.Errorf("why: %s", got)
	}
	want := []string{
		`level=WARN msg="target is unhealthy" upstream=heroes target=a why="status 500"`,
		`level=INFO msg="target is healthy" upstream=heroes target=a was=unhealthy`,
		`level=WARN msg="target is unhealthy" upstream=heroes target=b why="status 500"`,
		`level=WARN msg="target is unhealthy" upstream=heroes target=a why="status 500"`,
	}
	if got := log.lines(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("logged:\n%s", strings.Join(got, "\n"))
	}
}

// Who joins waits for its first check while others are well; where nobody is
// well it is better than nobody.
func TestWhoJoinsIsCheckedFirst(t *testing.T) {
	p := newPool(t, Options{Targets: targetsOf(1, 1), Health: &Health{Healthy: 2, Unhealthy: 3, Interval: time.Second}})
	p.found(p.target(t, "a"), nil)
	p.set([]Target{named("a", 1), named("c", 1)})
	if got := p.picks(10, nil); got["a"] != 10 {
		t.Errorf("before the check: %v", got)
	}
	p.found(p.target(t, "c"), nil)
	if got := p.picks(10, nil); got["c"] != 5 {
		t.Errorf("after it: %v", got)
	}
	p.set([]Target{named("d", 1)}) // all moved at once
	if got := p.picks(10, nil); got["d"] != 10 || p.states() != "d unchecked" {
		t.Errorf("all new: %v, %s", got, p.states())
	}
	p.found(p.target(t, "d"), errors.New("refused"))
	if p.pick("") != nil {
		t.Error("it was picked though its first check was bad")
	}
}

func TestJitter(t *testing.T) {
	least, most := time.Hour, time.Duration(0)
	for range 1000 {
		d := jittered(10 * time.Second)
		least, most = min(least, d), max(most, d)
	}
	if least < 9*time.Second || least > 9200*time.Millisecond || most > 11*time.Second || most < 10800*time.Millisecond {
		t.Errorf("from %v to %v", least, most)
	}
}

// Checks ask what they are told to, over the target's own transport: HTTP/1.1,
// HTTP/2 without TLS, and TLS; on a Unix socket, too.
func TestChecks(t *testing.T) {
	var status atomic.Int32
	asked := make(chan string, 100)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- fmt.Sprintf("%s %s %s %s", r.Proto, r.Method, r.Host, r.RequestURI)
		w.WriteHeader(int(status.Load()))
		_, _ = io.WriteString(w, "ok")
	})
	clear, prior, secure, socket := httptest.NewServer(h), httptest.NewUnstartedServer(h), httptest.NewUnstartedServer(h), httptest.NewUnstartedServer(h)
	prior.Config.Protocols = &http.Protocols{}
	prior.Config.Protocols.SetUnencryptedHTTP2(true)
	prior.Start()
	secure.EnableHTTP2 = true
	secure.StartTLS()
	path := filepath.Join(t.TempDir(), "app.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	socket.Listener = l
	socket.Start()
	for _, s := range []*httptest.Server{clear, prior, secure, socket} {
		t.Cleanup(s.Close)
	}
	tls := secure.Client().Transport.(*http.Transport).TLSClientConfig
	for _, c := range []struct{ url, dial, host, want string }{
		{clear.URL, "", "", "HTTP/1.1 GET " + clear.Listener.Addr().String() + " /healthz?deep=1"},
		{clear.URL + "/base/", "", "heroes", "HTTP/1.1 GET heroes /base/healthz?deep=1"},
		{strings.Replace(prior.URL, "http", "h2c", 1), "", "", "HTTP/2.0 GET " + prior.Listener.Addr().String() + " /healthz?deep=1"},
		{"https://example.com", secure.Listener.Addr().String(), "", "HTTP/2.0 GET example.com /healthz?deep=1"},
		{"http://localhost", "unix:" + path, "", "HTTP/1.1 GET localhost /healthz?deep=1"},
	} {
		u, err := url.Parse(c.url)
		if err != nil {
			t.Fatal(err)
		}
		health := &Health{Path: "/healthz?deep=1", Host: c.host, Timeout: 10 * time.Second, Expect: []StatusRange{{200, 299}, {401, 401}}}
		told := Target{URL: u, Dial: c.dial, Weight: 1}
		target := newTarget(told, told.key(), &Options{TLS: tls, ConnectTimeout: time.Second})
		for code, want := range map[int32]string{200: "", 299: "", 300: "status 300", 401: "", 404: "status 404", 500: "status 500"} {
			status.Store(code)
			got := ""
			if err := health.ask(t.Context(), target); err != nil {
				got = err.Error()
			}
			if got != want {
				t.Errorf("%s: %d is %q, want %q", c.url, code, got, want)
			}
			if got := <-asked; got != c.want {
				t.Errorf("it was asked %s, want %s", got, c.want)
			}
		}
		target.transport.CloseIdleConnections()
	}
}

// A target that turns the connection into another protocol's is not waited for:
// no time-out of a request ends that connection.
func TestCheckAnsweredByAnUpgrade(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { _ = conn.Close() })
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	}))
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, netHTTP := range []bool{false, true} {
		p := newPool(t, Options{Targets: []Target{{URL: u, Weight: 1}}, Health: &Health{Path: "/", Interval: time.Hour, Timeout: 10 * time.Second, Healthy: 1, Unhealthy: 1}, NetHTTP: netHTTP})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		p.Start(ctx)
		if got := p.Status()[0]; got.State != "unhealthy" || !strings.HasPrefix(got.Why, "status 101") {
			t.Errorf("%s: %s", got.State, got.Why)
		}
	}
}

// A check's time-out counts on the connection after a stale one, too, and Close
// has nobody to wait for.
func TestCheckAfterAStaleConnection(t *testing.T) {
	for name, answer := range map[string]string{
		"no answer":   "",
		"half a body": "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
	} {
		t.Run(name, func(t *testing.T) {
			b := handmade(t, func(conn *net.TCPConn, in *bufio.Reader, n int) {
				if n == 1 {
					answerOnce(conn, in)
					return
				}
				_, _ = io.WriteString(conn, answer)
				untilCut(t, conn, in)
			})
			p := newPool(t, Options{Targets: []Target{{URL: b.url, Weight: 1}}, Health: &Health{
				Path: "/", Interval: time.Millisecond, Timeout: 200 * time.Millisecond, Healthy: 1, Unhealthy: 1, Expect: []StatusRange{{200, 200}},
			}})
			p.Start(t.Context())
			eventually(t, "the target is unhealthy", func() bool {
				s := p.Status()[0]
				return s.State == "unhealthy" && s.Why == context.DeadlineExceeded.Error()
			})
			p.Close()
		})
	}
}

// Start waits until it knows the targets, and Close ends all that it began.
func TestStartAndClose(t *testing.T) {
	before := runtime.NumGoroutine()
	well := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	hangs := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	var list []Target
	for _, s := range []string{well.URL, hangs.URL, "http://127.0.0.1:1"} {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, Target{URL: u, Weight: 1})
	}
	told := make(chan func([]Target), 1)
	p := New(Options{Name: "heroes", Source: follow(func(ctx context.Context, set func([]Target)) {
		set(list)
		told <- set
		<-ctx.Done()
	}), Health: &Health{Path: "/", Interval: time.Hour, Timeout: 300 * time.Millisecond, Healthy: 1, Unhealthy: 1, Expect: []StatusRange{{200, 200}}}})
	p.Start(t.Context())
	var got []string
	for _, s := range p.Status() {
		got = append(got, s.State)
	}
	if strings.Join(got, " ") != "healthy unhealthy unhealthy" {
		t.Errorf("after the start: %v", got)
	}
	(<-told)(list[:2]) // one check ends before the others
	p.Close()
	p.Close()
	p.set(list) // comes too late
	if len(p.Targets()) != 2 {
		t.Error("a closed pool took up targets")
	}
	well.Close()
	hangs.Close()
	for deadline := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, before %d", runtime.NumGoroutine(), before)
		}
	}
}

// A source that says nothing holds the start up only as long as its context.
func TestStartOfASilentSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Options{Name: "heroes", Source: follow(func(ctx context.Context, _ func([]Target)) { <-ctx.Done() })})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		p.Start(ctx)
		if d := time.Since(began); d != time.Second {
			t.Errorf("it took %v", d)
		}
		p.Close()
	})
}

// follow is a [Source] of a function.
type follow func(ctx context.Context, set func([]Target))

func (f follow) Run(ctx context.Context, set func([]Target)) { f(ctx, set) }
