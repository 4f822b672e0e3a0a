package config

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// routes resolves the route table, given all that it refers to.
func (r *reader) routes(files []fileRoute, c *Config) {
	issuers := lookup(r, "issuer", "defaults.issuers", c.Defaults.Issuers, c.Issuers)
	if len(c.Issuers) == 1 && !r.has("defaults.issuers") {
		for _, only := range c.Issuers {
			issuers = append(issuers, only)
		}
	}
	limits := lookup(r, "limit", "defaults.limits", c.Defaults.Limits, c.Limits)

	bare := map[string]*Upstream{}
	patterns, names := map[string]int{}, map[string]int{}
	for n := range files {
		f, path := &files[n], index("routes", n)
		route := &Route{
			Name:         f.Name,
			Match:        r.match(path+".match", &f.Match, f.EncodedSlash == "allow"),
			Public:       f.Public,
			Optional:     f.Auth == "optional",
			All:          f.Privileges.All,
			Any:          f.Privileges.Any,
			Limits:       limits,
			Upstreams:    r.destinations(path, f, c, bare),
			Sticky:       string(f.Sticky),
			ForwardToken: f.ForwardToken,
			EncodedSlash: f.EncodedSlash == "allow",
			IgnoreCase:   f.IgnoreCase,
			MaxBody:      or(int64(f.MaxBody), c.Defaults.MaxBody),
			Timeout:      f.Timeout,
			IdleTimeout:  f.IdleTimeout,

			CloseOnExpiry: f.CloseOnExpiry || c.Defaults.CloseOnExpiry && !r.has(path+".close_on_expiry"),
			Mode:          f.Mode,
		}
		c.Routes = append(c.Routes, route)
		if r.bad[path] {
			continue
		}
		if r.has(path + ".limits") {
			route.Limits = lookup(r, "limit", path+".limits", f.Limits, c.Limits)
		}
		if r.ok(path + ".strip_prefix") {
			route.StripPrefix = r.stripPrefix(path, f.StripPrefix, route.Match.Path)
		}
		r.rewrites(path, route, f, c)
		r.unique(path+".match", "match", methodsSorted(route.Match).Pattern(), patterns, n)
		if !r.has(path + ".name") {
			route.Name = route.Match.Pattern()
		} else if strings.ContainsFunc(route.Name, func(c rune) bool { return c < ' ' || c == 0x7f }) {
			r.fault(path+".name", "%s.name holds a control character; a name goes into logs and metrics", path)
		}
		if r.ok(path + ".match") {
			r.unique(r.first(path+".name", path+".match"), "name", route.Name, names, n)
		}
		if f.Public {
			r.public(path)
		}
		if f.Public || r.bad[path+".public"] {
			continue
		}
		route.Issuers = issuers
		if r.has(path + ".issuers") {
			route.Issuers = lookup(r, "issuer", path+".issuers", f.Issuers, c.Issuers)
		}
		r.protected(path, route, f, c)
	}
}

// rewrites reads what is changed on a request's way and on its answer's.
func (r *reader) rewrites(path string, route *Route, f *fileRoute, c *Config) {
	if r.ok(path + ".add_prefix") {
		route.AddPrefix = r.addPrefix(path+".add_prefix", f.AddPrefix)
	}
	route.RewriteHost = r.rewriteHost(path+".rewrite_host", f.RewriteHost)
	route.Cookies = r.cookies(path+".rewrite_cookies", &f.RewriteCookies)
	route.RequestHeaders, route.ResponseHeaders, route.CORS = c.Defaults.RequestHeaders, c.Defaults.ResponseHeaders, c.Defaults.CORS
	if at := path + ".request_headers"; r.has(at) {
		route.RequestHeaders = r.requestEdits(at, &f.RequestHeaders, &c.Headers)
	}
	if at := path + ".cors"; r.has(at) {
		route.CORS = r.cors(at, &f.CORS)
	}
	if at := path + ".response_headers"; r.has(at) {
		route.ResponseHeaders = r.responseEdits(at, &f.ResponseHeaders, &c.Headers, route.CORS != nil)
	}
	if at := path + ".request_headers"; route.ForwardToken && route.RequestHeaders.sets("Authorization") {
		r.fault(r.first(at, path+".forward_token"), "%s sets Authorization, and forward_token sends the caller's token there; leave out one of the two", at)
	}
}

