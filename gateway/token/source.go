package token

import "net/http"

// Source is one place of a request that may carry a token. Implementations
// are safe for concurrent use and comparable with ==, so that two issuers that
// read the same place share one source.
type Source interface {
	// Find returns the token that stands in this place of r; found is false
	// where there is none. A place that holds two tokens, or something that
	// cannot be a token where one must be, is an *[Error] with [BadRequest].
	Find(r *http.Request) (raw Raw, found bool, err error)
	// Remove takes the token out of r, which is about to be forwarded, and
	// leaves every other byte as it is.
	Remove(r *http.Request)
	// String names the place for logs: "header Authorization".
	String() string
}
