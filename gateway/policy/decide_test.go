package policy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/gateway/token"
)

// policyOf makes a policy of these rules that loads: it has a deny case.
func policyOf(rules ...Rule) Policy {
	return Policy{
		Name: "p", Headers: []string{"X-Region", "x-tenant"}, Allow: rules,
		Tests: []Test{{Name: "nobody", Expect: "deny"}},
	}
}

func mustCompile(t testing.TB, rules ...Rule) *Compiled {
	t.Helper()
	c, err := Compile(policyOf(rules...), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mustClaims(t testing.TB, text string) token.Claims {
	t.Helper()
	claims, err := token.ParseClaims([]byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return claims
}

// verdict returns what a condition alone says of a request.
func verdict(t testing.TB, d Condition, in Input) Truth {
	t.Helper()
	var last Step
	decision := mustCompile(t, Rule{Name: "r", Condition: d}).Decide(in, func(s Step) { last = s })
	if want := truth(decision.Allowed); decision.Undecided == "r" && last.Result != Undecided || decision.Undecided == "" && last.Result != want {
		t.Fatalf("decision %+v, but the rule was %s", decision, last.Result)
	}
	return last.Result
}

func claim(path string, m Match) Condition {
	return Condition{Claims: []ClaimTest{{path, m}}}
}
func header(name string, m Match) Condition {
	return Condition{Headers: []HeaderTest{{name, m}}}
}

var yes, no = true, false

// monday is 2026-03-02 at noon in UTC, one o'clock in Berlin.
var monday = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func request(t testing.TB, claims string) Input {
	t.Helper()
	in := Input{
		Claims: mustClaims(t, claims), Method: "GET", Params: params{"id": "42", "name": "bob", "rest": ""},
		Header: http.Header{"X-Region": {"eu"}, "X-Tenant": {"a", "b"}, "X-Unnamed": {"eu"}},
		IP:     netip.MustParseAddr("10.1.2.3"), Now: monday,
	}
	in.readPrivileges()
	return in
}

// TestConditions has a row of each truth for each kind of condition.
func TestConditions(t *testing.T) {
	for _, c := range []struct {
		name   string
		d      Condition
		claims string
		want   Truth
	}{
		{"method", Condition{Methods: []string{"POST", "GET"}}, `{}`, True},
		{"other method", Condition{Methods: []string{"HEAD"}}, `{}`, False},

		{"privilege", Condition{Privileges: Requirement{All: []string{"A", "B"}}}, `{"privileges":["B","A"]}`, True},
		{"one missing", Condition{Privileges: Requirement{All: []string{"A", "B"}}}, `{"privileges":["B"]}`, False},
		{"any", Condition{Privileges: Requirement{Any: []string{"A", "B"}}}, `{"privileges":"X B"}`, True},
		{"none", Condition{Privileges: Requirement{Any: []string{"A", "B"}}}, `{"privileges":[]}`, False},
		{"no privileges at all", Condition{Privileges: Requirement{All: []string{"A"}}}, `{}`, Undecided},

		{"equals", claim("sub", Match{Equals: "bob"}), `{"sub":"bob"}`, True},
		{"differs", claim("sub", Match{Equals: "bob"}), `{"sub":"Bob"}`, False},
		{"missing", claim("sub", Match{Equals: "bob"}), `{}`, Undecided},
		{"null", claim("sub", Match{Equals: "bob"}), `{"sub":null}`, Undecided},
		{"other type", claim("sub", Match{Equals: "5"}), `{"sub":5}`, Undecided},
		{"list of one", claim("sub", Match{Equals: "bob"}), `{"sub":["bob"]}`, Undecided},
		{"nested", claim("a.b", Match{Equals: true}), `{"a":{"b":true}}`, True},
		{"pointer", claim("/a.b", Match{Equals: false}), `{"a.b":true}`, False},
		{"number", claim("n", Match{Equals: json.Number("1000")}), `{"n":1e3}`, True},
		{"exact number", claim("n", Match{Equals: json.Number("9007199254740993")}), `{"n":9007199254740992}`, False},
		{"number of another spelling", claim("n", Match{Equals: json.Number("-0.50")}), `{"n":-5E-1}`, True},
		{"number past comparing", claim("n", Match{Equals: json.Number("1")}), `{"n":1e999999999999}`, Undecided},

		{"in", claim("plan", Match{In: []any{"gold", json.Number("7")}}), `{"plan":7.0}`, True},
		{"not in", claim("plan", Match{In: []any{"gold", json.Number("7")}}), `{"plan":"tin"}`, False},
		{"in, of another type", claim("plan", Match{In: []any{"gold", json.Number("7")}}), `{"plan":true}`, Undecided},

		{"matches", claim("mail", Match{Matches: `[a-z]+@example\.com|root`}), `{"mail":"bob@example.com"}`, True},
		{"the other alternative", claim("mail", Match{Matches: `[a-z]+@example\.com|root`}), `{"mail":"root"}`, True},
		{"matches only inside", claim("mail", Match{Matches: `[a-z]+@example\.com|root`}), `{"mail":"bob@example.com.evil.net"}`, False},
		{"matches one line", claim("mail", Match{Matches: `(?m)bob`}), `{"mail":"bob\nroot"}`, False},
		{"matches no number", claim("mail", Match{Matches: `\d+`}), `{"mail":7}`, Undecided},

		{"param", claim("sub", Match{Param: "name"}), `{"sub":"bob"}`, True},
		{"param as a number", claim("sub", Match{Param: "id"}), `{"sub":42}`, True},
		{"another's param", claim("sub", Match{Param: "name"}), `{"sub":"eve"}`, False},
		{"no such param", claim("sub", Match{Param: "nope"}), `{"sub":""}`, Undecided},
		{"empty param", claim("sub", Match{Param: "rest"}), `{"sub":""}`, Undecided},
		{"param of another type", claim("sub", Match{Param: "name"}), `{"sub":["bob"]}`, Undecided},

		{"contains", claim("amr", Match{Contains: "otp"}), `{"amr":["pwd","otp"]}`, True},
		{"contains not", claim("amr", Match{Contains: "otp"}), `{"amr":["pwd"]}`, False},
		{"empty list", claim("amr", Match{Contains: "otp"}), `{"amr":[]}`, False},
		{"contains a list", claim("amr", Match{Contains: "otp"}), `{"amr":["pwd",["otp"]]}`, Undecided},
		{"a string is no list", claim("amr", Match{Contains: "otp"}), `{"amr":"pwd otp"}`, Undecided},

		{"present", claim("a", Match{Present: &yes}), `{"a":0}`, True},
		{"null is not present", claim("a", Match{Present: &yes}), `{"a":null}`, False},
		{"absent", claim("a", Match{Present: &no}), `{}`, True},
		{"not absent", claim("a", Match{Present: &no}), `{"a":{}}`, False},

		{"header", header("x-region", Match{Equals: "eu"}), `{}`, True},
		{"other header", header("X-Region", Match{In: []any{"us", "jp"}}), `{}`, False},
		{"header sent twice", header("X-Tenant", Match{Equals: "a"}), `{}`, Undecided},
		{"header sent twice is present", header("X-Tenant", Match{Present: &yes}), `{}`, True},
		{"header and param", header("X-Region", Match{Param: "name"}), `{}`, False},

		{"network", Condition{IPs: []string{"192.168.0.0/16", "10.0.0.0/8"}}, `{}`, True},
		{"address", Condition{IPs: []string{"10.1.2.3"}}, `{}`, True},
		{"other network", Condition{IPs: []string{"10.1.2.4/31", "2001:db8::/32"}}, `{}`, False},

		{"office hours", Condition{Time: &Time{From: "08:00", To: "18:00", Zone: "Europe/Berlin", Weekdays: []string{"mon"}}}, `{}`, True},
		{"to is excluded", Condition{Time: &Time{From: "08:00", To: "13:00", Zone: "Europe/Berlin"}}, `{}`, False},
		{"from is included", Condition{Time: &Time{From: "13:00", To: "24:00", Zone: "Europe/Berlin"}}, `{}`, True},
		{"other day", Condition{Time: &Time{Weekdays: []string{"sat", "sun"}, Zone: "UTC"}}, `{}`, False},
		{"other zone's day", Condition{Time: &Time{Weekdays: []string{"tue"}, Zone: "Pacific/Kiritimati"}}, `{}`, True},
		{"past midnight", Condition{Time: &Time{From: "22:00", To: "03:00", Weekdays: []string{"mon"}, Zone: "Pacific/Kiritimati"}}, `{}`, True},
		{"past another midnight", Condition{Time: &Time{From: "22:00", To: "03:00", Weekdays: []string{"tue"}, Zone: "Pacific/Kiritimati"}}, `{}`, False},
		{"between two nights", Condition{Time: &Time{From: "22:00", To: "06:00", Zone: "UTC"}}, `{}`, False},
		{"not before", Condition{Time: &Time{NotBefore: "2026-03-02T13:00:00+01:00"}}, `{}`, True},
		{"too early", Condition{Time: &Time{NotBefore: "2026-03-02T12:00:01Z"}}, `{}`, False},
		{"too late", Condition{Time: &Time{NotAfter: "2026-03-02T11:59:59Z"}}, `{}`, False},

		{"all", Condition{All: []Condition{claim("a", Match{Equals: true}), claim("b", Match{Equals: true})}}, `{"a":true,"b":true}`, True},
		{"false and undecided", Condition{All: []Condition{claim("a", Match{Equals: true}), claim("b", Match{Equals: true})}}, `{"b":false}`, False},
		{"true and undecided", Condition{All: []Condition{claim("a", Match{Equals: true}), claim("b", Match{Equals: true})}}, `{"b":true}`, Undecided},
		{"any, true and undecided", Condition{Any: []Condition{claim("a", Match{Equals: true}), claim("b", Match{Equals: true})}}, `{"b":true}`, True},
		{"any, false and undecided", Condition{Any: []Condition{claim("a", Match{Equals: true}), claim("b", Match{Equals: true})}}, `{"b":false}`, Undecided},
		{"any, all false", Condition{Any: []Condition{claim("a", Match{Equals: true}), claim("b", Match{Equals: true})}}, `{"a":false,"b":false}`, False},
		{"several keys are all", Condition{Methods: []string{"GET"}, IPs: []string{"10.0.0.0/8"}, When: `claims.a == 1`}, `{"a":2}`, False},

		{"CEL", Condition{When: `claims.sub == params.name && method == "GET" && headers["x-region"] == "eu" && cidr("10.0.0.0/8").containsIP(ip) && now.getHours() == 12`}, `{"sub":"bob"}`, True},
		{"CEL, privileges", Condition{When: `"A" in privileges && !("B" in privileges)`}, `{"privileges":["A"]}`, True},
		{"CEL, no privileges at all", Condition{When: `!("B" in privileges)`}, `{}`, Undecided},
		{"CEL, false", Condition{When: `claims.sub == "eve"`}, `{"sub":"bob"}`, False},
		{"CEL, missing", Condition{When: `claims.sub == "eve"`}, `{}`, Undecided},
		{"CEL, unequal to another type", Condition{When: `claims.role != "guest"`}, `{"role":["guest"]}`, Undecided},
		{"CEL, not in a list of another type", Condition{When: `!("guest" in claims.roles)`}, `{"roles":[["guest"]]}`, Undecided},
		{"CEL, a list is not in a list", Condition{When: `!(claims.role in ["guest"])`}, `{"role":["guest"]}`, Undecided},
		{"CEL, not in a list", Condition{When: `!("guest" in claims.roles)`}, `{"roles":["a",7]}`, True},
		{"CEL, not in an empty list", Condition{When: `!("guest" in claims.roles)`}, `{"roles":[]}`, True},
		{"CEL, null", Condition{When: `claims.a != null`}, `{"a":5}`, True},
		{"CEL, a null", Condition{When: `claims.a != "x"`}, `{"a":null}`, Undecided},
		{"CEL, has", Condition{When: `!has(claims.suspended)`}, `{}`, True},
		{"CEL, integer", Condition{When: `claims.n == 9007199254740993`}, `{"n":9007199254740993}`, True},
		{"CEL, next integer", Condition{When: `claims.n == 9007199254740993`}, `{"n":9007199254740992}`, False},
		{"CEL, unsigned", Condition{When: `claims.n == 18446744073709551615u`}, `{"n":18446744073709551615}`, True},
		{"CEL, integer and double", Condition{When: `claims.n == 1000 && claims.n >= 999.5`}, `{"n":1e3}`, True},
		{"CEL, past 64 bits", Condition{When: `claims.n != 1`}, `{"n":18446744073709551616}`, Undecided},
		{"CEL, a double that rounds", Condition{When: `claims.n != 1`}, `{"n":9007199254740993.0}`, Undecided},
		{"CEL, a list with one past 64 bits", Condition{When: `!(1 in claims.ns)`}, `{"ns":[2,18446744073709551616]}`, Undecided},
		{"CEL, header sent twice", Condition{When: `!("x-tenant" in headers) || headers["x-tenant"] == "a"`}, `{}`, Undecided},
		{"CEL, an object is no list", Condition{When: `"ADMIN" in claims.roles`}, `{"roles":{"ADMIN":false}}`, Undecided},
		{"CEL, nobody walks over an object", Condition{When: `claims.roles.exists(r, r == "ADMIN")`}, `{"roles":{"ADMIN":false}}`, Undecided},
		{"CEL, nobody walks over nothing", Condition{When: `!claims.roles.exists(r, r == "BANNED")`}, `{"roles":""}`, Undecided},
		{"CEL, all", Condition{When: `claims.roles.all(r, r != "BANNED") && !privileges.exists(p, p == "X")`}, `{"roles":["a"],"privileges":[]}`, True},
		{"CEL, a name with dots", Condition{When: "'https://x.example/roles' in claims && !('sub' in claims) && claims['https://x.example/roles'] == 'a'"}, `{"https://x.example/roles":"a"}`, True},
		{"CEL, a type asked for", Condition{When: `type(claims.a) == string`}, `{"a":5}`, False},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := request(t, c.claims)
			if got := verdict(t, c.d, in); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if got := verdict(t, Condition{Not: &c.d}, in); got != True-c.want {
				t.Errorf("not: got %s, want %s", got, True-c.want)
			}
		})
	}
}

// everyKind has each kind of condition once.
func everyKind() []Condition {
	kinds := []Condition{
		{Privileges: Requirement{All: []string{"ADMIN"}}},
		{Privileges: Requirement{Any: []string{"ADMIN", "ROOT"}}},
		{When: `claims.x == "ADMIN"`},
		{When: `claims.x != "guest"`},
		{When: `claims.x in ["ADMIN"]`},
		{When: `"ADMIN" in claims.x`},
		{When: `claims.x.startsWith("ADM")`},
		{When: `claims.x.matches("^ADMIN$")`},
		{When: `claims.x.exists(r, r == "ADMIN")`},
		{When: `claims.x > 5`},
		{When: `claims.x.a.b.c == "ADMIN"`},
		{When: `claims.x + "" == "ADMIN"`},
		{When: `"ADMIN" in privileges`},
	}
	for _, m := range []Match{
		{Equals: "ADMIN"}, {Equals: true}, {Equals: json.Number("7")}, {In: []any{"ADMIN", json.Number("7"), true}},
		{Matches: "ADMIN"}, {Param: "x"}, {Contains: "ADMIN"},
	} {
		kinds = append(kinds, claim("x", m), claim("x.y", m), claim("/x/0", m))
	}
	return kinds
}

// hostile are claims that no issuer should sign, and that no condition on x or
// privileges may be moved by: in none of them is x or a privilege what is
// asked for.
func hostile() map[string]string {
	deep := func(n int, open, shut, core string) string {
		return strings.Repeat(open, n) + core + strings.Repeat(shut, n)
	}
	both := func(v string) string { return `{"x":` + v + `,"privileges":` + v + `}` }
	return map[string]string{
		"nothing":         `{}`,
		"null":            both(`null`),
		"deep list":       both(deep(token.MaxDepth-1, "[", "]", `"ADMIN"`)),
		"deep object":     both(deep(token.MaxDepth-1, `{"x":`, "}", `"ADMIN"`)),
		"object":          both(`{"ADMIN":"ADMIN","a":"ADMIN"}`),
		"list of lists":   both(`[[["ADMIN"]],[[7]],[[true]]]`),
		"list of objects": both(`[{"ADMIN":"ADMIN"}]`),
		"list of nulls":   both(`[null,null]`),
		"huge number":     `{"x":1e400,"privileges":1e400}`,
		"long number":     `{"x":` + strings.Repeat("9", 10_000) + `,"privileges":7}`,
		"tiny number":     `{"x":1e-99999999999999999999,"privileges":0}`,
		"huge list":       both(`[` + strings.Repeat(`[null],`, 5000) + `[null]]`),
		"huge object":     both(`{` + strings.TrimSuffix(strings.Join(manyNames(2000), ","), ",") + `}`),
	}
}

func manyNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf(`"n%d":[]`, i)
	}
	return names
}

