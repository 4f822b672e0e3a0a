package gateway

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"gatehouse/gateway/internal/limit"
	"gatehouse/gateway/token"
)

// minAdminToken is the least length of the operators' token, in bytes.
const minAdminToken = 32

// maxAdminBody bounds the body of a request to the admin listener, in bytes.
const maxAdminBody = 64 << 10

// Reasons of the admin listener alone.
const (
	adminUnauthorized token.Reason = "unauthorized"
	adminForbidden    token.Reason = "forbidden"
	misdirected       token.Reason = "misdirected_request"
)

// adminAuth knows who may use the admin listener. Secrets are kept as hashes.
type adminAuth struct {
	loopback bool // the file has the listener on a loopback address, see cameOnLoopback
	operator *[sha256.Size]byte
	// certificates says that operators may show a certificate.
	certificates bool
	clients      map[string][sha256.Size]byte
	failures     *limit.Failures
}

func newAdminAuth(o adminOptions, loopback bool) (*adminAuth, error) {
	a := &adminAuth{loopback: loopback, clients: map[string][sha256.Size]byte{}}
	if file := o.auth.TokenFile; file != "" {
		if len(o.token) < minAdminToken {
			return nil, fmt.Errorf("the token in %s has %d bytes; give it at least %d, from openssl rand -hex 32 say", file, len(o.token), minAdminToken)
		}
		sum := sha256.Sum256([]byte(o.token))
		a.operator = &sum
	}
	for id, secret := range o.auth.Clients {
		a.clients[id] = sha256.Sum256([]byte(secret))
	}
	a.certificates = o.auth.TLS != nil && o.auth.TLS.ClientCAFile != ""
	var err error
	a.failures, err = limit.NewFailures(limit.FailureOptions{Rate: limit.Rate{Count: 10, Per: time.Minute}})
	return a, err
}

// access is what a page of the admin listener asks of its caller.
type access int

const (
	open    access = iota // anyone: there is nothing to learn
	reads                 // on loopback anyone on this machine, elsewhere an operator
	writes                // an operator
	clients               // an operator, or a client of the OAuth endpoints
)

// caller is who uses the admin listener.
type caller struct {
	operator bool
	name     string // of an operator's certificate
	client   string // client_id
	ip       netip.Addr
}

func (c caller) String() string {
	switch {
	case c.operator && c.name != "":
		return "operator " + c.name
	case c.operator:
		return "operator"
	case c.client != "":
		return "client " + c.client
	}
	return "anyone on this machine"
}

// errCredentials says that somebody failed to show who he is.
var errCredentials = errors.New("the credentials are wrong")

// identify returns who is calling, front being what the listener asks of
// clients by now. No credentials at all are no error.
func (a *adminAuth) identify(r *http.Request, front *frontTLS) (c caller, err error) {
	c.ip = peerIP(r.RemoteAddr)
	scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	id, form := r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	switch {
	case len(r.Header["Authorization"]) > 1 || scheme != "" && form != "":
		return c, errors.New("the request shows who is calling in two ways")
	case strings.EqualFold(scheme, "Bearer"):
		sum := sha256.Sum256([]byte(secret))
		if a.operator == nil || subtle.ConstantTimeCompare(sum[:], a.operator[:]) != 1 {
			return c, errCredentials
		}
		c.operator = true
		return c, nil
	case strings.EqualFold(scheme, "Basic"):
		var ok bool
		if id, form, ok = basicClient(r); !ok {
			return c, errCredentials
		}
	case scheme != "":
		return c, errCredentials
	case form == "":
		// The authorities of the listener sign operators only. It keeps those that
		// it was started with where the file has no tls any more.
		if a.certificates && front.vouches(r.TLS) {
			c.operator, c.name = true, bounded(r.TLS.PeerCertificates[0].Subject.String())
		}
		return c, nil
	}
	sum := sha256.Sum256([]byte(form))
	known, ok := a.clients[id]
	if subtle.ConstantTimeCompare(sum[:], known[:]) != 1 || !ok {
		return c, errCredentials
	}
	c.client = id
	return c, nil
}

// basicClient reads client_secret_basic, whose parts are form-encoded before
// they are joined (RFC 6749 §2.3.1).
func basicClient(r *http.Request) (id, secret string, ok bool) {
	id, secret, ok = r.BasicAuth()
	if !ok {
		return "", "", false
	}
	id, errID := url.QueryUnescape(id)
	secret, errSecret := url.QueryUnescape(secret)
	return id, secret, errID == nil && errSecret == nil
}

// adminHandler answers for one path of the admin listener.
type adminHandler func(w http.ResponseWriter, r *http.Request, s *snapshot, c caller)

