package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// result is one peer's round of one case.
type result struct {
	Case, Peer   string
	Round        int
	Requests     int
	Seconds      float64
	PerSecond    float64
	P50, P99     float64  // microseconds, at saturation
	CPU          float64  // microseconds per request
	Instructions *float64 `json:",omitempty"` // thousands per request, in user mode and in the kernel
	User         *float64 `json:",omitempty"` // those in user mode
	Added        *float64 `json:",omitempty"` // microseconds between client and backend, at the fixed rate
	Idle, Loaded int64    // bytes of memory
	First        float64  // milliseconds to the first 200
}

// measureAll does all cases with all peers that take part, in random order.
// Peers that cannot take part are told and left out; one that answers wrongly
// ends it all.
func (r *rig) measureAll(cases []benchCase, peers []peer) ([]result, error) {
	type pair struct {
		benchCase
		peer
	}
	var pairs []pair
	for _, c := range cases {
		for _, p := range peers {
			if c.takes(p) {
				pairs = append(pairs, pair{c, p})
			}
		}
	}
	var results []result
	missing := map[pair]bool{}
	for round := range r.rounds {
		rand.Shuffle(len(pairs), func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
		for i, p := range pairs {
			if missing[p] {
				continue
			}
			got, err := r.measure(p.benchCase, p.peer, round)
			if errors.Is(err, errMissing) && r.ctx.Err() == nil {
				missing[p] = true
				r.say("%s in %s: %v", p.peer.Name, p.benchCase.Name, err)
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("%s in %s: %w", p.peer.Name, p.benchCase.Name, err)
			}
			results = append(results, got)
			cost := fmt.Sprintf("%7.1f µs", got.CPU)
			if got.Instructions != nil {
				cost = fmt.Sprintf("%7.1f kinstr", *got.Instructions)
			}
			r.say("round %d of %d, %d of %d: %-16s %-13s %7.0f requests/s %s", round+1, r.rounds, i+1, len(pairs), got.Peer, got.Case, got.PerSecond, cost)
		}
	}
	return results, nil
}

// measure starts a peer, checks it, warms it up and times it.
func (r *rig) measure(c benchCase, p peer, round int) (result, error) {
	got := result{Case: c.Name, Peer: p.Name, Round: round}
	tokens, err := r.tokens(c)
	if err != nil {
		return got, err
	}
	if p.Program == "gatehouse" && !exists(filepath.Join(r.dir, "peers", p.Name, "main.jwks")) {
		// The time to the first 200 is that with a snapshot of the keys.
		s, err := r.start(c, p)
		if err != nil {
			return got, err
		}
		s.stop()
	}
	s, err := r.start(c, p)
	if err != nil {
		return got, err
	}
	defer s.stop()
	got.First = float64(s.first.Microseconds()) / 1000
	if got.Idle, err = resident(s.tree()); err != nil {
		return got, err
	}
	if err := r.check(s, c); err != nil {
		return got, fmt.Errorf("it does not do the job, so it is not timed: %w", err)
	}
	length := time.Duration(r.seconds) * time.Second
	if err := r.warm(s, c, length); err != nil {
		return got, fmt.Errorf("warming up: %w", err)
	}
	if err := r.time(&got, s, c, tokens, length); err != nil {
		return got, err
	}
	if c.Paced && r.inside == "" { // a guest's clock tells no latency
		added, err := r.added(s, c, tokens, length)
		if err != nil {
			return got, fmt.Errorf("at a fixed rate: %w", err)
		}
		micros := float64(added.Microseconds())
		got.Added = &micros
	}
	return got, nil
}

// warm lets a peer reach its usual state before it is timed.
func (r *rig) warm(s *stand, c benchCase, length time.Duration) error {
	turns := 1
	switch {
	case c.Once:
		c.Once, c.Tokens = false, "one-"+c.Alg // the tokens of the case are yet to be seen
	case c.Tokens == "many" && c.Body+c.Answer < megabyte:
		c.Once, length = true, 20*time.Second
		if r.base.Cores > 1 {
			turns = 4 // nginx remembers by worker: until each has seen most of the tokens, there must be several
		}
	}
	tokens, err := r.tokens(c)
	if err != nil {
		return err
	}
	for range turns {
		if _, err := r.press(s, c, tokens, max(time.Second, length/2), nil, nil); err != nil {
			return err
		}
	}
	return nil
}

// time presses a peer and puts what it cost into a result.
func (r *rig) time(got *result, s *stand, c benchCase, tokens string, length time.Duration) error {
	pids := s.pids()
	before, err := processorTime(pids)
	if err != nil {
		return err
	}
	var counts *instructions
	if r.countable {
		counts = &instructions{}
	}
	l, err := r.press(s, c, tokens, length, pids, counts)
	if err != nil {
		return err
	}
	after, err := processorTime(pids)
	if err != nil {
		return err
	}
	if got.Loaded, err = resident(s.tree()); err != nil {
		return err
	}
	n := float64(l.Requests)
	got.Requests, got.Seconds, got.PerSecond, got.P50, got.P99 = l.Requests, l.Seconds, n/l.Seconds, l.P50, l.P99
	got.CPU = float64((after - before).Microseconds()) / n
	if counts != nil {
		all, user := (counts.User+counts.Kernel)/n/1000, counts.User/n/1000
		got.Instructions, got.User = &all, &user
	}
	if r.inside != "" {
		kinstr := got.CPU // one takes a nanosecond
		got.Instructions = &kinstr
	}
	return nil
}

// writeResults keeps the raw results and returns the file.
func (r *rig) writeResults(name string, results any) (string, error) {
	dir := r.results
	if dir == "" {
		dir = filepath.Join(r.root, "test", "bench", "results")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	text, err := json.MarshalIndent(map[string]any{
		"when": time.Now().Format(time.RFC3339), "machine": r.machine(), "seconds": r.seconds, "results": results,
	}, "", " ")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, fmt.Sprintf("%s-%s.json", name, time.Now().Format("20060102-150405")))
	return file, os.WriteFile(file, text, 0o644)
}
