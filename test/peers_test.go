package test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// question is one request to a real backend.
type question struct {
	line, body string // the body is sent in chunks if it begins with a dash
	headers    []string
}

// boundary is what nginx counts up from response to response.
var boundary = regexp.MustCompile(`\b0\d{19}\b`)

// tells asks and returns all that can be seen of the answer, whoever passed it
// on. net/http's client may close a connection under itself when an answer
// comes early, and lose it; then it asks again.
func (c *caller) tells(t *testing.T, q question) string {
	t.Helper()
	for tries := 1; ; tries++ {
		seen, err := c.ask(t, q)
		if err == nil {
			return seen
		}
		if tries == 5 || !errors.Is(err, net.ErrClosed) {
			t.Fatalf("%s: %v", q.line, err)
		}
	}
}

func (c *caller) ask(t *testing.T, q question) (string, error) {
	t.Helper()
	var seen strings.Builder
	continued := false
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(status int, h textproto.MIMEHeader) error {
		// A target that is slow to say 100 says it when the gateway has said it already.
		if status != http.StatusContinue || !continued {
			_, _ = fmt.Fprintln(&seen, status, h)
		}
		continued = continued || status == http.StatusContinue
		return nil
	}})
	var body io.Reader = http.NoBody
	rest, chunked := strings.CutPrefix(q.body, "-")
	if chunked {
		body = struct{ io.Reader }{strings.NewReader(rest)}
	} else if q.body != "" {
		body = strings.NewReader(rest)
	}
	method, target, _ := strings.Cut(q.line, " ")
	req, err := http.NewRequestWithContext(ctx, method, c.URL+target, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "heroes.example"
	for _, h := range q.headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header[name] = append(req.Header[name], value)
	}
	if chunked { // only HTTP/2 may have trailers and a length
		req.Trailer = http.Header{"X-Check": {"9"}}
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(resp.Body)
	if resp.Header.Get("Date") == "" {
		seen.WriteString("no Date\n")
	}
	for _, hop := range []string{"Connection", "Keep-Alive", "Date"} {
		resp.Header.Del(hop)
	}
	if len(resp.Trailer) > 0 { // only HTTP/2 may have trailers and a length
		resp.Header.Del("Content-Length")
	}
	_, _ = fmt.Fprintf(&seen, "%d\n%v\n%v\n%v\n%q", resp.StatusCode, resp.Header, resp.Trailer, err != nil, got)
	return boundary.ReplaceAllString(seen.String(), "BOUNDARY"), nil
}

// unchanged asks the backend through the gateway and past it, and fails the
// test if any difference is to be seen.
func unchanged(t *testing.T, c, direct *caller, questions []question) {
	t.Helper()
	for _, q := range questions {
		if got, want := c.tells(t, q), direct.tells(t, q); got != want {
			t.Errorf("%s %q gets\n%.2000s\n\npast the gateway\n%.2000s", q.line, q.headers, got, want)
		}
	}
}

func TestNginxBehindTheGateway(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	shown := ca.issue(t, "127.0.0.1")
	since := func(name string) string { return name + ": Sun, 09 Sep 2001 01:46:40 GMT" }
	questions := []question{
		{"GET /digits.txt", "", nil},
		{"GET /empty.txt", "", nil},
		{"GET /nothing", "", nil},
		{"GET /none", "", nil},
		{"GET /dir", "", nil}, // a redirect
		{"GET /dir/a%20b.txt", "", nil},
		{"GET /dir/a%20b.txt?%zz&a;b=%2F?", "", nil},
		{"GET /uri/%7e/%C3%A9/a+b,c=%20d?", "", nil},
		{"GET /uri?q=%zz&x=[]|\"'", "", nil},
		{"DELETE /uri", "", []string{"X-Odd: \xe9 \t\"quoted\""}},
		{"GET /long.txt", "", nil},
		{"GET /long.txt", "", []string{"Accept-Encoding: gzip"}}, // made on the fly, so in chunks
		{"HEAD /long.txt", "", nil},
		{"HEAD /long.txt", "", []string{"Accept-Encoding: gzip"}},
		{"GET /digits.txt", "", []string{"Range: bytes=2-4"}},
		{"HEAD /digits.txt", "", []string{"Range: bytes=2-4"}},
		{"GET /digits.txt", "", []string{"Range: bytes=-3"}},
		{"GET /digits.txt", "", []string{"Range: bytes=0-1,8-"}},
		{"GET /digits.txt", "", []string{"Range: bytes=20-"}},
		{"GET /digits.txt", "", []string{"Range: bytes=2-4", `If-Range: "other"`}},
		{"GET /digits.txt", "", []string{since("If-Modified-Since")}},
		{"GET /digits.txt", "", []string{`If-None-Match: "3b9aca00-a"`}},
		{"GET /digits.txt", "", []string{`If-Match: "other"`}},
		{"POST /digits.txt", "not allowed", nil},
		{"PUT /digits.txt", "-" + strings.Repeat("not allowed", 10_000), nil},
		{"GET /trailers/long.txt", "", []string{"Te: trailers", "Accept-Encoding: gzip"}},
	}
	between(t, ca, shown, startNginx(t, shown), func(t *testing.T, c, direct *caller) {
		unchanged(t, c, direct, questions)
		if a, b := c.get(t, "/connection"), c.get(t, "/connection"); a != b {
			t.Errorf("two requests in turn came over the connections %s and %s", a, b)
		}
	})
}

