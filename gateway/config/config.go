// Package config reads routes.yaml: strictly, with every fault named by file,
// line and column and the nearest right spelling, all faults at once.
//
// A [Config] is plain data, complete with defaults and resolved references,
// and must not be changed once it is loaded. Nothing in it has been started:
// no file but the configuration's own, the policies that its routes name and what
// ${file:…} names is read and
// no connection is made.
package config

import (
	"net/netip"
	"time"
)

// Config is the whole of routes.yaml.
type Config struct {
	Version    int
	Server     Server
	Redis      Redis
	Issuers    map[string]*Issuer
	Revocation Revocation
	Headers    Headers
	Limits     map[string]*Limit
	Upstreams  map[string]*Upstream // those named in the file; a route with a bare URL has another
	Privileges []Privilege          // the catalogue, in the order of the file; nil if it has none
	Defaults   Defaults
	Routes     []*Route
	Policies   map[string]*Policy // those that routes name; nil if none does
	Tests      []*Test

	source // where each value stands in the file, for faults found later
}

// Server says where the gateway listens and whom it believes.
type Server struct {
	Listen         string         // host:port; default ":8080"; empty: off
	Status         string         // host:port of /livez, /readyz and /metrics; empty: off
	TrustedProxies []netip.Prefix // peers whose forwarding headers are believed
	AuthFailures   *AuthFailures  // nil: failed authentications are not limited
	TLS            *TLS           // nil: Listen is clear text
	Admin          string         // host:port of the admin listener; empty: off
	AdminAuth      AdminAuth
	Audit          *Audit    // nil: decisions are not audited
	Decision       *Decision // nil: off
	Tracing        *Tracing  // nil: no spans
	AccessLog      AccessLog

	MaxConnections    int           // of clients at a time
	ReadHeaderTimeout time.Duration // for a TLS handshake, and for a request's headers
	IdleTimeout       time.Duration // between two requests
	WriteTimeout      time.Duration // in which a client must take what is written to it
}

// AdminAuth says who may use the admin listener.
type AdminAuth struct {
	TokenFile string            // holds the operators' bearer token; empty: none
	Clients   map[string]string // client_id to client_secret, of the OAuth endpoints alone
	TLS       *TLS              // nil: the listener is clear text; the clients of its authorities are operators
}

// Decision is the listener that another proxy asks whether a request may pass.
type Decision struct {
	Listen string // host:port
	Proxy  string // who asks, and how: "nginx", "traefik", "caddy" or "envoy"
}

// Audit says where the records of decisions go.
type Audit struct {
	File         string // "-" is standard output; a path is resolved already
	MaxBytes     int    // length at which the file is rotated
	Keep         int    // rotated files that are kept
	SampleAllows int    // of so many allowed requests one is written; 1: all
}

// AccessLog says which requests have a line in the log.
type AccessLog struct {
	SampleAllows int // of so many requests with which nothing was wrong one is written; 0: all
}

// AuthFailures limits the invalid tokens of one address.
type AuthFailures struct {
	Rate  Rate
	Burst int // default: the rate's count
}

// Redis is the shared store.
type Redis struct {
	URL string // redis:// or rediss://, +sentinel or +cluster; unix:// too; empty if the file needs none
	// Username and Password go before those of the URL; CAFile is a PEM file
	// for rediss:// beside the system's own authorities.
	Username, Password, CAFile string
	Replicas                   int // gateways on this Redis; 0: as last seen there
}

// Issuer is one party whose tokens are accepted.
type Issuer struct {
	Name           string   // its key in the file: [a-z0-9-]+
	Issuer         string   // the iss claim, exactly; "" for issuer: none
	Insecure       bool     // http to other hosts than loopback is allowed
	Audiences      []string // any of; nil means any audience
	Algorithms     []string // JWS alg values (RFC 7518 §3.1, RFC 8037)
	Leeway         time.Duration
	PrivilegesFrom []ClaimSource
	TokenFrom      []TokenSource
	JWKS           JWKS
	Keys           []Key         // static keys
	Secret         string        // HS* secret; then nothing else verifies for this issuer
	MaxLifetime    time.Duration // 0: not bounded
	MayGrant       []string      // privileges of its tokens that count; nil: all
	Profile        string        // "jwt" or "rfc9068"
	AcceptIDTokens bool          // tokens with nonce, at_hash or c_hash are accepted
	RequiredClaims []RequiredClaim
	IgnoreCnf      bool     // cnf: ignore
	ActorFrom      []string // paths to claims that name an actor where act does not
	Introspection  Introspection
	Mode           string // "enforce" or "report" for tokens that select it; "" for that of each route
	// BackchannelLogout is where the issuer tells of sessions that ended.
	BackchannelLogout BackchannelLogout
}

