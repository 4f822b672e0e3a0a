package config

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// The types below are routes.yaml as it is written, before defaults and
// references; see reader for their tags.

type fileConfig struct {
	Version    int                       `yaml:"version" doc:"the version of the file's format; 1 is the only one"`
	Server     fileServer                `yaml:"server" doc:"where the gateway listens, and whom it believes"`
	Redis      fileRedis                 `yaml:"redis" doc:"the store that gateways share"`
	Issuers    map[string]*fileIssuer    `yaml:"issuers" doc:"the parties whose tokens are accepted, by names of lower-case letters, digits and hyphens"`
	Revocation fileRevocation            `yaml:"revocation" doc:"how tokens that were withdrawn are found"`
	Headers    fileHeaders               `yaml:"headers" doc:"which headers tell backends who is calling"`
	Limits     map[string]*fileLimit     `yaml:"limits" doc:"rate limits by name"`
	Upstreams  map[string]*fileUpstream  `yaml:"upstreams" doc:"backends by name"`
	Privileges map[string]*filePrivilege `yaml:"privileges" doc:"all the privileges that exist; another one is a fault then"`
	Defaults   fileDefaults              `yaml:"defaults" doc:"what routes inherit; their own values replace these"`
	Routes     []fileRoute               `yaml:"routes" need:"the list of what is forwarded where" doc:"what is forwarded where; the most specific match wins"`
	Tests      []fileRouteTest           `yaml:"tests" doc:"requests and what must become of them, run by gatehouse check"`
}

type fileServer struct {
	Listen         address          `yaml:"listen" doc:"host:port on which the gateway serves; default :8080, with decision none"`
	Status         address          `yaml:"status" doc:"host:port of /livez, /readyz and /metrics; default off"`
	TrustedProxies []network        `yaml:"trusted_proxies" doc:"networks of the proxies in front, which alone may send X-Forwarded-*, Forwarded and Client-Cert*"`
	AuthFailures   fileAuthFailures `yaml:"auth_failures" doc:"a limit of the invalid tokens of one address"`
	TLS            fileTLS          `yaml:"tls" doc:"certificates, and what is asked of clients; default: no TLS"`
	Admin          address          `yaml:"admin" doc:"host:port of the admin listener; default off"`
	AdminAuth      fileAdminAuth    `yaml:"admin_auth" doc:"who may use the admin listener"`
	Audit          fileAudit        `yaml:"audit" doc:"a record of each decision"`
	Decision       fileDecision     `yaml:"decision" doc:"a listener that another proxy asks whether a request may pass"`
	AccessLog      fileAccessLog    `yaml:"access_log" doc:"which requests have a line in the log"`
	Tracing        fileTracing      `yaml:"tracing" doc:"spans of requests for an OpenTelemetry collector; default off"`

	MaxConnections    int           `yaml:"max_connections" doc:"how many connections of clients may be open; default 50000"`
	ReadHeaderTimeout time.Duration `yaml:"read_header_timeout" doc:"how long a client may take for a TLS handshake, and for a request's headers; default 10s"`
	IdleTimeout       time.Duration `yaml:"idle_timeout" doc:"how long a client's connection may wait for the next request; default 2m"`
	WriteTimeout      time.Duration `yaml:"write_timeout" doc:"how long a client may leave what is written to it untaken; default 30s"`
}

type fileAuthFailures struct {
	Rate  rate `yaml:"rate" need:"how many invalid tokens an address may send, such as 10/1m" doc:"COUNT/DURATION, such as 10/1m"`
	Burst int  `yaml:"burst" doc:"how many may come at once; default: the count of the rate"`
}

type fileRedis struct {
	URL      redisURL `yaml:"url" need:"where the shared store is, such as redis://127.0.0.1:6379/0" doc:"redis://, rediss:// for TLS, +sentinel or +cluster, or unix://"`
	Username string   `yaml:"username" doc:"of an ACL user; default: that of the URL"`
	Password string   `yaml:"password" doc:"default: that of the URL"`
	CAFile   string   `yaml:"ca_file" doc:"a PEM file of authorities for rediss://"`
	Replicas int      `yaml:"replicas" doc:"how many gateways share this Redis; default: as last seen there"`
}

