package config

import (
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Test is a request and what must become of it.
type Test struct {
	Name    string // default: the request
	Method  string
	URL     string // host/path?query or /path?query
	Headers map[string]string
	IP      string    // of the peer; empty: not known
	Claims  string    // of the caller's token, a JSON object; empty: there is no token
	Issuer  string    // whose token it is; empty: as the claim iss says, or the route's only one
	Time    time.Time // zero: now
	Expect  Expectation
}

// Expectation is what must become of a request. What is empty is not looked at.
type Expectation struct {
	Status   int               // of the gateway's own answer; 0: the request is forwarded
	Reason   string            // of the refusal
	Route    string            // that matches
	Rule     string            // of the policy, that allows
	Upstream string            // that receives the request
	Path     string            // that it asks for, escaped, with the query
	Headers  map[string]string // that tell it who is calling
}

type fileRouteTest struct {
	Name    string            `yaml:"name" doc:"what the output calls it; default: the request"`
	Request string            `yaml:"request" need:"what is sent, such as POST /heroes" doc:"what is sent: METHOD [host]/path"`
	Headers map[string]string `yaml:"headers" doc:"of the request"`
	IP      string            `yaml:"ip" doc:"the client's address"`
	Claims  jsonObject        `yaml:"claims" doc:"the token's claims; without them there is no token"`
	Issuer  string            `yaml:"issuer" doc:"whose token it is, by its name; needed where the route has several issuers and the claims no iss"`
	Time    string            `yaml:"time" doc:"now (RFC 3339)"`
	Expect  fileExpectation   `yaml:"expect" need:"what becomes of it: forward, or a status and a reason, such as 403 insufficient_privileges" doc:"what becomes of it"`
}

type fileExpectation struct {
	Answer   string            `yaml:"answer" doc:"forward, or a status and perhaps a reason, such as 403 insufficient_privileges"`
	Route    string            `yaml:"route" doc:"the name of the route"`
	Rule     string            `yaml:"rule" doc:"the rule of the route's policy that allows it"`
	Upstream string            `yaml:"upstream" doc:"the name of the upstream"`
	Path     string            `yaml:"path" doc:"the path that the upstream is asked for, with the query"`
	Headers  map[string]string `yaml:"headers" doc:"that tell the upstream who is calling"`

	status int
	reason string
}

func (e *fileExpectation) readNode(r *reader, n *yaml.Node, path string) {
	type plain fileExpectation
	switch n.Kind {
	case yaml.MappingNode:
		// answer may be a number, which a string may not
		for i := 0; i+1 < len(n.Content); i += 2 {
			if key, value := n.Content[i], n.Content[i+1]; key.Value == "answer" && value.Kind == yaml.ScalarNode && value.ShortTag() == "!!int" {
				value.Tag = "!!str"
			}
		}
		r.read(n, path, (*plain)(e))
		if at := path + ".answer"; r.ok(at) {
			e.readAnswer(r, at, e.Answer)
		}
	case yaml.ScalarNode:
		if s, ok := r.scalar(n, path, "a string"); ok {
			e.readAnswer(r, path, s)
		}
	default:
		r.fault(path, "%s is %s; want forward, a status and perhaps a reason, or a map", path, describe(n))
	}
}

// readAnswer reads forward, 200, which is the same, or the status of a refusal,
// alone or with its reason.
func (e *fileExpectation) readAnswer(r *reader, path, s string) {
	status, reason, both := strings.Cut(s, " ")
	code, err := strconv.Atoi(status)
	switch {
	case s == "forward", s == "200":
	case err != nil || code != http.StatusNoContent && code < 400 || code > 599 || both && strings.Trim(reason, "abcdefghijklmnopqrstuvwxyz_") != "" || both && reason == "":
		r.fault(path, "%s is %s; want forward (or 200), the status of a refusal, alone or with its reason: 403 insufficient_privileges, or 204 for a preflight", path, r.quote(path, s))
	default:
		e.status, e.reason = code, reason
	}
}

// tests resolves the file's tests, given all that they refer to.
func (r *reader) tests(files []fileRouteTest, c *Config) {
	names := map[string]int{}
	for n := range files {
		f, path := &files[n], index("tests", n)
		t := &Test{
			Name: or(f.Name, f.Request), Headers: f.Headers, IP: f.IP, Claims: string(f.Claims), Issuer: f.Issuer,
			Expect: Expectation{f.Expect.status, f.Expect.reason, f.Expect.Route, f.Expect.Rule, f.Expect.Upstream, f.Expect.Path, f.Expect.Headers},
		}
		c.Tests = append(c.Tests, t)
		if at := path + ".name"; r.ok(at) {
			if first, twice := names[f.Name]; twice {
				r.fault(at, "tests[%d] has the name of tests[%d]: %s", n, first, r.quote(at, f.Name))
			}
			names[f.Name] = n
		}
		r.testRequest(path, f, t, c)
		r.expectation(path+".expect", &t.Expect, c)
	}
}

func (r *reader) testRequest(path string, f *fileRouteTest, t *Test, c *Config) {
	if at := path + ".request"; r.ok(at) {
		t.Method, t.URL = http.MethodGet, f.Request
		if method, rest, ok := strings.Cut(f.Request, " "); ok {
			t.Method, t.URL = method, strings.TrimLeft(rest, " ")
		}
		if !isHTTPToken(t.Method) || t.Method != strings.ToUpper(t.Method) || !strings.Contains(t.URL, "/") || strings.Contains(t.URL, " ") {
			r.fault(at, "%s is %s; want [METHOD] [host]/path[?query], such as POST /heroes", at, r.quote(at, f.Request))
		}
	}
	if at := path + ".headers"; r.ok(at) && len(f.Headers) == 0 {
		r.fault(at, "%s is an empty map; leave the key out", at)
	}
	for _, name := range inOrder(&r.source, path+".headers", f.Headers) {
		if at := path + ".headers." + name; !isHTTPToken(name) {
			r.fault(at, "%q is no name of a header", name)
		}
	}
	if at := path + ".ip"; r.ok(at) {
		if _, err := netip.ParseAddr(f.IP); err != nil {
			r.fault(at, "%s is %s; want an address, such as 10.0.0.1", at, r.quote(at, f.IP))
		}
	}
	if at := path + ".time"; r.ok(at) {
		var err error
		if t.Time, err = time.Parse(time.RFC3339, f.Time); err != nil {
			r.fault(at, "%s is %s; want a moment such as 2026-01-31T08:00:00Z (RFC 3339), in quotes", at, r.quote(at, f.Time))
		}
	}
	if at := path + ".issuer"; r.ok(at) && c.Issuers[f.Issuer] == nil {
		unknown(r, "issuer", at, f.Issuer, c.Issuers)
	}
	for _, key := range []string{"issuer", "time"} {
		if at := path + "." + key; r.ok(at) && !r.has(path+".claims") {
			r.fault(at, "%s goes with claims, which %s has not", at, path)
		}
	}
}

func (r *reader) expectation(path string, e *Expectation, c *Config) {
	if at := path + ".route"; r.ok(at) {
		routes := map[string]*Route{}
		for _, route := range c.Routes {
			routes[route.Name] = route
		}
		if routes[e.Route] == nil {
			unknown(r, "route", at, e.Route, routes)
		}
	}
	if at := path + ".headers"; r.ok(at) && len(e.Headers) == 0 {
		r.fault(at, "%s is an empty map; leave the key out", at)
	}
	if e.Status == 0 {
		return
	}
	for _, key := range []string{"rule", "upstream", "path", "headers"} {
		if at := path + "." + key; r.ok(at) {
			r.fault(at, "%s says what a request that is forwarded meets, and %s.answer expects a refusal; leave one of the two out", at, path)
		}
	}
}
