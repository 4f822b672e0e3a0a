package policy

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
)

// TestFaults: each fault of a rule is at its path and says what would be right.
func TestFaults(t *testing.T) {
	deep := Condition{When: `claims.a == 1`}
	for range maxNesting + 1 {
		inner := deep
		deep = Condition{Not: &inner}
	}
	for _, c := range []struct {
		d          Condition
		path, says string
	}{
		{Condition{}, "allow[0]", "true for everyone"},
		{Condition{Not: &Condition{}}, "allow[0].not", "true for everyone"},
		{Condition{Any: []Condition{}}, "allow[0].any", "empty"},
		{Condition{All: []Condition{}}, "allow[0].all", "empty"},
		{Condition{All: []Condition{{Methods: []string{"GET"}}, {}}}, "allow[0].all[1]", "true for everyone"},
		{deep, "allow[0]" + strings.Repeat(".not", maxNesting+1), "nest deeper than 16"},
		{Condition{Methods: []string{"GET", "get"}}, "allow[0].method[1]", "upper-case"},
		{Condition{Privileges: Requirement{Any: []string{""}}}, "allow[0].privileges", "empty"},
		{Condition{IPs: []string{}}, "allow[0].ip", "empty"},
		{Condition{IPs: []string{"10.0.0.1/8"}}, "allow[0].ip[0]", "did you mean 10.0.0.0/8?"},
		{Condition{IPs: []string{"10.0.0.0/8", "localhost"}}, "allow[0].ip[1]", "no address"},
		{Condition{IPs: []string{"::ffff:10.0.0.1"}}, "allow[0].ip[0]", "write it as IPv4"},
		{claim("a..b", Match{Equals: "x"}), "allow[0].claims.a..b", "empty name"},
		{claim("a", Match{}), "allow[0].claims.a", "exactly one of"},
		{claim("a", Match{Equals: "x", Param: "id"}), "allow[0].claims.a", "exactly one of"},
		{claim("a", Match{Equals: 5}), "allow[0].claims.a.equals", "no string, number or boolean"},
		{claim("a", Match{Equals: json.Number("0x5")}), "allow[0].claims.a.equals", "as JSON writes it"},
		{claim("a", Match{In: []any{}}), "allow[0].claims.a.in", "empty"},
		{claim("a", Match{In: []any{"x", nil}}), "allow[0].claims.a.in[1]", "no string, number or boolean"},
		{claim("a", Match{Matches: "("}), "allow[0].claims.a.matches", "missing closing )"},
		{claim("a", Match{Matches: "^a|b$"}), "allow[0].claims.a.matches", "leave ^ and $ out"},
		{claim("a", Match{Matches: `\Qa`}), "allow[0].claims.a.matches", `\E`},
		{header("X-Regoin", Match{Equals: "eu"}), "allow[0].headers.X-Regoin", `did you mean "X-Region"?`},
		{header("X-Region", Match{Equals: json.Number("5")}), "allow[0].headers.X-Region.equals", "put it in quotes"},
		{header("X-Region", Match{Contains: "eu"}), "allow[0].headers.X-Region.contains", "no list"},
		{Condition{Time: &Time{}}, "allow[0].time", "names no time"},
		{Condition{Time: &Time{From: "08:00", Zone: "UTC"}}, "allow[0].time", "need each other"},
		{Condition{Time: &Time{From: "08:00", To: "08:00", Zone: "UTC"}}, "allow[0].time", "the same"},
		{Condition{Time: &Time{From: "8:00", To: "18:00", Zone: "UTC"}}, "allow[0].time.from", "08:30"},
		{Condition{Time: &Time{From: "08:00", To: "25:00", Zone: "UTC"}}, "allow[0].time.to", "08:30"},
		{Condition{Time: &Time{From: "08:00", To: "18:00"}}, "allow[0].time", "need a zone"},
		{Condition{Time: &Time{NotAfter: "2026-01-01T00:00:00Z", Zone: "UTC"}}, "allow[0].time", "and only they do"},
		{Condition{Time: &Time{Weekdays: []string{"mon", "tues"}, Zone: "UTC"}}, "allow[0].time.weekdays[1]", `did you mean "tue"?`},
		{Condition{Time: &Time{Weekdays: []string{}, Zone: "UTC"}}, "allow[0].time.weekdays", "empty"},
		{Condition{Time: &Time{Weekdays: []string{"mon"}, Zone: "Berlin"}}, "allow[0].time.zone", "IANA"},
		{Condition{Time: &Time{Weekdays: []string{"mon"}, Zone: "Local"}}, "allow[0].time.zone", "IANA"},
		{Condition{Time: &Time{NotBefore: "2026-01-01"}}, "allow[0].time.not_before", "RFC 3339"},
		{Condition{Time: &Time{NotBefore: "2026-01-01T00:00:00Z", NotAfter: "2025-01-01T00:00:00Z"}}, "allow[0].time.not_after", "never true"},

		{Condition{When: `claims.sub = "x"`}, "allow[0].when", "at 1:12 of the expression: Syntax error"},
		{Condition{When: "claims.a == 1 &&\n  claim.b == 2"}, "allow[0].when", "at 2:3 of the expression: undeclared reference to 'claim' (did you mean 'claims'?)"},
		{Condition{When: `account.sub == "x"`}, "allow[0].when", "an expression can read claims, privileges"},
		{Condition{When: `method == 5`}, "allow[0].when", "at 1:8 of the expression: found no matching overload"},
		{Condition{When: `claims.admin`}, "allow[0].when", "claims.admin == true"},
		{Condition{When: `size(privileges)`}, "allow[0].when", "gives int, want bool"},
		{Condition{When: `1 < 2`}, "allow[0].when", "reads nothing of the request"},
		{Condition{When: `claims.a.matches("(")`}, "allow[0].when", "at 1:18 of the expression: invalid matches argument"},
		{Condition{When: `now.getHours("Europe/Berlin") < 8`}, "allow[0].when", "UTC only"},
		{Condition{When: `dyn(now).getHours(claims.zone) < 8`}, "allow[0].when", "no matching overload"},
		{Condition{When: `now < timestamp("tomorrow")`}, "allow[0].when", "invalid timestamp"},
		{Condition{When: `headers["x-regoin"] == "eu"`}, "allow[0].when", `did you mean "X-Region"?`},
		{Condition{When: `headers["X-Region"] == "eu"`}, "allow[0].when", `headers["x-region"]`},
		{Condition{When: `headers[claims.a] == "eu"`}, "allow[0].when", "read by name"},
		{Condition{When: `size(params) == 0`}, "allow[0].when", "read by name"},
		{Condition{When: `claims.a.exists(x, claims.b.exists(y, claims.c.exists(z, x == y && y == z)))`}, "allow[0].when", "nesting limit"},
		{Condition{When: `claims.a == "` + strings.Repeat("x", maxExpression) + `"`}, "allow[0].when", "size"},
	} {
		_, err := Compile(policyOf(Rule{Condition: c.d}), Options{})
		var faults Faults
		if !errors.As(err, &faults) || !strings.Contains(err.Error(), c.says) || !slices.ContainsFunc(faults, func(f Fault) bool { return f.Path == c.path }) {
			t.Errorf("%+v: got %v; want %q at %s", c.d, err, c.says, c.path)
		}
	}
}

