package policy

import "testing"

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name    string
		need    Requirement
		have    []string
		missing string
	}{
		{"nothing asked", Requirement{}, nil, ""},
		{"all there", Requirement{All: []string{"A", "B"}}, []string{"B", "C", "A"}, ""},
		{"one of all missing", Requirement{All: []string{"A", "B"}}, []string{"A"}, "B"},
		{"none there", Requirement{All: []string{"A"}}, nil, "A"},
		{"case matters", Requirement{All: []string{"A"}}, []string{"a"}, "A"},
		{"no prefixes", Requirement{All: []string{"A"}}, []string{"AB"}, "A"},
		{"any there", Requirement{Any: []string{"A", "B"}}, []string{"B"}, ""},
		{"any missing", Requirement{Any: []string{"A", "B"}}, []string{"C"}, "any of A, B"},
		{"both met", Requirement{All: []string{"A"}, Any: []string{"B", "C"}}, []string{"A", "C"}, ""},
		{"all met, any not", Requirement{All: []string{"A"}, Any: []string{"B"}}, []string{"A"}, "any of B"},
		{"any met, all not", Requirement{All: []string{"A"}, Any: []string{"B"}}, []string{"B"}, "A"},
		{"empty privilege is none", Requirement{All: []string{"A"}}, []string{""}, "A"},
	} {
		missing, ok := c.need.Check(c.have)
		if missing != c.missing || ok != (c.missing == "") {
			t.Errorf("%s: got %q, %v; want %q", c.name, missing, ok, c.missing)
		}
	}
}
