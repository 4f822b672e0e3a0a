package policy

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"gatehouse/gateway/token"
)

// Result is what became of one [Test].
type Result struct {
	Test     Test
	Decision Decision
	Problem  string // what is not as expected; empty: the test passed
}

// preparedTest is a test whose request has been read.
type preparedTest struct {
	Test
	in Input
}

// Run runs the policy's own tests, in order. rec, which may be nil, is told
// how each was decided; between the tests it is not told anything.
func (c *Compiled) Run(rec func(Test) Recorder) []Result {
	results := make([]Result, len(c.tests))
	for i, t := range c.tests {
		var r Recorder
		if rec != nil {
			r = rec(t.Test)
		}
		d := c.Decide(t.in, r)
		results[i] = Result{t.Test, d, t.problem(d)}
	}
	return results
}

func (t *preparedTest) problem(d Decision) string {
	var got string
	switch {
	case d.Allowed && t.Expect == "allow" && (t.Rule == "" || t.Rule == d.Rule), !d.Allowed && t.Expect == "deny":
		return ""
	case d.Allowed:
		got = "rule " + d.Rule + " allows it"
	case d.Undecided != "":
		got = "no rule allows it; rule " + d.Undecided + " could not be decided, as something that it asks about is missing or of another type"
	default:
		got = "no rule allows it"
	}
	want := t.Expect
	if t.Rule != "" {
		want += " by rule " + t.Rule
	}
	return fmt.Sprintf("want %s, but %s", want, got)
}

// params gives a test's path parameters.
type params map[string]string

// PathValue returns the parameter of that name, or "".
func (p params) PathValue(name string) string { return p[name] }

// tests reads the policy's tests; rules has the names of its rules.
func (c *compiler) tests(tests []Test, rules map[string]string) []preparedTest {
	prepared := make([]preparedTest, len(tests))
	denies := false
	for i, t := range tests {
		path := index("tests", i)
		if t.Name == "" {
			t.Name = path
		}
		denies = denies || t.Expect == "deny"
		switch _, known := rules[t.Rule]; {
		case t.Expect != "allow" && t.Expect != "deny":
			c.fault(path+".expect", "%q is neither allow nor deny%s", t.Expect, didYouMean(t.Expect, slices.Values([]string{"allow", "deny"})))
		case t.Rule != "" && t.Expect == "deny":
			c.fault(path+".rule", "no rule denies: rules allow, and what none allows is denied; leave it out")
		case t.Rule != "" && !known:
			names := func(yield func(string) bool) {
				for name := range rules {
					if !yield(name) {
						return
					}
				}
			}
			c.fault(path+".rule", "there is no rule %q%s", t.Rule, didYouMean(t.Rule, names))
		}
		prepared[i] = preparedTest{t, c.input(path, t)}
	}
	if !denies {
		c.fault("tests", "no test expects deny: a policy that was never seen to deny may allow everything; add one")
	}
	return prepared
}

// input reads a test's request.
func (c *compiler) input(path string, t Test) Input {
	in := Input{Method: t.Method, Params: params(t.Params), Header: http.Header{}, Privileges: t.Privileges}
	if in.Method == "" {
		in.Method = http.MethodGet
	}
	if t.Claims == "" {
		t.Claims = "{}"
	}
	var err error
	if in.Claims, err = token.ParseClaims([]byte(t.Claims)); err != nil {
		c.fault(path+".claims", "%v", err)
	}
	if t.Privileges == nil {
		in.readPrivileges()
	}
	for name, text := range t.Headers {
		in.Header.Set(c.header(path+".headers."+name, name), text)
	}
	if t.IP != "" {
		if in.IP, err = netip.ParseAddr(t.IP); err != nil {
			c.fault(path+".ip", "%q is no address", t.IP)
		}
	}
	if t.Time != "" {
		if in.Now, err = time.Parse(time.RFC3339, t.Time); err != nil {
			c.fault(path+".time", "%q is no moment; write it as 2026-01-31T08:00:00Z (RFC 3339), in quotes", t.Time)
		}
	}
	return in
}

// readPrivileges reads the claim privileges as privileges_from does by default:
// a string is split at spaces, an array's strings are taken whole.
func (in *Input) readPrivileges() {
	switch v := in.Claims.Get("privileges"); v.Kind() {
	case token.String:
		in.Privileges = strings.FieldsFunc(v.Text(), func(r rune) bool { return r == ' ' })
	case token.Array:
		for item := range v.Items() {
			if item.Kind() != token.String {
				in.PrivilegesUnreadable = true
			} else if item.Text() != "" {
				in.Privileges = append(in.Privileges, item.Text())
			}
		}
	default:
		in.PrivilegesMissing = true
		in.PrivilegesUnreadable = v.Kind() != token.Missing && v.Kind() != token.Null
	}
}
