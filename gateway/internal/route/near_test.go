package route

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestNear(t *testing.T) {
	table := mustTable(t, append(slices.Clone(house), Pattern{Path: "/"}, Pattern{Methods: []string{"GET"}, Path: "/tree/{$}"})...)
	for _, c := range []struct{ method, host, target, want string }{
		{"DELETE", "h", "/heroes/7", "9 matches, too, and is less specific|1 is for the method GET|2 is for the method POST, PUT"},
		{"GET", "h", "/heroes/7", "9 matches, too, and is less specific|2 is for the method POST, PUT"},
		{"GET", "h", "/heros/7", `9 matches, too, and is less specific|1 has heroes where the path has "heros"`},
		{"GET", "h", "/heroes/7/x", `9 matches, too, and is less specific|1 ends before "/x"`},
		{"GET", "h", "/heroes", "9 matches, too, and is less specific|1 goes on with /{id}"},
		{"GET", "other.example.com:80", "/only", "9 matches, too, and is less specific|5 is for the host api.example.com"},
		{"GET", "h", "/tree/", "6 matches, too, and is less specific|9 matches, too, and is less specific"},
	} {
		r := request(t, c.method, c.host, c.target)
		chosen := -1
		if m, err := table.Match(r); err == nil && m.Index != 9 {
			chosen = m.Index
		}
		var got []string
		for _, n := range table.Near(r, chosen, 0) {
			got = append(got, string(rune('0'+n.Index))+" "+n.Why)
		}
		for _, want := range strings.Split(c.want, "|") {
			if !slices.Contains(got, want) {
				t.Errorf("%s %s: %q lacks %q", c.method, c.target, got, want)
			}
		}
	}
	if near := table.Near(request(t, "GET", "h", "/users/7"), -1, 7); near != nil {
		t.Errorf("quite another path has near ones: %v", near)
	}
	if near := table.Near(request(t, "DELETE", "h", "/heroes/7"), -1, 1); near != nil {
		t.Errorf("looked at one pattern, found %v", near)
	}
}

// ServeMux is the judge: what it chooses, Near's own reading of patterns takes
// for a match, too.
func TestNearAgreesWithServeMux(t *testing.T) {
	table := mustTable(t, append(slices.Clone(house), Pattern{Methods: []string{"GET"}, Path: "/tree/{$}"}, Pattern{Path: "/%7Ea/{b}"})...)
	pieces := []string{"admin", "heroes", "7", "files", "public", "only", "tree", "~a", "%7ea", "x%20y", ""}
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		target := ""
		for range 1 + random.IntN(3) {
			target += "/" + pieces[random.IntN(len(pieces))]
		}
		r := request(t, []string{"GET", "HEAD", "POST", "DELETE"}[random.IntN(4)], []string{"h", "api.example.com", "api.example.com:80"}[random.IntN(3)], target)
		m, err := table.Match(r)
		if err != nil {
			continue
		}
		segments := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
		if why, distance := table.patterns[m.Index].misses(r, segments); distance != 1 {
			t.Fatalf("%s %s is for %+v, of which Near says %q", r.Method, target, table.patterns[m.Index], why)
		}
	}
}
