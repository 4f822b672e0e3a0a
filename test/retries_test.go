package test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A target that dies by SIGKILL under load, and comes back, costs no idempotent
// request. REQUESTS says how many are sent.
func TestNothingIsLostWhenATargetDies(t *testing.T) {
	t.Parallel()
	total := int64(5000)
	if n, err := strconv.ParseInt(os.Getenv("REQUESTS"), 10, 64); err == nil {
		total = n
	}
	addresses, processes := make([]string, 3), make([]*process, 3)
	for i := range addresses {
		addresses[i] = freeAddress(t)
		processes[i] = launchMember(t, addresses[i])
	}
	g := start(t, fill(`
upstreams:
  heroes:
    targets: [http://FIRST, http://SECOND, http://THIRD]
    retries:
      num_retries: 2
    outlier_detection:
      base_ejection_time: 1s
routes:
  - match: /heroes
    public: true
    upstream: heroes
`, "FIRST", addresses[0], "SECOND", addresses[1], "THIRD", addresses[2]))

	var sent, lost atomic.Int64
	fifths := make([]chan struct{}, 5) // closed when so much is sent
	for i := range fifths {
		fifths[i] = make(chan struct{})
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}}
	defer client.CloseIdleConnections()
	var workers sync.WaitGroup
	for range 32 {
		workers.Go(func() {
			for n := sent.Add(1); n <= total; n = sent.Add(1) {
				if n%(total/5) == 0 && n < total {
					close(fifths[n/(total/5)])
				}
				method, body := http.MethodGet, ""
				if n%10 == 0 {
					method, body = http.MethodPut, "a hero"
				}
				r, err := http.NewRequest(method, "http://"+g.listen+"/heroes", strings.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				resp, err := client.Do(r)
				if err != nil {
					t.Errorf("request %d: %v", n, err)
					lost.Add(1)
					continue
				}
				text, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if err != nil || resp.StatusCode != http.StatusOK {
					t.Errorf("request %d, %s: %d %v %s", n, method, resp.StatusCode, err, text)
					lost.Add(1)
				}
			}
		})
	}
	for i, at := range []int{1, 3} {
		<-fifths[at]
		processes[i].kill()
		<-fifths[at+1]
		processes[i] = launchMember(t, addresses[i])
	}
	workers.Wait()
	retried := g.metric(t, `gatehouse_upstream_retries_total{outcome="success",upstream="heroes"}`)
	t.Logf("%d requests, %d lost, %v retried", total, lost.Load(), retried)
	if retried == 0 {
		t.Error("no request was retried, so that nothing was tried")
	}
}

