package gateway

import (
	"net/http"
	"net/url"
	"strings"

	"gatehouse/gateway/token"
)

// overrideNames are the headers by which frameworks let a client say another
// method than the request's. Header names come canonical from net/http.
var overrideNames = [...]string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override"}

// overrideParameter is the same in a query.
const overrideParameter = "_method"

// overridden returns the methods that a backend may take the request to have in
// place of its own; nil: none is said.
func overridden(r *http.Request) (methods []string) {
	for name, values := range r.Header {
		if isOverride(name) {
			methods = append(methods, values...)
		}
	}
	if r.URL.RawQuery != "" && (strings.Contains(r.URL.RawQuery, "method") || strings.Contains(r.URL.RawQuery, "%")) {
		parameters, _ := url.ParseQuery(r.URL.RawQuery) // what cannot be parsed is left out
		methods = append(methods, parameters[overrideParameter]...)
	}
	return methods
}

// sameForOverrides refuses a request that a backend may take to have another
// method, unless what is asked for is the same with that one: the same route,
// and no policy, which may look at the method.
func (x *exchange) sameForOverrides() error {
	for _, method := range overridden(x.r) {
		method = strings.ToUpper(strings.TrimSpace(method))
		if method == "" || method == x.r.Method {
			continue
		}
		other := *x.r
		other.Method = method
		m, err := x.snapshot.table.Match(&other)
		if method == http.MethodConnect || err != nil || x.snapshot.routes[m.Index] != x.route || x.route.policy != nil {
			return refuse(token.BadRequest, "an override asks for the method %s, for which this request was not authorised", bounded(method))
		}
	}
	return nil
}

// isOverride compares as CGI, PHP and WSGI do, to which X_HTTP_Method is X-HTTP-Method.
func isOverride(name string) bool {
	for _, known := range overrideNames {
		if len(name) != len(known) {
			continue
		}
		same := true
		for i := 0; i < len(known) && same; i++ {
			same = name[i]|0x20 == known[i]|0x20 || known[i] == '-' && strings.IndexByte("_.", name[i]) >= 0
		}
		if same {
			return true
		}
	}
	return false
}
