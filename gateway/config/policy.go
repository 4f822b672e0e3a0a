package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// policyDir is where policies lie, beside the configuration file.
const policyDir = "policies"

// Policy is one file of policies/: what it says, unchecked but for its form.
type Policy struct {
	Name        string // that of its file, without .yaml
	Description string
	Headers     []string
	Allow       []PolicyRule
	Tests       []PolicyTest

	source // where each value stands in the policy's file
}

// PolicyRule is a rule that allows what its condition holds for.
type PolicyRule struct {
	Name string // may be empty
	Condition
}

// Condition is what a rule asks; all that is set must hold.
type Condition struct {
	Methods  []string
	Has, One []string // privileges: all of Has, and one of One if there are any
	IPs      []string
	Time     *PolicyTime
	Claims   []PolicyMatch // by paths as token.ParsePath reads them
	Headers  []PolicyMatch
	All, Any []Condition
	Not      *Condition
	When     string // a CEL expression
}

// PolicyTime is a window of time, as it is written.
type PolicyTime struct {
	From, To, Zone      string
	Weekdays            []string
	NotBefore, NotAfter string
}

// PolicyMatch is one question about a claim or a header. The constants are
// strings, booleans, and numbers as [json.Number].
type PolicyMatch struct {
	Of       string // the claim's path or the header's name
	Equals   any
	In       []any
	Matches  string
	Param    string
	Contains any
	Present  *bool
}

// PolicyTest is a request and what the policy must say to it.
type PolicyTest struct {
	Name         string
	Claims       string   // a JSON object, or empty
	Privileges   []string // nil if not said
	Method       string
	Params       map[string]string
	Headers      map[string]string
	IP, Time     string
	Expect, Rule string
}

// filePolicy is a file of policies/ as it is written.
type filePolicy struct {
	Description string           `yaml:"description" doc:"what the policy is for"`
	Headers     []string         `yaml:"headers" doc:"the only request headers that it sees"`
	Allow       []fileCondition  `yaml:"allow" need:"the rules, of which the first that holds allows the request" doc:"rules in order; the first that holds allows, and what none allows is denied"`
	Tests       []filePolicyTest `yaml:"tests" need:"requests and what becomes of them; at least one must expect deny, for a policy that was never seen to deny may allow everything" doc:"requests and what becomes of them, run by gatehouse check"`
}

type fileCondition struct {
	Name       string              `yaml:"name" doc:"of a rule, for logs and tests"` // of a rule only
	Method     oneOrMany[string]   `yaml:"method" doc:"the method is one of these"`
	Privileges privileges          `yaml:"privileges" doc:"all of a list, or one of any"`
	IP         oneOrMany[string]   `yaml:"ip" doc:"the client's address is in one of these networks"`
	Time       fileTime            `yaml:"time" doc:"now is in this window"`
	Claims     map[string]fileTest `yaml:"claims" doc:"each claim, by its path, passes its test"`
	Headers    map[string]fileTest `yaml:"headers" doc:"each header, which headers at the top names, passes its test"`
	All        []fileCondition     `yaml:"all" doc:"all of these conditions hold"`
	Any        []fileCondition     `yaml:"any" doc:"one of these conditions holds"`
	Not        *fileCondition      `yaml:"not" doc:"this condition does not hold"`
	When       string              `yaml:"when" doc:"a CEL expression"`
}

type fileTime struct {
	From      string   `yaml:"from" doc:"HH:MM"`
	To        string   `yaml:"to" doc:"HH:MM, excluded"`
	Weekdays  []string `yaml:"weekdays" doc:"mon, tue, wed, thu, fri, sat, sun"`
	Zone      string   `yaml:"zone" doc:"such as Europe/Berlin; needed by from, to and weekdays"`
	NotBefore string   `yaml:"not_before" doc:"a moment (RFC 3339)"`
	NotAfter  string   `yaml:"not_after" doc:"a moment (RFC 3339)"`
}

// fileTest is a question about a value; a bare value asks whether it equals that.
type fileTest struct {
	Equals   constant   `yaml:"equals" doc:"is that value"`
	In       []constant `yaml:"in" doc:"is one of these values"`
	Matches  string     `yaml:"matches" doc:"is a string that the whole pattern (RE2) matches"`
	Param    string     `yaml:"param" doc:"is the path parameter of that name"`
	Contains constant   `yaml:"contains" doc:"is an array with that item"`
	Present  *bool      `yaml:"present" doc:"is there, or is not"`
}

func (t *fileTest) readNode(r *reader, n *yaml.Node, path string) {
	type plain fileTest
	switch n.Kind {
	case yaml.MappingNode:
		r.read(n, path, (*plain)(t))
	case yaml.SequenceNode:
		r.fault(path, "%s is a list; for one of several values write in: [...], for an array with such an item contains", path)
	default:
		r.read(n, path, &t.Equals)
	}
}

