package upstream

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &budget{percent: 20, start: time.Now()}
		takes := func() (n int) {
			for b.take(time.Now()) {
				n++
			}
			return n
		}
		for _, step := range []struct {
			after    time.Duration
			requests int
			retries  int
		}{
			{0, 0, leastRetries},
			{0, 100, 20},
			{9 * time.Second, 0, 0},
			{time.Second, 0, leastRetries}, // all of that is ten seconds ago
			{5 * time.Second, 1000, 200},
			{5 * time.Second, 0, leastRetries}, // those of five seconds before, and theirs, still count
			{time.Hour, 0, leastRetries},
			{time.Hour, 4, leastRetries},
			{0, 1, 1}, // five are one retry
		} {
			time.Sleep(step.after)
			for range step.requests {
				b.request(time.Now())
			}
			if got := takes(); got != step.retries {
				t.Errorf("%+v: %d retries", step, got)
			}
		}
	})
}

// Another try goes to each of the others once, whatever the balance.
func TestAnother(t *testing.T) {
	t.Parallel()
	for _, balance := range []Balance{RoundRobin, LeastRequests, Hash} {
		p := newPool(t, Options{Targets: targetsOf(1, 1, 3), Balance: balance})
		for i := range 100 {
			key := fmt.Sprint(i)
			tried := []*target{p.pick(key)}
			for range 2 {
				next := p.another(key, tried)
				if next == nil || slices.Contains(tried, next) {
					t.Fatalf("%s: after %d tries %v", balance, len(tried), next)
				}
				tried = append(tried, next)
			}
			if balance == Hash && p.another(key, tried[:1]) != tried[1] {
				t.Errorf("%s: another of %s is not always the same", balance, key)
			}
			if next := p.another(key, tried); next != nil {
				t.Errorf("%s: %s is asked again", balance, next.name)
			}
		}
	}
}

// An informational response is a part of the response: once the client has it,
// the request is not sent again.
func TestNoRetryAfterEarlyHints(t *testing.T) {
	t.Parallel()
	for _, hints := range []bool{false, true} {
		asked := 0
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asked++ // one after the other
			if hints {
				w.Header().Set("Link", "</a.css>")
				w.WriteHeader(http.StatusEarlyHints)
			}
			w.WriteHeader(http.StatusServiceUnavailable)
		}))
		t.Cleanup(s.Close)
		f, results, pool := frontOf(t, s.URL, nil)
		pool.retries(Retries{NumRetries: 1, Statuses: []int{503}, BudgetPercent: 100})
		pool.set([]Target{{URL: pool.targets[0].URL, Weight: 1}, {URL: pool.targets[0].URL, Dial: s.Listener.Addr().String(), Weight: 1}})
		res, err := http.Get(f.URL)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if err := <-results; err != nil || res.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%v %v", err, res.Status)
		}
		if want := map[bool]int{false: 2, true: 1}[hints]; asked != want {
			t.Errorf("hints %v: asked %d times, want %d", hints, asked, want)
		}
	}
}

// A client that stops in the middle of a body that is kept for another try is
// told so, and the target is never asked.
func TestKeptBodies(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 10)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked <- string(body)
	}))
	t.Cleanup(s.Close)
	f, results, pool := frontOf(t, s.URL, func(c *Call) { c.IdleTimeout = 200 * time.Millisecond })
	pool.retries(Retries{NumRetries: 1, BudgetPercent: 100})
	conn, err := net.Dial("tcp", f.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf")
	if got := failure(t, results); got != ClientStalled {
		t.Errorf("got %v", got)
	}
	whole, err := http.NewRequest(http.MethodPut, f.URL, strings.NewReader("whole"))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(whole)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if err := <-results; err != nil {
		t.Error(err)
	}
	if got := <-asked; got != "whole" || len(asked) > 0 {
		t.Errorf("the target got %q", got)
	}
}

// Over HTTP/1 and HTTP/2, what may have reached a target reaches no other unless
// it may be received twice.
func TestSentOnce(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		panic(http.ErrAbortHandler)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.Protocols = &http.Protocols{}
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	for _, c := range []struct {
		scheme, method, body string
		once                 bool
		want                 int64
	}{
		{"http", "POST", "a hero", false, 1},
		{"h2c", "POST", "a hero", false, 1},
		{"http", "POST", "", false, 1},
		{"h2c", "POST", "", false, 1},
		{"http", "PUT", "a hero", false, 2},
		{"h2c", "PUT", "a hero", false, 2},
		{"http", "PUT", "a hero", true, 1},
		{"h2c", "DELETE", "", true, 1},
	} {
		f, results, pool := frontOf(t, strings.Replace(s.URL, "http", c.scheme, 1), func(call *Call) { call.Once = c.once })
		pool.retries(Retries{NumRetries: 3, ConnectFailure: true, Reset: true, BudgetPercent: 100})
		one := pool.targets[0].Target
		pool.set([]Target{one, {URL: one.URL, Dial: s.Listener.Addr().String(), Weight: 1}})
		asked.Store(0)
		r, err := http.NewRequest(c.method, f.URL, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if got := failure(t, results); got != Refused || asked.Load() != c.want {
			t.Errorf("%+v: %v, and it was sent %d times", c, got, asked.Load())
		}
	}
}

// retries switches them on before the first request.
func (p *Pool) retries(r Retries) {
	p.Retries, p.budget = &r, &budget{percent: r.BudgetPercent, start: time.Now()}
}
