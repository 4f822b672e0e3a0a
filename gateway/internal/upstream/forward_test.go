package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/gateway/internal/inject"
)

// front forwards everything to the target and reports what Forward returned.
func front(t *testing.T, target string, change func(*Call)) (*httptest.Server, <-chan error) {
	t.Helper()
	s, results, _ := frontOf(t, target, change)
	return s, results
}

func frontOf(t *testing.T, target string, change func(*Call)) (*httptest.Server, <-chan error, *Pool) {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	rules, err := inject.New(inject.Options{Prefix: "x-jwt-", MaxBytes: 1000})
	if err != nil {
		t.Fatal(err)
	}
	pool := New(Options{Name: "heroes", Targets: []Target{{URL: u, Weight: 1}}})
	results := make(chan error, 10)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := Call{Path: r.URL.EscapedPath(), Strip: rules, Timeout: time.Minute, IdleTimeout: time.Minute, RequestID: "id", Traceparent: "tp"}
		if change != nil {
			change(&c)
		}
		err := pool.Forward(w, r, c)
		if err != nil {
			w.WriteHeader(http.StatusTeapot)
		}
		results <- err
	}))
	s.Config.Protocols = &http.Protocols{}
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(func() { s.Close(); pool.Close() })
	return s, results, pool
}

func failure(t *testing.T, results <-chan error) Failure {
	t.Helper()
	select {
	case err := <-results:
		var failed *Error
		if !errors.As(err, &failed) {
			t.Fatalf("Forward returned %v", err)
		}
		return failed.Failure
	case <-time.After(30 * time.Second):
		t.Fatal("Forward did not return")
	}
	return 0
}

func TestFailuresAreToldApart(t *testing.T) {
	release := make(chan struct{})
	hangs := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(hangs.Close)
	t.Cleanup(func() { close(release) })
	nonsense, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nonsense.Close() })
	go func() {
		for {
			conn, err := nonsense.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "this is no HTTP\r\n\r\n")
			_ = conn.Close()
		}
	}()
	soon := func(c *Call) { c.Timeout, c.IdleTimeout = 100*time.Millisecond, 100*time.Millisecond }
	for _, c := range []struct {
		name, target, request string
		change                func(*Call)
		leave                 bool
		want                  Failure
	}{
		{"nobody listens", "http://127.0.0.1:1", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", nil, false, Refused},
		{"no HTTP", "http://" + nonsense.Addr().String(), "GET / HTTP/1.1\r\nHost: h\r\n\r\n", nil, false, Refused},
		{"no answer in time", hangs.URL, "GET / HTTP/1.1\r\nHost: h\r\n\r\n", soon, false, Timeout},
		{"no answer in time to a body", hangs.URL, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi", soon, false, Timeout},
		{"the client stalls", hangs.URL, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 20\r\n\r\nhi", soon, false, ClientStalled},
		{"a bad chunk", hangs.URL, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", nil, false, ClientBroke},
		{"the client goes", hangs.URL, "GET / HTTP/1.1\r\nHost: h\r\n\r\n", nil, true, ClientGone},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, results := front(t, c.target, c.change)
			conn, err := net.Dial("tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if _, err := io.WriteString(conn, c.request); err != nil {
				t.Fatal(err)
			}
			if c.leave {
				_ = conn.Close()
			}
			if got := failure(t, results); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// An idle body ends the exchange even after the headers, and so that the
// client sees it break; a body that moves goes on beyond any timeout.
func TestIdleBody(t *testing.T) {
	steps := make(chan string)
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for {
			select {
			case s := <-steps:
				_, _ = io.WriteString(w, s)
				_ = http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				return
			}
		}
	}))
	t.Cleanup(b.Close)
	s, _ := front(t, b.URL, func(c *Call) { c.Timeout, c.IdleTimeout = 10*time.Second, 500*time.Millisecond })
	answer := make(chan *http.Response, 1)
	go func() {
		res, err := http.Get(s.URL)
		if err != nil {
			t.Error(err)
		}
		answer <- res
	}()
	steps <- "a"
	res := <-answer
	r := bufio.NewReader(res.Body)
	for range 5 {
		if c, err := r.ReadByte(); err != nil || c != 'a' {
			t.Fatalf("%c, %v", c, err)
		}
		steps <- "a"
	}
	rest, err := io.ReadAll(r)
	if err == nil || string(rest) != "a" {
		t.Errorf("after the last byte: %q, %v; want the body to break off", rest, err)
	}
	_ = res.Body.Close()
}

func TestTrailersGoBothWays(t *testing.T) {
	got := make(chan http.Header, 1)
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		got <- r.Trailer
		w.Header().Set("Trailer", "X-Sum, X-Jwt-Sub")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("X-Sum", "2")
		w.Header().Set("X-Jwt-Sub", "root")
	}))
	t.Cleanup(b.Close)
	s, _ := front(t, b.URL, nil)
	body := struct{ io.Reader }{strings.NewReader("body")} // of unknown length: chunked
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, s.URL, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Trailer = http.Header{"X-Sum": {"1"}, "X_jwt_sub": {"root"}, "Authorization": {"Bearer x"}}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	if fmt.Sprint(<-got) != "map[X-Sum:[1]]" {
		t.Errorf("the target's trailers are wrong")
	}
	if fmt.Sprint(res.Trailer) != "map[X-Sum:[2]]" {
		t.Errorf("the client's trailers: %v", res.Trailer)
	}
}