// What is sent again, and what must not be.
func TestRetries(t *testing.T) {
	t.Parallel()
	m, admin := newMembers(t, 2), freeAddress(t)
	// By hash every request of this caller goes to one target first.
	g := start(t, fill(`
server:
  ADDRESSES
  admin: ADMIN
upstreams:
  heroes:
    targets: [http://FIRST, http://SECOND]
    balance:
      hash: header:X-User
    retries:
      per_try_timeout: 300ms
      budget_percent: 100
  choosy:
    targets: [http://FIRST, http://SECOND]
    balance:
      hash: header:X-User
    retries:
      on: [503]
routes:
  - match: /heroes
    public: true
    upstream: heroes
  - match: /choosy
    public: true
    upstream: choosy
`, "ADMIN", admin, "FIRST", m[0].address, "SECOND", m[1].address))
	const user = "X-User: alice"
	first, second := m[0], m[1]
	if g.do(t, "GET /heroes", user).body == m[1].address {
		first, second = m[1], m[0]
	}
	ask := func(method, path, body string) answer {
		return g.send(t, fmt.Sprintf("%s %s HTTP/1.1\r\nHost: h\r\n%s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", method, path, user, len(body), body))
	}
	large := strings.Repeat("x", 64<<10+1)
	for _, c := range []struct {
		mood, method, path, body string
		status                   int  // of what the client receives
		again                    bool // the second target was asked
	}{
		{overtaxed, "GET", "/heroes", "", 200, true},
		{overtaxed, "HEAD", "/heroes", "", 200, true},
		{overtaxed, "OPTIONS", "/heroes", "", 200, true},
		{overtaxed, "DELETE", "/heroes", "", 200, true},
		{overtaxed, "PUT", "/heroes", "a hero", 200, true},
		{overtaxed, "PUT", "/heroes", large, 503, false},
		{overtaxed, "POST", "/heroes", "a hero", 503, false},
		{overtaxed, "PATCH", "/heroes", "a hero", 503, false},
		{overtaxed, "GET", "/choosy", "", 200, true},
		{erring, "GET", "/heroes", "", 500, false},
		{resetting, "GET", "/heroes", "", 200, true},
		{resetting, "PUT", "/heroes", "a hero", 200, true},
		{resetting, "POST", "/heroes", "a hero", 502, false},
		{resetting, "POST", "/heroes", "", 502, false},
		{resetting, "GET", "/choosy", "", 502, false},
		{hung, "GET", "/heroes", "", 200, true},
		{"killed", "GET", "/heroes", "", 200, true},
		{"killed", "POST", "/heroes", "a hero", 200, true}, // nothing of it was sent
		{"killed", "POST", "/heroes", large, 200, true},
		{"killed", "GET", "/choosy", "", 502, false},
	} {
		name := fmt.Sprintf("%s: %s %s of %d bytes", c.mood, c.method, c.path, len(c.body))
		if c.mood == "killed" {
			first.kill()
		} else {
			first.mood.Store(c.mood)
		}
		asked, others := first.served.Load(), second.served.Load()
		second.got.Store("")
		got := ask(c.method, c.path, c.body)
		if got.status != c.status || second.served.Load()-others != map[bool]int64{true: 1, false: 0}[c.again] {
			t.Errorf("%s: %d, and the second got %d", name, got.status, second.served.Load()-others)
		}
		// net/http itself asks once more where a connection that was used before breaks.
		if n := first.served.Load() - asked; c.mood != "killed" && n != 1 && (n != 2 || c.mood != resetting || c.body != "" || c.method == "POST") {
			t.Errorf("%s: the first got %d", name, n)
		}
		if c.again && second.got.Load() != c.body {
			t.Errorf("%s: the second got a body of %d bytes", name, len(second.got.Load().(string)))
		}
		if c.mood == "killed" {
			first.start(t)
		}
		first.mood.Store(well)
		eventually(t, "the first serves", func() bool { return g.do(t, "GET /choosy", user).body == first.address })
	}
	if n := g.metric(t, `gatehouse_upstream_retries_total{outcome="success",upstream="heroes"}`); n != 11 {
		t.Errorf("%v retried", n)
	}
	requests := g.upstream(t, admin, "heroes")[first.address].Requests
	for outcome, want := range map[string]int{"gateway_error": 8, "server_error": 1, "refused": 7, "timeout": 1} {
		if requests[outcome] != want {
			t.Errorf("%s: %d requests of the first, want %d", outcome, requests[outcome], want)
		}
	}

	// Nobody is asked once a part of the response is with the client.
	first.mood.Store(breaking)
	before := second.served.Load()
	conn := dial(t, g.listen)
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "GET /heroes HTTP/1.1\r\nHost: h\r\n"+user+"\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(resp.Body); err == nil || string(body) != "half" || second.served.Load() != before {
		t.Errorf("%q, %v, and the second got %d", body, err, second.served.Load()-before)
	}

	// Where all fail the client learns of the last.
	second.mood.Store(overtaxed)
	first.mood.Store(resetting)
	if got := g.do(t, "GET /heroes", user); got.status != http.StatusServiceUnavailable {
		t.Errorf("both fail: %d", got.status)
	}
	if n := g.metric(t, `gatehouse_upstream_retries_total{outcome="failure",upstream="heroes"}`); n != 1 {
		t.Errorf("%v failed again", n)
	}
}

// When all targets fail, retries add to their load no more than the budget says.
func TestRetryBudget(t *testing.T) {
	t.Parallel()
	m := newMembers(t, 3)
	g := start(t, fill(`
upstreams:
  heroes:
    targets: [http://FIRST, http://SECOND, http://THIRD]
    retries:
      num_retries: 2
routes:
  - match: GET /heroes
    public: true
    upstream: heroes
`, "FIRST", m[0].address, "SECOND", m[1].address, "THIRD", m[2].address))
	for i := range m {
		m[i].mood.Store(overtaxed)
	}
	const n = 1000
	began := time.Now()
	for range n {
		resp, err := http.Get("http://" + g.listen + "/heroes")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusServiceUnavailable {
			t.Fatal(resp.Status)
		}
	}
	served := m[0].served.Load() + m[1].served.Load() + m[2].served.Load()
	least := 10 * (1 + int64(time.Since(began)/(10*time.Second))) // in each window of ten seconds
	if served < n*11/10 || served > n*12/10+least {
		t.Errorf("the targets got %d requests for %d", served, n)
	}
	if g.metric(t, `gatehouse_upstream_retries_total{outcome="budget_exhausted",upstream="heroes"}`) == 0 {
		t.Error("the metric does not tell of the budget")
	}
}