// TestHostileClaims holds each kind of condition, and its negation, against
// each hostile token: nothing opens, nothing crashes.
func TestHostileClaims(t *testing.T) {
	for name, text := range hostile() {
		in := request(t, text)
		in.Params = params{"x": "ADMIN"}
		for _, d := range everyKind() {
			if got := verdict(t, d, in); got == True {
				t.Errorf("%s: %+v is true", name, d)
			}
			// What may be false, not only undecided, is a plain list without what is asked for.
			if got := verdict(t, Condition{Not: &d}, in); got == True && !plainlyFalse(name, d) {
				t.Errorf("%s: not %+v is true", name, d)
			}
		}
	}
	// The same conditions can be true.
	for _, text := range []string{`{"x":"ADMIN","privileges":["ADMIN"]}`, `{"x":["ADMIN"]}`, `{"x":7}`, `{"x":true}`, `{"x":{"y":"ADMIN","a":{"b":{"c":"ADMIN"}}}}`,
		`{"x":{"y":7}}`, `{"x":{"y":true}}`, `{"x":{"y":["ADMIN"]}}`, `{"x":[7]}`, `{"x":[true]}`, `{"x":[["ADMIN"]]}`} {
		reached.see(t, text)
	}
	for i, d := range everyKind() {
		if !reached[i] {
			t.Errorf("%+v is never true", d)
		}
	}
}