// unique faults the second of two routes with one value.
func (r *reader) unique(path, what, value string, first map[string]int, n int) {
	if value == "" || !r.ok(path) {
		return
	}
	if other, twice := first[value]; twice {
		at := index("routes", other)
		r.fault(path, "routes[%d] has the same %s as %s (line %d): %s", n, what, at, r.At(r.first(at+"."+what, at+".match")).Line, r.quote(path, value))
		return
	}
	first[value] = n
}

func methodsSorted(m Match) Match {
	m.Methods = slices.Sorted(slices.Values(m.Methods))
	return m
}

// public faults what makes no sense on a route that reads no tokens.
func (r *reader) public(path string) {
	for _, key := range []string{"auth", "issuers", "privileges", "policy", "delegation", "acr", "amr", "max_auth_age", "forward_token", "close_on_expiry"} {
		if at := path + "." + key; r.ok(at) {
			r.fault(at, "%s has no meaning beside public: true, where tokens are neither read nor removed; leave out one of the two", at)
		}
	}
}

// protected checks a route that asks for a token.
func (r *reader) protected(path string, route *Route, f *fileRoute, c *Config) {
	privileges := path + ".privileges"
	r.distinct(f.Privileges.all, f.Privileges.All)
	r.distinct(privileges+".any", f.Privileges.Any)
	each(privileges+".any", f.Privileges.Any, func(at, privilege string) {
		if slices.Contains(f.Privileges.All, privilege) {
			r.fault(at, "%s stands in all and in any of %s, so any asks for nothing", r.quote(at, privilege), privileges)
		}
	})
	r.stepUp(path, route, f)
	r.delegation(path+".delegation", route, f)
	r.routePolicy(path+".policy", f.Policy, c)
	route.Policy = f.Policy
	switch {
	case !r.has(privileges) && !r.has(path+".policy") && !route.Optional && !r.bad[path+".auth"]:
		r.lacks(path, "%s does not say who may pass: list privileges or name a policy, say privileges: [] for any valid token, or public: true for everyone", path)
	case route.Optional && len(route.All)+len(route.Any) > 0:
		r.fault(privileges, "%s cannot be asked for where auth is optional: a request without a token has none; leave out one of the two", privileges)
	}
	switch {
	case r.bad["issuers"] || r.has(path+".issuers") || r.has("defaults.issuers"):
	case len(c.Issuers) == 0:
		r.lacks(path, "%s needs a token, but the file has no issuers whose tokens it could take; add one, or say public: true", path)
	case len(c.Issuers) > 1:
		r.lacks(path, "%s does not say whose tokens it takes: list issuers here or in defaults; the file has %s", path, listing(c.Issuers))
	}
	if len(route.Issuers) > 1 {
		r.mayGrant(path, route, f)
		r.oneAsked(path, route)
	}
}

// routePolicy reads the policy that a route names.
func (r *reader) routePolicy(at, name string, c *Config) {
	if !r.ok(at) {
		return
	}
	if c.Policies == nil {
		c.Policies = map[string]*Policy{}
	}
	before := len(c.Policies)
	if r.policy(at, name, c.Policies); len(c.Policies) > before {
		r.policyFaults = append(r.policyFaults, policyHeaders(c.Policies[name], &c.Headers)...)
	}
}

