// Package inject decides which headers tell a backend who is calling: it
// drops what a client sends under names that the gateway owns, and encodes a
// token's claims so that no claim can break a header, forge another one or add
// an item to a list.
package inject

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/net/http/httpguts"

	"gatehouse/gateway/token"
)

// DefaultMaxBytes bounds names and values together where [Options] give no bound.
const DefaultMaxBytes = 8192

// Options say which headers backends receive.
type Options struct {
	Prefix   string           // lower case letters, digits and hyphens, ends in a hyphen: x-jwt-
	Claims   map[string]Claim // by the header's suffix; nil: all top-level claims
	MaxBytes int              // names and values together; 0: DefaultMaxBytes
	Tokens   []string         // headers in which a token may stand: no trailer has their names
}

// Claim is one claim that becomes a header.
type Claim struct {
	Path   token.Path
	List   bool   // the claim must be a list: an array, or aud, whose single string is a list of one (RFC 7519 §4.1.3)
	Header string // the header's whole name; empty: prefix and suffix
}

// Header is one header line to set: Name in the spelling that [http.Header]
// wants as a key, Value safe for HTTP.
type Header struct{ Name, Value string }

// Rules are compiled [Options], safe for concurrent use.
type Rules struct {
	prefix   string
	iss      string    // the canonical name of the header that carries iss
	act      [2]string // the canonical names of act-iss and act-sub; "" where a claim was chosen for it
	all      bool      // every top-level claim
	claims   []chosen  // else these, sorted by their keys
	named    []string  // names given in Options.Claims, lower case
	tokens   []string  // those of Options.Tokens, folded
	maxBytes int
	owners   [2]owner // of what tokens remember: without and with iss always

	names  sync.Map     // claim -> canonical header name, at most maxNames
	shared atomic.Int64 // how many were to be in names
}

// owner is something to point at; it must not be of size zero, or two of them
// might share an address.
type owner byte

type chosen struct {
	header string // canonical
	Claim
}

// New checks and compiles o. The error says which name cannot be used and why.
func New(o Options) (*Rules, error) {
	if Name(o.Prefix)+"-" != o.Prefix {
		return nil, fmt.Errorf("the header prefix %q must be lower-case letters, digits and hyphens and end in a hyphen: %q", o.Prefix, Name(o.Prefix)+"-")
	}
	if name, clash := takes(o.Prefix); clash {
		return nil, fmt.Errorf("the header prefix %q would let a claim set %s; take one of your own, such as x-jwt-", o.Prefix, name)
	}
	r := &Rules{
		prefix:   o.Prefix,
		all:      o.Claims == nil,
		maxBytes: o.MaxBytes,
	}
	if r.maxBytes == 0 {
		r.maxBytes = DefaultMaxBytes
	}
	for _, name := range o.Tokens {
		r.tokens = append(r.tokens, folded(name))
	}
	r.iss = r.header("iss")
	r.act = [2]string{r.header("act-iss"), r.header("act-sub")}
	taken := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(o.Claims)) {
		c := chosen{Claim: o.Claims[key]}
		switch {
		case c.Header == "" && (key == "" || Name(key) != key):
			return nil, fmt.Errorf("the header suffix %q must be lower-case letters, digits and single hyphens: %q", key, Name(key))
		case c.Header == "":
			c.header = r.header(key)
		case !httpguts.ValidHeaderFieldName(c.Header):
			return nil, fmt.Errorf("%q for the claim %s is no header name (RFC 9110 §5.1)", c.Header, c.Path)
		case reserved(c.Header):
			return nil, fmt.Errorf("the claim %s cannot be sent as %s: that header belongs to HTTP or to the gateway", c.Path, c.Header)
		default:
			c.header = http.CanonicalHeaderKey(c.Header)
			r.named = append(r.named, folded(c.Header))
		}
		// Folded, since a backend may read X_User and X-User as one (CGI does).
		if other, twice := taken[folded(c.header)]; twice {
			return nil, fmt.Errorf("%s and %s would both be sent as %s", other, key, c.header)
		}
		taken[folded(c.header)] = key
		for i, name := range r.act {
			if folded(c.header) == folded(name) {
				r.act[i] = ""
			}
		}
		r.claims = append(r.claims, c)
	}
	return r, nil
}

// reserved reports whether no claim may ever set the header.
func reserved(name string) bool {
	if forwarding(name) || folds(name, wouldRefuse) {
		return true
	}
	for _, owned := range http1 {
		if folds(name, owned) {
			return true
		}
	}
	return false
}

// takes returns a reserved name that some claim could reach under the prefix.
func takes(prefix string) (name string, clash bool) {
	for _, owned := range slices.Concat(http1[:], exactNames[:], openNames[:], pathNames[:], []string{wouldRefuse}) {
		if strings.HasPrefix(owned, prefix) {
			return owned, true
		}
	}
	return prefix, forwarding(prefix)
}

// http1 are the names that frame a message, route it or carry credentials
// (RFC 9110, RFC 9112): a claim that set one could smuggle a request.
var http1 = [...]string{
	"accept-encoding", "authorization", "connection", "content-encoding", "content-length", "content-range",
	"content-type", "cookie", "date", "expect", "host", "keep-alive", "max-forwards", "proxy-authenticate",
	"proxy-authorization", "proxy-connection", "range", "sec-websocket-key", "te", "trailer",
	"transfer-encoding", "upgrade", "via",
}
