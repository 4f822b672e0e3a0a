package upstream

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
)

// targetsOf are targets of those weights, by names a, b, c and so on.
func targetsOf(weights ...int) []Target {
	list := make([]Target, len(weights))
	for i, w := range weights {
		list[i] = named(string(rune('a'+i)), w)
	}
	return list
}

func named(name string, weight int) Target {
	return Target{URL: &url.URL{Scheme: "http", Host: name}, Dial: name, Weight: weight}
}

func newPool(t testing.TB, o Options) *Pool {
	t.Helper()
	o.Name, o.NetHTTP = "heroes", o.NetHTTP || os.Getenv("GATEHOUSE_TEST_TRANSPORT") == "net_http"
	p := New(o)
	t.Cleanup(p.Close)
	return p
}

// picks counts whom n requests go to.
func (p *Pool) picks(n int, key func(int) string) map[string]int {
	counts := map[string]int{}
	for i := range n {
		k := ""
		if key != nil {
			k = key(i)
		}
		if t := p.pick(k); t != nil {
			counts[t.name]++
		} else {
			counts["nobody"]++
		}
	}
	return counts
}

// target is the one of that name.
func (p *Pool) target(t testing.TB, name string) *target {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, target := range p.targets {
		if target.name == name {
			return target
		}
	}
	t.Fatalf("no target %s", name)
	return nil
}

// serves has a target end n requests with an outcome.
func (p *Pool) serves(target *target, n int, o outcome) {
	for range n {
		target.begin()
		p.end(target, o)
	}
}

// states are the targets' states in order.
func (p *Pool) states() string {
	var b strings.Builder
	for _, s := range p.Status() {
		fmt.Fprintf(&b, "%s %s, ", s.Target, s.State)
	}
	return strings.TrimSuffix(b.String(), ", ")
}

// logged keeps log lines without their time.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Split(strings.TrimSpace(l.b.String()), "\n")
}

func (l *logged) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}