// What is counted of a request is what its target did, not what its client did.
func TestOutcomes(t *testing.T) {
	leave := make(chan struct{}, 1)
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch r.URL.Path {
		case "/500":
			w.WriteHeader(500)
		case "/503":
			w.WriteHeader(503)
		case "/hangs":
			<-r.Context().Done()
		case "/breaks", "/stalls", "/leaves":
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, "five!")
			_ = http.NewResponseController(w).Flush()
			if r.URL.Path == "/breaks" {
				panic(http.ErrAbortHandler)
			}
			if r.URL.Path == "/leaves" {
				leave <- struct{}{}
			}
			<-r.Context().Done()
		}
	}))
	b.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(b.Close)
	for _, c := range []struct {
		path, target, want string
	}{
		{"/ok", b.URL, "success"}, {"/500", b.URL, "server_error"}, {"/503", b.URL, "gateway_error"}, {"/refused", "http://127.0.0.1:1", "refused"},
		{"/hangs", b.URL, "timeout"}, {"/breaks", b.URL, "broken_off"}, {"/stalls", b.URL, "broken_off"}, {"/leaves", b.URL, "client"},
	} {
		t.Run(c.path, func(t *testing.T) {
			s, _, pool := frontOf(t, c.target, func(call *Call) {
				call.ErrorLog = log.New(io.Discard, "", 0)
				call.Timeout = 300 * time.Millisecond
				if c.path == "/stalls" {
					call.IdleTimeout = 300 * time.Millisecond
				}
			})
			conn, err := net.Dial("tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if _, err := io.WriteString(conn, "POST "+c.path+" HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"); err != nil {
				t.Fatal(err)
			}
			if c.path == "/leaves" {
				<-leave
				_ = conn.Close()
			} else {
				_, _ = io.Copy(io.Discard, conn)
			}
			for deadline := time.Now().Add(20 * time.Second); ; runtime.Gosched() {
				status := pool.Status()[0]
				if status.InFlight == 0 && status.Requests[c.want] == 1 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("%+v", status)
				}
			}
		})
	}
}

// A status that none can be is a failure of the target's, whichever way the
// request went, and whoever asks.
func TestAStatusThatIsNone(t *testing.T) {
	target := answering(t, func(*http.Request, int, int) string { return "HTTP/1.1 099 x\r\nContent-Length: 2\r\n\r\nhi" })
	for way, request := range map[string]string{
		"short": "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "long": "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\na",
		"short, HTTP/1.0": "GET / HTTP/1.0\r\n\r\n", "long, HTTP/1.0": "POST / HTTP/1.0\r\nContent-Length: 1\r\n\r\na",
	} {
		t.Run(way, func(t *testing.T) {
			s, results, pool := frontOf(t, target.url.String(), nil)
			conn, err := net.Dial("tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if _, err := io.WriteString(conn, request); err != nil {
				t.Fatal(err)
			}
			if got := failure(t, results); got != Refused {
				t.Errorf("got %v", got)
			}
			if n := pool.Status()[0].Requests; n["refused"] != 1 {
				t.Errorf("%v", n)
			}
		})
	}
}

