package gateway

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"gatehouse/gateway/config"
)

// Matrix says which routes ask for which privileges, for audits.
type Matrix struct {
	Privileges []MatrixPrivilege `json:"privileges"` // in the catalogue's order; without one, sorted
	Routes     []MatrixRoute     `json:"routes"`     // in the order of the file
}

// MatrixPrivilege is one that the catalogue has, or that is asked for.
type MatrixPrivilege struct {
	Name        string   `json:"name"`
	Description string   `json:"description,omitempty"`
	From        []string `json:"from,omitzero"` // the issuers whose tokens give it, by from and may_grant; nil: all
}

// MatrixRoute is what one route asks for.
type MatrixRoute struct {
	Name  string `json:"name"`
	Match string `json:"match"`
	// Access is "public", "optional" (a token only if there is one), "any_token"
	// or "restricted".
	Access  string   `json:"access"`
	Mode    string   `json:"mode"` // "report" where it does not refuse, be it tokens of one issuer
	Issuers []string `json:"issuers,omitempty"`
	All     []string `json:"all,omitempty"` // privileges: all of these
	Any     []string `json:"any,omitempty"` // and one of these
	Policy  string   `json:"policy,omitempty"`
	// PolicyPrivileges are those that the policy's rules ask about.
	PolicyPrivileges []string `json:"policy_privileges,omitempty"`
}

// Privileges returns the matrix of routes and privileges. It connects to
// nothing; the error is a config.Faults.
func Privileges(cfg *config.Config) (Matrix, error) {
	s, err := (&builder{cfg: cfg, log: slog.New(slog.DiscardHandler), transient: true}).build()
	if err != nil {
		return Matrix{}, err
	}
	defer s.close()
	m := Matrix{Privileges: []MatrixPrivilege{}, Routes: []MatrixRoute{}}
	for _, p := range cfg.Privileges {
		m.Privileges = append(m.Privileges, MatrixPrivilege{p.Name, p.Description, s.givenBy(p)})
	}
	var undeclared []string
	for i := range cfg.Routes {
		r := s.matrixRoute(i)
		m.Routes = append(m.Routes, r)
		undeclared = slices.Concat(undeclared, r.All, r.Any, r.PolicyPrivileges)
	}
	if cfg.Privileges == nil {
		slices.Sort(undeclared)
		for _, name := range slices.Compact(undeclared) {
			m.Privileges = append(m.Privileges, MatrixPrivilege{Name: name, From: s.givenBy(config.Privilege{Name: name})})
		}
	}
	return m, nil
}

// givenBy returns the issuers whose tokens give the privilege, or nil where all
// do, and the catalogue does not name them.
func (s *snapshot) givenBy(p config.Privilege) []string {
	issuers := slices.Sorted(maps.Keys(s.config.Issuers))
	some := slices.DeleteFunc(slices.Clone(issuers), func(name string) bool { return !s.grants[name].has(p.Name) })
	if p.From == nil && len(some) == len(issuers) {
		return nil
	}
	return some
}

// matrixRoute returns the row of the route at index i.
func (s *snapshot) matrixRoute(i int) MatrixRoute {
	c, rt := s.config.Routes[i], s.routes[i]
	r := MatrixRoute{Name: c.Name, Match: c.Match.Pattern(), Access: "restricted", Mode: "enforce", All: c.All, Any: c.Any, Policy: c.Policy}
	switch {
	case c.Public:
		r.Access = "public"
	case c.Optional:
		r.Access = "optional"
	case len(c.All)+len(c.Any) == 0 && c.Policy == "":
		r.Access = "any_token"
	}
	for _, i := range c.Issuers {
		r.Issuers = append(r.Issuers, i.Name)
		if rt.reports[i.Name] {
			r.Mode = "report"
		}
	}
	if rt.report {
		r.Mode = "report"
	}
	if rt.policy != nil {
		r.PolicyPrivileges = rt.policy.Privileges()
	}
	return r
}

// Table writes the matrix for a terminal.
func (m Matrix) Table(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range m.rows() {
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}

// Markdown writes the matrix as a table of Markdown, with what the catalogue
// says of the privileges below.
func (m Matrix) Markdown(w io.Writer) error {
	var b strings.Builder
	cell := strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;", "*", `\*`, "`", "\\`")
	line := func(cells []string) {
		for _, c := range cells {
			b.WriteString("| " + cell.Replace(c) + " ")
		}
		b.WriteString("|\n")
	}
	rows := m.rows()
	line(rows[0])
	b.WriteString(strings.Repeat("|---", len(rows[0])) + "|\n")
	for _, row := range rows[1:] {
		line(row)
	}
	if slices.ContainsFunc(m.Privileges, func(p MatrixPrivilege) bool { return p.Description != "" || p.From != nil }) {
		b.WriteString("\n")
		line([]string{"privilege", "description", "from"})
		b.WriteString("|---|---|---|\n")
		for _, p := range m.Privileges {
			from := strings.Join(p.From, ", ")
			if p.From == nil {
				from = "any issuer"
			}
			line([]string{p.Name, p.Description, from})
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// rows are the matrix as text, the first of them the heading.
func (m Matrix) rows() [][]string {
	head := []string{"route", "match", "access", "policy"}
	for _, p := range m.Privileges {
		head = append(head, p.Name)
	}
	rows := [][]string{head}
	for _, r := range m.Routes {
		access := strings.ReplaceAll(r.Access, "_", " ")
		if r.Mode == "report" {
			access += " (reports only)"
		}
		row := []string{r.Name, r.Match, access, r.Policy}
		for _, p := range m.Privileges {
			var asks []string
			for _, by := range []struct {
				word string
				list []string
			}{{"all", r.All}, {"any", r.Any}, {"policy", r.PolicyPrivileges}} {
				if slices.Contains(by.list, p.Name) {
					asks = append(asks, by.word)
				}
			}
			row = append(row, strings.Join(asks, "+"))
		}
		for i, c := range row {
			if c == "" {
				row[i] = "-"
			}
		}
		rows = append(rows, row)
	}
	return rows
}
