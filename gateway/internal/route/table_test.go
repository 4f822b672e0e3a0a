package route

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"strings"
	"testing"
)

// request builds what net/http's server would hand over for that request line.
func request(t testing.TB, method, host, target string) *http.Request {
	t.Helper()
	u, err := url.ParseRequestURI(target)
	if err != nil {
		t.Skipf("net/http refuses the target itself: %v", err)
	}
	return &http.Request{Method: method, Host: host, URL: u, RequestURI: target}
}

func mustTable(t testing.TB, patterns ...Pattern) *Table {
	t.Helper()
	table, errs := New(patterns)
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return table
}

// The table that the stories below share; index 0 is the protected one.
var house = []Pattern{
	{Path: "/admin/{rest...}"},
	{Methods: []string{"GET"}, Path: "/heroes/{id}"},
	{Methods: []string{"POST", "PUT"}, Path: "/heroes/{id}"},
	{Path: "/files/{name}", EncodedSlash: true},
	{Path: "/public/{rest...}"},
	{Host: "api.example.com", Path: "/only"},
	{Path: "/tree/"},
	{Path: "/files/secret/{id}"},
	{Path: "/Case/{id}/Sub/{rest...}", IgnoreCase: true},
}

func TestMatch(t *testing.T) {
	table := mustTable(t, house...)
	for _, c := range []struct {
		method, host, target string
		want                 string
	}{
		{"GET", "h", "/admin/x", "0"},
		{"GET", "h", "/heroes/7", "1"},
		{"HEAD", "h", "/heroes/7", "1"},
		{"PUT", "h", "/heroes/7", "2"},
		{"GET", "h", "/heroes/7?a=//..", "1"},
		{"GET", "h", "/heroes/%41b", "1"},
		{"GET", "h", "/heroes/a%20b", "1"},
		{"GET", "h", "/heroes/...", "400"}, // nothing is left of it on Windows
		{"GET", "h", "/heroes/a.", "1"},
		{"GET", "h", "/heroes/a%20", "1"},
		{"GET", "h", "/heroes./7", "400"},
		{"GET", "h", "/heroes%20/7", "400"},
		{"GET", "h", "/heroes.%2e%20/7", "400"},
		{"GET", "h", "/heroes%2520/7", "400"},
		{"GET", "h", "/public/%e0%80%ae%e0%80%ae/admin", "400"},
		{"GET", "h", "/public/%f0%80%80%ae", "400"},
		{"GET", "h", "/public/%f8%80%80%80%ae", "400"},
		{"GET", "h", "/public/%fc%80%80%80%80%ae", "400"},
		{"GET", "h", "/public/%e0%a4%85", "4"},
		{"GET", "h", "/public/%f0%9f%98%80", "4"},
		{"GET", "h", "/files/secret%2fx", "400"}, // /files/secret/{id} with a slash
		{"GET", "h", "/heroes/.a", "1"},
		{"GET", "h", "/heroes/1;v=2", "1"},
		{"GET", "h", "/heroes/100%25", "1"},
		{"GET", "h", "/heroes/100%25ab", "1"},
		{"GET", "h", "/heroes/what%3f", "1"},
		{"GET", "h", "/files/a%2fb", "3"},
		{"GET", "api.example.com", "/only", "5"},
		{"GET", "api.example.com:8080", "/only", "5"},
		{"GET", "h", "/tree/", "6"},
		{"GET", "h", "/files/secret/x", "7"},
		{"GET", "h", "/Case/A/Sub/B", "8"},
		{"GET", "h", "/cASE/A/sub/B", "8"},
		{"GET", "h", "/%43%61%53e/A/sub/B", "8"},
		{"GET", "h", "/ca\u017fe/A/\u017fub/B", "400"},
		{"GET", "h", "/ca%C5%BFe/A/%C5%BFub/B", "8"}, // a long s
		{"GET", "h", "/case;x/A/sub/B", "400"},
		{"GET", "h", "/PUBLIC/x", "404"},

		{"DELETE", "h", "/heroes/7", "405 GET, HEAD, POST, PUT"},
		{"GET", "h", "/nothing", "404"},
		{"GET", "h", "/tree", "404"}, // ServeMux alone would redirect
		{"GET", "other.example.com", "/only", "404"},
		{"GET", "h", "/Admin/x", "404"},

		{"GET", "h", "//admin/x", "400"},
		{"GET", "h", "/public//admin", "400"},
		{"GET", "h", "/public/../admin/x", "400"},
		{"GET", "h", "/public/./x", "400"},
		{"GET", "h", "/public/..", "400"},
		{"GET", "h", "/public/.", "400"},
		{"GET", "h", "/public/%2e%2e/admin", "400"},
		{"GET", "h", "/public/.%2E/admin", "400"},
		{"GET", "h", "/public/%2e", "400"},
		{"GET", "h", "/public/..%2fadmin", "400"},
		{"GET", "h", "/public%2f..%2fadmin", "400"},
		{"GET", "h", "/public/%2fadmin", "400"},
		{"GET", "h", "/public/a%2fb", "400"},
		{"GET", "h", "/files/a%2f%2fb", "400"},
		{"GET", "h", "/files/a%2f..%2fb", "400"},
		{"GET", "h", "/public/..%5cadmin", "400"},
		{"GET", "h", "/public/x%5Cy", "400"},
		{"GET", "h", `/public/x\y`, "400"},
		{"GET", "h", "/public/%c0%ae%c0%ae/admin", "400"},
		{"GET", "h", "/public/.%0d./admin", "400"},
		{"GET", "h", "/public/x%0a", "400"},
		{"GET", "h", "/public/x%7F", "400"},
		{"GET", "h", "/public/caf%e9", "4"}, // Latin-1, as old backends have it
		{"GET", "h", "/public/x%00", "400"},
		{"GET", "h", "/public/x#y", "400"},
		{"GET", "h", "/public/x[y]", "400"},
		{"GET", "h", "/public/é", "400"},
		{"GET", "h", "/public/..;/admin", "400"},
		{"GET", "h", "/public/..;a=b/admin", "400"},
		{"GET", "h", "/public/..%3b/admin", "400"},
		{"GET", "h", "/public/;x/admin", "400"},
		{"GET", "h", "/admin;x/y", "400"},
		{"GET", "h", "/public/%252e%252e/admin", "400"},
		{"GET", "h", "/public/%25252e%25252e/admin", "400"},
		{"GET", "h", "/public/%2525252525252e/admin", "400"},
		{"GET", "h", "/public/..%252fadmin", "400"},
		{"GET", "h", "/public/%25%32%65%25%32%65/admin", "400"},
		{"GET", "h", "/public/%25%32%35%32%65%252e/admin", "400"},
		{"GET", "h", "/public/100%25%20sure", "4"},
		{"GET", "h", "/public/%255c..", "400"},
		{"GET", "h", "/public/%2500", "400"},
		{"GET", "h", "/heroes/a%252fb", "400"},
		{"GET", "h", "/tree/%3fx", "6"},
		{"GET", "h", "/heroes/%3fx", "400"},
		{"GET", "h", "/heroes/%23x", "400"},
		{"OPTIONS", "h", "*", "400"},
	} {
		t.Run(c.method+" "+c.target, func(t *testing.T) {
			r := request(t, c.method, c.host, c.target)
			m, err := table.Match(r)
			var got string
			var bad *BadPath
			var notAllowed *MethodNotAllowed
			var notFound *NotFound
			switch {
			case err == nil:
				got = fmt.Sprint(m.Index)
				if path, _, _ := strings.Cut(c.target, "?"); m.Path != path {
					t.Errorf("path %q, want the client's bytes %q", m.Path, path)
				}
			case errors.As(err, &bad):
				got = "400"
			case errors.As(err, &notAllowed):
				got = "405 " + notAllowed.Allow
			case errors.As(err, &notFound):
				got = "404"
			}
			if got != c.want {
				t.Errorf("got %s (%v), want %s", got, err, c.want)
			}
		})
	}
}