// A client that stalls after its answer has begun is not its target's failure,
// or a few of them could have any target ejected.
func TestAClientStallsBesideItsAnswer(t *testing.T) {
	for _, scheme := range []string{"http", "h2c"} {
		for _, http2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("to %s, from HTTP/2: %t", scheme, http2), func(t *testing.T) {
				b := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					out := http.NewResponseController(w)
					_ = out.EnableFullDuplex()
					_ = out.Flush()
					_, _ = io.Copy(io.Discard, r.Body)
				}))
				b.Config.Protocols = &http.Protocols{}
				b.Config.Protocols.SetHTTP1(true)
				b.Config.Protocols.SetUnencryptedHTTP2(true)
				b.Start()
				t.Cleanup(b.Close)
				s, _, pool := frontOf(t, strings.Replace(b.URL, "http", scheme, 1), func(c *Call) {
					c.IdleTimeout, c.ErrorLog = 300*time.Millisecond, log.New(io.Discard, "", 0)
				})
				protocols := &http.Protocols{}
				protocols.SetHTTP1(!http2)
				protocols.SetUnencryptedHTTP2(http2)
				transport := &http.Transport{Protocols: protocols}
				t.Cleanup(transport.CloseIdleConnections)
				body, rest := io.Pipe()
				defer func() { _ = rest.Close() }()
				go func() { _, _ = rest.Write([]byte("a")) }()
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, body)
				if err != nil {
					t.Fatal(err)
				}
				res, err := transport.RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				if text, err := io.ReadAll(res.Body); err == nil {
					t.Errorf("the answer %q ends well", text)
				}
				_ = res.Body.Close()
				eventually(t, "the outcome", func() bool { return pool.Status()[0].InFlight == 0 })
				if n := pool.Status()[0].Requests; n["client"] != 1 {
					t.Errorf("%v", n)
				}
			})
		}
	}
}

// Without a target nothing is written, and the error says so.
func TestNobodyToForwardTo(t *testing.T) {
	pool := New(Options{Name: "heroes"})
	pool.set([]Target{})
	w := httptest.NewRecorder()
	err := pool.Forward(w, httptest.NewRequest(http.MethodPost, "/", strings.NewReader("body")), Call{})
	var failed *Error
	if !errors.As(err, &failed) || failed.Failure != NoHealthyTarget || err.Error() != "heroes has no targets" || w.Body.Len() > 0 {
		t.Errorf("%v", err)
	}
}

// A Content-Type is that of the target, or what was made of it.
func TestContentTypeIsNeverGuessed(t *testing.T) {
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Type"] = nil
		if r.URL.Path == "/typed" {
			w.Header().Set("Content-Type", "text/plain")
		}
		_, _ = io.WriteString(w, "<html>")
	}))
	defer target.Close()
	for name, c := range map[string]struct {
		path   string
		change func(http.Header)
		want   []string
	}{
		"of the target": {"/typed", func(http.Header) {}, []string{"text/plain"}},
		"none":          {"/", func(http.Header) {}, nil},
		"removed":       {"/typed", func(h http.Header) { delete(h, "Content-Type") }, nil},
		"set":           {"/", func(h http.Header) { h.Set("Content-Type", "a/b") }, []string{"a/b"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := front(t, target.URL, func(call *Call) { call.Response = func(res *http.Response) { c.change(res.Header) } })
			res, err := http.Get(s.URL + c.path)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if got := res.Header["Content-Type"]; !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// An event is sent on when it comes, however short the stream is said to be.
func TestEventsAreFlushed(t *testing.T) {
	seen := make(chan struct{})
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "Text/Event-Stream ; charset=utf-8")
		w.Header().Set("Content-Length", "9")
		_ = http.NewResponseController(w).Flush()
		<-seen
		_, _ = io.WriteString(w, "data: 1\n\n")
	}))
	defer target.Close()
	_, _, pool := frontOf(t, target.URL, nil)
	rules, err := inject.New(inject.Options{Prefix: "x-jwt-"})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	if err := pool.Forward(w, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil), Call{
		Path: "/", Strip: rules, Timeout: time.Minute, IdleTimeout: time.Minute, Response: func(*http.Response) { close(seen) },
	}); err != nil {
		t.Fatal(err)
	}
	if w.Body.String() != "data: 1\n\n" || !w.Flushed {
		t.Errorf("got %q, flushed: %t", w.Body, w.Flushed)
	}
}

// Whichever way a request goes, and whether it waits for a connection or for
// the answer, the time-out ends it.
func TestTimeoutEndsEveryWay(t *testing.T) {
	rules, err := inject.New(inject.Options{Prefix: "x-jwt-"})
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]Options{
		"direct":   {},
		"net_http": {NetHTTP: true},
		"retries":  {Retries: &Retries{NumRetries: 1, ConnectFailure: true, Reset: true}},
	} {
		for _, waits := range []string{"for a connection", "for the answer", "for the answer after a stale connection"} {
			t.Run(name+", waits "+waits, func(t *testing.T) {
				stale := strings.HasSuffix(waits, "stale connection")
				silent := handmade(t, func(conn *net.TCPConn, in *bufio.Reader, n int) {
					if stale && n == 1 {
						answerOnce(conn, in)
						return
					}
					untilCut(t, conn, in)
				})
				o.Targets = []Target{{URL: silent.url, Weight: 1}}
				pool := New(o)
				defer pool.Close()
				if waits == "for a connection" {
					long, ok := pool.targets[0].transport.(*http.Transport)
					if !ok {
						long = pool.targets[0].transport.(*direct).long
					}
					long.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
						<-ctx.Done()
						return nil, ctx.Err()
					}
				}
				client, gone := context.WithTimeout(t.Context(), 20*time.Second) // or it would wait for ever
				defer gone()
				ask := func(timeout time.Duration) error {
					return pool.Forward(httptest.NewRecorder(), httptest.NewRequestWithContext(client, "GET", "/", nil), Call{
						Path: "/", Strip: rules, Timeout: timeout, IdleTimeout: time.Minute,
					})
				}
				timeout := time.Millisecond
				if stale {
					if err := ask(time.Minute); err != nil {
						t.Fatal(err)
					}
					timeout = 100 * time.Millisecond // in which the other connection is there
				}
				err := ask(timeout)
				var failed *Error
				if !errors.As(err, &failed) || failed.Failure != Timeout || client.Err() != nil {
					t.Errorf("Forward returned %v; the client: %v", err, client.Err())
				}
			})
		}
	}
}

