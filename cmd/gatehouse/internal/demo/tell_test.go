//go:build !nodemo

package demo

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestEveryWrongAnswerIsNoticed corrupts one expectation at a time.
func TestEveryWrongAnswerIsNoticed(t *testing.T) {
	calls := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++
		switch {
		case r.URL.Path == "/limited" && calls <= 3:
			w.WriteHeader(http.StatusOK)
		case r.URL.Path == "/limited":
			w.Header().Set("Retry-After", "6")
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = w.Write([]byte(`{"reason":"rate_limited"}`))
		case r.Header.Get("Authorization") != "Bearer good":
			w.Header().Set("WWW-Authenticate", "Bearer")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"reason":"invalid_token"}`))
		}
	}))
	defer srv.Close()
	gone := httptest.NewServer(nil)
	gone.Close()

	tests := []struct {
		name string
		step step
		want string // in the error; "" where the answer is the expected one
	}{
		{"accepted", step{token: "good", status: 200}, ""},
		{"refused", step{token: "bad", status: 401, reason: "invalid_token"}, ""},
		{"limited", step{url: "/limited", times: 20, status: 429, reason: "rate_limited", check: retryAfter}, ""},
		{"status", step{token: "bad", status: 200}, "expected 200, but the status is 401"},
		{"accepted what it should refuse", step{token: "good", status: 401, reason: "invalid_token"}, "expected 401 invalid_token, but the status is 200"},
		{"reason", step{token: "bad", status: 401, reason: "expired_token"}, `the reason is "invalid_token"`},
		{"no problem document", step{token: "good", status: 200, reason: "rate_limited"}, "no problem document"},
		{"never limited", step{token: "good", times: 20, status: 429}, "the status is 200"},
		{"limited too late", step{url: "/limited", times: 2, status: 429}, "the status is 200"},
		{"no Retry-After", step{token: "bad", status: 401, check: retryAfter}, "Retry-After"},
		{"check", step{token: "good", status: 200, check: func(answer) ([]string, error) { return nil, errors.New("odd") }}, "odd"},
		{"not a hero", step{token: "good", status: 200, check: heroSaw("admin1", nil, false)}, "no hero"},
		{"nobody there", step{url: gone.URL, status: 200}, "refused"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			calls = 0
			var out strings.Builder
			teller := &teller{screen: newScreen(&out), client: srv.Client()}
			tt.step.title, tt.step.method = tt.name, "GET"
			if !strings.HasPrefix(tt.step.url, "http:") {
				tt.step.url = srv.URL + tt.step.url
			}
			ok := teller.play(t.Context(), tt.step)
			err := teller.err()
			switch {
			case tt.want == "" && (err != nil || !ok):
				t.Errorf("%v, %v\n%s", ok, err, &out)
			case tt.want != "" && (ok || err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "1, "+tt.name)):
				t.Errorf("%v, %v: not an error with %q\n%s", ok, err, tt.want, &out)
			case strings.Contains(out.String(), "✗") != (tt.want != ""):
				t.Errorf("the screen says otherwise:\n%s", &out)
			case strings.Contains(out.String(), "\x1b"):
				t.Errorf("colour on something that is no terminal:\n%q", &out)
			}
		})
	}
}

func TestNothingIsPlayedAfterTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	teller := &teller{screen: newScreen(&strings.Builder{}), client: http.DefaultClient}
	if teller.play(ctx, step{method: "GET", url: "http://127.0.0.1:1/", status: 200}) || teller.played != 0 || teller.err() != nil {
		t.Errorf("played %d, %v", teller.played, teller.err())
	}
}

func TestColour(t *testing.T) {
	if got := (screen{colour: true}).red("no"); got != "\x1b[31mno\x1b[0m" {
		t.Errorf("%q", got)
	}
	if got := (screen{}).red("no"); got != "no" {
		t.Errorf("%q", got)
	}
}

// TestChecksSeeWhatABackendSaw gives each check an answer that a faulty
// gateway would let happen.
func TestChecksSeeWhatABackendSaw(t *testing.T) {
	const good = `{"claims":{"x-jwt-sub":"admin1","x-jwt-privileges":"ASSIGN_HERO"},"authorization":false}`
	const token = `{"claims":{"x-jwt-sub":"admin1","x-jwt-privileges":"ASSIGN_HERO"},"authorization":true}`
	const root = `{"claims":{"x-jwt-sub":"root and admin1","x-jwt-privileges":"ASSIGN_HERO"},"authorization":false}`
	const other = `{"claims":{"x-jwt-sub":"admin1","x-jwt-privileges":"ASSIGN_HERO,CREATE_HERO"},"authorization":false}`
	saw := heroSaw("admin1", admin1.privileges, false)
	tests := []struct {
		name  string
		check func(answer) ([]string, error)
		body  string
		ok    bool
	}{
		{"hero", saw, `{"seen":` + good + `}`, true},
		{"hero with the token", saw, `{"seen":` + token + `}`, false},
		{"hero with a forged sub", saw, `{"seen":` + root + `}`, false},
		{"hero with more privileges", saw, `{"seen":` + other + `}`, false},
		{"hero with nothing", saw, `{}`, false},
		{"nobody's hero", heroSaw("", admin1.privileges, false), `{"seen":` + good + `}`, false},
		{"assigned", assigned, `{"seen":` + token + `,"hero":{"seen":` + good + `}}`, true},
		{"assigned without token", assigned, `{"seen":` + good + `,"hero":{"seen":` + good + `}}`, false},
		{"assigned, token kept", assigned, `{"seen":` + token + `,"hero":{"seen":` + token + `}}`, false},
		{"assigned as another", assigned, `{"seen":` + token + `,"hero":{"seen":` + root + `}}`, false},
		{"public", sawNothing, `{"seen":{"claims":{}}}`, true},
		{"public with a forged sub", sawNothing, `{"seen":{"claims":{"x-jwt-sub":"root"}}}`, false},
		{"public, no JSON", sawNothing, `ok`, false},
	}
	for _, tt := range tests {
		if _, err := tt.check(answer{status: 200, body: []byte(tt.body)}); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
