package gateway

import (
	"net/http"
	"strings"
	"testing"
)

const goodTrace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestTrace(t *testing.T) {
	for _, c := range []struct {
		name, header string
		trusted      bool
		extended     bool
	}{
		{"trusted", goodTrace, true, true},
		{"untrusted", goodTrace, false, false},
		{"none", "", true, false},
		{"later version with more fields", "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", true, true},
		{"version 00 with more fields", goodTrace + "-more", true, false},
		{"version ff", "ff" + goodTrace[2:], true, false},
		{"upper case", strings.ToUpper(goodTrace), true, false},
		{"zero trace", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", true, false},
		{"zero parent", "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", true, false},
		{"short", "00-4bf9-00f067aa0ba902b7-01", true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := http.Header{}
			if c.header != "" {
				h.Set("Traceparent", c.header)
			}
			got := traceOf(&http.Request{Header: h}, c.trusted, randomHex(24))
			if _, _, _, ok := parseTraceparent(got.parent()); !ok {
				t.Errorf("%q is no traceparent", got.parent())
			}
			if got.extended() != c.extended || c.extended != strings.Contains(got.parent(), "4bf92f3577b34da6a3ce929d0e0e4736") {
				t.Errorf("got %+v", got)
			}
			if strings.Contains(got.parent(), "00f067aa0ba902b7") {
				t.Error("the parent's id was not replaced by the gateway's")
			}
		})
	}
}

func TestRequestID(t *testing.T) {
	for _, c := range []struct {
		name, header string
		trusted      bool
		kept         bool
	}{
		{"trusted", "abc-1", true, true},
		{"untrusted", "abc-1", false, false},
		{"too long", strings.Repeat("a", 129), true, false},
		{"with a quote", `a"b`, true, false},
		{"empty", "", true, false},
	} {
		got := requestID(&http.Request{Header: http.Header{"X-Request-Id": {c.header}}}, c.trusted, randomHex(16))
		if (got == c.header) != c.kept || !isID(got) {
			t.Errorf("%s: got %q", c.name, got)
		}
	}
	if a, b := randomHex(16), randomHex(16); a == b || len(a) != 32 {
		t.Errorf("random ids %q and %q", a, b)
	}
}
