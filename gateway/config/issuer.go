package config

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const maxLeeway = 5 * time.Minute

var publicKeyAlgorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// secretBytes is how long a secret must be: as long as the hash (RFC 7518 §3.2).
var secretBytes = map[string]int{"HS256": 32, "HS384": 48, "HS512": 64}

func (r *reader) issuer(name string, f *fileIssuer, headers *Headers) *Issuer {
	path := "issuers." + name
	if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		r.fault(path, "issuer name %q: want lower-case letters, digits and -, since it is a part of revocation keys", name)
	}
	i := &Issuer{
		Name:        name,
		Insecure:    f.Insecure,
		Audiences:   f.Audiences,
		Leeway:      f.Leeway,
		JWKS:        JWKS{Refresh: f.JWKS.Refresh, MinRefreshInterval: f.JWKS.MinRefreshInterval, MaxStale: f.JWKS.MaxStale},
		Secret:      f.Secret,
		MaxLifetime: f.MaxLifetime,
		MayGrant:    f.MayGrant,
		IgnoreCnf:   f.Cnf == "ignore",

		Profile:        or(f.Profile, "jwt"),
		AcceptIDTokens: f.AcceptIDTokens,
		Mode:           f.Mode,
	}
	if i.Profile == "rfc9068" {
		if r.ok(path+".audiences") && f.Audiences == nil {
			r.fault(path+".audiences", "%s.audiences is any, and profile rfc9068 demands that aud be checked (RFC 9068 §4); name the audiences", path)
		}
		if f.AcceptIDTokens {
			r.fault(path+".accept_id_tokens", "%s.accept_id_tokens contradicts profile rfc9068, whose tokens say by their typ that they are access tokens", path)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.RequiredClaims)) {
		i.RequiredClaims = append(i.RequiredClaims, RequiredClaim{string(name), f.RequiredClaims[name]})
	}
	for n, path := range f.ActorFrom {
		i.ActorFrom = append(i.ActorFrom, string(path))
		if slices.Contains(f.ActorFrom[:n], path) && path != "" {
			at := index("issuers."+name+".actor_from", n)
			r.fault(at, "%s stands twice in issuers.%s.actor_from", r.quote(at, string(path)), name)
		}
	}
	if f.Issuer != "none" {
		i.Issuer = f.Issuer
	}
	r.distinct(path+".audiences", f.Audiences)
	r.distinct(path+".may_grant", f.MayGrant)
	if !r.has(path + ".leeway") {
		i.Leeway = 30 * time.Second
	} else if i.Leeway > maxLeeway {
		r.fault(path+".leeway", "%s.leeway is above 5m; so late a token is not late but expired, mend the clocks", path)
	}
	r.issuerURL(path, f)
	r.issuerKeys(path, f, i)
	r.algorithms(path, f, i)
	i.Introspection = r.introspection(path, f)
	i.BackchannelLogout = r.backchannelLogout(path, f, i)
	i.PrivilegesFrom = r.privilegesFrom(path+".privileges_from", f.PrivilegesFrom)
	i.TokenFrom = r.tokenFrom(path+".token_from", f.TokenFrom, headers)
	return i
}

func (r *reader) issuerURL(path string, f *fileIssuer) {
	static := r.has(path+".keys") || r.has(path+".secret")
	at := path + ".issuer"
	switch {
	case !r.ok(at):
	case f.Issuer == "none":
		if !static {
			r.fault(at, "%s is none, so there is nobody to fetch keys from; give keys or a secret", at)
		}
	case !strings.Contains(f.Issuer, "://") && (static || r.has(path+".jwks.uri")):
		// Nothing is fetched from it, and RFC 7519 §4.1.1 allows any string.
	default:
		if u, err := plainURL(f.Issuer); err != nil {
			r.fault(at, "%s is %s: %v", at, r.quote(at, f.Issuer), err)
		} else {
			r.secure(at, u, f.Insecure)
		}
	}
	if at := path + ".jwks.uri"; r.ok(at) && f.JWKS.URI.URL != nil {
		r.secure(at, f.JWKS.URI.URL, f.Insecure)
	}
}

// secure faults http to another machine: whoever is in between could give his own keys.
func (r *reader) secure(path string, u *url.URL, insecure bool) {
	if u.Scheme == "http" && !insecure && !isLoopback(u) {
		r.fault(path, "%s is %s: over http:// anyone in between could give his own keys; use https://, or say insecure: true", path, r.quote(path, u.String()))
	}
}

