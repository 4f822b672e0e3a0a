package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The state tells of all that the page shows, and holds no token.
func TestState(t *testing.T) {
	b := newBench(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }, `
  - name: watched
    match: /watched
    privileges: {any: [WATCH, GUARD]}
    mode: report
    limits: [tight]
    upstream: pool
limits:
  tight:
    key: [ip]
    rate: 2/1h
upstreams:
  pool:
    targets: [http://127.0.0.1:1]
server:
  admin: 127.0.0.1:9901
  auth_failures: {rate: 30/1m}
`)
	raw := b.token(b.claims(`"privileges":[]`))
	for range 2 {
		b.get("/guarded?secret=hidden", raw)
	}
	b.get("/guarded", "")
	b.get("/open", "")
	b.get("/nowhere/"+raw, "")
	for range 3 {
		b.get("/watched", raw)
	}
	status, text := b.ask("GET", "/state", "")
	if status != http.StatusOK || strings.Contains(text, raw[:30]) || strings.Contains(text, "hidden") {
		t.Fatal(status, text)
	}
	type counts struct {
		Requests    int
		Refused     map[string]int
		WouldRefuse map[string]int `json:"would_refuse"`
	}
	var got struct {
		Status        string
		Time, Started time.Time
		Issuers       map[string]struct {
			Ready     bool
			Keys      int
			NextFetch *time.Time `json:"next_fetch"`
		}
		Routes []struct {
			MatrixRoute
			Limits, Upstreams []string
			counts
		}
		Unmatched counts
		Limits    []struct {
			Name               string
			Key                []string
			Quota              int
			Window             float64 `json:"window_seconds"`
			Admitted, Reported int
		}
		Upstreams []struct {
			Name    string
			Targets []struct{ URL, State string }
		}
		Refusals []RefusedRequest
	}
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	if got.Status != "ok" || time.Since(got.Time) > time.Minute || got.Started.After(got.Time) {
		t.Errorf("%s at %s, up since %s", got.Status, got.Time, got.Started)
	}
	if i := got.Issuers["main"]; !i.Ready || i.Keys != 1 || i.NextFetch != nil {
		t.Errorf("the issuer is %+v", i)
	}
	byName := map[string]int{}
	for i, r := range got.Routes {
		byName[r.Name] = i
	}
	if r := got.Routes[byName["/guarded"]]; r.Requests != 3 || !maps.Equal(r.Refused, map[string]int{"insufficient_privileges": 2, "missing_token": 1}) || r.Access != "restricted" || r.All[0] != "READ" || r.Upstreams[0] != b.backend.URL {
		t.Errorf("/guarded is %+v", r)
	}
	if r := got.Routes[byName["/open"]]; r.Requests != 1 || len(r.Refused) > 0 || r.Access != "public" {
		t.Errorf("/open is %+v", r)
	}
	if r := got.Routes[byName["watched"]]; r.Requests != 3 || r.WouldRefuse["insufficient_privileges"] != 2 || r.WouldRefuse["rate_limited"] != 1 || r.Refused["upstream_refused"] != 3 || r.Mode != "report" || !slices.Equal(r.Limits, []string{"tight"}) || !slices.Equal(r.Upstreams, []string{"pool"}) {
		t.Errorf("watched is %+v", r)
	}
	if got.Unmatched.Requests != 1 || got.Unmatched.Refused["no_route"] != 1 {
		t.Errorf("what no route matched is %+v", got.Unmatched)
	}
	if len(got.Limits) != 2 || got.Limits[0].Name != "tight" || got.Limits[0].Quota != 2 || got.Limits[0].Window != 3600 || got.Limits[0].Reported != 1 || got.Limits[1].Quota != 30 {
		t.Errorf("the limits are %+v", got.Limits)
	}
	if len(got.Upstreams) != 2 || got.Upstreams[1].Name != "pool" || got.Upstreams[1].Targets[0].URL != "http://127.0.0.1:1" || got.Upstreams[1].Targets[0].State != "unknown" {
		t.Errorf("the upstreams are %+v", got.Upstreams)
	}
	if len(got.Refusals) != 7 || got.Refusals[0].Route != "watched" || got.Refusals[6].Subject != "alice" || got.Refusals[0].Explanation != nil {
		t.Errorf("the refusals are %+v", got.Refusals)
	}
}

