// Package token is the vocabulary that every part of the gateway, and every
// extension from outside, speaks about access tokens: the bytes that a caller
// sent ([Raw]), where in a request they may stand ([Source]), who vouches for
// them ([Verifier], [Verified]), what they claim ([Claims], [Path]) and why a
// request was refused ([Reason], [Error]).
//
// All values are immutable once made and safe for concurrent use.
package token