type filePolicyTest struct {
	Name       string            `yaml:"name" doc:"what the output calls it"`
	Claims     jsonObject        `yaml:"claims" doc:"the token's claims"`
	Privileges anyList           `yaml:"privileges" doc:"what privileges_from would find; default: the claim privileges"`
	Method     string            `yaml:"method" doc:"default GET"`
	Params     map[string]string `yaml:"params" doc:"path parameters"`
	Headers    map[string]string `yaml:"headers" doc:"of the request"`
	IP         string            `yaml:"ip" doc:"the client's address"`
	Time       string            `yaml:"time" doc:"now (RFC 3339)"`
	Expect     string            `yaml:"expect" enum:"allow,deny" need:"allow or deny" doc:"what must become of it"`
	Rule       string            `yaml:"rule" doc:"which rule must allow it"`
}

// constant is a string, a boolean or a number, which keeps its digits.
type constant struct{ value any }

func (c *constant) readNode(r *reader, n *yaml.Node, path string) {
	if n.Kind != yaml.ScalarNode {
		r.fault(path, "%s is %s; want a string, a number, true or false", path, describe(n))
		return
	}
	switch text, ok := r.jsonScalar(n, path); {
	case !ok:
	case n.ShortTag() == "!!str":
		c.value = n.Value
		r.isString(n, path, n.Value)
	case n.ShortTag() == "!!bool":
		c.value = text == "true"
	default:
		c.value = json.Number(text)
	}
}

// anyList is a list that may be empty.
type anyList []string

func (l *anyList) readNode(r *reader, n *yaml.Node, path string) {
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		*l = anyList{}
		return
	}
	r.read(n, path, (*[]string)(l))
}

// jsonObject is a YAML map, as the text of a JSON object.
type jsonObject string

func (o *jsonObject) readNode(r *reader, n *yaml.Node, path string) {
	if n.Kind != yaml.MappingNode {
		r.fault(path, "%s is %s; want a map, the token's claims", path, describe(n))
		return
	}
	var b strings.Builder
	r.json(n, path, &b)
	*o = jsonObject(b.String())
}

// json writes a YAML value as JSON.
func (r *reader) json(n *yaml.Node, path string, b *strings.Builder) {
	if !r.unmarked(n, path) {
		return
	}
	switch n.Kind {
	case yaml.MappingNode:
		sep := byte('{')
		r.pairs(n, path, func(key, value *yaml.Node) {
			b.WriteByte(sep)
			b.WriteString(jsonText(key.Value) + ":")
			r.json(value, join(path, key.Value), b)
			sep = ','
		})
		if sep == '{' {
			b.WriteByte(sep)
		}
		b.WriteByte('}')
	case yaml.SequenceNode:
		b.WriteByte('[')
		for i, item := range n.Content {
			if i > 0 {
				b.WriteByte(',')
			}
			r.pos[index(path, i)] = r.place(item)
			r.json(item, index(path, i), b)
		}
		b.WriteByte(']')
	default:
		text, _ := r.jsonScalar(n, path)
		b.WriteString(text)
	}
}

// jsonScalar returns a scalar as JSON writes it.
func (r *reader) jsonScalar(n *yaml.Node, path string) (text string, ok bool) {
	switch tag := n.ShortTag(); {
	case tag == "!!str":
		s, ok := r.scalar(n, path, "a string")
		return jsonText(s), ok
	case tag == "!!null":
		return "null", true
	case tag == "!!bool" && (n.Value == "true" || n.Value == "false"), (tag == "!!int" || tag == "!!float") && json.Valid([]byte(n.Value)):
		return n.Value, true
	case tag == "!!int" || tag == "!!float":
		r.fault(path, "%s is %s, no number as JSON writes it; a string needs quotes", path, n.Value)
	default:
		r.fault(path, "%s is %s; a string needs quotes here", path, n.Value)
	}
	return "null", false
}

func jsonText(s string) string {
	text, err := json.Marshal(s)
	if err != nil { // not reached: a string
		return `""`
	}
	return string(text)
}

// policy returns the policy that a route names, reading its file once.
func (r *reader) policy(at, name string, known map[string]*Policy) {
	if name == "" || known[name] != nil {
		return
	}
	if !isName(strings.ReplaceAll(name, ".", "-")) || strings.HasPrefix(name, ".") {
		r.fault(at, "%s is %s, no name of a policy; want letters, digits, ., - and _", at, r.quote(at, name))
		return
	}
	dir := filepath.Join(r.dir, policyDir)
	file := filepath.Join(dir, name+".yaml")
	r.reads(file)
	data, err := readLimited(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		names := policyNames(dir)
		hint := fmt.Sprintf("; there is no file %s", file)
		if near, ok := r.nearest(name, slices.Values(names)); ok {
			hint = fmt.Sprintf("; did you mean %q?", near)
		} else if len(names) > 0 && len(names) <= 8 {
			hint += ", only " + strings.Join(names, ", ")
		}
		r.fault(at, "unknown policy %s in %s%s", r.quote(at, name), at, hint)
		return
	case err != nil:
		r.fault(at, "%s: cannot read the policy: %v", at, err)
		return
	}
	p, faults := r.parsePolicy(file, name, data)
	r.policyFaults = append(r.policyFaults, faults...)
	known[name] = p // even at fault, which is said once
}

