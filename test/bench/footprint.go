package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// footprint is what a gateway takes of a machine in one state.
type footprint struct {
	Routes    int
	State     string
	Round     int
	Resident  int64   // bytes
	Cores     float64 // processor time in a second of time
	PerSecond float64 // requests
}

// The states in which it is measured.
const (
	atRest  = "idle"
	atRate  = "1,000 requests/s"
	atLimit = "full load"
)

// footprints measures memory and processor time of a gateway that does nothing,
// a little, and all it can, with few routes and with many.
func (r *rig) footprints() error {
	r.rate = 1000
	sizes := []int{10, 1000, 10_000}
	if r.quick {
		sizes = sizes[:1]
	}
	var all []footprint
	for round := range r.rounds {
		for _, i := range rand.Perm(len(sizes)) {
			got, err := r.footprint(sizes[i])
			if err != nil {
				return fmt.Errorf("%d routes: %w", sizes[i], err)
			}
			for _, f := range got {
				f.Round = round
				all = append(all, f)
				r.say("round %d of %d: %6d routes, %-16s %5d MiB %5.2f cores %7.0f requests/s", round+1, r.rounds, f.Routes, f.State, f.Resident>>20, f.Cores, f.PerSecond)
			}
		}
	}
	t := table{Title: "What it takes of a machine", About: "Memory (resident) and processor time, medians", Head: []string{"routes", "", "MiB", "cores", "requests/s"}}
	for _, n := range sizes {
		for _, state := range []string{atRest, atRate, atLimit} {
			of := func(value func(footprint) float64) string {
				var values []float64
				for _, f := range all {
					if f.Routes == n && f.State == state {
						values = append(values, value(f))
					}
				}
				slices.Sort(values)
				return middle(values)
			}
			t.Rows = append(t.Rows, []string{fmt.Sprint(n), state,
				of(func(f footprint) float64 { return float64(f.Resident) / (1 << 20) }),
				of(func(f footprint) float64 { return f.Cores }),
				of(func(f footprint) float64 { return f.PerSecond })})
		}
	}
	r.say("\n%s", t.markdown())
	return r.keep("footprint", all, []table{t}, "")
}

// footprint measures a gateway with n routes in each state.
func (r *rig) footprint(n int) ([]footprint, error) {
	c := benchCase{Name: "footprint", Path: "/heroes", Method: "GET", Answer: 200, Tokens: "many", Alg: "RS256"}
	tokens, err := r.tokens(c)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(tokens)
	if err != nil {
		return nil, err
	}
	list := strings.Fields(string(text))
	s := r.base
	s.peer = peer{Name: "footprint", Program: "gatehouse", Auth: true, Config: "grow.yaml"}
	s.Dir, s.Routes, s.Redis = filepath.Join(r.dir, "peers", s.Name), upTo(n), ""
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return nil, err
	}
	run, err := r.raise(s, c, nil)
	if err != nil {
		return nil, err
	}
	defer run.stop()
	length := time.Duration(r.seconds) * time.Second
	var all []footprint
	for _, state := range []struct {
		name string
		do   func() (requests int, err error)
	}{
		{atRest, func() (int, error) {
			select {
			case <-time.After(length):
			case <-r.ctx.Done():
			}
			return 0, r.ctx.Err()
		}},
		{atRate, func() (int, error) {
			_, err := r.paced(run.site.Listen, c.Path, list, length)
			return r.rate * r.seconds, err
		}},
		{atLimit, func() (int, error) {
			l, err := r.press(run, c, tokens, length, nil, nil)
			return l.Requests, err
		}},
	} {
		before, err := processorTime(run.tree())
		if err != nil {
			return nil, err
		}
		start := time.Now()
		requests, err := state.do()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", state.name, err)
		}
		took := time.Since(start).Seconds()
		after, err := processorTime(run.tree())
		if err != nil {
			return nil, err
		}
		f := footprint{Routes: n, State: state.name, Cores: (after - before).Seconds() / took, PerSecond: float64(requests) / took}
		if f.Resident, err = resident(run.tree()); err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return all, nil
}
