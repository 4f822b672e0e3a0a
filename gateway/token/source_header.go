package token

import (
	"net/http"
	"strings"
)

// Header is a [Source]: a request header, with the credentials after an
// authentication scheme or bare if Prefix is empty. Name must be canonical
// (http.CanonicalHeaderKey). The scheme's case does not matter (RFC 9110
// §11.1).
type Header struct{ Name, Prefix string }

// Bearer is the source that RFC 6750 §2.1 defines: Authorization: Bearer.
var Bearer = Header{Name: "Authorization", Prefix: "Bearer"}

// Find implements [Source]. Two lines of the header are refused even where
// only one holds a token, since the backend might read the other one.
func (h Header) Find(r *http.Request) (Raw, bool, error) {
	lines := r.Header[h.Name]
	switch len(lines) {
	case 0:
		return Raw{}, false, nil
	case 1:
	default:
		return Raw{}, false, Errorf(BadRequest, "%d %s header lines; one is allowed", len(lines), h.Name)
	}
	value := lines[0]
	if h.Prefix != "" {
		credentials, ok := h.cut(value)
		if !ok {
			return Raw{}, false, nil // another scheme, Basic say: not a token of ours
		}
		value = strings.TrimLeft(credentials, " ")
	}
	if !isToken68(value) {
		return Raw{}, false, Errorf(BadRequest, "the %s header holds no well-formed token (RFC 6750 §2.1 b64token)", h.Name)
	}
	return NewRaw(value), true, nil
}

// cut returns what follows the scheme. Whatever no scheme can hold ends it, a
// tab or a comma say: it must not stand there (RFC 9110 §11.4), but a backend
// might take it for a space and find a token that the gateway did not see.
func (h Header) cut(value string) (credentials string, ok bool) {
	end := strings.IndexFunc(value, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", c))
	})
	if end < 0 {
		end = len(value)
	}
	return value[end:], strings.EqualFold(value[:end], h.Prefix)
}

// Remove implements [Source]. Credentials of another scheme are not the
// gateway's, so they stay. Other spellings of the name go (X_Token for
// X-Token): a backend may read them as the one that was verified.
func (h Header) Remove(r *http.Request) {
	for name := range r.Header {
		if name != h.Name && Alike(name, h.Name) {
			delete(r.Header, name)
		}
	}
	var kept []string
	for _, value := range r.Header[h.Name] {
		if _, ours := h.cut(value); h.Prefix != "" && !ours {
			kept = append(kept, value)
		}
	}
	if kept == nil {
		delete(r.Header, h.Name)
		return
	}
	r.Header[h.Name] = kept
}

// String implements [Source].
func (h Header) String() string { return "header " + h.Name }

// isToken68 reports whether s is a b64token of RFC 6750 §2.1. Every request with
// a token asks: eight bytes are looked up at a time.
func isToken68(s string) bool {
	body := strings.TrimRight(s, "=")
	if body == "" {
		return false
	}
	for len(body) >= 8 {
		if in := &inToken68; in[body[0]]&in[body[1]]&in[body[2]]&in[body[3]]&in[body[4]]&in[body[5]]&in[body[6]]&in[body[7]] == 0 {
			return false
		}
		body = body[8:]
	}
	for i := range len(body) {
		if inToken68[body[i]] == 0 {
			return false
		}
	}
	return true
}

// inToken68 has a 1 for each byte of a b64token but its trailing "=".
var inToken68 = func() (in [256]byte) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/") {
		in[c] = 1
	}
	return in
}()
