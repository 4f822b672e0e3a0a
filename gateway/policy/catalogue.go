package policy

import (
	"fmt"
	"maps"
	"slices"
)

// Privilege is one entry of a catalogue.
type Privilege struct {
	Name        string
	Description string
	From        []string // the issuers, by name, whose tokens give it; nil: any
}

// Catalogue has all the privileges that exist, so that a route which asks for
// another one is a mistake and not a locked door. A nil Catalogue knows
// nothing and finds no fault. It is immutable and safe for concurrent use.
type Catalogue struct {
	list   []Privilege
	byName map[string]Privilege
}

// NewCatalogue makes a catalogue. Faults have paths such as privileges[2].
func NewCatalogue(privileges []Privilege) (*Catalogue, error) {
	c := &Catalogue{privileges, map[string]Privilege{}}
	var faults Faults
	for i, p := range privileges {
		_, twice := c.byName[p.Name]
		switch {
		case p.Name == "":
			faults = append(faults, Fault{Path: index("privileges", i), Message: "it has no name"})
		case twice:
			faults = append(faults, Fault{Path: index("privileges", i), Message: fmt.Sprintf("%q stands there twice", p.Name)})
		}
		c.byName[p.Name] = p
	}
	if faults != nil {
		return nil, faults
	}
	return c, nil
}

// List returns the catalogue's entries in the order in which they were declared.
func (c *Catalogue) List() []Privilege {
	if c == nil {
		return nil
	}
	return slices.Clone(c.list)
}

// Check returns an error with the nearest spelling if no such privilege exists.
func (c *Catalogue) Check(name string) error {
	if c == nil {
		return nil
	}
	if _, ok := c.byName[name]; ok {
		return nil
	}
	return fmt.Errorf("there is no privilege %q in the catalogue%s", name, didYouMean(name, maps.Keys(c.byName)))
}

// Unused returns the privileges that used, the names of those which routes and
// policies ask for, does not hold.
func (c *Catalogue) Unused(used []string) []Privilege {
	return slices.DeleteFunc(c.List(), func(p Privilege) bool { return slices.Contains(used, p.Name) })
}

// Gives says whether the privilege counts in tokens of that issuer.
func (c *Catalogue) Gives(issuer, privilege string) bool {
	if c == nil {
		return true
	}
	from := c.byName[privilege].From
	return from == nil || slices.Contains(from, issuer)
}
