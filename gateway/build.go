package gateway

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"gatehouse/gateway/config"
	"gatehouse/gateway/internal/inject"
	"gatehouse/gateway/internal/issuer"
	"gatehouse/gateway/internal/limit"
	"gatehouse/gateway/internal/revoke"
	"gatehouse/gateway/internal/route"
	"gatehouse/gateway/internal/upstream"
	"gatehouse/gateway/policy"
	"gatehouse/gateway/token"
)

// builder turns a configuration into a snapshot. It is the only place that
// knows both the file and the parts.
type builder struct {
	cfg     *config.Config
	old     *snapshot // parts that did not change are taken from here; may be nil
	metrics *metrics
	cache   *issuer.Cache
	log     *slog.Logger
	// transient leaves the issuers' snapshot files as they are: another user's
	// command must not replace what a running gateway reads and writes.
	transient bool
	// offline leaves out whatever would ask somebody: shared limits count here,
	// and revocations are not known.
	offline bool
	faults  config.Faults
}

// build starts nothing and changes nothing of old; what it returns is to be
// closed. The error is config.Faults.
func (b *builder) build() (*snapshot, error) {
	if b.old == nil {
		b.old = &snapshot{}
	}
	s := &snapshot{
		config:     b.cfg,
		proxies:    b.cfg.Server.TrustedProxies,
		issuers:    map[string]*part[issuerOptions, *issuer.Issuer]{},
		limits:     map[string]*part[limitOptions, *limit.Limiter]{},
		upstreams:  map[string]*part[upstreamOptions, *upstream.Pool]{},
		registries: map[string]*upstream.Eureka{},
		pairs:      map[config.Certificate]*watched[tls.Certificate]{},
		policies:   map[string]*policy.Compiled{},
		actors:     map[string]policy.ActorClaims{},
		grants:     map[string]*grants{},
		drained:    make(chan struct{}),
	}
	s.tokenHeaders = tokenHeaders(b.cfg.Issuers)
	b.injection(s)
	b.serverTLS(s)
	b.redis(s)
	b.authFailures(s)
	b.adminAuth(s)
	for name, c := range b.cfg.Issuers {
		b.issuer(s, name, c)
	}
	for name, c := range b.cfg.Limits {
		b.limit(s, name, c)
	}
	for _, c := range b.cfg.Upstreams {
		b.upstream(s, c)
	}
	patterns := make([]route.Pattern, len(b.cfg.Routes))
	for i, c := range b.cfg.Routes {
		patterns[i] = route.Pattern{Methods: c.Match.Methods, Host: c.Match.Host, Path: c.Match.Path, EncodedSlash: c.EncodedSlash, IgnoreCase: c.IgnoreCase}
	}
	var errs []error
	s.table, errs = route.New(patterns)
	for i, err := range errs {
		if err != nil {
			b.fault(fmt.Sprintf("routes[%d].match", i), err)
		}
	}
	b.logouts(s)
	for _, name := range slices.Sorted(maps.Keys(b.cfg.Policies)) {
		s.policies[name] = b.policy(b.cfg.Policies[name])
	}
	for i, c := range b.cfg.Routes {
		if p := s.policies[c.Policy]; p != nil {
			b.parameters(fmt.Sprintf("routes[%d].policy", i), c, p)
		}
	}
	b.tests()
	b.privileges(s)
	if err := b.faults.Err(); err != nil {
		b.abandon(s)
		return nil, err
	}
	for _, c := range b.cfg.Routes {
		s.routes = append(s.routes, b.route(s, c))
	}
	b.revocation(s)
	b.audit(s)
	b.tracing(s)
	s.hold()
	return s, nil
}

// abandon closes what was made for a configuration that turned out to be at fault.
func (b *builder) abandon(s *snapshot) {
	if s.redis != nil && s.redis != b.old.redis {
		_ = s.redis.value.Close()
	}
}

func (b *builder) fault(path string, err error) {
	b.faults = append(b.faults, b.cfg.Faultf(path, "%v", err))
}

