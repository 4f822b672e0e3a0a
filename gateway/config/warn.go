package config

import (
	"fmt"
	"slices"
	"strings"
)

// warnings tells what is allowed and yet probably not meant, in the order of the file.
func (c *Config) warnings() []Fault {
	var w Faults
	warn := func(path, format string, args ...any) { w = append(w, c.Faultf(path, format, args...)) }

	for i, n := range c.Server.TrustedProxies {
		if n.Bits() == 0 {
			warn(index("server.trusted_proxies", i), "server.trusted_proxies trusts everyone (%s): any caller may say who he is in X-Forwarded-For", n)
		}
	}
	shared := false
	for _, l := range c.Limits {
		shared = shared || l.Shared
	}
	if c.Redis.URL != "" && !c.Revocation.Enabled() && !shared {
		warn("redis", "nothing uses redis; revocation and shared limits would")
	}
	c.warnUnused(warn)
	c.warnUndecided(warn)
	for name, i := range c.Issuers {
		if i.BackchannelLogout.Enabled() && i.MaxLifetime == 0 {
			warn("issuers."+name, "issuers.%s has no max_lifetime, so each logout that it tells of leaves a key in Redis for ever", name)
			continue
		}
		for _, kind := range []string{"sid", "sub", "client_id"} {
			if slices.Contains(c.Revocation.Check, kind) && i.MaxLifetime == 0 {
				warn("issuers."+name, "issuers.%s has no max_lifetime, so a %s that is revoked stays in Redis for ever", name, kind)
				break
			}
		}
	}
	hosts := c.trees()
	c.warnFalls(hosts, warn)
	c.warnMoved(hosts, warn)
	_ = w.Err() // sorts
	return w
}

func (c *Config) warnUnused(warn func(path, format string, args ...any)) {
	issuers, limits, upstreams := map[*Issuer]bool{}, map[*Limit]bool{}, map[*Upstream]bool{}
	for _, r := range c.Routes {
		for _, d := range r.Upstreams {
			upstreams[d.Upstream] = true
		}
		for _, i := range r.Issuers {
			issuers[i] = true
		}
		for _, l := range r.Limits {
			limits[l] = true
		}
	}
	for name, i := range c.Issuers {
		if !issuers[i] {
			warn("issuers."+name, "no route takes tokens of issuers.%s", name)
		}
	}
	for name, l := range c.Limits {
		if !limits[l] {
			warn("limits."+name, "no route uses limits.%s", name)
		}
	}
	for name, u := range c.Upstreams {
		if !upstreams[u] {
			warn("upstreams."+name, "no route leads to upstreams.%s", name)
		}
	}
}

// warnFalls warns where another method of a protected path falls to a route
// that asks for less: GET /heroes is protected, and POST /heroes is answered
// by a public /{rest...}.
func (c *Config) warnFalls(hosts map[string]*tree, warn func(path, format string, args ...any)) {
	methods := []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"}
	for _, r := range c.Routes {
		for _, m := range r.Match.Methods {
			if !slices.Contains(methods, m) {
				methods = append(methods, m)
			}
		}
	}
	fallen := map[int][]string{}
	for n, r := range c.Routes {
		if len(r.Match.Methods) == 0 || r.strength() == 0 {
			continue
		}
		path := shape(r.Match.Path)
		seen := -1
		for _, method := range methods {
			if admits(r, method) {
				continue
			}
			to := hosts[r.Match.Host].find(path, method, c.Routes)
			if to < 0 && r.Match.Host != "" {
				to = hosts[""].find(path, method, c.Routes)
			}
			if to < 0 || to == seen || c.Routes[to].strength() >= r.strength() {
				continue
			}
			if other := c.Routes[to]; len(other.Match.Methods) > 0 && other.Match.Host == r.Match.Host && slices.Equal(shape(other.Match.Path), path) {
				continue // both methods are spelt out for this very path
			}
			seen = to
			at := index("routes", n) + ".match"
			fallen[to] = append(fallen[to], fmt.Sprintf("%s on %s (line %d)", method, c.quote(at, r.Match.Host+r.Match.Path), c.At(at).Line))
		}
	}
	for to, from := range fallen {
		at := index("routes", to)
		warn(at+".match", "%s, which asks for %s, answers other methods of better protected paths: %s; give those methods routes of their own, or leave the method out of the protected match",
			at, demands[c.Routes[to].strength()], some(from))
	}
}

// trees returns the routes of each host by their paths.
func (c *Config) trees() map[string]*tree {
	hosts := map[string]*tree{}
	for n, r := range c.Routes {
		if hosts[r.Match.Host] == nil {
			hosts[r.Match.Host] = &tree{}
		}
		hosts[r.Match.Host].add(shape(r.Match.Path), n)
	}
	return hosts
}

// move is what routes of one host do to a path on its way to one upstream.
type move struct {
	upstream   *Upstream
	host       string
	strip, add string
}

func (r *Route) moves() []move {
	list := make([]move, len(r.Upstreams))
	for i, d := range r.Upstreams {
		list[i] = move{d.Upstream, r.Match.Host, r.StripPrefix, r.AddPrefix}
	}
	return list
}

