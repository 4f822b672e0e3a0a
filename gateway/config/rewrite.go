package config

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

type fileHeaderEdits struct {
	Set    map[string]string `yaml:"set" doc:"replaces headers"`
	Add    map[string]string `yaml:"add" doc:"puts lines beside what is there"`
	Remove []string          `yaml:"remove" doc:"takes headers away"`
}

type fileCookies struct {
	Domain map[string]string `yaml:"domain" doc:"Domain attributes, by the whole name"`
	Path   map[string]string `yaml:"path" doc:"Path attributes, by the longest beginning in whole segments"`
}

type fileCORS struct {
	AllowOrigins     []string      `yaml:"allow_origins" need:"the origins whose pages may call it, such as https://app.example.com" doc:"origins as browsers write them, with * as the first label, or * for every page"`
	AllowHeaders     []string      `yaml:"allow_headers" doc:"what a page's request may carry; default Authorization, Content-Type"`
	ExposeHeaders    []string      `yaml:"expose_headers" doc:"what a page may read of the answer"`
	AllowCredentials bool          `yaml:"allow_credentials" doc:"whether the browser's cookies and certificates may go along"`
	MaxAge           time.Duration `yaml:"max_age" min:"0" doc:"how long a browser need not ask again"`
}

// framing are headers that say where a message ends or how the connection goes
// on; a rewrite that touched one would forge messages. All folded.
var framing = map[string]bool{
	"connection": true, "keep-alive": true, "te": true, "trailer": true, "transfer-encoding": true, "upgrade": true, "content-length": true,
	"proxy-connection": true, "host": true, "expect": true, "http2-settings": true,
}

// requestEdits reads request_headers: nothing in it may touch what the gateway
// tells backends.
func (r *reader) requestEdits(path string, f *fileHeaderEdits, h *Headers) HeaderEdits {
	return r.edits(path, f, func(folded string) string {
		switch {
		case folded == "host":
			return "is no header to rewrite here; say rewrite_host"
		case framing[folded]:
			return "belongs to HTTP: it says how the message is framed"
		case h.owns(folded):
			return "is what the gateway tells backends of the caller (headers)"
		case folded == "forwarded" || folded == "x-real-ip" || folded == "x-request-id" || folded == "traceparent" || folded == "tracestate" ||
			strings.HasPrefix(folded, "x-forwarded-") || folded == "client-cert" || strings.HasPrefix(folded, "client-cert-"):
			return "is set by the gateway itself"
		case folded == "x-original-url" || folded == "x-rewrite-url":
			return "tells some backends of another path than the one that was authorised, and is dropped"
		}
		return ""
	})
}

// responseEdits reads response_headers.
func (r *reader) responseEdits(path string, f *fileHeaderEdits, h *Headers, cors bool) HeaderEdits {
	return r.edits(path, f, func(folded string) string {
		switch {
		case framing[folded]:
			return "belongs to HTTP: it says how the message is framed"
		case strings.HasPrefix(folded, h.Prefix):
			return "begins with headers.prefix, and is never sent to callers"
		case cors && strings.HasPrefix(folded, "access-control-"):
			return "is set by cors"
		}
		return ""
	})
}

func (r *reader) edits(path string, f *fileHeaderEdits, forbidden func(folded string) string) HeaderEdits {
	var e HeaderEdits
	if !r.has(path) {
		return e
	}
	if f.Set == nil && f.Add == nil && f.Remove == nil && r.ok(path) {
		r.fault(path, "%s changes nothing; give it set, add or remove", path)
	}
	seen := map[string]string{}
	check := func(at, name string) (string, bool) {
		if !isHTTPToken(name) {
			r.fault(at, "%s: %q is no name of a header (RFC 9110 §5.1)", path, name)
			return "", false
		}
		if why := forbidden(fold(name)); why != "" {
			r.fault(at, "%s cannot change %s: it %s", path, name, why)
			return "", false
		}
		canonical := http.CanonicalHeaderKey(name)
		if other, twice := seen[canonical]; twice {
			r.fault(at, "%s changes %s twice, as %s and as %s", path, canonical, other, at)
			return "", false
		}
		seen[canonical] = at
		return canonical, true
	}
	for _, kind := range []struct {
		key  string
		from map[string]string
		to   *map[string]string
	}{{"set", f.Set, &e.Set}, {"add", f.Add, &e.Add}} {
		for _, name := range inOrder(&r.source, path+"."+kind.key, kind.from) {
			at := path + "." + kind.key + "." + name
			canonical, ok := check(at, name)
			if !ok {
				continue
			}
			if value := kind.from[name]; strings.ContainsFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
				r.fault(at, "%s holds a control character, which would end the header (RFC 9110 §5.5)", at)
				continue
			}
			if *kind.to == nil {
				*kind.to = map[string]string{}
			}
			(*kind.to)[canonical] = kind.from[name]
		}
	}
	each(path+".remove", f.Remove, func(at, name string) {
		if canonical, ok := check(at, name); ok {
			e.Remove = append(e.Remove, canonical)
		}
	})
	return e
}