// issuerKeys reads where the issuer's keys come from: exactly one of keys,
// secret, and jwks with or without discovery.
func (r *reader) issuerKeys(path string, f *fileIssuer, i *Issuer) {
	keys, secret, jwks := path+".keys", path+".secret", path+".jwks"
	switch {
	case r.has(secret) && r.has(keys):
		r.fault(secret, "%s has a secret and keys; with a secret nothing else verifies its tokens, make two issuers", path)
	case r.has(secret) && r.has(jwks):
		r.fault(jwks, "%s has a secret, so no keys are fetched; leave out jwks", path)
	case r.has(keys) && r.has(jwks):
		r.fault(jwks, "%s has static keys, so none are fetched: a key that the provider withdrew would verify for ever; leave out jwks or keys", path)
	case f.Issuer == "none" && r.has(jwks):
		r.fault(jwks, "%s says issuer: none, so no keys are fetched; leave out jwks", path)
	}
	for n, key := range f.Keys {
		at := index(keys, n)
		file, env := r.has(at+".file"), r.has(at+".env")
		switch {
		case r.bad[at]:
		case file == env:
			r.fault(at, "%s needs exactly one of file and env", at)
		case file && key.File != "":
			i.Keys = append(i.Keys, Key{File: r.resolvePath(key.File)})
			if slices.Contains(f.Keys[:n], key) {
				r.fault(at+".file", "%s stands twice in %s", r.quote(at+".file", key.File), keys)
			}
		case env && key.Env != "":
			text, ok := r.env(key.Env)
			if !ok || text == "" {
				r.fault(at+".env", "the environment variable %s of %s is not set or empty", r.quote(at+".env", key.Env), at)
			}
			i.Keys = append(i.Keys, Key{Text: text})
		}
	}
	if f.JWKS.URI.URL != nil {
		i.JWKS.URI = f.JWKS.URI.String()
	}
	if f.JWKS.Snapshot != "" {
		i.JWKS.Snapshot = filepath.Clean(r.fromDir(f.JWKS.Snapshot))
	}
	j := &i.JWKS
	j.Refresh, j.MinRefreshInterval, j.MaxStale = or(j.Refresh, 10*time.Minute), or(j.MinRefreshInterval, 30*time.Second), or(j.MaxStale, 24*time.Hour)
	if r.bad[jwks+".refresh"] || r.bad[jwks+".min_refresh_interval"] || r.bad[jwks+".max_stale"] {
		return
	}
	if j.MinRefreshInterval > j.Refresh {
		r.fault(r.first(jwks+".min_refresh_interval", jwks+".refresh"), "%s: min_refresh_interval (%s) is longer than refresh (%s)", jwks, j.MinRefreshInterval, j.Refresh)
	}
	if j.Refresh > j.MaxStale {
		r.fault(r.first(jwks+".max_stale", jwks+".refresh"), "%s: max_stale (%s) is shorter than refresh (%s), so keys would be dropped between two fetches", jwks, j.MaxStale, j.Refresh)
	}
}

// introspection reads how an issuer is asked about its tokens.
func (r *reader) introspection(path string, f *fileIssuer) Introspection {
	at, in := path+".introspection", &f.Introspection
	if in.When == "" || in.When == "never" { // the other keys may stay while it is off
		return Introspection{}
	}
	i := Introspection{
		When: in.When, Interval: or(in.Interval, 30*time.Second), MaxStale: in.OnError.MaxStale,
		Auth:   ClientAuth{or(in.Auth.Method, "client_secret_basic"), in.Auth.ClientID, in.Auth.ClientSecret, ""},
		Misses: Misses{Rate{50, time.Second}, 200},
	}
	if r.has(at + ".misses") {
		i.Misses = Misses{Rate(in.Misses.Rate), in.Misses.Burst}
	}
	if u := in.Endpoint.URL; u != nil {
		i.Endpoint = u.String()
		if e := at + ".endpoint"; r.ok(e) && u.Scheme == "http" && !f.Insecure && !isLoopback(u) {
			r.fault(e, "%s is %s: over http:// anyone in between could read live tokens, and say that any token is good; use https://, or say insecure: true", e, r.quote(e, i.Endpoint))
		}
	} else if !r.has(at+".endpoint") && (r.has(path+".keys") || r.has(path+".secret") || r.has(path+".jwks.uri") || f.Issuer == "none") {
		r.lacks(at, "%s needs an endpoint: without discovery nothing else says where to ask", at)
	}
	auth := at + ".auth"
	if !r.has(auth) {
		r.lacks(at, "%s needs auth: a provider answers only clients that it knows (RFC 7662 §2.1)", at)
	}
	if !r.ok(auth) || r.bad[auth+".method"] {
		return i
	}
	needed, idle := "client_secret", "key_file"
	if i.Auth.Method == "private_key_jwt" {
		needed, idle = idle, needed
	}
	if !r.has(auth + "." + needed) {
		r.lacks(auth, "%s needs %s, with which %s works", auth, needed, i.Auth.Method)
	}
	if idle := auth + "." + idle; r.has(idle) {
		r.fault(idle, "%s means nothing to %s; leave it out, or change the method", idle, i.Auth.Method)
	}
	if in.Auth.KeyFile != "" {
		i.Auth.KeyFile = r.resolvePath(in.Auth.KeyFile)
	}
	return i
}

