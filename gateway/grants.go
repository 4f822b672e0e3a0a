package gateway

import (
	"fmt"
	"slices"

	"gatehouse/gateway/config"
	"gatehouse/gateway/policy"
)

// grants says which privileges of an issuer's tokens count: a party that signs
// tokens for one purpose must not thereby grant the privileges of another.
// A nil one lets all count. It is immutable and safe for concurrent use.
type grants struct {
	issuer    string
	may       []string          // its may_grant; nil: all
	catalogue *policy.Catalogue // which may leave privileges to other issuers (from)
}

// newGrants returns nil where there is nothing that tokens of the issuer could
// not grant, so that its requests look nothing up.
func newGrants(i *config.Issuer, catalogue *policy.Catalogue) *grants {
	foreign := func(p policy.Privilege) bool { return !catalogue.Gives(i.Name, p.Name) }
	if i.MayGrant == nil && !slices.ContainsFunc(catalogue.List(), foreign) {
		return nil
	}
	return &grants{i.Name, i.MayGrant, catalogue}
}

// has says whether the privilege counts.
func (g *grants) has(privilege string) bool {
	return g == nil || g.catalogue.Gives(g.issuer, privilege) && (g.may == nil || slices.Contains(g.may, privilege))
}

// lacks says why the privilege does not count, or "".
func (g *grants) lacks(privilege string) string {
	switch {
	case g.has(privilege):
		return ""
	case !g.catalogue.Gives(g.issuer, privilege):
		return fmt.Sprintf("tokens of %s do not give %s (privileges.%s.from)", g.issuer, privilege, privilege)
	}
	return fmt.Sprintf("%s may not grant %s (may_grant)", g.issuer, privilege)
}

// of returns those of privileges that count; privileges itself where all do.
func (g *grants) of(privileges []string) []string {
	not := func(p string) bool { return !g.has(p) }
	if g == nil || !slices.ContainsFunc(privileges, not) {
		return privileges
	}
	return slices.DeleteFunc(slices.Clone(privileges), not)
}

// withheld says of each of privileges that does not count why.
func (g *grants) withheld(privileges []string) (why []string) {
	for _, p := range privileges {
		if reason := g.lacks(p); reason != "" {
			why = append(why, reason)
		}
	}
	return why
}
