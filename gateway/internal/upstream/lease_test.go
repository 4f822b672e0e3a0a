package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

var errOver = errors.New("over")

// A lease is renewed twice, then it ends what it finds.
func TestLease(t *testing.T) {
	var asked atomic.Int32
	lasting := func(c *Call) {
		asked.Store(0)
		c.Lasts = time.Millisecond
		c.Renew = func(context.Context) (time.Duration, error) {
			if asked.Add(1) < 3 {
				return time.Millisecond, nil
			}
			return 0, errOver
		}
	}
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
		}
		<-r.Context().Done() // which is how the target learns of it
	}))
	t.Cleanup(target.Close)
	s, results := front(t, target.URL, lasting)

	res, err := http.Get(s.URL + "/waits")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if err := <-results; err != errOver || asked.Load() != 3 {
		t.Errorf("before the headers: %v, asked %d times", err, asked.Load())
	}

	if res, err = http.Get(s.URL + "/stream"); err == nil {
		_, err = io.ReadAll(res.Body)
		_ = res.Body.Close()
	}
	if err == nil {
		t.Error("the stream seems whole")
	}
}
