package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// What a gateway may hold at the end beyond what it held after the warm-up.
// Connections to backends and Redis that are kept, and memory that the runtime
// has not given back, differ by some each time; what leaks by a request, a
// reload or a client that goes away does so thousands of times.
const (
	moreGoroutines = 32
	moreFiles      = 24
	moreHeap       = 16 << 20
	moreResident   = 64 << 20
)

// silent is for what net/http would log of clients that do wrong.
var silent = log.New(io.Discard, "", 0)

// soak is Gatehouse under everything at once.
type soak struct {
	*rig
	begin          time.Time
	gateways       []*soaked
	odd            *odd
	fragile        *process
	fragileAddress string
	tokens         []string
	tokenFile      string
	revoked        string
	outages        outages

	mu      sync.Mutex
	tallies map[string]*tally
	faults  []string
}

// tally is what became of the requests, or acts, of one kind.
type tally struct{ Done, Explained, Failed int }

// soakResult is what is kept of one gateway.
type soakResult struct {
	Gateway       string
	Before, After vitals
	Samples       []vitals
	Seconds       float64
	Tallies       map[string]*tally
	Faults        []string
}

// soak loads two gateways, one in clear text and one with TLS, and fails if one
// of them answers wrongly or keeps what it should have let go.
func (r *rig) soak() error {
	s := &soak{rig: r, begin: time.Now(), tallies: map[string]*tally{}}
	defer s.end()
	if err := s.prepare(); err != nil {
		return err
	}
	// Every token once, so that nothing is remembered later that was not before.
	for _, g := range s.gateways {
		if _, err := r.press(g.stand, benchCase{Path: "/heroes", Method: "GET", Once: true}, s.tokenFile, time.Minute, nil, nil); err != nil {
			return err
		}
	}
	warm := max(5*time.Second, r.length/10)
	r.say("warming up for %s", warm)
	if _, err := s.load(warm); err != nil {
		return err
	}
	results := make([]soakResult, len(s.gateways))
	for i, g := range s.gateways {
		results[i].Gateway = g.site.Name
	}
	r.say("letting it rest")
	unbounded := vitals{Goroutines: math.MaxInt, Files: math.MaxInt}
	if err := s.rest(func(i int, g *soaked) (err error) {
		results[i].Before, err = s.rested(g, unbounded)
		return err
	}); err != nil {
		return err
	}
	clear(s.tallies)
	r.say("soaking for %s", r.length)
	start := time.Now()
	samples, err := s.load(r.length)
	if err != nil {
		return err
	}
	took := time.Since(start).Seconds()
	r.say("letting it rest")
	if err := s.rest(func(i int, g *soaked) (err error) {
		before := results[i].Before
		results[i].After, err = s.rested(g, vitals{Goroutines: before.Goroutines + moreGoroutines, Files: before.Files + moreFiles})
		return err
	}); err != nil {
		return err
	}
	for i := range results {
		results[i].Samples, results[i].Seconds, results[i].Tallies = samples[i], took, s.tallies
		if s.judge(results[i]) {
			file, err := s.stacks(s.gateways[i])
			s.say("what its goroutines do: %s", errors.Join(errors.New(file), err))
		}
	}
	for i := range results {
		results[i].Faults = s.faults
	}
	tables, chart := soakReport(results)
	for _, t := range tables {
		r.say("\n%s", t.markdown())
	}
	if len(s.faults) > 0 {
		r.docs = false
	}
	if err := r.keep("soak", results, tables, chart); err != nil {
		return err
	}
	if len(s.faults) > 0 {
		return fmt.Errorf("the soak found %d faults:\n%s", len(s.faults), strings.Join(s.faults, "\n"))
	}
	return nil
}