func TestPolicyFaults(t *testing.T) {
	allow := []Rule{{Name: "r", Condition: Condition{Methods: []string{"GET"}}}}
	deny := []Test{{Expect: "deny", Method: "POST"}}
	for _, c := range []struct {
		p    Policy
		says string
	}{
		{Policy{Allow: allow}, "tests: no test expects deny: a policy that was never seen to deny may allow everything"},
		{Policy{Allow: allow, Tests: []Test{{Expect: "allow"}}}, "tests: no test expects deny"},
		{Policy{Tests: deny}, "allow: there is no rule"},
		{Policy{Allow: append(allow, allow...), Tests: deny}, `allow[1].name: the name "r" is that of allow[0], too`},
		{Policy{Headers: []string{"Authorization"}, Allow: allow, Tests: deny}, "headers[0]: Authorization holds credentials"},
		{Policy{Headers: []string{"a b"}, Allow: allow, Tests: deny}, `headers[0]: "a b" is no name`},
		{Policy{Headers: []string{"X-A", "x-a"}, Allow: allow, Tests: deny}, `headers[1]: "x-a" stands there twice`},
		{Policy{Headers: []string{"host"}, Allow: allow, Tests: deny}, "headers[0]: a request's host"},
		{Policy{Allow: allow, Tests: append(deny, Test{Expect: "alow"})}, `tests[1].expect: "alow" is neither allow nor deny; did you mean "allow"?`},
		{Policy{Allow: allow, Tests: append(deny, Test{Expect: "allow", Rule: "s"})}, `tests[1].rule: there is no rule "s"; did you mean "r"?`},
		{Policy{Allow: allow, Tests: append(deny, Test{Expect: "deny", Rule: "r"})}, "tests[1].rule: no rule denies"},
		{Policy{Allow: allow, Tests: append(deny, Test{Expect: "allow", Claims: `{"a":1,"a":2}`})}, "tests[1].claims: a name stands twice"},
		{Policy{Allow: allow, Tests: append(deny, Test{Expect: "allow", IP: "home"})}, `tests[1].ip: "home"`},
		{Policy{Allow: allow, Tests: append(deny, Test{Expect: "allow", Time: "noon"})}, `tests[1].time: "noon"`},
		{Policy{Allow: allow, Tests: append(deny, Test{Expect: "allow", Headers: map[string]string{"X-A": "b"}})}, `tests[1].headers.X-A: the policy does not see`},
	} {
		if _, err := Compile(c.p, Options{}); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("got %v\nwant %s", err, c.says)
		}
	}
}

