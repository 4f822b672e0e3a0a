// Package policy decides whether a token's claims may do what a request asks.
package policy

import (
	"slices"
	"strings"
)

// Requirement is what a route asks of a token: every privilege of All, and one
// of Any if there are any. The zero Requirement is met by every valid token.
// It is immutable and safe for concurrent use.
type Requirement struct{ All, Any []string }

// Check reports whether privileges meet the requirement, and if not, what is
// missing, for the operator's log.
func (q Requirement) Check(privileges []string) (missing string, ok bool) {
	for _, p := range q.All {
		if !slices.Contains(privileges, p) {
			return p, false
		}
	}
	if len(q.Any) > 0 && !slices.ContainsFunc(q.Any, func(p string) bool { return slices.Contains(privileges, p) }) {
		return "any of " + strings.Join(q.Any, ", "), false
	}
	return "", true
}
