package policy

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gatehouse/gateway/token"
)

// Options are how policies are compiled. The zero Options have the defaults.
type Options struct {
	// MaxCost bounds one evaluation of one CEL expression, in CEL's own units (a
	// step or a byte looked at is about one); what costs more is [Undecided]. A
	// decision pays for ten times as much. 0: 10,000, which takes less than a
	// millisecond.
	MaxCost uint64
}

// maxNesting bounds how deeply all, any and not stand inside each other.
const maxNesting = 16

// Compiled is a policy that can decide. It is immutable and safe for
// concurrent use.
type Compiled struct {
	name       string
	rules      []rule
	claims     []token.Path // those that claims: asks about
	headers    []string     // canonical
	params     []string
	privileges []string
	tests      []preparedTest
	maxCost    uint64
}

// Name returns the policy's name.
func (c *Compiled) Name() string { return c.name }

// Rules returns the names of the policy's rules, in order.
func (c *Compiled) Rules() []string {
	names := make([]string, len(c.rules))
	for i, r := range c.rules {
		names[i] = r.name
	}
	return names
}

// Headers returns the canonical names of the request headers that the policy
// sees, so that one which the gateway itself owns can be found.
func (c *Compiled) Headers() []string { return slices.Clone(c.headers) }

// Params returns the path parameters that the policy reads, sorted: a route
// whose path has not all of them cannot use it.
func (c *Compiled) Params() []string { return slices.Clone(c.params) }

// Privileges returns the privileges that the policy asks for, sorted, those in
// CEL as far as they are written there as constants ("X" in privileges).
func (c *Compiled) Privileges() []string { return slices.Clone(c.privileges) }

// Compile checks a policy and makes it ready to decide. It does no I/O. The
// error is [Faults], with everything that is wrong.
func Compile(p Policy, o Options) (*Compiled, error) {
	if o.MaxCost == 0 {
		o.MaxCost = 10_000
	}
	c := &compiler{options: o, params: map[string]bool{}, privileges: map[string]bool{}}
	out := &Compiled{name: p.Name, maxCost: o.MaxCost}
	c.visible(p.Headers)
	if len(p.Allow) == 0 {
		c.fault("allow", "there is no rule, so the policy denies everything; add one, or leave the policy out")
	}
	names := map[string]string{}
	for i, r := range p.Allow {
		path := index("allow", i)
		name := r.Name
		if name == "" {
			name = path
		}
		if other, twice := names[name]; twice {
			c.fault(path+".name", "the name %q is that of %s, too; a log must say which of the two allowed", name, other)
		}
		names[name] = path
		out.rules = append(out.rules, rule{name, path, c.conditions(path, r.Condition, 0)})
	}
	out.tests = c.tests(p.Tests, names)
	out.claims, out.headers = c.claims, c.headers
	out.params = slices.Sorted(maps.Keys(c.params))
	out.privileges = slices.Sorted(maps.Keys(c.privileges))
	if len(c.faults) > 0 {
		return nil, c.faults
	}
	return out, nil
}

// compiler collects what a policy uses and what is wrong with it.
type compiler struct {
	options    Options
	claims     []token.Path
	headers    []string
	params     map[string]bool
	privileges map[string]bool
	faults     Faults
}

func (c *compiler) fault(path, format string, args ...any) {
	c.faults = append(c.faults, Fault{Path: path, Message: fmt.Sprintf(format, args...)})
}

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// visible reads the names of the headers that the policy may see.
func (c *compiler) visible(names []string) {
	for i, name := range names {
		path, canonical := index("headers", i), http.CanonicalHeaderKey(name)
		switch {
		case strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" || name == "":
			c.fault(path, "%q is no name of a header", name)
		case slices.Contains(c.headers, canonical):
			c.fault(path, "%q stands there twice", name)
		case canonical == "Host":
			c.fault(path, "a request's host is matched by the route, not by its policy")
		case canonical == "Authorization" || canonical == "Proxy-Authorization" || canonical == "Cookie":
			c.fault(path, "%s holds credentials, which no policy may see: explanations would show them; use claims", canonical)
		default:
			c.headers = append(c.headers, canonical)
		}
	}
}

