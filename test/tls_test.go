package test

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// startTLS gives a gateway that shows what tls says, in front of a backend.
func startTLS(t *testing.T, tls string, files ...file) (*gateway, *backend) {
	t.Helper()
	b := newBackend(t)
	return start(t, fill(`
server:
  ADDRESSES
  tls:
TLSroutes:
  - match: /{rest...}
    public: true
    upstream: BACKEND
`, "BACKEND", b.URL, "TLS", tls), files...), b
}

// shows returns the serial number of the certificate that the gateway shows.
func (g *gateway) shows(conf *tls.Config) (string, error) {
	conn, err := tls.Dial("tcp", g.listen, conf)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.String(), nil
}

func (a *pair) number() string { return a.leaf.SerialNumber.String() }

func TestCertificateByName(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	first, wild, exact := ca.issue(t, "api.example.com", "127.0.0.1"), ca.issue(t, "*.example.org"), ca.issue(t, "a.example.org")
	g, _ := startTLS(t, `
    certificates:
      - cert_file: first.pem
        key_file: first.key
      - cert_file: wild.pem
        key_file: wild.key
      - cert_file: exact.pem
        key_file: exact.key
`, slices.Concat(first.files("first"), wild.files("wild"), exact.files("exact"))...)
	for name, want := range map[string]*pair{
		"api.example.com": first, "a.example.org": exact, "A.Example.ORG": exact, "b.example.org": wild,
		"": first, "a.b.example.org": first, "elsewhere.example": first,
	} {
		got, err := g.shows(&tls.Config{ServerName: name, InsecureSkipVerify: true})
		if err != nil || got != want.number() {
			t.Errorf("%q gets %s, %v, want %s", name, got, err, want.number())
		}
	}
}

func TestVersionsOfTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	files := ca.issue(t, "127.0.0.1").files("api")
	const one = "\n    cert_file: api.pem\n    key_file: api.key\n"
	usual, _ := startTLS(t, one, files...)
	newest, _ := startTLS(t, one+"    min_version: 1.3\n", files...)
	at := func(version uint16) *tls.Config {
		c := trusting(ca)
		c.MinVersion, c.MaxVersion = tls.VersionTLS10, version
		return c
	}
	for _, c := range []struct {
		g       *gateway
		version uint16
		ok      bool
	}{
		{usual, tls.VersionTLS11, false}, {usual, tls.VersionTLS12, true}, {usual, tls.VersionTLS13, true},
		{newest, tls.VersionTLS12, false}, {newest, tls.VersionTLS13, true},
	} {
		if _, err := c.g.shows(at(c.version)); err == nil != c.ok {
			t.Errorf("%s: %v", tls.VersionName(c.version), err)
		}
	}
	weak := at(tls.VersionTLS12)
	weak.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA}
	if _, err := usual.shows(weak); err == nil {
		t.Error("a weak cipher suite is taken")
	}
	if status := usual.livez(); status != http.StatusOK {
		t.Errorf("the status listener, which is clear text, answers %d", status)
	}
	if a := usual.do(t, "GET /x"); a.status != http.StatusBadRequest {
		t.Errorf("clear text on the TLS listener is answered with %d", a.status)
	}
}

func TestRenewedCertificateNeedsNoReload(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	old, renewed, third := ca.issue(t, "127.0.0.1"), ca.issue(t, "127.0.0.1"), ca.issue(t, "127.0.0.1")
	g, _ := startTLS(t, "\n    cert_file: api.pem\n    key_file: api.key\n", old.files("api")...)
	put := func(name, content string) { write(t, filepath.Join(filepath.Dir(g.config), name), content) }
	shows := func(want *pair) {
		t.Helper()
		eventually(t, "the gateway shows "+want.number(), func() bool { got, err := g.shows(trusting(ca)); return err == nil && got == want.number() })
	}
	notAfter := func(want *pair) {
		t.Helper()
		line := fmt.Sprintf("gatehouse_tls_certificate_not_after_seconds{file=%q} %v\n", filepath.Join(filepath.Dir(g.config), "api.pem"), float64(want.leaf.NotAfter.Unix()))
		if m := g.metrics(t); !strings.Contains(m, line) {
			t.Errorf("no %q in the metrics", line)
		}
	}
	shows(old)
	notAfter(old)
	put("api.key", renewed.key)
	put("api.pem", renewed.cert)
	shows(renewed)
	notAfter(renewed)

	// A key that does not fit, a file that is gone, nonsense: the last good pair serves on.
	put("api.pem", third.cert)
	g.signal(syscall.SIGHUP)
	g.output.says(t, "a changed certificate cannot be used")
	shows(renewed)
	put("api.pem", "nonsense")
	g.signal(syscall.SIGHUP)
	g.output.says(t, "failed to find any PEM data")
	shows(renewed)
	late := ca.expired(t, "127.0.0.1")
	put("api.key", late.key)
	put("api.pem", late.cert)
	g.signal(syscall.SIGHUP)
	g.output.says(t, "the certificate expired on")
	shows(renewed)
	if m := g.metrics(t); !strings.Contains(m, `gatehouse_tls_reloads_total{file="`) || !strings.Contains(m, `api.pem",outcome="failure"}`) {
		t.Error("the metrics do not tell of the broken pair")
	}
	put("api.key", third.key)
	put("api.pem", third.cert)
	g.signal(syscall.SIGHUP)
	shows(third)
	notAfter(third)
}