// stepUp checks how well a route's users must have been authenticated.
func (r *reader) stepUp(path string, route *Route, f *fileRoute) {
	route.StepUp = StepUp{f.ACR, f.AMR.All, f.AMR.Any, f.MaxAuthAge}
	r.distinct(path+".acr", f.ACR)
	r.distinct(f.AMR.all, f.AMR.All)
	r.distinct(path+".amr.any", f.AMR.Any)
	each(path+".acr", f.ACR, func(at, acr string) {
		// acr_values is a list with spaces between, in a quoted string (RFC 9470 §3).
		if strings.ContainsFunc(acr, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '"' || c == '\\' }) {
			r.fault(at, "%s is %s; want visible ASCII without spaces, quotes and backslashes, since callers are told of it in a header", at, r.quote(at, acr))
		}
	})
	if at := path + ".amr"; r.ok(at) && len(f.AMR.All)+len(f.AMR.Any) == 0 && !r.bad[at+".all"] && !r.bad[at+".any"] {
		r.fault(at, "%s is an empty list; it needs at least one item", at)
	}
	if at := path + ".max_auth_age"; r.ok(at) && f.MaxAuthAge%time.Second != 0 {
		r.fault(at, "%s is %s; want whole seconds, in which callers are told of it", at, f.MaxAuthAge)
	}
	for _, key := range []string{"policy", "acr", "amr", "max_auth_age"} {
		if at := path + "." + key; route.Optional && r.ok(at) {
			r.fault(at, "%s cannot be asked for where auth is optional: whoever falls short would leave the token out; leave out one of the two", at)
		}
	}
}

func (r *reader) delegation(path string, route *Route, f *fileRoute) {
	route.Delegation.Deny = f.Delegation.deny
	for i, a := range f.Delegation.Actors {
		route.Delegation.Actors = append(route.Delegation.Actors, Actor{a.Iss, a.Sub})
		if at := index(path+".actors", i); slices.Contains(f.Delegation.Actors[:i], a) && a.Sub != "" {
			r.fault(at, "%s stands twice in %s.actors", at, path)
		}
	}
}

// upstream resolves a name in upstreams, or a URL.
func (r *reader) upstream(path, name string, named, bare map[string]*Upstream) *Upstream {
	if name == "" {
		return nil
	}
	if u, ok := named[name]; ok {
		return u
	}
	if strings.ContainsAny(name, ":/.") && !strings.Contains(name, "://") {
		r.fault(path, "%s is %s, no name of an upstream; a URL begins with http://, https://, h2c:// or unix://", path, r.quote(path, name))
		return nil
	}
	if !strings.Contains(name, "://") {
		unknown(r, "upstream", path, name, named)
		return nil
	}
	if u, ok := bare[name]; ok {
		return u
	}
	t := Target{Weight: 1}
	var err error
	if strings.HasPrefix(name, "unix:") {
		t.URL, t.Unix, err = parseUnix(name)
	} else if t.URL, err = parseURL(name, "http", "https", "h2c"); err == nil {
		err = r.target(t.URL)
	}
	if err != nil {
		r.fault(path, "%s is %s: %v", path, r.quote(path, name), err)
		return nil
	}
	bare[name] = newUpstream(name, []Target{t})
	return bare[name]
}

// stripPrefix returns the prefix without its last slash.
func (r *reader) stripPrefix(route, prefix, path string) string {
	at := route + ".strip_prefix"
	trimmed := strings.TrimSuffix(prefix, "/")
	err := checkLiteralPath(trimmed)
	switch {
	case !strings.HasPrefix(prefix, "/") || trimmed == "":
		err = errors.New("want whole segments, such as /heroes-service")
	case err == nil && path != "" && r.ok(route+".match") && path != trimmed && !strings.HasPrefix(path, trimmed+"/"):
		err = fmt.Errorf("the path of the match, %s, does not begin with these whole segments", r.quote(route+".match", path))
	}
	if err != nil {
		r.fault(at, "%s is %s: %v", at, r.quote(at, prefix), err)
	}
	return trimmed
}

// match checks which requests a route is for. What it lets pass, net/http's
// ServeMux takes, too, unless it conflicts with another route.
func (r *reader) match(path string, f *fileMatch, encodedSlash bool) Match {
	m := Match{Methods: f.Methods, Host: strings.ToLower(f.Host), Path: f.Path}
	if !r.ok(path) || f.Path == "" {
		r.bad[path] = true
		return m
	}
	part := func(name string) string { return r.first(path+"."+name, path) }
	fault := func(name string, format string, args ...any) {
		r.fault(part(name), "%s: %s", path, fmt.Sprintf(format, args...))
		r.bad[path] = true
	}
	for n, method := range f.Methods {
		at := part(index("methods", n))
		switch {
		case method == "" && r.has(path+".methods"):
		case method != "" && method != strings.ToUpper(method) && isHTTPToken(method):
			fault(index("methods", n), "methods are upper-case, and %s is not", r.quote(at, method))
		case !isHTTPToken(method):
			fault(index("methods", n), "%s is no method; write them as in GET,PUT /heroes, without spaces between", r.quote(at, method))
		case method == "CONNECT":
			fault(index("methods", n), "CONNECT is never forwarded: the tunnel would pass every rule by")
		case slices.Contains(f.Methods[:n], method):
			fault(index("methods", n), "the method %s stands there twice", r.quote(at, method))
		}
	}
	if err := checkHost(m.Host); err != nil {
		fault("host", "the host %s: %v", r.quote(part("host"), f.Host), err)
	}
	if err := checkPattern(f.Path, encodedSlash); err != nil {
		fault("path", "the path %s: %v", r.quote(part("path"), f.Path), err)
	}
	return m
}

