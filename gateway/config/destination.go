package config

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Destination is one of the upstreams that a route's requests go to.
type Destination struct {
	Upstream *Upstream
	Weight   int   // its share of the requests that no condition sends elsewhere; 0 with a condition
	When     *When // nil: none
}

// When is a condition that sends a request to an upstream: all of it must hold.
type When struct {
	Claims  []RequiredClaim // of a verified token; a list holds a value if one of its items does
	Headers []HeaderValue
}

// HeaderValue is a header of which a line must have one of the values.
type HeaderValue struct {
	Name   string // canonical
	Values []string
}

// fileUpstreams is a name or a URL, or a list of destinations.
type fileUpstreams struct {
	one  string
	list []fileDestination
}

type fileDestination struct {
	To     string   `yaml:"to" need:"a name in upstreams, or the URL of a single target" doc:"a name in upstreams, or the URL of a single target"`
	Weight int      `yaml:"weight" doc:"its share of the requests, beside those of the others without when; default 1"`
	When   fileWhen `yaml:"when" doc:"which requests go there, before all weights; the first of the list whose condition holds is taken"`
}

type fileWhen struct {
	Claims  map[string]oneOrMany[claimValue] `yaml:"claims" doc:"claims of the verified token, by their paths, and the values of which each must be, or hold, one"`
	Headers map[string]oneOrMany[string]     `yaml:"headers" doc:"headers, and the values of which each must have one"`
}

func (u *fileUpstreams) readNode(r *reader, n *yaml.Node, path string) {
	if n.Kind == yaml.SequenceNode {
		r.read(n, path, &u.list)
		return
	}
	r.read(n, path, &u.one)
}

// destinations reads where a route's requests go.
func (r *reader) destinations(route string, f *fileRoute, c *Config, bare map[string]*Upstream) []Destination {
	path, sticky := route+".upstream", route+".sticky"
	if f.Upstream.list == nil {
		if r.ok(sticky) {
			r.fault(sticky, "%s means nothing with a single upstream; list several with weights, or leave it out", sticky)
		}
		return []Destination{{Upstream: r.upstream(path, f.Upstream.one, c.Upstreams, bare), Weight: 1}}
	}
	var list []Destination
	weighted := map[*Upstream]bool{}
	shares := 0
	for i := range f.Upstream.list {
		to, at := &f.Upstream.list[i], index(path, i)
		d := Destination{Upstream: r.upstream(at+".to", to.To, c.Upstreams, bare), Weight: or(to.Weight, 1)}
		if d.Weight > maxWeight {
			r.fault(at+".weight", "%s.weight is %d; want at most %d", at, d.Weight, maxWeight)
		}
		if r.has(at + ".when") {
			d.Weight, d.When = 0, r.when(at+".when", &to.When, &c.Headers)
			if r.ok(at + ".weight") {
				r.fault(at+".weight", "%s.weight means nothing beside when: every request for which that holds goes there; leave out one of the two", at)
			}
			if r.ok(at+".when.claims") && f.Public {
				r.fault(at+".when.claims", "%s.when.claims has no meaning beside public: true, where tokens are neither read nor removed", at)
			}
		} else if shares++; d.Upstream != nil && weighted[d.Upstream] {
			r.fault(at, "%s leads to %s a second time; add the weights up", at, r.quote(at+".to", to.To))
		}
		weighted[d.Upstream] = weighted[d.Upstream] || d.When == nil
		list = append(list, d)
	}
	if shares == 0 && !r.bad[path] && len(list) > 0 {
		r.fault(path, "%s has a condition on every upstream; one without says where the other requests go", path)
	}
	switch {
	case !r.ok(sticky):
	case shares == 1:
		r.fault(sticky, "%s means nothing where only one upstream has no condition; leave it out", sticky)
	case f.Public && strings.HasPrefix(string(f.Sticky), "claim:"):
		r.fault(sticky, "%s is a claim, which has no meaning beside public: true, where tokens are neither read nor removed", sticky)
	default:
		r.fromCaller(sticky, string(f.Sticky), &c.Headers)
	}
	return list
}

func (r *reader) when(path string, f *fileWhen, headers *Headers) *When {
	w := &When{}
	if len(f.Claims)+len(f.Headers) == 0 && !r.bad[path+".claims"] && !r.bad[path+".headers"] {
		r.fault(path, "%s holds for every request; name claims or headers, or leave it out", path)
	}
	for _, name := range slices.Sorted(maps.Keys(f.Claims)) {
		at := path + ".claims." + name
		if err := claimPath(name); err != nil {
			r.fault(at, "%s: %v", at, err)
		}
		c := RequiredClaim{Claim: name}
		for _, v := range f.Claims[name] {
			c.Values = append(c.Values, string(v))
		}
		w.Claims = append(w.Claims, c)
	}
	for _, name := range slices.Sorted(maps.Keys(f.Headers)) {
		at := path + ".headers." + name
		var err error
		switch {
		case strings.EqualFold(name, "host"):
			err = errors.New("Host is no header to a Go server; give the match a host")
		case !isHTTPToken(name):
			err = errors.New("want the name of a header")
		case slices.ContainsFunc(w.Headers, func(h HeaderValue) bool { return h.Name == http.CanonicalHeaderKey(name) }):
			err = errors.New("the header stands there twice")
		case headers.owns(fold(name)):
			err = errors.New("the gateway sets this header for backends and drops it from callers; ask about the claim")
		}
		if err != nil {
			r.fault(at, "%s: %v", at, err)
		}
		w.Headers = append(w.Headers, HeaderValue{http.CanonicalHeaderKey(name), f.Headers[name]})
	}
	return w
}
