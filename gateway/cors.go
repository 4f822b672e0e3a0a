package gateway

import (
	"net/http"
	"slices"
	"strings"

	"github.com/rs/cors"

	"gatehouse/gateway/config"
)

// methods are those that a route without a list of its own has to CORS.
var methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}

// newCORS returns nil for nil: then CORS is the backend's own matter.
func newCORS(c *config.CORS, m config.Match) *cors.Cors {
	if c == nil {
		return nil
	}
	o := cors.Options{
		AllowedOrigins: c.AllowOrigins, AllowedHeaders: c.AllowHeaders, ExposedHeaders: c.ExposeHeaders,
		AllowCredentials: c.AllowCredentials, MaxAge: int(c.MaxAge.Seconds()),
		// A preflight reaches the route by its Access-Control-Request-Method.
		AllowedMethods: m.Methods,
	}
	if o.AllowedMethods == nil {
		o.AllowedMethods = methods
	}
	return cors.New(o)
}

// isPreflight says whether a browser asks before a request
// (https://fetch.spec.whatwg.org/#cors-preflight-request).
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && len(r.Header["Origin"]) == 1 && len(r.Header["Access-Control-Request-Method"]) == 1
}

// forMethod is the request that a preflight asks about.
func forMethod(r *http.Request) *http.Request {
	asked := *r
	asked.Method = r.Header["Access-Control-Request-Method"][0]
	return &asked
}

// corsAnswer is what an http.ResponseWriter would be told of CORS.
type corsAnswer struct {
	header http.Header
	status int
}

func (a *corsAnswer) Header() http.Header         { return a.header }
func (a *corsAnswer) Write(p []byte) (int, error) { return len(p), nil }
func (a *corsAnswer) WriteHeader(status int)      { a.status = status }

// cors asks the route what a browser is to be told.
func (x *exchange) cors() corsAnswer {
	a := corsAnswer{header: http.Header{}}
	x.route.cors.HandlerFunc(&a, x.r)
	return a
}

// preflight answers one. It needs no token: a browser sends none with it.
func (x *exchange) preflight() {
	a := x.cors()
	h := x.w.Header()
	for name, values := range a.header {
		h[name] = values
	}
	x.route.rewrite.response.apply(h)
	h.Set("X-Request-Id", x.requestID)
	x.leaveBody(h)
	x.w.WriteHeader(a.status)
}

// shareCORS puts what a browser is to be told into the headers of an answer,
// in place of what the backend says: two voices, and a browser believes none.
func (x *exchange) shareCORS(h http.Header) {
	if x.route == nil || x.route.cors == nil {
		return
	}
	for name := range h {
		if strings.HasPrefix(name, "Access-Control-") {
			delete(h, name)
		}
	}
	for name, values := range x.cors().header {
		if name != "Vary" {
			h[name] = values
			continue
		}
		for _, value := range values {
			if !slices.Contains(h["Vary"], value) {
				h["Vary"] = append(h["Vary"], value)
			}
		}
	}
}