// carry returns old if it was built from the same options, else what make makes.
func carry[O, T any](old *part[O, T], options O, make func() (T, error)) (*part[O, T], error) {
	if old != nil && reflect.DeepEqual(old.options, options) {
		return old, nil
	}
	value, err := make()
	return &part[O, T]{options: options, value: value}, err
}

func (b *builder) injection(s *snapshot) {
	c := b.cfg.Headers
	o := inject.Options{Prefix: c.Prefix, MaxBytes: c.MaxBytes, Tokens: s.tokenHeaders}
	if c.Claims != nil {
		o.Claims = map[string]inject.Claim{}
	}
	for suffix, h := range c.Claims {
		path, err := token.ParsePath(h.Claim)
		if err != nil {
			b.fault("headers.claims."+suffix, err)
			continue
		}
		o.Claims[suffix] = inject.Claim{Path: path, List: h.Type == "list", Header: h.Header}
	}
	var err error
	if s.inject, err = inject.New(o); err != nil {
		b.fault("headers", err)
	}
}

// issuerOptions are what an issuer is made from.
type issuerOptions struct {
	issuer.Options
	misses config.Misses
}

func (b *builder) issuer(s *snapshot, name string, c *config.Issuer) {
	at := "issuers." + name
	o := issuer.Options{
		Name: name, Issuer: c.Issuer, Insecure: c.Insecure,
		Audiences: c.Audiences, Algorithms: c.Algorithms, Leeway: c.Leeway, MaxLifetime: c.MaxLifetime,
		Profile: c.Profile, AcceptIDTokens: c.AcceptIDTokens, IgnoreCnf: c.IgnoreCnf,
		JWKSURI: c.JWKS.URI, Refresh: c.JWKS.Refresh, MinRefreshInterval: c.JWKS.MinRefreshInterval, MaxStale: c.JWKS.MaxStale, Snapshot: c.JWKS.Snapshot, SnapshotReadOnly: b.transient,
	}
	for _, required := range c.RequiredClaims {
		path, err := token.ParsePath(required.Claim)
		if err != nil {
			b.fault(at+".required_claims", err)
			continue
		}
		o.RequiredClaims = append(o.RequiredClaims, issuer.RequiredClaim{Path: path, Values: required.Values})
	}
	if c.Secret != "" {
		o.Secret = []byte(c.Secret)
	}
	for _, source := range c.PrivilegesFrom {
		path, err := token.ParsePath(source.Claim)
		if err != nil {
			b.fault(at+".privileges_from", err)
			continue
		}
		o.PrivilegesFrom = append(o.PrivilegesFrom, issuer.PrivilegeSource{Path: path, Prefix: source.Prefix})
	}
	for i, key := range c.Keys {
		text, err := readKey(key)
		if err != nil {
			b.fault(fmt.Sprintf("%s.keys[%d]", at, i), err)
			continue
		}
		o.StaticKeys = append(o.StaticKeys, text)
	}
	s.actors[name] = b.actors(at, c)
	if len(o.StaticKeys) < len(c.Keys) {
		return
	}
	if in := c.Introspection; in.Enabled() {
		o.Introspection = &issuer.Introspection{
			Always: in.When == "always", Interval: in.Interval, Endpoint: in.Endpoint, MaxStale: in.MaxStale,
			Auth: issuer.ClientAuth{Method: in.Auth.Method, ClientID: in.Auth.ClientID, Secret: in.Auth.ClientSecret},
		}
		if in.Auth.KeyFile != "" {
			var err error
			if o.Introspection.Auth.Key, err = readKey(config.Key{File: in.Auth.KeyFile}); err != nil {
				b.fault(at+".introspection.auth.key_file", err)
				return
			}
		}
	}
	p, err := carry(b.old.issuers[name], issuerOptions{o, c.Introspection.Misses}, func() (_ *issuer.Issuer, err error) {
		o := o
		o.Log, o.Cache = b.log, b.cache
		if old := b.old.issuers[name]; old != nil {
			o.From = old.value
		}
		if c.Introspection.Enabled() {
			if o.Admit, err = misses(name, c.Introspection.Misses); err != nil {
				return nil, err
			}
		}
		if b.metrics != nil {
			fetches := b.metrics.fetches
			o.OnWait = waits(name)
			o.OnFetch = func(kind string, err error) { fetches.WithLabelValues(name, kind, outcome(err)).Inc() }
		}
		return issuer.New(o)
	})
	if err != nil {
		b.fault(at, err)
		return
	}
	s.issuers[name] = p
}

