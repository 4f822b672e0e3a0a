package upstream

import (
	"net/http"
	"net/textproto"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// appendHead appends a request's line and headers, as net/http writes them but
// for the order of the headers, at a fifth of the cost. It says false of a
// request that cannot go the short way: of one with a body, which wants to be
// written while the answer is read; of an upgrade, which keeps the connection;
// and of whatever looks odd, for net/http to mend or refuse.
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
	if _, ok := r.Header["User-Agent"]; !ok { // net/http would send its own
		return b, false
	}
	b = append(append(append(b, r.Method...), ' '), uri...)
	b = append(append(append(b, " HTTP/1.1\r\nHost: "...), host...), "\r\n"...)
	switch r.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		b = append(b, "Content-Length: 0\r\n"...) // RFC 9110 §8.6
	}
	for name, values := range r.Header {
		if !httpguts.ValidHeaderFieldName(name) {
			return b, false
		}
		for i, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				return b, false
			}
			switch name {
			case "Connection", "Upgrade", "Expect", "Te":
				return b, false
			case "Host", "Content-Length", "Transfer-Encoding", "Trailer": // which net/http writes itself, or not at all
				continue
			case "User-Agent": // the first only; an empty one is none
				if i > 0 || v == "" {
					continue
				}
			}
			b = append(append(append(append(b, name...), ": "...), textproto.TrimString(v)...), "\r\n"...)
		}
	}
	return append(b, "\r\n"...), true
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
