package test

import (
	"net/http"
	"strings"
	"syscall"
	"testing"
)

const replicaYAML = `
redis:
  url: REDIS
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
    max_lifetime: 1h
revocation:
  check: [jti, sid, sub, client_id]
  mode: replicaMORE
routes:
  - match: /heroes/{id}
    privileges: []
    upstream: BACKEND
`

func replicas(t *testing.T, n int, more string) ([]*gateway, *redis, *idp) {
	t.Helper()
	return fleet(t, n, replicaYAML, "MORE", more)
}

// What is revoked through one door is refused by every gateway, and only "-" lifts it.
func TestReplicaFollowsRedis(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]string{"tracking": "", "poll": "\n  sync: poll\n  poll_interval: 100ms"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gateways, r, p := replicas(t, 2, more)
			claim := claims{"jti": "j1", "sid": "s1"}
			token := bearer(p.token(t, claim))
			all := func(what string, status int) {
				t.Helper()
				for _, g := range gateways {
					eventually(t, what, func() bool { return g.do(t, "GET /heroes/1", token).status == status })
				}
			}
			all("the token is good", http.StatusOK)
			if status, out := command(t, "", "revoke", "--config", gateways[0].config, "--issuer", "main", "--jti", "j1"); status != 0 {
				t.Fatalf("revoke: %d\n%s", status, out)
			}
			all("revoked by jti", http.StatusUnauthorized)
			gateways[1].do(t, "GET /heroes/1", token).refused(t, http.StatusUnauthorized, "revoked_token")
			gateways[1].do(t, "GET /heroes/1", bearer(p.token(t))).is(t, http.StatusOK)

			if status, out := command(t, "", "revocations", "--config", gateways[0].config); status != 0 || !strings.Contains(out, "revoked:jti:main:j1 = 1 for 1h") {
				t.Errorf("revocations: %d\n%s", status, out)
			}
			// Redis forgets; the gateways do not.
			r.do(t, "DEL", "revoked:jti:main:j1")
			r.do(t, "SET", "revoked:sid:main:s2", "1")
			other := bearer(p.token(t, claims{"sid": "s2"}))
			for _, g := range gateways { // what was written after the DEL is seen, so the DEL was, too
				eventually(t, "the second revocation", func() bool { return g.do(t, "GET /heroes/1", other).status == http.StatusUnauthorized })
			}
			all("still revoked", http.StatusUnauthorized)
			if status, out := command(t, "", "unrevoke", "--config", gateways[0].config, "--issuer", "main", "--jti", "j1"); status != 0 || !strings.Contains(out, "revoked:jti:main:j1 = - for 1h") {
				t.Errorf("unrevoke: %d\n%s", status, out)
			}
			all("lifted", http.StatusOK)
		})
	}
}

// Redis dies: the copy decides until max_stale, then the posture; what was
// seen revoked stays so, also when Redis comes back empty.
func TestReplicaOutlivesRedis(t *testing.T) {
	t.Parallel()
	for then, status := range map[string]int{"deny": http.StatusServiceUnavailable, "allow": http.StatusOK} {
		t.Run(then, func(t *testing.T) {
			t.Parallel()
			gateways, r, p := replicas(t, 1, "\n  on_error:\n    max_stale: 3s\n    then: "+then)
			g := gateways[0]
			good, bad := bearer(p.token(t)), bearer(p.token(t, claims{"sid": "stolen"}))
			r.do(t, "SET", "revoked:sid:main:stolen", "1", "EX", "600")
			eventually(t, "it is revoked", func() bool { return g.do(t, "GET /heroes/1", bad).status == http.StatusUnauthorized })
			g.do(t, "GET /heroes/1", good).is(t, http.StatusOK)

			r.proc.kill()
			eventually(t, "the log tells", func() bool { return strings.Contains(g.output.String(), `"in_step":false`) })
			eventually(t, "the posture decides", func() bool { return g.do(t, "GET /heroes/1", good).status == status })
			g.do(t, "GET /heroes/1", bad).refused(t, http.StatusUnauthorized, "revoked_token")
			if want := map[string]int{"deny": http.StatusServiceUnavailable, "allow": http.StatusOK}[then]; g.probe("/readyz") != want {
				eventually(t, "/readyz tells what the posture does", func() bool { return g.probe("/readyz") == want })
			}
			if text := g.metrics(t); !strings.Contains(text, `gatehouse_revocation_replica_in_step{mode="tracking"} 0`) || !strings.Contains(text, "gatehouse_revocation_replica_entries 1") {
				t.Error("the metrics do not tell")
			}

			r.start(t) // and has forgotten everything
			eventually(t, "it is in step again", func() bool {
				return strings.Contains(g.metrics(t), `gatehouse_revocation_replica_in_step{mode="tracking"} 1`)
			})
			g.do(t, "GET /heroes/1", good).is(t, http.StatusOK)
			g.do(t, "GET /heroes/1", bad).refused(t, http.StatusUnauthorized, "revoked_token")
		})
	}
}

