package inject

import (
	"net/http"
	"strings"

	"gatehouse/gateway/token"
)

// What the gateway tells backends about the connection, lower case. A name in
// openNames stands for every name that it starts. pathNames are those by which
// frameworks let a proxy say another path than the request's (CVE-2018-14773): a
// client would reach a protected one by a public route.
var (
	exactNames = [...]string{"forwarded", "x-real-ip", "x-request-id", "traceparent", "tracestate"}
	openNames  = [...]string{"x-forwarded-", "client-cert"}
	pathNames  = [...]string{"x-original-url", "x-rewrite-url"}
)

// WouldRefuse tells a backend that a request would have been refused, and why,
// had the gateway not been told only to report it.
const WouldRefuse = "X-Gatehouse-Would-Refuse"

const wouldRefuse = "x-gatehouse-would-refuse" // as [folds] wants it

// Request drops from h what only the gateway may tell a backend: every header
// with the prefix, every header that a claim is sent in, [WouldRefuse], what
// names another path than the one that was decided about (X-Original-Url,
// X-Rewrite-Url), and the forwarding headers (Forwarded, X-Forwarded-*,
// X-Real-Ip, X-Request-Id, traceparent, tracestate, Client-Cert*). If trusted
// says that a trusted proxy sent the request, forwarding headers in their exact
// spelling stay.
//
// Names are compared folded: CGI, PHP, WSGI and others read X_Jwt_Sub and
// X.Jwt.Sub as X-Jwt-Sub, and proxies that dropped only the canonical spelling
// let a client choose its own identity (CVE-2026-54763, CVE-2026-88011,
// GHSA-f59h-q822-g45g).
func (r *Rules) Request(h http.Header, trusted bool) {
	for name := range h {
		switch {
		case startsWith(name, r.prefix), folds(name, wouldRefuse), anyFolds(name, r.named), saysPath(name):
			delete(h, name)
		case forwarding(name) && !(trusted && exact(name)):
			delete(h, name)
		}
	}
}

// Forged returns the name of a header in h that says who is calling as only the
// gateway may (with the prefix, or one that a claim is sent in, or
// [WouldRefuse]), or "". Unless any is true, only in another spelling than
// net/http's, which whoever drops headers by name or prefix leaves there. One that
// says another path (X-Original-Url, X-Rewrite-Url) it returns in any spelling.
func (r *Rules) Forged(h http.Header, any bool) string {
	for name := range h {
		if (any || !exact(name)) && (startsWith(name, r.prefix) || folds(name, wouldRefuse) || anyFolds(name, r.named)) || saysPath(name) {
			return name
		}
	}
	return ""
}

// Trailer is [Rules.Request] for a trailer section, announced names included.
// No proxy is trusted to send any of these there: RFC 9110 §6.5.1 forbids
// routing and authentication fields in trailers.
//
// Fields that say who is calling, ask for another method or frame the message go
// as well, those of [Options].Tokens among them: a backend that merges trailers
// into its headers would read another token there than the one that was verified.
func (r *Rules) Trailer(t http.Header) {
	r.Request(t, false)
	for name := range t {
		if startsWith(name, "content-") || anyFolds(name, notTrailers[:]) || anyFolds(name, r.tokens) {
			delete(t, name)
		}
	}
}

var notTrailers = [...]string{"authorization", "proxy-authorization", "cookie", "set-cookie", "host", "transfer-encoding", "te", "trailer", "connection", "upgrade", "expect", "cache-control", "max-forwards", "x-http-method-override", "x-http-method", "x-method-override"}

// Response drops headers with the prefix and [WouldRefuse] from a backend's
// response, or from its trailers: they are told to backends, not to callers.
func (r *Rules) Response(h http.Header) {
	for name := range h {
		if startsWith(name, r.prefix) || folds(name, wouldRefuse) {
			delete(h, name)
		}
	}
}

// anyFolds says whether one of the folded names is name.
func anyFolds(name string, names []string) bool {
	for _, n := range names {
		if folds(name, n) {
			return true
		}
	}
	return false
}

func forwarding(name string) bool {
	for i := range exactNames {
		if folds(name, exactNames[i]) {
			return true
		}
	}
	for i := range openNames {
		if startsWith(name, openNames[i]) {
			return true
		}
	}
	return saysPath(name)
}

func saysPath(name string) bool {
	for i := range pathNames {
		if folds(name, pathNames[i]) {
			return true
		}
	}
	return false
}

// folded returns name with every byte folded.
func folded(name string) string {
	b := []byte(name)
	for i := range b {
		b[i] = token.Fold(b[i])
	}
	return string(b)
}

// startsWith reports whether name, folded, starts with want. It allocates
// nothing: every header of every request passes here.
func startsWith(name, want string) bool {
	if len(name) < len(want) {
		return false
	}
	for i := range len(want) {
		if token.Fold(name[i]) != want[i] {
			return false
		}
	}
	return true
}

// folds reports whether name, folded, is want.
func folds(name, want string) bool { return len(name) == len(want) && startsWith(name, want) }

// exact reports whether name is spelled as net/http spells it, with nothing
// but letters, digits and hyphens.
func exact(name string) bool {
	odd := func(c rune) bool { return c != '-' && token.Fold(byte(c)) == '-' || c > 0x7f }
	return !strings.ContainsFunc(name, odd) && http.CanonicalHeaderKey(name) == name
}