// Nor do such claims meet a step-up, or name an actor who may act.
func TestHostileClaimsOfUsersAndActors(t *testing.T) {
	asks := map[string]StepUp{"acr": {ACR: []string{"ADMIN"}}, "amr": {AMR: Requirement{Any: []string{"ADMIN", "7"}}}, "auth_time": {MaxAuthAge: time.Hour}}
	for name, text := range hostile() {
		for claim, s := range asks {
			if s.Check(request(t, strings.ReplaceAll(text, `"x":`, `"`+claim+`":`)).Claims, time.Unix(1_800_000_000, 0)) == nil {
				t.Errorf("%s: %s meets %+v", name, claim, s)
			}
		}
		for _, claim := range []string{"act", "impersonator"} {
			claims := request(t, strings.ReplaceAll(text, `"x":`, `"`+claim+`":`)).Claims
			actor, acting := NewActorClaims(token.MustPath("impersonator")).Find(claims)
			if says := claims.Get(claim).Kind(); acting != (says != token.Missing && says != token.Null) {
				t.Errorf("%s in %s: acting is %v", name, claim, acting)
			}
			for _, d := range []Delegation{{Deny: true}, {Actors: []Actor{{Subject: "ADMIN"}, {Subject: "7"}}}} {
				if _, ok := d.Check(actor, acting); ok && acting {
					t.Errorf("%s in %s: %+v may act", name, claim, actor)
				}
			}
		}
	}
}

