package gateway

import (
	"math/rand/v2"
	"net/http"
	"net/url"
	"path"
	"strings"
	"testing"

	"gatehouse/gateway/config"
	"gatehouse/gateway/internal/route"
)

// Steps that backends take on a path, in the order of each. What a step cannot
// read it leaves as it is: some backend will.
var (
	decode = func(p string) string {
		var b strings.Builder
		for i := 0; i < len(p); i++ {
			if i+2 < len(p) && p[i] == '%' {
				if c, err := url.PathUnescape(p[i : i+3]); err == nil {
					b.WriteString(c)
					i += 2
					continue
				}
			}
			b.WriteByte(p[i])
		}
		return b.String()
	}
	lenientUTF8 = strings.NewReplacer("\xc0\xae", ".", "\xc0\xaf", "/", "\xe0\x80\xae", ".", "\xe0\x80\xaf", "/", "\xf0\x80\x80\xae", ".", "\xf0\x80\x80\xaf", "/").Replace
	segments    = func(each func(string) string) func(string) string {
		return func(p string) string {
			parts := strings.Split(p, "/")
			for i := range parts {
				parts[i] = each(parts[i])
			}
			return strings.Join(parts, "/")
		}
	}
	parameters = segments(func(s string) string { s, _, _ = strings.Cut(s, ";"); return s })
	trailing   = segments(func(s string) string {
		if s == "." || s == ".." {
			return s
		}
		return strings.TrimRight(s, ". ")
	})
	dots = func(p string) string { // empty segments, too
		clean := path.Clean("/" + p)
		if strings.HasSuffix(p, "/") && clean != "/" {
			clean += "/"
		}
		return clean
	}
	dots2e  = segments(func(s string) string { return strings.NewReplacer("%2e", ".", "%2E", ".").Replace(s) })
	slashes = strings.NewReplacer(`\`, "/").Replace
	cutAt   = func(chars string) func(string) string {
		return func(p string) string {
			if i := strings.IndexAny(p, chars); i >= 0 {
				return p[:i]
			}
			return p
		}
	}
	anyCase = strings.ToLower
)

// normalisers are common backends, modelled on what each does with a path.
var normalisers = map[string][]func(string) string{
	"as it is":                         {},
	"Tomcat":                           {parameters, decode, dots},
	"Spring before StrictHttpFirewall": {decode, parameters, dots},
	"Jetty":                            {parameters, dots2e, dots, decode},
	"nginx":                            {cutAt("#"), decode, dots},
	"nginx behind nginx":               {decode, dots, decode, dots},
	"IIS":                              {decode, slashes, trailing, dots},
	"IIS with double escaping":         {decode, decode, slashes, trailing, dots},
	"IIS and then ASP.NET":             {decode, slashes, dots, trailing},
	"Node's URL":                       {cutAt("#"), slashes, dots2e, dots},
	"Express with normalize-url":       {decode, slashes, dots},
	"net/http.ServeMux":                {decode, dots},
	"WSGI":                             {decode},
	"WSGI with secure paths":           {decode, dots},
	"PHP":                              {decode, cutAt("\x00"), dots},
	"CGI":                              {decode, cutAt("\x00?#"), dots},
	"an old decoder of UTF-8":          {decode, lenientUTF8, slashes, dots},
	"one that decodes thrice":          {decode, decode, decode, slashes, parameters, dots},
	"Tomcat on Windows":                {parameters, decode, slashes, trailing, dots},
}

// TestNoBackendReadsAProtectedPath: whatever the public route sends on is, to
// none of them, the path of the protected one.
func TestNoBackendReadsAProtectedPath(t *testing.T) {
	words := []string{"/", "/", "/", "//", ".", "..", "/../", "/./", "%2e", "%2E", "%252e", "%25%32%65", "%2f", "%2F", "%252f", "%5c", `\`, "%255c", ";", ";a=b", "%3b", "%253b",
		"admin", "admin", "admin/", "ADMIN", "Admin", "%61dmin", "adm%69n", "%41dmin", "%2561dmin", "public", "static", "app", "pub", "v1", "api", "assets", "x",
		"%20", "+", "%00", "%c0%ae", "%c0%af", "%e0%80%ae", "%f0%80%80%af", "%23", "%3f", "#", "%25", "%", "%0a", "%09", "~", "\u017f"}
	rng := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		name              string
		protected, public config.Route
		begins            []string // of paths to try
	}{
		{"beside it", config.Route{Match: config.Match{Path: "/admin/{rest...}"}}, config.Route{Match: config.Match{Path: "/public/{rest...}"}}, []string{"/", "/public/", "/public/"}},
		{"a catch-all", config.Route{Match: config.Match{Path: "/admin/{rest...}"}}, config.Route{Match: config.Match{Path: "/{rest...}"}}, []string{"/", "/admin", "/x/"}},
		{"a catch-all, ignoring case", config.Route{Match: config.Match{Path: "/Admin/{rest...}"}, IgnoreCase: true}, config.Route{Match: config.Match{Path: "/{rest...}"}}, []string{"/", "/admin", "/ADMIN", "/x/"}},
		{"with encoded slashes", config.Route{Match: config.Match{Path: "/admin/{rest...}"}}, config.Route{Match: config.Match{Path: "/{rest...}"}, EncodedSlash: true}, []string{"/", "/admin", "/admin%2f"}},
		{"both stripped", config.Route{Match: config.Match{Path: "/app/admin/{rest...}"}, StripPrefix: "/app"}, config.Route{Match: config.Match{Path: "/app/pub/{rest...}"}, StripPrefix: "/app"}, []string{"/app/", "/app/pub/", "/app/pub"}},
		{"the public one moved", config.Route{Match: config.Match{Path: "/admin/{rest...}"}}, config.Route{Match: config.Match{Path: "/static/{rest...}"}, StripPrefix: "/static", AddPrefix: "/assets"}, []string{"/static/", "/static"}},
		{"both moved", config.Route{Match: config.Match{Path: "/v1/admin/{rest...}"}, StripPrefix: "/v1", AddPrefix: "/api"}, config.Route{Match: config.Match{Path: "/v1/{rest...}"}, StripPrefix: "/v1", AddPrefix: "/api"}, []string{"/v1/", "/v1/x/", "/v1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var patterns []route.Pattern
			for _, r := range []config.Route{c.protected, c.public} {
				patterns = append(patterns, route.Pattern{Path: r.Match.Path, IgnoreCase: r.IgnoreCase, EncodedSlash: r.EncodedSlash})
			}
			table, errs := route.New(patterns)
			for _, err := range errs {
				if err != nil {
					t.Fatal(err)
				}
			}
			protected, public := newRewrite(&c.protected), newRewrite(&c.public)
			secret := protected.path(strings.TrimSuffix(c.protected.Match.Path, "{rest...}"))
			aimed := func(sent string) string { // who would read it as the protected one
				for name, steps := range normalisers {
					p := sent
					for _, step := range steps {
						p = step(p)
					}
					if c.protected.IgnoreCase {
						p = anyCase(p)
					}
					if strings.HasPrefix(p, strings.ToLower(secret)) {
						return name
					}
				}
				return ""
			}
			attacks, passed := 0, 0
			for range 20_000 {
				target := c.begins[rng.IntN(len(c.begins))]
				for range 1 + rng.IntN(6) {
					target += words[rng.IntN(len(words))]
				}
				u, err := url.ParseRequestURI(target)
				if err != nil {
					continue
				}
				m, err := table.Match(&http.Request{Method: "GET", Host: "h", URL: u})
				if err != nil {
					if aimed(public.path(target)) != "" {
						attacks++
					}
					continue
				}
				if m.Index == 0 {
					continue
				}
				passed++
				if sent := public.path(m.Path); aimed(sent) != "" {
					t.Fatalf("%s is the public route's, and %s reads %s as the protected %s", target, aimed(sent), sent, secret)
				}
			}
			if attacks < 20 || passed < 100 {
				t.Errorf("%d attacks were refused and %d paths passed: too few to tell anything", attacks, passed)
			}
		})
	}
}
