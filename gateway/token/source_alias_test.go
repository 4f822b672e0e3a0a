package token

import (
	"errors"
	"net/http"
	"strings"
	"testing"
)

// A backend that folds names, as CGI does, must not find a second value beside
// the one that was verified and taken out.
func TestRemoveTakesAliases(t *testing.T) {
	r := &http.Request{Header: http.Header{"X-Token": {"T"}, "X_token": {"evil"}, "X.Token": {"evil"}, "X-Tokens": {"stays"}}}
	Header{Name: "X-Token"}.Remove(r)
	if len(r.Header) != 1 || r.Header["X-Tokens"] == nil {
		t.Errorf("left: %v", r.Header)
	}
}

// What no scheme can hold ends it: a lenient backend might read a token there.
func TestBearerWithoutASpace(t *testing.T) {
	for value, want := range map[string]Reason{"Bearer,T": BadRequest, "Bearer\tT": BadRequest, "Bearer": BadRequest, "Bearer T": "", "BearerX T": "", "Basic T": ""} {
		_, found, err := Bearer.Find(&http.Request{Header: http.Header{"Authorization": {value}}})
		var got Reason
		if e := (*Error)(nil); errors.As(err, &e) {
			got = e.Reason
		}
		if got != want || found != (value == "Bearer T") {
			t.Errorf("%q: %q, found %v", value, got, found)
		}
	}
}

func TestWebSocketProtocol(t *testing.T) {
	s := WebSocketProtocol{Marker: "access_token"}
	for _, c := range []struct{ offered, token, left string }{
		{"access_token, T", "T", ""},
		{"chat, access_token, T, v2", "T", "chat, v2"},
		{"T, access_token, T, T", "T", ""}, // every copy goes, not only the one that was read
		{"chat", "", "chat"},
		{"access_token", "400", ""},
		{"access_token, ", "400", ""},
		{"access_token, T, access_token, U", "400", ""},
	} {
		r := &http.Request{Header: http.Header{protocols: {c.offered}}}
		raw, _, err := s.Find(r)
		got := raw.Reveal()
		if err != nil {
			got = "400"
		}
		if got != c.token {
			t.Errorf("%s: %q, %v", c.offered, got, err)
		}
		if err != nil {
			continue
		}
		s.Remove(r)
		if left := strings.Join(r.Header[protocols], "|"); left != c.left {
			t.Errorf("%s: left %q, want %q", c.offered, left, c.left)
		}
	}
}
