package upstream

import (
	"context"
	"net/url"
)

// Target is one server of an upstream, as a [Source] tells of it.
type Target struct {
	URL    *url.URL // scheme, host for Host and SNI, and a path that is put before each request's; not changed afterwards
	Dial   string   // where to connect to: "host:port", or "unix:/path"; "": the URL's host
	Weight int      // at least 1
}

// Source tells which targets an upstream has. Run calls set with the whole set
// whenever it changes, never in two goroutines at once, and returns when ctx
// ends; a source that is down keeps the last good set, so set is never called
// with an empty one unless the source says that there are none.
type Source interface {
	Run(ctx context.Context, set func([]Target))
}