// backchannelLogout reads where an issuer tells of sessions that ended.
func (r *reader) backchannelLogout(path string, f *fileIssuer, i *Issuer) BackchannelLogout {
	at := path + ".backchannel_logout"
	where := r.first(at+".path", at)
	l := BackchannelLogout{f.BackchannelLogout.Path, f.BackchannelLogout.Audiences, Rate(f.BackchannelLogout.Rate)}
	if !r.ok(where) || l.Path == "" {
		return BackchannelLogout{}
	}
	if l.Rate.Count == 0 {
		l.Rate = Rate{10, time.Second}
	}
	r.distinct(at+".audiences", l.Audiences)
	// A path that can be written in more than one way would be one in the file
	// and another in a request.
	err := checkLiteralPath(l.Path)
	switch plain := strings.Trim(l.Path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/") == ""; {
	case !strings.HasPrefix(l.Path, "/"):
		r.fault(where, "%s is %s; a path begins with /", where, r.quote(where, l.Path))
	case !plain:
		r.fault(where, "%s is %s; want letters, digits and - . _ ~ between slashes, such as /backchannel-logout", where, r.quote(where, l.Path))
	case err != nil:
		r.fault(where, "%s is %s: %v", where, r.quote(where, l.Path), err)
	case f.Issuer == "none":
		r.fault(where, "%s has issuer: none, and a logout token always names its issuer (OpenID Connect Back-Channel Logout §2.4)", path)
	}
	switch {
	case r.has(at + ".audiences"):
	case i.Audiences != nil:
		l.Audiences = slices.Clone(i.Audiences)
		if id := i.Introspection.Auth.ClientID; id != "" && !slices.Contains(l.Audiences, id) {
			l.Audiences = append(l.Audiences, id)
		}
	case r.ok(path + ".audiences"):
		r.fault(where, "%s needs audiences, since %s.audiences is any: a logout token is meant for one client, whose client_id its aud must hold (OpenID Connect Back-Channel Logout §2.6)", at, path)
	}
	return l
}

// distinctLogouts faults two endpoints on one path, and those whose revocations
// no gateway would look up.
func (r *reader) distinctLogouts(c *Config) {
	first := map[string]string{}
	for _, name := range inOrder(&r.source, "issuers", c.Issuers) {
		path := c.Issuers[name].BackchannelLogout.Path
		at := "issuers." + name + ".backchannel_logout"
		where := r.first(at+".path", at)
		if path == "" || r.bad[where] {
			continue
		}
		if other, ok := first[path]; ok {
			r.fault(where, "%s is the path of issuers.%s too (line %d); give each issuer its own, so that a logout token has one reading", where, other, r.At("issuers."+other+".backchannel_logout").Line)
			continue
		}
		first[path] = name
		switch {
		case r.has("server.decision") && !r.has("server.listen"):
			r.fault(where, "%s is served on server.listen, which is off beside server.decision unless the file gives it an address", at)
		case !r.has("revocation"):
			r.fault(where, "%s needs revocation: what it writes to Redis is looked up there; add redis with its url, and revocation: {}", at)
		case r.ok("revocation") && r.ok(r.first("revocation.check", "revocation")):
			for _, kind := range []string{"sid", "sub"} {
				if !slices.Contains(c.Revocation.Check, kind) {
					r.fault(where, "%s revokes by sid and sub, and revocation.check (line %d) does not list %s: a logout would be written down and nobody would look; add it", at, r.At("revocation.check").Line, kind)
				}
			}
		}
	}
}

// oneAsked faults a route with several issuers that are asked about opaque
// tokens: nothing says whose such a token is, and each provider would be shown
// the others' live tokens.
func (r *reader) oneAsked(path string, route *Route) {
	first := ""
	for _, i := range route.Issuers {
		switch {
		case !i.Introspection.Enabled():
		case first == "":
			first = i.Name
		default:
			at := r.first(path+".issuers", path)
			r.fault(at, "%s takes tokens of %s and of %s, which both introspect opaque tokens; nothing in such a token says whose it is, and one provider would see the other's live tokens. Make two routes, or turn one off", path, first, i.Name)
			return
		}
	}
}