// Admin returns the handler of the admin listener. It checks Host, Origin and
// the caller's credentials (server.admin_auth) before anything else.
// Nobody reads without credentials unless an [http.Server] says that the
// connection came in by a loopback address.
// Without server.admin in the configuration there is none to serve.
func (g *Gateway) Admin() http.Handler {
	mux := http.NewServeMux()
	origin := http.NewCrossOriginProtection()
	page := func(pattern string, needs access, h adminHandler) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			s := g.acquire()
			defer s.release()
			if s.admin == nil { // a reload took it out of the file
				http.NotFound(w, r)
				return
			}
			r.Body = http.MaxBytesReader(w, r.Body, maxAdminBody)
			c, refused := s.admit(r, needs, origin)
			if refused != nil {
				g.log.Warn("refused on the admin listener", "method", r.Method, "path", bounded(r.URL.Path), "client", c.ip.String(), "reason", string(refused.reason), "detail", refused.detail)
				g.metrics.adminRefusals.Inc()
				refused.write(w, needs)
				return
			}
			h(w, r, s, c)
		})
	}
	page("POST /revoke", clients, g.revokeToken)
	page("POST /introspect", clients, g.introspectToken)
	page("GET /refusals", reads, g.listRefusals)
	page("GET /refusals/{request_id...}", reads, g.showRefusal)
	page("POST /explain", reads, g.explainRequest)
	page("GET /upstreams", reads, g.listUpstreams)
	page("GET /state", reads, g.showState)
	for pattern, file := range pageFiles {
		page(pattern, open, showFile(file))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range pageHeaders {
			w.Header().Set(name, value)
		}
		mux.ServeHTTP(w, r)
	})
}

// adminRefusal is the end of a request to the admin listener.
type adminRefusal struct {
	status int
	reason token.Reason
	detail string
}

func (f *adminRefusal) write(w http.ResponseWriter, needs access) {
	if f.status == http.StatusUnauthorized {
		if needs == clients {
			w.Header().Add("WWW-Authenticate", `Basic realm="`+realm+`", charset="UTF-8"`)
		}
		w.Header().Add("WWW-Authenticate", `Bearer realm="`+realm+`"`)
	}
	if needs == clients {
		code := "invalid_request"
		if f.status == http.StatusUnauthorized {
			code = "invalid_client" // RFC 6749 §5.2
		}
		writeJSON(w, f.status, oauthError{code, f.detail})
		return
	}
	writeProblem(w, problem{Type: "about:blank", Title: http.StatusText(f.status), Status: f.status, Detail: f.detail, Reason: f.reason})
}

// admit says who is calling, or why he may not.
func (s *snapshot) admit(r *http.Request, needs access, origin *http.CrossOriginProtection) (caller, *adminRefusal) {
	a := s.admin.value
	c := caller{ip: peerIP(r.RemoteAddr)}
	if a.loopback && !isLoopbackHost(r.Host) {
		// A page of another site that its name server points here (DNS rebinding).
		return c, &adminRefusal{http.StatusMisdirectedRequest, misdirected, "The admin listener answers to localhost and loopback addresses only."}
	}
	if needs == open { // a link from elsewhere may lead here
		return c, nil
	}
	if err := origin.Check(asWrite(r)); err != nil {
		return c, &adminRefusal{http.StatusForbidden, crossOrigin, "A page of another origin cannot use the admin listener."}
	}
	if err := a.failures.Over(c.ip); err != nil {
		return c, &adminRefusal{http.StatusTooManyRequests, rateLimited, "Too many wrong credentials came from this address."}
	}
	if needs == clients {
		if err := r.ParseForm(); err != nil {
			return c, &adminRefusal{http.StatusBadRequest, token.BadRequest, "The body is no form of at most 65536 bytes."}
		}
	}
	c, err := a.identify(r, s.adminTLS)
	switch {
	case errors.Is(err, errCredentials):
		a.failures.Add(c.ip)
		return c, &adminRefusal{http.StatusUnauthorized, adminUnauthorized, "The credentials are wrong."}
	case err != nil:
		return c, &adminRefusal{http.StatusBadRequest, token.BadRequest, "The request shows who is calling in two ways."}
	case c.operator, needs == clients && c.client != "", needs == reads && a.loopback && cameOnLoopback(r) && c.client == "" && r.Header["X-Forwarded-For"] == nil:
		// The header is of whoever is elsewhere: a registry, say, named this listener as a target of ours.
		return c, nil
	case c.client != "":
		return c, &adminRefusal{http.StatusForbidden, adminForbidden, "An OAuth client may use the revocation and introspection endpoints only."}
	case a.operator == nil && !a.certificates && needs != clients:
		return c, &adminRefusal{http.StatusForbidden, adminForbidden, "Nobody may do this: server.admin_auth has neither token_file nor tls with client_ca_file."}
	}
	return c, &adminRefusal{http.StatusUnauthorized, adminUnauthorized, "Credentials are needed."}
}

// asWrite is r for [http.CrossOriginProtection], which lets every GET pass: what
// is read here is nothing for a page of another origin either, and its calls
// must not spend an operator's tries.
func asWrite(r *http.Request) *http.Request {
	return &http.Request{Method: http.MethodPost, URL: r.URL, Host: r.Host, Header: r.Header}
}

// cameOnLoopback says whether the connection's end that is ours has a loopback
// address. A reload cannot move the listener: what the file says since then is
// not where others reach it. An end that is not known is none.
func cameOnLoopback(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ok && local.IP.IsLoopback()
}

// isLoopbackHost says whether a Host header names this machine to itself.
func isLoopbackHost(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.Trim(hostport, "[]")
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