// header finds out whether the policy may see the header.
func (c *compiler) header(path, name string) string {
	canonical := http.CanonicalHeaderKey(name)
	if !slices.Contains(c.headers, canonical) {
		c.fault(path, "the policy does not see the header %q: name it under headers%s", name, didYouMean(canonical, slices.Values(c.headers)))
	}
	return canonical
}

// claim returns the number of a claim's path among the policy's.
func (c *compiler) claim(text string) (int, error) {
	if n := slices.IndexFunc(c.claims, func(p token.Path) bool { return p.String() == text }); n >= 0 {
		return n, nil
	}
	path, err := token.ParsePath(text)
	c.claims = append(c.claims, path)
	return len(c.claims) - 1, err
}

// conditions compiles what stands at path, the cheapest questions first.
func (c *compiler) conditions(path string, d Condition, depth int) []*node {
	var nodes []*node
	add := func(path, text string, q question) { nodes = append(nodes, &node{path, text, q}) }
	faults := len(c.faults)
	if depth > maxNesting {
		c.fault(path, "conditions nest deeper than %d; a rule that deep cannot be read either", maxNesting)
		return nil
	}
	if d.Methods != nil {
		for i, m := range d.Methods {
			if m == "" || strings.Trim(m, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") != "" {
				c.fault(index(path+".method", i), "%q is no method; methods are upper-case words, such as GET", m)
			}
		}
		add(path+".method", "method in "+list(d.Methods), methodIn(d.Methods))
	}
	if q := d.Privileges; len(q.All)+len(q.Any) > 0 {
		for _, p := range slices.Concat(q.All, q.Any) {
			if p == "" {
				c.fault(path+".privileges", "a privilege is empty")
			}
			c.privileges[p] = true
		}
		var text []string
		if len(q.All) > 0 {
			text = append(text, "privileges "+list(q.All))
		}
		if len(q.Any) > 0 {
			text = append(text, "any privilege of "+list(q.Any))
		}
		add(path+".privileges", strings.Join(text, " and "), holds(q))
	}
	if d.IPs != nil {
		add(path+".ip", "ip in "+list(d.IPs), c.networks(path+".ip", d.IPs))
	}
	if d.Time != nil {
		add(path+".time", d.Time.text(), c.window(path+".time", *d.Time))
	}
	for _, t := range d.Claims {
		at := path + ".claims." + t.Path
		claim, err := c.claim(t.Path)
		if err != nil {
			c.fault(at, "%v", err)
			continue
		}
		match, text := c.match(at, t.Match, false)
		add(at, "claim "+t.Path+" "+text, c.compared(&claimTest{claim, match}, t.Match))
	}
	for _, t := range d.Headers {
		at := path + ".headers." + t.Name
		name := c.header(at, t.Name)
		match, text := c.match(at, t.Match, true)
		add(at, "header "+t.Name+" "+text, c.compared(&headerTest{name, match}, t.Match))
	}
	if d.All != nil {
		add(path+".all", "all of these", allOf(c.group(path+".all", d.All, depth)))
	}
	if d.Any != nil {
		add(path+".any", "any of these", anyOf(c.group(path+".any", d.Any, depth)))
	}
	if d.Not != nil {
		add(path+".not", "not", not{c.one(path+".not", *d.Not, depth)})
	}
	if d.When != "" {
		add(path+".when", d.When, c.expression(path+".when", d.When))
	}
	if len(nodes) == 0 && len(c.faults) == faults {
		c.fault(path, "it has no condition and so would be true for everyone; name at least one")
	}
	return nodes
}

// group compiles the items of all or any.
func (c *compiler) group(path string, conditions []Condition, depth int) []*node {
	if len(conditions) == 0 {
		c.fault(path, "it is empty; give at least one condition")
	}
	nodes := make([]*node, len(conditions))
	for i, d := range conditions {
		nodes[i] = c.one(index(path, i), d, depth)
	}
	return nodes
}

