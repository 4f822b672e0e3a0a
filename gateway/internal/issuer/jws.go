package issuer

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"gatehouse/gateway/token"
)

// Bounds of what is read before anything is known about a token.
const (
	maxToken  = 16 << 10 // bytes of the whole token
	maxHeader = 4 << 10  // bytes of its encoded header
	maxKid    = 512      // bytes of a kid, in a header and in a key set
)

// compact is a JWS in compact serialization (RFC 7515 §7.1), read but not
// verified.
type compact struct {
	input     []byte // header.payload, the bytes that are signed
	signature []byte
	claims    token.Claims
	alg, typ  string
	kid       string // "" if there is none: an empty name names nothing
	answer    bool   // the claims are those of an introspection answer, not of a JWS
	record    Record // told of each check that the token passed; nil: nobody asked
}

// Record is told of a check that a token passed, and of what was found.
type Record func(check, found string)

func (c *compact) pass(check, format string, args ...any) {
	if c.record != nil {
		c.record(check, fmt.Sprintf(format, args...))
	}
}

// parse reads a token strictly. Go's base64 skips line breaks, and libraries
// take padding, the standard alphabet and loose last bits; then one token has
// many spellings, and a list of withdrawn tokens knows only one of them.
func parse(text string) (*compact, *token.Error) {
	if len(text) > maxToken {
		return nil, token.Errorf(token.InvalidToken, "the token has %d bytes; %d are allowed", len(text), maxToken)
	}
	if n := strings.Count(text, "."); n != 2 {
		return nil, token.Errorf(token.InvalidToken, "the token has %d dots; a JWS has 2 (RFC 7515 §3.1)", n)
	}
	if strings.IndexByte(text, '\n') >= 0 || strings.IndexByte(text, '\r') >= 0 {
		return nil, token.Errorf(token.InvalidToken, "the token has a line break inside")
	}
	data := []byte(text)
	first, last := bytes.IndexByte(data, '.'), bytes.LastIndexByte(data, '.')
	if first > maxHeader {
		return nil, token.Errorf(token.InvalidToken, "the token's header has %d bytes; %d are allowed", first, maxHeader)
	}
	header, err := decode(data[:first])
	if err != nil {
		return nil, token.Errorf(token.InvalidToken, "the token's header: %v", err)
	}
	payload, err := decode(data[first+1 : last])
	if err != nil {
		return nil, token.Errorf(token.InvalidToken, "the token's payload: %v", err)
	}
	c := &compact{input: data[:last]}
	if c.signature, err = decode(data[last+1:]); err != nil {
		return nil, token.Errorf(token.InvalidToken, "the token's signature: %v", err)
	}
	if err := c.readHeader(header); err != nil {
		return nil, token.Errorf(token.InvalidToken, "the token's header: %v", err)
	}
	if c.claims, err = token.ParseClaims(payload); err != nil {
		return nil, token.Errorf(token.InvalidToken, "the token's payload: %v", err)
	}
	return c, nil
}

// decode reads base64url without padding (RFC 7515 §2) in its one canonical
// spelling (RFC 4648 §3.5). src must hold no line breaks: they are skipped.
func decode(src []byte) ([]byte, error) {
	dst := make([]byte, base64.RawURLEncoding.DecodedLen(len(src)))
	if _, err := strict.Decode(dst, src); err != nil {
		return nil, fmt.Errorf("not canonical base64url: %w", err)
	}
	return dst, nil
}

var strict = base64.RawURLEncoding.Strict()

// readHeader reads the members that decide something. jwk, jku, x5u and x5c
// are not among them: a token must not bring its own key (RFC 8725 §3.10).
func (c *compact) readHeader(header []byte) error {
	h, err := token.ParseClaims(header)
	if err != nil {
		return err
	}
	for name, v := range h.All() {
		var field *string
		switch name {
		case "alg":
			field = &c.alg
		case "typ":
			field = &c.typ
		case "kid":
			field = &c.kid
		case "crit": // RFC 7515 §4.1.11: what is named there must be understood, and nothing is
			return fmt.Errorf("crit %s: no extension is understood here", quote(v.JSON()))
		case "b64": // RFC 7797 §6: without crit it means nothing, so it is a trick
			return fmt.Errorf("b64 (RFC 7797) has no place in a JWT")
		default:
			continue
		}
		if v.Kind() != token.String {
			return fmt.Errorf("%s is a JSON %s, not a string", name, v.Kind())
		}
		*field = v.Text()
	}
	if len(c.kid) > maxKid {
		return fmt.Errorf("kid has %d bytes; %d are allowed", len(c.kid), maxKid)
	}
	return nil
}

// quote makes a value that anyone may have chosen fit for a log line.
func quote(s string) string {
	const most = 100
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}

// list quotes values and cuts their number too.
func list(values []string) string {
	const most = 5
	var out []string
	for n, v := range values {
		if n == most {
			out = append(out, fmt.Sprintf("and %d more", len(values)-most))
			break
		}
		out = append(out, quote(v))
	}
	return strings.Join(out, ", ")
}
