package test

import (
	"fmt"
	"net"
	"path/filepath"
	"testing"
)

// newNginx starts an nginx in front of a backend and returns its URL: a reader
// of HTTP/1.1 that shares no code with the gateway.
func newNginx(t *testing.T, backend string) string {
	t.Helper()
	address, dir := freeAddress(t), t.TempDir()
	write(t, filepath.Join(dir, "nginx.conf"), fill(`
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
  server {
    listen ADDRESS;
    location / {
      proxy_pass BACKEND;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
    }
  }
}
`, "ADDRESS", address, "BACKEND", backend))
	p := launch(t, "nginx", "-p", dir, "-c", "nginx.conf", "-e", "stderr")
	eventually(t, "nginx is up", func() bool {
		if p.ended() {
			t.Fatalf("nginx ended with status %d", p.exit(t))
		}
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return fmt.Sprintf("http://%s", address)
}
