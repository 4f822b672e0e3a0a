package inject

import (
	"cmp"
	"fmt"
	"strings"

	"gatehouse/gateway/token"
)

// TooLarge says that the headers of one token need more bytes than allowed.
// The request is refused: a backend must never decide on half of the claims.
type TooLarge struct{ Bytes, Max int }

func (e *TooLarge) Error() string {
	return fmt.Sprintf("the claims need %d bytes of headers; headers.max_bytes allows %d", e.Bytes, e.Max)
}

// candidate is a header that a claim asks for. An empty value still contends
// for the name: with sub: null and Sub: "root", x-jwt-sub is not root.
type candidate struct {
	Header
	wins bool // against claims that fold to the same name
}

// Encode returns the headers that tell a backend what v claims: for all claims
// in the token's order, for chosen ones sorted by their keys. No value is
// empty and no two headers share a name. With alwaysIss, which a route with
// several issuers needs, the iss header comes first, whatever the options
// choose, and is "none" for a token without iss.
//
// collisions are the names that more than one claim folded to; the registered
// claim was sent if there was exactly one, else none. The error is a
// *[TooLarge].
//
// act is who acts in the subject's name, which the token alone decides; it is
// sent as act-iss and act-sub unless the options name these for something else,
// and no other claim can take the two names.
//
// What a token gives is remembered with it; the caller must not change it.
func (r *Rules) Encode(v *token.Verified, alwaysIss bool, act Act) (headers []Header, collisions []string, err error) {
	owner := &r.owners[0]
	if alwaysIss {
		owner = &r.owners[1]
	}
	e, ok := v.Recall().(*encoded)
	if !ok || e.owner != owner {
		e = &encoded{owner: owner}
		if headers, collisions, err = r.encode(v, alwaysIss, act); collisions != nil || err != nil {
			e.odd = &odd{collisions, err}
		}
		e.headers = headers
		v.Remember(e)
	}
	if e.odd != nil {
		return e.headers, e.odd.collisions, e.odd.err
	}
	return e.headers, nil, nil
}

// Act is the actor of a token (RFC 8693 §4.1); empty where nobody acts.
type Act struct{ Issuer, Subject string }

// encoded is what Encode returned for a token.
type encoded struct {
	owner   *owner
	headers []Header
	odd     *odd // nil for nearly every token
}

type odd struct {
	collisions []string
	err        error
}

func (r *Rules) encode(v *token.Verified, alwaysIss bool, act Act) (headers []Header, collisions []string, err error) {
	candidates := make([]candidate, 0, 16)
	if alwaysIss {
		value := encode(v.Claims.Get("iss"), false, false)
		candidates = append(candidates, candidate{Header{r.iss, cmp.Or(value, "none")}, true})
	}
	for i, value := range [2]string{act.Issuer, act.Subject} {
		if name := r.act[i]; name != "" {
			candidates = append(candidates, candidate{Header{name, string(escape(nil, value, false))}, true})
		}
	}
	if r.all {
		for claim, value := range v.Claims.All() {
			name := r.header(claim)
			if name == "" || alwaysIss && claim == "iss" {
				continue
			}
			h := Header{name, encode(value, claim == "aud", false)}
			candidates = append(candidates, candidate{h, registered(claim)})
		}
	}
	for _, c := range r.claims {
		claim := strings.TrimPrefix(c.Path.String(), "/")
		if alwaysIss && claim == "iss" && c.header == r.iss {
			continue
		}
		h := Header{c.header, encode(v.Claims.Lookup(c.Path), claim == "aud", c.List)}
		candidates = append(candidates, candidate{h, false})
	}

	type count struct{ all, winners int }
	counts := make(map[string]count, len(candidates))
	for _, c := range candidates {
		n := counts[c.Name]
		n.all++
		if c.wins {
			n.winners++
		}
		counts[c.Name] = n
		if n.all == 2 {
			collisions = append(collisions, c.Name)
		}
	}
	size := 0
	sent := candidates[:0]
	for _, c := range candidates {
		n := counts[c.Name]
		if c.Value == "" || n.all > 1 && !(c.wins && n.winners == 1) {
			continue
		}
		size += len(c.Name) + len(c.Value)
		sent = append(sent, c)
	}
	if size > r.maxBytes {
		return nil, collisions, &TooLarge{size, r.maxBytes}
	}
	headers = make([]Header, len(sent)) // they are remembered: not one too many
	for i, c := range sent {
		headers[i] = c.Header
	}
	return headers, collisions, nil
}

// encode returns the header value of a claim, or "" where there is nothing to
// send: a value that is missing, null or empty, or no list where only a list
// will do. single says that a string is a list of one (aud), so that its comma
// cannot be read as the start of a second item.
func encode(v token.Value, single, list bool) string {
	var buf [256]byte
	b := buf[:0]
	switch kind := v.Kind(); {
	case kind == token.Array:
		for item := range v.Items() {
			text := plain(item)
			if text == "" {
				continue
			}
			if len(b) > 0 {
				b = append(b, ',')
			}
			b = escape(b, text, true)
		}
		return string(b)
	case kind == token.String && single:
		return escaped(b, v.Text(), true)
	case list:
		return ""
	}
	return escaped(b, plain(v), false)
}

// escaped is escape's result as a string, and s itself where nothing had to
// be: most headers then take no memory beside the claims.
func escaped(b []byte, s string, item bool) string {
	if b = escape(b, s, item); string(b) == s {
		return s
	}
	return string(b)
}

// plain returns a value as text, before it is escaped.
func plain(v token.Value) string {
	switch v.Kind() {
	case token.Array, token.Object:
		if s := v.JSON(); s != "[]" && s != "{}" {
			return s
		}
		return ""
	}
	return v.Text()
}

// escape appends s, with what HTTP or a list would misread percent-encoded in
// upper-case hex, after gRPC's grpc-message: every byte outside 0x20–0x7E, "%"
// itself, spaces at the ends, which HTTP drops (RFC 9110 §5.5), and in an item
// of a list the comma.
func escape(b []byte, s string, item bool) []byte {
	const hex = "0123456789ABCDEF"
	first := len(s) - len(strings.TrimLeft(s, " "))
	last := len(strings.TrimRight(s, " "))
	for i := range len(s) {
		c := s[i]
		if c < 0x20 || c > 0x7e || c == '%' || c == ',' && item || c == ' ' && (i < first || i >= last) {
			b = append(b, '%', hex[c>>4], hex[c&15])
			continue
		}
		b = append(b, c)
	}
	return b
}
