package config

import (
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The tree finds what net/http's own router finds, in tables made at random.
func TestTreeIsServeMux(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	pick := func(list ...string) string { return list[rng.IntN(len(list))] }
	found := 0
	for range 500 {
		mux, tree := http.NewServeMux(), &tree{}
		var routes []*Route
		for range 12 {
			m := Match{Path: pick("", "/a", "/b", "/{x}", "/a/{y}", "/{x}/b", "/{x}/{y}") + pick("", "", "/{$}", "/", "/{r...}", "/c")}
			if m.Path == "" {
				continue
			}
			if method := pick("", "GET", "POST", "HEAD"); method != "" {
				m.Methods = []string{method}
			}
			if n := len(routes); register(mux, m.Pattern(), n) {
				routes = append(routes, &Route{Match: m})
				tree.add(shape(m.Path), n)
			}
		}
		for _, r := range routes {
			segments := shape(r.Match.Path)
			if slices.Contains(segments, rest) {
				continue // stands for paths that different routes may match
			}
			path := "/" + strings.NewReplacer(one, "zz", end, "").Replace(strings.Join(segments, "/"))
			for _, method := range []string{"GET", "HEAD", "POST", "PUT"} {
				h, pattern := mux.Handler(httptest.NewRequest(method, path, nil))
				i, ok := h.(handler)
				if !ok && pattern != "" {
					continue // a redirect to the path with a slash, which the gateway never sends
				}
				want := -1
				if ok {
					want = int(i)
				}
				got := tree.find(segments, method, routes)
				if got != want {
					t.Errorf("%s %s gives %d, net/http %d of %v", method, path, got, want, patterns(routes))
				}
				if want >= 0 {
					found++
				}
			}
		}
	}
	if found < 1000 {
		t.Errorf("only %d requests were matched; the tables are too thin to tell anything", found)
	}
}

// handler is the number of a route.
type handler int

func (handler) ServeHTTP(http.ResponseWriter, *http.Request) {}

// register says whether the pattern conflicts with none before it.
func register(mux *http.ServeMux, pattern string, n int) (ok bool) {
	defer func() { ok = recover() == nil }()
	mux.Handle(pattern, handler(n))
	return
}

func patterns(routes []*Route) []string {
	var list []string
	for i, r := range routes {
		list = append(list, strconv.Itoa(i)+": "+r.Match.Pattern())
	}
	slices.Sort(list)
	return list
}
