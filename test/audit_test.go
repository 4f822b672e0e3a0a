package test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// audit returns the records of one event from the gateway's audit log, oldest first.
func (g *gateway) audit(t *testing.T, event string) []map[string]any {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(filepath.Dir(g.config), "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	forbidTokens(t, "the audit log", string(data))
	var records []map[string]any
	for line := range strings.Lines(string(data)) {
		var r map[string]any
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v in the audit record %s", err, line)
		}
		if r["event"] == event {
			records = append(records, r)
		}
	}
	return records
}

func TestEachDecisionIsOnRecord(t *testing.T) {
	t.Parallel()
	g, _, r, p := startAdmin(t)
	reader := claims{"privileges": []string{"READ_HEROES"}, "sub": "alice", "client_id": "shop", "jti": "j1"}
	good := p.token(t, reader, claims{"act": claims{"sub": "helpdesk", "iss": "https://desk.example"}})
	poor, forged := p.token(t, claims{"sub": "bob", "privileges": []string{"OTHER"}}), newSigner(t, "ES256", p.kid).sign(t, p.good())
	g.do(t, "GET /heroes/1?secret=query", bearer(good)).is(t, http.StatusOK)
	g.do(t, "GET /heroes/2", bearer(poor)).refused(t, 403, "insufficient_privileges")
	g.do(t, "GET /heroes/3", bearer(forged)).refused(t, 401, "invalid_token")
	g.do(t, "GET /heroes/4").refused(t, 401, "missing_token")
	g.do(t, "GET /nowhere/"+good+"/x").refused(t, 404, "no_route")
	r.do(t, "SET", "revoked:jti:main:j1", "1")
	g.do(t, "GET /heroes/5", bearer(good)).refused(t, 401, "revoked_token")

	print := func(token string) any {
		sum := sha256.Sum256([]byte(token))
		return hex.EncodeToString(sum[:])
	}
	records := g.audit(t, "decision")
	for i, want := range []map[string]any{
		{"outcome": "allow", "route": "heroes", "issuer": "main", "sub": "alice", "client_id": "shop", "jti": "j1", "token_sha256": print(good),
			"method": "GET", "path": "/heroes/1", "client": "127.0.0.1", "reason": nil, "status": nil},
		{"outcome": "deny", "reason": "insufficient_privileges", "status": 403.0, "sub": "bob", "token_sha256": print(poor)},
		{"outcome": "deny", "reason": "invalid_token", "status": 401.0, "sub": nil, "token_sha256": print(forged)}, // nobody vouches for its sub
		{"outcome": "deny", "reason": "missing_token", "token_sha256": nil, "path": "/heroes/4"},
		{"outcome": "deny", "reason": "no_route", "route": "-", "path": "/nowhere/[token]/x"},
		{"outcome": "deny", "reason": "revoked_token", "sub": "alice"},
	} {
		if i >= len(records) {
			t.Fatalf("%d records of 6 decisions", len(records))
		}
		for name, value := range want {
			if records[i][name] != value {
				t.Errorf("record %d: %s is %v, want %v", i, name, records[i][name], value)
			}
		}
		if id, _ := records[i]["request_id"].(string); id == "" || records[i]["time"] == nil || records[i]["trace_id"] == nil {
			t.Errorf("record %d does not say which request, or when: %v", i, records[i])
		}
	}
	if len(records) != 6 {
		t.Errorf("%d records of 6 decisions", len(records))
	}
	if act, _ := records[0]["act"].(map[string]any); act["sub"] != "helpdesk" || act["iss"] != "https://desk.example" {
		t.Errorf("the actor is %v", records[0]["act"])
	}
	if info, err := os.Stat(filepath.Join(filepath.Dir(g.config), "audit.log")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the audit log: %v, %v; only its owner should read it", info, err)
	}
}