// one compiles a condition with whatever it has into one node.
func (c *compiler) one(path string, d Condition, depth int) *node {
	nodes := c.conditions(path, d, depth+1)
	if len(nodes) == 1 {
		return nodes[0]
	}
	return &node{path, "all of these", allOf(nodes)}
}

// compared lets recorders see the path parameter, too, if there is one.
func (c *compiler) compared(q question, m Match) question {
	if m.Param == "" {
		return q
	}
	c.params[m.Param] = true
	return withParam{q, m.Param}
}

// match compiles a question about a value, and says it in words.
func (c *compiler) match(path string, m Match, header bool) (matcher, string) {
	set := 0
	for _, is := range []bool{m.Equals != nil, m.In != nil, m.Matches != "", m.Param != "", m.Contains != nil, m.Present != nil} {
		if is {
			set++
		}
	}
	if set != 1 {
		c.fault(path, "want exactly one of equals, in, matches, param, contains and present; put several questions under all")
		return nil, ""
	}
	switch {
	case m.Equals != nil:
		one := c.constant(path+".equals", m.Equals, header)
		return oneOf([]constant{one}), "equals " + one.String()
	case m.In != nil:
		if len(m.In) == 0 {
			c.fault(path+".in", "the list is empty; give at least one value")
		}
		many, words := make([]constant, len(m.In)), make([]string, len(m.In))
		for i, v := range m.In {
			many[i] = c.constant(index(path+".in", i), v, header)
			words[i] = many[i].String()
		}
		return oneOf(many), "in " + list(words)
	case m.Matches != "":
		return matches(c.pattern(path+".matches", m.Matches)), "matches " + m.Matches
	case m.Param != "":
		return equalsParam(m.Param), "equals the path parameter " + m.Param
	case m.Contains != nil:
		if header {
			c.fault(path+".contains", "a header is no list here; use matches")
		}
		item := c.constant(path+".contains", m.Contains, header)
		return contains(item), "contains " + item.String()
	case *m.Present:
		return present(true), "is present"
	}
	return present(false), "is not present"
}

func (c *constant) String() string {
	if c.kind == token.String {
		return strconv.Quote(c.text)
	}
	return c.text
}

// constant reads one value of the policy. A header's is always a string.
func (c *compiler) constant(path string, v any, header bool) constant {
	switch v := v.(type) {
	case string:
		return constant{kind: token.String, text: v}
	case bool:
		if !header {
			return constant{kind: token.Bool, text: strconv.FormatBool(v)}
		}
	case json.Number:
		if header {
			break
		}
		number, ok := parseDecimal(string(v))
		if !ok || !json.Valid([]byte(v)) {
			c.fault(path, "%s is no number as JSON writes it, of at most 64 digits", v)
		}
		return constant{token.Number, string(v), number}
	}
	if header {
		c.fault(path, "%v is no string, and a header is one; put it in quotes", v)
	} else {
		c.fault(path, "%v is no string, number or boolean", v)
	}
	return constant{}
}

// pattern compiles an RE2 pattern that must match the whole string: one that
// is found somewhere would let evil.example.com.attacker.net pass for
// example.com.
func (c *compiler) pattern(path, text string) *regexp.Regexp {
	re, err := regexp.Compile(text)
	if err != nil {
		c.fault(path, "%v", err)
		return regexp.MustCompile(`$.`)
	}
	if strings.HasPrefix(text, "^") || strings.HasSuffix(text, "$") && !strings.HasSuffix(text, `\$`) {
		c.fault(path, "the pattern is anchored at both ends already; leave ^ and $ out")
	}
	whole, err := regexp.Compile(`\A(?:` + text + `)\z`)
	if err != nil { // \Q without \E swallows what is put behind it
		c.fault(path, `%q: end what \Q begins with \E`, text)
		return re
	}
	return whole
}