func readKey(key config.Key) ([]byte, error) {
	if key.File == "" {
		return []byte(key.Text), nil
	}
	text, err := readSmall(key.File)
	if err != nil {
		return nil, fmt.Errorf("cannot read the key: %w", err)
	}
	return text, nil
}

func (b *builder) limit(s *snapshot, name string, c *config.Limit) {
	o := limit.Options{
		Name: name, Keys: c.Key, Rate: limit.Rate(c.Rate), Burst: c.Burst, IPv6Prefix: c.IPv6Prefix,
		TierBy: c.TierBy, Cost: c.Cost, Costs: c.Costs, Mode: limit.Mode(c.Mode),
	}
	if c.Tiers != nil {
		o.Tiers = map[string]limit.Tier{}
	}
	for value, rate := range c.Tiers {
		o.Tiers[value] = limit.Tier{Rate: limit.Rate(rate), Burst: c.Burst}
	}
	shared := c.Shared && !b.offline
	if shared {
		if s.store == nil {
			return // redis is at fault
		}
		o.Lease, o.OnError = c.Lease, limit.OnError(c.OnError)
	}
	// What is compared holds plain values only: a live store must not be looked into.
	options := limitOptions{Options: o, shared: shared}
	if shared {
		options.database = redisDatabase(b.cfg.Redis)
	}
	p, err := carry(b.old.limits[name], options, func() (*limit.Limiter, error) {
		o := o
		if shared {
			o.Store = s.store.value
		}
		return limit.New(o)
	})
	if err != nil {
		b.fault("limits."+name, err)
		return
	}
	s.limits[name] = p
}

func (b *builder) authFailures(s *snapshot) {
	c := b.cfg.Server.AuthFailures
	if c == nil {
		return
	}
	o := limit.FailureOptions{Rate: limit.Rate(c.Rate), Burst: c.Burst}
	p, err := carry(b.old.failures, o, func() (*limit.Failures, error) { return limit.NewFailures(o) })
	if err != nil {
		b.fault("server.auth_failures", err)
		return
	}
	s.failures = p
}

// adminOptions are what the guard of the admin listener is made from.
type adminOptions struct {
	admin string
	auth  config.AdminAuth
	token string // what stands in the file: a reload takes a new one up
}

func (b *builder) adminAuth(s *snapshot) {
	c := b.cfg.Server
	if c.Admin == "" {
		return
	}
	o := adminOptions{admin: c.Admin, auth: c.AdminAuth}
	if file := c.AdminAuth.TokenFile; file != "" {
		text, err := readKey(config.Key{File: file})
		if err != nil {
			b.fault("server.admin_auth.token_file", err)
			return
		}
		o.token = strings.TrimSpace(string(text))
	}
	p, err := carry(b.old.admin, o, func() (*adminAuth, error) { return newAdminAuth(o, c.AdminOnLoopback()) })
	if err != nil {
		b.fault("server.admin_auth.token_file", err)
		return
	}
	s.admin = p
}

// tracing connects to nothing: the collector is sent its first spans when there are some.
func (b *builder) tracing(s *snapshot) {
	c := b.cfg.Server.Tracing
	if c == nil || b.metrics == nil {
		return // off, or for a command that serves nobody
	}
	s.tracing, _ = carry(b.old.tracing, *c, func() (*tracing, error) { return newTracing(*c, b.log, b.metrics), nil })
}

// audit opens nothing: the file is opened by its first record.
func (b *builder) audit(s *snapshot) {
	c := b.cfg.Server.Audit
	if c == nil || b.metrics == nil {
		return // without a file, or for a command that serves nobody
	}
	s.audit, _ = carry(b.old.audit, *c, func() (*auditLog, error) { return newAuditLog(*c, b.log, b.metrics.auditErrors), nil })
}