// TestWhatLiesUnderIgnoresCase: a more specific pattern need not say again that
// the backend ignores case.
func TestWhatLiesUnderIgnoresCase(t *testing.T) {
	patterns := []Pattern{
		{Path: "/admin/{rest...}", IgnoreCase: true},
		{Path: "/admin/keys", Methods: []string{"POST", "GET"}},
		{Host: "a.example", Path: "/Admin/keys"},
		{Path: "/{rest...}"},
	}
	table := mustTable(t, patterns...)
	for _, c := range []struct {
		method, host, target string
		want                 int
	}{
		{"GET", "h", "/admin/keys", 1}, {"GET", "h", "/Admin/KEYS", 1}, {"DELETE", "h", "/Admin/KEYS", 0}, {"GET", "h", "/Admin/x", 0},
		{"GET", "a.example", "/ADMIN/keys", 2}, {"GET", "h", "/Other", 3},
	} {
		if m, err := table.Match(request(t, c.method, c.host, c.target)); err != nil || m.Index != c.want {
			t.Errorf("%s %s%s: %d, %v; want %d", c.method, c.host, c.target, m.Index, err, c.want)
		}
	}
	if _, errs := New(append(patterns, Pattern{Path: "/admin/Keys", Methods: []string{"GET"}})); errs[4] == nil {
		t.Error("of two patterns that such a backend takes for one, one is never reached")
	}
}