// reached are the kinds of conditions that some token made true.
var reached = seen{}

type seen map[int]bool

func (s seen) see(t *testing.T, text string) {
	in := request(t, text)
	in.Params = params{"x": "ADMIN"}
	for i, d := range everyKind() {
		s[i] = s[i] || verdict(t, d, in) == True
	}
}

// plainlyFalse says whether the condition is decided for these claims: they have
// a number, which is not 7 and not the path's.
func plainlyFalse(name string, d Condition) bool {
	asksPrivileges := strings.Contains(d.When, "privileges") || len(d.Privileges.All)+len(d.Privileges.Any) > 0
	return !asksPrivileges && strings.Contains(name, "number")
}

func TestFirstRuleDecides(t *testing.T) {
	c := mustCompile(t,
		Rule{Name: "owner", Condition: claim("sub", Match{Param: "name"})},
		Rule{Condition: Condition{Privileges: Requirement{All: []string{"READ"}}}},
		Rule{Name: "admin", Condition: Condition{Privileges: Requirement{All: []string{"READ", "ADMIN"}}}},
	)
	for _, test := range []struct {
		claims string
		want   Decision
	}{
		{`{"sub":"bob","privileges":["READ"]}`, Decision{Allowed: true, Rule: "owner"}},
		{`{"sub":"eve","privileges":["READ","ADMIN"]}`, Decision{Allowed: true, Rule: "allow[1]"}},
		{`{"privileges":["READ"]}`, Decision{Allowed: true, Rule: "allow[1]", Undecided: "owner"}},
		{`{"sub":"eve","privileges":[]}`, Decision{}},
		{`{"sub":"eve"}`, Decision{Undecided: "allow[1]"}},
	} {
		if got := c.Decide(request(t, test.claims), nil); got != test.want {
			t.Errorf("%s: got %+v, want %+v", test.claims, got, test.want)
		}
	}
	if got := c.Rules(); !slices.Equal(got, []string{"owner", "allow[1]", "admin"}) {
		t.Errorf("rules %q", got)
	}
}

