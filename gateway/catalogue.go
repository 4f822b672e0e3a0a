package gateway

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"gatehouse/gateway/config"
	"gatehouse/gateway/policy"
)

// privileges holds what the file asks for against its catalogue, if it has one,
// and faults routes that no token can open.
func (b *builder) privileges(s *snapshot) {
	catalogue := b.catalogue()
	var used []string
	known := func(file interface {
		Faultf(path, format string, args ...any) config.Fault
	}, at, name string) bool {
		err := catalogue.Check(name)
		if err != nil {
			b.faults = append(b.faults, file.Faultf(at, "%v", err))
		}
		return err == nil
	}
	misspelt := map[*config.Route]bool{}
	for i, c := range b.cfg.Routes {
		for at, name := range b.cfg.EachPrivilege(fmt.Sprintf("routes[%d].privileges", i), c.All, c.Any) {
			used = append(used, name)
			misspelt[c] = !known(b.cfg, at, name) || misspelt[c]
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b.cfg.Issuers)) {
		s.grants[name] = newGrants(b.cfg.Issuers[name], catalogue)
		for i, granted := range b.cfg.Issuers[name].MayGrant {
			at := fmt.Sprintf("issuers.%s.may_grant[%d]", name, i)
			if known(b.cfg, at, granted) && !catalogue.Gives(name, granted) {
				from := fmt.Sprintf("privileges.%s.from", granted)
				b.fault(at, fmt.Errorf("%s may grant %s, but %s (line %d) does not name it; one of the two is wrong", name, granted, from, b.cfg.At(from).Line))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b.cfg.Policies)) {
		p := b.cfg.Policies[name]
		for at, asked := range b.policyPrivileges(s, p) {
			used = append(used, asked)
			if known(p, at, asked) {
				b.grantable(s, p, at, asked)
			}
		}
	}
	for _, p := range catalogue.Unused(used) {
		b.fault("privileges."+p.Name, fmt.Errorf("no route and no policy asks for the privilege %s; leave it out", p.Name))
	}
	for i, c := range b.cfg.Routes {
		if !misspelt[c] { // else that is the fault
			b.opens(s, fmt.Sprintf("routes[%d]", i), c)
		}
	}
}

// catalogue is nil where the file has none.
func (b *builder) catalogue() *policy.Catalogue {
	if b.cfg.Privileges == nil {
		return nil
	}
	list := make([]policy.Privilege, len(b.cfg.Privileges))
	for i, p := range b.cfg.Privileges {
		list[i] = policy.Privilege(p)
	}
	catalogue, err := policy.NewCatalogue(list)
	if err != nil { // not reached: the names are those of a map
		b.fault("privileges", err)
	}
	return catalogue
}

// policyPrivileges yields the places and names of the privileges that a policy
// asks about, those in CEL included.
func (b *builder) policyPrivileges(s *snapshot, p *config.Policy) func(yield func(at, name string) bool) {
	return func(yield func(string, string) bool) {
		var told []string
		for at, name := range p.EachPrivilege() {
			told = append(told, name)
			if !yield(at, name) {
				return
			}
		}
		if s.policies[p.Name] == nil {
			return
		}
		for _, name := range s.policies[p.Name].Privileges() {
			if !slices.Contains(told, name) && !yield(p.AtWhen(name), name) {
				return
			}
		}
	}
}

// grantable faults a privilege in a policy that never counts where the policy
// is asked: no issuer of its routes may grant it.
func (b *builder) grantable(s *snapshot, p *config.Policy, at, privilege string) {
	var why []string
	for _, c := range b.cfg.Routes {
		if c.Policy != p.Name {
			continue
		}
		for _, i := range c.Issuers {
			reason := s.grants[i.Name].lacks(privilege)
			if reason == "" {
				return
			}
			if !slices.Contains(why, reason) {
				why = append(why, reason)
			}
		}
	}
	b.faults = append(b.faults, p.Faultf(at, "no token has %s on a route that names this policy: %s", privilege, strings.Join(why, "; ")))
}

// opens faults a route that no token can open. A token has one issuer, which
// must give all that the route asks for, and what one rule of its policy does.
func (b *builder) opens(s *snapshot, at string, c *config.Route) {
	var why []string
	for _, i := range c.Issuers {
		lacks := func(privilege string) string {
			if why := s.grants[i.Name].lacks(privilege); why != "" {
				return why
			}
			if !slices.ContainsFunc(i.PrivilegesFrom, func(s config.ClaimSource) bool {
				return strings.HasPrefix(privilege, s.Prefix) && privilege != s.Prefix
			}) {
				return fmt.Sprintf("no source of %s begins with what %s does (privileges_from)", i.Name, privilege)
			}
			return ""
		}
		gives := func(privilege string) bool { return lacks(privilege) == "" }
		reason := ""
		for _, p := range c.All {
			if reason == "" {
				reason = lacks(p)
			}
		}
		if reason == "" && len(c.Any) > 0 && !slices.ContainsFunc(c.Any, gives) {
			reason = lacks(c.Any[0])
		}
		if p := b.cfg.Policies[c.Policy]; reason == "" && p != nil && !slices.ContainsFunc(p.Allow, func(r config.PolicyRule) bool { return possible(&r.Condition, gives) }) {
			reason = fmt.Sprintf("every rule of the policy %s asks for a privilege that tokens of %s do not have here", p.Name, i.Name)
		}
		if reason == "" {
			return
		}
		why = append(why, reason)
	}
	if why == nil { // a public route
		return
	}
	if len(c.All)+len(c.Any) > 0 {
		at += ".privileges"
	} else {
		at += ".policy"
	}
	b.fault(at, fmt.Errorf("no token can open %s: %s", strings.TrimSuffix(strings.TrimSuffix(at, ".privileges"), ".policy"), strings.Join(why, "; ")))
}

// possible says whether the condition can hold of a token with these
// privileges, whatever else it asks.
func possible(c *config.Condition, gives func(string) bool) bool {
	each := func(c config.Condition) bool { return possible(&c, gives) }
	return !slices.ContainsFunc(c.Has, func(p string) bool { return !gives(p) }) &&
		(len(c.One) == 0 || slices.ContainsFunc(c.One, gives)) &&
		!slices.ContainsFunc(c.All, func(c config.Condition) bool { return !each(c) }) &&
		(len(c.Any) == 0 || slices.ContainsFunc(c.Any, each))
}