// warnMoved warns where a route reaches a better protected path of the same
// upstream by its strip_prefix or add_prefix: /admin is protected, and
// /public/admin becomes /admin.
func (c *Config) warnMoved(hosts map[string]*tree, warn func(path, format string, args ...any)) {
	moves := map[*Upstream][]move{}
	for _, r := range c.Routes {
		for _, m := range r.moves() {
			if !slices.Contains(moves[m.upstream], m) {
				moves[m.upstream] = append(moves[m.upstream], m)
			}
		}
	}
	reached := map[int][]string{}
	for n, r := range c.Routes {
		at := index("routes", n) + ".match"
		for _, own := range r.moves() {
			seen := own.add + strings.TrimPrefix(r.Match.Path, own.strip) // by the upstream
			for _, m := range moves[own.upstream] {
				path, ok := strings.CutPrefix(seen, m.add)
				if m.strip == own.strip && m.add == own.add || !ok || !strings.HasPrefix(path, "/") {
					continue // of routes with one move the most specific wins
				}
				method := "GET"
				if len(r.Match.Methods) > 0 {
					method = r.Match.Methods[0]
				}
				to := hosts[m.host].find(shape(m.strip+path), method, c.Routes)
				if to < 0 || !slices.Contains(c.Routes[to].moves(), m) || c.Routes[to].strength() >= r.strength() {
					continue
				}
				from := fmt.Sprintf("%s (line %d)", c.quote(at, r.Match.Host+r.Match.Path), c.At(at).Line)
				if !slices.Contains(reached[to], from) { // by another of its upstreams
					reached[to] = append(reached[to], from)
				}
			}
		}
	}
	for to, from := range reached {
		at := index("routes", to)
		warn(at+".match", "%s, which asks for %s, leads by strip_prefix or add_prefix to what better protected paths lead to: %s; give what is public a path of its own at the upstream",
			at, demands[c.Routes[to].strength()], some(from))
	}
}

// demands are what routes ask for, by their strength.
var demands = [...]string{"nothing", "a token only if there is one", "any valid token"}

// some names the first few of a list.
func some(list []string) string {
	if n := len(list) - 3; n > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:3], ", "), n)
	}
	return strings.Join(list, ", ")
}

// strength orders routes by what they ask for.
func (r *Route) strength() int {
	switch {
	case r.Public:
		return 0
	case r.Optional:
		return 1
	case len(r.All)+len(r.Any) == 0 && r.Policy == "":
		return 2
	}
	return 3
}

// admits says whether the route's methods include m; GET includes HEAD, as in net/http.
func admits(r *Route, m string) bool {
	return len(r.Match.Methods) == 0 || slices.Contains(r.Match.Methods, m) || m == "HEAD" && slices.Contains(r.Match.Methods, "GET")
}

// The segments of a path's shape that are no literals.
const (
	one  = "{}"    // {id}
	rest = "{...}" // {rest...}, or a slash at the end
	end  = "{$}"
)

// shape returns the segments of a pattern's path without the names of its wildcards.
func shape(path string) []string {
	segments := strings.Split(path[1:], "/")
	for i, s := range segments {
		switch {
		case s == "" || strings.HasSuffix(s, "...}"):
			segments[i] = rest
		case s == "{$}":
			segments[i] = end
		case strings.HasPrefix(s, "{"):
			segments[i] = one
		}
	}
	return segments
}

// tree finds the route of a path and method as net/http does: the most
// specific wins. It takes shapes for paths: what a shape stands for is matched
// by wildcards that cover all of it.
type tree struct {
	next   map[string]*tree
	routes []int
}

func (t *tree) add(segments []string, route int) {
	for _, s := range segments {
		if t.next == nil {
			t.next = map[string]*tree{}
		}
		if t.next[s] == nil {
			t.next[s] = &tree{}
		}
		t = t.next[s]
	}
	t.routes = append(t.routes, route)
}

// find returns the index of the route, or -1.
func (t *tree) find(segments []string, method string, routes []*Route) int {
	if t == nil {
		return -1
	}
	if len(segments) == 0 {
		return t.pick(method, routes)
	}
	if n := t.next[segments[0]].find(segments[1:], method, routes); n >= 0 {
		return n
	}
	if s := segments[0]; s != one && s != rest && s != end {
		if n := t.next[one].find(segments[1:], method, routes); n >= 0 {
			return n
		}
	}
	return t.next[rest].pick(method, routes)
}

// pick returns the route of one path: that which names the method, else that
// of GET for HEAD, else that of every method.
func (t *tree) pick(method string, routes []*Route) int {
	best, fit := -1, 0
	if t == nil {
		return best
	}
	for _, n := range t.routes {
		r, f := routes[n], 0
		switch {
		case slices.Contains(r.Match.Methods, method):
			f = 3
		case len(r.Match.Methods) > 0 && admits(r, method):
			f = 2
		case len(r.Match.Methods) == 0:
			f = 1
		}
		if f > fit {
			best, fit = n, f
		}
	}
	return best
}
