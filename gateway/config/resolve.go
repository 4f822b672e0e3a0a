package config

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// config turns the file into a configuration: defaults, references, and every
// rule that looks at more than one value.
func (r *reader) config(f *fileConfig) *Config {
	c := &Config{
		Version:   1,
		Server:    r.server(&f.Server),
		Redis:     r.redis(&f.Redis),
		Issuers:   map[string]*Issuer{},
		Limits:    map[string]*Limit{},
		Upstreams: map[string]*Upstream{},
		source:    r.source,
	}
	if r.ok("version") && f.Version != 1 {
		r.fault("version", "version is %d; 1 is the only one there is", f.Version)
	}
	c.Headers = r.headers(&f.Headers)
	for name, issuer := range f.Issuers {
		c.Issuers[name] = r.issuer(name, issuer, &c.Headers)
	}
	r.distinctIssuers(c.Issuers)
	for name, limit := range f.Limits {
		c.Limits[name] = r.limit(name, limit, &c.Headers)
	}
	for name, upstream := range f.Upstreams {
		c.Upstreams[name] = r.namedUpstream(name, upstream, &c.Headers)
	}
	r.privileges(f.Privileges, c)
	c.Revocation = r.revocation(&f.Revocation)
	r.distinctLogouts(c)
	c.Defaults = Defaults{
		Issuers:     f.Defaults.Issuers,
		Limits:      f.Defaults.Limits,
		Timeout:     or(f.Defaults.Timeout, 10*time.Second),
		IdleTimeout: or(f.Defaults.IdleTimeout, time.Minute),

		Transport:     or(f.Defaults.Transport, "direct"),
		CloseOnExpiry: f.Defaults.CloseOnExpiry || !r.has("defaults.close_on_expiry"),
		Mode:          or(f.Defaults.Mode, "enforce"),
	}
	c.Defaults.MaxBody = int64(f.Defaults.MaxBody)
	c.Defaults.RequestHeaders = r.requestEdits("defaults.request_headers", &f.Defaults.RequestHeaders, &c.Headers)
	c.Defaults.CORS = r.cors("defaults.cors", &f.Defaults.CORS)
	c.Defaults.ResponseHeaders = r.responseEdits("defaults.response_headers", &f.Defaults.ResponseHeaders, &c.Headers, c.Defaults.CORS != nil)
	r.routes(f.Routes, c)
	r.tests(f.Tests, c)
	return c
}

func (r *reader) server(f *fileServer) Server {
	s := Server{
		Listen: ":8080", TLS: r.tls("server.tls", &f.TLS),
		MaxConnections:    or(f.MaxConnections, 50_000),
		ReadHeaderTimeout: or(f.ReadHeaderTimeout, 10*time.Second),
		IdleTimeout:       or(f.IdleTimeout, 2*time.Minute),
		WriteTimeout:      or(f.WriteTimeout, 30*time.Second),
	}
	if r.has("server.decision") {
		s.Listen = ""
	}
	if r.ok("server.listen") {
		s.Listen = f.Listen.String()
	}
	if r.ok("server.status") {
		s.Status = f.Status.String()
	}
	if r.has("server.auth_failures") {
		s.AuthFailures = &AuthFailures{Rate(f.AuthFailures.Rate), f.AuthFailures.Burst}
	}
	if s.Listen == s.Status && s.Listen != "" && f.Status.port != "0" {
		r.fault("server.status", "server.status is the address of server.listen; the status pages would be public, give them another port")
	}
	r.admin(f, &s)
	r.decision(f, &s)
	s.Audit = r.audit(&f.Audit)
	s.AccessLog = AccessLog(f.AccessLog)
	s.Tracing = r.tracing(&f.Tracing)
	for i, n := range f.TrustedProxies {
		if n.IsValid() {
			s.TrustedProxies = append(s.TrustedProxies, n.Prefix)
			if slices.Contains(f.TrustedProxies[:i], n) {
				r.fault(index("server.trusted_proxies", i), "%s stands twice in server.trusted_proxies", r.quote(index("server.trusted_proxies", i), n.String()))
			}
		}
	}
	return s
}

func (r *reader) revocation(f *fileRevocation) Revocation {
	if !r.has("revocation") {
		return Revocation{}
	}
	if !r.has("redis") {
		r.fault("revocation", "revocation needs Redis, where withdrawn tokens are written down; add redis with its url")
	}
	r.distinct("revocation.check", f.Check)
	v := Revocation{Check: f.Check, Mode: or(f.Mode, "lookup"), OnError: or(f.OnError.Then, "deny")}
	if v.Mode == "replica" {
		v.Sync, v.PollInterval, v.MaxStale = or(f.Sync, "tracking"), or(f.PollInterval, time.Second), or(f.OnError.MaxStale, 5*time.Minute)
		if r.has("revocation.poll_interval") && v.Sync != "poll" {
			r.fault("revocation.poll_interval", "revocation.poll_interval means something with sync: poll only")
		}
	} else {
		for _, key := range []string{"on_error.max_stale", "sync", "poll_interval"} {
			if at := "revocation." + key; r.has(at) {
				r.fault(at, "%s means nothing in lookup mode, which remembers nothing that could grow stale: an outage takes effect at once; leave it out, or say mode: replica", at)
			}
		}
	}
	if v.Check == nil {
		v.Check = []string{"jti", "sid", "sub", "client_id"}
	}
	return v
}