// redis makes the client, which connects when it is first asked, and the store
// of shared limits on it. A store that is carried over goes on with the old
// client until the reload is sure.
func (b *builder) redis(s *snapshot) {
	c := b.cfg.Redis
	if c.URL == "" {
		return
	}
	options, err := redisConnection(c)
	if err == nil {
		s.redis, err = carry(b.old.redis, options, func() (redis.UniversalClient, error) { return newRedis(options) })
	}
	if err != nil {
		b.fault("redis", err)
		s.redis = nil
		return
	}
	s.store, _ = carry(b.old.store, redisDatabase(c), func() (*limit.Store, error) {
		o := limit.StoreOptions{Client: s.redis.value, Replicas: c.Replicas}
		if b.metrics != nil {
			fallbacks, log := b.metrics.fallbacks, b.log
			o.OnFallback = func(_ string, how limit.OnError, _ error) { fallbacks.WithLabelValues("limits", string(how)).Inc() }
			o.OnState = func(up bool) {
				if up {
					log.Info("Redis answers again; shared limits count together")
				} else {
					log.Warn("Redis does not answer; shared limits go by on_error")
				}
			}
		}
		return limit.NewStore(o), nil
	})
}

// limitOptions are what a limit is made from.
type limitOptions struct {
	limit.Options
	shared   bool
	database string
}

// revocation knows which tokens were withdrawn: a [revoke.Lookup] or a
// [revoke.Replica]. The error is a *token.Error.
type revocation interface {
	Check(ctx context.Context, v *token.Verified) error
}

// revocationOptions are what it is made from.
type revocationOptions struct {
	redis redisOptions
	config.Revocation
}

func (b *builder) revocation(s *snapshot) {
	c := b.cfg.Revocation
	if !c.Enabled() || b.offline {
		return
	}
	s.revocation, _ = carry(b.old.revocation, revocationOptions{s.redis.options, c}, func() (revocation, error) {
		o := revoke.Options{
			Client: s.redis.value, Database: redisDatabase(b.cfg.Redis), Allow: c.OnError == "allow",
			Sync: revoke.Sync(c.Sync), PollInterval: c.PollInterval, MaxStale: c.MaxStale,
		}
		for _, kind := range c.Check {
			o.Check = append(o.Check, revoke.Kind(kind))
		}
		log := b.log
		if b.metrics != nil {
			fallbacks := b.metrics.fallbacks.WithLabelValues("revocation", c.OnError)
			o.OnError = func(err error) {
				fallbacks.Inc()
				log.Debug("revocations cannot be asked about", "posture", c.OnError, "error", err)
			}
		}
		if c.Mode == "lookup" {
			return revoke.NewLookup(o), nil
		}
		o.OnChange = func(h revoke.Health) {
			level := slog.LevelInfo
			if !h.InStep || h.Warning != "" {
				level = slog.LevelWarn
			}
			log.Log(context.Background(), level, "the replica of revocations", "in_step", h.InStep, "mode", string(h.Mode), "entries", h.Entries, "warning", h.Warning, "error", h.Err)
		}
		if b.old.revocation != nil {
			o.From, _ = b.old.revocation.value.(*revoke.Replica)
		}
		return revoke.NewReplica(o), nil
	})
}

