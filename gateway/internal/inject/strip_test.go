package inject

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"gatehouse/gateway/token"
)

func named(t testing.TB) *Rules {
	return rules(t, Options{Tokens: []string{"X-Access-Token"}, Claims: map[string]Claim{
		"mail": {Path: token.MustPath("email"), Header: "X-User-Email"},
		"user": {Path: token.MustPath("sub")},
	}})
}

func TestRequest(t *testing.T) {
	for _, test := range []struct {
		name            string
		direct, trusted bool // whether the header stays from a client, and from a trusted proxy
	}{
		{"X-Jwt-Sub", false, false},
		{"X-Jwt-", false, false},
		{"X_jwt_sub", false, false},
		{"X.jwt.sub", false, false},
		{"X-Jwt_anything-At.all", false, false},
		{"x-jwt-sub", false, false},
		{"X!jwt~sub", false, false},
		{"X Jwt Sub", false, false},
		{"X-User-Email", false, false},
		{"X_user_email", false, false},
		{"Forwarded", false, true},
		{"X-Forwarded-For", false, true},
		{"X-Forwarded-Prefix", false, true},
		{"X_forwarded_for", false, false},
		{"X-Forwarded_proto", false, false},
		{"X.forwarded.host", false, false},
		{"x-forwarded-for", false, false}, // not net/http's spelling
		{"X-Real-Ip", false, true},
		{"X_real_ip", false, false},
		{"X-Request-Id", false, true},
		{"X-Request_id", false, false},
		{"Traceparent", false, true},
		{"Tracestate", false, true},
		{"X-Original-Url", false, false},
		{"X_Original_URL", false, false},
		{"X-Rewrite-Url", false, false},
		{"Client-Cert", false, true},
		{"Client-Cert-Chain", false, true},
		{"Client_cert", false, false},

		{"X--Jwt-Sub", true, true}, // the folding is by character
		{"X-Jwt", true, true},
		{"Xx-Jwt-Sub", true, true},
		{"X-Jwtsub", true, true},
		{"X-User-Email-Hash", true, true},
		{"X-User", true, true},
		{"Forwarded-For", true, true},
		{"X-Forwarded", true, true},
		{"X-Request-Identity", true, true},
		{"Traceparent2", true, true},
		{"Authorization", true, true},
		{"Accept", true, true},
	} {
		for _, trusted := range []bool{false, true} {
			h := http.Header{test.name: {"v"}, "Accept-Language": {"de"}}
			named(t).Request(h, trusted)
			want := test.direct
			if trusted {
				want = test.trusted
			}
			if _, kept := h[test.name]; kept != want {
				t.Errorf("%q, trusted %t: kept %t", test.name, trusted, kept)
			}
			if len(h["Accept-Language"]) != 1 {
				t.Errorf("%q took its neighbour along", test.name)
			}
		}
	}
}

func TestTrailerAndResponse(t *testing.T) {
	all := func() http.Header {
		h := http.Header{}
		for _, name := range []string{"X-Jwt-Sub", "X_jwt_sub", "X-User-Email", "X-Forwarded-For", "Authorization", "X-Access-Token", "X_access_token", "Content-Type", "Etag"} {
			h[name] = nil // an announced trailer has no value yet
		}
		return h
	}
	keys := func(h http.Header) string { return strings.Join(slices.Sorted(maps.Keys(h)), " ") }

	trailer := all()
	named(t).Trailer(trailer)
	if got := keys(trailer); got != "Etag" {
		t.Errorf("trailer: %s", got)
	}
	response := all()
	named(t).Response(response)
	if got := keys(response); got != "Authorization Content-Type Etag X-Access-Token X-Forwarded-For X-User-Email X_access_token" {
		t.Errorf("response: %s", got)
	}
}

// TestRequestOverTheWire sends raw bytes, since what matters is which keys
// net/http makes of them.
func TestRequestOverTheWire(t *testing.T) {
	r := named(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.Request(req.Header, false)
		fmt.Fprint(w, strings.Join(slices.Sorted(maps.Keys(req.Header)), " "))
	}))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\nx-jwt-sub: root\r\nX_JWT_SUB: root\r\nx.jwt.sub: root\r\n"+
		"X-JWT_Sub: root\r\nx_user.email: r@x\r\nX-forwarded_For: 1.2.3.4\r\nConnection: x-jwt-sub\r\nAccept: a\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil || string(body) != "Accept Connection" {
		t.Errorf("left: %s, %v", body, err)
	}
}