// addPrefix returns the prefix without its last slash.
func (r *reader) addPrefix(path, prefix string) string {
	trimmed := strings.TrimSuffix(prefix, "/")
	err := checkLiteralPath(trimmed)
	if !strings.HasPrefix(prefix, "/") || trimmed == "" {
		err = errors.New("want whole segments, such as /v2")
	}
	if err != nil {
		r.fault(path, "%s is %s: %v", path, r.quote(path, prefix), err)
	}
	return trimmed
}

// rewriteHost is target, or a host and perhaps a port.
func (r *reader) rewriteHost(path, host string) string {
	if host == "" || host == "target" {
		return host
	}
	u, err := url.Parse("http://" + host)
	if err != nil || u.Host != host || u.Hostname() == "" || strings.HasSuffix(host, ":") {
		r.fault(path, "%s is %s; want the word target, or a host and perhaps a port, such as heroes.internal:8080", path, r.quote(path, host))
	}
	return host
}

func (r *reader) cookies(path string, f *fileCookies) Cookies {
	if r.ok(path) && f.Domain == nil && f.Path == nil {
		r.fault(path, "%s changes nothing; give it domain or path", path)
	}
	c := Cookies{Path: f.Path}
	for _, from := range inOrder(&r.source, path+".domain", f.Domain) {
		at, to := path+".domain."+from, f.Domain[from]
		for _, domain := range []string{from, to} {
			if err := checkHost(strings.ToLower(domain)); err != nil || domain == "" {
				r.fault(at, "%s: want domains without a port or a dot in front, such as heroes.internal: api.example.com", at)
				break
			}
		}
		if c.Domain == nil {
			c.Domain = map[string]string{}
		}
		c.Domain[strings.ToLower(from)] = strings.ToLower(to)
	}
	for _, from := range inOrder(&r.source, path+".path", f.Path) {
		at := path + ".path." + from
		for _, p := range []string{from, f.Path[from]} {
			if err := checkLiteralPath(strings.TrimSuffix(p, "/")); err != nil || !strings.HasPrefix(p, "/") || strings.ContainsAny(p, ";,") {
				r.fault(at, "%s: want paths that begin with /, such as /: /heroes-service", at)
				break
			}
		}
	}
	return c
}

func (r *reader) cors(path string, f *fileCORS) *CORS {
	if !r.has(path) {
		return nil
	}
	c := &CORS{
		AllowOrigins: f.AllowOrigins, AllowHeaders: f.AllowHeaders, ExposeHeaders: f.ExposeHeaders, AllowCredentials: f.AllowCredentials, MaxAge: f.MaxAge,
	}
	if c.AllowHeaders == nil {
		c.AllowHeaders = []string{"Authorization", "Content-Type"}
	}
	r.distinct(path+".allow_origins", f.AllowOrigins)
	each(path+".allow_origins", f.AllowOrigins, func(at, origin string) {
		switch {
		case origin == "*" && f.AllowCredentials:
			r.fault(at, "%s lets pages of every origin call with the user's cookies, as if they were his (allow_credentials); name the origins", path)
		case origin == "*" && len(f.AllowOrigins) > 1:
			r.fault(at, "%s: beside * no other origin means anything", path)
		case origin != "*":
			if err := checkOrigin(origin); err != nil {
				r.fault(at, "%s is %s: %v", at, r.quote(at, origin), err)
			}
		}
	})
	for _, list := range []struct {
		key   string
		names []string
	}{{"allow_headers", f.AllowHeaders}, {"expose_headers", f.ExposeHeaders}} {
		each(path+"."+list.key, list.names, func(at, name string) {
			if !isHTTPToken(name) {
				r.fault(at, "%s is %s, no name of a header", at, r.quote(at, name))
			}
			// Fetch §3.2.3: a browser takes * literally there once credentials are sent.
			if name == "*" && f.AllowCredentials {
				r.fault(at, "%s: * means nothing to a browser beside allow_credentials; name the headers", at)
			}
		})
	}
	if c.MaxAge%time.Second != 0 {
		r.fault(path+".max_age", "%s.max_age is %s; want whole seconds", path, c.MaxAge)
	}
	return c
}

// checkOrigin checks an origin as browsers write it (RFC 6454 §6.2), with
// perhaps a * as its first label.
func checkOrigin(origin string) error {
	u, err := url.Parse(strings.Replace(origin, "://*.", "://", 1))
	switch {
	case err != nil || !slices.Contains([]string{"http", "https"}, u.Scheme) || u.Host == "" || strings.HasSuffix(u.Host, ":") || u.User != nil || strings.ContainsAny(u.Host, "*"):
		return errors.New("want a scheme, a host and perhaps a port, such as https://app.example.com or https://*.example.com")
	case u.Path != "" || u.RawQuery != "" || strings.ContainsAny(origin, "?#"):
		return errors.New("an origin has no path, not even a slash at its end")
	case origin != strings.ToLower(origin):
		return errors.New("browsers write origins in lower case")
	case u.Scheme == "http" && u.Port() == "80" || u.Scheme == "https" && u.Port() == "443":
		return errors.New("browsers leave out the scheme's own port")
	case strings.Contains(origin, "*") && !strings.Contains(u.Hostname(), "."):
		return errors.New("a * under a whole top-level domain would let nearly everyone in; name the domain")
	}
	return nil
}

func (e HeaderEdits) sets(canonical string) bool {
	_, set := e.Set[canonical]
	_, added := e.Add[canonical]
	return set || added
}