// BackchannelLogout is an endpoint for logout tokens (OpenID Connect
// Back-Channel Logout 1.0). The zero value is none.
type BackchannelLogout struct {
	Path      string   // of server.listen, exactly; empty: none
	Audiences []string // a logout token's aud must hold one: the client ids that the provider knows the gateway's users by
	Rate      Rate     // logout tokens that one address may have refused
}

// Enabled says whether there is such an endpoint.
func (l BackchannelLogout) Enabled() bool { return l.Path != "" }

// Introspection says which tokens the issuer itself is asked about (RFC 7662).
// The zero value asks about none.
type Introspection struct {
	When     string        // "opaque" or "always"; "" for never
	Interval time.Duration // how long an answer holds
	Endpoint string        // empty: found by discovery
	Auth     ClientAuth
	MaxStale time.Duration // how much longer it holds while the issuer cannot be asked
	Misses   Misses
}

// Misses limits the tokens of one address that the issuer is asked about.
type Misses struct {
	Rate  Rate
	Burst int // 0: the rate's count
}

// Enabled says whether the issuer is asked about any tokens.
func (i Introspection) Enabled() bool { return i.When != "" }

// ClientAuth is how the gateway shows an endpoint who it is.
type ClientAuth struct {
	Method       string // client_secret_basic, client_secret_post or private_key_jwt
	ClientID     string
	ClientSecret string // of the first two
	KeyFile      string // of the third: a private key in PEM or JWK; the path is resolved already
}

// RequiredClaim is a claim that a token must have.
type RequiredClaim struct {
	Claim  string   // a path as token.ParsePath reads it
	Values []string // one of them; nil: any value but null
}

// ClaimSource is one claim that carries privileges.
type ClaimSource struct {
	Claim  string // a path as token.ParsePath reads it
	Prefix string // put before each value found there
}

// TokenSource is one place where tokens may stand. Exactly one of Header,
// Cookie, Query and WebSocketProtocol is set.
type TokenSource struct {
	Header, Prefix string // Header is canonical; "Authorization" has the prefix "Bearer"
	Cookie         string
	Query          string
	// WebSocketProtocol is the subprotocol after which a token follows.
	WebSocketProtocol string
}

// JWKS says how an issuer's keys are fetched and kept.
type JWKS struct {
	URI                string // without discovery; empty: found by discovery
	Refresh            time.Duration
	MinRefreshInterval time.Duration
	MaxStale           time.Duration
	Snapshot           string // file that keeps the last good keys; empty: none
}

// Key is one static public key; exactly one of its fields is set.
type Key struct {
	File string // a PEM or JWK file; a path relative to the configuration file is resolved already
	Text string // PEM or JWK text, from the environment
}

// Revocation says which revocation keys are looked up and what an outage means.
type Revocation struct {
	Check        []string // of jti, sid, sub, client_id; nil if the file has no revocation section
	Mode         string   // "lookup" or "replica"
	Sync         string   // of a replica: "tracking" or "poll"
	PollInterval time.Duration
	MaxStale     time.Duration // how long a replica decides without Redis
	OnError      string        // "deny" or "allow"
}

// Enabled says whether the file asks for revocation at all.
func (r Revocation) Enabled() bool { return r.Check != nil }

// Headers says which headers backends receive.
type Headers struct {
	Prefix   string                 // lower case, ends in a hyphen; default "x-jwt-"
	Claims   map[string]HeaderClaim // nil: all claims
	MaxBytes int                    // names and values together
}

// HeaderClaim is one claim that becomes a header.
type HeaderClaim struct {
	Claim  string // a path as token.ParsePath reads it
	Type   string // "" or "list"
	Header string // the header's whole name; empty: prefix + key
}

// Limit is one rate limit.
type Limit struct {
	Name       string
	Key        []string // of ip, route, issuer, claim:PATH and header:NAME
	Rate       Rate
	Burst      int             // 0: the rate's count
	IPv6Prefix int             // bits of an IPv6 address that count
	TierBy     string          // claim:PATH; empty: no tiers
	Tiers      map[string]Rate // by the claim's value
	Cost       int             // tokens that a request takes
	Costs      map[string]int  // the same by method
	Shared     bool            // one bucket for all gateways, in Redis
	Lease      int             // tokens taken from Redis at once; 0: each request asks
	OnError    string          // "local", "allow" or "deny", of a shared limit
	Mode       string          // "enforce", "report", or "" for that of each route
}

