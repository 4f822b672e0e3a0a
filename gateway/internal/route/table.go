package route

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// Pattern is one route's match in net/http.ServeMux's terms.
type Pattern struct {
	Methods      []string // upper case; empty: every method
	Host         string   // lower case, without a port; empty: every host
	Path         string   // with {name}, {name...} and {$}
	EncodedSlash bool     // whether %2f may stand inside a segment
	IgnoreCase   bool     // whether other cases of the path's letters are this pattern's, too
}

// Match is what a request was found to be for.
type Match struct {
	Index int    // which pattern, as given to [New]
	Path  string // the canonical escaped path, byte for byte as the client sent it
}

// NotFound says that no pattern matches.
type NotFound struct{}

func (*NotFound) Error() string { return "no route matches" }

// MethodNotAllowed says that the path has routes, but not for this method.
type MethodNotAllowed struct{ Allow string } // as in the Allow header, RFC 9110 §10.2.1

func (e *MethodNotAllowed) Error() string { return "method not allowed; allowed are " + e.Allow }

// Table maps requests to patterns. It is immutable and safe for concurrent use.
type Table struct {
	mux      *http.ServeMux
	folded   *http.ServeMux // of the patterns with their letters folded; nil unless one of them ignores case
	patterns []Pattern
}

// New builds the table. The errors go with the patterns: an error of a pattern
// says what it conflicts with, with an example of a path that both match, or
// why no request can reach it.
func New(patterns []Pattern) (*Table, []error) {
	t := &Table{mux: http.NewServeMux(), patterns: slices.Clone(patterns)}
	t.cover()
	errs := make([]error, len(patterns))
	for i, p := range patterns {
		for _, method := range p.everyMethod() {
			if err := register(t.mux, method, p.Host+p.Path, i); err != nil {
				errs[i] = err
				break
			}
		}
	}
	t.fold(errs)
	for i, p := range t.patterns {
		if errs[i] != nil {
			continue
		}
		var bad *BadPath
		if r, err := p.example(); err != nil {
			errs[i] = fmt.Errorf("no request can reach it: %w", err)
		} else if _, err := t.Match(r); errors.As(err, &bad) {
			errs[i] = fmt.Errorf("no request can reach it, since such a path is refused: %s", bad.Detail)
		}
	}
	return t, errs
}

// register turns the panic by which ServeMux reports a conflict into an error.
func register(mux *http.ServeMux, method, pattern string, i int) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s", cleanConflict(fmt.Sprint(r)))
		}
	}()
	mux.Handle(strings.TrimLeft(method+" "+pattern, " "), hit(i))
	return nil
}

// cleanConflict drops what means nothing to the writer of a YAML file: the Go
// source position that ServeMux puts behind each pattern.
func cleanConflict(s string) string {
	var b strings.Builder
	for {
		i := strings.Index(s, " (registered at ")
		if i < 0 {
			return strings.ReplaceAll(b.String()+s, "\n", " ")
		}
		b.WriteString(s[:i])
		_, rest, _ := strings.Cut(s[i:], ")")
		s = rest
	}
}

// hit is the handler of one pattern; it tells the finder its index.
type hit int

func (h hit) ServeHTTP(w http.ResponseWriter, _ *http.Request) { w.(*finder).index = int(h) }

// finder is the http.ResponseWriter through which ServeMux answers: either a
// hit, or one of its own handlers with a status and, for 405, an Allow header.
type finder struct {
	index  int
	status int
	header http.Header
}

func (f *finder) Header() http.Header {
	if f.header == nil {
		f.header = http.Header{}
	}
	return f.header
}
func (f *finder) Write(b []byte) (int, error) { return len(b), nil }
func (f *finder) WriteHeader(status int)      { f.status = status }

// Match finds the pattern for r and sets r's path values and pattern, as
// ServeMux does. r.Host must be canonical already: [CanonicalHost]. Errors are
// [*BadPath], [*NotFound] and [*MethodNotAllowed].
func (t *Table) Match(r *http.Request) (Match, error) {
	path := r.URL.RawPath
	if path == "" {
		path = r.URL.EscapedPath()
	}
	facts, err := inspect(path)
	if err != nil {
		return Match{}, err
	}
	index, err := t.find(r, path)
	if facts.ambiguous {
		// Before a 404, too: an ambiguous path is refused in the same words wherever it leads.
		if bad := t.sameForAll(r, path, index); bad != nil {
			return Match{}, bad
		}
	}
	if err != nil {
		return Match{}, err
	}
	if facts.encodedSlash && !t.patterns[index].EncodedSlash {
		return Match{}, badPath("it has %%2f, an encoded slash; the route can allow it with encoded_slash: allow")
	}
	if facts.encodedSlash {
		if bad := t.sameForSlashes(r, path, index); bad != nil {
			return Match{}, bad
		}
	}
	return Match{index, path}, nil
}

