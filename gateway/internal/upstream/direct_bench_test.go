package upstream

import (
	"bufio"
	"io"
	"net"
	"net/http"
	neturl "net/url"
	"strings"
	"testing"
)

func BenchmarkRoundTrip(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				answer := []byte("HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 08:13:14 GMT\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 200\r\n\r\n" + strings.Repeat("x", 200))
				in := bufio.NewReader(c)
				for {
					line, err := in.ReadSlice('\n')
					if err != nil {
						return
					}
					if len(line) == 2 {
						_, _ = c.Write(answer)
					}
				}
			}()
		}
	}()
	url := "http://" + l.Addr().String()
	tr := newTransport("", nil, connectTimeout)
	tr.Protocols.SetHTTP1(true)
	d := newDirect(&neturl.URL{Scheme: "http", Host: l.Addr().String()}, tr)
	for _, c := range []struct {
		name string
		rt   http.RoundTripper
	}{{"net_http", tr}, {"direct", d}} {
		b.Run(c.name, func(b *testing.B) {
			r, _ := http.NewRequestWithContext(b.Context(), "GET", url+"/heroes/17?x=1", nil)
			for i, h := range []string{"Accept", "Authorization", "User-Agent", "X-Request-Id", "Traceparent", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Jwt-Sub", "X-Jwt-Iss", "X-Jwt-Privileges"} {
				r.Header.Set(h, strings.Repeat("v", 10+3*i))
			}
			buf := make([]byte, 32<<10)
			b.ReportAllocs()
			spent := cpu(b)
			for b.Loop() {
				res, err := c.rt.RoundTrip(r)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, res.Body, buf)
				_ = res.Body.Close()
			}
			b.ReportMetric(float64((cpu(b)-spent).Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
}