func TestNodeBehindTheGateway(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	shown := ca.issue(t, "127.0.0.1")
	questions := []question{
		{"POST /echo", "hello", []string{"Content-Type: text/plain;charset=\"UTF-8\"", "X-Odd: a , b", "X-Empty: ", "X-Many: 1", "X-Many: 2"}},
		{"POST /echo?a=1&a=2&%zz", "-hello", []string{"Cookie: a=1; b=\"2\"", "Te: trailers"}},
		{"PUT /echo", strings.Repeat("0123456789abcdef", 100_000), nil},
		{"PATCH /echo", "-" + strings.Repeat("0123456789abcdef", 100_000), nil},
		{"DELETE /echo", "why", nil},
		{"POST /echo", "", nil},
		{"GET /echo", "", []string{"Range: bytes=2-4"}},
		{"OPTIONS /echo", "", nil},
		{"QUERY /echo", "select", nil},
		{"GET /gzip", "", nil},
		{"GET /gzip", "", []string{"Accept-Encoding: gzip"}},
		{"HEAD /gzip", "", nil},
		{"GET /parts", "", []string{"Te: trailers"}},
		{"GET /headers", "", nil},
		{"GET /hints", "", nil},
		{"GET /nothing", "", nil},
		{"GET /unmodified", "", nil},
		{"GET /odd-status", "", nil},
		{"GET /breaks", "", nil},
		{"GET /none", "", nil},
	}
	between(t, ca, shown, startNode(t, shown), func(t *testing.T, c, direct *caller) {
		unchanged(t, c, direct, questions)
		if strings.HasPrefix(t.Name(), "TestNodeBehindTheGateway/http") { // from HTTP/2 net/http takes the expectation away
			unchanged(t, c, direct, []question{
				{"POST /echo", "hello", []string{"Expect: 100-continue"}},
				{"POST /echo", "hello", []string{"Expect: 100-continue", "X-Odd: no"}},
			})
		}
	})
}

// TestCurl has a client that shares no code with the gateway.
func TestCurl(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	shown := ca.issue(t, "127.0.0.1")
	p, urls := newIDP(t), startNode(t, shown)
	yaml := fill(`
server:
  ADDRESSES
TLS
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
routes:
  - match: /{rest...}
    privileges: [READ_HEROES]
    upstream: "BACKEND"
`, "IDP", p.URL, "BACKEND", urls["prior"])
	clear := start(t, fill(yaml, "TLS", ""))
	secure := start(t, fill(yaml, "TLS", "  tls:\n    cert_file: api.pem\n    key_file: api.key"), shown.files("api")...)
	dir := t.TempDir()
	upload := bytes.Repeat([]byte("upload"), 500_000)
	write(t, filepath.Join(dir, "ca.pem"), ca.cert)
	write(t, filepath.Join(dir, "upload"), string(upload))
	write(t, filepath.Join(dir, "token"), bearer(p.token(t)))
	curl := func(args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		out, err := exec.CommandContext(ctx, "curl", append([]string{"-sS", "--cacert", filepath.Join(dir, "ca.pem"), "-w", "\n%{http_version} %{http_code}"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("curl %q: %v (make test installs it)\n%s", args, err, out)
		}
		return string(out)
	}
	for _, c := range []struct {
		args    []string
		version string
	}{
		{[]string{"--http1.1", "http://" + clear.listen}, "1.1"},
		{[]string{"--http2", "http://" + clear.listen}, "1.1"}, // offers Upgrade: h2c
		{[]string{"--http2-prior-knowledge", "http://" + clear.listen}, "2"},
		{[]string{"--http1.1", "https://" + secure.listen}, "1.1"},
		{[]string{"--http2", "https://" + secure.listen}, "2"},
		{[]string{"--http2", "--tls-max", "1.2", "https://" + secure.listen}, "2"},
	} {
		with := func(path string, more ...string) []string {
			last := len(c.args) - 1
			return slices.Concat(c.args[:last], more, []string{c.args[last] + path})
		}
		token := "@" + filepath.Join(dir, "token")
		if got := curl(with("/echo")...); !strings.Contains(got, `"reason":"missing_token"`) || !strings.HasSuffix(got, "\n"+c.version+" 401") {
			t.Errorf("%q: %s", c.args, got)
		}
		want := fmt.Sprintf(`"length":%d,"hash":"%x","trailers":{}}`+"\n%s 200", len(upload), sha256.Sum256(upload), c.version)
		for _, how := range [][]string{
			{"-T", filepath.Join(dir, "upload")}, // asks first: Expect
			{"-T", filepath.Join(dir, "upload"), "-H", "Transfer-Encoding: chunked", "-H", "Expect:"},
			{"--data-binary", "@" + filepath.Join(dir, "upload")},
		} {
			if c.version == "2" && slices.Contains(how, "Transfer-Encoding: chunked") {
				continue
			}
			if got := curl(with("/echo", append(how, "-H", token)...)...); !strings.HasSuffix(got, want) {
				t.Errorf("%q %q: %s", c.args, how, got)
			}
		}
		if got, want := curl(with("/gzip", "-H", token, "--compressed")...), strings.Repeat("gzip ", 1000)+"\n"+c.version+" 200"; got != want {
			t.Errorf("%q: %.1000s", c.args, got)
		}
		if got := curl(with("/gzip", "-H", token, "-I")...); !strings.HasSuffix(got, "\n"+c.version+" 200") {
			t.Errorf("%q: %s", c.args, got)
		}
	}
}