type fileIssuer struct {
	Issuer         string                `yaml:"issuer" need:"the iss claim of its tokens, such as https://id.example.com, or none" doc:"the iss of its tokens, exactly; or none, for tokens without"`
	Insecure       bool                  `yaml:"insecure" doc:"true allows http:// to other machines than this one"`
	Audiences      audiences             `yaml:"audiences" need:"the aud values of which a token must name one, or the word any" doc:"a token must name one of these in aud; any accepts every token of the issuer"`
	Algorithms     []string              `yaml:"algorithms" enum:"RS256,RS384,RS512,PS256,PS384,PS512,ES256,ES384,ES512,EdDSA,HS256,HS384,HS512" doc:"the JWS algorithms that are accepted"`
	Leeway         time.Duration         `yaml:"leeway" min:"0" doc:"how far clocks may differ, at most 5m; default 30s"`
	PrivilegesFrom oneOrMany[fileSource] `yaml:"privileges_from" doc:"the claims with the privileges; default: privileges"`
	TokenFrom      oneOrMany[filePlace]  `yaml:"token_from" doc:"where tokens may stand in a request; default: header"`
	JWKS           fileJWKS              `yaml:"jwks" doc:"how its keys are fetched"`
	Keys           []fileKey             `yaml:"keys" doc:"static public keys instead"`
	Secret         string                `yaml:"secret" doc:"a shared secret for HS* instead"`
	MaxLifetime    time.Duration         `yaml:"max_lifetime" doc:"the longest that a token may live, from iat to exp"`
	MayGrant       []string              `yaml:"may_grant" doc:"the privileges of its tokens that count; needed on routes with several issuers"`
	Cnf            string                `yaml:"cnf" enum:"ignore" doc:"ignore accepts tokens that are bound to a key as if they were not"`
	Profile        string                `yaml:"profile" enum:"jwt,rfc9068" doc:"rfc9068 asks for what RFC 9068 demands of an access token; default jwt"`
	AcceptIDTokens bool                  `yaml:"accept_id_tokens" doc:"true accepts tokens with nonce, at_hash or c_hash"`
	RequiredClaims requiredClaims        `yaml:"required_claims" doc:"claims that a token must have, and perhaps their values"`
	Introspection  fileIntrospection     `yaml:"introspection" doc:"whether the issuer itself is asked about tokens (RFC 7662)"`
	ActorFrom      oneOrMany[claim]      `yaml:"actor_from" doc:"claims that name who acts in the subject's name where act does not"`
	Mode           string                `yaml:"mode" enum:"enforce,report" doc:"report lets pass what would be refused of its tokens, and tells of it; default: that of the route"`

	BackchannelLogout fileLogout `yaml:"backchannel_logout" doc:"where the issuer tells of sessions that ended (OpenID Connect Back-Channel Logout 1.0)"`
}

// fileLogout is the path of an endpoint, or that with more to say.
type fileLogout struct {
	Path      string   `yaml:"path" need:"where the provider posts logout tokens, such as /backchannel-logout" doc:"where the provider posts logout tokens"`
	Audiences []string `yaml:"audiences" doc:"the client ids that the provider knows the gateway's users by; default: the issuer's audiences and the client_id of introspection"`
	Rate      rate     `yaml:"rate" doc:"how many refused logout tokens one address may send; default 10/1s"`
}

func (l *fileLogout) readNode(r *reader, n *yaml.Node, path string) {
	type plain fileLogout
	if n.Kind == yaml.ScalarNode {
		r.read(n, path, &l.Path)
	} else {
		r.read(n, path, (*plain)(l))
	}
}

type fileJWKS struct {
	URI                webURL        `yaml:"uri" doc:"the URL of the key set; default: by discovery"`
	Refresh            time.Duration `yaml:"refresh" doc:"how often keys are fetched; default 10m"`
	MinRefreshInterval time.Duration `yaml:"min_refresh_interval" doc:"the least time between two fetches; default 30s"`
	MaxStale           time.Duration `yaml:"max_stale" doc:"how long the last good keys serve while the provider is down; default 24h"`
	Snapshot           string        `yaml:"snapshot" doc:"a file that keeps the last good keys over a restart"`
}

type fileIntrospection struct {
	When     string         `yaml:"when" enum:"never,opaque,always" doc:"opaque: about tokens that are no JWT; always: about JWTs, too; default never"`
	Interval time.Duration  `yaml:"interval" doc:"how long an answer holds; default 30s"`
	Endpoint webURL         `yaml:"endpoint" doc:"the URL to ask; default: by discovery"`
	Auth     fileClientAuth `yaml:"auth" doc:"how the gateway shows the provider who it is"`
	OnError  fileStale      `yaml:"on_error" doc:"what holds while the provider cannot be asked"`
	Misses   fileMisses     `yaml:"misses" doc:"a limit of the tokens of one address that the provider is asked about"`
}