// TestAllFaultsAtOnce: one look at the file mends it.
func TestAllFaultsAtOnce(t *testing.T) {
	_, err := Compile(Policy{Headers: []string{""}, Allow: []Rule{{}, {Condition: Condition{When: "claim.a == 1 || clams.b == 1"}}}}, Options{})
	if faults := err.(Faults); len(faults) != 5 || faults[2].Line != 1 || faults[3].Column != 17 {
		t.Errorf("%d faults:\n%v", len(faults), err)
	}
}

// TestUses: what a policy needs can be checked against its routes.
func TestUses(t *testing.T) {
	c := mustCompile(t,
		Rule{Condition: Condition{Privileges: Requirement{All: []string{"B"}, Any: []string{"A"}}, Claims: []ClaimTest{{"sub", Match{Param: "id"}}}}},
		Rule{Condition: Condition{When: `"C" in privileges && params.tenant == claims.tenant && "team" in params && "x-region" in headers`}},
	)
	if got := c.Privileges(); !slices.Equal(got, []string{"A", "B", "C"}) {
		t.Errorf("privileges %q", got)
	}
	if got := c.Params(); !slices.Equal(got, []string{"id", "team", "tenant"}) {
		t.Errorf("params %q", got)
	}
	if got := c.Headers(); !slices.Equal(got, []string{"X-Region", "X-Tenant"}) {
		t.Errorf("headers %q", got)
	}
	if c.Name() != "p" {
		t.Errorf("name %q", c.Name())
	}
}

func TestRun(t *testing.T) {
	c, err := Compile(Policy{
		Headers: []string{"X-Region"},
		Allow: []Rule{
			{Name: "owner", Condition: claim("sub", Match{Param: "id"})},
			{Name: "office", Condition: Condition{Privileges: Requirement{All: []string{"READ"}}, IPs: []string{"10.0.0.0/8"},
				Time: &Time{From: "08:00", To: "18:00", Zone: "UTC"}, Headers: []HeaderTest{{"X-Region", Match{Equals: "eu"}}}}},
		},
		Tests: []Test{
			{Name: "owner", Claims: `{"sub":"bob"}`, Params: map[string]string{"id": "bob"}, Expect: "allow", Rule: "owner"},
			{Name: "office", Claims: `{"sub":"eve","privileges":["READ"]}`, Params: map[string]string{"id": "bob"}, IP: "10.0.0.1",
				Time: "2026-03-02T12:00:00Z", Headers: map[string]string{"x-region": "eu"}, Expect: "allow", Rule: "office"},
			{Name: "privileges said apart", Privileges: []string{"READ"}, IP: "10.0.0.1", Time: "2026-03-02T12:00:00Z",
				Headers: map[string]string{"x-region": "eu"}, Expect: "allow"},
			{Expect: "deny"},
			{Name: "wrong rule", Claims: `{"sub":"bob"}`, Params: map[string]string{"id": "bob"}, Expect: "allow", Rule: "office"},
			{Name: "wrongly denied", Claims: `{"sub":"bob"}`, Params: map[string]string{"id": "bob"}, Expect: "deny"},
			{Name: "wrongly allowed", Claims: `{"sub":"eve","privileges":[]}`, Params: map[string]string{"id": "bob"}, Expect: "allow"},
			{Name: "cannot say", Claims: `{}`, Expect: "allow"},
		},
	}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	steps := map[string]int{}
	results := c.Run(func(test Test) Recorder { return func(Step) { steps[test.Name]++ } })
	want := []string{"", "", "", "", "want allow by rule office, but rule owner allows it", "want deny, but rule owner allows it",
		"want allow, but no rule allows it", "want allow, but no rule allows it; rule owner could not be decided, as something that it asks about is missing or of another type"}
	for i, r := range results {
		if r.Problem != want[i] {
			t.Errorf("%s: got %q, want %q", r.Test.Name, r.Problem, want[i])
		}
		if steps[r.Test.Name] == 0 {
			t.Errorf("%s: nothing recorded", r.Test.Name)
		}
	}
	if results[3].Test.Name != "tests[3]" {
		t.Errorf("a test without a name is called %q", results[3].Test.Name)
	}
	if again := c.Run(nil); len(again) != len(results) || again[0].Decision.Rule != "owner" {
		t.Errorf("without a recorder: %+v", again)
	}
}
