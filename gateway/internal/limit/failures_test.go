package limit

import (
	"strings"
	"testing"
	"time"
)

func TestFailures(t *testing.T) {
	c := newClock()
	f, err := NewFailures(FailureOptions{Rate: Rate{10, time.Minute}, Burst: 3, MaxEntries: 5, Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	ip := caller(1).IP
	for range 3 {
		for range 10 { // asking takes nothing
			if err := f.Over(ip); err != nil {
				t.Fatalf("over after fewer than 3 failures: %v", err)
			}
		}
		f.Add(ip)
	}
	e := refused(t, f.Over(ip))
	if limit, policy, after := e.Headers(); limit != `"auth_failures";r=0;t=6` || policy != `"auth_failures";q=10;w=60` || after != "6" || len(e.Violated) != 1 {
		t.Errorf("%s, %s, %s", limit, policy, after)
	}
	f.Add(ip) // of a request that was on its way; the bucket has no less than nothing
	c.Advance(6 * time.Second)
	if err := f.Over(ip); err != nil {
		t.Errorf("still over: %v", err)
	}
	if err := f.Over(caller(2).IP); err != nil {
		t.Errorf("another address: %v", err)
	}
	if s := f.Stats(); s.Keys != 1 || s.Admitted != 4 || s.Refused != 1 {
		t.Errorf("%+v: who asks is not remembered", s)
	}
	for n := range 100 { // an attack from more addresses than there is room for
		f.Add(caller(100 + n).IP)
	}
	if f.Over(caller(5000).IP) == nil {
		t.Error("a new address has a bucket of its own although there is no room")
	}
	c.Advance(time.Hour)
	if err := f.Over(caller(5000).IP); err != nil {
		t.Errorf("over after an hour: %v", err)
	}
	if _, err := NewFailures(FailureOptions{}); err == nil || !strings.Contains(err.Error(), FailuresName) {
		t.Errorf("no rate: %v", err)
	}
	if n := testing.AllocsPerRun(100, func() { _ = f.Over(ip) }); n != 0 {
		t.Errorf("%v allocations to ask", n)
	}
}
