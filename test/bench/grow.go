package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// growth is a quantity whose cost is measured at several sizes.
type growth struct {
	Name, About string
	sizes       []int
	set         func(*site, int)                       // what routes.yaml has more of
	lines       func(r *rig, w io.Writer, n int) error // a line for each request of one turn
	fill        bool                                   // one turn is made before anything is measured
	revocations bool                                   // the size is that of Redis's list
	idle        bool                                   // the size is that of idle connections
	cores       bool                                   // the size is GOMAXPROCS
}

// allGrowth are in the order of the report.
var allGrowth = []growth{
	{Name: "tokens", About: "live tokens in rotation, EdDSA", sizes: []int{1, 100, 10_000, 100_000, 1_000_000}, fill: true,
		lines: func(r *rig, w io.Writer, n int) error { return r.signers.write(w, "EdDSA", r.base.Issuer, 0, n) }},
	{Name: "routes", About: "routes, all of them asked for", sizes: []int{10, 100, 1000, 10_000},
		set: func(s *site, n int) { s.Routes = upTo(n) },
		lines: func(r *rig, w io.Writer, n int) error {
			return r.oneToken(w, n, func(i int) string { return fmt.Sprintf("\t/service-%d/heroes/7", i+1) })
		}},
	{Name: "limit-keys", About: "callers that a limit tells apart, by a header", sizes: []int{1, 100, 10_000, 100_000, 1_000_000}, fill: true,
		lines: func(r *rig, w io.Writer, n int) error {
			return r.oneToken(w, n, func(i int) string { return fmt.Sprintf("\t/heroes\tcaller-%08d", i) })
		}},
	{Name: "revocations", About: "revoked tokens in the replica, none of which comes", sizes: []int{0, 1000, 100_000, 1_000_000, 10_000_000}, revocations: true},
	{Name: "connections", About: "idle connections of clients, kept alive", sizes: []int{10, 1000, 10_000, 20_000}, idle: true},
	{Name: "issuers", About: "issuers of one route, all of which sign", sizes: []int{1, 10, 100, 1000}, fill: true,
		set: func(s *site, n int) { s.Issuers = upTo(n - 1) },
		lines: func(r *rig, w io.Writer, n int) error {
			for i := range n {
				issuer := r.base.Issuer
				if i > 0 {
					issuer = fmt.Sprintf("https://issuer-%d.example.com", i)
				}
				if err := r.signers.write(w, "EdDSA", issuer, i, 1); err != nil {
					return err
				}
			}
			return nil
		}},
	{Name: "cores", About: "cores that Gatehouse may use (GOMAXPROCS)", sizes: upTo(runtime.NumCPU()), cores: true,
		lines: func(r *rig, w io.Writer, _ int) error { return r.signers.write(w, "RS256", r.base.Issuer, 0, r.many) }},
}

// upTo is 1, 2, … n.
func upTo(n int) []int {
	var all []int
	for i := range n {
		all = append(all, i+1)
	}
	return all
}

// oneToken writes n lines with one token.
func (r *rig) oneToken(w io.Writer, n int, after func(int) string) error {
	token, err := r.signers.sign("RS256", newClaims(r.base.Issuer, 0))
	if err != nil {
		return err
	}
	out := bufio.NewWriter(w)
	for i := range n {
		if _, err := out.WriteString(token + after(i) + "\n"); err != nil {
			return err
		}
	}
	return out.Flush()
}

// growth measures how the cost of a request, and memory, grow.
func (r *rig) growth() error {
	all, err := pick("table", allGrowth, r.cases, func(g growth) string { return g.Name })
	if err != nil {
		return err
	}
	var results []result
	var tables []table
	var panels []panel
	for _, g := range all {
		var sizes []int
		for _, n := range g.sizes {
			if g.idle {
				n = min(n, openFiles()-1000)
			}
			if n <= r.most {
				sizes = append(sizes, n)
			}
		}
		missing := map[int]bool{}
		for round := range r.rounds {
			order := rand.Perm(len(sizes))
			for _, i := range order {
				n := sizes[i]
				if missing[n] {
					continue
				}
				got, err := r.grown(g, n)
				if errors.Is(err, errMissing) && r.ctx.Err() == nil {
					missing[n] = true
					r.say("%s %d: %v", g.Name, n, err)
					continue
				}
				if err != nil {
					return fmt.Errorf("%s %d: %w", g.Name, n, err)
				}
				got.Case, got.Peer, got.Round = g.Name, fmt.Sprint(n), round
				results = append(results, got)
				r.say("round %d of %d: %9d %-12s %7.0f requests/s %7.1f µs %5d MiB", round+1, r.rounds, n, g.Name, got.PerSecond, got.CPU, got.Loaded>>20)
			}
		}
		t, p := r.grew(g, sizes, results)
		tables, panels = append(tables, t), append(panels, p...)
		r.say("\n%s", t.markdown())
		r.forget("grow-" + g.Name)
	}
	return r.keep("growth", results, tables, svg(panels))
}

