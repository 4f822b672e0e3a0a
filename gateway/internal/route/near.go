package route

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
)

// Near is a pattern that a request was not found to be for, and nearly was.
type Near struct {
	Index int    // which pattern, as given to [New]
	Why   string // what the request lacks, or why another pattern wins
}

// maxNear is how many near patterns are told of.
const maxNear = 5

// Near returns the patterns that nearly match r, the nearest first: those that
// match and are less specific than the chosen one, then those that only
// another method, another host or another segment keeps from matching. chosen
// is what [Table.Match] found, or -1. r.Host must be canonical already. At most
// look patterns are looked at, so that many refusals cost little in a large
// table; 0 looks at all.
func (t *Table) Near(r *http.Request, chosen, look int) []Near {
	if look == 0 || look > len(t.patterns) {
		look = len(t.patterns)
	}
	segments := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	type candidate struct {
		Near
		distance int
	}
	var found []candidate
	for i := range t.patterns[:look] {
		if i == chosen {
			continue
		}
		if why, distance := t.patterns[i].misses(r, segments); distance > 0 {
			found = append(found, candidate{Near{i, why}, distance})
		}
	}
	slices.SortStableFunc(found, func(a, b candidate) int { return cmp.Compare(a.distance, b.distance) })
	var near []Near
	for _, c := range found[:min(len(found), maxNear)] {
		near = append(near, c.Near)
	}
	return near
}

// misses says what keeps p from matching r, or from being chosen, and how far
// off that is: 1 the least, 0 too far to be worth telling.
func (p Pattern) misses(r *http.Request, segments []string) (why string, distance int) {
	host := p.Host == "" || p.Host == hostOnly(r.Host)
	method := len(p.Methods) == 0 || slices.Contains(p.Methods, r.Method) || r.Method == http.MethodHead && slices.Contains(p.Methods, http.MethodGet)
	path, off := p.pathMisses(segments)
	switch {
	case off == 0 && method && host:
		return "matches, too, and is less specific", 1
	case off == 0 && host:
		return "is for the method " + strings.Join(p.Methods, ", "), 2
	case off == 0 && method:
		return "is for the host " + p.Host, 3
	case off == 1 && method && host:
		return path, 4
	}
	return "", 0
}

// pathMisses says in what a path differs from the pattern's, and in how many ways.
func (p Pattern) pathMisses(segments []string) (why string, off int) {
	want := strings.Split(strings.TrimPrefix(p.Path, "/"), "/")
	open := false // whether the pattern takes whatever follows
	switch last := want[len(want)-1]; {
	case last == "{$}":
		want[len(want)-1] = ""
	case last == "" || strings.HasSuffix(last, "...}"):
		want, open = want[:len(want)-1], true
	}
	for i := range min(len(want), len(segments)) {
		got, err := url.PathUnescape(segments[i])
		if err != nil {
			got = segments[i]
		}
		literal, err := url.PathUnescape(want[i])
		if err != nil {
			literal = want[i]
		}
		wild := strings.HasPrefix(want[i], "{")
		if wild && got != "" || !wild && (got == literal || p.IgnoreCase && foldSegment(segments[i]) == foldSegment(want[i])) {
			continue
		}
		if off++; off > 1 || !wild && !alike(got, literal) {
			return "", 2
		}
		why = fmt.Sprintf("has %s where the path has %q", want[i], short(segments[i]))
		if wild {
			why = "has " + want[i] + " where the path has nothing"
		}
	}
	switch n := len(segments) - len(want); {
	case n == 0 && !open, n > 0 && open:
	case n == 0: // /tree is not below /tree/
		off, why = off+1, "is for what lies below it"
	case n > 0:
		off, why = off+n, fmt.Sprintf("ends before %q", "/"+short(strings.Join(segments[len(want):], "/")))
	default:
		off, why = off-n, "goes on with /"+strings.Join(want[len(segments):], "/")
	}
	return why, off
}

// alike says whether one of the two may be a slip for the other.
func alike(got, want string) bool {
	return len(got) <= 100 && levenshtein.ComputeDistance(strings.ToLower(got), strings.ToLower(want)) <= max(1, min(2, len(want)/3))
}

func hostOnly(host string) string {
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		return host[:i]
	}
	return host
}

// short bounds what a caller can put into a message.
func short(s string) string {
	const most = 40
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
