package policy

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"cel.dev/cel-go/common/types/ref"

	"gatehouse/gateway/token"
)

// Truth is what a condition says of a request.
type Truth uint8

// The truths, in the order in which "and" is the least and "or" the greatest.
const (
	False     Truth = iota
	Undecided       // what it asks about is missing, of another type or ambiguous
	True
)

func (t Truth) String() string { return [...]string{"false", "undecided", "true"}[t] }

func truth(b bool) Truth {
	if b {
		return True
	}
	return False
}

// Input is all that a policy sees of a request.
type Input struct {
	Claims token.Claims
	// Privileges are those that count on the route; PrivilegesMissing says that
	// no claim carries any, PrivilegesUnreadable that more may have been meant
	// ([token.Verified]).
	Privileges           []string
	PrivilegesMissing    bool
	PrivilegesUnreadable bool
	Method               string
	// Params gives the decoded path parameters, "" for those that the path does
	// not have; *http.Request does. nil: none.
	Params interface{ PathValue(name string) string }
	Header http.Header // of which a policy sees those that it names
	IP     netip.Addr  // of the client; the zero Addr: not known
	Now    time.Time   // the zero Time: not known
}

func (in *Input) param(name string) string {
	if in.Params == nil {
		return ""
	}
	return in.Params.PathValue(name)
}

// header returns a header that was sent exactly once, Missing if it was not
// sent, and if it was sent several times a list, which is no string.
func (in *Input) header(name string) value {
	switch lines := in.Header[name]; len(lines) {
	case 0:
		return value{}
	case 1:
		return value{kind: token.String, text: lines[0]}
	default:
		return value{kind: token.Array}
	}
}

// alias returns a header beside that of the name which backends that fold names
// (X_Tenant) may read as it, or "". Who sends one may mean to show the policy
// another value than the backend.
func (in *Input) alias(name string) string {
	for other := range in.Header {
		if other != name && token.Alike(other, name) {
			return other
		}
	}
	return ""
}

// Decision is what a policy says to a request.
type Decision struct {
	Allowed bool
	Rule    string // the rule that allowed it; empty if none did
	// Undecided is the first rule that could not be decided before one allowed,
	// for the operator's log: a claim is missing that the policy counts on.
	Undecided string
}

// Step is one thing that a decision looked at.
type Step struct {
	Rule   string // the rule that it belongs to
	Path   string // allow[2] for the rule itself, allow[2].any[0].claims.sub for a condition
	Text   string // what was asked, in words
	Saw    string // what was found, cut if it is long; it may hold claims. Empty for what only combines others
	Result Truth
}

// Recorder is told of each step of a decision, a condition after those inside
// it and a rule after its conditions, as far as the decision looks. It changes
// nothing and may be nil, which costs nothing.
type Recorder func(Step)

// Decide says whether the policy allows a request. It is safe for concurrent
// use, does no I/O, and allocates nothing unless it meets a CEL expression or
// has a recorder.
func (c *Compiled) Decide(in Input, rec Recorder) Decision {
	s := states.Get().(*state)
	s.policy, s.in, s.rec = c, in, rec
	s.in.IP = in.IP.Unmap().WithZone("") // one client, one spelling
	s.claims = slices.Grow(s.claims, len(c.claims))[:len(c.claims)]
	d := s.decide(c.rules)
	s.release()
	return d
}

// decisions is how many expressions of the greatest cost one decision pays for.
const decisions = 10

// state is one decision under way. It is also what CEL expressions read.
type state struct {
	policy *Compiled
	in     Input
	rec    Recorder
	rule   string
	claims []foundClaim        // of each of the policy's paths
	vars   [nVariables]ref.Val // for CEL, once it asked
	cost   uint64              // of all expressions so far, in CEL's units
	err    error               // why the last expression could not be decided
}

// foundClaim is a claim that is looked for once, however many rules ask.
type foundClaim struct {
	looked bool
	value
}

// claim returns the claim of the policy's path n.
func (s *state) claim(n int) value {
	c := &s.claims[n]
	if !c.looked {
		*c = foundClaim{true, valueOf(s.in.Claims.Lookup(s.policy.claims[n]))}
	}
	return c.value
}

// release gives the state back; it must not hold on to the token.
func (s *state) release() {
	clear(s.claims)
	*s = state{claims: s.claims[:0]}
	states.Put(s)
}

// states are reused, since conditions are called through an interface and one
// that were made for each decision would be an allocation for each.
var states = sync.Pool{New: func() any { return new(state) }}

func (s *state) decide(rules []rule) Decision {
	var d Decision
	for i := range rules {
		r := &rules[i]
		s.rule = r.name
		t := s.all(r.conditions)
		if s.rec != nil {
			s.rec(Step{Rule: r.name, Path: r.path, Text: "rule " + r.name, Result: t})
		}
		switch {
		case t == True:
			d.Allowed, d.Rule = true, r.name
			return d
		case t == Undecided && d.Undecided == "":
			d.Undecided = r.name
		}
	}
	return d
}

// rule is a compiled [Rule].
type rule struct {
	name, path string
	conditions []*node
}

// node is a compiled condition: what it is called, and what it asks.
type node struct {
	path, text string
	asks       question
}

// question is one kind of condition.
type question interface {
	answer(s *state) Truth
	// saw tells a recorder what the answer was given about.
	saw(s *state) string
}

func (s *state) eval(n *node) Truth {
	t := n.asks.answer(s)
	if s.rec != nil {
		s.rec(Step{s.rule, n.path, n.text, cut(n.asks.saw(s)), t})
	}
	return t
}

// all is the least of the truths.
func (s *state) all(nodes []*node) Truth {
	least := True
	for _, n := range nodes {
		if least = min(least, s.eval(n)); least == False {
			break
		}
	}
	return least
}

type allOf []*node

func (nodes allOf) answer(s *state) Truth { return s.all(nodes) }
func (allOf) saw(*state) string           { return "" }

type anyOf []*node

func (nodes anyOf) answer(s *state) Truth {
	greatest := False
	for _, n := range nodes {
		if greatest = max(greatest, s.eval(n)); greatest == True {
			break
		}
	}
	return greatest
}
func (anyOf) saw(*state) string { return "" }

type not struct{ *node }

func (n not) answer(s *state) Truth { return True - s.eval(n.node) }
func (not) saw(*state) string       { return "" }

// cut bounds what a recorder is shown.
func cut(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
