// Command bench measures Gatehouse beside its peers: nginx with Lua, HAProxy,
// and both as plain proxies. All do the same job on the same machine in one
// run, their answers are checked before they are timed, and the rounds are in
// random order. docs/benchmarks.md says what the columns mean. With -soak it
// loads Gatehouse alone, and fails if anything is left behind.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// settings are what the command line says.
type settings struct {
	rounds, seconds    int
	many, unique, most int
	rate               int
	cases, peers       string
	quick, grow, docs  bool
	soak, footprint    bool
	emulate            bool
	inside             string        // a directory that emulate has furnished, in the guest
	length             time.Duration // of the soak
	results            string
}

// run is main without the process around it. When it returns, also early,
// every process that it started has ended.
func run(ctx context.Context, args []string, out io.Writer) error {
	s := settings{many: 10_000}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.IntVar(&s.rounds, "rounds", 3, "how often each peer does each case")
	flags.IntVar(&s.seconds, "seconds", 5, "how long a round takes")
	flags.StringVar(&s.cases, "cases", "", "the `names` of the cases, with commas between; all without it")
	flags.StringVar(&s.peers, "peers", "", "the `names` of the peers, with commas between; all without it")
	flags.IntVar(&s.rate, "rate", 2000, "requests a second for the time added at a fixed rate")
	flags.IntVar(&s.unique, "unique", 60000, "tokens to sign for the cases where each is seen once; a round ends when they are used up")
	flags.BoolVar(&s.quick, "quick", false, "one short round of few cases, to see that all works; its figures mean nothing")
	flags.BoolVar(&s.grow, "grow", false, "measure how Gatehouse's cost grows, instead of its peers; -cases are the tables")
	flags.IntVar(&s.most, "most", 1_000_000, "with -grow: the largest size that is tried; 10000000 has as many revocations, and wants 8 GiB of memory")
	flags.BoolVar(&s.soak, "soak", false, "load Gatehouse with everything at once, and look whether anything is left behind")
	flags.BoolVar(&s.footprint, "footprint", false, "measure what Gatehouse takes of a machine: idle, under a little load and under all it can bear")
	flags.BoolVar(&s.emulate, "emulate", false, "count instructions where the machine has no counters, in QEMU")
	flags.StringVar(&s.inside, "inside", "", "where -emulate runs this command: the `directory` that it hands in")
	flags.DurationVar(&s.length, "for", 10*time.Minute, "with -soak: how long, after a warm-up of a tenth of it")
	flags.BoolVar(&s.docs, "docs", false, "write the tables and charts into docs/")
	flags.StringVar(&s.results, "results", "", "the `directory` of the raw results; test/bench/results without it")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if s.emulate {
		if err := s.forGuest(flags); err != nil {
			return err
		}
	}
	if s.quick {
		s.rounds, s.seconds, s.many, s.unique, s.most = 1, 1, 500, 500, min(s.most, 100)
		if s.cases == "" && !s.grow {
			s.cases = "pass-through,many-tokens,first-rs256"
		}
	}
	if s.docs && s.soak && s.length < 10*time.Minute {
		return errors.New("-docs wants a soak of ten minutes at least: what grows slowly does not show in less")
	}
	if s.docs && !s.soak && (s.quick || s.rounds < 3 && !s.emulate) {
		return errors.New("-docs wants three rounds at least, and not -quick: docs show what was measured with care")
	}
	r, err := newRig(ctx, out, s)
	if err != nil {
		return err
	}
	defer r.close()
	if s.soak {
		return r.soak()
	}
	if s.footprint {
		return r.footprints()
	}
	if s.grow {
		return r.growth()
	}
	return r.comparison()
}

// comparison measures the peers and tells of it.
func (r *rig) comparison() error {
	cases, err := pick("case", allCases, r.cases, func(c benchCase) string { return c.Name })
	if err != nil {
		return err
	}
	peers, err := pick("peer", allPeers, r.peers, func(p peer) string { return p.Name })
	if err != nil {
		return err
	}
	if r.emulate {
		return r.emulated(cases, peers)
	}
	results, err := r.measureAll(cases, peers)
	if err != nil {
		return err
	}
	if r.inside != "" { // who waits outside makes the table
		return r.keep("peers", results, nil, "")
	}
	tables := compare(cases, peers, results)
	for _, t := range tables {
		r.say("\n%s", t.markdown())
	}
	return r.keep("peers", results, tables, comparisonChart(cases, peers, results))
}

// keep writes the raw results and, if asked, the docs.
func (r *rig) keep(name string, results any, tables []table, chart string) error {
	file, err := r.writeResults(name, results)
	if err != nil {
		return err
	}
	r.say("\nraw results: %s", file)
	if !r.docs {
		return nil
	}
	var text strings.Builder
	fmt.Fprintf(&text, "Measured on %s: %s.\n", time.Now().Format("2 January 2006"), r.machine())
	for _, t := range tables {
		text.WriteString("\n" + t.markdown())
	}
	page := filepath.Join(r.root, "docs", "benchmarks.md")
	if err := replaceBetween(page, name, text.String()); err != nil {
		return err
	}
	if chart == "" {
		return nil
	}
	svg := map[string]string{"peers": "benchmarks.svg", "growth": "growth.svg", "soak": "soak.svg"}[name]
	return os.WriteFile(filepath.Join(r.root, "docs", svg), []byte(chart), 0o644)
}

// pick returns the items that a list of names asks for, all if it is empty.
func pick[T any](what string, all []T, names string, name func(T) string) ([]T, error) {
	if names == "" {
		return all, nil
	}
	var picked []T
	for _, n := range strings.Split(names, ",") {
		i := slices.IndexFunc(all, func(item T) bool { return name(item) == n })
		if i < 0 {
			var known []string
			for _, item := range all {
				known = append(known, name(item))
			}
			return nil, fmt.Errorf("no %s %q; there are %s", what, n, strings.Join(known, ", "))
		}
		picked = append(picked, all[i])
	}
	return picked, nil
}
