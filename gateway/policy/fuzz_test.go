package policy

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gatehouse/gateway/token"
)

// everything is a policy with each kind of condition and its negation.
func everything(t testing.TB) *Compiled {
	var rules []Rule
	for _, d := range everyKind() {
		rules = append(rules, Rule{Condition: d}, Rule{Condition: Condition{Not: &d, Methods: []string{"GET"}}})
	}
	return mustCompile(t, rules...)
}

// FuzzDecide: no claims crash a policy, and a recorder changes nothing.
func FuzzDecide(f *testing.F) {
	for _, claims := range hostile() {
		f.Add(claims, "GET", "ADMIN", "10.0.0.1")
	}
	f.Add(`{"x":"ADMIN","privileges":["A"]}`, "POST", "", "::1")
	c := everything(f)
	f.Fuzz(func(t *testing.T, text, method, param, ip string) {
		claims, err := token.ParseClaims([]byte(text))
		if err != nil {
			t.Skip()
		}
		in := Input{Claims: claims, Method: method, Params: params{"x": param}, Now: time.Unix(int64(len(text)), 0)}
		in.IP, _ = netip.ParseAddr(ip)
		in.readPrivileges()
		agree(t, c, in)
	})
}

// agree decides with and without a recorder.
func agree(t *testing.T, c *Compiled, in Input) Decision {
	t.Helper()
	var rules []Step
	recorded := c.Decide(in, func(s Step) {
		if strings.HasPrefix(s.Text, "rule ") {
			rules = append(rules, s)
		}
	})
	if plain := c.Decide(in, nil); plain != recorded {
		t.Fatalf("without a recorder %+v, with one %+v", plain, recorded)
	}
	if last := rules[len(rules)-1]; recorded.Allowed != (last.Result == True) || recorded.Allowed && recorded.Rule != last.Rule {
		t.Fatalf("decision %+v, but the last rule told was %+v", recorded, last)
	}
	return recorded
}

// TestAgainstTheTruth compares generated policies over generated claims to a
// second evaluator, which has nothing but Kleene's truth tables, and the two
// vocabularies to each other.
func TestAgainstTheTruth(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	names, values := []string{"a", "b", "c"}, []string{`"x"`, `"y"`, `1`, `1.0`, `true`, `null`, `[]`, `["x"]`, `{}`, ``}
	for range 300 {
		fixed, inCEL, oracle := generate(random, names, 3)
		c := mustCompile(t, Rule{Name: "r", Condition: fixed})
		cel := mustCompile(t, Rule{Name: "r", Condition: Condition{When: inCEL}})
		for range 10 {
			var members []string
			claims := map[string]string{}
			for _, name := range names {
				if v := values[random.IntN(len(values))]; v != "" {
					claims[name] = v
					members = append(members, fmt.Sprintf("%q:%s", name, v))
				}
			}
			in := Input{Claims: mustClaims(t, "{"+strings.Join(members, ",")+"}")}
			want := oracle(claims)
			for _, d := range []Decision{agree(t, c, in), agree(t, cel, in)} {
				if d.Allowed != (want == True) || (d.Undecided != "") != (want == Undecided) {
					t.Fatalf("seed %d: %s of %v: got %+v, want %s", seed, inCEL, members, d, want)
				}
			}
		}
	}
}

// generate makes a condition, the same in CEL, and what it means.
func generate(random *rand.Rand, names []string, depth int) (Condition, string, func(map[string]string) Truth) {
	if depth == 0 || random.IntN(4) == 0 {
		name := names[random.IntN(len(names))]
		constant := []any{"x", json.Number("1"), true}[random.IntN(3)]
		literal := strings.NewReplacer("true", "true").Replace(fmt.Sprintf("%#v", constant))
		if n, ok := constant.(json.Number); ok {
			literal = string(n)
		}
		return claim(name, Match{Equals: constant}), "claims." + name + " == " + literal, func(claims map[string]string) Truth {
			v := strings.TrimSuffix(claims[name], ".0")
			kind := func(s string) byte { return (s + "?")[0] }
			if kind(v) != kind(literal) {
				return Undecided
			}
			return truth(v == literal)
		}
	}
	a, aCEL, aTruth := generate(random, names, depth-1)
	b, bCEL, bTruth := generate(random, names, depth-1)
	switch random.IntN(3) {
	case 0:
		return Condition{All: []Condition{a, b}}, "(" + aCEL + " && " + bCEL + ")", func(c map[string]string) Truth { return min(aTruth(c), bTruth(c)) }
	case 1:
		return Condition{Any: []Condition{a, b}}, "(" + aCEL + " || " + bCEL + ")", func(c map[string]string) Truth { return max(aTruth(c), bTruth(c)) }
	}
	return Condition{Not: &a}, "!(" + aCEL + ")", func(c map[string]string) Truth { return True - aTruth(c) }
}

// BenchmarkDecide measures policies of which the last rule allows.
func BenchmarkDecide(b *testing.B) {
	in := request(b, `{"iss":"https://id.example.com","aud":"x","exp":1,"iat":1,"jti":"1","sub":"bob","tenant":"acme","privileges":["A","B","READ"]}`)
	kinds := []struct {
		name string
		rule func(value string) Condition
	}{
		{"method", func(v string) Condition { return Condition{Methods: []string{strings.ToUpper(v)}} }},
		{"claim", func(v string) Condition { return claim("tenant", Match{Equals: v}) }},
		{"fixed", func(v string) Condition {
			return Condition{Methods: []string{"GET"}, Privileges: Requirement{All: []string{"READ"}}, Claims: []ClaimTest{{"sub", Match{Param: "name"}}, {"tenant", Match{Equals: v}}}}
		}},
		{"cel", func(v string) Condition {
			return Condition{When: `method == "GET" && "READ" in privileges && claims.sub == params.name && claims.tenant == "` + v + `"`}
		}},
	}
	for _, kind := range kinds {
		for _, n := range []int{1, 10, 100, 1000} {
			b.Run(fmt.Sprintf("%s/%d", kind.name, n), func(b *testing.B) {
				rules := make([]Rule, n)
				for i := range rules {
					rules[i] = Rule{Name: fmt.Sprint("r", i), Condition: kind.rule("other")}
				}
				rules[n-1].Condition = kind.rule("acme")
				if kind.name == "method" {
					rules[n-1].Condition = kind.rule("get")
				}
				c, err := Compile(policyOf(rules...), Options{})
				if err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				for b.Loop() {
					if !c.Decide(in, nil).Allowed {
						b.Fatal("denied")
					}
				}
			})
		}
	}
}
