package gateway

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/gateway/internal/issuer"
)

// counted is a listener whose connections count what is asked of them.
type counted struct {
	net.Listener
	deadlines, reads atomic.Int64
}

func (l *counted) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return &countedConn{c, l}, err
}

type countedConn struct {
	net.Conn
	of *counted
}

func (c *countedConn) Read(p []byte) (int, error) {
	c.of.reads.Add(1)
	return c.Conn.Read(p)
}

func (c *countedConn) SetReadDeadline(t time.Time) error {
	c.of.deadlines.Add(1)
	return c.Conn.SetReadDeadline(t)
}

// serving is an http.Server of callers' connections, as the gateway has it.
func serving(t *testing.T, h http.HandlerFunc) (*http.Server, *counted) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &counted{Listener: inner}
	s := &http.Server{Handler: h, ConnState: entered, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	t.Cleanup(func() { _ = s.Close() })
	callers := &connections{Listener: l, metrics: newMetrics(issuer.NewCache(1<<20), ""), writeTimeout: time.Minute, slack: time.Second,
		most: func() int { return 10 }}
	go func() { _ = s.Serve(callers) }()
	return s, l
}

func dial(t *testing.T, l net.Listener) net.Conn {
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// net/http sets seven deadlines for each request and reads twice.
func TestQuickRequestsAreReadOnce(t *testing.T) {
	const requests = 200
	_, l := serving(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "served") })
	conn := dial(t, l)
	answers := bufio.NewReader(conn)
	for range requests {
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(res.Body); err != nil || string(body) != "served" {
			t.Fatalf("%q, %v", body, err)
		}
	}
	// A machine that stands still for a moment adds a few.
	if n := l.deadlines.Load(); n > requests/2 {
		t.Errorf("%d deadlines were set for %d requests", n, requests)
	}
	if n := l.reads.Load(); n > requests+requests/4 {
		t.Errorf("%d times was read for %d requests", n, requests)
	}
}

// Whoever waits for a slow answer may go, and the request's context tells it.
func TestReadingAheadSeesTheEnd(t *testing.T) {
	for name, end := range map[string]func(*http.Server, net.Conn) error{
		"the caller closes":      func(_ *http.Server, c net.Conn) error { return c.Close() },
		"the caller sends a FIN": func(_ *http.Server, c net.Conn) error { return c.(*net.TCPConn).CloseWrite() },
		"the server closes":      func(s *http.Server, _ net.Conn) error { return s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			began, ended := make(chan struct{}), make(chan struct{})
			s, l := serving(t, func(_ http.ResponseWriter, r *http.Request) {
				close(began)
				<-r.Context().Done()
				close(ended)
			})
			conn := dial(t, l)
			if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			<-began
			if err := end(s, conn); err != nil {
				t.Fatal(err)
			}
			select {
			case <-ended:
			case <-time.After(10 * time.Second):
				t.Fatal("the request does not end")
			}
		})
	}
}

// What comes while a request is served, and was read ahead, is the next one.
func TestPipelinedBehindASlowRequest(t *testing.T) {
	looked := make(chan struct{})
	_, l := serving(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-looked
		}
		_, _ = io.WriteString(w, r.URL.Path)
	})
	conn := dial(t, l)
	if _, err := io.WriteString(conn, "GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	for l.reads.Load() < 2 { // it reads ahead
		time.Sleep(time.Millisecond)
	}
	if _, err := io.WriteString(conn, "GET /next HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	close(looked)
	answers := bufio.NewReader(conn)
	for _, want := range []string{"/slow", "/next"} {
		res, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(res.Body); err != nil || string(body) != want {
			t.Fatalf("%q, %v; want %s", body, err, want)
		}
	}
}

// fewDeadlines is a connection that notes the deadlines for reading, and reads
// without end.
type fewDeadlines struct {
	net.Conn
	set []time.Time
}

func (c *fewDeadlines) SetReadDeadline(t time.Time) error {
	c.set = append(c.set, t)
	return nil
}

func (c *fewDeadlines) Read(p []byte) (int, error) { return len(p), nil }

func TestReadsHaveTheirDeadline(t *testing.T) {
	const slack = time.Second
	base, soon := time.Now().Add(time.Hour), time.Now().Add(7*slack)
	gone := time.Now().Add(-slack / 4)
	never, past := time.Time{}, time.Unix(1, 0)
	for name, test := range map[string]struct {
		secure bool
		wanted [][]time.Time // what is set before each Read
		want   []time.Time   // of the connection, in the end
	}{
		"none":                          {false, [][]time.Time{{}}, nil},
		"none, said so":                 {false, [][]time.Time{{never}}, nil},
		"one":                           {false, [][]time.Time{{base}}, []time.Time{base}},
		"the last of several":           {false, [][]time.Time{{base, never, base.Add(time.Minute)}}, []time.Time{base.Add(time.Minute)}},
		"the same":                      {false, [][]time.Time{{base}, {never, base}}, []time.Time{base}},
		"one a little later stands":     {false, [][]time.Time{{base}, {never, base.Add(slack)}}, []time.Time{base}},
		"one later does not":            {false, [][]time.Time{{base}, {base.Add(slack + 1)}}, []time.Time{base, base.Add(slack + 1)}},
		"nor does a sum of small steps": {false, [][]time.Time{{base}, {base.Add(slack)}, {base.Add(2 * slack)}}, []time.Time{base, base.Add(2 * slack)}},
		"nor if little time is left":    {false, [][]time.Time{{soon}, {never, soon.Add(slack)}}, []time.Time{soon, soon.Add(slack)}},
		"nor if the one set is over":    {false, [][]time.Time{{gone}, {never, gone.Add(slack)}}, []time.Time{gone, gone.Add(slack)}},
		"one earlier counts":            {false, [][]time.Time{{base}, {base.Add(-1)}}, []time.Time{base, base.Add(-1)}},
		"taken off":                     {false, [][]time.Time{{base}, {never}}, []time.Time{base, never}},
		"past, then taken off":          {false, [][]time.Time{{base}, {past, never}}, []time.Time{base, never}},
		"under TLS":                     {true, [][]time.Time{{base}, {never, base.Add(slack)}, {never}}, []time.Time{base, never}},
	} {
		t.Run(name, func(t *testing.T) {
			under := &fewDeadlines{}
			c := &clientConn{Conn: under, listener: &connections{slack: slack, secure: test.secure}, state: http.StateActive}
			c.look.L = &c.mu
			for _, deadlines := range test.wanted {
				for _, d := range deadlines {
					_ = c.SetReadDeadline(d)
				}
				if n, err := c.Read(make([]byte, 10)); n != 10 || err != nil {
					t.Fatalf("%d, %v", n, err)
				}
			}
			if !slices.EqualFunc(under.set, test.want, time.Time.Equal) {
				t.Errorf("deadlines %v\nwant      %v", under.set, test.want)
			}
		})
	}
}

