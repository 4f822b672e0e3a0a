package test

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// answer is what a caller got.
type answer struct {
	status int
	header http.Header
	body   string
}

// do sends a request without a body, given as "METHOD TARGET" and header lines,
// byte for byte, and returns the answer. A Host line is added if none is given.
func (g *gateway) do(t *testing.T, request string, headers ...string) answer {
	t.Helper()
	head := request + " HTTP/1.1\r\n"
	hasHost := false
	for _, h := range headers {
		hasHost = hasHost || strings.HasPrefix(h, "Host:")
	}
	if !hasHost {
		head += "Host: gatehouse.example\r\n"
	}
	for _, h := range headers {
		head += h + "\r\n"
	}
	return g.send(t, head+"Connection: close\r\n\r\n")
}

// send writes raw bytes to the gateway and returns its one answer; anything
// after that answer fails the test. The request must ask for the connection to
// be closed, or be one after which the gateway closes it.
func (g *gateway) send(t *testing.T, raw string) answer {
	t.Helper()
	conn := dial(t, g.listen)
	defer func() { _ = conn.Close() }()
	// Beside the reading: a request that is refused early is never read whole.
	go func() { _, _ = io.WriteString(conn, raw) }()
	method, _, _ := strings.Cut(raw, " ")
	r := bufio.NewReader(conn)
	a := readAnswer(t, r, method)
	if rest, _ := io.ReadAll(r); len(rest) > 0 {
		t.Errorf("%s: after the answer %d came more: %.200q", firstLine(raw), a.status, rest)
	}
	return a
}

// readAnswer reads the final answer to a request of that method.
func readAnswer(t *testing.T, r *bufio.Reader, method string) answer {
	t.Helper()
	for {
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("no answer: %v", err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatalf("the answer %d is cut short: %v", resp.StatusCode, err)
		}
		if resp.StatusCode < 200 && resp.StatusCode != http.StatusSwitchingProtocols {
			continue
		}
		if resp.StatusCode >= 400 {
			forbidTokens(t, "a refusal", string(body))
		}
		return answer{resp.StatusCode, resp.Header, string(body)}
	}
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func firstLine(raw string) string {
	line, _, _ := strings.Cut(raw, "\r\n")
	return line
}

// bearer is the header line that carries a token.
func bearer(token string) string { return "Authorization: Bearer " + token }

// is fails the test unless the answer has that status.
func (a answer) is(t *testing.T, status int) {
	t.Helper()
	if a.status != status {
		t.Errorf("got %d, want %d\n%.1000s", a.status, status, a.body)
	}
}

// problem is the body of a refusal (RFC 9457).
type problem struct {
	Type, Title, Reason string
	Status              int
	RequestID           string `json:"request_id"`
}

// refused fails the test unless the answer is a whole refusal of that status and reason.
func (a answer) refused(t *testing.T, status int, reason string) problem {
	t.Helper()
	var p problem
	if a.status != status {
		t.Errorf("got %d, want %d %s\n%.1000s", a.status, status, reason, a.body)
		return p
	}
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("%d %s: Content-Type is %q\n%.1000s", status, reason, got, a.body)
		return p
	}
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		t.Errorf("%d %s: %v: %s", status, reason, err, a.body)
		return p
	}
	if p.Reason != reason || p.Status != status || p.Type == "" || p.Title == "" || p.RequestID == "" {
		t.Errorf("want reason %s and status %d, and a type, title and request_id: %s", reason, status, a.body)
	}
	return p
}

// challenges fails the test unless WWW-Authenticate is a Bearer challenge with
// a realm and, unless it is empty, that error code (RFC 6750 §3).
func (a answer) challenges(t *testing.T, code string) {
	t.Helper()
	got := a.header.Values("WWW-Authenticate")
	switch {
	case len(got) != 1 || !strings.HasPrefix(got[0], "Bearer ") || !strings.Contains(got[0], `realm="`):
		t.Errorf("%d: WWW-Authenticate is %q, want one Bearer challenge with a realm", a.status, got)
	case code == "" && strings.Contains(got[0], "error"):
		t.Errorf("%d: WWW-Authenticate is %q, want no error", a.status, got)
	case code != "" && !strings.Contains(got[0], `error="`+code+`"`):
		t.Errorf(`%d: WWW-Authenticate is %q, want error="%s"`, a.status, got, code)
	}
}
