package policy

import (
	"regexp"
	"strconv"
	"strings"

	"gatehouse/gateway/token"
)

// value is a claim or a header.
type value struct {
	kind  token.Kind
	text  string
	claim token.Value // Missing of a header
}

func valueOf(v token.Value) value { return value{v.Kind(), v.Text(), v} }

// matcher is a compiled [Match].
type matcher func(in *Input, v value) Truth

// constant is a string, number or boolean of the policy.
type constant struct {
	kind   token.Kind
	text   string
	number decimal
}

// equal compares v, which is Undecided if it is of another type or a number
// that cannot be compared exactly.
func (c *constant) equal(v value) Truth {
	switch {
	case v.kind != c.kind:
		return Undecided
	case v.kind != token.Number || v.text == c.text:
		return truth(v.text == c.text)
	}
	number, ok := parseDecimal(v.text)
	if !ok {
		return Undecided
	}
	return truth(number == c.number)
}

func oneOf(constants []constant) matcher {
	return func(_ *Input, v value) Truth {
		found, some := False, false
		for i := range constants {
			if c := &constants[i]; c.kind == v.kind {
				found, some = max(found, c.equal(v)), true
			}
		}
		if !some {
			return Undecided
		}
		return found
	}
}

func matches(re *regexp.Regexp) matcher {
	return func(_ *Input, v value) Truth {
		if v.kind != token.String {
			return Undecided
		}
		return truth(re.MatchString(v.text))
	}
}

func equalsParam(name string) matcher {
	return func(in *Input, v value) Truth {
		param := in.param(name)
		// {rest...} may be empty, and an empty claim must not be its equal: both
		// say nothing.
		if param == "" || v.kind != token.String && v.kind != token.Number {
			return Undecided
		}
		return truth(v.text == param)
	}
}

func contains(c constant) matcher {
	return func(_ *Input, v value) Truth {
		if v.kind != token.Array {
			return Undecided
		}
		return c.among(v.claim)
	}
}

// among is a function of its own because the compiler then inlines Items, and
// nothing is allocated.
func (c *constant) among(list token.Value) Truth {
	found := False
	for item := range list.Items() {
		// One item of another type makes a list that nobody should conclude from.
		if found = max(found, c.equal(valueOf(item))); found == True {
			return found
		}
	}
	return found
}

func present(want bool) matcher {
	return func(_ *Input, v value) Truth {
		return truth((v.kind != token.Missing && v.kind != token.Null) == want)
	}
}

type claimTest struct {
	claim int // which of the policy's claims
	match matcher
}

func (t *claimTest) answer(s *state) Truth { return t.match(&s.in, s.claim(t.claim)) }
func (t *claimTest) saw(s *state) string {
	return show(s.in.Claims.Lookup(s.policy.claims[t.claim]))
}

type headerTest struct {
	name  string
	match matcher
}

func (t *headerTest) answer(s *state) Truth {
	if s.in.alias(t.name) != "" {
		return Undecided
	}
	return t.match(&s.in, s.in.header(t.name))
}

func (t *headerTest) saw(s *state) string {
	if alias := s.in.alias(t.name); alias != "" {
		return alias + ", which a backend may read as " + t.name
	}
	lines := s.in.Header[t.name]
	if len(lines) == 0 {
		return token.Missing.String()
	}
	quoted := make([]string, len(lines))
	for i, line := range lines {
		quoted[i] = strconv.Quote(line)
	}
	return strings.Join(quoted, " and ")
}

// withParam lets a recorder see both sides of a comparison.
type withParam struct {
	question
	name string
}

func (w withParam) saw(s *state) string {
	return w.question.saw(s) + ", " + w.name + " is " + strconv.Quote(s.in.param(w.name))
}

// show is how recorders see a claim.
func show(v token.Value) string {
	switch v.Kind() {
	case token.String:
		return strconv.Quote(v.Text())
	case token.Number, token.Bool:
		return v.Text()
	case token.Array, token.Object:
		return v.JSON()
	}
	return v.Kind().String()
}