// A client that goes is no failure of the target's, and nothing for another.
func TestAClientThatGoesIsNotRetried(t *testing.T) {
	t.Parallel()
	m, admin := newMembers(t, 2), freeAddress(t)
	g := start(t, fill(`
server:
  ADDRESSES
  admin: ADMIN
upstreams:
  heroes:
    targets: [http://FIRST, http://SECOND]
    retries: {}
    outlier_detection:
      consecutive_gateway_failure: 1
    circuit_breaker:
      request_volume: 1
routes:
  - match: /heroes
    public: true
    upstream: heroes
`, "ADMIN", admin, "FIRST", m[0].address, "SECOND", m[1].address))
	m[0].mood.Store(hung)
	m[1].mood.Store(hung)
	for i := range 2 {
		conn := dial(t, g.listen)
		_, _ = io.WriteString(conn, "PUT /heroes HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\na hero")
		eventually(t, "a target has it", func() bool { return m[0].served.Load()+m[1].served.Load() == int64(i+1) })
		_ = conn.Close()
		eventually(t, "it is 499", func() bool {
			return g.metric(t, `gatehouse_requests_total{reason="client_gone",route="/heroes",status="499"}`) == float64(i+1)
		})
	}
	for address, r := range g.upstream(t, admin, "heroes") {
		if r.Requests["client"] != 1 || r.State != "unknown" {
			t.Errorf("%s: %+v", address, r)
		}
	}
	m[0].mood.Store(well)
	m[1].mood.Store(well)
	g.do(t, "GET /heroes").is(t, http.StatusOK)
}

// One more request than max_requests is refused at once, and told when to come.
func TestMaxRequests(t *testing.T) {
	t.Parallel()
	m := newMembers(t, 2)
	g := start(t, fill(`
upstreams:
  heroes:
    targets: [http://FIRST, http://SECOND]
    max_requests: 2
routes:
  - match: GET /heroes
    public: true
    upstream: heroes
`, "FIRST", m[0].address, "SECOND", m[1].address))
	for range 2 {
		m[0].mood.Store(hung)
		m[1].mood.Store(hung)
		before := m[0].served.Load() + m[1].served.Load()
		conns := make([]net.Conn, 2)
		for i := range conns {
			conns[i] = dial(t, g.listen)
			_, _ = io.WriteString(conns[i], "GET /heroes HTTP/1.1\r\nHost: h\r\n\r\n")
		}
		eventually(t, "both are in flight", func() bool { return m[0].served.Load()+m[1].served.Load() == before+2 })
		refused := g.do(t, "GET /heroes")
		refused.refused(t, http.StatusServiceUnavailable, "upstream_overloaded")
		if got := refused.header.Get("Retry-After"); got != "1" {
			t.Errorf("Retry-After: %q", got)
		}
		for i := range conns {
			_ = conns[i].Close()
		}
		m[0].mood.Store(well)
		m[1].mood.Store(well)
		eventually(t, "there is room", func() bool { return g.do(t, "GET /heroes").status == http.StatusOK })
	}
}

// An upstream most of whose requests fail is left alone, and tried again.
func TestCircuitBreaker(t *testing.T) {
	t.Parallel()
	m, admin := newMembers(t, 1), freeAddress(t)
	g := start(t, fill(`
server:
  ADDRESSES
  admin: ADMIN
upstreams:
  heroes:
    targets: [http://TARGET]
    circuit_breaker:
      failure_percentage: 50
      request_volume: 6
      interval: 1m
      open_time: 2s
routes:
  - match: GET /heroes
    public: true
    upstream: heroes
`, "ADMIN", admin, "TARGET", m[0].address))
	circuit := func() string { return g.circuit(t, admin, "heroes") }
	for range 3 {
		g.do(t, "GET /heroes").is(t, http.StatusOK)
	}
	m[0].mood.Store(overtaxed)
	for range 3 {
		if got := circuit(); got != "closed" {
			t.Errorf("the circuit is %s", got)
		}
		if got := g.do(t, "GET /heroes"); got.status != http.StatusServiceUnavailable || got.header.Get("Content-Type") == "application/problem+json" {
			t.Errorf("%d %s", got.status, got.body)
		}
	}
	refused := g.do(t, "GET /heroes")
	refused.refused(t, http.StatusServiceUnavailable, "circuit_open")
	if got := refused.header.Get("Retry-After"); got != "1" && got != "2" {
		t.Errorf("Retry-After: %q", got)
	}
	if got := circuit(); got != "open" || m[0].served.Load() != 6 || g.metric(t, `gatehouse_upstream_circuit_open{upstream="heroes"}`) != 1 {
		t.Errorf("the circuit is %s, and the target got %d", got, m[0].served.Load())
	}
	// One that is tried and fails opens it again.
	eventually(t, "it is tried again", func() bool { _ = g.do(t, "GET /heroes"); return m[0].served.Load() == 7 })
	g.do(t, "GET /heroes").refused(t, http.StatusServiceUnavailable, "circuit_open")
	m[0].mood.Store(well)
	eventually(t, "it closes", func() bool { _ = g.do(t, "GET /heroes"); return circuit() == "closed" })
	for range 3 {
		g.do(t, "GET /heroes").is(t, http.StatusOK)
	}
	for _, line := range []string{`"msg":"circuit opens","upstream":"heroes","why":"3 of 6 requests failed"`, `"msg":"circuit is half open"`, `"msg":"circuit closes"`} {
		if !strings.Contains(g.output.String(), line) {
			t.Errorf("the log does not say %s", line)
		}
	}
}

