package upstream

import (
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"gatehouse/gateway/internal/inject"
)

// added are the headers that the gateway sets of itself, and those that tell of
// the token: no name twice. Each takes the place of all that the request has of
// its name.
type added [2][]inject.Header

// into sets the headers in h, as net/http wants them.
func (a *added) into(h http.Header) {
	values := make([]string, 0, len(a[0])+len(a[1])) // one allocation
	for _, headers := range a {
		for _, f := range headers {
			values = append(values, f.Value)
			h[f.Name] = values[len(values)-1 : len(values) : len(values)]
		}
	}
}

func (a *added) has(name string) bool {
	for _, headers := range a {
		for i := range headers {
			if headers[i].Name == name {
				return true
			}
		}
	}
	return false
}

// appendHead appends a request's line and headers with those added, byte for
// byte as net/http writes them, at a fifth of the cost. It says false of a
// request that cannot go the short way: of one with a body, which wants to be
// written while the answer is read; of an upgrade, which keeps the connection;
// and of whatever looks odd, for net/http to mend or refuse.
func appendHead(b []byte, r *http.Request, more *added) ([]byte, bool) {
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
	var few [32]inject.Header // more are an allocation
	fields := few[:0]
	for name, values := range r.Header {
		if more.has(name) {
			continue
		}
		if !httpguts.ValidHeaderFieldName(name) || asksForMore(name) && len(values) > 0 {
			return b, false
		}
		for _, v := range values {
			if !validValue(v) {
				return b, false
			}
			if !leftToNetHTTP(name) {
				fields = append(fields, inject.Header{Name: name, Value: v})
			}
		}
	}
	for _, headers := range more {
		for i := range headers {
			f := &headers[i]
			if !httpguts.ValidHeaderFieldName(f.Name) || !validValue(f.Value) || asksForMore(f.Name) || leftToNetHTTP(f.Name) {
				return b, false
			}
			fields = append(fields, *f)
		}
	}
	slices.SortStableFunc(fields, func(a, b inject.Header) int { return strings.Compare(a.Name, b.Name) })
	b = append(append(append(b, r.Method...), ' '), uri...)
	b = append(append(append(b, " HTTP/1.1\r\nHost: "...), host...), "\r\n"...)
	if len(agents) > 0 && agents[0] != "" { // the first only; an empty one is none
		b = appendField(b, "User-Agent", agents[0])
	}
	switch r.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		b = append(b, "Content-Length: 0\r\n"...) // RFC 9110 §8.6
	}
	for i := range fields {
		b = appendField(b, fields[i].Name, fields[i].Value)
	}
	return append(b, "\r\n"...), true
}

// asksForMore says whether a header asks for more than an answer.
func asksForMore(name string) bool {
	switch name {
	case "Connection", "Upgrade", "Expect", "Te":
		return true
	}
	return false
}

// leftToNetHTTP says whether net/http writes a header from elsewhere, or never.
func leftToNetHTTP(name string) bool {
	switch name {
	case "Host", "User-Agent", "Content-Length", "Transfer-Encoding", "Trailer":
		return true
	}
	return false
}

func appendField(b []byte, name, value string) []byte {
	return append(append(append(append(b, name...), ": "...), textproto.TrimString(value)...), "\r\n"...)
}

// validValue is httpguts.ValidHeaderFieldValue, and looks at eight bytes at a
// time while all are printable ASCII. A subtraction that borrows does so from a
// byte that is not.
func validValue(v string) bool {
	const each, top = 0x0101010101010101, 0x8080808080808080
	for len(v) >= 8 {
		x := uint64(v[0]) | uint64(v[1])<<8 | uint64(v[2])<<16 | uint64(v[3])<<24 |
			uint64(v[4])<<32 | uint64(v[5])<<40 | uint64(v[6])<<48 | uint64(v[7])<<56
		if control, del := x-each*' ', x^each*0x7f-each; (x|control|del)&top != 0 {
			break
		}
		v = v[8:]
	}
	return httpguts.ValidHeaderFieldValue(v)
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