func (r *reader) redis(f *fileRedis) Redis {
	c := Redis{URL: string(f.URL), Username: f.Username, Password: f.Password, Replicas: f.Replicas}
	if f.CAFile != "" {
		c.CAFile = r.resolvePath(f.CAFile)
		if r.ok("redis.url") && !strings.HasPrefix(c.URL, "rediss") {
			r.fault("redis.ca_file", "redis.ca_file goes with TLS only, and redis.url says none; write rediss://")
		}
	}
	return c
}

func (r *reader) limit(name string, f *fileLimit, h *Headers) *Limit {
	path := "limits." + name
	if !isName(name) {
		r.fault(path, "limit name %q: want letters, digits, - and _", name)
	}
	l := &Limit{
		Name: name, Rate: Rate(f.Rate), Burst: f.Burst, IPv6Prefix: or(f.IPv6Prefix, 64), TierBy: string(f.Tiers.By),
		Cost: or(f.Cost.all, 1), Costs: f.Cost.byMethod, Shared: f.Scope == "shared", Lease: f.Lease, Mode: f.Mode,
	}
	for _, key := range f.Key {
		l.Key = append(l.Key, string(key))
	}
	r.distinct(path+".key", l.Key)
	r.limitKeys(path+".key", l.Key, h)
	if l.IPv6Prefix > 128 {
		r.fault(path+".ipv6_prefix", "%s.ipv6_prefix is %d; an address has 128 bits", path, l.IPv6Prefix)
	}
	least := or(l.Burst, l.Rate.Count)
	if f.Tiers.Rates != nil {
		l.Tiers = map[string]Rate{}
	}
	for value, rate := range f.Tiers.Rates {
		l.Tiers[value] = Rate(*rate)
		if l.Burst == 0 {
			least = min(least, rate.Count)
		}
	}
	r.costs(path, l, least)
	if !l.Shared {
		for _, key := range []string{"lease", "on_error"} {
			if r.has(path + "." + key) {
				r.fault(path+"."+key, "%s.%s means something for a shared limit only; say scope: shared, or leave it out", path, key)
			}
		}
		return l
	}
	l.OnError = or(f.OnError, "local")
	if !r.has("redis") {
		r.fault(path+".scope", "%s is shared, and the file has no redis; add redis with its url", path)
	}
	if l.Lease > least {
		r.fault(path+".lease", "%s.lease is %d, more than the %d tokens of a full bucket; take a small part of it", path, l.Lease, least)
	}
	return l
}

// limitKeys faults keys that count nobody: what the gateway sets for backends,
// and what differs with each request or grows with each proxy.
func (r *reader) limitKeys(path string, keys []string, h *Headers) {
	for i, key := range keys {
		at := path
		if r.has(index(path, i)) {
			at = index(path, i)
		}
		r.fromCaller(at, key, h)
		name, _ := strings.CutPrefix(key, "header:")
		switch fold(name) {
		case "x-forwarded-for", "forwarded":
			r.fault(at, "%s is %s, which begins with whatever the caller writes into it; count by ip, which is found there where a trusted proxy sent it", at, r.quote(at, key))
		case "x-request-id", "traceparent", "tracestate":
			r.fault(at, "%s is %s, which differs with each request, so that it counts nobody", at, r.quote(at, key))
		}
	}
}

// costs faults a cost that no bucket ever holds: such a request would never be admitted.
func (r *reader) costs(path string, l *Limit, least int) {
	if least <= 0 { // a rate or burst at fault
		return
	}
	if l.Cost > least {
		r.fault(path+".cost", "%s.cost is %d, more than the %d tokens of a full bucket, so no request would be admitted", path, l.Cost, least)
	}
	for method, cost := range l.Costs {
		if at := path + ".cost." + method; cost > least {
			r.fault(at, "%s is %d, more than the %d tokens of a full bucket, so no such request would be admitted", at, cost, least)
		}
	}
}

// distinct faults what stands twice in a list.
func (r *reader) distinct(path string, list []string) {
	seen := map[string]bool{}
	each(path, list, func(at, item string) {
		if seen[item] {
			r.fault(at, "%s stands twice in %s", r.quote(at, item), path)
		}
		seen[item] = true
	})
}

// lookup returns what the list's names refer to, and faults unknown ones.
func lookup[T any](r *reader, kind, path string, names []string, known map[string]*T) []*T {
	r.distinct(path, names)
	var found []*T
	each(path, names, func(at, name string) {
		if item, ok := known[name]; ok {
			if !slices.Contains(found, item) {
				found = append(found, item)
			}
		} else {
			unknown(r, kind, at, name, known)
		}
	})
	return found
}

// unknown faults a name that refers to nothing.
func unknown[T any](r *reader, kind, path, name string, known map[string]*T) {
	section := kind + "s"
	if r.bad[section] {
		return
	}
	hint := fmt.Sprintf("; the file has no %s", section)
	if near, ok := r.nearest(name, maps.Keys(known)); ok {
		hint = fmt.Sprintf("; did you mean %q?", near)
	} else if len(known) > 0 {
		hint = fmt.Sprintf("; the file has %s", listing(known))
	}
	r.fault(path, "unknown %s %s in %s%s", kind, r.quote(path, name), strings.TrimRight(path, "[0123456789]"), hint)
}

// listing names the keys of m, or says how many there are.
func listing[T any](m map[string]*T) string {
	if len(m) > 8 {
		return fmt.Sprintf("%d others", len(m))
	}
	return strings.Join(slices.Sorted(maps.Keys(m)), ", ")
}

func or[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

func isName(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}

// isLoopback says whether a URL's host is this machine, where clear text
// crosses no network.
func isLoopback(u *url.URL) bool {
	host := u.Hostname()
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