// What a command revokes is in the same log.
func TestCommandsAreOnRecord(t *testing.T) {
	t.Parallel()
	g, _, _, p := startAdmin(t)
	for _, args := range [][]string{{"revoke", "--jti", "j1"}, {"revoke", "--token-file", "-"}, {"unrevoke", "--jti", "j1"}} {
		if status, out := command(t, p.token(t), append(args, "--config", g.config, "--issuer", "main")...); status != 0 {
			t.Fatalf("%v: %s", args, out)
		}
	}
	records := g.audit(t, "revocation")
	if len(records) != 3 {
		t.Fatalf("%d records of 3 commands", len(records))
	}
	for i, want := range []map[string]any{
		{"action": "revoke", "kind": "jti", "key": "revoked:jti:main:j1"},
		{"action": "revoke", "kind": "jws"},
		{"action": "unrevoke", "kind": "jti", "key": "revoked:jti:main:j1"},
	} {
		want["door"], want["issuer"] = "command line", "main"
		for name, value := range want {
			if records[i][name] != value {
				t.Errorf("record %d: %s is %v, want %v", i, name, records[i][name], value)
			}
		}
		if actor, _ := records[i]["actor"].(string); actor == "" {
			t.Errorf("record %d does not say who", i)
		}
	}
}

// A sample of what is allowed is enough for some; refusals are all written.
func TestAllowedRequestsAreSampled(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	g := start(t, fill(`
server:
  ADDRESSES
  audit:
    file: audit.log
    sample_allows: 1000000000
routes:
  - match: GET /open
    public: true
    upstream: BACKEND
`, "BACKEND", b.URL))
	for range 20 {
		g.do(t, "GET /open").is(t, http.StatusOK)
		g.do(t, "GET /shut").refused(t, 404, "no_route")
	}
	if n := len(g.audit(t, "decision")); n != 20 {
		t.Errorf("%d records of 20 refusals and of one in a thousand million allowed requests", n)
	}
}

// A full disk refuses nobody, and is told.
func TestAuditLogThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	g := start(t, fill(`
server:
  ADDRESSES
  audit:
    file: no-directory/audit.log
routes:
  - match: GET /open
    public: true
    upstream: BACKEND
`, "BACKEND", b.URL), file{"no-directory", "a file"})
	g.do(t, "GET /open").is(t, http.StatusOK)
	g.output.says(t, "an audit record could not be written")
	if n := g.metrics(t); !strings.Contains(n, "gatehouse_audit_errors_total 1\n") {
		t.Errorf("the metric does not say 1:\n%s", n)
	}
}

// Some providers name an opaque token, in its own jti, by itself.
func TestTokenThatIsItsOwnIDIsNotOnRecord(t *testing.T) {
	t.Parallel()
	p := newIDP(t)
	token := minted("opaque-token-that-is-its-own-jti")
	p.says(t, p.said(claims{"jti": token}), token)
	g := start(t, fill(`
server:
  ADDRESSES
  audit:
    file: audit.log
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]ASKING
routes:
  - match: /
    privileges: []
    upstream: BACKEND
`, "IDP", p.URL, "BACKEND", newBackend(t).URL, "ASKING", fill(asking, "WHEN", "opaque")))
	g.do(t, "GET /", bearer(token)).is(t, http.StatusOK)
	if records := g.audit(t, "decision"); len(records) != 1 || records[0]["sub"] != "alice" {
		t.Errorf("%v, want one record of alice", records)
	}
}