// sameForAll refuses a path if a reading that a backend may make of it leads
// anywhere but to the pattern index.
func (t *Table) sameForAll(r *http.Request, path string, index int) error {
	others, err := readings(path)
	if err != nil {
		return err
	}
	for other := range others {
		facts, err := inspect(other)
		if err != nil {
			return badPath("a backend may read it as another path, and then %s", strings.TrimPrefix(err.Error(), "bad path: "))
		}
		if i, _ := t.find(at(r, other), other); i != index {
			return badPath("a backend may read it as another path, which is not this route's")
		}
		if facts.encodedSlash {
			if bad := t.sameForSlashes(r, other, index); bad != nil {
				return bad
			}
		}
	}
	return nil
}

// sameForSlashes refuses a path with %2f if a backend that takes it for a
// slash reads the path of another pattern, unless that one is for the path as
// it stands, too, and only less specific.
func (t *Table) sameForSlashes(r *http.Request, path string, index int) error {
	other := slashes.Replace(path)
	if other == path {
		return nil
	}
	i, _ := t.find(at(r, other), other)
	if i < 0 || i == index {
		return nil
	}
	if _, off := t.patterns[i].pathMisses(strings.Split(path[1:], "/")); off == 0 {
		return nil
	}
	return badPath("it has %%2f, and with a slash there it is another route's")
}

var slashes = strings.NewReplacer("%2f", "/", "%2F", "/")

// at is r with another escaped path, whose escapes are good.
func at(r *http.Request, path string) *http.Request {
	decoded, _ := url.PathUnescape(path)
	return &http.Request{Method: r.Method, Host: r.Host, URL: &url.URL{Path: decoded, RawPath: path}}
}

// find returns the pattern of r, whose escaped path is path; index is -1 with
// an error. Where another case of letters leads to a pattern that ignores it,
// that is the one.
func (t *Table) find(r *http.Request, path string) (index int, err error) {
	index, err = ask(t.mux, r)
	if t.folded == nil {
		return index, err
	}
	folded := foldPath(path)
	i, _ := ask(t.folded, at(r, folded))
	if i < 0 || i == index || !t.patterns[i].IgnoreCase {
		return index, err
	}
	was := r.URL
	r.URL = at(r, t.patterns[i].respell(path)).URL
	index, err = ask(t.mux, r) // sets r's path values
	r.URL = was
	return index, err
}

// finders are reused: ServeMux takes one as an interface, which would be an
// allocation for each request.
var finders = sync.Pool{New: func() any { return new(finder) }}

// ask asks ServeMux; index is -1 with an error.
func ask(mux *http.ServeMux, r *http.Request) (index int, err error) {
	f := finders.Get().(*finder)
	defer finders.Put(f)
	*f = finder{index: -1}
	mux.ServeHTTP(f, r)
	switch {
	case f.index >= 0:
		return f.index, nil
	case f.status == http.StatusMethodNotAllowed:
		return -1, &MethodNotAllowed{f.header.Get("Allow")}
	}
	return -1, &NotFound{} // a redirect of ServeMux's, to a trailing slash, too
}

// everyMethod is what the pattern is registered for, "" for whatever method.
func (p Pattern) everyMethod() []string {
	if len(p.Methods) == 0 {
		return []string{""}
	}
	return p.Methods
}

// example is a request for the pattern, with ~ for every wildcard.
func (p Pattern) example() (*http.Request, error) {
	segments := strings.Split(p.Path, "/")
	for i, segment := range segments {
		switch {
		case segment == "{$}":
			segments[i] = ""
		case strings.HasPrefix(segment, "{"):
			segments[i] = "~"
		}
	}
	u, err := url.ParseRequestURI(strings.Join(segments, "/"))
	if err != nil {
		return nil, err
	}
	method := http.MethodGet
	if len(p.Methods) > 0 {
		method = p.Methods[0]
	}
	return &http.Request{Method: method, Host: p.Host, URL: u}, nil
}
