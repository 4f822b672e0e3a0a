package test

import (
	"io"
	"net/http"
	"os"
	"testing"
	"time"
)

// large is how many bytes a large body has, and how long one may take: so many
// that a gateway which kept them would be seen to, or 10 GB for make test-large,
// which does without the race detector.
func large() (n int64, in time.Duration) {
	if veryLarge {
		return 10e9, time.Hour
	}
	return 100 << 20, 4 * patience
}

var veryLarge = os.Getenv("GATEHOUSE_TEST_LARGE") != ""

func TestLargeBodiesStreamInBoundedMemory(t *testing.T) {
	t.Parallel()
	n, in := large()
	ca := newAuthority(t)
	shown := ca.issue(t, "127.0.0.1")
	urls := backends(t, func(w http.ResponseWriter, r *http.Request) {
		got, _ := io.Copy(io.Discard, r.Body)
		w.Header().Set("X-Length", itoa(r.ContentLength))
		w.Header().Set("X-Count", itoa(got))
		if r.Method == http.MethodGet {
			_, _ = io.CopyN(w, zeros{}, n)
		}
	}, shown)
	yaml := fill(`
server:
  ADDRESSES
TLS
upstreams:
  two:
    targets: [TWO]
    tls:
      ca_file: ca.pem
routes:
  - match: /one
    public: true
    upstream: ONE
  - match: /two
    public: true
    upstream: two
`, "ONE", urls["one"], "TWO", urls["two"])
	files := append(shown.files("api"), file{"ca.pem", ca.cert})
	clear := start(t, fill(yaml, "TLS", ""), files...)
	secure := start(t, fill(yaml, "TLS", "  tls:\n    cert_file: api.pem\n    key_file: api.key"), files...)
	for name, c := range map[string]struct {
		g    *gateway
		from *caller
		path string
	}{"HTTP/1.1": {clear, clear.caller(t, "http/1.1", nil), "/one"}, "HTTP/2 over TLS": {secure, secure.caller(t, "h2", trusting(ca)), "/two"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.from.Timeout = in
			_ = c.from.send(t, "HEAD", c.path, nil)
			before := c.g.peak(t)
			for _, length := range []int64{n, -1} { // -1: unknown
				req, err := http.NewRequest("POST", c.from.URL+c.path, io.LimitReader(zeros{}, n))
				if err != nil {
					t.Fatal(err)
				}
				req.ContentLength = length
				resp, err := c.from.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
				if got := resp.Header; got.Get("X-Count") != itoa(n) || got.Get("X-Length") != itoa(length) {
					t.Errorf("the backend counted %s bytes and was told of %s", got.Get("X-Count"), got.Get("X-Length"))
				}
			}
			resp := c.from.send(t, "GET", c.path, nil)
			if got, err := io.Copy(io.Discard, resp.Body); got != n || err != nil {
				t.Errorf("got %d bytes, %v", got, err)
			}
			grown := c.g.peak(t) - before
			t.Logf("memory grew by %d MiB from %d", grown, before)
			if grown > 90 {
				t.Errorf("memory grew by %d MiB", grown)
			}
		})
	}
}
