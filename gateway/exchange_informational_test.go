package gateway

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"gatehouse/gateway/internal/inject"
)

// What becomes of the headers after an informational response is no business of
// it: net/http may be at writing it when the client's reset lets the handler go.
// The race detector tells.
func TestInformationalResponsesKeepTheirHeaders(t *testing.T) {
	strip, err := inject.New(inject.Options{Prefix: "x-jwt-"})
	if err != nil {
		t.Fatal(err)
	}
	var h2c http.Protocols
	h2c.SetUnencryptedHTTP2(true)
	s := &http.Server{Protocols: &h2c, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		rec := &recorder{ResponseWriter: w, strip: strip}
		for range 20 {
			for i := range 20 {
				rec.Header()[fmt.Sprintf("X-Hint-%d", i)] = []string{"hint"}
			}
			rec.WriteHeader(http.StatusEarlyHints)
			clear(rec.Header()) // as httputil does
		}
	})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	go func() { _ = s.Serve(l) }()
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			transport := &http.Transport{Protocols: &h2c}
			defer transport.CloseIdleConnections()
			for i := range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(100+(i+worker)%20*100)*time.Microsecond)
				r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.Addr().String(), nil)
				if err != nil {
					t.Error(err)
				} else if res, err := transport.RoundTrip(r); err == nil {
					_ = res.Body.Close()
				}
				cancel()
			}
		})
	}
	all.Wait()
}
