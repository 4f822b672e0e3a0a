package revoke

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatehouse/gateway/token"
)

// BenchmarkCheck is what a token costs whose every name is looked up.
func BenchmarkCheck(b *testing.B) {
	for _, n := range []int{0, 1_000, 1_000_000, 10_000_000} {
		b.Run(fmt.Sprintf("replica/entries=%d", n), func(b *testing.B) {
			if free := available(b); n > 1_000_000 && free < 4<<30 {
				b.Skipf("%d MiB of memory are free; this takes 4 GiB", free>>20)
			}
			r := NewReplica(Options{Check: all})
			r.inStep.Store(true)
			for i := range n {
				r.ledger.revoke(kinds[i%len(kinds)], fmt.Sprint("somebody-else-", i), everything, time.Hour)
			}
			checks(b, r.Check, "")
		})
	}
	b.Run("lookup", func(b *testing.B) {
		s := serve(b)
		l := NewLookup(Options{Client: connect(b, s.addr), Check: all})
		checks(b, l.Check, "")
	})
	b.Run("lookup/dead", func(b *testing.B) {
		l := NewLookup(Options{Client: connect(b, freeAddr(b)), Check: all})
		checks(b, l.Check, token.StoreUnavailable)
	})
}

func checks(b *testing.B, check func(context.Context, *token.Verified) error, want token.Reason) {
	v := fullToken(b)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := check(context.Background(), v); (err != nil || want != "") && reasonOf(err) != want {
				b.Error(err)
			}
		}
	})
}

// fill writes n revocations.
func fill(t testing.TB, s *instance, n int) {
	t.Helper()
	for i := 0; i < n; {
		p := s.Pipeline()
		for end := min(n, i+10_000); i < end; i++ {
			p.Set(context.Background(), Key(JTI, "main", fmt.Sprintf("%08d-89ab-4def-8000-0123456789ab", i)), "1", time.Hour)
		}
		if _, err := p.Exec(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkLoad is the time from a start to being in step.
func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{10_000, 1_000_000} {
		b.Run(fmt.Sprintf("entries=%d", n), func(b *testing.B) {
			s := serve(b)
			fill(b, s, n)
			client := connect(b, s.addr)
			redisBefore, ownBefore := s.cpu(), ownCPU(b)
			for b.Loop() {
				r := NewReplica(Options{Client: client, Check: all})
				r.Start(context.Background())
				if h := r.Health(); !h.InStep || h.Entries != n {
					b.Fatalf("%+v", h)
				}
				r.Close()
			}
			// On a shared machine these repeat, the time does not.
			b.ReportMetric((s.cpu()-redisBefore).Seconds()/float64(b.N), "redis-cpu-s")
			b.ReportMetric((ownCPU(b)-ownBefore).Seconds()/float64(b.N), "own-cpu-s")
		})
	}
}

// BenchmarkPropagation is the time from the answer to a SET until the token is
// refused, of 1,000 samples at a time.
func BenchmarkPropagation(b *testing.B) {
	s := serve(b)
	fill(b, s, 10_000)
	f := loaded(b, Options{Client: connect(b, s.addr)})
	var took []time.Duration
	for b.Loop() {
		for range 1_000 {
			jti := fmt.Sprint("sample", len(took))
			v := withJTI(b, jti)
			s.revoke(jti)
			start := time.Now()
			for f.verdict(v) == "" {
				if time.Since(start) > 10*time.Second {
					b.Fatal("never seen")
				}
				time.Sleep(10 * time.Microsecond) // what is measured must not wait for a busy loop's processor
			}
			took = append(took, time.Since(start))
		}
	}
	slices.Sort(took)
	at := func(q float64) float64 { return float64(took[int(q*float64(len(took)-1))].Microseconds()) }
	b.ReportMetric(at(.5), "p50-µs")
	b.ReportMetric(at(.99), "p99-µs")
	b.ReportMetric(at(1), "max-µs")
	b.ReportMetric(float64(len(took)), "samples")
}

// cpu is the processor time that the server has taken.
func (i *instance) cpu() (total time.Duration) {
	for line := range strings.Lines(fmt.Sprint(i.do("INFO", "cpu"))) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_sys" || name == "used_cpu_user" {
			seconds, err := strconv.ParseFloat(value, 64)
			if err != nil {
				i.t.Fatal(err)
			}
			total += time.Duration(seconds * float64(time.Second))
		}
	}
	return total
}

// ownCPU is the same of this process.
func ownCPU(tb testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// available is the memory that the machine has left, in bytes.
func available(tb testing.TB) int {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		tb.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "MemAvailable:")
	var kib int
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		tb.Fatal(err)
	}
	return kib << 10
}