func TestBrokenCertificateIsAFault(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	good := ca.issue(t, "127.0.0.1")
	g, _ := startTLS(t, "\n    cert_file: api.pem\n    key_file: api.key\n", good.files("api")...)
	dir := filepath.Dir(g.config)
	for name, c := range map[string]struct{ tls, want string }{
		"a key that does not fit": {"    cert_file: api.pem\n    key_file: other.key\n", "private key does not match public key"},
		"no such file":            {"    cert_file: none.pem\n    key_file: api.key\n", "none.pem: no such file"},
		"no authority":            {"    cert_file: api.pem\n    key_file: api.key\n    client_ca_file: api.key\n", "no certificate in PEM"},
	} {
		write(t, filepath.Join(dir, "other.key"), ca.key)
		write(t, filepath.Join(dir, "check.yaml"), "server:\n  tls:\n"+c.tls+"routes:\n  - match: /\n    public: true\n    upstream: http://127.0.0.1:9\n")
		status, out := command(t, "", "check", "--config", filepath.Join(dir, "check.yaml"))
		if status != 1 || !strings.Contains(out, c.want) || !strings.Contains(out, "check.yaml:") {
			t.Errorf("%s: %d %s", name, status, out)
		}
	}
}

func TestClientCertificates(t *testing.T) {
	t.Parallel()
	ca, clients, strangers := newAuthority(t), newAuthority(t), newAuthority(t)
	below := clients.intermediate(t)
	good, direct, stranger := below.issue(t, "alice"), clients.issue(t, "bob"), strangers.issue(t, "mallory")
	files := append(ca.issue(t, "127.0.0.1").files("api"), file{"clients.pem", clients.cert})
	one := "\n    cert_file: api.pem\n    key_file: api.key\n    client_ca_file: clients.pem\n"
	required, b := startTLS(t, one, files...)
	requested, rb := startTLS(t, one+"    client_auth: request\n", files...)
	get := func(g *gateway, protocol string, own ...tls.Certificate) (int, error) {
		req, _ := http.NewRequest("GET", "https://"+g.listen+"/x", nil)
		req.Header["Client-Cert"] = []string{":Zm9yZ2Vk:"}
		req.Header["Client-Cert-Chain"] = []string{":Zm9yZ2Vk:"}
		req.Header["Client_cert"] = []string{":Zm9yZ2Vk:"}
		resp, err := g.caller(t, protocol, trusting(ca, own...)).Do(req)
		if err != nil {
			return 0, err
		}
		_ = resp.Body.Close()
		return resp.StatusCode, nil
	}
	field := func(p *pair) string { return ":" + base64.StdEncoding.EncodeToString(p.leaf.Raw) + ":" }
	for _, protocol := range []string{"http/1.1", "h2"} {
		if _, err := get(required, protocol); err == nil {
			t.Error("no certificate is taken, though one is required")
		}
		if _, err := get(required, protocol, stranger.shown(t)); err == nil {
			t.Error("a stranger's certificate is taken")
		}
		if _, err := get(requested, protocol, stranger.shown(t)); err == nil {
			t.Error("a stranger's certificate is taken where one is only requested")
		}
		b.untouched(t)
		if status, err := get(requested, protocol); status != http.StatusOK {
			t.Errorf("without a certificate where one is only requested: %d %v", status, err)
		}
		rb.last(t).lacks(t, "Client-Cert")
		rb.last(t).lacks(t, "Client-Cert-Chain")
		rb.last(t).clean(t, "Zm9yZ2Vk")
		if status, err := get(requested, protocol, good.shown(t)); status != http.StatusOK {
			t.Errorf("with a certificate: %d %v", status, err)
		}
		rb.last(t).has(t, "Client-Cert", field(good))
		rb.last(t).has(t, "Client-Cert-Chain", field(below))
		rb.last(t).clean(t, "Zm9yZ2Vk")
	}
	if status, err := get(required, "h2", direct.shown(t)); status != http.StatusOK {
		t.Errorf("with a certificate: %d %v", status, err)
	}
	b.last(t).has(t, "Client-Cert", field(direct))
	b.last(t).lacks(t, "Client-Cert-Chain")

	// Other authorities are taken up, too; a session from before is not resumed.
	conf := trusting(ca, good.shown(t))
	conf.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	once := func() error {
		conn, err := tls.Dial("tcp", required.listen, conf)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		_, err = io.ReadAll(conn)
		return err
	}
	if err := once(); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(filepath.Dir(required.config), "clients.pem"), strangers.cert)
	eventually(t, "the other authority is taken up", func() bool { status, _ := get(required, "h2", stranger.shown(t)); return status == http.StatusOK })
	if err := once(); err == nil {
		t.Error("a session outlives the authority that let it in")
	}
}