// prepare starts what takes part.
func (s *soak) prepare() (err error) {
	if s.redis == nil {
		return errors.New("a soak wants redis-server")
	}
	if s.odd, err = newOdd(s.base.Answer); err != nil {
		return err
	}
	if s.fragileAddress, err = freeAddress(); err != nil {
		return err
	}
	if s.fragile, err = s.startBackend("fragile", s.fragileAddress); err != nil {
		return err
	}
	if s.tokenFile, err = s.file("soak", func(w io.Writer) error { return s.signers.write(w, "EdDSA", s.base.Issuer, 1, s.many) }); err != nil {
		return err
	}
	text, err := os.ReadFile(s.tokenFile)
	if err != nil {
		return err
	}
	s.tokens = strings.Fields(string(text))
	stolen := newClaims(s.base.Issuer, 0)
	if s.revoked, err = s.signers.sign("EdDSA", stolen); err != nil {
		return err
	}
	if err := s.revoke(stolen.ID); err != nil {
		return err
	}
	for _, name := range []string{"clear text", "TLS"} {
		g := &soaked{watches: name == "TLS"}
		site := s.base
		site.Name, site.TLS, site.Dir = name, name == "TLS", filepath.Join(s.dir, "peers", name)
		if err := os.MkdirAll(site.Dir, 0o755); err != nil {
			return err
		}
		if site.Listen, err = freeAddress(); err != nil {
			return err
		}
		if site.Status, err = freeAddress(); err != nil {
			return err
		}
		g.config, g.fill = filepath.Join(site.Dir, "routes.yaml"), soakSite{site: site, Odd: s.odd.address, Fragile: s.fragileAddress}
		g.stand = &stand{site: site, url: map[bool]string{false: "http://", true: "https://"}[site.TLS] + site.Listen}
		if err := errors.Join(g.write(0), s.renew(g)); err != nil {
			return err
		}
		g.process, err = launch(exec.Command(s.binary, "serve", "--grace", "1s", "--watch="+fmt.Sprint(g.watches), "--config", g.config), filepath.Join(site.Dir, "output.log"))
		if err != nil {
			return err
		}
		s.gateways = append(s.gateways, g)
		if err := s.accepts(g.process, site.Listen); err != nil {
			return err
		}
		// Before this the replica may not have been loaded yet, and all is refused.
		client := callerOf(g, false)
		for deadline := time.Now().Add(10 * time.Second); ; {
			_, err := s.answer(client, "GET", g.url+"/heroes", s.revoked, nil, 0, http.StatusUnauthorized)
			if err = errors.Join(err, s.gets(client, g.url+"/heroes", 200)); err == nil {
				break
			} else if time.Now().After(deadline) {
				return fmt.Errorf("%s: %w: %s", name, err, g.said())
			}
			time.Sleep(10 * time.Millisecond)
		}
		client.CloseIdleConnections()
	}
	return nil
}

func (s *soak) end() {
	for _, g := range s.gateways {
		g.process.stop()
	}
	if s.fragile != nil {
		s.fragile.stop()
	}
	if s.odd != nil {
		_ = s.odd.server.Close()
	}
}

// note adds to the tally of that name.
func (s *soak) note(name string, change func(*tally)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tallies[name] == nil {
		s.tallies[name] = &tally{}
	}
	change(s.tallies[name])
}

// fault is something that nothing explains.
func (s *soak) fault(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	const most = 30
	if text := fmt.Sprintf("%8.3f s: ", time.Since(s.begin).Seconds()) + fmt.Sprintf(format, args...); len(s.faults) < most {
		s.faults = append(s.faults, text)
		s.say("fault: %s", text)
	}
}

// load lets everybody loose for a time, and returns samples of each gateway.
// When it is over all clients have gone, and all is as it was before.
func (s *soak) load(length time.Duration) ([][]vitals, error) {
	ctx, cancel := context.WithTimeout(s.ctx, length)
	defer cancel()
	var everybody sync.WaitGroup
	for _, g := range s.gateways {
		everybody.Go(func() { s.hurry(ctx, g) })
		clients := []*http.Client{callerOf(g, false), callerOf(g, true)}
		for i, client := range clients {
			defer client.CloseIdleConnections()
			protocol := []string{"HTTP/1.1", "HTTP/2"}[i]
			for _, c := range allCallers {
				if c.http1 && i > 0 {
					continue
				}
				for range c.many {
					everybody.Go(func() { s.calls(ctx, g, c, client, protocol) })
				}
			}
		}
		v := &victim{g, []*http.Client{callerOf(g, false), callerOf(g, true)}}
		defer v.clients[0].CloseIdleConnections()
		defer v.clients[1].CloseIdleConnections()
		for _, vandal := range allVandals {
			for range vandal.many {
				everybody.Go(func() {
					for ; ctx.Err() == nil; pause(ctx.Done(), 20*time.Millisecond) {
						err := vandal.act(s, ctx, v)
						s.note(vandal.name, func(t *tally) {
							t.Done++
							if err != nil {
								t.Explained++
							}
						})
					}
				})
			}
		}
	}
	for _, u := range allUpsets {
		everybody.Go(func() {
			for turn := 1; ; turn++ {
				if pause(ctx.Done(), u.every); ctx.Err() != nil {
					return
				}
				if err := u.cause(s, ctx, turn); err != nil && s.ctx.Err() == nil {
					s.fault("%s: %v", u.name, err)
				}
				s.note(u.name, func(t *tally) { t.Done++ })
			}
		})
	}
	samples := make([][]vitals, len(s.gateways))
	var broken error
	for ticks := time.NewTicker(max(time.Second, length/100)); ctx.Err() == nil && broken == nil; {
		select {
		case <-ctx.Done():
		case <-ticks.C:
			for i, g := range s.gateways {
				v, err := g.vitals(s.begin)
				if err != nil {
					broken = fmt.Errorf("%s: %w: %s", g.site.Name, err, g.said())
					cancel()
					break
				}
				samples[i] = append(samples[i], v)
			}
		}
	}
	everybody.Wait()
	return samples, errors.Join(s.ctx.Err(), broken)
}

