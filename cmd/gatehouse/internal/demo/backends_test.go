//go:build !nodemo

package demo

import (
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
)

func send(t *testing.T, method, u, body string, header http.Header) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequest(method, u, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	status, _, answer := do(t, req)
	return status, answer
}

func startHeroes(t *testing.T) string {
	srv := httptest.NewServer(newHeroes())
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestHeroesService(t *testing.T) {
	u := startHeroes(t)
	// What arrives is told in every spelling that a backend might take for the
	// real one: else the story could not show that nothing arrived.
	status, answer := send(t, "POST", u+"/hero", `{"name":"Magneta"}`,
		http.Header{"X-Jwt-Sub": {"admin2"}, "X_Jwt_Email": {"a@example.com"}, "X.Jwt.Iss": {"x"}, "Authorization": {"Bearer x"}, "X-Other": {"y"}})
	want := map[string]any{
		"id": "1", "name": "Magneta",
		"seen": map[string]any{"authorization": true, "claims": map[string]any{"x-jwt-sub": "admin2", "x-jwt-email": "a@example.com", "x-jwt-iss": "x"}},
	}
	if status != http.StatusCreated || !reflect.DeepEqual(answer, want) {
		t.Errorf("POST /hero: %d %v, not %v", status, answer, want)
	}
	if status, answer := send(t, "GET", u+"/hero/1", "", nil); status != http.StatusOK || answer["name"] != "Magneta" {
		t.Errorf("GET /hero/1: %d %v", status, answer)
	}
	for _, tt := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/hero/2", "", 404},
		{"GET", "/hero/0", "", 404},
		{"GET", "/hero/x", "", 404},
		{"POST", "/hero", "no JSON", 400},
		{"POST", "/hero", `{"name":""}`, 400},
		{"POST", "/hero", `{"name":"` + strings.Repeat("x", maxBody) + `"}`, 400},
		{"GET", "/healthz", "", 200},
	} {
		if status, _ := send(t, tt.method, u+tt.path, tt.body, nil); status != tt.status {
			t.Errorf("%s %s %.20s: %d, not %d", tt.method, tt.path, tt.body, status, tt.status)
		}
	}
}

func TestHeroesServiceIsBounded(t *testing.T) {
	h := newHeroes()
	for i := range maxHeroes + 1 {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", "/hero", strings.NewReader(`{"name":"x"}`)))
		want := http.StatusCreated
		if i == maxHeroes {
			want = http.StatusInsufficientStorage
		}
		if w.Code != want {
			t.Fatalf("hero %d: %d, not %d", i, w.Code, want)
		}
	}
}

func TestThreatsServiceCallsWithItsCallersToken(t *testing.T) {
	heroes := startHeroes(t)
	srv := httptest.NewServer(newThreats(heroes, http.DefaultClient))
	defer srv.Close()
	send(t, "POST", heroes+"/hero", `{"name":"Magneta"}`, nil)

	for _, header := range []http.Header{{"Authorization": {"Bearer x"}}, nil} {
		status, answer := send(t, "POST", srv.URL+"/assign", `{"hero":"1","threat":"flood"}`, header)
		if status != http.StatusOK || answer["threat"] != "flood" {
			t.Fatalf("%d %v", status, answer)
		}
		hero := answer["hero"].(map[string]any)
		if got := hero["seen"].(map[string]any)["authorization"]; hero["name"] != "Magneta" || got != (header != nil) {
			t.Errorf("with %v heroes-service saw %v", header, hero)
		}
	}
	if status, answer := send(t, "GET", srv.URL+"/threats", "", nil); status != http.StatusOK || len(answer["threats"].([]any)) == 0 {
		t.Errorf("GET /threats: %d %v", status, answer)
	}
	for body, want := range map[string]int{
		`{"hero":"9","threat":"flood"}`:         502, // heroes-service says 404
		`{"hero":"../healthz","threat":"none"}`: 502, // stays one segment
		`no JSON`:                               400,
	} {
		if status, _ := send(t, "POST", srv.URL+"/assign", body, nil); status != want {
			t.Errorf("%s: %d, not %d", body, status, want)
		}
	}
}
