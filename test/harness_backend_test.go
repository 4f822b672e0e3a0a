package test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// backend is one that keeps every byte that reached it.
type backend struct {
	URL    string
	Answer string // its answer, byte for byte

	mu       sync.Mutex
	requests []request
	bytes    int // of all connections, in requests or not
}

// request is one as it came over the wire.
type request struct {
	raw  string // head, body with its framing, trailers
	body string // without framing
}

// newBackend starts a backend that answers 200.
func newBackend(t *testing.T) *backend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{URL: "http://" + l.Addr().String(), Answer: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			go b.serve(conn)
		}
	}()
	return b
}

func (b *backend) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	var raw bytes.Buffer
	r := bufio.NewReader(io.TeeReader(conn, &raw))
	for {
		raw.Reset()
		req, err := http.ReadRequest(r)
		if err != nil {
			b.note(raw.Len(), nil)
			return
		}
		body, _ := io.ReadAll(req.Body)
		b.note(raw.Len(), &request{raw.String(), string(body)})
		reply := b.Answer
		if req.Method == http.MethodHead {
			head, _, _ := strings.Cut(reply, "\r\n\r\n")
			reply = head + "\r\n\r\n"
		}
		if _, err := io.WriteString(conn, reply); err != nil {
			return
		}
	}
}

func (b *backend) note(n int, r *request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bytes += n
	if r != nil {
		b.requests = append(b.requests, *r)
	}
}

// count returns how many requests came so far.
func (b *backend) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.requests)
}

// last returns the newest request.
func (b *backend) last(t *testing.T) request {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.requests) == 0 {
		t.Fatal("nothing reached the backend")
	}
	return b.requests[len(b.requests)-1]
}

// all returns every request so far.
func (b *backend) all() []request {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.requests)
}

// untouched fails the test if a single byte reached the backend.
func (b *backend) untouched(t *testing.T) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bytes > 0 {
		t.Errorf("%d bytes reached the backend: %.2000q", b.bytes, b.requests)
	}
}

// line returns the request line.
func (r request) line() string { return firstLine(r.raw) }

// header returns the values of the header lines of that name, in any case but
// in no other spelling.
func (r request) header(name string) []string {
	head, _, _ := strings.Cut(r.raw, "\r\n\r\n")
	var values []string
	for line := range strings.SplitSeq(head, "\r\n") {
		if n, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(n, name) {
			values = append(values, strings.TrimSpace(value))
		}
	}
	return values
}

// has fails the test unless there is one line of that header, with that value.
func (r request) has(t *testing.T, name, value string) {
	t.Helper()
	if got := r.header(name); len(got) != 1 || got[0] != value {
		t.Errorf("the backend got %s: %q, want %q", name, got, value)
	}
}

// lacks fails the test if there is a line of that header.
func (r request) lacks(t *testing.T, name string) {
	t.Helper()
	if got := r.header(name); got != nil {
		t.Errorf("the backend got %s: %q, want none", name, got)
	}
}

// clean fails the test if the word stands anywhere in the request.
func (r request) clean(t *testing.T, word string) {
	t.Helper()
	if strings.Contains(r.raw, word) {
		t.Errorf("%q reached the backend:\n%s", word, r.raw)
	}
}

// hold keeps a handler until the channel is closed, or its caller has gone, so
// that a story that fails does not hang.
func hold(r *http.Request, until <-chan struct{}) {
	select {
	case <-until:
	case <-r.Context().Done():
	}
}

// hanging starts a backend that never answers.
func hanging(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // net/http notices only then that the caller has gone
		hold(r, nil)
	}))
	t.Cleanup(s.Close)
	return s
}
