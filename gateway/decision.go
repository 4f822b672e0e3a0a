package gateway

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"gatehouse/gateway/config"
	"gatehouse/gateway/internal/inject"
	"gatehouse/gateway/token"
)

// dialect is how another proxy asks whether a request may pass, and what it can
// do with the answer.
type dialect struct {
	proxy string
	// The headers that tell of the original request; empty: the request that
	// asks has its method, target and host.
	method, uri, host string
	// few: it takes 2xx, 401 and 403 for an answer and all else for an error.
	few bool
	// named: it drops headers of its client by their names alone, so that no
	// configuration of it can drop all that begin with a prefix.
	named bool
	// remove is the header of an answer that lists what is to be removed from
	// the request; "": it goes by what the answer has of it.
	remove string
}

var dialects = map[string]*dialect{
	// https://nginx.org/en/docs/http/ngx_http_auth_request_module.html leaves
	// the names to the configuration.
	"nginx":   {proxy: "nginx", method: "X-Original-Method", uri: "X-Original-Uri", host: "X-Original-Host", few: true, named: true},
	"traefik": {proxy: "traefik", method: "X-Forwarded-Method", uri: "X-Forwarded-Uri", host: "X-Forwarded-Host"},
	"caddy":   {proxy: "caddy", method: "X-Forwarded-Method", uri: "X-Forwarded-Uri", host: "X-Forwarded-Host"},
	// https://www.envoyproxy.io/docs/envoy/latest/api-v3/extensions/filters/http/ext_authz/v3/ext_authz.proto
	"envoy": {proxy: "envoy", remove: "X-Envoy-Auth-Headers-To-Remove"},
}

// trueStatus is the header with the status of a refusal that had to leave with another.
const trueStatus = "X-Gatehouse-Status"

// decisionAddress is where the proxy asks, or "".
func decisionAddress(c config.Server) string {
	if c.Decision == nil {
		return ""
	}
	return c.Decision.Listen
}

// Decision returns the handler of server.decision: the ladder of [Gateway.ServeHTTP]
// for the request that a trusted proxy tells of, which is answered 200 with the
// headers that a backend would have received, or refused. Without
// server.decision it refuses everything.
func (g *Gateway) Decision() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := g.acquire()
		defer s.release()
		d := &dialect{}
		var err error
		if c := s.config.Server.Decision; c != nil {
			d = dialects[c.Proxy]
			r, err = d.original(s, r)
		} else { // a reload took it out of the file
			err = refuse(noDecision, "the file has no server.decision any more")
		}
		v := &verdict{ResponseWriter: w, dialect: d}
		x := g.begin(s, v, r)
		x.verdict = v
		defer x.end()
		if err == nil {
			err = x.serve()
		}
		if err != nil {
			x.refuse(err)
		}
	})
}

// original returns the request that r asks about. What says who asks it, and
// for what, is read from the headers of the dialect alone, of which a client
// can set none: the proxy replaces each.
func (d *dialect) original(s *snapshot, r *http.Request) (*http.Request, error) {
	if peer := peerIP(r.RemoteAddr); !s.proxies.contains(peer) {
		return r, refuse(noDecision, "the peer %s is not in server.trusted_proxies", peer)
	}
	var values [4]string
	for i, name := range [...]string{"X-Forwarded-For", d.method, d.uri, d.host} {
		if name == "" {
			continue
		}
		lines := r.Header[name]
		if len(lines) != 1 || lines[0] == "" {
			return r, refuse(noDecision, "a request of %s has one header %s with a value; this one has %d lines", d.proxy, name, len(lines))
		}
		values[i] = lines[0]
	}
	hops, method, target, host := values[0], values[1], values[2], values[3]
	if _, ok := hopIP(hops[strings.LastIndexByte(hops, ',')+1:]); !ok {
		return r, refuse(noDecision, "X-Forwarded-For, %s, does not end in an address", strconv.Quote(bounded(hops)))
	}
	if name := s.inject.Forged(r.Header, d.named); name != "" {
		return r, refuse(token.BadRequest, "the caller sent the header %s, which backends may believe and %s would pass on", strconv.Quote(bounded(name)), d.proxy)
	}
	o := r.WithContext(r.Context())
	if d.uri != "" {
		// As net/http reads a request line, whose parts a space ends.
		if !httpguts.ValidHeaderFieldName(method) {
			return r, refuse(token.BadRequest, "%s, %s, is no method", d.method, strconv.Quote(bounded(method)))
		}
		if target[0] != '/' || strings.ContainsFunc(target, func(c rune) bool { return c <= ' ' || c == 0x7f || c == '#' }) {
			return r, refuse(badPath, "%s, %s, is no path with perhaps a query", d.uri, strconv.Quote(bounded(target)))
		}
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return r, refuse(badPath, "%s, %s, cannot be read", d.uri, strconv.Quote(bounded(target)))
		}
		o.Method, o.URL, o.RequestURI, o.Host = method, u, target, host
		for _, name := range [...]string{d.method, d.uri, d.host, "Host"} {
			delete(o.Header, name)
		}
	}
	// Whatever else tells of a request may be the client's own.
	for _, name := range [...]string{"Forwarded", "Client-Cert", "Client-Cert-Chain"} {
		delete(o.Header, name)
	}
	// Proxies keep Upgrade to themselves, and it makes a GET one that another
	// site must not send with a browser's cookies.
	if o.Header["Upgrade"] == nil && o.Header["Sec-Websocket-Key"] != nil {
		o.Header["Upgrade"] = []string{"websocket"}
	}
	return o, nil
}