// A Read ends by a deadline whenever it was set, and looks at nothing once it
// is past.
func TestReadsEnd(t *testing.T) {
	const timeout = time.Minute
	past := time.Unix(1, 0)
	for name, test := range map[string]struct {
		size  int
		then  func(*clientConn) // while the Read waits
		after time.Duration     // it ends
		want  error             // nil: it reads
	}{
		"woken":                            {10, func(c *clientConn) { _ = c.SetReadDeadline(past) }, 0, os.ErrDeadlineExceeded},
		"a deadline set meanwhile":         {10, func(c *clientConn) { _ = c.SetReadDeadline(time.Now().Add(timeout)) }, timeout, os.ErrDeadlineExceeded},
		"one set for both":                 {10, func(c *clientConn) { _ = c.SetDeadline(time.Now().Add(timeout)) }, timeout, os.ErrDeadlineExceeded},
		"closed":                           {10, func(c *clientConn) { _ = c.Close() }, 0, io.ErrClosedPipe},
		"ahead: woken":                     {1, func(c *clientConn) { _ = c.SetReadDeadline(past) }, 0, os.ErrDeadlineExceeded},
		"ahead: a deadline set meanwhile":  {1, func(c *clientConn) { _ = c.SetReadDeadline(time.Now().Add(timeout)) }, timeout, os.ErrDeadlineExceeded},
		"ahead: closed":                    {1, func(c *clientConn) { _ = c.Close() }, 0, io.ErrClosedPipe},
		"ahead: it looks after a while":    {1, func(*clientConn) {}, lookAfter, nil},
		"otherwise it looks at once":       {10, func(*clientConn) {}, 0, nil},
		"ahead: woken after it has looked": {1, func(c *clientConn) { time.Sleep(timeout); _ = c.SetReadDeadline(past) }, timeout, os.ErrDeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				defer func() { _, _ = ours.Close(), theirs.Close() }()
				c := &clientConn{Conn: ours, listener: &connections{metrics: newMetrics(issuer.NewCache(1<<20), "")}, state: http.StateActive}
				c.look.L = &c.mu
				_ = c.SetReadDeadline(time.Time{})
				start, ended := time.Now(), make(chan error)
				go func() {
					_, err := c.Read(make([]byte, test.size))
					ended <- err
				}()
				synctest.Wait()
				if test.want == nil {
					go func() { _, _ = theirs.Write([]byte("x")) }()
				}
				go test.then(c)
				if err := <-ended; !errors.Is(err, test.want) {
					t.Errorf("%v, want %v", err, test.want)
				}
				if took := time.Since(start); took != test.after {
					t.Errorf("it ended after %s, want %s", took, test.after)
				}
			})
		})
	}
}

// The timer that one request sets serves those that follow, each of which may
// take its time.
func TestReadingAheadWaitsForEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer func() { _, _ = ours.Close(), theirs.Close() }()
		var asked counted
		c := &clientConn{Conn: &countedConn{ours, &asked}, listener: &connections{}, state: http.StateActive}
		c.look.L = &c.mu
		ended := make(chan error)
		ahead := func() {
			_ = c.SetReadDeadline(time.Time{})
			go func() {
				_, err := c.Read(make([]byte, 1))
				ended <- err
			}()
		}
		for range 10 {
			ahead()
			time.Sleep(lookAfter / 5 * 4)
			_ = c.SetReadDeadline(time.Unix(1, 0))
			if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
		}
		if n := asked.reads.Load(); n != 0 {
			t.Errorf("it looked %d times", n)
		}
		ahead()
		start := time.Now()
		if _, err := theirs.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < lookAfter || took > 2*lookAfter {
			t.Errorf("it looked after %s", took)
		}
	})
}

// HTTP/2 reads single bytes, too, of frames that have no more.
func TestOnlyTheFirstByteWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &clientConn{Conn: &fewDeadlines{}, listener: &connections{}, state: http.StateActive}
		c.look.L = &c.mu
		_ = c.SetReadDeadline(time.Time{})
		start := time.Now()
		for range 3 {
			if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
				t.Fatal(n, err)
			}
		}
		if took := time.Since(start); took != lookAfter {
			t.Errorf("they took %s", took)
		}
	})
}
