package gateway

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestOverridesCostWhatTheyAskFor: a backend that heeds an override does the
// work of that method, so a limit charges the dearer one.
func TestOverridesCostWhatTheyAskFor(t *testing.T) {
	heeds := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("X-Http-Method-Override")+r.URL.Query().Get("_method"))
	}))
	defer heeds.Close()
	b := newBench(t, http.NotFound, `
  - match: /heroes/{id}
    public: true
    limits: [dear_deletes]
    upstream: `+heeds.URL+`
limits:
  dear_deletes:
    key: ["header:X-Caller"]
    rate: 60/1h
    cost:
      POST: 1
      DELETE: 50
      OPTIONS: 0
`)
	for _, c := range []struct {
		method, query, override, left string
	}{
		{"POST", "", "", "59"},
		{"DELETE", "", "", "10"},
		{"POST", "", "DELETE", "10"},
		{"POST", "", "delete", "10"},
		{"POST", "", "PUT, DELETE", "10"},
		{"POST", "?_method=DELETE", "", "10"},
		{"POST", "?_method=PUT", "", "59"},
		{"OPTIONS", "?_method=POST", "DELETE", "10"},
		{"DELETE", "?_method=POST", "OPTIONS", "10"},
		{"DELETE", "", "DELETE", "10"},
	} {
		caller := c.method + c.query + " " + c.override // with a bucket of its own
		r, err := http.NewRequestWithContext(t.Context(), c.method, b.front.URL+"/heroes/1"+c.query, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Caller", caller)
		if c.override != "" {
			r.Header.Set("X-Http-Method-Override", c.override)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if said := c.override + strings.TrimPrefix(c.query, "?_method="); string(body) != said {
			t.Errorf("%s: %d, and the backend was told %q, want %q", caller, res.StatusCode, body, said)
		}
		if got := res.Header.Get("RateLimit"); !strings.HasPrefix(got, `"dear_deletes";r=`+c.left+`;`) {
			t.Errorf("%s: RateLimit %q, want %s left", caller, got, c.left)
		}
	}
}
