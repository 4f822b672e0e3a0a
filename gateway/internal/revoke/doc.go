// Package revoke finds tokens that were withdrawn before they expired, in
// Redis keys that any program can write:
//
//	revoked:{jti,sid}:<iss>:<value>        any value
//	revoked:{kid,jws}:<iss>:<value|hash>   any value; checked for every token
//	revoked:{sub,client_id}:<iss>:<value>  unix seconds: tokens issued until then are out
//
// <iss> is the issuer's name in the configuration. The value "-" means "not
// revoked" for every kind.
package revoke
