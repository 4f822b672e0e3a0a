package test

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// startWebSocket gives a gateway whose backend echoes frames by a hand-written
// server, which shares no code with the client.
func startWebSocket(t *testing.T) (*gateway, *idp, chan http.Header) {
	t.Helper()
	p, headers := newIDP(t), make(chan http.Header, 10)
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		headers <- r.Header
		echoFrames(w, r)
	}))
	t.Cleanup(b.Close)
	return start(t, fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
routes:
  - match: GET /ws
    privileges: [READ_HEROES]
    timeout: 1s
    upstream: BACKEND
`, "IDP", p.URL, "BACKEND", b.URL)), p, headers
}

// echoFrames speaks the server's side of RFC 6455 for short unfragmented frames.
func echoFrames(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer func() { _ = conn.Close() }()
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Jwt-Sub: leaked\r\nSec-WebSocket-Accept: " +
		base64.StdEncoding.EncodeToString(sum[:]) + "\r\n\r\n")
	_ = rw.Flush()
	for {
		opcode, payload, err := readFrame(rw.Reader)
		if err != nil {
			return
		}
		_, _ = rw.Write(append([]byte{0x80 | opcode, byte(len(payload))}, payload...))
		_ = rw.Flush()
		if opcode == 8 {
			return
		}
	}
}

func readFrame(r *bufio.Reader) (opcode byte, payload []byte, err error) {
	var head [2]byte
	if _, err = io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	var mask [4]byte
	if head[1]&0x80 != 0 {
		if _, err = io.ReadFull(r, mask[:]); err != nil {
			return 0, nil, err
		}
	}
	payload = make([]byte, head[1]&0x7f) // 126 and 127 would announce a longer length; no test sends them
	_, err = io.ReadFull(r, payload)
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return head[0] & 0x0f, payload, err
}

func (g *gateway) websocket(t *testing.T, token string) *websocket.Conn {
	t.Helper()
	return g.caller(t, "http/1.1", nil).websocket(t, "/ws", token)
}

func (c *caller) websocket(t *testing.T, path, token string) *websocket.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	conn, resp, err := websocket.Dial(ctx, c.URL+path, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: c.Transport},
		HTTPHeader: http.Header{"Authorization": {"Bearer " + token}, "X_jwt_sub": {"smuggled"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.Header.Get("X-Jwt-Sub"); got != "" {
		t.Errorf("the caller got X-Jwt-Sub: %s", got)
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	return conn
}

func echoes(t *testing.T, conn *websocket.Conn, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := conn.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		t.Fatal(err)
	}
	if _, got, err := conn.Read(ctx); err != nil || string(got) != text {
		t.Fatalf("the echo is %q, %v", got, err)
	}
}

func TestWebSocket(t *testing.T) {
	t.Parallel()
	g, p, headers := startWebSocket(t)
	conn := g.websocket(t, p.token(t))
	h := receive(t, "the handshake at the backend", headers)
	if h.Get("X-Jwt-Sub") != "alice" || h.Get("Authorization") != "" || h["X_jwt_sub"] != nil {
		t.Errorf("the backend's handshake is %v", h)
	}
	for _, text := range []string{"hello", "", strings.Repeat("x", 100)} {
		echoes(t, conn, text)
	}
	if err := conn.Close(websocket.StatusNormalClosure, "bye"); err != nil {
		t.Errorf("the close handshake: %v", err)
	}
}

// TestWebSocketEverywhere: over TLS both sides take HTTP/1.1 for it, though
// they would rather speak HTTP/2; and a target that speaks nothing else gets none.
func TestWebSocketEverywhere(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	shown := ca.issue(t, "127.0.0.1")
	between(t, ca, shown, backends(t, echoFrames, shown), func(t *testing.T, c, _ *caller) {
		if c.Transport.(*http.Transport).Protocols.UnencryptedHTTP2() {
			return // it cannot take another protocol
		}
		if strings.HasSuffix(c.URL, "/prior") {
			resp := c.send(t, "GET", "/ws", nil, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")
			if resp.StatusCode != http.StatusBadGateway {
				t.Errorf("a target without HTTP/1.1: %d", resp.StatusCode)
			}
			return
		}
		conn := c.websocket(t, "/ws", "")
		echoes(t, conn, "hello")
		if err := conn.Close(websocket.StatusNormalClosure, "bye"); err != nil {
			t.Errorf("the close handshake: %v", err)
		}
	})
}

func TestWebSocketNeedsAToken(t *testing.T) {
	t.Parallel()
	g, p, headers := startWebSocket(t)
	handshake := "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
	for status, header := range map[int]string{401: "X: y", 403: bearer(p.token(t, claims{"privileges": "NONE"}))} {
		conn := dial(t, g.listen)
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, handshake+header+"\r\n\r\n")
		if a := readAnswer(t, bufio.NewReader(conn), "GET"); a.status != status {
			t.Errorf("%s: %d, want %d", header, a.status, status)
		}
	}
	if len(headers) > 0 {
		t.Error("a refused handshake reached the backend")
	}
}

// TestWebSocketByHand has a hand-written client.
func TestWebSocketByHand(t *testing.T) {
	t.Parallel()
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = conn.CloseNow() }()
		for {
			kind, text, err := conn.Read(r.Context())
			if err != nil || conn.Write(r.Context(), kind, text) != nil {
				return
			}
		}
	}))
	t.Cleanup(b.Close)
	g := start(t, fill(`
routes:
  - match: GET /ws
    public: true
    upstream: BACKEND
`, "BACKEND", b.URL))
	conn := dial(t, g.listen)
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.Header.Get("Sec-WebSocket-Accept"); resp.StatusCode != http.StatusSwitchingProtocols || got != "ICX+Yqv66kxgM0FcWaLWlFLwTAI=" {
		t.Fatalf("%d, Sec-WebSocket-Accept: %s", resp.StatusCode, got)
	}
	_, _ = conn.Write([]byte{0x81, 0x80 | 2, 0, 0, 0, 0, 'h', 'i'}) // text, masked by zeros
	if opcode, text, err := readFrame(r); err != nil || opcode != 1 || string(text) != "hi" {
		t.Errorf("the echo is %d %q, %v", opcode, text, err)
	}
}