// first returns the first of two paths if the file has it, else the second.
func (r *reader) first(a, b string) string {
	if r.has(a) {
		return a
	}
	return b
}

func (r *reader) algorithms(path string, f *fileIssuer, i *Issuer) {
	secret := r.has(path + ".secret")
	switch {
	case r.has(path + ".algorithms"):
		i.Algorithms = f.Algorithms
	case secret:
		i.Algorithms = []string{"HS256"}
	default:
		i.Algorithms = slices.Clone(publicKeyAlgorithms)
	}
	r.distinct(path+".algorithms", f.Algorithms)
	each(path+".algorithms", f.Algorithms, func(at, alg string) {
		switch hmac := secretBytes[alg] > 0; {
		case hmac && !secret:
			r.fault(at, "%s needs a secret, and %s has none; with a public key in its place anyone could sign", alg, path)
		case !hmac && secret:
			r.fault(at, "%s has a secret, which verifies HS256, HS384 and HS512 only, not %s", path, alg)
		}
	})
	for _, alg := range i.Algorithms {
		if r.ok(path+".secret") && len(i.Secret) < secretBytes[alg] {
			r.fault(path+".secret", "%s.secret is too short for %s: it needs at least %d bytes (RFC 7518 §3.2)", path, alg, secretBytes[alg])
		}
	}
}

func (r *reader) privilegesFrom(path string, list []fileSource) []ClaimSource {
	if !r.has(path) {
		return []ClaimSource{{Claim: "privileges"}}
	}
	var sources []ClaimSource
	seen := map[string]bool{}
	for n, s := range list {
		at := index(path, n)
		if s.Claim == "" {
			continue
		}
		switch {
		case seen[s.Prefix] && s.Prefix == "":
			r.fault(at, "%s: all sources of privileges but one need a prefix, as in claim: scope and prefix: \"scope:\"; a client may choose its scopes, and must not choose its roles so", at)
		case seen[s.Prefix]:
			r.fault(at+".prefix", "%s.prefix is %s, the prefix of another source too", at, r.quote(at+".prefix", s.Prefix))
		}
		seen[s.Prefix] = true
		sources = append(sources, ClaimSource{string(s.Claim), s.Prefix})
	}
	return sources
}

func (r *reader) tokenFrom(path string, list []filePlace, headers *Headers) []TokenSource {
	if !r.has(path) {
		return []TokenSource{{Header: "Authorization", Prefix: "Bearer"}}
	}
	var places []TokenSource
	for n, p := range list {
		at := index(path, n)
		source := TokenSource{Header: http.CanonicalHeaderKey(p.Header), Prefix: p.Prefix, Cookie: p.Cookie, Query: p.Query, WebSocketProtocol: p.WebSocketProtocol}
		if source.Header == "Authorization" && source.Prefix == "" {
			source.Prefix = "Bearer"
		}
		named := 0
		for _, s := range []string{p.Header, p.Cookie, p.Query, p.WebSocketProtocol} {
			if s != "" {
				named++
			}
		}
		if named == 0 && (r.bad[at] || r.bad[path] || r.bad[at+".header"] || r.bad[at+".cookie"] || r.bad[at+".query"] || r.bad[at+".websocket_protocol"]) {
			continue
		}
		switch folded := fold(p.Header); {
		case named != 1:
			r.fault(at, "%s needs exactly one of header, cookie, query and websocket_protocol", at)
		case p.Prefix != "" && p.Header == "":
			r.fault(at+".prefix", "%s.prefix goes with a header only", at)
		case p.Prefix != "" && !isHTTPToken(p.Prefix):
			r.fault(at+".prefix", "%s.prefix is %s: want one word, such as Bearer", at, r.quote(at+".prefix", p.Prefix))
		case p.Cookie != "" && !isHTTPToken(p.Cookie):
			r.fault(at+".cookie", "%s.cookie is %s: want the name of a cookie (RFC 6265 §4.1.1)", at, r.quote(at+".cookie", p.Cookie))
		case p.WebSocketProtocol != "" && !isHTTPToken(p.WebSocketProtocol):
			r.fault(at+".websocket_protocol", "%s.websocket_protocol is %s: want the name of a subprotocol (RFC 6455 §4.1), such as access_token", at, r.quote(at+".websocket_protocol", p.WebSocketProtocol))
		case p.Header != "" && !isHTTPToken(p.Header):
			r.fault(at+".header", "%s.header is %s: want the name of a header (RFC 9110 §5.1)", at, r.quote(at+".header", p.Header))
		case folded == "cookie":
			r.fault(at+".header", "%s.header is %s: for a cookie write cookie: and its name", at, r.quote(at+".header", p.Header))
		case p.Header != "" && folded != "authorization" && isOwned(folded):
			r.fault(at+".header", "%s.header is %s, which HTTP or the gateway uses itself", at, r.quote(at+".header", p.Header))
		case p.Header != "" && headers.owns(folded):
			r.fault(at+".header", "%s.header is %s, a header that the gateway sets for backends and drops from callers", at, r.quote(at+".header", p.Header))
		case slices.Contains(places, source):
			r.fault(at, "%s is there twice", at)
		}
		places = append(places, source)
	}
	return places
}