// TestTokenBoundToTheConnection is RFC 8705 §3 over the gateway's own TLS.
func TestTokenBoundToTheConnection(t *testing.T) {
	t.Parallel()
	ca, clients := newAuthority(t), newAuthority(t)
	mine, another := clients.issue(t, "alice"), clients.issue(t, "mallory")
	p, b := newIDP(t), newBackend(t)
	g := start(t, fill(`
server:
  ADDRESSES
  tls:
    cert_file: api.pem
    key_file: api.key
    client_ca_file: clients.pem
    client_auth: request
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
routes:
  - match: GET /heroes/{id}
    privileges: []
    upstream: BACKEND
`, "IDP", p.URL, "BACKEND", b.URL), append(ca.issue(t, "127.0.0.1").files("api"), file{"clients.pem", clients.cert})...)
	sum := sha256.Sum256(mine.leaf.Raw)
	bound := p.token(t, claims{"cnf": claims{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])}})
	for _, protocol := range []string{"http/1.1", "h2"} {
		for _, c := range []struct {
			name string
			own  []tls.Certificate
			want int
		}{
			{"its certificate", []tls.Certificate{mine.shown(t)}, http.StatusOK},
			{"another certificate", []tls.Certificate{another.shown(t)}, http.StatusUnauthorized},
			{"no certificate, but a header", nil, http.StatusUnauthorized},
		} {
			caller := g.caller(t, protocol, trusting(ca, c.own...))
			for range 2 { // the second time the token is remembered
				req, _ := http.NewRequest("GET", caller.URL+"/heroes/1", nil)
				req.Header.Set("Authorization", "Bearer "+bound)
				req.Header.Set("Client-Cert", ":"+base64.StdEncoding.EncodeToString(mine.leaf.Raw)+":")
				resp, err := caller.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
				if resp.StatusCode != c.want {
					t.Errorf("%s over %s: %d", c.name, protocol, resp.StatusCode)
				}
			}
		}
	}
	if n := b.count(); n != 4 {
		t.Errorf("%d requests reached the backend", n)
	}
}

func TestUpstreamTLS(t *testing.T) {
	t.Parallel()
	targets, clients, others := newAuthority(t), newAuthority(t), newAuthority(t)
	mine := clients.issue(t, "gatehouse")
	b := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s %s %s %s", r.Proto, r.TLS.ServerName, r.TLS.PeerCertificates[0].SerialNumber, r.Host)
	}))
	b.TLS = &tls.Config{Certificates: []tls.Certificate{targets.issue(t, "heroes.internal").shown(t)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients.pool()}
	b.EnableHTTP2 = true
	b.Config.ErrorLog = quiet
	b.StartTLS()
	t.Cleanup(b.Close)
	g := start(t, fill(`
upstreams:
  good:
    targets: [BACKEND]
    tls:
      ca_file: targets.pem
      server_name: heroes.internal
      cert_file: mine.pem
      key_file: mine.key
  other-authority:
    targets: [BACKEND]
    tls:
      ca_file: others.pem
      server_name: heroes.internal
      cert_file: mine.pem
      key_file: mine.key
  other-name:
    targets: [BACKEND]
    tls:
      ca_file: targets.pem
      cert_file: mine.pem
      key_file: mine.key
  no-certificate:
    targets: [BACKEND]
    tls:
      ca_file: targets.pem
      server_name: heroes.internal
routes:
  - match: /good
    public: true
    upstream: good
  - match: /other-authority
    public: true
    upstream: other-authority
  - match: /other-name
    public: true
    upstream: other-name
  - match: /no-certificate
    public: true
    upstream: no-certificate
  - match: /system
    public: true
    upstream: BACKEND
`, "BACKEND", b.URL), append(mine.files("mine"), file{"targets.pem", targets.cert}, file{"others.pem", others.cert})...)
	good := func(shown *pair) string { return "HTTP/2.0 heroes.internal " + shown.number() + " gatehouse.example" }
	if a := g.do(t, "GET /good"); a.body != good(mine) {
		t.Errorf("the backend saw %d %s", a.status, a.body)
	}
	for _, path := range []string{"/other-authority", "/other-name", "/no-certificate", "/system"} {
		g.do(t, "GET "+path).refused(t, http.StatusBadGateway, "upstream_refused")
	}
	renewed := clients.issue(t, "gatehouse")
	for _, f := range renewed.files("mine") {
		write(t, filepath.Join(filepath.Dir(g.config), f.name), f.content)
	}
	b.CloseClientConnections()
	eventually(t, "the renewed certificate is shown", func() bool {
		b.CloseClientConnections()
		return g.do(t, "GET /good").body == good(renewed)
	})
}
