package config

import (
	"errors"
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
		Redis:     Redis{string(f.Redis.URL)},
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
		c.Limits[name] = r.limit(name, limit)
	}
	for name, upstream := range f.Upstreams {
		path := "upstreams." + name
		if !isName(name) {
			r.fault(path, "upstream name %q: want letters, digits, - and _", name)
		}
		c.Upstreams[name] = &Upstream{name, r.targets(path+".targets", upstream.Targets)}
	}
	c.Revocation = r.revocation(&f.Revocation)
	c.Defaults = Defaults{
		Issuers:     f.Defaults.Issuers,
		Limits:      f.Defaults.Limits,
		Timeout:     or(f.Defaults.Timeout, 10*time.Second),
		IdleTimeout: or(f.Defaults.IdleTimeout, time.Minute),
	}
	r.routes(f.Routes, c)
	return c
}

func (r *reader) server(f *fileServer) Server {
	s := Server{Listen: ":8080"}
	if r.ok("server.listen") {
		s.Listen = f.Listen.String()
	}
	if r.ok("server.status") {
		s.Status = f.Status.String()
	}
	if s.Listen == s.Status && f.Status.port != "0" {
		r.fault("server.status", "server.status is the address of server.listen; the status pages would be public, give them another port")
	}
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
	v := Revocation{Check: f.Check, OnError: or(f.OnError.Then, "deny")}
	if v.Check == nil {
		v.Check = []string{"jti", "sid", "sub", "client_id"}
	}
	return v
}

func (r *reader) limit(name string, f *fileLimit) *Limit {
	path := "limits." + name
	if !isName(name) {
		r.fault(path, "limit name %q: want letters, digits, - and _", name)
	}
	l := &Limit{Name: name, Rate: Rate(f.Rate), Burst: or(f.Burst, f.Rate.Count)}
	for _, key := range f.Key {
		l.Key = append(l.Key, string(key))
	}
	r.distinct(path+".key", l.Key)
	return l
}

// targets checks the URLs of an upstream.
func (r *reader) targets(path string, urls []webURL) []*url.URL {
	var list []*url.URL
	seen := map[string]bool{}
	for i, u := range urls {
		if u.URL == nil {
			continue
		}
		at, key := index(path, i), u.String()
		if err := r.target(u.URL); err != nil {
			r.fault(at, "%s is %s: %v", at, r.quote(at, key), err)
		} else if key = strings.TrimSuffix(key, "/"); seen[key] {
			r.fault(at, "%s is %s, which stands there twice", at, r.quote(at, key))
		}
		seen[key] = true
		list = append(list, u.URL)
	}
	return list
}

func (r *reader) target(u *url.URL) error {
	if u.RawQuery != "" || u.ForceQuery {
		return errors.New("a target must have no query (?)")
	}
	return checkLiteralPath(u.EscapedPath())
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
