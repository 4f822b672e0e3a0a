package test

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// caller is an HTTP client that speaks one protocol: http/1.1, or h2, which is
// over TLS with a configuration and by prior knowledge without one.
type caller struct {
	*http.Client
	URL string
}

func (g *gateway) caller(t *testing.T, protocol string, conf *tls.Config) *caller {
	t.Helper()
	return newCaller(t, g.listen, protocol, conf)
}

func newCaller(t *testing.T, address, protocol string, conf *tls.Config) *caller {
	t.Helper()
	transport := &http.Transport{Protocols: &http.Protocols{}, DisableCompression: true,
		ExpectContinueTimeout: patience} // only a 100 lets a body go
	scheme := "http://"
	if conf != nil {
		scheme = "https://"
		transport.TLSClientConfig = conf
	}
	transport.Protocols.SetHTTP1(protocol == "http/1.1")
	transport.Protocols.SetHTTP2(protocol == "h2" && conf != nil)
	transport.Protocols.SetUnencryptedHTTP2(protocol == "h2" && conf == nil)
	t.Cleanup(transport.CloseIdleConnections)
	return &caller{&http.Client{Transport: transport, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, scheme + address}
}

// everywhere tells a story between each kind of client and each kind of
// backend: HTTP/1.1 and HTTP/2, in clear text and over TLS.
func everywhere(t *testing.T, h http.HandlerFunc, story func(t *testing.T, c *caller)) {
	t.Helper()
	ca := newAuthority(t)
	server := ca.issue(t, "127.0.0.1")
	between(t, ca, server, backends(t, h, server), func(t *testing.T, c, _ *caller) { story(t, c) })
}

// between tells a story between each kind of client and those three backends,
// which show what ca issued. direct goes to one of them past the gateway, and
// speaks what c speaks.
func between(t *testing.T, ca, shown *pair, urls map[string]string, story func(t *testing.T, c, direct *caller)) {
	t.Helper()
	yaml := fill(`
server:
  ADDRESSES
TLS
upstreams:
  one:
    targets: [CLEAR]
  two:
    targets: [SECURE]
    tls:
      ca_file: ca.pem
  prior:
    targets: [PRIOR]
routes:
  - match: /one/{rest...}
    public: true
    strip_prefix: /one
    upstream: one
  - match: /two/{rest...}
    public: true
    strip_prefix: /two
    upstream: two
  - match: /prior/{rest...}
    public: true
    strip_prefix: /prior
    upstream: prior
`, "CLEAR", urls["one"], "SECURE", urls["two"], "PRIOR", urls["prior"])
	files := append(shown.files("api"), file{"ca.pem", ca.cert})
	clear := start(t, fill(yaml, "TLS", ""), files...)
	secure := start(t, fill(yaml, "TLS", "  tls:\n    cert_file: api.pem\n    key_file: api.key"), files...)
	for _, c := range []struct {
		name, protocol string
		g              *gateway
		conf           *tls.Config
		direct         string
	}{
		{"http/1.1", "http/1.1", clear, nil, "one"}, {"h2c", "h2", clear, nil, "prior"},
		{"https/1.1", "http/1.1", secure, trusting(ca), "two"}, {"h2", "h2", secure, trusting(ca), "two"},
	} {
		_, address, _ := strings.Cut(urls[c.direct], "://")
		through, direct := c.g.caller(t, c.protocol, c.conf), newCaller(t, address, c.protocol, c.conf)
		for to, protocol := range map[string]string{"one": "HTTP/1.1", "two": "HTTP/2.0", "prior": "HTTP/2.0"} {
			t.Run(c.name+" to "+to, func(t *testing.T) {
				c := &caller{through.Client, through.URL + "/" + to}
				if got := c.get(t, "/protocol"); got != protocol {
					t.Fatalf("the backend is spoken to in %s", got)
				}
				story(t, c, direct)
			})
		}
	}
}

// backends serve h over HTTP/1.1, over TLS with HTTP/2, and in HTTP/2 without.
func backends(t *testing.T, h http.HandlerFunc, shown *pair) map[string]string {
	t.Helper()
	all := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/protocol" {
			_, _ = io.WriteString(w, r.Proto)
			return
		}
		h(w, r)
	})
	one, two, prior := httptest.NewServer(all), httptest.NewUnstartedServer(all), httptest.NewUnstartedServer(all)
	two.Config.ErrorLog, prior.Config.ErrorLog = quiet, quiet
	two.EnableHTTP2 = true
	two.TLS = &tls.Config{Certificates: []tls.Certificate{shown.shown(t)}}
	two.StartTLS()
	prior.Config.Protocols = &http.Protocols{}
	prior.Config.Protocols.SetUnencryptedHTTP2(true)
	prior.Start()
	for _, s := range []*httptest.Server{one, two, prior} {
		t.Cleanup(s.Close)
		t.Cleanup(s.CloseClientConnections)
	}
	return map[string]string{"one": one.URL, "two": two.URL, "prior": strings.Replace(prior.URL, "http", "h2c", 1)}
}

// get returns the body of a 200.
func (c *caller) get(t *testing.T, path string) string {
	t.Helper()
	resp := c.send(t, http.MethodGet, path, nil)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %d %v %.1000s", path, resp.StatusCode, err, body)
	}
	return string(body)
}

// send sends a request with those header lines and returns the answer as it comes.
func (c *caller) send(t *testing.T, method, path string, body io.Reader, headers ...string) *http.Response {
	t.Helper()
	return c.sendAs(t, context.Background(), method, path, body, headers...)
}

func (c *caller) sendAs(t *testing.T, ctx context.Context, method, path string, body io.Reader, headers ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, c.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}