type fileMisses struct {
	Rate  rate `yaml:"rate" need:"how many tokens of one address the provider is asked about, such as 50/1s" doc:"COUNT/DURATION, such as 50/1s"`
	Burst int  `yaml:"burst" doc:"how many may come at once; default: the count of the rate"`
}

type fileClientAuth struct {
	Method       string `yaml:"method" enum:"client_secret_basic,client_secret_post,private_key_jwt" doc:"default client_secret_basic"`
	ClientID     string `yaml:"client_id" need:"the name under which the provider knows the gateway" doc:"the name under which the provider knows the gateway"`
	ClientSecret string `yaml:"client_secret" doc:"of client_secret_basic and client_secret_post"`
	KeyFile      string `yaml:"key_file" doc:"of private_key_jwt: a private key in PEM or JWK"`
}

type fileStale struct {
	MaxStale time.Duration `yaml:"max_stale" min:"0" doc:"how much longer an answer holds; default 0s"`
}

type fileKey struct {
	File string `yaml:"file" doc:"a PEM or JWK file"`
	Env  string `yaml:"env" doc:"the name of an environment variable that holds PEM or JWK"`
}

type fileRevocation struct {
	Check        []string      `yaml:"check" enum:"jti,sid,sub,client_id" doc:"the kinds of revocation that are looked up; default all"`
	Mode         string        `yaml:"mode" enum:"lookup,replica" doc:"lookup asks Redis per request, replica keeps a copy; default lookup"`
	Sync         string        `yaml:"sync" enum:"tracking,poll" doc:"how a replica follows Redis; default tracking"`
	PollInterval time.Duration `yaml:"poll_interval" doc:"how often a replica asks with sync: poll; default 1s"`
	OnError      fileOnError   `yaml:"on_error" doc:"what holds while Redis cannot be asked"`
}

type fileOnError struct {
	Then     string        `yaml:"then" enum:"deny,allow" doc:"default deny"`
	MaxStale time.Duration `yaml:"max_stale" doc:"how long a replica decides without Redis; default 5m"`
}

type fileHeaders struct {
	Prefix   string       `yaml:"prefix" doc:"what the names of claim headers begin with; default x-jwt-"`
	Claims   headerClaims `yaml:"claims" doc:"all, or a map of what follows the prefix to the path of a claim; default all"`
	MaxBytes int          `yaml:"max_bytes" doc:"names and values together; default 8192"`
}

type fileLimit struct {
	Key        oneOrMany[limitKey] `yaml:"key" need:"what is counted: ip, route, issuer, claim:PATH or header:NAME" doc:"what is counted apart: ip, route, issuer, claim:PATH, header:NAME, or several together"`
	Rate       rate                `yaml:"rate" need:"how much is let through, such as 100/1m" doc:"COUNT/DURATION, such as 100/1m"`
	Burst      int                 `yaml:"burst" doc:"how many requests may come at once; default: the count of the rate"`
	IPv6Prefix int                 `yaml:"ipv6_prefix" doc:"how many bits of an IPv6 address tell callers apart; default 64"`
	Scope      string              `yaml:"scope" enum:"local,shared" doc:"shared: all gateways on one Redis count together; default local"`
	Lease      int                 `yaml:"lease" doc:"of a shared limit: how many tokens a gateway takes from Redis at once"`
	OnError    string              `yaml:"on_error" enum:"local,allow,deny" doc:"of a shared limit while Redis cannot be asked; default local"`
	Cost       costs               `yaml:"cost" doc:"how many tokens a request takes: a number, or numbers by method; default 1"`
	Tiers      fileTiers           `yaml:"tiers" doc:"rates by a claim's value"`
	Mode       string              `yaml:"mode" enum:"enforce,report" doc:"report admits what would be refused, and tells of it; default: that of the route"`
}

type fileTiers struct {
	By    tierClaim        `yaml:"by" need:"the claim that says a caller's tier, such as claim:plan" doc:"the claim that says a caller's tier, such as claim:plan"`
	Rates map[string]*rate `yaml:"rates" need:"the rates by the claim's value, such as gold: 1000/1m" doc:"the rates by the claim's value"`
}