// TestNothingKnown: an input without a client, a time, parameters or headers
// leaves the conditions on them undecided, in both vocabularies.
func TestNothingKnown(t *testing.T) {
	for _, d := range []Condition{
		{IPs: []string{"0.0.0.0/0", "::/0"}},
		{When: `ip.isLoopback()`},
		{Time: &Time{NotBefore: "0001-01-01T00:00:00Z"}},
		{When: `now > timestamp("1970-01-01T00:00:00Z")`},
		claim("sub", Match{Param: "id"}),
		{When: `params.id != ""`},
		header("X-Region", Match{Matches: ".*"}),
		{When: `headers["x-region"] != ""`},
	} {
		for _, d := range []Condition{d, {Not: &d}} {
			if got := verdict(t, d, Input{Claims: mustClaims(t, `{"sub":""}`)}); got != Undecided {
				t.Errorf("%+v: %s", d, got)
			}
		}
	}
}

func TestMappedAddress(t *testing.T) {
	d := Condition{IPs: []string{"10.0.0.0/8"}, When: `cidr("10.0.0.0/8").containsIP(ip)`}
	in := Input{IP: netip.MustParseAddr("::ffff:10.1.2.3")}
	if got := verdict(t, d, in); got != True {
		t.Errorf("an IPv4 address inside an IPv6 one: %s", got)
	}
	in.IP = netip.MustParseAddr("fe80::1%eth0")
	if got := verdict(t, Condition{IPs: []string{"fe80::/10"}}, in); got != True {
		t.Errorf("an address with a zone: %s", got)
	}
}

