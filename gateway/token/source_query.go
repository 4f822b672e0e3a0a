package token

import (
	"net/http"
	"net/url"
	"strings"
)

// Query is a [Source]: the query parameter of that name (RFC 6750 §2.3). URLs
// end up in logs and histories, so it is off unless asked for.
type Query struct{ Name string }

// Find implements [Source]. A query that net/url cannot parse is refused: the
// backend might find a token in it that the gateway did not see.
func (q Query) Find(r *http.Request) (Raw, bool, error) {
	if r.URL.RawQuery == "" {
		return Raw{}, false, nil
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return Raw{}, false, Errorf(BadRequest, "the query cannot be parsed, and on this route it may carry a token")
	}
	values := query[q.Name]
	switch {
	case len(values) == 0:
		return Raw{}, false, nil
	case len(values) > 1:
		return Raw{}, false, Errorf(BadRequest, "the query parameter %s is there %d times", q.Name, len(values))
	case !isToken68(values[0]):
		return Raw{}, false, Errorf(BadRequest, "the query parameter %s holds no well-formed token", q.Name)
	}
	return NewRaw(values[0]), true, nil
}

// Remove implements [Source].
func (q Query) Remove(r *http.Request) {
	var kept []string
	for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
		name, _, _ := strings.Cut(pair, "=")
		if name, err := url.QueryUnescape(name); err == nil && name == q.Name {
			continue
		}
		kept = append(kept, pair)
	}
	r.URL.RawQuery = strings.Join(kept, "&")
}

// String implements [Source].
func (q Query) String() string { return "query parameter " + q.Name }
