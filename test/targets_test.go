package test

import (
	"net/http"
	"testing"
)

// Request targets that net/http treats apart go the gateway's way all the same.
func TestOddTargets(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	g := start(t, fill("routes:\n  - match: /{$}\n    public: true\n    upstream: BACKEND\n", "BACKEND", b.URL))
	g.send(t, "OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").refused(t, http.StatusBadRequest, "bad_path")
	b.untouched(t)
	g.send(t, "GET http://h HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").is(t, http.StatusOK)
	if got := b.last(t).line(); got != "GET / HTTP/1.1" {
		t.Errorf("the backend got %s", got)
	}
}
