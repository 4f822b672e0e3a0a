package gateway

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BenchmarkServe is a request through the whole gateway over real sockets,
// with a remembered token. cpu-µs/op is what the process spent, client and
// backend included, so that what matters is the difference between two rows.
func BenchmarkServe(b *testing.B) {
	const limits = "limits:\n  one:\n    key: [claim:sub]\n    rate: 1000000/1m\n"
	for _, c := range []struct{ name, extra, yaml string }{
		{"plain", "", ""},
		{"refusals kept", "", "server:\n  admin: 127.0.0.1:9901\n"},
		{"limit local", "    limits: [one]\n", limits},
		{"limit shared", "    limits: [one]\n", "redis:\n  url: REDIS\n" + limits + "    scope: shared\n"},
		{"limit leased", "    limits: [one]\n", "redis:\n  url: REDIS\n" + limits + "    scope: shared\n    lease: 50\n"},
		{"revocation lookup", "", "redis:\n  url: REDIS\nrevocation: {}\n"},
		{"revocation replica", "", "redis:\n  url: REDIS\nrevocation:\n  mode: replica\n"},
	} {
		b.Run(c.name, func(b *testing.B) {
			before, after, stored := strings.Cut(c.yaml, "REDIS")
			if stored {
				before += startRedis(b)
			}
			s := newBench(b, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", 200)) }, c.extra+before+after)
			s.gateway.log = slog.New(slog.NewJSONHandler(io.Discard, nil))
			request := "GET /guarded HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer " + s.token(s.claims(`"privileges":["READ"]`)) + "\r\n\r\n"
			conn, err := net.Dial("tcp", s.front.Listener.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			r := bufio.NewReader(conn)
			spent := cpu(b)
			for b.Loop() {
				if _, err := io.WriteString(conn, request); err != nil {
					b.Fatal(err)
				}
				res, err := http.ReadResponse(r, nil)
				if err != nil || res.StatusCode != http.StatusOK {
					b.Fatal(res, err)
				}
				if _, err := io.Copy(io.Discard, res.Body); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((cpu(b)-spent).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}

// cpu returns the processor time that this process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// startRedis starts a real server and returns its URL.
func startRedis(b testing.TB) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	server := exec.Command("redis-server", "--port", fmt.Sprint(port), "--bind", "127.0.0.1", "--save", "", "--dir", b.TempDir())
	if err := server.Start(); err != nil {
		b.Skip("redis-server is not installed: ", err)
	}
	b.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	for range 1000 {
		if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			_ = conn.Close()
			return fmt.Sprintf("redis://127.0.0.1:%d", port)
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.Fatal("redis-server does not answer")
	return ""
}