func TestRequestAllocatesNothing(t *testing.T) {
	r := named(t)
	h := http.Header{}
	for _, name := range []string{"Accept", "Accept-Encoding", "Authorization", "Content-Length", "Cookie", "User-Agent", "X-Forwarded-For", "X-Request-Id", "X-Api-Key", "Traceparent"} {
		h[name] = []string{"v"}
	}
	if n := testing.AllocsPerRun(100, func() { r.Request(h, true) }); n != 0 || len(h) != 10 {
		t.Errorf("%v allocations, %d headers left", n, len(h))
	}
}

// FuzzStrip compares with the definition, written down slowly.
func FuzzStrip(f *testing.F) {
	for _, seed := range []string{"X-Jwt-Sub", "x_jwt_sub", "X.User.Email", "X-Forwarded-For", "forwarded", "CLIENT_CERT", "Accept", "", "X-Jwt", "é", "X\xffJwt-Sub"} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	r := named(f)
	f.Fuzz(func(t *testing.T, name string, trusted bool) {
		var lower []byte
		for _, c := range []byte(name) {
			c := strings.ToLower(string(rune(c)))
			if len(c) != 1 || !strings.Contains("abcdefghijklmnopqrstuvwxyz0123456789", c) {
				c = "-"
			}
			lower = append(lower, c...)
		}
		s := string(lower)
		ours := strings.HasPrefix(s, "x-jwt-")
		keep := !ours && s != "x-user-email" && s != "x-original-url" && s != "x-rewrite-url"
		if keep && (strings.HasPrefix(s, "x-forwarded-") || strings.HasPrefix(s, "client-cert") ||
			slices.Contains([]string{"forwarded", "x-real-ip", "x-request-id", "traceparent", "tracestate"}, s)) {
			keep = trusted && name == http.CanonicalHeaderKey(s)
		}
		h := http.Header{name: {"v"}}
		r.Request(h, trusted)
		if (len(h) == 1) != keep {
			t.Errorf("%q, trusted %t: kept %t", name, trusted, !keep)
		}
		h = http.Header{name: {"v"}}
		r.Response(h)
		if (len(h) == 0) != ours {
			t.Errorf("%q in a response: dropped %t", name, !ours)
		}
	})
}

func BenchmarkRequest(b *testing.B) {
	r := rules(b, Options{})
	h := http.Header{"Accept": {"a"}, "Accept-Encoding": {"gzip"}, "Authorization": {"Bearer x"}, "Cookie": {"a=b"}, "User-Agent": {"x"}, "X-Api-Key": {"k"}, "Origin": {"o"}, "Referer": {"r"}}
	b.ReportAllocs()
	for b.Loop() {
		r.Request(h, false)
	}
}

func TestForged(t *testing.T) {
	r := rules(t, Options{Claims: map[string]Claim{"mail": {Path: token.MustPath("email"), Header: "X-User-Email"}}})
	for name, odd := range map[string]bool{
		"X-Jwt-Sub": false, "X-User-Email": false, WouldRefuse: false,
		"X_jwt_sub": true, "X.Jwt.Sub": true, "X_user_email": true, "X_gatehouse_would_refuse": true,
	} {
		h := http.Header{name: {"x"}, "Accept": {"x"}, "X-Forwarded-For": {"x"}}
		if got := r.Forged(h, true); got != name {
			t.Errorf("%s: got %q of any spelling", name, got)
		}
		if got := r.Forged(h, false); (got == name) != odd {
			t.Errorf("%s: got %q of odd spellings", name, got)
		}
	}
	for _, name := range []string{"X-Original-Url", "X-Rewrite-Url", "X_rewrite_url"} {
		if got := r.Forged(http.Header{name: {"x"}}, false); got != name {
			t.Errorf("%s says another path, got %q", name, got)
		}
	}
	if got := r.Forged(http.Header{"Accept": {"x"}, "X-Jwt": {"x"}, "X_forwarded_for": {"x"}}, true); got != "" {
		t.Errorf("got %q, which is nobody's", got)
	}
}
