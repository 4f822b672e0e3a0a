package upstream

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatehouse/gateway/internal/inject"
)

// BenchmarkForward is a request over real sockets, with what guards against
// failures off and on. cpu-µs/op is what the process spent, client and target
// included, so that what matters is the difference between two rows.
func BenchmarkForward(b *testing.B) {
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", 200)) }))
	b.Cleanup(target.Close)
	u, err := url.Parse(target.URL)
	if err != nil {
		b.Fatal(err)
	}
	rules, err := inject.New(inject.Options{Prefix: "x-jwt-", MaxBytes: 1000})
	if err != nil {
		b.Fatal(err)
	}
	var (
		health   = &Health{Path: "/", Interval: time.Second, Timeout: time.Second, Healthy: 1, Unhealthy: 1, Expect: []StatusRange{{200, 299}}}
		outliers = &Outliers{ConsecutiveGatewayFailure: 5, BaseEjectionTime: time.Second, MaxEjectionTime: time.Second, MaxEjectionPercent: 50}
		retries  = &Retries{NumRetries: 1, ConnectFailure: true, Reset: true, Statuses: []int{502, 503, 504}, PerTryTimeout: time.Second, BudgetPercent: 20}
		breaker  = &Breaker{FailurePercentage: 50, RequestVolume: 20, Interval: 10 * time.Second, OpenTime: 10 * time.Second}
	)
	for _, c := range []struct {
		name string
		o    Options
	}{
		{"off", Options{}},
		{"net_http", Options{NetHTTP: true}},
		{"health and ejection", Options{Health: health, Outliers: outliers}},
		{"cap", Options{MaxRequests: 100}},
		{"breaker", Options{Breaker: breaker}},
		{"retries", Options{Retries: retries}},
		{"all", Options{Health: health, Outliers: outliers, MaxRequests: 100, Breaker: breaker, Retries: retries}},
	} {
		b.Run(c.name, func(b *testing.B) {
			c.o.Targets = []Target{{URL: u, Weight: 1}, {URL: u, Dial: u.Host, Weight: 1}}
			p := newPool(b, c.o)
			p.Start(b.Context())
			front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if err := p.Forward(w, r, Call{Path: "/", Strip: rules, Timeout: time.Minute, IdleTimeout: time.Minute}); err != nil {
					b.Error(err)
				}
			}))
			defer front.Close()
			conn, err := net.Dial("tcp", front.Listener.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			r := bufio.NewReader(conn)
			b.ReportAllocs()
			spent := cpu(b)
			for b.Loop() {
				_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
				res, err := http.ReadResponse(r, nil)
				if err != nil || res.StatusCode != http.StatusOK {
					b.Fatal(res, err)
				}
				_, _ = io.Copy(io.Discard, res.Body)
			}
			b.ReportMetric(float64((cpu(b)-spent).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}

// BenchmarkRoundTrip is a request over each of the two ways to a target that
// does as little as one can.
func BenchmarkRoundTrip(b *testing.B) {
	answer := []byte("HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 08:13:14 GMT\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 200\r\n\r\n" + strings.Repeat("x", 200))
	target := handmade(b, func(conn *net.TCPConn, in *bufio.Reader, _ int) {
		for {
			line, err := in.ReadSlice('\n')
			if err != nil {
				return
			}
			if len(line) == 2 {
				_, _ = conn.Write(answer)
			}
		}
	})
	for _, netHTTP := range []bool{true, false} {
		b.Run(map[bool]string{true: "net_http", false: "direct"}[netHTTP], func(b *testing.B) {
			w := target.way(b, netHTTP)
			r := target.ask(b.Context(), b, "GET", "/heroes/17?x=1")
			for i, name := range []string{"Accept", "Authorization", "User-Agent", "X-Request-Id", "Traceparent", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Jwt-Sub", "X-Jwt-Iss", "X-Jwt-Privileges"} {
				r.Header.Set(name, strings.Repeat("v", 10+3*i))
			}
			buf := make([]byte, copyBufferBytes)
			b.ReportAllocs()
			spent := cpu(b)
			for b.Loop() {
				res, err := w.RoundTrip(r)
				if err != nil {
					b.Fatal(err)
				}
				for err == nil {
					_, err = res.Body.Read(buf)
				}
				_ = res.Body.Close()
			}
			b.ReportMetric(float64((cpu(b)-spent).Nanoseconds())/float64(b.N)/1000, "cpu-µs/op")
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