// Only the last refusals are part of a state, however many are kept.
func TestStateIsBounded(t *testing.T) {
	b := newBench(t, func(http.ResponseWriter, *http.Request) {}, adminYAML)
	for range shownRefusals + 10 {
		b.get("/nowhere", "")
	}
	_, text := b.ask("GET", "/state", "")
	var got struct{ Refusals []RefusedRequest }
	if err := json.Unmarshal([]byte(text), &got); err != nil || len(got.Refusals) != shownRefusals {
		t.Errorf("%d refusals, %v", len(got.Refusals), err)
	}
}

// Anyone may load the page, which is empty; what it shows is for those that may
// read, and for no page of another origin.
func TestPageAndStateAreGuarded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	const operator = "an-operator-token-of-32-bytes-or-more"
	if err := os.WriteFile(file, []byte(operator), 0o600); err != nil {
		t.Fatal(err)
	}
	here := newBench(t, func(http.ResponseWriter, *http.Request) {}, adminYAML)
	everywhere := newBench(t, func(http.ResponseWriter, *http.Request) {}, "server:\n  admin: 0.0.0.0:9901\n  admin_auth: {token_file: "+file+"}\n")
	files := []string{"/", "/page.css", "/page.js"}
	for _, c := range []struct {
		name    string
		bench   *bench
		host    string
		headers []string
		page    int
		state   int
	}{
		{"on loopback", here, "localhost:9901", nil, 200, 200},
		{"on loopback, from its own page", here, "127.0.0.1:9901", []string{"Origin: http://127.0.0.1:9901", "Sec-Fetch-Site: same-origin"}, 200, 200},
		{"on loopback, a typed address", here, "127.0.0.1:9901", []string{"Sec-Fetch-Site: none"}, 200, 200},
		{"on loopback, a link from elsewhere", here, "127.0.0.1:9901", []string{"Sec-Fetch-Site: cross-site"}, 200, 403},
		{"on loopback, another port's page", here, "127.0.0.1:9901", []string{"Sec-Fetch-Site: same-site"}, 200, 403},
		{"on loopback, another origin's page, of an old browser", here, "127.0.0.1:9901", []string{"Origin: https://evil.example"}, 200, 403},
		{"on loopback, another site's name", here, "evil.example:9901", nil, 421, 421},
		{"on loopback, another site's name and page", here, "evil.example", []string{"Origin: http://evil.example", "Sec-Fetch-Site: same-origin"}, 421, 421},
		{"on loopback, a wrong token", here, "localhost:9901", []string{"Authorization: Bearer x"}, 200, 401},
		{"elsewhere, nobody", everywhere, "gate.example:9901", nil, 200, 401},
		{"elsewhere, nobody by a loopback name", everywhere, "localhost:9901", nil, 200, 401},
		{"elsewhere, a wrong token", everywhere, "gate.example:9901", []string{"Authorization: Bearer " + operator + "x"}, 200, 401},
		{"elsewhere, a token in a cookie", everywhere, "gate.example:9901", []string{"Cookie: token=" + operator}, 200, 401},
		{"elsewhere, an operator", everywhere, "gate.example:9901", []string{"Authorization: Bearer " + operator}, 200, 200},
		{"elsewhere, an operator through another origin's page", everywhere, "gate.example:9901", []string{"Authorization: Bearer " + operator, "Origin: https://evil.example", "Sec-Fetch-Site: cross-site"}, 200, 403},
	} {
		for _, path := range append(files, "/state", "/state?access_token="+operator, "/refusals") {
			w := c.bench.knock("GET", path, c.host, c.headers...)
			want := c.state
			if slices.Contains(files, path) {
				want = c.page
			}
			if w.Code != want {
				t.Errorf("%s: GET %s is %d, want %d: %s", c.name, path, w.Code, want, w.Body)
			}
			if w.Code == http.StatusUnauthorized && w.Header().Get("WWW-Authenticate") != `Bearer realm="gatehouse"` { // Basic would have the browser ask, and remember
				t.Errorf("%s: the challenge is %q", c.name, w.Header().Values("WWW-Authenticate"))
			}
			strict(t, w.Header())
		}
	}
	for path, kind := range map[string]string{"/": "text/html; charset=utf-8", "/page.css": "text/css; charset=utf-8", "/page.js": "text/javascript; charset=utf-8", "/state": "application/json"} {
		w := here.knock("GET", path, "localhost:9901")
		if got := w.Header().Get("Content-Type"); got != kind || w.Body.Len() == 0 {
			t.Errorf("%s is %q", path, got)
		}
		for _, word := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "localStorage", "sessionStorage", "document.cookie", "//", "style=", "onclick"} {
			if path == "/state" || word == "//" && path == "/page.js" { // its comments
				continue
			}
			if strings.Contains(w.Body.String(), word) {
				t.Errorf("%s has %q", path, word)
			}
		}
	}
	for _, path := range []string{"/", "/state", "/page.js"} {
		w := here.knock("POST", path, "localhost:9901", "Sec-Fetch-Site: same-origin")
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("POST %s is %d", path, w.Code)
		}
		strict(t, w.Header())
	}
	if w := here.knock("GET", "/page/index.html", "localhost:9901"); w.Code != http.StatusNotFound {
		t.Errorf("a file by its own name is %d", w.Code)
	}
}