type fileUpstream struct {
	Targets          []fileTarget         `yaml:"targets" doc:"URLs that serve the same, or maps with url, unix and weight"`
	DNS              fileDNS              `yaml:"dns" doc:"a URL; each address of its host is a target"`
	Eureka           fileEureka           `yaml:"eureka" doc:"the URL of a registry; each instance of an application is a target"`
	TLS              fileUpstreamTLS      `yaml:"tls" doc:"what is asked of https:// targets, and shown to them"`
	Balance          fileBalance          `yaml:"balance" doc:"which target a request goes to: round_robin, least_requests, or a map with hash; default round_robin"`
	SlowStart        time.Duration        `yaml:"slow_start" doc:"how long a target that comes, or comes back, takes until it gets its whole share; default: none"`
	Health           fileHealth           `yaml:"health" doc:"how targets are asked whether they are well; default: they are not"`
	OutlierDetection fileOutlierDetection `yaml:"outlier_detection" doc:"which targets are ejected for how they answer requests; default: none"`
	NoHealthyTarget  string               `yaml:"no_healthy_target" enum:"fail,try_all" doc:"what becomes of requests while no target is healthy: fail refuses them with 503, try_all tries all targets; default fail"`
	ConnectTimeout   time.Duration        `yaml:"connect_timeout" doc:"how long a connection to a target may take, and its TLS handshake once more; default 5s"`
	Timeout          time.Duration        `yaml:"timeout" doc:"how long it may take until the headers of its answer, on routes that do not say"`
	IdleTimeout      time.Duration        `yaml:"idle_timeout" doc:"how long bodies may be silent between two bytes, on routes that do not say"`
	Transport        string               `yaml:"transport" enum:"direct,net_http" doc:"how requests without a body reach http:// targets: direct is Gatehouse's own way, net_http Go's, which all others go; default: that of defaults"`
	MaxRequests      int                  `yaml:"max_requests" doc:"how many requests may be in flight; one more is refused with 503; default any number"`
	Retries          fileRetries          `yaml:"retries" doc:"which requests that failed are sent again, to another target; default: none"`
	CircuitBreaker   fileCircuitBreaker   `yaml:"circuit_breaker" doc:"when it is left alone for a while, since too many requests fail; default: never"`
}

type filePrivilege struct {
	Description string            `yaml:"description" doc:"what it is for"`
	From        oneOrMany[string] `yaml:"from" doc:"the issuers whose tokens give it; default any"`
}

type fileDefaults struct {
	Issuers     []string      `yaml:"issuers" doc:"whose tokens are accepted; default: the file's only issuer"`
	Limits      []string      `yaml:"limits" doc:"the rate limits of routes that name none"`
	Timeout     time.Duration `yaml:"timeout" doc:"how long the backend may take until the headers of its answer; default 10s"`
	IdleTimeout time.Duration `yaml:"idle_timeout" doc:"how long bodies may be silent between two bytes; default 60s"`

	Transport     string `yaml:"transport" enum:"direct,net_http" doc:"how requests without a body reach http:// targets, of upstreams that do not say; default direct"`
	CloseOnExpiry bool   `yaml:"close_on_expiry" doc:"whether what lasts ends with its token; default true"`
	Mode          string `yaml:"mode" enum:"enforce,report" doc:"report lets pass what would be refused, and tells of it; default enforce"`

	MaxBody         size            `yaml:"max_body" doc:"how large a request's body may be, such as 10MiB; default any size"`
	RequestHeaders  fileHeaderEdits `yaml:"request_headers" doc:"changes to the headers that the backend receives"`
	ResponseHeaders fileHeaderEdits `yaml:"response_headers" doc:"changes to the headers that callers receive"`
	CORS            fileCORS        `yaml:"cors" doc:"which pages of other origins may read the answers"`
}