// distinctIssuers faults issuers with one iss value, since the gateway could not
// tell whose token it has, and those with one snapshot of keys.
func (r *reader) distinctIssuers(issuers map[string]*Issuer) {
	names, files := map[string]string{}, map[string]string{}
	for _, name := range inOrder(&r.source, "issuers", issuers) {
		iss, at := issuers[name].Issuer, "issuers."+name+".issuer"
		if other, ok := names[iss]; ok && iss != "" {
			r.fault(at, "%s is the same as that of %s (line %d); a token's iss must tell one from the other", at, other, r.At("issuers."+other+".issuer").Line)
		} else {
			names[iss] = name
		}
		file, at := issuers[name].JWKS.Snapshot, "issuers."+name+".jwks.snapshot"
		if other, ok := files[file]; ok && file != "" {
			r.fault(at, "%s is the same file as that of %s (line %d); each would overwrite the other's keys", at, other, r.At("issuers."+other+".jwks.snapshot").Line)
		} else {
			files[file] = name
		}
	}
}

// mayGrant checks a route with several issuers: each must say which privileges
// it may grant, or the weakest of them could grant all.
func (r *reader) mayGrant(path string, route *Route, f *fileRoute) {
	anonymous := 0
	var who []string
	for _, i := range route.Issuers {
		who = append(who, i.Name)
		if i.Issuer == "" {
			anonymous++
		}
		if at := "issuers." + i.Name; !r.has(at+".may_grant") && !r.bad[at] {
			r.fault(at, "%s needs may_grant, the privileges that its tokens may carry, since %s (line %d) takes tokens of several issuers", at, path, r.At(path).Line)
		}
	}
	if anonymous > 1 {
		r.fault(r.first(path+".issuers", path), "%s has several issuers that say issuer: none; their tokens cannot be told from each other", path)
	}
	grants := func(i *Issuer, privilege string) bool {
		return slices.Contains(i.MayGrant, privilege) || slices.Contains(i.MayGrant, "") || !r.ok("issuers."+i.Name+".may_grant")
	}
	unreachable := func(at, privilege string) {
		if slices.ContainsFunc(route.Issuers, func(i *Issuer) bool { return grants(i, privilege) }) {
			return
		}
		hint := "; add it to the may_grant of one"
		if near, ok := r.nearest(privilege, r.grantable(route.Issuers)); ok {
			hint = fmt.Sprintf("; did you mean %q?", near)
		}
		r.fault(at, "no issuer of %s (%s) may grant %s%s", path, strings.Join(who, ", "), r.quote(at, privilege), hint)
	}
	faults := len(r.faults)
	each(f.Privileges.all, f.Privileges.All, unreachable)
	each(path+".privileges.any", f.Privileges.Any, unreachable)
	if len(r.faults) > faults || slices.ContainsFunc(route.Issuers, func(i *Issuer) bool {
		granted := func(privilege string) bool { return grants(i, privilege) }
		return !slices.ContainsFunc(route.All, func(p string) bool { return !granted(p) }) &&
			(len(route.Any) == 0 || slices.ContainsFunc(route.Any, granted))
	}) {
		return
	}
	r.fault(path+".privileges", "no one issuer of %s (%s) may grant all that it asks for, so nobody could pass", path, strings.Join(who, ", "))
}

// grantable yields the privileges that the file itself, not its environment, lets the issuers grant.
func (r *reader) grantable(issuers []*Issuer) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for _, i := range issuers {
			for n, p := range i.MayGrant {
				if _, ok := r.written[index("issuers."+i.Name+".may_grant", n)]; !ok && p != "" && !yield(p) {
					return
				}
			}
		}
	}
}
