package revoke

import (
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

// Key returns the Redis key of a revocation. issuer is the issuer's name in
// the configuration; everything after the third colon is value.
func Key(kind Kind, issuer, value string) string {
	return "revoked:" + string(kind) + ":" + issuer + ":" + value
}

// candidate is one key under which a token might have been revoked.
type candidate struct {
	kind Kind
	key  string
}

// candidates returns every key to look up for v: kid and jws always, the
// claims of check where the token has them.
func candidates(v *token.Verified, check []Kind) []candidate {
	found := []candidate{{KeyID, Key(KeyID, v.Issuer, v.Key)}, {JWS, Key(JWS, v.Issuer, v.Hash)}}
	for _, kind := range check {
		if value := v.Claims.Get(string(kind)).Text(); value != "" {
			found = append(found, candidate{kind, Key(kind, v.Issuer, value)})
		}
	}
	return found
}

// minSeconds tells a time from any other number that somebody may have put
// there: smaller integers revoke everything, as any other text does.
const minSeconds = 1_000_000_000

// revokes says whether a key of that kind, holding value, withdraws v.
func revokes(kind Kind, value string, v *token.Verified) bool {
	if value == NotRevoked {
		return false
	}
	if kind != Subject && kind != ClientID {
		return true
	}
	if strings.Trim(value, "0123456789") != "" {
		return true
	}
	until, err := strconv.ParseInt(value, 10, 64)
	if err != nil || until <= minSeconds {
		return true
	}
	return !v.HasIssuedAt || v.IssuedAt <= float64(until)
}