// grown measures one size.
func (r *rig) grown(g growth, n int) (result, error) {
	var got result
	c := benchCase{Name: g.Name, Path: "/heroes", Method: "GET", Answer: 200, Tokens: "one", Alg: "RS256"}
	tokens, err := r.tokens(c)
	if err != nil {
		return got, err
	}
	if g.lines != nil {
		tokens, err = r.file(fmt.Sprintf("grow-%s-%d", g.Name, n), func(w io.Writer) error { return g.lines(r, w, n) })
		if err != nil {
			return got, err
		}
	}
	s := r.base
	s.peer = peer{Name: "grow", Program: "gatehouse", Auth: true, Config: "grow.yaml"}
	s.Dir = filepath.Join(r.dir, "peers", s.Name)
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return got, err
	}
	if !g.revocations {
		s.Redis = ""
	} else if err := r.revoke(&s, n); err != nil {
		return got, err
	}
	if g.set != nil {
		g.set(&s, n)
	}
	var env []string
	if g.cores {
		env = []string{fmt.Sprintf("GOMAXPROCS=%d", n)}
	}
	run, err := r.raise(s, c, env)
	if err != nil {
		return got, err
	}
	defer run.stop()
	got.First = float64(run.first.Microseconds()) / 1000
	if got.Idle, err = resident(run.tree()); err != nil {
		return got, err
	}
	if g.revocations {
		if err := run.rests(r.ctx); err != nil {
			return got, err
		}
	}
	if g.idle {
		held, err := r.hold(run.site.Listen, n)
		defer held.close()
		if err != nil {
			return got, err
		}
	}
	length := time.Duration(r.seconds) * time.Second
	if g.cores || g.fill && n >= connections {
		turn := c
		turn.Once = true
		if _, err := r.press(run, turn, tokens, time.Hour, nil, nil); err != nil {
			return got, fmt.Errorf("filling: %w", err)
		}
	}
	if _, err := r.press(run, c, tokens, max(time.Second, length/3), nil, nil); err != nil {
		return got, fmt.Errorf("warming up: %w", err)
	}
	return got, r.time(&got, run, c, tokens, length)
}

// revoke fills a Redis of its own with n revocations.
func (r *rig) revoke(s *site, n int) error {
	if r.base.Redis == "" {
		return fmt.Errorf("%w: redis-server is not installed", errMissing)
	}
	if err := r.startRedis(); err != nil {
		return err
	}
	s.Redis = r.base.Redis
	conn, err := net.Dial("tcp", s.Redis)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	failed := make(chan error, 1)
	go func() { // answers are read meanwhile, so that neither side waits for the other
		answers := bufio.NewReader(conn)
		for range n {
			line, err := answers.ReadString('\n')
			if err == nil && line != "+OK\r\n" {
				err = fmt.Errorf("Redis says %q", line)
			}
			if err != nil {
				failed <- err
				return
			}
		}
		failed <- nil
	}()
	out := bufio.NewWriter(conn)
	for i := range n {
		// As long as a UUID, as most providers write it.
		if _, err := fmt.Fprintf(out, "SET revoked:jti:main:%08x-0000-4000-8000-%012x 1 EX 86400\r\n", i, i); err != nil {
			return err
		}
	}
	return errors.Join(out.Flush(), <-failed)
}

// held are connections that do nothing.
type held []net.Conn

func (h held) close() {
	for _, conn := range h {
		_ = conn.Close()
	}
}

// hold opens n connections, makes a request on each and leaves it open.
func (r *rig) hold(address string, n int) (held, error) {
	token, err := r.signers.sign("RS256", newClaims(r.base.Issuer, 0))
	if err != nil {
		return nil, err
	}
	request := "GET /heroes HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + token + "\r\n\r\n"
	var all held
	for i := range n {
		if err := r.ctx.Err(); err != nil {
			return all, err
		}
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return all, fmt.Errorf("%w: after %d connections: %w", errMissing, i, err)
		}
		all = append(all, conn)
		if err := once(conn, bufio.NewReaderSize(conn, 512), request); err != nil {
			return all, fmt.Errorf("%w: connection %d: %w", errMissing, i, err)
		}
	}
	return all, nil
}

// noise is a difference of memory that says nothing.
const noise = 4 // MiB

// grew makes the table and the chart of one quantity. Bytes each are those
// beyond the smallest size's.
func (r *rig) grew(g growth, sizes []int, results []result) (table, []panel) {
	t := table{Title: g.Name, About: strings.ToUpper(g.About[:1]) + g.About[1:],
		Head: []string{g.Name, "kinstr", "CPU µs", "requests/s", "p50 µs", "MiB idle", "MiB loaded", "bytes each", "first 200 ms"}}
	cost, memory := panel{title: g.About, unit: "CPU µs a request"}, panel{title: g.About, unit: "MiB"}
	var base *float64
	var least int
	for _, n := range sizes {
		mine := of(results, g.Name, fmt.Sprint(n))
		if len(mine) == 0 {
			continue
		}
		loaded := median(column(mine, loadedOf))
		each := "–"
		if base == nil {
			base, least = &loaded, n
		} else if loaded-*base > noise && !g.cores {
			each = fmt.Sprintf("%.0f", (loaded-*base)*(1<<20)/float64(n-least))
		}
		t.Rows = append(t.Rows, []string{fmt.Sprint(n), spread(column(mine, instructionsOf)), spread(column(mine, cpuOf)), middle(column(mine, perSecondOf)),
			middle(column(mine, p50Of)), middle(column(mine, idleOf)), number(loaded), each, middle(column(mine, firstOf))})
		cost.bars = append(cost.bars, bar{fmt.Sprint(n), median(column(mine, cpuOf))})
		memory.bars = append(memory.bars, bar{fmt.Sprint(n), loaded})
	}
	return t, []panel{cost, memory}
}

// forget removes the files of tokens whose name begins so: they are large.
func (r *rig) forget(prefix string) {
	files, _ := filepath.Glob(filepath.Join(r.dir, prefix+"-*.txt"))
	for _, file := range files {
		_ = os.Remove(file)
	}
}
