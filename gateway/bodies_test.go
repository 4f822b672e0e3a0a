package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A transport reads a body in a goroutine of its own, while the headers of an
// answer that came early are written. The race detector tells.
func TestABodyOutgrowsItsBoundBesideItsAnswer(t *testing.T) {
	early, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = early.Close() }()
	go func() {
		for {
			conn, err := early.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
					return
				}
				_, _ = io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly")
				_, _ = io.Copy(io.Discard, conn)
			}()
		}
	}()
	b := newBench(t, func(http.ResponseWriter, *http.Request) {}, fmt.Sprintf(`
  - match: POST /bounded
    public: true
    max_body: 10B
    upstream: http://%s
`, early.Addr()))
	statuses := map[int]int{}
	for range 200 {
		conn, err := net.Dial("tcp", b.front.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.WriteString(conn, "POST /bounded HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n14\r\n"+strings.Repeat("a", 20)+"\r\n"); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(conn)
		for {
			res, err := http.ReadResponse(in, nil)
			if err != nil {
				break // the answer was under way, and is broken off
			}
			if res.StatusCode < 200 {
				continue
			}
			statuses[res.StatusCode]++
			if !res.Close {
				t.Errorf("%s on a connection that stays", res.Status)
			}
			break
		}
		_ = conn.Close()
	}
	if statuses[http.StatusOK]+statuses[http.StatusRequestEntityTooLarge] == 0 {
		t.Errorf("nobody was answered: %v", statuses)
	}
}

// A browser sends no body with a preflight. Who announces one and keeps silent
// is answered, and let go.
func TestAPreflightIsAnsweredThatKeepsItsBody(t *testing.T) {
	b := newBench(t, func(http.ResponseWriter, *http.Request) {}, `
  - match: GET /shared
    public: true
    cors:
      allow_origins: [https://app.example]
    upstream: http://127.0.0.1:1
`)
	for _, body := range []string{"Content-Length: 10\r\n\r\n", "Content-Length: 1000000\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "\r\n"} {
		conn, err := net.Dial("tcp", b.front.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() }) // before the front's, which waits for it
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.WriteString(conn, "OPTIONS /shared HTTP/1.1\r\nHost: x\r\nOrigin: https://app.example\r\nAccess-Control-Request-Method: GET\r\n"+body); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(conn)
		res, err := http.ReadResponse(in, nil)
		if err != nil || res.StatusCode != http.StatusNoContent || res.Header.Get("Access-Control-Allow-Origin") != "https://app.example" {
			t.Fatalf("%q: %v, %v", body, res, err)
		}
		if body == "\r\n" {
			if res.Close {
				t.Errorf("a preflight without a body costs its connection")
			}
		} else if _, err := io.Copy(io.Discard, in); err != nil {
			t.Errorf("%q: the connection stays open: %v", body, err)
		}
	}
}

// Who asks before he sends a body is refused at once, and not waited for: he
// waits himself (RFC 9110 §10.1.1).
func TestWhoAsksBeforeHeSendsIsRefusedAtOnce(t *testing.T) {
	b := newBench(t, func(http.ResponseWriter, *http.Request) {}, `
  - match: POST /bounded
    max_body: 10B
    privileges: [READ]
    upstream: http://127.0.0.1:1
  - match: POST /any
    privileges: [READ]
    upstream: http://127.0.0.1:1
`)
	synctest.Test(t, func(t *testing.T) {
		for _, path := range []string{"/bounded", "/any"} {
			for expect, want := range map[string]time.Duration{"": smallWait, "Expect: 100-continue\r\n": 0} {
				ours, theirs := net.Pipe()
				s := b.gateway.server(b.gateway, t.Context())
				l := &piped{conns: make(chan net.Conn, 1)}
				l.conns <- ours
				go func() { _ = s.Serve(l) }()
				start := time.Now()
				if _, err := io.WriteString(theirs, "POST "+path+" HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"+expect+"\r\n"); err != nil {
					t.Fatal(err)
				}
				res, err := http.ReadResponse(bufio.NewReader(theirs), nil)
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start); res.StatusCode != http.StatusUnauthorized || took != want || !res.Close {
					t.Errorf("%s %q: %s after %s, the connection ends: %t", path, expect, res.Status, took, res.Close)
				}
				_, _ = res.Body.Close(), theirs.Close()
				_ = s.Close()
			}
		}
	})
}

// Who still sends when the answer comes is given time to read it: a connection
// that is closed over unread bytes is reset, and the answer lost.
func TestWhoSendsTooMuchReadsWhy(t *testing.T) {
	reads := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer reads.Close()
	b := newBench(t, func(http.ResponseWriter, *http.Request) {}, strings.ReplaceAll(`
  - match: POST /bounded
    public: true
    max_body: 10B
    upstream: BACKEND
  - match: POST /bounded/guarded
    max_body: 10MiB
    privileges: [READ]
    upstream: BACKEND
`, "BACKEND", reads.URL))
	for path, want := range map[string]int{"/bounded": http.StatusRequestEntityTooLarge, "/bounded/guarded": http.StatusUnauthorized} {
		for range 5 {
			conn, err := net.Dial("tcp", b.front.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.WriteString(conn, "POST "+path+" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			sent := make(chan struct{})
			go func() { // much more than is read of it
				defer close(sent)
				chunk := "10000\r\n" + strings.Repeat("a", 1<<16) + "\r\n"
				for range 100 {
					if _, err := io.WriteString(conn, chunk); err != nil {
						return
					}
				}
			}()
			in := bufio.NewReader(conn)
			res, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatalf("%s: no answer: %v", path, err)
			}
			if text, err := io.ReadAll(res.Body); err != nil || res.StatusCode != want {
				t.Fatalf("%s: %s %q, %v", path, res.Status, text, err)
			}
			if _, err := in.ReadByte(); err != io.EOF {
				t.Fatalf("%s: the connection is reset before it ends: %v", path, err)
			}
			_ = conn.Close()
			<-sent
		}
	}
}
