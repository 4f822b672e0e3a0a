package revoke

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"gatehouse/gateway/token"
)

// Kind is what a revocation names: the first part of its key.
type Kind string

// The kinds of revocation.
const (
	JTI      Kind = "jti"       // one token, by its jti claim (RFC 7519 §4.1.7)
	SID      Kind = "sid"       // one session (OpenID Connect Back-Channel Logout §2.1)
	Subject  Kind = "sub"       // a subject's tokens issued until a time
	ClientID Kind = "client_id" // a client's tokens issued until a time (RFC 9068 §2.2)
	KeyID    Kind = "kid"       // every token that one key signed
	JWS      Kind = "jws"       // one token, by [token.Verified.Hash]
)

// NotRevoked is the reserved value that lifts a revocation.
const NotRevoked = "-"

const prefix = "revoked:"

// Key returns the Redis key of a revocation. issuer is the issuer's name in
// the configuration; everything after the third colon is value.
func Key(kind Kind, issuer, value string) string {
	return prefix + string(kind) + ":" + issuer + ":" + value
}

// kinds are all kinds, each at its [Kind.index].
var kinds = [...]Kind{JTI, SID, Subject, ClientID, KeyID, JWS}

// index is k's place in kinds, or -1.
func (k Kind) index() int { return slices.Index(kinds[:], k) }

// looked returns the kinds to look at: kid and jws always, and those of check.
func looked(check []Kind) []Kind { return append([]Kind{KeyID, JWS}, check...) }

// named is what a revocation of that kind would call v, or "".
func (k Kind) named(v *token.Verified) string {
	switch k {
	case KeyID:
		return v.Key
	case JWS:
		return v.Hash
	}
	return v.Claims.Get(string(k)).Text()
}

// parseKey takes a Redis key apart. ok is false for a key that can concern no
// token.
func parseKey(key string) (kind Kind, issuer, value string, ok bool) {
	rest, ours := strings.CutPrefix(key, prefix)
	word, rest, typed := strings.Cut(rest, ":")
	issuer, value, whole := strings.Cut(rest, ":")
	kind = Kind(word)
	return kind, issuer, value, ours && typed && whole && kind.index() >= 0
}

// A key's value comes down to a number: tokens issued until the end of that
// second are out. Two are words.
const (
	nothing    int64 = 0             // no token: the revocation is lifted
	everything int64 = math.MaxInt64 // every token, whenever it was issued
)

// minSeconds tells a time from any other number that somebody may have put
// there: smaller integers revoke everything, as any other text does.
const minSeconds = 1_000_000_000

// cutoff reads the value of a key of that kind.
func cutoff(kind Kind, value string) int64 {
	switch {
	case value == NotRevoked:
		return nothing
	case kind != Subject && kind != ClientID, strings.Trim(value, "0123456789") != "":
		return everything
	}
	until, err := strconv.ParseInt(value, 10, 64)
	if err != nil || until <= minSeconds {
		return everything
	}
	return until
}

// withdraws says whether a key with that cutoff withdraws v.
func withdraws(until int64, v *token.Verified) bool {
	switch until {
	case nothing:
		return false
	case everything:
		return true
	}
	// Floor: the cutoff was made of a time that may be later in the same second.
	return !v.HasIssuedAt || math.Floor(v.IssuedAt) <= float64(until)
}
