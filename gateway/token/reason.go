package token

import (
	"fmt"
	"time"
)

// Reason says in one word why a request was refused. It is the same word in
// the answer's body, in the log and in the metrics.
type Reason string

// The reasons that verifying a token and what follows from it can give.
const (
	MissingToken           Reason = "missing_token"
	InvalidToken           Reason = "invalid_token"
	ExpiredToken           Reason = "expired_token"
	RevokedToken           Reason = "revoked_token"
	BadRequest             Reason = "bad_request"
	InsufficientPrivileges Reason = "insufficient_privileges"
	IssuerUnavailable      Reason = "issuer_unavailable"
	StoreUnavailable       Reason = "store_unavailable"
)

// Error is a refusal that a token caused. Detail is for the operator's log and
// may name expected and found values; it never holds the token, and callers
// never see it.
type Error struct {
	Reason     Reason
	Detail     string
	RetryAfter time.Duration // how long the caller should wait; 0 if that is not known
	Cause      error         // what it comes from, for errors.As; nil if nobody need know
}

// Error returns the reason and the detail.
func (e *Error) Error() string { return string(e.Reason) + ": " + e.Detail }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Errorf makes an [Error] with a formatted detail.
func Errorf(r Reason, format string, args ...any) *Error {
	return &Error{Reason: r, Detail: fmt.Sprintf(format, args...)}
}