type fileRoute struct {
	Name         string        `yaml:"name" doc:"what logs and metrics call it; default: the match"`
	Match        fileMatch     `yaml:"match" need:"the requests it is for, such as GET /heroes/{id}" doc:"[METHOD[,METHOD]] [host]/path, such as GET /heroes/{id}; or a map"`
	Public       bool          `yaml:"public" doc:"true: everyone may pass, and tokens are neither read nor removed"`
	Auth         string        `yaml:"auth" enum:"required,optional" doc:"optional: a request without a token passes, too; default required"`
	Issuers      []string      `yaml:"issuers" doc:"whose tokens are accepted"`
	Privileges   privileges    `yaml:"privileges" doc:"what a token must grant: a list of which all are needed, or all and any; [] is any valid token"`
	Policy       string        `yaml:"policy" doc:"the file in policies/, without .yaml, which must allow the request, too"`
	Delegation   delegation    `yaml:"delegation" doc:"who may act in another's name: allow, deny, or the actors; default allow"`
	ACR          []string      `yaml:"acr" doc:"the claim acr must be one of these"`
	AMR          privileges    `yaml:"amr" doc:"the claim amr must have all of these, or one of any"`
	MaxAuthAge   time.Duration `yaml:"max_auth_age" doc:"how long ago auth_time may be, in whole seconds"`
	Limits       []string      `yaml:"limits" doc:"the rate limits that all must admit the request"`
	Upstream     fileUpstreams `yaml:"upstream" need:"where its requests go: a name in upstreams, or a URL" doc:"a name in upstreams, or the URL of a single target; or a list of several with weights or conditions"`
	Sticky       hashKey       `yaml:"sticky" doc:"of several upstreams by weight, those with the same claim:PATH, header:NAME or cookie:NAME go to the same one"`
	StripPrefix  string        `yaml:"strip_prefix" doc:"whole segments of the path that the backend does not see"`
	ForwardToken bool          `yaml:"forward_token" doc:"true: the backend receives the token, too"`
	EncodedSlash string        `yaml:"encoded_slash" enum:"refuse,allow" doc:"allow: a path may hold %2f inside a segment; default refuse"`
	IgnoreCase   bool          `yaml:"ignore_case" doc:"true: the backend takes /Heroes for /heroes, and so the match does, too"`
	Timeout      time.Duration `yaml:"timeout" doc:"how long the backend may take until the headers of its answer"`
	IdleTimeout  time.Duration `yaml:"idle_timeout" doc:"how long bodies may be silent between two bytes"`

	CloseOnExpiry bool   `yaml:"close_on_expiry" doc:"whether what lasts ends with its token"`
	Mode          string `yaml:"mode" enum:"enforce,report" doc:"report lets pass what would be refused, and tells of it"`

	MaxBody         size            `yaml:"max_body" doc:"how large a request's body may be, such as 10MiB"`
	AddPrefix       string          `yaml:"add_prefix" doc:"what is put before the path, after strip_prefix"`
	RewriteHost     string          `yaml:"rewrite_host" doc:"the Host that the backend sees; target: its own"`
	RequestHeaders  fileHeaderEdits `yaml:"request_headers" doc:"changes to the headers that the backend receives"`
	ResponseHeaders fileHeaderEdits `yaml:"response_headers" doc:"changes to the headers that callers receive"`
	RewriteCookies  fileCookies     `yaml:"rewrite_cookies" doc:"changes to the backend's Set-Cookie"`
	CORS            fileCORS        `yaml:"cors" doc:"which pages of other origins may read the answers"`
}

// address is a host:port to listen on.
type address struct{ host, port string }

func (a *address) readText(s string) error {
	i := strings.LastIndexByte(s, ':')
	if i >= 0 {
		a.host, a.port = s[:i], s[i+1:]
	}
	inner, bracketed := strings.CutPrefix(a.host, "[")
	if bracketed {
		inner, bracketed = strings.CutSuffix(inner, "]")
	}
	port, err := strconv.ParseUint(a.port, 10, 16)
	if err != nil || strings.Contains(inner, ":") && !bracketed || strings.ContainsAny(inner, "[]/ ") || strconv.FormatUint(port, 10) != a.port {
		return errors.New("want host:port, such as 127.0.0.1:8080, :8080 or [::1]:8080")
	}
	return nil
}

func (a address) String() string { return a.host + ":" + a.port }

// network is a CIDR.
type network struct{ netip.Prefix }

func (n *network) readText(s string) (err error) {
	n.Prefix, err = netip.ParsePrefix(s)
	switch {
	case err != nil:
		return errors.New("want a network such as 10.0.0.0/8, or 10.0.0.1/32 for one address")
	case n.Addr().Is4In6():
		return errors.New("peers are compared by their IPv4 addresses; write it as 10.0.0.0/8")
	case n.Masked() != n.Prefix:
		return errors.New("the address has bits beyond the network's length; write the network's own address, as in 10.0.0.0/8")
	}
	return nil
}

// webURL is an absolute http or https URL.
type webURL struct{ *url.URL }

func (u *webURL) readText(s string) (err error) {
	u.URL, err = parseURL(s, "http", "https")
	return err
}

// parseURL reads an absolute URL of one of the schemes. Errors hold nothing of s.
func parseURL(s string, schemes ...string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || !utf8.ValidString(u.Host) || !slices.Contains(schemes, u.Scheme) || strings.HasSuffix(u.Host, ":") {
		last := len(schemes) - 1
		return nil, fmt.Errorf("want %s:// or %s://, a host, and perhaps a port and a path", strings.Join(schemes[:last], "://, "), schemes[last])
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, errors.New("a port is a number from 1 to 65535")
		}
	}
	switch {
	case u.User != nil:
		return nil, errors.New("a URL here must hold no user name and no password")
	case strings.Contains(s, "#"):
		return nil, errors.New("a URL here must have no fragment (#)")
	}
	return u, nil
}

