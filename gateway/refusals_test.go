package gateway

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"gatehouse/gateway/config"
	"gatehouse/gateway/token"
)

// ask asks the admin listener.
func (b *bench) ask(method, path, body string) (int, string) {
	b.t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, "http://127.0.0.1:9901"+path, strings.NewReader(body))
	r.RemoteAddr = "127.0.0.1:1"
	b.gateway.Admin().ServeHTTP(w, cameTo(r, "127.0.0.1"))
	return w.Code, w.Body.String()
}

const adminYAML = `
server:
  admin: 127.0.0.1:9901
`

func TestRefusalsAreKeptWithTheirExplanation(t *testing.T) {
	b := newBench(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }, adminYAML)
	raw := b.token(b.claims(`"privileges":["WRITE"]`))
	res, _ := b.get("/guarded?secret=hidden&access_token="+raw, raw)
	id := res.Header.Get("X-Request-Id")
	if res.StatusCode != http.StatusForbidden || id == "" {
		t.Fatal(res.Status)
	}
	if res, _ := b.get("/guarded", b.token(b.claims(`"privileges":["READ"]`))); res.StatusCode != http.StatusOK {
		t.Fatal(res.Status)
	}
	if res, _ := b.get("/gaurded/"+raw, ""); res.StatusCode != http.StatusNotFound {
		t.Fatal(res.Status)
	}
	status, list := b.ask("GET", "/refusals", "")
	var got struct{ Refusals []RefusedRequest }
	if err := json.Unmarshal([]byte(list), &got); err != nil || status != http.StatusOK {
		t.Fatal(status, list, err)
	}
	if len(got.Refusals) != 2 || got.Refusals[0].Reason != noRoute || got.Refusals[1].RequestID != id {
		t.Fatalf("the list is %s", list)
	}
	r := got.Refusals[1]
	if r.Route != "/guarded" || r.Method != "GET" || r.Path != "/guarded" || r.Status != 403 || r.Reason != "insufficient_privileges" ||
		r.Detail != "missing privilege READ" || r.Issuer != "main" || r.Subject != "alice" || r.Client != "127.0.0.1" || time.Since(r.Time) > time.Minute || r.Explanation != nil {
		t.Errorf("%+v", r)
	}
	_, one := b.ask("GET", "/refusals/"+id, "")
	var whole RefusedRequest
	if err := json.Unmarshal([]byte(one), &whole); err != nil || whole.Explanation == nil {
		t.Fatal(one, err)
	}
	var rungs []string
	for _, s := range whole.Explanation.Steps {
		rungs = append(rungs, s.Rung)
	}
	if got, want := strings.Join(rungs, " "), "request route token form issuer algorithm kind signature audience time privileges insufficient_privileges"; got != want {
		t.Errorf("the rungs are %s, want %s", got, want)
	}
	for _, text := range []string{list, one} {
		if strings.Contains(text, raw) || strings.Contains(text, raw[len(raw)-40:]) || strings.Contains(text, "hidden") {
			t.Errorf("a token or a query is shown: %s", text)
		}
	}
	if status, _ := b.ask("GET", "/refusals/nothing", ""); status != http.StatusNotFound {
		t.Errorf("a refusal that is not there: %d", status)
	}
}

// What failed at its upstream was ready to go there, with its query.
func TestFailuresAreKeptWithoutTheirQuery(t *testing.T) {
	b := newBench(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, adminYAML)
	res, _ := b.get("/open?code=hidden", "")
	if res.StatusCode != http.StatusBadGateway {
		t.Fatal(res.Status)
	}
	if _, one := b.ask("GET", "/refusals/"+res.Header.Get("X-Request-Id"), ""); !strings.Contains(one, "upstream_refused") || strings.Contains(one, "hidden") {
		t.Errorf("kept is %s", one)
	}
}

func TestRefusalsAreBounded(t *testing.T) {
	b := newBench(t, func(http.ResponseWriter, *http.Request) {}, adminYAML)
	raw := b.token(b.claims(`"privileges":["` + strings.Repeat("x", 8000) + `"]`))
	for range keptRefusals + 3 {
		r := httptest.NewRequest("GET", "/guarded", nil)
		r.Header.Set("Authorization", "Bearer "+raw)
		b.gateway.ServeHTTP(httptest.NewRecorder(), r)
	}
	_, list := b.ask("GET", "/refusals", "")
	if n := strings.Count(list, `"request_id"`); n != keptRefusals {
		t.Errorf("%d are kept, want %d", n, keptRefusals)
	}
	for _, r := range b.gateway.refusals.all() {
		if text, err := json.Marshal(r); err != nil || len(text) > keptBytes+8<<10 {
			t.Fatalf("%d bytes of one refusal, %v", len(text), err)
		}
	}
	e := &Explanation{}
	for i := range 5000 {
		e.note("policy", "step %d %s", i, strings.Repeat("y", i))
	}
	e.note("last", "why")
	if e.cut(); e.Steps[len(e.Steps)-1].Rung != "last" || e.Steps[0].Found != "step 0 " {
		t.Error("the first or the last step is gone")
	}
	if text, err := json.Marshal(e); err != nil || len(text) > keptBytes+4<<10 {
		t.Errorf("%d bytes, %v", len(text), err)
	}
}

