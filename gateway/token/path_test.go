package token

import (
	"strings"
	"testing"
)

func TestLookup(t *testing.T) {
	c := mustParse(t, `{"scp":"a","realm_access":{"roles":["x","y",{"n":1}]},"https://x.example/roles":"u","a.b":"dot","a":{"b":"nested"},"~":"tilde","":{"":"empty"},"0":"zero","l":[["deep"]]}`)
	for path, want := range map[string]string{
		"scp":                         "a",
		"a.b":                         "nested",
		"/a.b":                        "dot",
		"/a/b":                        "nested",
		"/https:~1~1x.example~1roles": "u",
		"/~0":                         "tilde",
		"~":                           "tilde", // only in a JSON Pointer is it an escape
		"//":                          "empty",
		"0":                           "zero",
		"realm_access.roles.1":        "y",
		"/realm_access/roles/0":       "x",
		"/realm_access/roles/2/n":     "1",
		"/l/0/0":                      "deep",
		"/realm_access/roles/-1":      "",
		"/realm_access/roles/01":      "",
		"/realm_access/roles/+1":      "",
		"/realm_access/roles/3":       "",
		"/realm_access/roles/-":       "",
		"/realm_access/roles/999999999999999999999": "",
		"scp.x":              "",
		"missing.x":          "",
		"Scp":                "",
		"realm_access.Roles": "",
	} {
		p, err := ParsePath(path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if got := c.Lookup(p).Text(); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
		if p.String() != path || p.IsZero() {
			t.Errorf("%s: %q", path, p)
		}
	}
	if v := c.Lookup(Path{}); v.Kind() != Missing || !(Path{}).IsZero() {
		t.Error("the zero path leads somewhere")
	}
}

func TestParsePathRefuses(t *testing.T) {
	for path, want := range map[string]string{
		"":      "must not be empty",
		".":     "empty name",
		"a.":    "empty name",
		".a":    "empty name",
		"a..b":  "/a..b",
		"/~":    "RFC 6901",
		"/a~2b": "RFC 6901",
		"/a~":   "RFC 6901",
		"/~~1":  "RFC 6901",
	} {
		if _, err := ParsePath(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", path, err)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("MustPath did not panic")
		}
	}()
	MustPath("a..b")
}

func TestBlocked(t *testing.T) {
	c := mustParse(t, `{"s":"a","n":1,"b":false,"null":null,"o":{"l":["x"],"s":"y"},"l":[{"r":"z"}]}`)
	for path, want := range map[string]bool{
		"s": false, "o.l": false, "o.l.0": false, "l.0.r": false, // they lead somewhere
		"x": false, "x.y": false, "o.x": false, "o.x.y": false, "null.x": false, "l.1": false, "l.1.r": false, // left out
		"s.x": true, "n.x": true, "b.x": true, "o.s.x": true, "l.r": true, "o.l.x.y": true, "l.0.r.x": true,
	} {
		if got := c.Blocked(MustPath(path)); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
	if (Claims{}).Blocked(MustPath("x.y")) || c.Blocked(Path{}) {
		t.Error("what has no claims or no steps is blocked")
	}
}