// checkHost checks the host of a pattern as net/http.ServeMux compares it:
// lower case, without a port.
func checkHost(host string) error {
	switch {
	case strings.Contains(host, "*"):
		return errors.New("there are no wildcards for hosts; write one route for each, or none for every host")
	case strings.Contains(host, ":"):
		return errors.New("hosts are compared without their port; leave it out")
	case strings.HasSuffix(host, "."):
		return errors.New("hosts are compared without the dot at their end; leave it out")
	case strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789-._") != "":
		return errors.New("want letters, digits, hyphens and dots; other scripts as xn--…")
	}
	return nil
}

// checkPattern checks the path of a pattern: what net/http cannot read, and
// what no request can ever match, since it would be refused before.
func checkPattern(path string, encodedSlash bool) error {
	if !strings.HasPrefix(path, "/") {
		return errors.New("a path begins with /")
	}
	var literals strings.Builder // path without its wildcards
	wildcards := false
	for segment := range strings.SplitSeq(path[1:], "/") {
		if strings.HasPrefix(segment, "{") && strings.HasSuffix(segment, "}") {
			wildcards, segment = true, "x"
		}
		literals.WriteString("/" + segment)
	}
	if strings.ContainsAny(literals.String(), "{}") {
		return errors.New("a wildcard is a whole segment: {id}, or {rest...} or {$} at the end")
	}
	if err := checkLiteralPath(literals.String()); err != nil {
		return err
	}
	if !encodedSlash && strings.Contains(strings.ToLower(literals.String()), "%2f") {
		return errors.New("%2f is refused unless the route says encoded_slash: allow")
	}
	if wildcards {
		return checkWildcards(path)
	}
	return nil
}

// checkWildcards asks net/http itself.
func checkWildcards(path string) (err error) {
	defer func() {
		if e := recover(); e != nil {
			message := fmt.Sprint(e)
			if i := strings.LastIndex(message, "at offset "); i >= 0 {
				_, message, _ = strings.Cut(message[i:], ": ")
			}
			// What is in quotes is a part of the path, which stands before.
			message, _, _ = strings.Cut(message, ` "`)
			err = errors.New(message)
		}
	}()
	http.NewServeMux().Handle(path, http.NotFoundHandler())
	return nil
}

// checkLiteralPath checks a path without wildcards: canonical, so that every
// program that reads it reads the same (RFC 3986 §3.3, §6.2.2.3).
func checkLiteralPath(path string) error {
	if path == "" {
		return nil
	}
	segments := strings.Split(path, "/")[1:]
	for n, segment := range segments {
		plain, err := url.PathUnescape(segment)
		switch {
		case segment == "" && n < len(segments)-1:
			return errors.New("it holds //, which is refused in requests")
		case err != nil:
			return errors.New("it holds a % that two hex digits do not follow")
		case plain == "." || plain == "..":
			return errors.New("it holds a . or .. segment, which is refused in requests")
		case strings.ContainsAny(plain, "\x00\\"):
			return errors.New("it holds a NUL or a backslash, which is refused in requests")
		}
		for i := range len(segment) {
			if c := segment[i]; !isLetter(c) && !isDigit(c) && strings.IndexByte("-._~!$&'()*+,;=:@%", c) < 0 {
				return errors.New("it holds what is no path character (RFC 3986 §3.3); write it percent-encoded, in UTF-8. A pattern has no query")
			}
		}
	}
	return nil
}
