package test

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

const topologyYAML = `
redis:
  url: "URL"MORE
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
    max_lifetime: 1h
revocation:
  mode: MODE
  on_error:
    then: deny
routes:
  - match: /heroes/{id}
    privileges: []
    upstream: BACKEND
`

// Two gateways on a Cluster of three masters: what is revoked on any master is
// refused by both, and stays so when that master dies.
func TestRevocationOnACluster(t *testing.T) {
	t.Parallel()
	p, b, c := newIDP(t), newBackend(t), startCluster(t, 3)
	yaml := fill(topologyYAML, "URL", c.URL, "IDP", p.URL, "BACKEND", b.URL, "MODE", "replica", "MORE", "")
	gateways := []*gateway{start(t, yaml), start(t, yaml)}
	refusedByAll := func(token string) {
		t.Helper()
		for _, g := range gateways {
			eventually(t, "it is refused", func() bool { return g.do(t, "GET /heroes/1", token).status == http.StatusUnauthorized })
		}
	}
	tokens, owners := map[string]string{}, map[*redis]string{}
	for n := 0; len(owners) < 3; n++ { // one on each master
		sid := "s" + itoa(int64(n))
		token := bearer(p.token(t, claims{"sid": sid}))
		gateways[n%2].do(t, "GET /heroes/1", token).is(t, http.StatusOK)
		if status, out := command(t, "", "revoke", "--config", gateways[n%2].config, "--issuer", "main", "--sid", sid); status != 0 {
			t.Fatalf("revoke: %s", out)
		}
		refusedByAll(token)
		tokens[sid] = token
		owners[c.owner(t, "revoked:sid:main:"+sid)] = sid
	}
	if status, out := command(t, "", "revocations", "--config", gateways[0].config); status != 0 || strings.Count(out, "revoked:sid:") != len(tokens) {
		t.Errorf("revocations lists\n%swant %d", out, len(tokens))
	}
	dead := c.masters[2]
	dead.proc.kill()
	refusedByAll(tokens[owners[dead]])
	// While a third of the revocations cannot be followed, the copy decides.
	for _, g := range gateways {
		g.do(t, "GET /heroes/1", bearer(p.token(t))).is(t, http.StatusOK)
		eventually(t, "the metrics tell", func() bool {
			return strings.Contains(g.metrics(t), `gatehouse_revocation_replica_in_step{mode="tracking"} 0`)
		})
	}
}

// Redis behind TLS, with a user and a password from a file.
func TestRedisOverTLS(t *testing.T) {
	t.Parallel()
	authority := newAuthority(t)
	server := authority.issue(t, "127.0.0.1")
	dir := t.TempDir()
	for name, text := range map[string]string{"cert.pem": server.cert, "key.pem": server.key} {
		write(t, filepath.Join(dir, name), text)
	}
	r := &redis{port: itoa(int64(freePort(t)))}
	secure := itoa(int64(freePort(t)))
	r.start(t, "--tls-port", secure, "--tls-cert-file", filepath.Join(dir, "cert.pem"), "--tls-key-file", filepath.Join(dir, "key.pem"),
		"--tls-ca-cert-file", filepath.Join(dir, "cert.pem"), "--tls-auth-clients", "no")
	r.do(t, "ACL", "SETUSER", "gate", "on", ">s3cret-of-the-gate", "~*", "&*", "+@all")
	p, b := newIDP(t), newBackend(t)
	yaml := func(url, mode, ca string) string {
		return fill(topologyYAML, "URL", url, "IDP", p.URL, "BACKEND", b.URL, "MODE", mode, "MORE", "\n  username: gate\n  password: ${file:password}\n  ca_file: "+ca)
	}
	url := "rediss://127.0.0.1:" + secure
	files := []file{{"password", "s3cret-of-the-gate\n"}, {"ca.pem", authority.cert}, {"other.pem", newAuthority(t).cert}}
	for _, mode := range []string{"lookup", "replica"} {
		g := start(t, yaml(url, mode, "ca.pem"), files...)
		token := bearer(p.token(t, claims{"sid": mode}))
		g.do(t, "GET /heroes/1", token).is(t, http.StatusOK)
		if status, out := command(t, "", "revoke", "--config", g.config, "--issuer", "main", "--sid", mode); status != 0 {
			t.Fatalf("revoke: %s", out)
		}
		eventually(t, "it is refused", func() bool { return g.do(t, "GET /heroes/1", token).status == http.StatusUnauthorized })

		// Whoever cannot show who he is is not asked.
		for what, bad := range map[string]string{
			"another authority": yaml(url, mode, "other.pem"),
			"another name":      yaml(strings.Replace(url, "127.0.0.1", "localhost", 1), mode, "ca.pem"),
		} {
			g := start(t, bad, files...)
			a := g.do(t, "GET /heroes/1", bearer(p.token(t)))
			if a.status != http.StatusServiceUnavailable {
				t.Errorf("%s, %s: %d, want 503", mode, what, a.status)
			}
			g.output.says(t, "x509")
			if strings.Contains(g.output.String(), "s3cret") {
				t.Error("the password is in the log")
			}
			if what == "another authority" { // until its file is renewed under its name
				write(t, filepath.Join(filepath.Dir(g.config), "other.pem"), authority.cert)
				g.reload(t, bad)
				eventually(t, "the renewed authority is taken up", func() bool { return g.do(t, "GET /heroes/1", bearer(p.token(t))).status == http.StatusOK })
			}
		}
	}
}