// That a request is cut off is a decision, too: it says whose, and who acted.
func TestEndsAreOnRecord(t *testing.T) {
	t.Parallel()
	p, r := newIDP(t), startRedis(t)
	g := start(t, fill(`
server:
  ADDRESSES
  audit:
    file: audit.log
    sample_allows: 1000000000
redis:
  url: REDIS
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
    leeway: 0s
revocation:
  mode: replica
  check: [jti]
routes:
  - match: /{rest...}
    privileges: []
    upstream: BACKEND
`, "IDP", p.URL, "REDIS", r.URL, "BACKEND", newLastingBackend(t)))
	act := claims{"act": claims{"sub": "helpdesk", "iss": "https://desk.example"}}
	revoked := g.websocketAt(t, "/ws", p.token(t, act, claims{"jti": "one"}))
	expired := g.websocketAt(t, "/ws", p.token(t, act, claims{"jti": "two", "exp": float64(time.Now().UnixMilli())/1000 + 3}))
	r.do(t, "SET", "revoked:jti:main:one", "1", "EX", "600")
	closedWith(t, revoked, websocket.StatusPolicyViolation)
	closedWith(t, expired, websocket.StatusPolicyViolation)
	records := g.audit(t, "decision")
	if len(records) != 2 {
		t.Fatalf("%d records of 2 ends: %v", len(records), records)
	}
	for i, want := range []map[string]any{{"reason": "revoked_token", "jti": "one"}, {"reason": "expired_token", "jti": "two"}} {
		want["outcome"], want["sub"], want["route"], want["status"] = "end", "alice", "/{rest...}", nil
		for name, value := range want {
			if records[i][name] != value {
				t.Errorf("record %d: %s is %v, want %v", i, name, records[i][name], value)
			}
		}
		if act, _ := records[i]["act"].(map[string]any); act["sub"] != "helpdesk" {
			t.Errorf("record %d does not say who acted: %v", i, records[i])
		}
	}
	for line := range strings.Lines(g.output.String()) {
		if strings.Contains(line, `"msg":"ended with its token"`) && !strings.Contains(line, `"actor":"`) {
			t.Errorf("the log line does not say who acted: %s", line)
		}
	}
}

// Where records go to standard output, those of commands do so as well.
func TestRecordsOnStandardOutput(t *testing.T) {
	t.Parallel()
	r, b := startRedis(t), newBackend(t)
	g := start(t, fill(`
server:
  ADDRESSES
  audit:
    file: "-"
redis:
  url: REDIS
issuers:
  main:
    issuer: https://id.example.com
    audiences: any
    keys: [{file: key.pem}]
revocation: {}
routes:
  - match: GET /open
    public: true
    upstream: BACKEND
`, "REDIS", r.URL, "BACKEND", b.URL), file{"key.pem", newSigner(t, "ES256", "").pem(t)})
	g.do(t, "GET /open").is(t, http.StatusOK)
	g.output.says(t, `"event":"decision","outcome":"allow","route":"GET /open"`)
	status, out := command(t, "", "revoke", "--config", g.config, "--jti", "j1")
	if status != 0 || !strings.Contains(out, `"event":"revocation","action":"revoke","door":"command line","actor":"`) {
		t.Errorf("status %d, and no record in %s", status, out)
	}
}

// A command and a gateway write into one file, and neither over the other.
func TestCommandsAndGatewayShareTheAuditLog(t *testing.T) {
	t.Parallel()
	g, _, _, p := startAdmin(t)
	for n := range 3 {
		g.do(t, "GET /heroes/1", bearer(p.token(t, claims{"privileges": []string{"READ_HEROES"}}))).is(t, http.StatusOK)
		if status, out := command(t, "", "revoke", "--config", g.config, "--jti", "j"+itoa(int64(n))); status != 0 {
			t.Fatal(out)
		}
	}
	if d, r := len(g.audit(t, "decision")), len(g.audit(t, "revocation")); d != 3 || r != 3 {
		t.Errorf("%d decisions and %d revocations of 3", d, r)
	}
}

// Whatever line tells of a request says whose it is, and who acted.
func TestEachLineSaysWhoActs(t *testing.T) {
	t.Parallel()
	g, _, _, p := startAdmin(t)
	g.do(t, "GET /heroes/1", bearer(p.token(t, claims{"privileges": []string{"READ_HEROES"}, "act": claims{"sub": "helpdesk"}, "user_name": "a", "userName": "b"}))).is(t, http.StatusOK)
	g.output.says(t, `"msg":"request"`)
	seen := 0
	for line := range strings.Lines(g.output.String()) {
		if !strings.Contains(line, `"request_id"`) {
			continue
		}
		seen++
		if !strings.Contains(line, `"sub":"alice","actor":"helpdesk of `) {
			t.Error(line)
		}
	}
	if seen != 2 {
		t.Errorf("%d lines, want that of the request and that of the claims which fold to one name", seen)
	}
}
