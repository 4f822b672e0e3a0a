package gateway

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"gatehouse/gateway/token"
)

// overrideNames are the headers by which frameworks let a client say another
// method than the request's. Header names come canonical from net/http.
var overrideNames = [...]string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override"}

// maxOverrides bounds the methods that one request may be taken to have: a
// route is looked for for each.
const maxOverrides = 8

// overridden returns the methods that a backend may take the request to have in
// place of its own; nil: none is said.
func overridden(r *http.Request) (methods []string) {
	for name, values := range r.Header {
		if isOverride(name) {
			methods = append(methods, values...)
		}
	}
	// Not url.ParseQuery: it leaves out what holds a semicolon or a bad escape.
	for parameter := range strings.FieldsFuncSeq(r.URL.RawQuery, func(c rune) bool { return c == '&' || c == ';' }) {
		name, value, _ := strings.Cut(parameter, "=")
		if isOverrideParameter(name) {
			if decoded, err := url.QueryUnescape(value); err == nil {
				value = decoded
			}
			methods = append(methods, value)
		}
	}
	return methods
}

// sameForOverrides refuses a request that a backend may take to have another
// method, unless what is asked for is the same with that one: the same route,
// and no policy, which may look at the method. Limits, which may too, charge the
// dearest of the methods.
func (x *exchange) sameForOverrides() error {
	for _, value := range overridden(x.r) {
		for method := range strings.SplitSeq(value, ",") { // of a list Express takes the first
			method = strings.ToUpper(strings.TrimSpace(method))
			if method == "" || method == x.r.Method || slices.Contains(x.overrides, method) {
				continue
			}
			if len(x.overrides) == maxOverrides {
				return refuse(token.BadRequest, "overrides ask for more than %d methods", maxOverrides)
			}
			other := *x.r
			other.Method = method
			m, err := x.snapshot.table.Match(&other)
			if method == http.MethodConnect || method == http.MethodTrace && !x.route.traces || err != nil || x.snapshot.routes[m.Index] != x.route || x.route.policy != nil {
				return refuse(token.BadRequest, "an override asks for the method %s, for which this request was not authorised", bounded(method))
			}
			x.overrides = append(x.overrides, method)
		}
	}
	return nil
}

// isOverrideParameter finds _method, as PHP reads names too: without spaces
// before it, up to NUL, and with _ for a dot or a space. ASP.NET MVC takes the
// headers' names from a query.
func isOverrideParameter(name string) bool {
	name, _, _ = strings.Cut(name, "%00")
	name, err := url.QueryUnescape(name)
	if err != nil {
		return false
	}
	name = strings.TrimLeft(name, " ")
	return isOverride(name) || len(name) == len("_method") && strings.IndexByte("_.", name[0]) >= 0 && strings.EqualFold(name[1:], "method")
}

// isOverride compares as CGI, PHP and WSGI do, to which X_HTTP_Method is X-HTTP-Method.
func isOverride(name string) bool {
	for _, known := range overrideNames {
		if token.Alike(name, known) {
			return true
		}
	}
	return false
}
