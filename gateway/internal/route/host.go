package route

import (
	"strconv"
	"strings"
)

// CanonicalHost returns a request's host as patterns are matched against it:
// lower-cased and without one trailing dot; a port stays, unless it is empty. ok is false for a
// host with bytes that no host has (RFC 3986 §3.2.2 less userinfo): what a
// backend would make of a@b or a,b nobody knows.
func CanonicalHost(host string) (canonical string, ok bool) {
	if host == "" { // HTTP/1.0 need not name one
		return "", true
	}
	name, port, bracket := host, "", strings.LastIndexByte(host, ']')
	if i := strings.LastIndexByte(host, ':'); i > bracket {
		name, port = host[:i], host[i:]
		if _, err := strconv.ParseUint("0"+port[1:], 10, 16); err != nil {
			return "", false
		}
		if port == ":" { // RFC 3986 §6.2.3
			port = ""
		}
	}
	name = strings.TrimSuffix(name, ".")
	if strings.HasPrefix(name, "[") {
		if bracket != len(name)-1 || strings.Trim(name[1:bracket], "0123456789abcdefABCDEF:.") != "" {
			return "", false
		}
		return strings.ToLower(name) + port, true
	}
	if name == "" || strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") || strings.Contains(name, "..") {
		return "", false
	}
	for _, c := range []byte(name) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_') {
			return "", false
		}
	}
	return strings.ToLower(name) + port, true
}