// allow is the last rung where the proxy forwards: the answer has what a
// backend would have received of the gateway's, and what is left of the headers
// in which tokens stand.
func (x *exchange) allow() error {
	w, r := x.w.Header(), x.r
	if x.found != nil && !x.route.forwardToken && x.would == nil {
		before := slices.Sorted(maps.Keys(r.Header))
		x.found.source.Remove(r)
		gone := slices.DeleteFunc(before, func(name string) bool { return r.Header[name] != nil })
		if remove := x.verdict.dialect.remove; remove != "" && len(gone) > 0 {
			w[remove] = []string{strings.Join(gone, ",")}
		} else {
			for _, name := range gone {
				if !slices.Contains(x.snapshot.tokenHeaders, name) {
					return refuse(token.BadRequest, "the header %s, which a backend may read as another in which tokens stand, would be passed on", strconv.Quote(bounded(name)))
				}
			}
		}
	}
	for _, name := range x.snapshot.tokenHeaders {
		if values := r.Header[name]; values != nil {
			w[name] = values
		}
	}
	for _, h := range x.headers {
		w[h.Name] = []string{h.Value}
	}
	if x.would != nil {
		w[inject.WouldRefuse] = []string{string(x.would.reason)}
	}
	w["X-Request-Id"] = []string{x.requestID}
	w["Traceparent"] = []string{x.trace.parent()}
	if limited, policy := x.decision.Headers(); limited != "" {
		w["RateLimit"] = []string{limited}
		w["RateLimit-Policy"] = []string{policy}
	}
	w["Cache-Control"] = []string{"no-store"}
	w["Content-Length"] = []string{"0"}
	x.leaveBody(w)
	x.audit(allowed, nil, x.would)
	x.verdict.allowed = true
	x.w.WriteHeader(http.StatusOK)
	return nil
}

// verdict is the http.ResponseWriter of a decision. A 2xx means that the
// request may pass, so that nothing but [exchange.allow] may answer with one.
type verdict struct {
	http.ResponseWriter
	dialect *dialect
	allowed bool
	written bool
}

// Unwrap lets http.ResponseController reach the connection.
func (v *verdict) Unwrap() http.ResponseWriter { return v.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (v *verdict) WriteHeader(status int) {
	v.written = true
	if v.dialect.few && !v.allowed {
		v.Header()[trueStatus] = []string{strconv.Itoa(status)}
	}
	passes := status < http.StatusMultipleChoices
	foreign := v.dialect.few && status != http.StatusUnauthorized && status != http.StatusForbidden
	if !v.allowed && (passes || foreign) {
		status = http.StatusForbidden
	}
	v.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (v *verdict) Write(p []byte) (int, error) {
	if !v.written {
		v.WriteHeader(http.StatusOK)
	}
	return v.ResponseWriter.Write(p)
}