// TestUnreadablePrivileges: where a claim or an item cannot be read, only that a
// privilege is there can be said.
func TestUnreadablePrivileges(t *testing.T) {
	holds := []Condition{
		{Privileges: Requirement{All: []string{"A"}}},
		{Privileges: Requirement{Any: []string{"X", "A"}}},
		{When: `"A" in privileges`},
		{When: `privileges.exists(p, p.startsWith("A"))`},
		{When: `!("A" in privileges) || "A" in privileges`},
		{Not: &Condition{When: `privileges.all(p, p != "A")`}},
	}
	nobodyKnows := []Condition{
		{Privileges: Requirement{All: []string{"A", "X"}}},
		{Privileges: Requirement{Any: []string{"X", "Y"}}},
	}
	for _, when := range []string{
		`"X" in privileges`, `privileges.exists(p, p == "X")`, `privileges.all(p, p != "X")`, `privileges.exists_one(p, p == "A")`,
		`size(privileges.filter(p, p == "X")) == 0`, `"X" in privileges.map(p, p + "")`, `"X" in privileges.filter(p, p != "")`,
		`size(privileges) < 5`, `privileges.size() > 0`, `privileges[0] == "A"`, `privileges[0] != "X"`, `privileges[7] == "A"`,
		`privileges == ["A"]`, `["A", "B"] != privileges`, `privileges == privileges`, `[privileges] == [["A"]]`, `[privileges].exists(l, "X" in l)`,
		`"X" in privileges + ["B"]`, `"X" in ["B"] + privileges`, `size(["B"] + privileges) > 1`,
		`"X" in (method == "GET" ? privileges : [])`, `{"all": privileges} == {"all": ["A"]}`, `"X" in {"all": privileges}.all`,
	} {
		nobodyKnows = append(nobodyKnows, Condition{When: when})
	}
	for _, text := range []string{`["A",{"name":"X"}]`, `[7,"A"]`, `["A",["X"]]`, `[null,"A",""]`} {
		in := request(t, `{"privileges":`+text+`}`)
		for _, d := range holds {
			if got := verdict(t, d, in); got != True {
				t.Errorf("%s: %+v is %s", text, d, got)
			}
		}
		for _, d := range nobodyKnows {
			for _, d := range []Condition{d, {Not: &d}} {
				if got := verdict(t, d, in); got != Undecided {
					t.Errorf("%s: %+v is %s", text, d, got)
				}
			}
		}
	}
	for _, text := range []string{`[{"name":"A"}]`, `{"A":true}`, `7`, `[["A"]]`} {
		in := request(t, `{"privileges":`+text+`}`)
		for _, d := range slices.Concat(holds[:5], nobodyKnows) {
			if got := verdict(t, Condition{Not: &d}, in); got != Undecided {
				t.Errorf("%s: not %+v is %s", text, d, got)
			}
		}
	}
	in := request(t, `{"privileges":["A",""]}`)
	for _, d := range nobodyKnows {
		if got := verdict(t, d, in); got == Undecided && !strings.Contains(d.When, "[7]") {
			t.Errorf("of privileges that can be read nobody knows whether %+v", d)
		}
	}
}

