package gateway

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// piped is a listener with one connection.
type piped struct {
	net.Listener
	conns chan net.Conn
}

func (p *piped) Accept() (net.Conn, error) {
	if c, ok := <-p.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (p *piped) Close() error { close(p.conns); return nil }

// Who asks the status or the admin listener and takes nothing of the answer
// loses the connection, with all that he has asked for ahead.
func TestBackListenersWaitForNoReader(t *testing.T) {
	b := newBench(t, func(http.ResponseWriter, *http.Request) {}, adminYAML)
	for path, handler := range map[string]func() http.Handler{"/metrics": b.gateway.Status, "/page.js": b.gateway.Admin} {
		t.Run(path[1:], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				defer func() { _ = theirs.Close() }()
				s, closed := b.gateway.backServer(handler(), t.Context()), make(chan struct{})
				s.ConnState = func(_ net.Conn, state http.ConnState) {
					if state == http.StateClosed {
						close(closed)
					}
				}
				l := &piped{conns: make(chan net.Conn, 1)}
				l.conns <- ours
				go func() { _ = s.Serve(l) }()
				defer func() { _ = s.Close() }()
				start := time.Now()
				if _, err := theirs.Write([]byte(strings.Repeat("GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n", 10))); err != nil {
					t.Fatal(err)
				}
				<-closed
				if took := time.Since(start); took != backWriteTimeout {
					t.Errorf("it was closed after %s", took)
				}
			})
		})
	}
}

// untaken is an answer of which nothing is taken before taken is closed.
type untaken struct {
	*httptest.ResponseRecorder
	begun chan<- struct{}
	taken <-chan struct{}
	once  sync.Once
}

func (u *untaken) Write(p []byte) (int, error) {
	u.once.Do(func() { u.begun <- struct{}{} })
	<-u.taken
	return u.ResponseRecorder.Write(p)
}

func TestScrapesAreBounded(t *testing.T) {
	status := newBench(t, nil, "").gateway.Status()
	get := func(w http.ResponseWriter, path string) { status.ServeHTTP(w, httptest.NewRequest("GET", path, nil)) }
	begun, taken := make(chan struct{}), make(chan struct{})
	var slow [maxScrapes]*httptest.ResponseRecorder
	var done sync.WaitGroup
	for i := range slow {
		slow[i] = httptest.NewRecorder()
		done.Go(func() { get(&untaken{ResponseRecorder: slow[i], begun: begun, taken: taken}, "/metrics") })
	}
	for range slow {
		<-begun
	}
	for path, want := range map[string]int{"/metrics": http.StatusServiceUnavailable, "/livez": http.StatusOK, "/readyz": http.StatusOK} {
		w := httptest.NewRecorder()
		get(w, path)
		if w.Code != want {
			t.Errorf("beside %d scrapes %s is %d", maxScrapes, path, w.Code)
		}
	}
	close(taken)
	done.Wait()
	last := httptest.NewRecorder()
	get(last, "/metrics")
	for _, w := range append(slow[:], last) {
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "gatehouse_build_info") {
			t.Errorf("a scrape is %d: %.100s", w.Code, w.Body)
		}
	}
}