// plainURL is parseURL for URLs that may have no query either.
func plainURL(s string) (*url.URL, error) {
	u, err := parseURL(s, "http", "https")
	if err == nil && strings.Contains(s, "?") {
		return nil, errors.New("a URL here must have no query (?)")
	}
	return u, err
}

// redisURL is what the Redis client takes.
type redisURL string

func (u *redisURL) readText(s string) error {
	const form = "want redis://[user:password@]host[:port][/database], rediss:// for TLS, unix://[user:password@]/path, " +
		"redis+sentinel://host:port/?master_name=NAME&addr=host:port, or redis+cluster://host:port/?addr=host:port"
	parsed, err := url.Parse(s)
	if err != nil {
		return errors.New(form)
	}
	scheme, topology, _ := strings.Cut(parsed.Scheme, "+")
	switch {
	case parsed.Scheme == "unix":
		if strings.Trim(parsed.Path, "/") == "" {
			return errors.New(form)
		}
	case (scheme == "redis" || scheme == "rediss") && (topology == "" || topology == "sentinel" || topology == "cluster"):
		db := strings.Trim(parsed.Path, "/")
		if _, err := strconv.ParseUint(db, 10, 16); err != nil && db != "" || parsed.Hostname() == "" {
			return errors.New(form)
		}
		if topology == "sentinel" && parsed.Query().Get("master_name") == "" {
			return errors.New("a Sentinel needs the name of the master: redis+sentinel://host:port/?master_name=NAME")
		}
	default:
		return errors.New(form)
	}
	*u = redisURL(s)
	return nil
}

// rate is COUNT/DURATION.
type rate Rate

func (r *rate) readText(s string) error {
	count, per, _ := strings.Cut(s, "/")
	n, errN := strconv.Atoi(count)
	d, errD := time.ParseDuration(per)
	if errN != nil || errD != nil || n <= 0 || d <= 0 {
		return errors.New("want COUNT/DURATION, both above 0, such as 100/1m or 5/1s")
	}
	*r = rate{n, d}
	return nil
}

// size is a number of bytes, perhaps with a unit.
type size int64