func TestPathValues(t *testing.T) {
	r := request(t, "GET", "h", "/heroes/a%20b")
	if _, err := mustTable(t, house...).Match(r); err != nil {
		t.Fatal(err)
	}
	if got := r.PathValue("id"); got != "a b" {
		t.Errorf("id = %q", got)
	}
}

func TestNewExplainsConflicts(t *testing.T) {
	for _, c := range []struct {
		name     string
		patterns []Pattern
		want     string
	}{
		{"overlap", []Pattern{{Path: "/{a}/x"}, {Path: "/y/{b}"}}, "/y/x"},
		{"same", []Pattern{{Path: "/{a}"}, {Path: "/{b}"}}, "same requests"},
		{"methods", []Pattern{{Path: "/a", Methods: []string{"GET"}}, {Path: "/{$}"}, {Path: "/a", Methods: []string{"POST", "GET"}}}, "same requests"},
		{"encoded slash", []Pattern{{Path: "/a%2fb"}}, "no request can reach it"},
		{"parameter", []Pattern{{Path: "/a;b/c"}}, "no request can reach it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, errs := New(c.patterns)
			err := errs[len(errs)-1]
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want it to say %q", err, c.want)
			}
			if strings.Contains(err.Error(), ".go:") {
				t.Errorf("the message names a Go source line: %v", err)
			}
			for _, err := range errs[:len(errs)-1] {
				if err != nil {
					t.Errorf("an innocent pattern is blamed: %v", err)
				}
			}
		})
	}
}

