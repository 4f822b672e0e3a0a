package policy

import (
	"fmt"
	"slices"
	"time"

	"gatehouse/gateway/token"
)

// maxSkew is how far ahead of this clock an identity provider's may be.
const maxSkew = time.Minute

// StepUp is how well the user must have been authenticated (RFC 9470). The
// zero StepUp asks for nothing. It is immutable and safe for concurrent use.
type StepUp struct {
	ACR        []string      // the acr claim is one of these
	AMR        Requirement   // the amr claim (RFC 8176) holds all of All and one of Any
	MaxAuthAge time.Duration // auth_time is at most this long ago; 0: any time
}

// Challenge is what a client must ask the user's identity provider for, so
// that the next token is good enough: the parameters of RFC 9470 §3. It names
// all that is asked for, not only what was missing, so that one round is
// enough. What amr should hold has no parameter there.
type Challenge struct {
	ACRValues []string      // acr_values, to be joined with spaces; may be empty
	MaxAge    time.Duration // max_age, in whole seconds; 0: none
	Detail    string        // what was missing, for the operator's log
}

// Check returns nil if the claims show an authentication that is good enough.
// A claim that is missing or of another type shows nothing.
func (s StepUp) Check(claims token.Claims, now time.Time) *Challenge {
	challenge := func(format string, args ...any) *Challenge {
		return &Challenge{s.ACR, s.MaxAuthAge, fmt.Sprintf(format, args...)}
	}
	if len(s.ACR) > 0 {
		acr := claims.Get("acr")
		if acr.Kind() != token.String || !slices.Contains(s.ACR, acr.Text()) {
			return challenge("acr is %s, want one of %s", cut(show(acr)), list(s.ACR))
		}
	}
	if len(s.AMR.All)+len(s.AMR.Any) > 0 {
		var methods []string
		for m := range claims.Get("amr").Items() {
			if m.Kind() == token.String {
				methods = append(methods, m.Text())
			}
		}
		if missing, ok := s.AMR.Check(methods); !ok {
			return challenge("amr is %s, missing %s", cut(show(claims.Get("amr"))), missing)
		}
	}
	if s.MaxAuthAge > 0 {
		at, ok := claims.Get("auth_time").Float()
		age := float64(now.UnixNano())/1e9 - at
		if !ok || age > s.MaxAuthAge.Seconds() || age < -maxSkew.Seconds() {
			return challenge("auth_time is %s, want at most %s ago", cut(show(claims.Get("auth_time"))), s.MaxAuthAge)
		}
	}
	return nil
}