// A reload that changes the posture keeps what was seen, though Redis lost it.
func TestReplicaSurvivesAReload(t *testing.T) {
	t.Parallel()
	p, b, r := newIDP(t), newBackend(t), startRedis(t)
	yaml := func(more string) string {
		return fill(replicaYAML, "IDP", p.URL, "BACKEND", b.URL, "REDIS", r.URL, "MORE", more)
	}
	g := start(t, yaml(""))
	bad := bearer(p.token(t, claims{"sid": "stolen"}))
	r.do(t, "SET", "revoked:sid:main:stolen", "1", "EX", "600")
	eventually(t, "it is revoked", func() bool { return g.do(t, "GET /heroes/1", bad).status == http.StatusUnauthorized })
	r.do(t, "FLUSHALL")
	g.reload(t, yaml("\n  on_error:\n    max_stale: 1m"))
	g.do(t, "GET /heroes/1", bad).refused(t, http.StatusUnauthorized, "revoked_token")
	g.do(t, "GET /heroes/1", bearer(p.token(t))).is(t, http.StatusOK)
	r.proc.signal(syscall.SIGSTOP)
	g.do(t, "GET /heroes/1", bearer(p.token(t))).is(t, http.StatusOK) // a request asks nothing of Redis
	r.proc.signal(syscall.SIGCONT)
}

// Whoever only changes how Redis is reached takes nothing from what a gateway
// knows, though Redis cannot be asked just then. Of another database, or the
// same at another address, it knows nothing.
func TestReplicaWhenRedisIsReachedOtherwise(t *testing.T) {
	t.Parallel()
	const before = "redis://gate:first@127.0.0.1:PORT/0"
	for name, c := range map[string]struct {
		redis, password string
		status          int
	}{
		"replicas":            {before + "\n  replicas: 2", "first", http.StatusOK},
		"password":            {before + "\n  password: second", "second", http.StatusOK},
		"password of the URL": {"redis://gate:second@127.0.0.1:PORT/0", "second", http.StatusOK},
		"time-out":            {before + "?dial_timeout=3s", "first", http.StatusOK},
		"database":            {"redis://gate:first@127.0.0.1:PORT/1", "first", http.StatusServiceUnavailable},
		"address":             {"redis://gate:first@localhost:PORT/0", "first", http.StatusServiceUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, b, r := newIDP(t), newBackend(t), startRedis(t)
			yaml := func(redis string) string {
				return fill(replicaYAML, "IDP", p.URL, "BACKEND", b.URL, "REDIS", strings.ReplaceAll(redis, "PORT", r.port), "MORE", "")
			}
			r.do(t, "ACL", "SETUSER", "gate", "on", ">first", "~*", "&*", "+@all")
			g := start(t, yaml(before))
			good, bad, later := bearer(p.token(t)), bearer(p.token(t, claims{"sid": "stolen"})), bearer(p.token(t, claims{"sid": "later"}))
			r.do(t, "SET", "revoked:sid:main:stolen", "1", "EX", "600")
			eventually(t, "it is revoked", func() bool { return g.do(t, "GET /heroes/1", bad).status == http.StatusUnauthorized })

			r.do(t, "ACL", "SETUSER", "gate", "resetpass", ">"+c.password)
			r.proc.signal(syscall.SIGSTOP)
			t.Cleanup(func() { r.proc.signal(syscall.SIGCONT) })
			g.reload(t, yaml(c.redis))
			gaps := 0
			eventually(t, "the reload is through", func() bool {
				if g.do(t, "GET /heroes/1", good).status != http.StatusOK {
					gaps++
				}
				return g.metric(t, goodReloads) == 1
			})
			switch c.status {
			case http.StatusOK:
				g.do(t, "GET /heroes/1", good).is(t, http.StatusOK)
				if gaps > 0 {
					t.Errorf("%d good tokens were refused during the reload", gaps)
				}
			default:
				g.do(t, "GET /heroes/1", good).refused(t, http.StatusServiceUnavailable, "store_unavailable")
			}
			g.do(t, "GET /heroes/1", bad).refused(t, http.StatusUnauthorized, "revoked_token")

			r.proc.signal(syscall.SIGCONT)
			db := "0"
			if name == "database" {
				db = "1"
			}
			r.do(t, "-n", db, "SET", "revoked:sid:main:later", "1", "EX", "600")
			eventually(t, "it follows Redis again", func() bool {
				return g.do(t, "GET /heroes/1", later).status == http.StatusUnauthorized && g.do(t, "GET /heroes/1", good).status == http.StatusOK
			})
			g.do(t, "GET /heroes/1", bad).refused(t, http.StatusUnauthorized, "revoked_token")
		})
	}
}
