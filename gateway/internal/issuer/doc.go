// Package issuer verifies tokens against the parties that issue them: it
// reads the token ([Set.Verify]), keeps each issuer's keys fresh ([Issuer])
// and says what the issuer vouches for.
//
// A token's way, cheapest first: its form (RFC 7515 §3.1, strictly), its
// claims (once), the issuer by the iss claim, then algorithm, type and claims
// that need no key; then the signature; and last time and audience, which
// alone change from one request to the next. No refusal before the key lookup
// costs cryptography or I/O.
//
// # Keys
//
// Every key belongs to one issuer and is never tried for another. An issuer has
// either static keys, or a secret, or keys that it publishes; these are an
// immutable set behind an atomic pointer that one goroutine replaces, so
// that a slow provider never holds up a token whose key is known.
//
// A header's kid is a hint (RFC 7515 §4.1.4) and means this:
//   - Keys of exactly that kid that fit the alg are tried, four at most. If
//     one is there, the kid is known and nothing else happens: a bad signature
//     under a known kid causes no fetch.
//   - If no key has that kid, keys that were published without a kid are tried,
//     since they may bear any name. If none verifies, the kid is unknown.
//   - Without a kid, every fitting key is tried, four at most. If they all fail
//     the token is bad; after a rotation among keys without kid the regular
//     refresh brings the new ones. Without any fitting key it counts as an
//     unknown kid.
//
// A key fits an alg if its kty and curve do (RFC 7518 §3.1, RFC 8037 §3.1), its
// own alg is absent or equal, its use is absent or sig, and its key_ops, if
// there are any, include verify. One key that is of no use never spoils a set.
//
// # Introspection
//
// An issuer can be asked about tokens (RFC 7662): about opaque ones, of which
// nothing else can be known, and about JWTs that were verified here. What it
// said is kept for a while, for each issuer apart, and judged on each request
// as a verified token is. That it cannot be asked is never the token's fault.
package issuer