// policyNames lists the policies of a directory.
func policyNames(dir string) []string {
	entries, _ := os.ReadDir(dir) // what cannot be listed gives no hint
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".yaml"); ok && !e.IsDir() {
			names = append(names, name)
		}
	}
	return names
}

// parsePolicy reads the text of a policy's file as strictly as routes.yaml.
func (r *reader) parsePolicy(file, name string, data []byte) (*Policy, Faults) {
	p := &Policy{Name: name, source: source{file: file}}
	root, fault := document(file, data, "allow and tests")
	if fault != nil {
		return p, Faults{*fault}
	}
	own := newReader(file, Options{r.env, r.reads})
	own.types, own.hints, own.literal = r.types, r.hints, true
	var f filePolicy
	own.pos[""] = own.place(root)
	own.value(root, "", reflect.ValueOf(&f).Elem(), "")
	r.hints = own.hints
	p.source = own.source
	p.Description, p.Headers = f.Description, f.Headers
	for i := range f.Allow {
		p.Allow = append(p.Allow, PolicyRule{f.Allow[i].Name, own.condition(index("allow", i), &f.Allow[i])})
	}
	for i, t := range f.Tests {
		at := index("tests", i)
		for _, key := range []string{"params", "headers"} {
			if own.ok(at+"."+key) && len(map[string]map[string]string{"params": t.Params, "headers": t.Headers}[key]) == 0 {
				own.fault(at+"."+key, "%s.%s is an empty map; leave the key out", at, key)
			}
		}
		p.Tests = append(p.Tests, PolicyTest{
			t.Name, string(t.Claims), t.Privileges, t.Method, t.Params, t.Headers, t.IP, t.Time, t.Expect, t.Rule,
		})
	}
	_ = own.faults.Err() // sorts
	return p, own.faults
}

func (r *reader) condition(path string, f *fileCondition) Condition {
	c := Condition{
		Methods: f.Method, Has: f.Privileges.All, One: f.Privileges.Any, IPs: f.IP,
		Claims: r.matches(path+".claims", f.Claims), Headers: r.matches(path+".headers", f.Headers), When: f.When,
	}
	if r.has(path + ".time") {
		c.Time = &PolicyTime{f.Time.From, f.Time.To, f.Time.Zone, f.Time.Weekdays, f.Time.NotBefore, f.Time.NotAfter}
	}
	if at := path + ".privileges"; r.ok(at) && len(c.Has)+len(c.One) == 0 && !r.bad[at+".all"] && !r.bad[at+".any"] {
		r.fault(at, "%s is an empty list; it needs at least one item", at)
	}
	for i := range f.All {
		c.All = append(c.All, r.inner(index(path+".all", i), &f.All[i]))
	}
	for i := range f.Any {
		c.Any = append(c.Any, r.inner(index(path+".any", i), &f.Any[i]))
	}
	if f.Not != nil {
		not := r.inner(path+".not", f.Not)
		c.Not = &not
	}
	return c
}

// inner is a condition inside another, which has no name.
func (r *reader) inner(path string, f *fileCondition) Condition {
	if r.has(path + ".name") {
		r.fault(path+".name", "%s.name: only a rule has a name, not a condition inside it", path)
	}
	return r.condition(path, f)
}

func (r *reader) matches(path string, tests map[string]fileTest) []PolicyMatch {
	if r.ok(path) && len(tests) == 0 {
		r.fault(path, "%s is an empty map; it needs at least one key", path)
	}
	var list []PolicyMatch
	for _, key := range inOrder(&r.source, path, tests) {
		t := tests[key]
		m := PolicyMatch{Of: key, Equals: t.Equals.value, Matches: t.Matches, Param: t.Param, Contains: t.Contains.value, Present: t.Present}
		for _, c := range t.In {
			m.In = append(m.In, c.value)
		}
		list = append(list, m)
	}
	return list
}

// policyHeaders faults what a policy declares to see and cannot: what HTTP or
// the gateway itself uses says nothing of the caller, and what the gateway
// sets for backends is dropped from callers' requests.
func policyHeaders(p *Policy, h *Headers) (faults Faults) {
	each("headers", p.Headers, func(at, name string) {
		switch folded := fold(name); {
		case folded == "authorization" || folded == "proxy-authorization" || folded == "cookie" || folded == "host":
			// The policy's own reader says more about these.
		case isOwned(folded):
			faults = append(faults, p.Faultf(at, "%s is %q, which HTTP or the gateway uses itself", at, name))
		case h.owns(folded):
			faults = append(faults, p.Faultf(at, "%s is %q, a header that the gateway sets for backends and drops from callers; ask about the claim", at, name))
		}
	})
	return faults
}
