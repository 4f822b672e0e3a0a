package limit

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"gatehouse/gateway/token"
)

// partKind is one kind of thing that requests are counted by. The values also
// tag the parts inside a key.
type partKind byte

const (
	ipPart partKind = iota + 1
	routePart
	claimPart
	hashed // not a part: the whole key is a hash
	issuerPart
	headerPart
	tierPart // not a part of the file's key: what follows it
)

type part struct {
	kind   partKind
	path   token.Path // of a claimPart
	header string     // of a headerPart, as net/http spells it
}

// kinds names what parsePart reads.
const kinds = "ip, route, issuer, claim:PATH or header:NAME"

// parsePart reads ip, route, issuer, claim:PATH or header:NAME.
func parsePart(s string) (part, error) {
	kind, name, _ := strings.Cut(s, ":")
	switch {
	case s == "ip":
		return part{kind: ipPart}, nil
	case s == "route":
		return part{kind: routePart}, nil
	case s == "issuer":
		return part{kind: issuerPart}, nil
	case kind == "claim" && kind != s:
		p, err := token.ParsePath(name)
		return part{kind: claimPart, path: p}, err
	case kind == "header" && kind != s:
		if name == "" || strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c > '~' || c == ':' }) {
			return part{}, fmt.Errorf("key %q: want a header's name, such as header:X-Api-Key", s)
		}
		return part{kind: headerPart, header: http.CanonicalHeaderKey(name)}, nil
	case s == "":
		return part{}, errors.New("an empty key; use " + kinds)
	}
	return part{}, fmt.Errorf("unknown key %q; use %s (claim:%s for the claim %s)", s, kinds, s, s)
}

const (
	// maxKey bounds a key in bytes: a caller may put much into a claim or a header.
	maxKey = 64
	// tierSize is what a tier adds to a key.
	tierSize = 3
)

// key is what a request is counted under. Two requests have one key only if
// all parts agree: each part is tagged, and what varies in length has its
// length before it, so that no value can pose as another value and what
// follows it (a sub of "a|b" as the sub "a" of "b"). So has every tier keys of
// its own, for its buckets have a size of their own.
type key struct {
	buf  [maxKey]byte
	base int // length without the tier
	n    int
}

func (k *key) bytes() []byte { return k.buf[:k.n] }

// redis names the bucket in Redis. What stands in braces decides the Cluster's
// slot: it is the key without the limit's name, so that the limits that count
// a request under the same key can be charged in one step.
func (k *key) redis(limit, suffix string) string {
	sum := sha256.Sum256(k.buf[:k.base])
	return "limit:" + limit + ":{" + base64.RawURLEncoding.EncodeToString(sum[:16]) + "}" + suffix
}

func (k *key) write(l *Limiter, s *Subject, tier int) {
	var buf [4 * maxKey]byte
	b := buf[:0]
	for i := range l.parts {
		b = l.appendPart(b, &l.parts[i], s)
	}
	if len(b) <= maxKey-tierSize {
		k.n = copy(k.buf[:], b)
	} else {
		sum := sha256.Sum256(b)
		k.buf[0] = byte(hashed)
		k.n = 1 + copy(k.buf[1:], sum[:])
	}
	k.base = k.n
	if tier > 0 {
		k.n = len(append(k.buf[:k.n], byte(tierPart), byte(tier>>8), byte(tier)))
	}
}

// appendPart appends what p says of s. A caller of whom it says nothing is
// known by the address, so that leaving a claim or a header out never lifts a
// limit.
func (l *Limiter) appendPart(b []byte, p *part, s *Subject) []byte {
	switch p.kind {
	case routePart:
		return appendText(append(b, byte(routePart)), s.Route)
	case issuerPart:
		if s.Verified != nil {
			return appendText(append(b, byte(issuerPart)), s.Verified.Issuer)
		}
	case claimPart:
		if value := claimText(p.path, s.Verified); value != "" {
			b = appendText(append(b, byte(claimPart)), s.Verified.Issuer) // issuers may name subjects alike
			return appendText(b, value)
		}
	case headerPart:
		if values := s.Header[p.header]; len(values) > 1 || len(values) == 1 && values[0] != "" {
			b = binary.AppendUvarint(append(b, byte(headerPart)), uint64(len(values)))
			for _, v := range values {
				b = appendText(b, v)
			}
			return b
		}
	}
	return appendIP(b, s.IP, l.ipv6)
}

// claimText returns a claim as text. Only strings, numbers and booleans name a
// caller; "" is for all others and without a token.
func claimText(p token.Path, v *token.Verified) string {
	if v == nil {
		return ""
	}
	return v.Claims.Lookup(p).Text()
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendIP appends an IPv4 address, also one mapped into IPv6, or the first
// bits of an IPv6 address: a subscriber gets at least a /64 (RFC 6177), and
// would otherwise have 2^64 buckets.
func appendIP(b []byte, ip netip.Addr, bits int) []byte {
	ip = ip.Unmap()
	b = append(b, byte(ipPart))
	switch {
	case ip.Is4():
		a := ip.As4()
		return append(append(b, 4), a[:]...)
	case ip.Is6():
		a := ip.As16()
		n := (bits + 7) / 8
		a[n-1] &= 0xff << (8*n - bits)
		return append(append(b, byte(n)), a[:n]...)
	}
	return append(b, 0)
}