func (b *builder) route(s *snapshot, c *config.Route) *builtRoute {
	rt := &builtRoute{
		name:           c.Name,
		public:         c.Public,
		optional:       c.Optional,
		severalIssuers: len(c.Issuers) > 1,
		privilegesFrom: map[string]string{},
		scope:          map[string]string{},
		require:        policy.Requirement{All: c.All, Any: c.Any},
		delegation:     delegationOf(c.Delegation),
		stepUp:         stepUpOf(c.StepUp),
		policy:         s.policies[c.Policy],
		pattern:        c.Match.Path,
		traces:         slices.Contains(c.Match.Methods, http.MethodTrace),
		to:             b.destinations(s, c),
		introspects:    slices.ContainsFunc(c.Issuers, func(i *config.Issuer) bool { return i.Introspection.Enabled() }),
		forwardToken:   c.ForwardToken,
		maxBody:        c.MaxBody,
		closeOnExpiry:  c.CloseOnExpiry,
		rewrite:        newRewrite(c),
		cors:           newCORS(c.CORS, c.Match),
		report:         cmp.Or(c.Mode, b.cfg.Defaults.Mode) == "report",
		reports:        map[string]bool{},
	}
	for _, i := range c.Issuers {
		if i.Mode != "" { // what is said to be enforced is, whoever says it
			rt.reports[i.Name] = i.Mode == "report" && c.Mode != "enforce"
		}
		rt.privilegesFrom[i.Name] = sourceText(i.PrivilegesFrom)
		if asScopes(i, c) {
			rt.scope[i.Name] = strings.Join(c.All, " ")
		}
		for _, from := range i.TokenFrom {
			rt.addPlace(tokenSource(from), s.issuers[i.Name].value)
		}
	}
	for _, l := range c.Limits {
		limiter := s.limits[l.Name].value
		if limiter.NeedsClaims() && !c.Public { // on a public route nothing more is ever known than before
			rt.limits.after = append(rt.limits.after, limiter)
		} else {
			rt.limits.before = append(rt.limits.before, limiter)
		}
	}
	return rt
}

// addPlace lets the issuer's tokens stand in source, too.
func (rt *builtRoute) addPlace(source token.Source, i *issuer.Issuer) {
	for n := range rt.places {
		if rt.places[n].source == source {
			rt.places[n].issuers = append(rt.places[n].issuers, i)
			return
		}
	}
	rt.places = append(rt.places, place{source, issuer.Set{i}})
}

func tokenSource(c config.TokenSource) token.Source {
	switch {
	case c.Cookie != "":
		return token.Cookie{Name: c.Cookie}
	case c.Query != "":
		return token.Query{Name: c.Query}
	case c.WebSocketProtocol != "":
		return token.WebSocketProtocol{Marker: c.WebSocketProtocol}
	}
	return token.Header{Name: c.Header, Prefix: c.Prefix}
}

