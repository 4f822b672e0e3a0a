package upstream

import (
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// appendHead appends a request's line and headers, byte for byte as net/http
// writes them, at a fifth of the cost. It says false of a request that cannot go
// the short way: of one with a body, which wants to be written while the answer
// is read; of an upgrade, which keeps the connection; and of whatever looks odd,
// for net/http to mend or refuse.
func appendHead(b []byte, r *http.Request) ([]byte, bool) {
	host, uri := r.Host, r.URL.RequestURI()
	if host == "" {
		host = r.URL.Host
	}
	if r.Body != nil && r.Body != http.NoBody || r.ContentLength != 0 || r.TransferEncoding != nil || r.Trailer != nil || r.Close ||
		r.Method == http.MethodConnect || !httpguts.ValidHeaderFieldName(r.Method) || !plain(uri) ||
		!httpguts.ValidHostHeader(host) || strings.ContainsRune(host, '%') {
		return b, false
	}
	agents, ok := r.Header["User-Agent"]
	if !ok { // net/http would send its own
		return b, false
	}
	var few [32]string // more names are an allocation
	names := few[:0]
	for name, values := range r.Header {
		if !httpguts.ValidHeaderFieldName(name) || slices.ContainsFunc(values, func(v string) bool { return !httpguts.ValidHeaderFieldValue(v) }) {
			return b, false
		}
		switch name {
		case "Connection", "Upgrade", "Expect", "Te":
			if len(values) > 0 {
				return b, false
			}
		case "Host", "User-Agent", "Content-Length", "Transfer-Encoding", "Trailer": // which net/http writes itself, or not at all
		default:
			names = append(names, name)
		}
	}
	slices.Sort(names)
	b = append(append(append(b, r.Method...), ' '), uri...)
	b = append(append(append(b, " HTTP/1.1\r\nHost: "...), host...), "\r\n"...)
	if len(agents) > 0 && agents[0] != "" { // the first only; an empty one is none
		b = appendField(b, "User-Agent", agents[0])
	}
	switch r.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		b = append(b, "Content-Length: 0\r\n"...) // RFC 9110 §8.6
	}
	for _, name := range names {
		for _, v := range r.Header[name] {
			b = appendField(b, name, v)
		}
	}
	return append(b, "\r\n"...), true
}

func appendField(b []byte, name, value string) []byte {
	return append(append(append(append(b, name...), ": "...), textproto.TrimString(value)...), "\r\n"...)
}

// plain says whether s is of visible ASCII characters alone.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