func (v *size) readText(s string) error {
	digits := strings.TrimRight(s, "KMGiB")
	n, err := strconv.ParseInt(digits, 10, 64)
	unit, ok := map[string]int64{"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[s[len(digits):]]
	if err != nil || !ok || n <= 0 || n > math.MaxInt64/unit {
		return errors.New("want a number of bytes above 0 with a unit: 512KiB, 10MiB, 2GiB or 1000B")
	}
	*v = size(n * unit)
	return nil
}

// limitKey is ip, route, issuer, claim:PATH or header:NAME.
type limitKey string

func (k *limitKey) readText(s string) error {
	kind, rest, _ := strings.Cut(s, ":")
	switch {
	case kind == "claim" && rest != "":
		if err := claimPath(rest); err != nil {
			return err
		}
	case kind == "header" && strings.EqualFold(rest, "host"):
		return errors.New("Host is no header to a Go server; a route's match can name a host")
	case kind == "header" && isHTTPToken(rest):
	case s != "ip" && s != "route" && s != "issuer":
		return errors.New("want ip, route, issuer, claim:PATH or header:NAME, such as claim:sub")
	}
	*k = limitKey(s)
	return nil
}

// tierClaim is claim:PATH: anything else the caller would choose.
type tierClaim string

func (c *tierClaim) readText(s string) error {
	path, ok := strings.CutPrefix(s, "claim:")
	if !ok {
		return errors.New("want claim:PATH, such as claim:plan; only a verified token may say a caller's tier")
	}
	*c = tierClaim(s)
	return claimPath(path)
}

// costs is a number of tokens, or a map of methods to numbers.
type costs struct {
	all      int
	byMethod map[string]int
}

func (c *costs) readNode(r *reader, n *yaml.Node, path string) {
	if n.Kind != yaml.MappingNode {
		r.read(n, path, &c.all)
		return
	}
	if len(n.Content) == 0 {
		r.fault(path, "%s is an empty map; want a number, or numbers by method", path)
	}
	c.byMethod = map[string]int{}
	r.pairs(n, path, func(key, value *yaml.Node) {
		at := join(path, key.Value)
		if method := key.Value; !isHTTPToken(method) || method != strings.ToUpper(method) {
			r.fault(at, "%q in %s is no method; want upper case, such as POST", method, path)
		}
		if s, ok := r.scalar(value, at, "a whole number"); ok {
			cost, err := strconv.Atoi(s)
			if err != nil || cost < 0 || !r.isType(value, at, "!!int") {
				r.fault(at, "%s is %s; want a whole number of tokens, 0 for free, without quotes", at, r.quote(at, s))
			}
			c.byMethod[key.Value] = cost
		}
	})
}

// claimPath checks a path to a claim: dotted, or a JSON Pointer. The errors
// hold nothing of it.
func claimPath(s string) error {
	if pointer, ok := strings.CutPrefix(s, "/"); ok {
		if strings.Contains(strings.NewReplacer("~0", "", "~1", "").Replace(pointer), "~") {
			return errors.New("in a JSON Pointer a ~ is written ~0 and a slash in a name ~1 (RFC 6901)")
		}
		return nil
	}
	for step := range strings.SplitSeq(s, ".") {
		if step == "" {
			return errors.New("the path to a claim has an empty name; where a name holds a dot, write a JSON Pointer: /a.b")
		}
	}
	return nil
}

// claim is a path to a claim.
type claim string

func (c *claim) readText(s string) error {
	*c = claim(s)
	return claimPath(s)
}

// oneOrMany is a list that may be written as its only item.
type oneOrMany[T any] []T

func (l *oneOrMany[T]) readNode(r *reader, n *yaml.Node, path string) {
	if n.Kind == yaml.SequenceNode {
		r.read(n, path, (*[]T)(l))
		return
	}
	*l = make([]T, 1)
	r.read(n, path, &(*l)[0])
}

// audiences is a list, or any.
type audiences []string

func (a *audiences) readNode(r *reader, n *yaml.Node, path string) {
	if n.Kind == yaml.SequenceNode {
		r.read(n, path, (*[]string)(a))
	} else if s, ok := r.text(n, path); ok && s != "any" {
		r.fault(path, "%s is %s; want a list, or the word any", path, r.quote(path, s))
	}
}

// fileSource is the path to a claim that carries privileges, or that with a prefix.
type fileSource struct {
	Claim  claim  `yaml:"claim" need:"the path to the claim, such as realm_access.roles" doc:"the path to the claim, dotted or a JSON Pointer"`
	Prefix string `yaml:"prefix" doc:"what is put before each value found there"`
}

func (s *fileSource) readNode(r *reader, n *yaml.Node, path string) {
	type plain fileSource
	if n.Kind == yaml.ScalarNode {
		r.read(n, path, &s.Claim)
	} else {
		r.read(n, path, (*plain)(s))
	}
}

// filePlace is one place where tokens may stand.
type filePlace struct {
	Header string `yaml:"header" doc:"the name of a header"`
	Prefix string `yaml:"prefix" doc:"the word before the token in that header"`
	Cookie string `yaml:"cookie" doc:"the name of a cookie"`
	Query  string `yaml:"query" doc:"the name of a query parameter"`

	WebSocketProtocol string `yaml:"websocket_protocol" doc:"the subprotocol after which the token follows"`
}

func (p *filePlace) readNode(r *reader, n *yaml.Node, path string) {
	type plain filePlace
	if n.Kind != yaml.ScalarNode {
		r.read(n, path, (*plain)(p))
	} else if s, ok := r.text(n, path); ok && s != "header" {
		r.fault(path, "%s is %s; want the word header, or a map with header, cookie, query or websocket_protocol, such as cookie: NAME", path, r.quote(path, s))
	} else if ok {
		p.Header = "Authorization"
	}
}

// requiredClaims is a list of paths to claims that must be there, or a map of
// such paths to the values that they may have: one, or a list.
type requiredClaims map[claim][]string

func (c *requiredClaims) readNode(r *reader, n *yaml.Node, path string) {
	*c = requiredClaims{}
	if n.Kind == yaml.SequenceNode {
		var list []claim
		r.read(n, path, &list)
		for _, item := range list {
			(*c)[item] = nil
		}
		return
	}
	if n.Kind == yaml.MappingNode && len(n.Content) == 0 {
		r.fault(path, "%s is an empty map; want at least one claim", path)
		return
	}
	r.pairs(n, path, func(key, value *yaml.Node) {
		at := join(path, key.Value)
		if err := claimPath(key.Value); err != nil {
			r.fault(at, "%s: %v", at, err)
			return
		}
		var values oneOrMany[claimValue]
		r.value(value, at, reflect.ValueOf(&values).Elem(), "")
		for _, v := range values {
			(*c)[claim(key.Value)] = append((*c)[claim(key.Value)], string(v))
		}
	})
}

// claimValue is a string, number or boolean as a token would hold it.
type claimValue string

func (v *claimValue) readNode(r *reader, n *yaml.Node, path string) {
	if s, ok := r.scalar(n, path, "a string, a number, true or false"); ok {
		if s == "" {
			r.fault(path, "%s is an empty string; give a value", path)
		}
		*v = claimValue(s)
	}
}

// headerClaims is a map of header claims, or all.
type headerClaims map[string]fileClaim

func (c *headerClaims) readNode(r *reader, n *yaml.Node, path string) {
	if n.Kind != yaml.ScalarNode {
		r.read(n, path, (*map[string]fileClaim)(c))
	} else if s, ok := r.text(n, path); ok && s != "all" {
		r.fault(path, "%s is %s; want the word all, or a map of header to claim", path, r.quote(path, s))
	}
}

// fileClaim is the path to a claim that becomes a header, or that with more to say.
type fileClaim struct {
	Claim  claim  `yaml:"claim" need:"the path to the claim, such as email" doc:"the path to the claim, dotted or a JSON Pointer"`
	Type   string `yaml:"type" enum:"list" doc:"list: the claim must be a list"`
	Header string `yaml:"header" doc:"the header's whole name"`
}

func (c *fileClaim) readNode(r *reader, n *yaml.Node, path string) {
	type plain fileClaim
	if n.Kind == yaml.ScalarNode {
		r.read(n, path, &c.Claim)
	} else {
		r.read(n, path, (*plain)(c))
	}
}

// privileges is a list, all of which are needed, or a map with all and any.
type privileges struct {
	All []string `yaml:"all" doc:"all of these"`
	Any []string `yaml:"any" doc:"one of these"`
	all string   // the path of All
}

func (p *privileges) readNode(r *reader, n *yaml.Node, path string) {
	type plain privileges
	p.all = path + ".all"
	switch {
	case n.Kind == yaml.SequenceNode && len(n.Content) == 0:
	case n.Kind == yaml.SequenceNode:
		p.all = path
		r.read(n, path, &p.All)
	case n.Kind == yaml.MappingNode:
		r.read(n, path, (*plain)(p))
		if len(n.Content) == 0 {
			r.fault(path, "%s is an empty map; want all or any, or [] for any valid token", path)
		}
	default:
		r.fault(path, "%s is %s; want a list, or a map with all or any", path, describe(n))
	}
}

// delegation is allow, deny, or a map with the actors that may.
type delegation struct {
	Actors []fileActor `yaml:"actors" need:"who may act in another's name, each with a sub and perhaps an iss" doc:"who may act in another's name"`
	deny   bool
}

type fileActor struct {
	Iss string `yaml:"iss" doc:"the actor's issuer; default: that of the token"`
	Sub string `yaml:"sub" need:"the actor's subject" doc:"the actor's subject"`
}

func (d *delegation) readNode(r *reader, n *yaml.Node, path string) {
	type plain delegation
	if n.Kind == yaml.MappingNode {
		r.read(n, path, (*plain)(d))
	} else if n.Kind != yaml.ScalarNode {
		r.fault(path, "%s is %s; want allow, deny, or a map with actors", path, describe(n))
	} else {
		d.deny = r.enum(n, path, []string{"allow", "deny"}) == "deny"
	}
}

// fileMatch is [METHOD[,METHOD]] [host]/path, or the same as a map.
type fileMatch struct {
	Methods []string `yaml:"methods" doc:"upper case; default every method"`
	Host    string   `yaml:"host" doc:"default every host"`
	Path    string   `yaml:"path" need:"a path, such as /heroes/{id}" doc:"with {id}, {rest...} and {$} as in net/http"`
}

func (m *fileMatch) readNode(r *reader, n *yaml.Node, path string) {
	const form = "[METHOD[,METHOD]] [host]/path, such as GET /heroes/{id} or GET,PUT api.example.com/heroes"
	type plain fileMatch
	if n.Kind == yaml.MappingNode {
		r.read(n, path, (*plain)(m))
		return
	}
	s, ok := r.scalar(n, path, form)
	if !ok {
		return
	}
	words := strings.Fields(s)
	slash := -1
	if len(words) == 1 || len(words) == 2 {
		slash = strings.IndexByte(words[len(words)-1], '/')
	}
	if slash < 0 {
		r.fault(path, "%s is %s; want %s", path, r.quote(path, s), form)
		return
	}
	if len(words) == 2 {
		m.Methods = strings.Split(words[0], ",")
	}
	last := words[len(words)-1]
	m.Host, m.Path = last[:slash], last[slash:]
}