// Who was answered before the request was sent whole, and neither goes on nor
// goes away, must not hold the connection; nor if the answer breaks off.
func TestAnsweredEarlyAndSilent(t *testing.T) {
	const length, chunks, noneYet = "Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "Content-Length: 10\r\n\r\n"
	for name, c := range map[string]struct {
		rest   string
		breaks bool
	}{
		"a length": {length, false}, "a length, and it breaks off": {length, true},
		"chunks": {chunks, false}, "chunks, and it breaks off": {chunks, true},
		"none yet": {noneYet, false}, "none yet, and it breaks off": {noneYet, true},
	} {
		t.Run(name, func(t *testing.T) {
			target, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = target.Close() }()
			go func() {
				conn, err := target.Accept()
				if err != nil {
					return
				}
				defer func() { _ = conn.Close() }()
				_, _ = conn.Read(make([]byte, 1000))
				if c.breaks {
					_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nearly")
					_ = conn.(*net.TCPConn).CloseWrite()
				} else {
					_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly")
				}
				_, _ = io.Copy(io.Discard, conn)
			}()
			s, results := front(t, "http://"+target.Addr().String(), nil)
			conn, err := net.Dial("tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: localhost\r\n"+c.rest); err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(conn)
			if c.breaks {
				if err != nil {
					t.Errorf("%q, %v", answer, err)
				}
				return // Forward panicked
			}
			if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200") || !strings.Contains(string(answer), "early") {
				t.Fatalf("%q, %v", answer, err)
			}
			if err := <-results; err != nil {
				t.Error(err)
			}
		})
	}
}

// A target that breaks off while an HTTP/1.1 client pauses in its body is to be
// blamed for it, and the client is answered; unless it was the client that went.
func TestTargetBreaksOffWhileTheClientPauses(t *testing.T) {
	asked := make(chan struct{}, 1)
	var target *httptest.Server
	target = httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadFull(r.Body, make([]byte, 3))
		switch r.URL.Path {
		case "/resets":
			panic(http.ErrAbortHandler)
		case "/closes":
			target.CloseClientConnections()
		case "/waits":
			asked <- struct{}{}
			<-r.Context().Done()
		}
	}))
	target.Config.Protocols = &http.Protocols{}
	target.Config.Protocols.SetUnencryptedHTTP2(true)
	target.Config.ErrorLog = log.New(io.Discard, "", 0)
	target.Start()
	t.Cleanup(target.Close)
	for name, c := range map[string]struct {
		path    string
		leave   func(*net.TCPConn)
		want    Failure
		outcome string
	}{
		"the target resets the stream":     {"/resets", nil, Refused, "refused"},
		"the target closes the connection": {"/closes", nil, Refused, "refused"},
		"the client resets the connection": {"/waits", func(conn *net.TCPConn) { _ = conn.SetLinger(0); _ = conn.Close() }, ClientGone, "client"},
		"the client closes the connection": {"/waits", func(conn *net.TCPConn) { _ = conn.CloseWrite() }, ClientGone, "client"},
	} {
		t.Run(name, func(t *testing.T) {
			s, results, pool := frontOf(t, strings.Replace(target.URL, "http", "h2c", 1), nil)
			conn, err := net.Dial("tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.WriteString(conn, "POST "+c.path+" HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc"); err != nil {
				t.Fatal(err)
			}
			if c.leave != nil {
				<-asked
				c.leave(conn.(*net.TCPConn))
			}
			if got := failure(t, results); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
			eventually(t, "the outcome is "+c.outcome, func() bool { return pool.Status()[0].Requests[c.outcome] == 1 })
			if c.leave == nil {
				res, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				_ = res.Body.Close()
			}
		})
	}
}
