package config

import (
	"iter"
	"strings"
)

// privileges reads the catalogue.
func (r *reader) privileges(files map[string]*filePrivilege, c *Config) {
	if files == nil || r.bad["privileges"] {
		return
	}
	if len(files) == 0 {
		r.fault("privileges", "privileges is an empty map; declare at least one, or leave the key out")
	}
	for _, name := range inOrder(&r.source, "privileges", files) {
		path := "privileges." + name
		if strings.ContainsFunc(name, func(c rune) bool { return c < ' ' || c == 0x7f }) {
			r.fault(path, "privilege name %q: it holds a control character", name)
		}
		f := files[name]
		lookup(r, "issuer", path+".from", f.From, c.Issuers)
		c.Privileges = append(c.Privileges, Privilege{name, f.Description, f.From})
	}
}

// EachPrivilege yields the path and the name of each privilege that stands at
// path, be it in a list or in a map with all and any.
func (s *source) EachPrivilege(path string, all, any []string) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, list := range []struct {
			key   string
			names []string
		}{{"all", all}, {"any", any}} {
			for i, name := range list.names {
				at := index(path+"."+list.key, i)
				if _, ok := s.pos[at]; !ok {
					at = index(path, i)
				}
				if !yield(at, name) {
					return
				}
			}
		}
	}
}

// EachPrivilege yields the path and the name of each privilege that the
// policy's rules ask about outside CEL.
func (p *Policy) EachPrivilege() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for path, c := range p.conditions() {
			for at, name := range p.source.EachPrivilege(path+".privileges", c.Has, c.One) {
				if !yield(at, name) {
					return
				}
			}
		}
	}
}

// AtWhen returns the path of the first CEL expression that holds text, or "".
func (p *Policy) AtWhen(text string) string {
	for path, c := range p.conditions() {
		if strings.Contains(c.When, text) {
			return path + ".when"
		}
	}
	return ""
}

// conditions yields every condition of the policy with its path, outer ones first.
func (p *Policy) conditions() iter.Seq2[string, *Condition] {
	return func(yield func(string, *Condition) bool) {
		for i := range p.Allow {
			if !p.Allow[i].each(index("allow", i), yield) {
				return
			}
		}
	}
}

func (c *Condition) each(path string, yield func(string, *Condition) bool) bool {
	if !yield(path, c) {
		return false
	}
	for i := range c.All {
		if !c.All[i].each(index(path+".all", i), yield) {
			return false
		}
	}
	for i := range c.Any {
		if !c.Any[i].each(index(path+".any", i), yield) {
			return false
		}
	}
	return c.Not == nil || c.Not.each(path+".not", yield)
}