func (c *compiler) networks(path string, texts []string) ipIn {
	if len(texts) == 0 {
		c.fault(path, "the list is empty; give at least one network")
	}
	var networks ipIn
	for i, text := range texts {
		n, err := netip.ParsePrefix(text)
		if addr, e := netip.ParseAddr(text); e == nil && addr.Zone() == "" {
			n, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		switch {
		case err != nil:
			c.fault(index(path, i), "%q is no address and no network such as 10.0.0.0/8", text)
		case n.Addr().Is4In6():
			c.fault(index(path, i), "%q is an IPv4 address inside an IPv6 one; write it as IPv4", text)
		case n != n.Masked():
			c.fault(index(path, i), "%q has bits behind its mask; did you mean %s?", text, n.Masked())
		}
		networks = append(networks, n)
	}
	return networks
}

// weekdays are in the order of [time.Weekday].
var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

func (c *compiler) window(path string, t Time) *window {
	w := &window{
		from:      c.clock(path+".from", t.From),
		to:        c.clock(path+".to", t.To),
		notBefore: c.moment(path+".not_before", t.NotBefore),
		notAfter:  c.moment(path+".not_after", t.NotAfter),
	}
	daily := t.From != "" || t.To != "" || t.Weekdays != nil
	switch {
	case !daily && t.NotBefore == "" && t.NotAfter == "":
		c.fault(path, "it names no time; want from and to, weekdays, not_before or not_after")
	case (t.From == "") != (t.To == ""):
		c.fault(path, "from and to need each other")
	case t.From != "" && w.from == w.to:
		c.fault(path, "from and to are the same, so the window is empty or whole; leave both out for the whole day")
	case !w.notAfter.IsZero() && w.notAfter.Before(w.notBefore):
		c.fault(path+".not_after", "it is before not_before, so the condition is never true")
	}
	for i, day := range t.Weekdays {
		n := slices.Index(weekdays, day)
		if n < 0 {
			c.fault(index(path+".weekdays", i), "%q is no weekday; want one of %s%s", day, strings.Join(weekdays, ", "), didYouMean(day, slices.Values(weekdays)))
			continue
		}
		w.days[n] = true
	}
	if t.Weekdays == nil {
		w.days = [7]bool{true, true, true, true, true, true, true}
	} else if len(t.Weekdays) == 0 {
		c.fault(path+".weekdays", "the list is empty; give at least one day")
	}
	if daily != (t.Zone != "") {
		c.fault(path, "from, to and weekdays need a zone, such as Europe/Berlin or UTC, and only they do")
	} else if daily {
		var err error
		w.zone, err = time.LoadLocation(t.Zone)
		if err != nil || t.Zone == "Local" { // what is local differs from replica to replica
			c.fault(path+".zone", "%q is no time zone; want an IANA name, such as Europe/Berlin or UTC", t.Zone)
		}
	}
	return w
}

// clock reads 08:30 as minutes of the day.
func (c *compiler) clock(path, s string) int {
	if s == "" {
		return 0
	}
	if s == "24:00" {
		return 24 * 60
	}
	t, err := time.Parse("15:04", s)
	if err != nil || len(s) != len("15:04") {
		c.fault(path, "%q is no time of the day; write it as 08:30, from 00:00 to 24:00, in quotes", s)
	}
	return t.Hour()*60 + t.Minute()
}

func (c *compiler) moment(path, s string) time.Time {
	if s == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		c.fault(path, "%q is no moment; write it as 2026-01-31T08:00:00Z (RFC 3339), in quotes", s)
	}
	return t
}

// text says the window in words.
func (t Time) text() string {
	var words []string
	for _, part := range []struct{ word, value string }{
		{"on ", strings.Join(t.Weekdays, ", ")}, {"from ", t.From}, {"to ", t.To}, {"in ", t.Zone},
		{"not before ", t.NotBefore}, {"not after ", t.NotAfter},
	} {
		if part.value != "" {
			words = append(words, part.word+part.value)
		}
	}
	return "time " + strings.Join(words, " ")
}

func list(items []string) string { return "[" + strings.Join(items, ", ") + "]" }