// strict expects what keeps other sites and injected markup away.
func strict(t *testing.T, h http.Header) {
	t.Helper()
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; " +
			"require-trusted-types-for 'script'; trusted-types 'none'",
		"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
		"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
	} {
		if got := h.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s is %q", name, got)
		}
	}
	for name := range h {
		if name == "Set-Cookie" || strings.HasPrefix(name, "Access-Control-") {
			t.Errorf("the answer has %s", name)
		}
	}
}

// knock asks the admin listener under that host, from another machine's address
// each time: wrong credentials are counted.
func (b *bench) knock(method, path, host string, headers ...string) *httptest.ResponseRecorder {
	b.t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, "http://"+host+path, nil)
	r.RemoteAddr = "[2001:db8:" + randomHex(2) + "::1]:1"
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	b.gateway.Admin().ServeHTTP(w, cameTo(r, "127.0.0.1"))
	return w
}

// cameTo is r over a connection whose end here has that address.
func cameTo(r *http.Request, local string) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.ParseIP(local), Port: 9901}))
}

// A reload cannot move the listener. Where the file has it on a loopback address
// now, what came in by another is still no caller of this machine.
func TestReloadOpensNoAdminListener(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("an-operator-token-of-32-bytes-or-more"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := newBench(t, func(http.ResponseWriter, *http.Request) {}, "server:\n  admin: 0.0.0.0:9901\n  admin_auth: {token_file: "+file+"}\n")
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: b.gateway.Admin(), ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	ask := func(method, path, ip string) int {
		r, err := http.NewRequest(method, fmt.Sprintf("http://%s:%d%s", ip, l.Addr().(*net.TCPAddr).Port, path), strings.NewReader(`{"url":"/open"}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "localhost" // which anyone may write
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}
	pages := []string{"GET /state", "GET /refusals", "GET /upstreams", "POST /explain"}
	for _, page := range pages {
		method, path, _ := strings.Cut(page, " ")
		if got := ask(method, path, "127.0.0.1"); got != http.StatusUnauthorized {
			t.Errorf("before the reload %s is %d", page, got)
		}
	}
	if err := b.gateway.Reload(t.Context(), b.config(adminYAML)); err != nil {
		t.Fatal(err)
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		method, path, _ := strings.Cut(page, " ")
		if got := ask(method, path, "127.0.0.1"); got != http.StatusOK {
			t.Errorf("%s from this machine is %d", page, got)
		}
		for _, a := range addresses {
			if ip := a.(*net.IPNet).IP; ip.To4() != nil && !ip.IsLoopback() {
				if got := ask(method, path, ip.String()); got != http.StatusForbidden {
					t.Errorf("%s by %s is %d", page, ip, got)
				}
			}
		}
		// A machine may have no other address.
		for _, local := range []string{"192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "0.0.0.0", ""} {
			r := httptest.NewRequest(method, "http://localhost:9901"+path, strings.NewReader(`{"url":"/open"}`))
			if local != "" {
				r = cameTo(r, local)
			}
			w := httptest.NewRecorder()
			b.gateway.Admin().ServeHTTP(w, r)
			if w.Code != http.StatusForbidden {
				t.Errorf("%s by %q is %d: %s", page, local, w.Code, w.Body)
			}
		}
	}
}
