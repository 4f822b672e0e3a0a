package test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const slowYAML = `
server:
  ADDRESSES
  max_connections: 40
  read_header_timeout: 500ms
  idle_timeout: 700ms
  write_timeout: 600ms
TLS
routes:
  - match: /stream
    public: true
    idle_timeout: 400ms
    upstream: STREAM
  - match: /{rest...}
    public: true
    idle_timeout: 400ms
    upstream: BACKEND
`

// startSlow gives a gateway that is soon out of patience.
func startSlow(t *testing.T, tls string, files ...file) *gateway {
	t.Helper()
	endless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}))
	t.Cleanup(endless.Close)
	return start(t, fill(slowYAML, "TLS\n", tls, "STREAM", endless.URL, "BACKEND", newBackend(t).URL), files...)
}

// closes fails the test unless the gateway ends the connection by itself.
func closes(t *testing.T, what string, conn net.Conn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, conn); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Errorf("%s: the connection stays", what)
	}
	_ = conn.Close()
}

// counts waits until the metric has at least that value.
func (g *gateway) counts(t *testing.T, metric string, least float64) {
	t.Helper()
	eventually(t, metric, func() bool { return g.metric(t, metric) >= least })
}

func TestSlowClientsAreBounded(t *testing.T) {
	t.Parallel()
	g := startSlow(t, "")
	timeouts := func(phase string) string { return `gatehouse_connection_timeouts_total{phase="` + phase + `"}` }

	closes(t, "nothing is sent", dial(t, g.listen))
	g.counts(t, timeouts("headers"), 1)

	conn := dial(t, g.listen)
	_, _ = io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: x\r\nX")
	closes(t, "half a header", conn)
	g.counts(t, timeouts("headers"), 2)

	conn = dial(t, g.listen)
	_, _ = io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: x\r\n\r\nGET /x HTTP/1.1\r\nHo")
	readAnswer(t, bufio.NewReader(conn), "GET")
	closes(t, "half of a second request's header", conn)
	g.counts(t, timeouts("headers"), 3)

	conn = dial(t, g.listen)
	_, _ = io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
	readAnswer(t, bufio.NewReader(conn), "GET")
	g.counts(t, `gatehouse_connections{state="idle"}`, 1)
	closes(t, "idle", conn)
	g.counts(t, timeouts("idle"), 1)

	conn = dial(t, g.listen)
	_, _ = io.WriteString(conn, "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
	readAnswer(t, bufio.NewReader(conn), "POST").refused(t, http.StatusBadRequest, "bad_request")
	closes(t, "half a body", conn)
	g.counts(t, `gatehouse_requests_total{reason="bad_request",route="/{rest...}",status="400"}`, 1)

	eventually(t, "every connection is gone", func() bool {
		open := 0.0
		for _, state := range []string{"new", "active", "idle", "upgraded"} {
			open += g.metric(t, `gatehouse_connections{state="`+state+`"}`)
		}
		return open == 0
	})
}

// TestSlowReadersAreBounded: a client that asks and does not read is cut off,
// and so is who it was asked of.
func TestSlowReadersAreBounded(t *testing.T) {
	t.Parallel()
	g := startSlow(t, "")
	stuck := dial(t, g.listen)
	defer func() { _ = stuck.Close() }()
	_, _ = io.WriteString(stuck, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
	g.counts(t, `gatehouse_connections{state="active"}`, 1)
	eventually(t, "the endless answer ends", func() bool { return g.metric(t, `gatehouse_connections{state="active"}`) == 0 })

	// Refusals, too, have to be taken: many of them fill what the kernel holds.
	conn := dial(t, g.listen)
	defer func() { _ = conn.Close() }()
	go func() {
		many := strings.Repeat("GET /.. HTTP/1.1\r\nHost: x\r\n\r\n", 1000)
		for {
			if _, err := io.WriteString(conn, many); err != nil {
				return
			}
		}
	}()
	g.counts(t, `gatehouse_connection_timeouts_total{phase="response"}`, 1)
	eventually(t, "the connection is gone", func() bool { return g.metric(t, `gatehouse_connections{state="active"}`) == 0 })
}

func TestSlowHandshakesAreBounded(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	g := startSlow(t, "  tls:\n    cert_file: api.pem\n    key_file: api.key\n", ca.issue(t, "127.0.0.1").files("api")...)
	closes(t, "no handshake", dial(t, g.listen))
	g.counts(t, `gatehouse_connection_timeouts_total{phase="handshake"}`, 1)
	conn := dial(t, g.listen)
	_, _ = conn.Write([]byte{22, 3, 1, 2, 0, 1, 0, 1}) // the beginning of a ClientHello
	closes(t, "half a handshake", conn)
	g.counts(t, `gatehouse_connection_timeouts_total{phase="handshake"}`, 2)

	secure := tls.Client(dial(t, g.listen), trusting(ca))
	_, _ = io.WriteString(secure, "GET /x HTTP/1.1\r\nHost: x\r\nX")
	closes(t, "half a header", secure)
	g.counts(t, `gatehouse_connection_timeouts_total{phase="headers"}`, 1)

	// In chunks the end of a request is in doubt where nobody can count.
	secure = tls.Client(dial(t, g.listen), trusting(ca))
	_, _ = io.WriteString(secure, "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"+smuggled)
	answers := bufio.NewReader(secure)
	if a := readAnswer(t, answers, "POST"); a.status != http.StatusOK {
		t.Errorf("chunks: %d", a.status)
	}
	if rest, _ := io.ReadAll(answers); len(rest) > 0 {
		t.Errorf("after the answer came %q", rest)
	}
}

func TestConnectionsAreCapped(t *testing.T) {
	t.Parallel()
	yaml := fill(slowYAML, "TLS\n", "", "STREAM", "http://"+freeAddress(t), "BACKEND", newBackend(t).URL, "max_connections: 40", "max_connections: 3", "500ms", "1m", "700ms", "1m")
	g := start(t, yaml)
	var open []net.Conn
	for range 3 {
		conn := dial(t, g.listen)
		_, _ = io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
		readAnswer(t, bufio.NewReader(conn), "GET")
		open = append(open, conn)
	}
	closes(t, "one too many", dial(t, g.listen))
	g.counts(t, "gatehouse_connections_refused_total", 1)
	_ = open[0].Close()
	eventually(t, "there is room again", func() bool {
		conn := dial(t, g.listen)
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err == nil {
			_ = resp.Body.Close()
		}
		return err == nil && resp.StatusCode == http.StatusOK
	})
	g.reload(t, strings.Replace(yaml, "max_connections: 3", "max_connections: 100", 1))
	g.output.says(t, "configuration reloaded")
	for range 10 {
		conn := dial(t, g.listen)
		_, _ = io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
		readAnswer(t, bufio.NewReader(conn), "GET")
		open = append(open, conn)
	}
	for _, conn := range open {
		_ = conn.Close()
	}
}
