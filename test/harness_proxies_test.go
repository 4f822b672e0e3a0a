package test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// example is the first code of that language under that heading of docs/decision.md.
func example(t *testing.T, heading, language string) string {
	t.Helper()
	doc, err := os.ReadFile("../docs/decision.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?s)(?:^|\n)#+ " + heading + "\n.*?\n```" + language + "\n(.*?)```").FindSubmatch(doc)
	if found == nil {
		t.Fatalf("docs/decision.md has no %s under %s", language, heading)
	}
	return string(found[1])
}

// startProxy starts a proxy on its example in docs/decision.md, in which
// nothing but the addresses is changed, and returns where it serves.
func startProxy(t *testing.T, kind, decision, backend string) *gateway {
	t.Helper()
	front := &gateway{listen: freeAddress(t)}
	dir := t.TempDir()
	_, port, _ := net.SplitHostPort(front.listen)
	_, decisionPort, _ := net.SplitHostPort(decision)
	_, backendPort, _ := net.SplitHostPort(strings.TrimPrefix(backend, "http://"))
	addresses := []string{"127.0.0.1:9903", decision, "http://127.0.0.1:9000", backend, "127.0.0.1:9000", strings.TrimPrefix(backend, "http://"),
		"port_value: 8080", "port_value: " + port, "port_value: 9903", "port_value: " + decisionPort, "port_value: 9000", "port_value: " + backendPort,
		"listen 8080", "listen " + front.listen, ":8080 {", ":" + port + " {"}
	in := func(name string) string { return filepath.Join(dir, name) }
	cached := func(name string) string {
		installed := os.Getenv("PROXIES")
		if installed == "" {
			t.Skipf("%s comes with make test-proxies", kind)
		}
		return filepath.Join(installed, name)
	}
	var p *process
	switch kind {
	case "nginx":
		write(t, in("nginx.conf"), fmt.Sprintf(nginxAround, fill(example(t, "nginx", "nginx"), addresses...)))
		p = launch(t, "nginx", "-p", dir, "-c", "nginx.conf", "-e", "stderr")
	case "caddy":
		// No admin listener, no files elsewhere, no certificates.
		write(t, in("Caddyfile"), "{\n\tdefault_bind 127.0.0.1\n\tadmin off\n\tpersist_config off\n\tauto_https off\n}\n"+fill(example(t, "Caddy", "caddyfile"), addresses...))
		p = launch(t, cached("bin/caddy"), "run", "--adapter", "caddyfile", "--config", in("Caddyfile"))
	case "traefik":
		write(t, in("dynamic.yaml"), fill(example(t, "Traefik", "yaml"), addresses...))
		p = launch(t, cached("bin/traefik"), "--global.checknewversion=false", "--global.sendanonymoususage=false", "--log.level=DEBUG",
			"--entrypoints.web.address="+front.listen, "--providers.file.filename="+in("dynamic.yaml"))
	case "envoy":
		write(t, in("envoy.yaml"), fill(example(t, "Envoy", "yaml"), addresses...))
		p = launch(t, cached("envoy/_bin/envoy"), "-c", in("envoy.yaml"), "--concurrency", "1", "--disable-hot-restart", "-l", "warning")
	}
	eventually(t, kind+" is up", func() bool {
		if p.ended() {
			t.Fatalf("%s ended with status %d", kind, p.exit(t))
		}
		// Traefik listens before it has read where to.
		return front.listens() && front.do(t, "GET /healthz").status == 200
	})
	return front
}

const nginxAround = `
daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
%s
}
`
