package gateway

import (
	"bufio"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"gatehouse/gateway/internal/inject"
)

// What a proxy tells of is read as net/http would have read it off the wire, or
// not at all.
func FuzzOriginal(f *testing.F) {
	for _, target := range []string{"/heroes/7?a=b", "//x/y", "/a b", "/a#b", "http://x/", "*", "/%zz", "/\x00", "?x", "/a?b c", "/a?\x7f", "/é?é", "/a;b/..?", "x:80"} {
		f.Add("GET", target, "heroes.example")
	}
	f.Add("G T", "/", "x")
	f.Add("", "/", "x")
	f.Add("CONNECT", "x:1", "x y")
	rules, err := inject.New(inject.Options{Prefix: "x-jwt-"})
	if err != nil {
		f.Fatal(err)
	}
	s := &snapshot{inject: rules, proxies: proxies{netip.MustParsePrefix("10.0.0.1/32")}}
	f.Fuzz(func(t *testing.T, method, target, host string) {
		for _, name := range []string{"nginx", "traefik", "caddy"} {
			d := dialects[name]
			asks := &http.Request{Method: "GET", Host: "other.example", RemoteAddr: "10.0.0.1:1", Header: http.Header{
				"X-Forwarded-For": {"203.0.113.9"}, d.method: {method}, d.uri: {target}, d.host: {host}, "Client-Cert": {":eA==:"}, "Forwarded": {"for=1.2.3.4"},
			}}
			got, err := d.original(s, asks)
			if err != nil {
				if f := asRefusal(err); answers[f.reason].status != 403 && answers[f.reason].status != 400 {
					t.Errorf("refused as %s", f.reason)
				}
				continue
			}
			want, err := http.ReadRequest(bufio.NewReader(strings.NewReader(method + " " + target + " HTTP/1.1\r\nHost: x\r\n\r\n")))
			if err != nil {
				t.Fatalf("%s %q is taken, and net/http says %v", method, target, err)
			}
			if got.Method != want.Method || *got.URL != *want.URL || got.RequestURI != want.RequestURI || got.Host != host {
				t.Errorf("%s %q is %s %v, to net/http %s %v", method, target, got.Method, got.URL, want.Method, want.URL)
			}
			if ip, _ := s.proxies.client(got); ip.String() != "203.0.113.9" || len(got.Header) != 1 {
				t.Errorf("the client is %s, the headers %v", ip, got.Header)
			}
		}
	})
}
