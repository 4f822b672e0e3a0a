package token

import (
	"context"
	"sync/atomic"
)

// Verifier decides whether a token is genuine.
type Verifier interface {
	// Verify returns what the token's issuer vouches for. Every refusal is an
	// *[Error]: [InvalidToken] and [ExpiredToken] blame the token,
	// [IssuerUnavailable] says that nobody can tell now. It is safe for
	// concurrent use and gives up when ctx ends.
	Verify(ctx context.Context, raw Raw) (*Verified, error)
}

// Verified is a token whose signature, issuer, audience and times were
// checked; of an opaque one, what its issuer said by introspection (RFC 7662). It is immutable and may be shared between requests.
type Verified struct {
	Issuer string // the issuer's name in the configuration, not the iss claim
	Claims Claims
	Key    string // kid of the key that verified, or its RFC 7638 thumbprint if it has no kid; "" if the token is opaque
	Hash   string // base64url SHA-256 of header.payload, or of the whole token if it is opaque
	// IssuedAt and Expires are the iat and exp claims in seconds since the
	// epoch (RFC 7519 §2 NumericDate); HasIssuedAt tells an absent iat from 0. Expires is
	// +Inf if the issuer of an opaque token names no end.
	IssuedAt, Expires float64
	HasIssuedAt       bool
	// PrivilegesMissing says that none of the claims that carry privileges was
	// there or had a usable type, so that a log can tell why.
	PrivilegesMissing bool
	// PrivilegesUnreadable says that one of those claims, or an item of one, was of
	// another type: that a privilege is not among Privileges then says nothing.
	PrivilegesUnreadable bool
	Privileges           []string // what the issuer's privileges_from found, prefixed, in the token's order
	// Certificate is the base64url SHA-256 of the client certificate that the
	// token is bound to (cnf.x5t#S256, RFC 8705 §3.1), or "". Who forwards the
	// request must check it: the token alone cannot show it.
	Certificate string

	memo atomic.Value
}

// Recall returns what [Verified.Remember] kept, or nil.
func (v *Verified) Recall() any { return v.memo.Load() }

// Remember keeps one value that was derived from the token, in place of
// another, so that it need not be derived for each request. It must always be
// of the same type, a pointer, and tell itself who derived it.
func (v *Verified) Remember(value any) { v.memo.Store(value) }
