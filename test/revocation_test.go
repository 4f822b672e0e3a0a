package test

import (
	"crypto/sha256"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// startRevocation gives a gateway with a Redis; its issuer's section and the
// one of revocation may be lengthened.
func startRevocation(t *testing.T, issuer, revocation string) (*gateway, *redis, *idp, *backend) {
	t.Helper()
	p, b, r := newIDP(t), newBackend(t), startRedis(t)
	return start(t, fill(`
redis:
  url: REDIS
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]ISSUER
revocation:
  check: [jti, sid, sub, client_id]REVOCATION
routes:
  - match: /heroes/{id}
    privileges: []
    upstream: BACKEND
`, "IDP", p.URL, "REDIS", r.URL, "BACKEND", b.URL, "ISSUER", issuer, "REVOCATION", revocation)), r, p, b
}

// hash names a token in a revoked:jws key: whatever spelling its signature has.
func hash(token string) string {
	sum := sha256.Sum256([]byte(token[:strings.LastIndexByte(token, '.')]))
	return b64(string(sum[:]))
}

func TestAnyoneMayRevokeByRedis(t *testing.T) {
	t.Parallel()
	g, r, p, b := startRevocation(t, "", "")
	now := time.Now().Unix()
	token := p.token(t, claims{"jti": "j:1", "sid": "s1", "sub": "alice", "client_id": "shop", "iat": now - 100})
	for _, c := range []struct {
		key, value string
		revoked    bool
	}{
		{"revoked:jti:main:j:1", "1", true},
		{"revoked:jti:main:j:1", "", true},
		{"revoked:jti:main:j:1", "-", false},
		{"revoked:jti:main:j", "1", false},
		{"revoked:jti:other:j:1", "1", false},
		{"revoked:sid:main:s1", "anything", true},
		{"revoked:sid:main:s1", "-", false},
		{"revoked:jws:main:" + hash(token), "1", true},
		{"revoked:jws:main:" + hash(token), "-", false},
		{"revoked:kid:main:" + p.kid, "1", true},
		{"revoked:kid:main:" + p.kid, "-", false},
		{"revoked:kid:main:other", "1", false},
		// For these the value is a time: what was issued until then is out.
		{"revoked:sub:main:alice", itoa(now - 100), true},
		{"revoked:sub:main:alice", itoa(now), true},
		{"revoked:sub:main:alice", itoa(now - 101), false},
		{"revoked:sub:main:alice", "1", true},      // no time after 2001: revokes all
		{"revoked:sub:main:alice", "", true},       // no number
		{"revoked:sub:main:alice", "soon", true},   // neither
		{"revoked:sub:main:alice", "1e10", true},   // no integer
		{"revoked:sub:main:alice", "-", false},     // said not to be revoked
		{"revoked:sub:main:Alice", "1", false},     // another's
		{"revoked:sub:main:alice:x", "1", false},   // another's
		{"revoked:client_id:main:shop", "1", true}, //
		{"revoked:client_id:main:shop", itoa(now - 200), false},
		{"revoked:client_id:main:shop", "-", false},
	} {
		r.do(t, "SET", c.key, c.value, "EX", "600")
		before := b.count()
		a := g.do(t, "GET /heroes/1", bearer(token))
		if c.revoked {
			a.refused(t, http.StatusUnauthorized, "revoked_token")
			a.challenges(t, "invalid_token")
			if b.count() != before {
				t.Error("a revoked token reached the backend")
			}
		} else {
			a.is(t, http.StatusOK)
		}
		if t.Failed() {
			t.Fatalf("^ SET %s %q", c.key, c.value)
		}
		r.do(t, "DEL", c.key)
	}
	g.do(t, "GET /heroes/1", bearer(token)).is(t, http.StatusOK)

	// A token without iat cannot show that it is newer.
	timeless := p.token(t, claims{"iat": nil, "sub": "bob"})
	r.do(t, "SET", "revoked:sub:main:bob", itoa(now-1000))
	g.do(t, "GET /heroes/1", bearer(timeless)).refused(t, http.StatusUnauthorized, "revoked_token")
	r.do(t, "DEL", "revoked:sub:main:bob")
	g.do(t, "GET /heroes/1", bearer(timeless)).is(t, http.StatusOK)
}

func TestRevocationOfOneTokenLeavesOthers(t *testing.T) {
	t.Parallel()
	g, r, p, _ := startRevocation(t, "", "")
	stolen, other := p.token(t, claims{"jti": "stolen"}), p.token(t)
	g.do(t, "GET /heroes/1", bearer(stolen)).is(t, http.StatusOK)
	r.do(t, "SET", "revoked:jti:main:stolen", "1", "EX", "600")
	g.do(t, "GET /heroes/1", bearer(stolen)).refused(t, http.StatusUnauthorized, "revoked_token")
	g.do(t, "GET /heroes/1", bearer(other)).is(t, http.StatusOK)
	// Tokens whose claims are odd are looked up as they are, and break nothing.
	for _, odd := range []claims{{"jti": nil, "sub": nil, "client_id": nil}, {"jti": 7}, {"sub": []string{"alice"}}, {"jti": ""}, {"jti": strings.Repeat("x", 4000)}, {"jti": "a\r\nSET x y\r\n"}} {
		g.do(t, "GET /heroes/1", bearer(p.token(t, odd))).is(t, http.StatusOK)
	}
}

func TestRevokeCommand(t *testing.T) {
	t.Parallel()
	g, r, p, _ := startRevocation(t, "\n    max_lifetime: 1h", "")
	revoke := func(stdin string, args ...string) (int, string) {
		return command(t, stdin, append([]string{"revoke", "--config", g.config, "--issuer", "main"}, args...)...)
	}
	for _, c := range []struct {
		args   []string
		claims claims
		key    string
		ttl    int // the most that it may live; 0: for ever
	}{
		{[]string{"--jti", "j1"}, claims{"jti": "j1"}, "revoked:jti:main:j1", 3630},
		{[]string{"--sid", "s1"}, claims{"sid": "s1"}, "revoked:sid:main:s1", 3630},
		{[]string{"--sub", "bob"}, claims{"sub": "bob"}, "revoked:sub:main:bob", 3630},
		{[]string{"--client-id", "kiosk"}, claims{"client_id": "kiosk"}, "revoked:client_id:main:kiosk", 3630},
	} {
		token := bearer(p.token(t, c.claims))
		g.do(t, "GET /heroes/1", token).is(t, http.StatusOK)
		if status, out := revoke("", c.args...); status != 0 {
			t.Fatalf("revoke %v: %d\n%s", c.args, status, out)
		}
		g.do(t, "GET /heroes/1", token).refused(t, http.StatusUnauthorized, "revoked_token")
		g.do(t, "GET /heroes/1", bearer(p.token(t, claims{"sub": "carol", "jti": "c"}))).is(t, http.StatusOK)
		if ttl := r.ttl(t, c.key); ttl < c.ttl-60 || ttl > c.ttl {
			t.Errorf("%s lives for %d s, want about %d", c.key, ttl, c.ttl)
		}
	}

	// A whole token, from standard input or a file, never from the command line.
	whole := p.token(t)
	if status, out := revoke(whole+"\n", "--token-file", "-"); status != 0 {
		t.Fatalf("revoke --token-file -: %d\n%s", status, out)
	}
	g.do(t, "GET /heroes/1", bearer(whole)).refused(t, http.StatusUnauthorized, "revoked_token")
	keys := strings.Fields(r.do(t, "KEYS", "revoked:j*"))
	for _, key := range keys {
		if ttl := r.ttl(t, key); !strings.HasSuffix(key, ":j1") && (ttl < 500 || ttl > 640) {
			t.Errorf("%s lives for %d s; the token has 600 left", key, ttl)
		}
	}
	inFile := p.token(t)
	path := g.config + ".token"
	write(t, path, inFile)
	if status, out := revoke("", "--token-file", path); status != 0 {
		t.Fatalf("revoke --token-file FILE: %d\n%s", status, out)
	}
	g.do(t, "GET /heroes/1", bearer(inFile)).refused(t, http.StatusUnauthorized, "revoked_token")

	// What names nothing, or nobody, revokes nothing and says so.
	for _, args := range [][]string{{}, {"--jti", ""}, {"--jti", "a", "--sub", "b"}, {"--token-file", "/nonexistent"}} {
		if status, out := revoke("", args...); status == 0 {
			t.Errorf("revoke %v: status 0\n%s", args, out)
		}
	}
	if status, out := revoke("not a token", "--token-file", "-"); status == 0 {
		t.Errorf("revoke of no token: status 0\n%s", out)
	}
	if status, out := command(t, "", "revoke", "--config", g.config, "--issuer", "mian", "--jti", "x"); status == 0 || !strings.Contains(out, "main") {
		t.Errorf("revoke for an unknown issuer: %d\n%s", status, out)
	}

	// Last, since it takes every token with it.
	if status, out := revoke("", "--kid", p.kid); status != 0 {
		t.Fatalf("revoke --kid: %d\n%s", status, out)
	}
	g.do(t, "GET /heroes/1", bearer(p.token(t))).refused(t, http.StatusUnauthorized, "revoked_token")
	if ttl := r.ttl(t, "revoked:kid:main:"+p.kid); ttl != -1 {
		t.Errorf("the key's revocation lives for %d s only", ttl)
	}
	r.proc.kill()
	if status, out := revoke("", "--jti", "late"); status == 0 {
		t.Errorf("revoke without Redis: status 0\n%s", out)
	}
}

func TestDeadRedisDenies(t *testing.T) {
	t.Parallel()
	g, r, p, b := startRevocation(t, "", "\n  on_error:\n    then: deny")
	token := bearer(p.token(t))
	g.do(t, "GET /heroes/1", token).is(t, http.StatusOK)
	before := b.count()
	r.proc.kill()
	for range 10 {
		a := g.do(t, "GET /heroes/1", token)
		a.refused(t, http.StatusServiceUnavailable, "store_unavailable")
		if a.header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	if b.count() != before {
		t.Error("a token that could not be looked up reached the backend")
	}
	r.start(t)
	eventually(t, "the gateway recovers", func() bool { return g.do(t, "GET /heroes/1", token).status == http.StatusOK })
	r.do(t, "SET", "revoked:sub:main:alice", "1")
	g.do(t, "GET /heroes/1", token).refused(t, http.StatusUnauthorized, "revoked_token")
}

func TestDeadRedisAllowsIfTheFileSaysSo(t *testing.T) {
	t.Parallel()
	g, r, p, _ := startRevocation(t, "", "\n  on_error:\n    then: allow")
	token := bearer(p.token(t))
	r.do(t, "SET", "revoked:sub:main:alice", "1")
	g.do(t, "GET /heroes/1", token).refused(t, http.StatusUnauthorized, "revoked_token")
	r.proc.kill()
	for range 10 {
		g.do(t, "GET /heroes/1", token).is(t, http.StatusOK)
	}
	r.start(t)
	r.do(t, "SET", "revoked:sub:main:alice", "1")
	eventually(t, "revocations count again", func() bool { return g.do(t, "GET /heroes/1", token).status == http.StatusUnauthorized })
}

func TestRedisThatIsDownAtStart(t *testing.T) {
	t.Parallel()
	p, b, r := newIDP(t), newBackend(t), startRedis(t)
	r.proc.kill()
	g := start(t, fill(`
redis:
  url: REDIS
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
revocation:
  check: [jti]
routes:
  - match: /heroes/{id}
    privileges: []
    upstream: BACKEND
`, "IDP", p.URL, "REDIS", r.URL, "BACKEND", b.URL))
	g.do(t, "GET /heroes/1", bearer(p.token(t))).refused(t, http.StatusServiceUnavailable, "store_unavailable")
	r.start(t)
	eventually(t, "the gateway finds Redis", func() bool { return g.do(t, "GET /heroes/1", bearer(p.token(t))).status == http.StatusOK })
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
