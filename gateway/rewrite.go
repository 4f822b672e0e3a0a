package gateway

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"gatehouse/gateway/config"
	"gatehouse/gateway/token"
)

// rewrite is what a route changes on a request's way and on its answer's.
type rewrite struct {
	stripSegments     int
	addPrefix         string
	host              string // sent in place of the client's; "": the client's
	targetHost        bool   // send the target's own
	request, response headerEdits
	cookies           cookieEdits
}

func newRewrite(c *config.Route) rewrite {
	rw := rewrite{
		addPrefix: c.AddPrefix,
		request:   newHeaderEdits(c.RequestHeaders),
		response:  newHeaderEdits(c.ResponseHeaders),
		cookies:   newCookieEdits(c.Cookies),
	}
	if c.StripPrefix != "" {
		rw.stripSegments = strings.Count(c.StripPrefix, "/")
	}
	if rw.targetHost = c.RewriteHost == "target"; !rw.targetHost {
		rw.host = c.RewriteHost
	}
	return rw
}

// path returns the escaped path to ask the target for. strip_prefix cuts as many
// whole segments as it has: the path begins with them in some spelling, since
// the route matched.
func (rw *rewrite) path(path string) string {
	for range rw.stripSegments {
		i := 1
		for i < len(path) && path[i] != '/' {
			i++
		}
		path = path[i:]
	}
	if path == "" {
		path = "/"
	}
	return rw.addPrefix + path
}

// headerEdits are changes to headers, in their order.
type headerEdits struct {
	remove   []string
	set, add []headerLine
}

type headerLine struct{ name, value string }

func newHeaderEdits(c config.HeaderEdits) headerEdits {
	lines := func(values map[string]string) (lines []headerLine) {
		for _, name := range slices.Sorted(maps.Keys(values)) {
			lines = append(lines, headerLine{name, values[name]})
		}
		return lines
	}
	return headerEdits{c.Remove, lines(c.Set), lines(c.Add)}
}

func (e *headerEdits) apply(h http.Header) {
	for _, name := range e.remove {
		delete(h, name)
	}
	for _, line := range e.set {
		h[line.name] = []string{line.value}
	}
	for _, line := range e.add {
		h[line.name] = append(h[line.name], line.value)
	}
}

// applyToRequest is apply for a request. What is taken away or replaced goes in
// every spelling that a backend may read as the name, and as a trailer, which
// some merge into the headers: else a client would have the last word.
func (e *headerEdits) applyToRequest(r *http.Request) {
	if len(e.remove) > 0 || len(e.set) > 0 {
		for _, h := range [...]http.Header{r.Header, r.Trailer} {
			for name := range h {
				if e.takes(name) {
					delete(h, name)
				}
			}
		}
	}
	e.apply(r.Header)
}

func (e *headerEdits) takes(name string) bool {
	return slices.ContainsFunc(e.remove, func(n string) bool { return token.Alike(n, name) }) ||
		slices.ContainsFunc(e.set, func(line headerLine) bool { return token.Alike(line.name, name) })
}

// cookieEdits change where a browser sends the cookies of a backend.
type cookieEdits struct {
	domain map[string]string
	path   []pathEdit // the longest first
}

type pathEdit struct{ from, to string } // without a slash at the end

func newCookieEdits(c config.Cookies) cookieEdits {
	e := cookieEdits{domain: c.Domain}
	for from, to := range c.Path {
		e.path = append(e.path, pathEdit{strings.TrimSuffix(from, "/"), strings.TrimSuffix(to, "/")})
	}
	slices.SortFunc(e.path, func(a, b pathEdit) int { return len(b.from) - len(a.from) })
	return e
}

// apply rewrites each Set-Cookie line, and leaves every byte alone that it need
// not change: net/http would drop attributes that it does not know.
func (e *cookieEdits) apply(h http.Header) {
	if e.domain == nil && e.path == nil {
		return
	}
	lines := h["Set-Cookie"]
	for i, line := range lines {
		parts := strings.Split(line, ";")
		for n, part := range parts[1:] { // the first is the cookie itself
			name, value, _ := strings.Cut(part, "=")
			switch trimmed := strings.TrimSpace(value); strings.ToLower(strings.TrimSpace(name)) {
			case "domain":
				if to, ok := e.domain[strings.ToLower(strings.TrimPrefix(trimmed, "."))]; ok {
					parts[n+1] = name + "=" + to
				}
			case "path":
				if to, ok := e.movedPath(trimmed); ok {
					parts[n+1] = name + "=" + to
				}
			}
		}
		lines[i] = strings.Join(parts, ";")
	}
}

func (e *cookieEdits) movedPath(path string) (string, bool) {
	for _, edit := range e.path {
		if rest, ok := strings.CutPrefix(path, edit.from); ok && (rest == "" || rest[0] == '/') {
			if moved := edit.to + rest; moved != "" {
				return moved, true
			}
			return "/", true
		}
	}
	return "", false
}
