package main

import (
	"bufio"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// vitals are what a gateway holds at one time, as its metrics tell.
type vitals struct {
	At          float64 // seconds since the soak began
	Goroutines  int
	Files       int     // open files and sockets
	Heap        int64   // bytes, those included that await collection
	Resident    int64   // bytes
	Connections int     // of clients
	Requests    int     // answered since the gateway's start
	Faults      int     // of them 500
	collected   float64 // when garbage was collected last
}

// scrape reads a gateway's metrics: the sums of what each name has.
func scrape(status string) (map[string]float64, error) {
	res, err := http.Get("http://" + status + "/metrics")
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	sums := map[string]float64{}
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		line := lines.Text()
		at := strings.LastIndexByte(line, ' ') // labels may hold spaces, too
		if at < 0 || line[0] == '#' {
			continue
		}
		series := line[:at]
		value, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("metrics: %q", line)
		}
		name, labels, _ := strings.Cut(series, "{")
		sums[name] += value
		if name == "gatehouse_requests_total" && strings.Contains(labels, `status="500"`) {
			sums["faults"] += value
		}
		if name == "gatehouse_reloads_total" {
			sums[series] += value
		}
	}
	return sums, lines.Err()
}

func (g *soaked) vitals(begin time.Time) (vitals, error) {
	m, err := scrape(g.site.Status)
	if err != nil {
		return vitals{}, err
	}
	return vitals{
		At: time.Since(begin).Seconds(), Goroutines: int(m["go_goroutines"]), Files: int(m["process_open_fds"]),
		Heap: int64(m["go_memstats_heap_alloc_bytes"]), Resident: int64(m["process_resident_memory_bytes"]),
		Connections: int(m["gatehouse_connections"]), Requests: int(m["gatehouse_requests_total"]), Faults: int(m["faults"]),
		collected: m["go_memstats_last_gc_time_seconds"],
	}, nil
}

// rested waits until a gateway that nobody asks any more has held the same for
// some time, and no more than is allowed, and returns what that is, after its
// garbage has been collected.
func (s *soak) rested(g *soaked, most vitals) (vitals, error) {
	still := min(max(3*time.Second, s.length/6), keptToTargets)
	last, err := g.vitals(s.begin)
	for since, start := time.Now(), time.Now(); err == nil && s.ctx.Err() == nil && time.Since(start) < keptToTargets+still; {
		s.letGo()
		pause(s.ctx.Done(), 500*time.Millisecond)
		var now vitals
		if now, err = g.vitals(s.begin); now.Goroutines != last.Goroutines || now.Files != last.Files || now.Connections > 0 {
			since = time.Now()
		}
		if last = now; time.Since(since) > still && last.Goroutines <= most.Goroutines && last.Files <= most.Files {
			break
		}
	}
	if err != nil {
		return last, err
	}
	s.say("%s rests with %d goroutines and %d files", g.site.Name, last.Goroutines, last.Files)
	return g.collect(s.begin, last)
}

// keptToTargets is somewhat longer than a gateway keeps idle connections to
// targets.
const keptToTargets = 100 * time.Second

// letGo has the backends close connections on which no request is in flight, so
// that it need not be waited for the gateway to do so. Those that it opened and
// never used, nginx leaves to it.
func (s *soak) letGo() {
	for _, p := range []*process{s.backend, s.fragile} {
		_ = p.cmd.Process.Signal(syscall.SIGHUP) // nginx's workers end when their requests have
	}
	s.odd.letGo()
}

// collect has a gateway collect its garbage, without a door into it for that:
// each scrape makes some. What a sync.Pool holds goes only the second time, and
// what is swept late is gone by the fourth.
func (g *soaked) collect(begin time.Time, last vitals) (vitals, error) {
	heap, at := int64(math.MaxInt64), last.collected
	for collections := 0; collections < 4; {
		now, err := g.vitals(begin)
		if err != nil {
			return now, err
		}
		if now.collected != at {
			at, collections = now.collected, collections+1
		}
		if collections >= 2 {
			heap = min(heap, now.Heap)
		}
		last = now
	}
	last.Heap = heap
	return last, nil
}
