package gateway

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"gatehouse/gateway/config"
	"gatehouse/gateway/policy"
	"gatehouse/gateway/token"
)

// policy compiles a policy and tells what is wrong in its own file.
func (b *builder) policy(p *config.Policy) *policy.Compiled {
	compiled, err := policy.Compile(policyOf(p), policy.Options{})
	var faults policy.Faults
	if errors.As(err, &faults) {
		for _, f := range faults {
			b.faults = append(b.faults, p.Faultf(f.Path, "%v", f))
		}
	}
	return compiled
}

func policyOf(p *config.Policy) policy.Policy {
	out := policy.Policy{Name: p.Name, Description: p.Description, Headers: p.Headers}
	for _, r := range p.Allow {
		out.Allow = append(out.Allow, policy.Rule{Name: r.Name, Condition: conditionOf(r.Condition)})
	}
	for _, t := range p.Tests {
		out.Tests = append(out.Tests, policy.Test(t))
	}
	return out
}

func conditionOf(c config.Condition) policy.Condition {
	out := policy.Condition{
		Methods: c.Methods, Privileges: policy.Requirement{All: c.Has, Any: c.One}, IPs: c.IPs,
		All: conditionsOf(c.All), Any: conditionsOf(c.Any), When: c.When,
	}
	if t := c.Time; t != nil {
		out.Time = &policy.Time{From: t.From, To: t.To, Weekdays: t.Weekdays, Zone: t.Zone, NotBefore: t.NotBefore, NotAfter: t.NotAfter}
	}
	for _, m := range c.Claims {
		out.Claims = append(out.Claims, policy.ClaimTest{Path: m.Of, Match: matchOf(m)})
	}
	for _, m := range c.Headers {
		out.Headers = append(out.Headers, policy.HeaderTest{Name: m.Of, Match: matchOf(m)})
	}
	if c.Not != nil {
		not := conditionOf(*c.Not)
		out.Not = &not
	}
	return out
}

func conditionsOf(list []config.Condition) []policy.Condition {
	var out []policy.Condition
	for _, c := range list {
		out = append(out, conditionOf(c))
	}
	return out
}

func matchOf(m config.PolicyMatch) policy.Match {
	return policy.Match{Equals: m.Equals, In: m.In, Matches: m.Matches, Param: m.Param, Contains: m.Contains, Present: m.Present}
}

// parameters faults a route whose path lacks a parameter that its policy
// compares with: the policy would never allow.
func (b *builder) parameters(at string, c *config.Route, p *policy.Compiled) {
	var has []string
	for segment := range strings.SplitSeq(c.Match.Path, "/") {
		if name, ok := strings.CutPrefix(segment, "{"); ok && segment != "{$}" {
			has = append(has, strings.TrimSuffix(strings.TrimSuffix(name, "}"), "..."))
		}
	}
	for _, name := range p.Params() {
		if slices.Contains(has, name) {
			continue
		}
		hint := "it has no parameters"
		if len(has) > 0 {
			hint = "it has " + strings.Join(has, ", ")
		}
		b.fault(at, fmt.Errorf("the policy %s compares with the path parameter %s, which %s lacks; %s", p.Name(), name, c.Match.Path, hint))
	}
}

// stepUpOf says how well a route's users must have been authenticated.
func stepUpOf(c config.StepUp) policy.StepUp {
	return policy.StepUp{ACR: c.ACR, AMR: policy.Requirement{All: c.AllAMR, Any: c.AnyAMR}, MaxAuthAge: c.MaxAge}
}

func delegationOf(c config.Delegation) policy.Delegation {
	d := policy.Delegation{Deny: c.Deny}
	for _, a := range c.Actors {
		d.Actors = append(d.Actors, policy.Actor{Issuer: a.Issuer, Subject: a.Subject})
	}
	return d
}

// actors says where the tokens of an issuer name who acts in their subject's name.
func (b *builder) actors(at string, c *config.Issuer) policy.ActorClaims {
	var paths []token.Path
	for i, text := range c.ActorFrom {
		path, err := token.ParsePath(text)
		if err != nil {
			b.fault(fmt.Sprintf("%s.actor_from[%d]", at, i), err)
			continue
		}
		paths = append(paths, path)
	}
	return policy.NewActorClaims(paths...)
}

// runPolicyTests runs the tests of the policies that routes name, in the order
// of the policies' names.
func (s *snapshot) runPolicyTests() []TestResult {
	var out []TestResult
	for _, name := range slices.Sorted(maps.Keys(s.policies)) {
		var steps [][]string
		var starts []time.Time
		results := s.policies[name].Run(func(policy.Test) policy.Recorder {
			steps, starts = append(steps, nil), append(starts, time.Now())
			mine := &steps[len(steps)-1]
			return func(step policy.Step) { *mine = append(*mine, stepText(step)) }
		})
		starts = append(starts, time.Now())
		for i, r := range results {
			t := TestResult{
				Suite: name, Name: r.Test.Name, Pos: s.config.Policies[name].At(fmt.Sprintf("tests[%d]", i)),
				Problem: r.Problem, Took: starts[i+1].Sub(starts[i]),
			}
			if r.Problem != "" {
				t.Steps = steps[i]
			}
			out = append(out, t)
		}
	}
	return out
}

func stepText(s policy.Step) string {
	text := s.Path + ": " + s.Text + " is " + s.Result.String()
	if s.Path == "" || s.Text == "" {
		text = s.Rule + " is " + s.Result.String()
	}
	if s.Saw != "" {
		text += ", saw " + s.Saw
	}
	return text
}
