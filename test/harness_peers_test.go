package test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// peerURLs gives places for a backend that serves over HTTP/1.1, over TLS with
// HTTP/2, and in HTTP/2 without, and the ports of these.
func peerURLs(t *testing.T) (urls map[string]string, one, two, prior string) {
	t.Helper()
	ports := make([]string, 3)
	for i := range ports {
		ports[i] = fmt.Sprint(freePort(t))
	}
	one, two, prior = ports[0], ports[1], ports[2]
	return map[string]string{"one": "http://127.0.0.1:" + one, "two": "https://127.0.0.1:" + two, "prior": "h2c://127.0.0.1:" + prior}, one, two, prior
}

// startNode starts testdata/backend.js, which shows that certificate.
func startNode(t *testing.T, shown *pair) map[string]string {
	t.Helper()
	urls, one, two, prior := peerURLs(t)
	dir := t.TempDir()
	for _, f := range shown.files("shown") {
		write(t, filepath.Join(dir, f.name), f.content)
	}
	launch(t, "node", "testdata/backend.js", one, two, prior, filepath.Join(dir, "shown.pem"), filepath.Join(dir, "shown.key")).output.says(t, "ready")
	return urls
}

// startNginx starts nginx on some files of known age.
func startNginx(t *testing.T, shown *pair) map[string]string {
	t.Helper()
	urls, one, two, prior := peerURLs(t)
	dir := t.TempDir()
	for _, f := range append(shown.files("shown"), file{"www/digits.txt", "0123456789"}, file{"www/dir/a b.txt", "ab"}, file{"www/empty.txt", ""},
		file{"www/long.txt", strings.Repeat("as long as it takes\n", 10_000)}) {
		name := filepath.Join(dir, f.name)
		write(t, name, f.content)
		if err := os.Chtimes(name, time.Unix(1e9, 0), time.Unix(1e9, 0)); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(dir, "nginx.conf"), fill(nginxConf, "ONE", one, "TWO", two, "PRIOR", prior, "DIR", dir))
	launch(t, "nginx", "-c", filepath.Join(dir, "nginx.conf"), "-p", dir, "-e", "stderr")
	eventually(t, "nginx is up", func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1:"+one)
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	})
	return urls
}

const nginxConf = `
daemon off;
master_process off;
pid DIR/pid;
error_log stderr error;
events {}
http {
  access_log off;
  default_type text/plain;
  client_body_temp_path DIR/body;
  proxy_temp_path DIR/proxy;
  fastcgi_temp_path DIR/fastcgi;
  uwsgi_temp_path DIR/uwsgi;
  scgi_temp_path DIR/scgi;
  gzip on;
  gzip_types text/plain;
  gzip_min_length 1000;
  absolute_redirect off;
  server {
    listen 127.0.0.1:ONE;
    listen 127.0.0.1:TWO ssl http2;
    listen 127.0.0.1:PRIOR http2;
    ssl_certificate DIR/shown.pem;
    ssl_certificate_key DIR/shown.key;
    root DIR/www;
    location = /protocol { return 200 $server_protocol; }
    location = /connection { return 200 $connection; }
    location /uri { return 200 "$request_method $request_uri $http_host $http_x_odd"; }
    location = /nothing { return 204; }
    location /trailers/ {
      alias DIR/www/;
      add_trailer X-Sum 45;
    }
  }
}
`