// Rate is so many requests in so long a time.
type Rate struct {
	Count int
	Per   time.Duration
}

// Privilege is one that exists, where the file says which do.
type Privilege struct {
	Name        string
	Description string
	From        []string // the issuers, by name, whose tokens give it; nil: any
}

// Defaults are what routes inherit; a route's own issuers and limits replace these.
type Defaults struct {
	Issuers     []string
	Limits      []string
	Timeout     time.Duration
	IdleTimeout time.Duration
	Transport   string // "direct" or "net_http"
	// CloseOnExpiry ends what outlives its token; default true.
	CloseOnExpiry   bool
	Mode            string // "enforce" or "report"
	MaxBody         int64
	RequestHeaders  HeaderEdits
	ResponseHeaders HeaderEdits
	CORS            *CORS
}

// HeaderEdits are changes to headers, by their canonical names: first what is
// removed, then what replaces, then what comes beside.
type HeaderEdits struct {
	Set, Add map[string]string
	Remove   []string
}

// Cookies are changes to a backend's Set-Cookie (RFC 6265 §4.1.2).
type Cookies struct {
	Domain map[string]string // whole domains, lower case
	Path   map[string]string // beginnings of paths, in whole segments
}

// CORS says which pages of other origins may read a route's responses (the
// CORS protocol, https://fetch.spec.whatwg.org/#http-cors-protocol).
type CORS struct {
	AllowOrigins     []string // "*", origins, or origins with * as their first label
	AllowHeaders     []string // of requests; "*" for all
	ExposeHeaders    []string // of responses
	AllowCredentials bool
	MaxAge           time.Duration // how long a browser may remember a preflight; 0: its own default
}

// Route is one row of the route table, with the defaults applied.
type Route struct {
	Name         string
	Match        Match
	Public       bool
	Optional     bool      // auth: optional
	Issuers      []*Issuer // empty on public routes
	All, Any     []string  // privileges: all of All, and one of Any if there are any
	Policy       string    // a key of Config.Policies; empty: none
	Delegation   Delegation
	StepUp       StepUp
	Limits       []*Limit
	Upstreams    []Destination // one at least without conditions
	Sticky       string        // claim:PATH, header:NAME or cookie:NAME of which the same value goes to the same upstream; empty: none
	StripPrefix  string        // without a trailing slash
	ForwardToken bool
	EncodedSlash bool          // encoded_slash: allow
	IgnoreCase   bool          // the match is compared without regard to the case of letters in the path
	Timeout      time.Duration // 0: that of the upstream, or else of Defaults
	IdleTimeout  time.Duration // the same
	// CloseOnExpiry ends what outlives its token; means nothing on public routes.
	CloseOnExpiry bool
	Mode          string // the route's own, "enforce" or "report"; "" for Defaults.Mode

	MaxBody         int64  // bytes of a request's body; 0: any
	AddPrefix       string // without a trailing slash
	RewriteHost     string // "": the client's; "target": the target's own
	RequestHeaders  HeaderEdits
	ResponseHeaders HeaderEdits // of refusals, too
	Cookies         Cookies
	CORS            *CORS // nil: the backend's own matter
}

// Delegation says who may act in another's name.
type Delegation struct {
	Deny   bool
	Actors []Actor // nil: whoever the issuer lets
}

// Actor is one who may.
type Actor struct{ Issuer, Subject string } // Issuer is empty for the token's own

// StepUp is how well the user must have been authenticated.
type StepUp struct {
	ACR            []string      // one of them; nil: any
	AllAMR, AnyAMR []string      // all of AllAMR, and one of AnyAMR if there are any
	MaxAge         time.Duration // 0: any
}

// Match says which requests a route is for, in net/http.ServeMux's terms.
type Match struct {
	Methods []string // upper case; empty: every method
	Host    string   // lower case; empty: every host
	Path    string   // with {id}, {rest...} and {$}
}

// Pattern returns the match as it is written: "GET,HEAD host/path".
func (m Match) Pattern() string {
	s := m.Host + m.Path
	for i := len(m.Methods) - 1; i >= 0; i-- {
		sep := ","
		if i == len(m.Methods)-1 {
			sep = " "
		}
		s = m.Methods[i] + sep + s
	}
	return s
}
