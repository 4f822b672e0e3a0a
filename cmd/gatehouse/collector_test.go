package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

// gogc is the percentage that holds.
func gogc() int {
	now := [1]metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(now[:])
	return int(now[0].Value.Uint64())
}

// collected collects until ok, as each new percentage comes a moment after a
// collection.
func collected(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); runtime.GC() {
		if time.Now().After(end) {
			t.Fatalf("not %s: GOGC is %d", what, gogc())
		}
		runtime.Gosched()
	}
}

func TestCollectorFitsTheHeap(t *testing.T) {
	for _, test := range []struct {
		name, set string
		fits      bool
	}{
		{"nothing said", "", true},
		{"GOGC of the environment", "150", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("GOGC", test.set)
			if test.set == "" {
				_ = os.Unsetenv("GOGC")
			}
			before := debug.SetGCPercent(150)
			ctx, cancel := context.WithCancel(t.Context())
			defer func() {
				cancel()
				debug.SetGCPercent(before)
			}()
			fitCollector(ctx)
			if !test.fits {
				for range 5 {
					runtime.GC()
				}
				if n := gogc(); n != 150 {
					t.Errorf("GOGC is %d", n)
				}
				return
			}
			collected(t, "raised over a small heap", func() bool { return gogc() == mostPercent })
			live := make([]byte, 2*leastGarbage)
			collected(t, "Go's own over a large one", func() bool { return gogc() == usualPercent })
			runtime.KeepAlive(live)
			collected(t, "raised again", func() bool { return gogc() == mostPercent })
		})
	}
}