// TestUnnamedHeaders: a policy sees no header that its file does not name.
func TestUnnamedHeaders(t *testing.T) {
	for _, d := range []Condition{header("X-Unnamed", Match{Equals: "eu"}), {When: `headers["x-unnamed"] == "eu"`}, {When: `"x-unnamed" in headers`}} {
		if _, err := Compile(policyOf(Rule{Condition: d}), Options{}); err == nil || !strings.Contains(err.Error(), `does not see the header "`) {
			t.Errorf("%+v: %v", d, err)
		}
	}
}

// TestCost: an expression that would take long is Undecided, and so is what
// comes after too many of them, whatever it says.
func TestCost(t *testing.T) {
	slow := `claims.a.exists(x, claims.a.exists(y, x + y == "no"))`
	in := request(t, `{"a":["`+strings.Repeat(`x","`, 1000)+`"],"sub":"bob"}`)
	if got := verdict(t, Condition{When: slow}, in); got != Undecided {
		t.Errorf("%s", got)
	}
	// So is one that looks through a list again and again, which CEL would
	// call a step each time.
	list := strings.Repeat("1,", 200) + "1"
	long := request(t, `{"a":[`+list+`],"b":[`+list+`]}`)
	for _, when := range []string{
		`claims.a.filter(x, x in claims.b).size() > 0`, `claims.a.all(x, claims.a == claims.b)`, `!claims.a.exists(x, claims != claims)`,
	} {
		if got := verdict(t, Condition{When: when}, long); got != Undecided {
			t.Errorf("%s is %s", when, got)
		}
	}
	rules := []Rule{}
	for range decisions {
		rules = append(rules, Rule{Condition: Condition{When: slow}})
	}
	last := Rule{Name: "last", Condition: Condition{When: `claims.sub == "bob"`}}
	if d := mustCompile(t, append(rules[:1:1], last)...).Decide(in, nil); !d.Allowed {
		t.Errorf("after one slow rule: %+v", d)
	}
	if d := mustCompile(t, append(rules, last)...).Decide(in, nil); d.Allowed {
		t.Errorf("after %d slow rules: %+v", len(rules), d)
	}
	simple := Rule{Name: "simple", Condition: claim("sub", Match{Equals: "bob"})}
	if d := mustCompile(t, append(rules, simple)...).Decide(in, nil); !d.Allowed {
		t.Errorf("the fixed vocabulary costs nothing: %+v", d)
	}
}

