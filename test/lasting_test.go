package test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// startLasting gives a gateway with WebSockets that echo at /ws and /kept, one
// that talks without end at /chatty, a stream at /events and no answer at
// /waits; what is at /kept outlives its token.
func startLasting(t *testing.T, more string, args ...string) (*gateway, *idp) {
	t.Helper()
	p := newIDP(t)
	return startWith(t, args, fill(lastingYAML, "IDP", p.URL, "BACKEND", newLastingBackend(t))+fill(more, "IDP", p.URL)), p
}

const lastingYAML = `
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
    leeway: 0s
routes:
  - match: /{rest...}
    privileges: []
    timeout: 1m
    upstream: BACKEND
  - match: /kept
    privileges: []
    close_on_expiry: false
    upstream: BACKEND
`

func newLastingBackend(t *testing.T) string {
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/chatty":
			conn, err := websocket.Accept(w, r, nil)
			for text := []byte(strings.Repeat("x", 1000)); err == nil; {
				err = conn.Write(context.Background(), websocket.MessageText, text)
			}
		case "/events":
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: first\n")
			_ = http.NewResponseController(w).Flush()
			hold(r, nil)
		case "/waits":
			hold(r, nil)
		default:
			echoFrames(w, r)
		}
	}))
	t.Cleanup(b.Close)
	return b.URL
}

// brief is a token that soon expires.
func brief(t *testing.T, p *idp, seconds float64) string {
	t.Helper()
	return p.token(t, claims{"exp": float64(time.Now().UnixMilli())/1000 + seconds})
}

// closedWith reads until the peer closes, and fails the test unless it does so
// by a close frame of that code.
func closedWith(t *testing.T, conn *websocket.Conn, code websocket.StatusCode) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		_, text, err := conn.Read(ctx)
		if err == nil {
			if strings.Trim(string(text), "x") != "" {
				t.Fatalf("a broken message: %.100q", text)
			}
			continue
		}
		if got := websocket.CloseStatus(err); got != code {
			t.Fatalf("closed with %d (%v), want %d", got, err, code)
		}
		return
	}
}

func (g *gateway) websocketAt(t *testing.T, path, token string) *websocket.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws://"+g.listen+path, &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + token}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	return conn
}

func TestWebSocketEndsWithItsToken(t *testing.T) {
	t.Parallel()
	g, p := startLasting(t, "")
	stays := g.websocketAt(t, "/ws", p.token(t))
	token := brief(t, p, 3)
	ends, kept := g.websocketAt(t, "/ws", token), g.websocketAt(t, "/kept", token)
	chatty, later := g.websocketAt(t, "/chatty", token), g.websocketAt(t, "/ws", brief(t, p, 4))
	for _, conn := range []*websocket.Conn{stays, ends, kept, later} {
		echoes(t, conn, "before")
	}
	closedWith(t, chatty, websocket.StatusPolicyViolation) // first: what waits to be read at the end is read in the time of the last words, or never
	closedWith(t, ends, websocket.StatusPolicyViolation)
	g.output.says(t, `"msg":"ended with its token"`)
	if !strings.Contains(g.output.String(), `"reason":"expired_token"`) {
		t.Error("the log does not say why")
	}
	g.do(t, "GET /ws", bearer(token)).refused(t, http.StatusUnauthorized, "expired_token")
	closedWith(t, later, websocket.StatusPolicyViolation) // by now the first ones' time is long over
	echoes(t, kept, "close_on_expiry: false")
	echoes(t, stays, "a token that is good")
}

// A client that sends on, and answers no close frame, is read to the end of
// its patience: a reset would take the close frame away.
func TestWebSocketThatSendsOnLearnsWhy(t *testing.T) {
	t.Parallel()
	g, p := startLasting(t, "")
	conn := dial(t, g.listen)
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"+bearer(brief(t, p, 2))+"\r\n\r\n")
	r := bufio.NewReader(conn)
	if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp, err)
	}
	go func() {
		for {
			if _, err := conn.Write([]byte{0x81, 0x80 | 2, 0, 0, 0, 0, 'h', 'i'}); err != nil {
				return
			}
		}
	}()
	for {
		opcode, payload, err := readFrame(r)
		if err != nil {
			t.Fatalf("it ended without a close frame: %v", err)
		}
		if opcode == 8 {
			if payload[0] != 1008>>8 || payload[1] != 1008&0xff {
				t.Errorf("closed with % x", payload)
			}
			break
		}
	}
	if n, _ := io.Copy(io.Discard, r); n > 0 {
		t.Errorf("%d bytes after the close frame", n)
	}
}

func TestStreamEndsWithItsToken(t *testing.T) {
	t.Parallel()
	g, p := startLasting(t, "")
	conn, body := g.stream(t, "GET /events HTTP/1.1\r\nHost: x\r\n"+bearer(brief(t, p, 2))+"\r\n\r\n")
	defer func() { _ = conn.Close() }()
	readLine(t, body, "data: first")
	var timeout interface{ Timeout() bool }
	if _, err := body.ReadString('\n'); err == nil || err == io.EOF || errors.As(err, &timeout) {
		t.Errorf("the stream ends with %v, want one that is seen to be broken off", err)
	}
	g.output.says(t, `"msg":"ended with its token"`)
	g.do(t, "GET /waits", bearer(brief(t, p, 2))).refused(t, http.StatusUnauthorized, "expired_token")
}

func TestRevokedWhileConnected(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"lookup", "replica"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			r := startRedis(t)
			g, p := startLasting(t, fill("redis:\n  url: REDIS\nrevocation:\n  mode: MODE\n", "REDIS", r.URL, "MODE", mode))
			token := p.token(t, claims{"jti": "stolen"})
			ends, stays := g.websocketAt(t, "/ws", token), g.websocketAt(t, "/ws", p.token(t))
			kept := g.websocketAt(t, "/kept", token)
			events, body := g.stream(t, "GET /events HTTP/1.1\r\nHost: x\r\n"+bearer(token)+"\r\n\r\n")
			defer func() { _ = events.Close() }()
			readLine(t, body, "data: first")
			echoes(t, ends, "before")
			r.do(t, "SET", "revoked:jti:main:stolen", "1", "EX", "600")
			closedWith(t, ends, websocket.StatusPolicyViolation)
			if _, err := body.ReadString('\n'); err != io.ErrUnexpectedEOF {
				t.Errorf("the stream ends with %v", err)
			}
			g.output.says(t, `"reason":"revoked_token"`)
			echoes(t, stays, "another token")
			echoes(t, kept, "close_on_expiry: false")
			r.proc.kill() // an outage ends nothing
			echoes(t, stays, "without Redis")
		})
	}
}

func TestGraceEndsWithACloseFrame(t *testing.T) {
	t.Parallel()
	g, p := startLasting(t, "", "--grace", "300ms")
	conn, chatty := g.websocketAt(t, "/ws", p.token(t)), g.websocketAt(t, "/chatty", p.token(t))
	echoes(t, conn, "before")
	g.signal(syscall.SIGTERM)
	closedWith(t, conn, websocket.StatusGoingAway)
	closedWith(t, chatty, websocket.StatusGoingAway)
	if status := g.exit(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
}