func TestCanonicalHost(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"Example.COM", "example.com"},
		{"example.com.", "example.com"},
		{"example.com.:80", "example.com:80"},
		{"127.0.0.1:8080", "127.0.0.1:8080"},
		{"example.com:", "example.com"},
		{"example.com:65535", "example.com:65535"},
		{"example.com:65536", "bad"},
		{"example.com:+80", "bad"},
		{"example.com:-80", "bad"},
		{"example.com:8_0", "bad"},
		{"[::1]:8080", "[::1]:8080"},
		{"[FE80::1]", "[fe80::1]"},
		{"a_b.internal", "a_b.internal"},
		{"example.com..", "bad"},
		{"a..b", "bad"},
		{".", "bad"},
		{"a@b", "bad"},
		{"a,b", "bad"},
		{"a b", "bad"},
		{"a:b", "bad"},
		{"a:1:2", "bad"},
		{"[::1", "bad"},
		{"[::1]x", "bad"},
		{"exämple.com", "bad"},
	} {
		got, ok := CanonicalHost(c.in)
		if !ok {
			got = "bad"
		}
		if got != c.want {
			t.Errorf("CanonicalHost(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

// TestAmbiguousPathsAreCheap counts what is made of a path before anyone is known
// to have sent it.
func TestAmbiguousPathsAreCheap(t *testing.T) {
	table := mustTable(t, Pattern{Path: "/{rest...}"})
	tail := strings.Repeat("/a.", 1300)
	for _, c := range []struct {
		path string
		most float64 // allocations
	}{
		{"/%25252541" + tail, 50},          // encoded too often: no reading is made
		{"/..." + tail + "/%2541;%3f", 50}, // the first reading has an empty segment, and is the last
		{"/%2541" + tail, 150},             // three readings
		{"/%252541;x%3fy" + tail, 500},     // all that there are
	} {
		r := request(t, "GET", "h", c.path)
		if n := testing.AllocsPerRun(5, func() { _, _ = table.Match(r) }); n > c.most {
			t.Errorf("%.20s: %v allocations, want %v at most", c.path, n, c.most)
		}
	}
	for path, want := range map[string]string{
		"/%2541":           "/%41",
		"/a./%2541":        "/a/%2541 /a./%41 /a/%41",
		"/%252541":         "/%2541 /%41",
		"/x;y%3fz%20./%3b": "/x;y%3fz/%3b /x/ /x;y /x",
	} {
		others, err := readings(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(slices.Collect(others), " "); got != want {
			t.Errorf("%s is read as %s, want %s", path, got, want)
		}
	}
}

// FuzzMatch holds the gate against what a lenient backend does: decode, cut
// parameters, resolve dots, as often as it likes. Whatever reaches the public
// route must not be /admin in any such reading.
func FuzzMatch(f *testing.F) {
	for _, s := range []string{"/public/x", "/public/..;/admin/x", "/public/%252e%252e/admin/x", "/public/..%255cadmin/x", "/%61dmin/x", "/public/%2e%2e%3bx/admin/x"} {
		f.Add(s)
	}
	table := mustTable(f, Pattern{Path: "/admin/{rest...}"}, Pattern{Path: "/{rest...}"})
	f.Fuzz(func(t *testing.T, target string) {
		r := request(t, "GET", "h", target)
		m, err := table.Match(r)
		if err != nil || m.Index == 0 {
			return
		}
		path, _, _ := strings.Cut(target, "?")
		for range 3 {
			for _, reading := range []string{path, lenient(path), strings.ReplaceAll(path, `\`, "/")} {
				if strings.HasPrefix(lenient(reading), "/admin/") {
					t.Fatalf("%q reaches the public route, and a backend may read it as %q", target, lenient(reading))
				}
			}
			decoded, err := url.PathUnescape(path)
			if err != nil {
				return
			}
			path = decoded
		}
	})
}

// lenient cuts path parameters and resolves dot segments, as servlet containers do.
func lenient(path string) string {
	var out []string
	for segment := range strings.SplitSeq(path, "/") {
		segment, _, _ = strings.Cut(segment, ";")
		switch segment {
		case "", ".":
		case "..":
			out = out[:max(0, len(out)-1)]
		default:
			out = append(out, segment)
		}
	}
	return "/" + strings.Join(out, "/") + "/"
}

func TestTenThousandRoutes(t *testing.T) {
	patterns := make([]Pattern, 10_000)
	for i := range patterns {
		patterns[i] = Pattern{Methods: []string{"GET"}, Path: fmt.Sprintf("/service%d/items/{id}", i)}
	}
	table := mustTable(t, patterns...)
	for _, i := range []int{0, 4999, 9999} {
		m, err := table.Match(request(t, "GET", "h", fmt.Sprintf("/service%d/items/7", i)))
		if err != nil || m.Index != i {
			t.Errorf("route %d: got %v, %v", i, m, err)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		patterns := make([]Pattern, n)
		for i := range patterns {
			patterns[i] = Pattern{Methods: []string{"GET"}, Path: fmt.Sprintf("/service%d/items/{id}", i)}
		}
		table := mustTable(b, patterns...)
		r := request(b, "GET", "h", fmt.Sprintf("/service%d/items/7", n/2))
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := table.Match(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAmbiguous(b *testing.B) {
	tail := strings.Repeat("/a.", 1300)
	table := mustTable(b, Pattern{Path: "/{rest...}"})
	for name, path := range map[string]string{
		"too often": "/%25252541" + tail,
		"bad":       "/..." + tail + "/%2541;%3f",
		"usual":     "/heroes/a;b",
		"all":       "/%252541;x%3fy" + tail,
	} {
		r := request(b, "GET", "h", path)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = table.Match(r)
			}
		})
	}
}
