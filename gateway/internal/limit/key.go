package limit

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
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
)

type part struct {
	kind partKind
	path token.Path // of a claimPart
}

// parsePart reads ip, route or claim:PATH.
func parsePart(s string) (part, error) {
	switch path, claim := strings.CutPrefix(s, "claim:"); {
	case s == "ip":
		return part{kind: ipPart}, nil
	case s == "route":
		return part{kind: routePart}, nil
	case claim:
		p, err := token.ParsePath(path)
		return part{claimPart, p}, err
	case s == "":
		return part{}, errors.New("an empty key; use ip, route or claim:PATH")
	}
	return part{}, fmt.Errorf("unknown key %q; use ip, route or claim:PATH (claim:%s for the claim %s)", s, s, s)
}

// maxKey bounds a key in bytes: a caller may put much into a claim.
const maxKey = 64

// key is what a request is counted under. Two requests have one key only if
// all parts agree: each part is tagged, and what varies in length has its
// length before it, so that no value can pose as another value and what
// follows it (a sub of "a|b" as the sub "a" of "b").
type key struct {
	buf [maxKey]byte
	n   int
}

func (k *key) bytes() []byte { return k.buf[:k.n] }

func (k *key) write(parts []part, s Subject) {
	var buf [4 * maxKey]byte
	b := buf[:0]
	for _, p := range parts {
		switch value, ok := claimValue(p, s.Verified); {
		case p.kind == routePart:
			b = appendText(append(b, byte(routePart)), s.Route)
		case ok:
			b = appendText(append(b, byte(claimPart)), s.Verified.Issuer) // issuers may name subjects alike
			b = appendText(b, value)
		default:
			b = appendIP(b, s.IP)
		}
	}
	if len(b) <= maxKey {
		k.n = copy(k.buf[:], b)
		return
	}
	sum := sha256.Sum256(b)
	k.n = copy(k.buf[:], append([]byte{byte(hashed)}, sum[:]...))
}

// claimValue returns the claim that p asks for. Only strings, numbers and
// booleans name a caller; without one the caller is known by its address, so
// that leaving a claim out never lifts a limit.
func claimValue(p part, v *token.Verified) (string, bool) {
	if p.kind != claimPart || v == nil {
		return "", false
	}
	text := v.Claims.Lookup(p.path).Text()
	return text, text != ""
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendIP appends an IPv4 address, also one mapped into IPv6, or the /64 of an
// IPv6 address: a subscriber gets at least that much (RFC 6177), and would
// otherwise have 2^64 buckets.
func appendIP(b []byte, ip netip.Addr) []byte {
	ip = ip.Unmap()
	b = append(b, byte(ipPart))
	switch {
	case ip.Is4():
		a := ip.As4()
		return append(append(b, 4), a[:]...)
	case ip.Is6():
		a := ip.As16()
		return append(append(b, 8), a[:8]...)
	}
	return append(b, 0)
}