// Clients that go away while a circuit is half open do not open it again, and
// the places that they had are free for others: nobody can keep an upstream
// that is well again from its callers.
func TestClientsThatGoWhileTheCircuitIsHalfOpen(t *testing.T) {
	t.Parallel()
	m, admin := newMembers(t, 1), freeAddress(t)
	g := start(t, fill(`
server:
  ADDRESSES
  admin: ADMIN
upstreams:
  heroes:
    targets: [http://TARGET]
    circuit_breaker:
      request_volume: 1
      interval: 1m
      open_time: 500ms
routes:
  - match: /heroes
    public: true
    upstream: heroes
`, "ADMIN", admin, "TARGET", m[0].address))
	m[0].mood.Store(overtaxed)
	g.do(t, "GET /heroes").is(t, http.StatusServiceUnavailable)
	m[0].mood.Store(well)
	eventually(t, "it is tried again", func() bool { return g.do(t, "GET /heroes").status == http.StatusOK })
	m[0].mood.Store(hung)
	for i := range 12 { // four times as many as are tried at one time
		served := m[0].served.Load()
		conn := dial(t, g.listen)
		_, _ = io.WriteString(conn, []string{"GET", "PUT"}[i%2]+" /heroes HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
		eventually(t, "the target has it", func() bool { return m[0].served.Load() == served+1 })
		_ = conn.Close()
		eventually(t, "it is 499", func() bool {
			return g.metric(t, `gatehouse_requests_total{reason="client_gone",route="/heroes",status="499"}`) == float64(i+1)
		})
		if got := g.circuit(t, admin, "heroes"); got != "half-open" {
			t.Fatalf("after %d clients that went the circuit is %s", i+1, got)
		}
	}
	m[0].mood.Store(well)
	for range 2 {
		g.do(t, "GET /heroes").is(t, http.StatusOK)
	}
	if got := g.circuit(t, admin, "heroes"); got != "closed" {
		t.Errorf("after three good requests the circuit is %s", got)
	}
	for line, n := range map[string]int{"opens": 1, "is half open": 1, "closes": 1} {
		if got := strings.Count(g.output.String(), `"msg":"circuit `+line+`"`); got != n {
			t.Errorf("the log says %d times that it %s", got, line)
		}
	}
}

// A time-out is the route's, or else the upstream's, or else the default.
func TestTimeoutsOfUpstreams(t *testing.T) {
	t.Parallel()
	slow := hanging(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // connects, and does no handshake
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	g := start(t, fill(`
upstreams:
  slow:
    targets: [SLOW]
    timeout: 100ms
  silent:
    targets: [https://SILENT]
    connect_timeout: 100ms
  streams:
    targets: [STREAMS]
    idle_timeout: 100ms
defaults:
  timeout: 1h
  idle_timeout: 1h
routes:
  - match: /slow
    public: true
    upstream: slow
  - match: /own
    public: true
    upstream: http://SILENT
    timeout: 100ms
  - match: /silent
    public: true
    upstream: silent
  - match: /streams
    public: true
    upstream: streams
`, "SLOW", slow.URL, "SILENT", silent.Addr().String(), "STREAMS", stalling(t)))
	for _, path := range []string{"/slow", "/own", "/silent"} {
		g.do(t, "GET "+path).refused(t, http.StatusGatewayTimeout, "upstream_timeout")
	}
	resp, err := http.Get("http://" + g.listen + "/streams")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("a body that stands still ended well: %q", body)
	}
}

// stalling starts a backend whose body never ends, and returns its URL.
func stalling(t *testing.T) string {
	t.Helper()
	m := newMembers(t, 1)[0]
	m.mood.Store(stalled)
	return "http://" + m.address
}