// tokenHeaders lists the headers in which tokens of some issuer may stand.
func tokenHeaders(issuers map[string]*config.Issuer) []string {
	var names []string
	for _, i := range issuers {
		for _, from := range i.TokenFrom {
			switch s := tokenSource(from).(type) {
			case token.Header:
				names = append(names, s.Name)
			case token.Cookie:
				names = append(names, "Cookie")
			case token.WebSocketProtocol:
				names = append(names, "Sec-Websocket-Protocol")
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func sourceText(sources []config.ClaimSource) string {
	names := make([]string, len(sources))
	for i, s := range sources {
		names[i] = s.Claim
	}
	return strings.Join(names, ", ")
}

// asScopes says whether the route's privileges are OAuth scopes to that
// issuer, so that a challenge may name them (RFC 6750 §3): an all-list, read
// from a scope claim alone, of words that are scope tokens (RFC 6749 §3.3).
func asScopes(i *config.Issuer, c *config.Route) bool {
	from := i.PrivilegesFrom
	if len(c.All) == 0 || len(c.Any) > 0 || len(from) != 1 || from[0].Prefix != "" || from[0].Claim != "scp" && from[0].Claim != "scope" {
		return false
	}
	for _, p := range c.All {
		for _, ch := range []byte(p) {
			if ch <= 0x20 || ch >= 0x7f || ch == '"' || ch == '\\' {
				return false
			}
		}
	}
	return true
}

// upstreamOptions are what an upstream is made from.
type upstreamOptions struct {
	config.Upstream
	authorities string // the text of tls.ca_file
}

// upstream builds each upstream once, however many routes lead there.
func (b *builder) upstream(s *snapshot, c *config.Upstream) *upstream.Pool {
	if p := s.upstreams[c.Name]; p != nil {
		return p.value
	}
	tlsConfig, authorities := b.upstreamTLS(s, c)
	if c.Eureka != nil {
		b.registry(s, c.Eureka) // for later ones to find, even if this upstream is carried over
	}
	options := upstreamOptions{*c, string(authorities)}
	options.Timeout, options.IdleTimeout = 0, 0 // which are its routes' matter
	options.Transport = cmp.Or(c.Transport, b.cfg.Defaults.Transport)
	s.upstreams[c.Name], _ = carry(b.old.upstreams[c.Name], options, func() (*upstream.Pool, error) {
		o := upstream.Options{
			Name: c.Name, TLS: tlsConfig, Balance: upstream.Balance(c.Balance), SlowStart: c.SlowStart,
			TryAll: c.NoHealthyTarget == "try_all", Log: b.log, NetHTTP: options.Transport == "net_http", ConnectTimeout: c.ConnectTimeout, MaxRequests: c.MaxRequests,
		}
		if source := b.source(s, c); source != nil {
			o.Source = source
		}
		for _, t := range c.Targets {
			dial := ""
			if t.Unix != "" {
				dial = "unix:" + t.Unix
			}
			o.Targets = append(o.Targets, upstream.Target{URL: t.URL, Dial: dial, Weight: t.Weight})
		}
		if h := c.Health; h != nil {
			o.Health = &upstream.Health{
				Path: h.Path, Host: h.Host, Interval: h.Interval, Timeout: h.Timeout, Healthy: h.Healthy, Unhealthy: h.Unhealthy,
			}
			for _, e := range h.Expect {
				o.Health.Expect = append(o.Health.Expect, upstream.StatusRange(e))
			}
		}
		if d := c.OutlierDetection; d != nil {
			o.Outliers = new(upstream.Outliers(*d))
		}
		if c.Retries != nil {
			o.Retries = retries(c.Retries)
		}
		if c.CircuitBreaker != nil {
			o.Breaker = new(upstream.Breaker(*c.CircuitBreaker))
		}
		return upstream.New(o), nil
	})
	return s.upstreams[c.Name].value
}

// source makes what tells an upstream of its targets; nil if the file does.
func (b *builder) source(s *snapshot, c *config.Upstream) source {
	log := b.log.With("upstream", c.Name)
	switch {
	case c.DNS != nil:
		return upstream.NewDNS(upstream.DNSOptions{
			URL: c.DNS.URL, SRV: c.DNS.SRV, Family: c.DNS.Family, Resolvers: c.DNS.Resolvers, MinTTL: c.DNS.MinTTL, MaxTTL: c.DNS.MaxTTL, Log: log,
		})
	case c.Eureka != nil:
		return b.registry(s, c.Eureka).App(upstream.EurekaAppOptions{App: c.Eureka.App, Scheme: c.Eureka.Scheme, PreferIP: c.Eureka.PreferIP, Log: log})
	}
	return nil
}

// registry is one for all upstreams that name the same servers in the same
// way, so that these are asked once for all of them, over reloads too.
func (b *builder) registry(s *snapshot, c *config.Eureka) *upstream.Eureka {
	urls := make([]string, len(c.URLs))
	for i, u := range c.URLs {
		urls[i] = u.String()
	}
	key := c.Interval.String() + " " + strings.Join(urls, " ")
	if s.registries[key] == nil {
		s.registries[key] = b.old.registries[key]
	}
	if s.registries[key] == nil {
		s.registries[key] = upstream.NewEureka(upstream.EurekaOptions{URLs: c.URLs, Interval: c.Interval})
	}
	return s.registries[key]
}

func retries(c *config.Retries) *upstream.Retries {
	r := &upstream.Retries{NumRetries: c.NumRetries, PerTryTimeout: c.PerTryTimeout, BudgetPercent: c.BudgetPercent}
	for _, on := range c.On {
		switch on {
		case "connect_failure":
			r.ConnectFailure = true
		case "reset":
			r.Reset = true
		default:
			status, _ := strconv.Atoi(on) // of three that config knows
			r.Statuses = append(r.Statuses, status)
		}
	}
	return r
}
