package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"text/template"
	"time"
)

// soakSite is what the configuration that changes is filled with.
type soakSite struct {
	site
	Odd, Fragile                  string // addresses
	Turn, Rate                    int
	Swapped, Added, Other, Broken bool
}

// soaked is a gateway in the soak.
type soaked struct {
	*stand
	config  string
	watches bool // it reloads by itself; else at SIGHUP
	fill    soakSite
	offset  int64 // how much of its log has been read
}

// outages are the times when a backend was down.
type outages struct {
	mu    sync.Mutex
	spans [][2]time.Time // the last one without an end while it lasts
}

func (o *outages) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.spans = append(o.spans, [2]time.Time{time.Now()})
}

func (o *outages) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.spans[len(o.spans)-1][1] = time.Now().Add(time.Second) // who has just been turned away tells of it a little later
}

// explain says whether a request that took so long may have failed.
func (o *outages) explain(from, to time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, span := range o.spans {
		if span[0].Before(to) && (span[1].IsZero() || span[1].After(from)) {
			return true
		}
	}
	return false
}

// write puts the configuration of a turn in its place.
func (g *soaked) write(turn int) error {
	s := g.fill
	s.Turn, s.Rate = turn, 100_000_000
	switch turn % 8 {
	case 1:
		s.Added = true
	case 2:
		s.Rate *= 2
	case 3, 4:
		s.Swapped = true
	case 5:
		s.Other = true
	case 6:
		s.Broken = true
	}
	t, err := template.ParseFS(templates, "peers/soak.yaml")
	if err != nil {
		return err
	}
	var text strings.Builder
	if err := t.Execute(&text, s); err != nil {
		return err
	}
	if err := os.WriteFile(g.config+".new", []byte(text.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(g.config+".new", g.config)
}

const reloads = `gatehouse_reloads_total{outcome="`

// reload makes a turn, and waits until the gateway has taken it up or refused it.
func (s *soak) reload(g *soaked, turn int) error {
	before, err := scrape(g.site.Status)
	if err != nil {
		return err
	}
	series := reloads + `success"}`
	if turn%8 == 6 {
		series = reloads + `failure"}`
	}
	if g.site.TLS && turn%8 == 7 {
		if err := s.renew(g); err != nil {
			return err
		}
	}
	if err := g.write(turn); err != nil {
		return err
	}
	if !g.watches {
		_ = g.cmd.Process.Signal(syscall.SIGHUP)
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		now, err := scrape(g.site.Status)
		if err != nil {
			return err
		}
		if now[series] > before[series] {
			return nil
		}
		if s.ctx.Err() != nil {
			return s.ctx.Err()
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("turn %d of the configuration is not taken up", turn)
}

// renew puts a new certificate in its place.
func (s *soak) renew(g *soaked) error {
	public, private := filepath.Join(g.site.Dir, "front.pem"), filepath.Join(g.site.Dir, "front.key")
	if err := s.certificate(public+".new", private+".new"); err != nil {
		return err
	}
	if err := os.Rename(public+".new", public); err != nil {
		return err
	}
	return os.Rename(private+".new", private)
}

// upset is something that goes wrong, or is done by an operator, now and then.
type upset struct {
	name  string
	every time.Duration
	cause func(s *soak, ctx context.Context, turn int) error
}

var allUpsets = []upset{
	{"reload", time.Second, func(s *soak, _ context.Context, turn int) error {
		for _, g := range s.gateways {
			if err := s.reload(g, turn); err != nil {
				return err
			}
		}
		return nil
	}},
	{"restart of a backend", 5 * time.Second, func(s *soak, ctx context.Context, _ int) (err error) {
		s.outages.begin()
		s.fragile.stop()
		pause(ctx.Done(), 500*time.Millisecond)
		if s.fragile, err = s.startBackend("fragile", s.fragileAddress); err != nil {
			return err
		}
		s.outages.end()
		return nil
	}},
	{"restart of Redis", 12 * time.Second, func(s *soak, ctx context.Context, _ int) error {
		_ = s.redis.cmd.Process.Kill()
		<-s.redis.exited
		pause(ctx.Done(), 2*time.Second)
		return s.launchRedis()
	}},
	{"reading of the logs", 2 * time.Second, func(s *soak, _ context.Context, _ int) error {
		for _, g := range s.gateways {
			if err := g.read(); err != nil {
				return err
			}
		}
		return nil
	}},
}

// refusedReload is the error that a configuration with faults is to give.
var refusedReload = regexp.MustCompile(`"level":"ERROR","msg":"the configuration was not reloaded`)

// mostLog is how long an access log may become before it is cut.
const mostLog = 64 << 20

// read looks through what a gateway has logged since the last time, and cuts
// the log if it has become long.
func (g *soaked) read() error {
	file, err := os.OpenFile(g.output, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	text := make([]byte, info.Size()-g.offset)
	if _, err := file.ReadAt(text, g.offset); err != nil {
		return err
	}
	g.offset = info.Size()
	text = refusedReload.ReplaceAll(text, nil)
	for _, never := range []string{"panic", `"level":"ERROR"`, "fatal error", "goroutine 1 ["} {
		if at := bytes.Index(text, []byte(never)); at >= 0 {
			begin := max(0, at-300)
			return fmt.Errorf("%s logs %.2000s", g.site.Name, text[begin:])
		}
	}
	if g.offset > mostLog {
		g.offset = 0
		return file.Truncate(0)
	}
	return nil
}

// revoke writes a revocation into Redis, as any program may.
func (s *soak) revoke(id string) error {
	conn, err := net.Dial("tcp", s.base.Redis)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if _, err := fmt.Fprintf(conn, "SET revoked:jti:main:%s 1 EX 86400\r\n", id); err != nil {
		return err
	}
	answer := make([]byte, 5)
	if _, err := conn.Read(answer); err != nil || string(answer) != "+OK\r\n" {
		return fmt.Errorf("redis answers %q: %w", answer, err)
	}
	return nil
}