// Without server.admin nobody could ask, and so nothing is kept.
func TestRefusalsAreOffByDefault(t *testing.T) {
	b := newBench(t, func(http.ResponseWriter, *http.Request) {}, "")
	b.get("/guarded", "")
	if kept := b.gateway.refusals.all(); len(kept) != 0 {
		t.Errorf("kept %+v", kept[0])
	}
	if status, _ := b.ask("GET", "/refusals", ""); status != http.StatusNotFound {
		t.Errorf("status %d", status)
	}
}

func TestExplainOnTheAdminListener(t *testing.T) {
	b := newBench(t, func(http.ResponseWriter, *http.Request) { t.Error("something was forwarded") }, `
limits:
  two:
    key: [ip]
    rate: 2/1h
defaults:
  limits: [two]
`+adminYAML)
	raw := b.token(b.claims(`"privileges":["READ"]`))
	for range 5 { // no limit is charged
		for _, body := range []string{
			fmt.Sprintf(`{"method":"GET","url":"/guarded?a=b","client":"10.0.0.1","token":%q}`, raw),
			`{"url":"/guarded?a=b","claims":{"sub":"alice","privileges":["READ"]},"issuer":"main"}`,
		} {
			status, text := b.ask("POST", "/explain", body)
			var e Explanation
			if err := json.Unmarshal([]byte(text), &e); err != nil || status != http.StatusOK || !e.Forwarded() || e.Forward.Path != "/guarded?a=b" {
				t.Fatal(status, text, err)
			}
			if strings.Contains(text, raw) {
				t.Error("the token is shown")
			}
		}
	}
	for _, body := range []string{``, `[]`, `{"url":"/x"} {}`, `{"uri":"/x"}`, `{"url":"/x","token":"a","claims":{}}`, `{"url":"/guarded","claims":[]}`, `{"url":"/x","issuer":"nobody"}`, `{"url":"/x","client":"here"}`, `{"url":"/x","headers":["a"]}`, `{"url":"/x","headers":["a: b\r\nc: d"]}`, `{"url":"/x","claims":null,"time":"2026-01-01T00:00:00Z"}`} {
		if status, text := b.ask("POST", "/explain", body); status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", body, status, text)
		}
	}
	for _, body := range []string{`{"url":"/x","issuer":%q}`, `{"url":"/x","client":%q}`, `{"url":"/guarded","claims":%q}`, `{"method":%q,"url":"/x"}`, `{"url":"/x","headers":["Host: x","Host: %s"]}`, `{"url":%q}`} {
		if _, text := b.ask("POST", "/explain", fmt.Sprintf(body, raw)); strings.Contains(text, raw[:30]) {
			t.Errorf("%s: the token is shown: %s", body, text)
		}
	}
	if kept := b.gateway.refusals.all(); len(kept) != 0 {
		t.Errorf("an explanation is kept as a refusal: %+v", kept[0])
	}
}

// A token shows nowhere, though it stand where a policy looks, be a claim, or be cut.
func TestNoPartOfATokenIsShown(t *testing.T) {
	b := newBench(t, func(http.ResponseWriter, *http.Request) {}, adminYAML)
	raw := b.token(b.claims(`"privileges":["READ"],"roles":"` + strings.Repeat("x", 500) + `"`))
	opaque := strings.Repeat("opaque-token-", 30)
	x := &exchange{found: &foundToken{raw: token.NewRaw(opaque)}}
	for name, cut := range map[string]func(string) string{
		"whole": func(s string) string { return s }, "cut": func(s string) string { return s[:160] + "…" }, "cut early": func(s string) string { return s[:40] + "…" },
	} {
		e := &Explanation{Detail: cut(raw), Steps: []Step{{Found: "saw " + cut(opaque) + " and " + cut(raw)}}, Forward: &Forwarded{Path: "/" + cut(opaque), Headers: []Header{{"X-Jwt-Jti", opaque}, {"X-Jwt-Sub", "alice"}}}}
		e.redact(x)
		text, _ := json.Marshal(e)
		if strings.Contains(string(text), "opaque-t") || strings.Contains(string(text), raw[:20]) || !strings.Contains(string(text), "alice") {
			t.Errorf("%s: %s", name, text)
		}
	}
	for _, c := range [][3]string{{"a abc b abc", "abc", "a " + redactedToken + " b " + redactedToken}, {"x", "", "x"}, {redactedToken, redactedToken, redactedToken}} {
		if got := without(c[0], c[1]); got != c[2] {
			t.Errorf("%q without %q is %q", c[0], c[1], got)
		}
	}
}

// To explain a logout would be to log somebody out.
func TestLogoutIsNotExplained(t *testing.T) {
	cfg, _, err := config.Parse("routes.yaml", []byte(`
redis:
  url: redis://127.0.0.1:1
revocation: {}
issuers:
  main:
    issuer: https://id.example.com
    audiences: any
    backchannel_logout:
      path: /logout
      audiences: [gateway]
routes:
  - match: /
    public: true
    upstream: http://127.0.0.1:9000
`), config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []Request{{Method: "POST", URL: "/logout"}, {Method: "POST", URL: "/logout", Claims: []byte(`{}`)}} {
		if e, err := Explain(t.Context(), cfg, q); err == nil || !strings.Contains(err.Error(), "backchannel_logout") {
			t.Errorf("%+v, %v", e, err)
		}
	}
}