// TestRecorder: what is recorded is what decided, each condition with what it
// saw, as far as the decision went.
func TestRecorder(t *testing.T) {
	c := mustCompile(t, Rule{Name: "owner", Condition: Condition{
		Methods: []string{"GET"},
		Claims:  []ClaimTest{{"sub", Match{Param: "name"}}},
		Any:     []Condition{header("X-Region", Match{Equals: "us"}), {Not: &Condition{IPs: []string{"10.0.0.0/8"}}}},
		When:    `claims.never == 1`,
	}}, Rule{Name: "cel", Condition: Condition{When: `claims.sub == "bob" && claims.missing.x == 1`}})
	var got []string
	c.Decide(request(t, `{"sub":"bob"}`), func(s Step) {
		got = append(got, fmt.Sprintf("%s | %s | %s | %s | %s", s.Rule, s.Path, s.Text, s.Saw, s.Result))
	})
	want := []string{
		`owner | allow[0].method | method in [GET] | GET | true`,
		`owner | allow[0].claims.sub | claim sub equals the path parameter name | "bob", name is "bob" | true`,
		`owner | allow[0].any[0].headers.X-Region | header X-Region equals "us" | "eu" | false`,
		`owner | allow[0].any[1].not.ip | ip in [10.0.0.0/8] | 10.1.2.3 | true`,
		`owner | allow[0].any[1].not | not |  | false`,
		`owner | allow[0].any | any of these |  | false`,
		`owner | allow[0] | rule owner |  | false`,
		`cel | allow[1].when | claims.sub == "bob" && claims.missing.x == 1 | no such key: missing, claims.sub is "bob", claims.missing.x is missing | undecided`,
		`cel | allow[1] | rule cel |  | undecided`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestNothingIsAllocated: the fixed vocabulary makes no garbage.
func TestNothingIsAllocated(t *testing.T) {
	c := mustCompile(t, Rule{Condition: Condition{
		Methods: []string{"GET"}, IPs: []string{"10.0.0.0/8"}, Privileges: Requirement{All: []string{"A"}},
		Time: &Time{From: "08:00", To: "18:00", Zone: "Europe/Berlin"},
		Claims: []ClaimTest{{"sub", Match{Param: "name"}}, {"a.b", Match{In: []any{"x", json.Number("1000")}}},
			{"mail", Match{Matches: `.*@example\.com`}}, {"amr", Match{Contains: "otp"}}},
		Headers: []HeaderTest{{"X-Region", Match{Equals: "eu"}}},
		Not:     &Condition{Any: []Condition{claim("sub", Match{Equals: "eve"}), claim("locked", Match{Present: &yes})}},
	}})
	in := request(t, `{"sub":"bob","a":{"b":1e3},"mail":"bob@example.com","amr":["pwd","otp"],"privileges":["A"]}`)
	if d := c.Decide(in, nil); !d.Allowed {
		t.Fatalf("%+v", d)
	}
	if n := testing.AllocsPerRun(100, func() { c.Decide(in, nil) }); n != 0 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
}

// TestAliases: nobody knows what the backend reads where a header was sent in
// another spelling, beside its own or alone, whatever is asked of it.
func TestAliases(t *testing.T) {
	in := request(t, `{}`)
	for _, spelling := range []string{"X_region", "X.Region", "X~region", "X-REGION", "X`region", "X_REGION"} {
		for _, sent := range []http.Header{{"X-Region": {"eu"}, spelling: {"eu"}}, {spelling: {"eu"}}, {"X-Region": {"eu"}, spelling: nil}} {
			in.Header = sent
			for _, d := range []Condition{
				header("X-Region", Match{Equals: "eu"}), header("X-Region", Match{Present: &yes}), header("X-Region", Match{Present: &no}),
				{Not: &Condition{Headers: []HeaderTest{{"X-Region", Match{Equals: "us"}}}}},
				{When: `headers["x-region"] == "eu"`}, {When: `"x-region" in headers`}, {When: `!("x-region" in headers)`},
			} {
				if got := verdict(t, d, in); got != Undecided {
					t.Errorf("%v: %+v is %s", sent, d, got)
				}
			}
		}
	}
	for _, other := range []string{"X-Regions", "Xregion", "X_unnamed"} {
		in.Header = http.Header{"X-Region": {"eu"}, other: {"us"}}
		for _, d := range []Condition{header("X-Region", Match{Equals: "eu"}), {When: `headers["x-region"] == "eu"`}} {
			if got := verdict(t, d, in); got != True {
				t.Errorf("beside %s %+v is %s", other, d, got)
			}
		}
	}
}
