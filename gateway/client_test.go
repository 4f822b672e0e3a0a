package gateway

import (
	"net/http"
	"net/netip"
	"testing"
)

func TestClient(t *testing.T) {
	trusted := proxies{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, c := range []struct {
		name, peer string
		header     http.Header
		want       string
		trusted    bool
	}{
		{"direct", "203.0.113.9:1", nil, "203.0.113.9", false},
		{"an untrusted peer's word", "203.0.113.9:1", http.Header{"X-Forwarded-For": {"1.2.3.4"}}, "203.0.113.9", false},
		{"one proxy", "10.0.0.1:1", http.Header{"X-Forwarded-For": {"1.2.3.4"}}, "1.2.3.4", true},
		{"the caller wrote the first one", "10.0.0.1:1", http.Header{"X-Forwarded-For": {"9.9.9.9, 1.2.3.4"}}, "1.2.3.4", true},
		{"two proxies", "10.0.0.1:1", http.Header{"X-Forwarded-For": {"9.9.9.9, 1.2.3.4, 10.0.0.2"}}, "1.2.3.4", true},
		{"over several lines", "10.0.0.1:1", http.Header{"X-Forwarded-For": {"9.9.9.9", "1.2.3.4,10.0.0.2"}}, "1.2.3.4", true},
		{"all trusted", "10.0.0.1:1", http.Header{"X-Forwarded-For": {"10.0.0.3, 10.0.0.2"}}, "10.0.0.3", true},
		{"none", "10.0.0.1:1", nil, "10.0.0.1", true},
		{"nonsense stops the walk", "10.0.0.1:1", http.Header{"X-Forwarded-For": {"1.2.3.4, evil, 10.0.0.2"}}, "10.0.0.2", true},
		{"with ports", "10.0.0.1:1", http.Header{"X-Forwarded-For": {"1.2.3.4:55"}}, "1.2.3.4", true},
		{"v6", "[fd00::1]:1", http.Header{"X-Forwarded-For": {"2001:db8::1"}}, "2001:db8::1", true},
		{"v6 with port", "[fd00::1]:1", http.Header{"X-Forwarded-For": {"[2001:db8::1]:7"}}, "2001:db8::1", true},
		{"v4 in v6", "[::ffff:10.0.0.1]:1", http.Header{"X-Forwarded-For": {"::ffff:1.2.3.4"}}, "1.2.3.4", true},
		{"Forwarded", "10.0.0.1:1", http.Header{"Forwarded": {`for=9.9.9.9, for="[2001:db8::1]:80";proto=https, for=10.0.0.2`}}, "2001:db8::1", true},
		{"Forwarded, unknown", "10.0.0.1:1", http.Header{"Forwarded": {`for=unknown`}}, "10.0.0.1", true},
		{"X-Forwarded-For goes before Forwarded", "10.0.0.1:1", http.Header{"Forwarded": {"for=9.9.9.9"}, "X-Forwarded-For": {"1.2.3.4"}}, "1.2.3.4", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			ip, ok := trusted.client(&http.Request{RemoteAddr: c.peer, Header: c.header})
			if ip.String() != c.want || ok != c.trusted {
				t.Errorf("got %v, %v; want %s, %v", ip, ok, c.want, c.trusted)
			}
		})
	}
}

func FuzzClient(f *testing.F) {
	f.Add("1.2.3.4, [::1]:5", "for=1.2.3.4;by=x")
	trusted := proxies{netip.MustParsePrefix("10.0.0.0/8")}
	f.Fuzz(func(t *testing.T, xff, forwarded string) {
		for _, h := range []http.Header{{"X-Forwarded-For": {xff}}, {"Forwarded": {forwarded}}} {
			if ip, _ := trusted.client(&http.Request{RemoteAddr: "10.0.0.1:1", Header: h}); !ip.IsValid() || ip.Zone() != "" {
				t.Errorf("%v gives %v", h, ip)
			}
			h["X"] = nil
			if ip, _ := trusted.client(&http.Request{RemoteAddr: "192.0.2.1:1", Header: h}); ip.String() != "192.0.2.1" {
				t.Errorf("an untrusted peer's %v gives %v", h, ip)
			}
		}
	})
}
