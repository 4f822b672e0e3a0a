package gateway

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// chunks remembers each write by itself.
type chunks struct {
	mu  sync.Mutex
	got [][]byte
}

func (c *chunks) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got = append(c.got, bytes.Clone(p))
	return len(p), nil
}

func (c *chunks) all() (writes int, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.got), string(bytes.Join(c.got, nil))
}

func TestLogLinesGoOutTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var to chunks
		l := NewLogWriter(&to)
		for round := range 3 {
			for i := range 10 {
				_, _ = fmt.Fprintf(l, "round %d line %d\n", round, i)
			}
			if n, _ := to.all(); n != round {
				t.Fatalf("%d writes before the delay of round %d", n, round)
			}
			time.Sleep(logDelay)
			synctest.Wait()
			if n, text := to.all(); n != round+1 || strings.Count(text, "\n") != 10*(round+1) {
				t.Fatalf("after round %d: %d writes\n%s", round, n, text)
			}
		}
		_, _ = fmt.Fprintln(l, "the last one")
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if _, text := to.all(); !strings.HasSuffix(text, "the last one\n") {
			t.Error("Close left a line behind")
		}
	})
}

// slow lets everybody else go on before it takes something.
type slow struct{ chunks }

func (s *slow) Write(p []byte) (int, error) {
	for range 1000 {
		runtime.Gosched()
	}
	return s.chunks.Write(p)
}

// A log that is taken slowly holds up those who log, in bounded memory; nothing
// is lost, and each caller's lines keep their order.
func TestASlowLogHoldsUpAndLosesNothing(t *testing.T) {
	to := new(slow)
	l := NewLogWriter(to)
	const callers, each = 8, 5000
	padding := strings.Repeat("x", 100)
	var all sync.WaitGroup
	for c := range callers {
		all.Go(func() {
			for i := range each {
				_, _ = fmt.Fprintf(l, "%d %d %s\n", c, i, padding)
			}
		})
	}
	all.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, chunk := range to.got {
		if len(chunk) > logBatch+callers*(len(padding)+16) {
			t.Errorf("%d bytes waited", len(chunk))
		}
	}
	next := [callers]int{}
	_, text := to.all()
	for line := range strings.Lines(text) {
		var c, i int
		if n, err := fmt.Sscanf(line, "%d %d", &c, &i); n != 2 || err != nil || i != next[c] {
			t.Fatalf("caller %d: %q after %d lines", c, line, next[c])
		}
		next[c]++
	}
	for c, n := range next {
		if n != each {
			t.Errorf("caller %d: %d of %d lines", c, n, each)
		}
	}
}