// calls lets one caller ask again and again.
func (s *soak) calls(ctx context.Context, g *soaked, c caller, client *http.Client, protocol string) {
	for ctx.Err() == nil {
		from := time.Now()
		err := c.ask(s, client, g.url)
		explained := err != nil && c.fragile && s.outages.explain(from, time.Now())
		s.note(c.name, func(t *tally) {
			switch t.Done++; {
			case explained:
				t.Explained++
			case err != nil:
				t.Failed++
			}
		})
		if err != nil && !explained {
			s.fault("%s, %s, %s: after %s: %v", g.site.Name, protocol, c.name, time.Since(from), err)
		}
	}
}

// hurry sends as many requests as go through, with every token in turn.
func (s *soak) hurry(ctx context.Context, g *soaked) {
	const name = "GET at full speed"
	for ctx.Err() == nil {
		got, err := s.press(g.stand, benchCase{Path: "/heroes", Method: "GET"}, s.tokenFile, 2*time.Second, nil, nil)
		s.note(name, func(t *tally) { t.Done += got.Requests })
		if err != nil && s.ctx.Err() == nil {
			s.note(name, func(t *tally) { t.Failed++ })
			s.fault("%s, %s: %v", g.site.Name, name, err)
		}
	}
}

// rest has every gateway go back to its first configuration, and looks at each.
func (s *soak) rest(look func(int, *soaked) error) error {
	for _, g := range s.gateways {
		if err := s.reload(g, 0); err != nil { // its text differs from that of the last turn, or nothing was taken up
			return err
		}
	}
	for i, g := range s.gateways {
		if err := look(i, g); err != nil {
			return fmt.Errorf("%s: %w", g.site.Name, err)
		}
	}
	if n := s.odd.serving.Load(); n > 0 {
		s.fault("%d requests are still in flight at a backend", n)
	}
	return s.ctx.Err()
}

// judge holds what a gateway held at the end against what it held before.
func (s *soak) judge(r soakResult) (guilty bool) {
	for _, q := range []struct {
		name                string
		before, after, more int64
	}{
		{"goroutines", int64(r.Before.Goroutines), int64(r.After.Goroutines), moreGoroutines},
		{"open files", int64(r.Before.Files), int64(r.After.Files), moreFiles},
		{"bytes of heap", r.Before.Heap, r.After.Heap, moreHeap},
		{"bytes of memory", r.Before.Resident, r.After.Resident, moreResident},
		{"connections of clients", 0, int64(r.After.Connections), 0},
		{"answers of 500", 0, int64(r.After.Faults), 0},
	} {
		if q.after > q.before+q.more {
			s.fault("%s: %d %s at the end, %d before", r.Gateway, q.after, q.name, q.before)
			guilty = true
		}
	}
	return guilty
}

// stacks ends a gateway so that it tells what its goroutines do, and returns
// the file where that stands.
func (s *soak) stacks(g *soaked) (string, error) {
	if err := g.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		return "", err
	}
	<-g.exited
	log, err := os.ReadFile(g.output)
	if err != nil {
		return "", err
	}
	file := filepath.Join(os.TempDir(), "soak-stacks-"+strings.ReplaceAll(g.site.Name, " ", "-")+".txt")
	return file, os.WriteFile(file, log[max(0, bytes.LastIndex(log, []byte("SIGQUIT: quit"))):], 0o600)
}

// soakReport is for the docs.
func soakReport(results []soakResult) ([]table, string) {
	held := table{Title: "What the gateways held", Head: []string{"gateway", "", "before", "most", "after"},
		About: "At rest before the soak, the most in a sample under load, and at rest after it"}
	var panels []panel
	for _, r := range results {
		for _, q := range []struct {
			name string
			of   func(vitals) float64
		}{
			{"goroutines", func(v vitals) float64 { return float64(v.Goroutines) }},
			{"open files", func(v vitals) float64 { return float64(v.Files) }},
			{"heap, MiB", func(v vitals) float64 { return *mebibytes(v.Heap) }},
			{"resident, MiB", func(v vitals) float64 { return *mebibytes(v.Resident) }},
		} {
			most := 0.0
			p := panel{title: r.Gateway, unit: q.name, bars: []bar{{"before", q.of(r.Before)}}}
			for i, v := range r.Samples {
				most = max(most, q.of(v))
				if every := max(1, len(r.Samples)/10); i%every == every-1 {
					p.bars = append(p.bars, bar{fmt.Sprintf("%.0f s", v.At-r.Before.At), q.of(v)})
				}
			}
			p.bars = append(p.bars, bar{"after", q.of(r.After)})
			panels = append(panels, p)
			held.Rows = append(held.Rows, []string{r.Gateway, q.name, number(q.of(r.Before)), number(most), number(q.of(r.After))})
		}
	}
	sent := table{Title: "What was done to them", Head: []string{"", "times", "explained", "failed"},
		About: fmt.Sprintf("In %.0f s; of a backend that restarts, *explained* are those that failed while it was down, of hostile clients those that were hindered", results[0].Seconds)}
	for _, name := range slices.Sorted(maps.Keys(results[0].Tallies)) {
		t := results[0].Tallies[name]
		sent.Rows = append(sent.Rows, []string{name, fmt.Sprint(t.Done), fmt.Sprint(t.Explained), fmt.Sprint(t.Failed)})
	}
	return []table{held, sent}, svg(panels)
}
