package config

import (
	"net/http"
	"slices"
	"strings"
)

// ownedNames are headers that no claim may become and no token may come from:
// HTTP or the gateway gives them their meaning. All folded.
var ownedNames = map[string]bool{
	"host": true, "connection": true, "keep-alive": true, "te": true, "trailer": true, "transfer-encoding": true, "upgrade": true,
	"http2-settings": true, "expect": true, "range": true, "max-forwards": true, "via": true, "date": true, "origin": true,
	"accept": true, "cache-control": true, "pragma": true, "priority": true,
	"authorization": true, "cookie": true, "set-cookie": true, "www-authenticate": true,
	"forwarded": true, "x-real-ip": true, "x-request-id": true, "traceparent": true, "tracestate": true, "x-original-url": true, "x-rewrite-url": true, "client-cert": true, "x-gatehouse-would-refuse": true,
}

// ownedFamilies are the beginnings of further such names.
var ownedFamilies = []string{"proxy-", "content-", "if-", "accept-", "access-control-", "sec-", "x-forwarded-", "client-cert-"}

// ordinary are headers of everyday traffic that a careless prefix would swallow.
var ordinary = []string{
	"x-forwarded-for", "x-real-ip", "x-request-id", "x-content-type-options", "x-frame-options", "x-xss-protection",
	"x-requested-with", "x-http-method-override", "x-dns-prefetch-control", "x-powered-by", "x-correlation-id", "x-csrf-token", "x-api-key", "x-gatehouse-would-refuse",
}

// isOwned says whether HTTP or the gateway itself uses the header of that folded name.
func isOwned(folded string) bool {
	return ownedNames[folded] || slices.ContainsFunc(ownedFamilies, func(f string) bool { return strings.HasPrefix(folded, f) })
}

// owns says whether h sets the header of that folded name.
func (h *Headers) owns(folded string) bool {
	if strings.HasPrefix(folded, h.Prefix) {
		return true
	}
	for _, c := range h.Claims {
		if c.Header != "" && fold(c.Header) == folded {
			return true
		}
	}
	return false
}

// fromCaller faults what tells requests apart by a header that says nothing of
// the caller who sends it: it is read before forwarding drops it, so whoever
// makes up a new value for each request would pass as many callers.
func (r *reader) fromCaller(at, source string, h *Headers) {
	if name, ok := strings.CutPrefix(source, "header:"); ok && r.ok(at) && h.owns(fold(name)) {
		r.fault(at, "%s is %s, a header that the gateway sets for backends and drops from callers; ask about the claim, such as claim:sub", at, r.quote(at, source))
	}
}

// fold brings the spellings of a header name that some backend takes for one
// to one: CGI and its heirs make X-User, X_User and X.User the same variable.
func fold(name string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case 'A' <= c && c <= 'Z':
			return c + 'a' - 'A'
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			return c
		}
		return '-'
	}, name)
}

func (r *reader) headers(f *fileHeaders) Headers {
	h := Headers{Prefix: or(f.Prefix, "x-jwt-"), MaxBytes: or(f.MaxBytes, 8192)}
	if r.ok("headers.prefix") {
		r.prefix(f.Prefix)
	}
	if f.Claims == nil {
		return h
	}
	if len(f.Claims) == 0 && r.ok("headers.claims") {
		r.fault("headers.claims", "headers.claims is an empty map; name at least one claim, or say all")
	}
	h.Claims = map[string]HeaderClaim{}
	first := map[string]string{} // folded header name → key
	for _, key := range inOrder(&r.source, "headers.claims", f.Claims) {
		c, path := f.Claims[key], "headers.claims."+key
		h.Claims[key] = HeaderClaim{string(c.Claim), c.Type, http.CanonicalHeaderKey(c.Header)}
		header := h.Prefix + key
		switch {
		case !isSuffix(key):
			r.fault(path, "header %q: want lower-case letters, digits and single hyphens between them; it comes after %s", key, h.Prefix)
			continue
		case r.has(path+".header") && c.Header == "":
			continue
		case c.Header != "" && !isHTTPToken(c.Header):
			r.fault(path+".header", "%s.header is %s: want the name of a header (RFC 9110 §5.1)", path, r.quote(path+".header", c.Header))
			continue
		case c.Header != "" && isOwned(fold(c.Header)):
			r.fault(path+".header", "%s.header is %s, which HTTP or the gateway uses itself; choose another name", path, r.quote(path+".header", c.Header))
			continue
		case c.Header != "":
			header = c.Header
		}
		if other, ok := first[fold(header)]; ok {
			r.fault(path, "%s gives the same header as %s (line %d)", path, other, r.At("headers.claims."+other).Line)
			continue
		}
		first[fold(header)] = key
	}
	return h
}

// prefix checks headers.prefix: every header that begins with it is dropped
// from callers' requests and from backends' answers.
func (r *reader) prefix(prefix string) {
	const path = "headers.prefix"
	suffix, x := strings.CutPrefix(prefix, "x-")
	name, hyphen := strings.CutSuffix(suffix, "-")
	if !x || !hyphen || !isSuffix(name) {
		r.fault(path, "%s is %s: want x-NAME- in lower-case letters, digits and hyphens, such as x-jwt-; what begins with it is dropped from requests and answers, so it must be of your own", path, r.quote(path, prefix))
		return
	}
	if i := slices.IndexFunc(ordinary, func(h string) bool { return strings.HasPrefix(h, prefix) }); i >= 0 || isOwned(prefix) {
		r.fault(path, "%s is %s, which would take %s away from requests and answers; choose one of your own, such as x-jwt-", path, r.quote(path, prefix), http.CanonicalHeaderKey(ordinary[max(0, i)]))
	}
}

// isSuffix says whether s is segments of lower-case letters and digits with single hyphens between.
func isSuffix(s string) bool {
	for segment := range strings.SplitSeq(s, "-") {
		if segment == "" || strings.Trim(segment, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
			return false
		}
	}
	return true
}

// isHTTPToken says whether s is a token of RFC 9110 §5.6.2.
func isHTTPToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isLetter(c) && !isDigit(c) && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}
