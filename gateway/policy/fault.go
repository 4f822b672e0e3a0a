package policy

import (
	"fmt"
	"iter"
	"strings"

	"github.com/agnivade/levenshtein"
)

// Fault is one thing that is wrong in a policy.
type Fault struct {
	Path string // of what is wrong, as the file nests it: allow[2].when, tests[0].claims
	// Line and Column count from 1 inside a CEL expression; 0 elsewhere.
	Line, Column int
	Message      string
}

func (f Fault) Error() string {
	if f.Line > 0 {
		return fmt.Sprintf("%s: at %d:%d of the expression: %s", f.Path, f.Line, f.Column, f.Message)
	}
	return f.Path + ": " + f.Message
}

// Faults are all the things that are wrong in a policy.
type Faults []Fault

// Error returns one line for each fault.
func (fs Faults) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.Error()
	}
	return strings.Join(lines, "\n")
}

// didYouMean returns "; did you mean X?" for the name nearest to s, or "".
func didYouMean(s string, names iter.Seq[string]) string {
	best, least := "", max(1, min(2, len(s)/2), len(s)/3)+1
	if len(s) > 100 { // the distance takes time in the square of the length
		return ""
	}
	lower := strings.ToLower(s)
	for name := range names {
		if d := levenshtein.ComputeDistance(lower, strings.ToLower(name)); d < least || d == least && best != "" && name < best {
			best, least = name, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}
