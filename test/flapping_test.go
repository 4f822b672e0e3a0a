package test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// load asks for /heroes without end, by GET and PUT, from several clients.
type load struct {
	answered atomic.Int64
	over     atomic.Bool
	clients  sync.WaitGroup

	mu       sync.Mutex
	statuses map[int]int
	lost     []string // those with no answer, or half of one
}

// startLoad begins to ask; what came is complete after stop.
func startLoad(t *testing.T, g *gateway, clients int) *load {
	l := &load{statuses: map[int]int{}}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}, Timeout: patience}
	for range clients {
		l.clients.Go(func() {
			for n := 0; !l.over.Load(); n++ {
				method, body := http.MethodGet, ""
				if n%10 == 0 {
					method, body = http.MethodPut, "a hero"
				}
				l.ask(client, method, "http://"+g.listen+"/heroes", body)
			}
		})
	}
	t.Cleanup(func() { l.stop(); client.CloseIdleConnections() })
	return l
}

func (l *load) ask(client *http.Client, method, url, body string) {
	var status int
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err == nil {
		var resp *http.Response
		if resp, err = client.Do(r); err == nil {
			status = resp.StatusCode
			_, err = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.lost = append(l.lost, fmt.Sprintf("%s: %d %v", method, status, err))
	} else {
		l.statuses[status]++
	}
	l.answered.Add(1)
}

// more waits until n more requests are answered.
func (l *load) more(t *testing.T, n int64) {
	t.Helper()
	until := l.answered.Load() + n
	eventually(t, "the load goes on", func() bool { return l.answered.Load() >= until })
}

func (l *load) stop() {
	l.over.Store(true)
	l.clients.Wait()
}

// only fails the test if there was another answer than those.
func (l *load) only(t *testing.T, statuses ...int) {
	t.Helper()
	for _, lost := range l.lost {
		t.Error(lost)
	}
	other := l.answered.Load() - int64(len(l.lost))
	for _, s := range statuses {
		other -= int64(l.statuses[s])
	}
	if other != 0 {
		t.Errorf("%v, want only %v", l.statuses, statuses)
	}
}

// share waits until each of the targets gets a third of what is asked.
func share(t *testing.T, g *gateway, addresses ...string) {
	t.Helper()
	eventually(t, "each gets its share", func() bool {
		got := map[string]int{}
		for range 10 * len(addresses) {
			got[g.do(t, "GET /heroes").body]++
		}
		for _, a := range addresses {
			if got[a] != 10 {
				return false
			}
		}
		return true
	})
}

// One of three targets goes and comes back many times a second, under load:
// nothing is lost that may be sent twice, thresholds and growing ejections keep
// the changes of its state few, and in the end it serves as the others do.
func TestFlapping(t *testing.T) {
	t.Parallel()
	const (
		interval = 500 * time.Millisecond
		base     = 500 * time.Millisecond
		longest  = time.Second
	)
	mood := func(mood string) func(*testing.T, *member) (func(), func()) {
		return func(_ *testing.T, m *member) (func(), func()) {
			return func() { m.mood.Store(mood) }, func() { m.mood.Store(well) }
		}
	}
	for name, flaps := range map[string]func(*testing.T, *member) (down, up func()){
		"killed": func(t *testing.T, m *member) (func(), func()) {
			m.kill() // in favour of a process, which SIGKILL ends as a crash would
			p := launchMember(t, m.address)
			return func() { p.kill() }, func() { p = launchMember(t, m.address) }
		},
		"refuses": func(t *testing.T, m *member) (func(), func()) {
			return func() { m.refuse(t) }, func() { m.start(t) }
		},
		hung:      mood(hung),
		resetting: mood(resetting),
		overtaxed: mood(overtaxed),
		erring:    mood(erring),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, admin := newMembers(t, 3), freeAddress(t)
			down, up := flaps(t, m[0])
			began := time.Now()
			g := start(t, fill(`
server:
  ADDRESSES
  admin: ADMIN
  access_log:
    sample_allows: 1000000
upstreams:
  heroes:
    targets: [http://FIRST, http://SECOND, http://THIRD]
    health:
      path: /healthz
      interval: INTERVAL
      healthy: 1
      unhealthy: 3
    outlier_detection:
      consecutive_gateway_failure: 2
      consecutive_5xx: 3
      base_ejection_time: BASE
      max_ejection_time: LONGEST
    retries:
      num_retries: 2
      per_try_timeout: 1s
      budget_percent: 50
routes:
  - match: /heroes
    public: true
    upstream: heroes
`, "ADMIN", admin, "FIRST", m[0].address, "SECOND", m[1].address, "THIRD", m[2].address,
				"INTERVAL", interval.String(), "BASE", base.String(), "LONGEST", longest.String()))
			lines := func(what string) (list []string) {
				for line := range strings.Lines(g.output.String()) {
					if strings.Contains(line, `"msg":"`+what) && strings.Contains(line, `"target":"`+m[0].address+`"`) {
						list = append(list, line)
					}
				}
				return list
			}
			l := startLoad(t, g, 4)
			l.more(t, 200) // or there is no budget for retries
			ejections := func() int { return len(lines("target ejected")) }
			flapped := 0
			for grown := false; flapped < 20 || !grown; flapped++ {
				down()
				l.more(t, 12)
				up()
				l.more(t, 12)
				// Requests hang for longer than it does: those that it answers
				// meanwhile may keep it below the threshold for ever.
				grown = name == hung || strings.Contains(strings.Join(lines("target ejected"), ""), `"for":"`+longest.String()+`"`)
				if flapped > 500 {
					t.Fatalf("it went %d times, and was never ejected for %s", flapped, longest)
				}
			}
			l.stop()
			share(t, g, m[0].address, m[1].address, m[2].address)
			if name == erring { // which is an answer as others are
				l.only(t, http.StatusOK, http.StatusInternalServerError)
				if got, want := g.upstream(t, admin, "heroes")[m[0].address].Requests["server_error"], l.statuses[http.StatusInternalServerError]; got != want {
					t.Errorf("the target failed %d times, and clients saw it %d times", got, want)
				}
			} else {
				l.only(t, http.StatusOK)
			}

			// What may be at most: each ejection is over before the next, and a
			// threshold of checks lies between a good one and unhealthy.
			var out, last time.Duration
			for i, line := range lines("target ejected") {
				_, rest, _ := strings.Cut(line, `"for":"`)
				text, _, _ := strings.Cut(rest, `"`)
				d, err := time.ParseDuration(text)
				if err != nil || d < base || d > longest || d > last+base {
					t.Errorf("ejection %d is for %q, after one of %s", i+1, text, last)
				}
				out, last = out+d, d
			}
			elapsed := time.Since(began)
			if out-last > elapsed {
				t.Errorf("ejections of %s in all within %s", out, elapsed)
			}
			ill, all := len(lines("target is unhealthy")), len(lines("target "))
			if most := 1 + int(elapsed/(3*interval*9/10)); ill > most {
				t.Errorf("it was unhealthy %d times within %s, want at most %d", ill, elapsed, most)
			}
			if most := 2 * (ejections() + ill); all > most {
				t.Errorf("%d lines for %d ejections and %d times unhealthy:\n%s", all, ejections(), ill, strings.Join(lines("target "), ""))
			}
			t.Logf("%d requests, %d flaps, %d ejections, %d times unhealthy, %d lines, %s", l.answered.Load(), flapped, ejections(), ill, all, elapsed)
		})
	}
}

// A target that fails every other request and every other check is below all
// thresholds: its state does not change, and who may ask another target does.
func TestEveryOtherAnswerIsBad(t *testing.T) {
	t.Parallel()
	m, admin := newMembers(t, 3), freeAddress(t)
	m[0].mood.Store(alternating)
	g := start(t, fill(`
server:
  ADDRESSES
  admin: ADMIN
upstreams:
  heroes:
    targets: [http://FIRST, http://SECOND, http://THIRD]
    health:
      path: /healthz
      interval: 1s
      unhealthy: 2
    outlier_detection:
      consecutive_gateway_failure: 2
      base_ejection_time: 1h
    retries: {}
routes:
  - match: GET /heroes
    public: true
    upstream: heroes
`, "ADMIN", admin, "FIRST", m[0].address, "SECOND", m[1].address, "THIRD", m[2].address))
	checks := m[0].checked.Load()
	requests := 0
	eventually(t, "it was asked often", func() bool {
		requests++
		g.do(t, "GET /heroes").is(t, http.StatusOK)
		return requests >= 60 && m[0].checked.Load() >= checks+4
	})
	got := g.upstream(t, admin, "heroes")[m[0].address]
	if n := got.Requests["gateway_error"]; n < requests/3/2-1 || n > requests/3/2+1 || got.Ejections != 0 {
		t.Errorf("after %d requests: %+v", requests, got)
	}
	if log := g.output.String(); strings.Contains(log, `"target":"`+m[0].address) {
		t.Error("the log tells of a change")
	}
}

// All targets die by SIGKILL under load, and come back: meanwhile requests are
// refused and none hangs, what the log tells of targets does not grow with
// them, and afterwards all serve again.
func TestAllDieAndComeBack(t *testing.T) {
	t.Parallel()
	addresses, processes, admin := make([]string, 3), make([]*process, 3), freeAddress(t)
	for i := range addresses {
		addresses[i] = freeAddress(t)
		processes[i] = launchMember(t, addresses[i])
	}
	g := start(t, fill(`
server:
  ADDRESSES
  admin: ADMIN
  access_log:
    sample_allows: 1000000
upstreams:
  heroes:
    targets: [http://FIRST, http://SECOND, http://THIRD]
    health:
      path: /healthz
      interval: 500ms
      healthy: 1
    outlier_detection:
      consecutive_gateway_failure: 2
      base_ejection_time: 500ms
      max_ejection_time: 1s
    retries:
      num_retries: 2
    circuit_breaker:
      interval: 1s
      open_time: 500ms
routes:
  - match: /heroes
    public: true
    upstream: heroes
`, "ADMIN", admin, "FIRST", addresses[0], "SECOND", addresses[1], "THIRD", addresses[2]))
	began := time.Now()
	const rounds = 2
	for range rounds {
		l := startLoad(t, g, 4)
		l.more(t, 100)
		for _, p := range processes {
			p.kill()
		}
		eventually(t, "all are known to be dead", func() bool {
			for _, r := range g.upstream(t, admin, "heroes") {
				if r.State != "unhealthy" && r.State != "ejected" {
					return false
				}
			}
			return true
		})
		l.more(t, 100)
		for i := range processes {
			processes[i] = launchMember(t, addresses[i])
		}
		eventually(t, "they are back", func() bool {
			for _, r := range g.upstream(t, admin, "heroes") {
				if r.State != "healthy" {
					return false
				}
			}
			return g.circuit(t, admin, "heroes") == "closed"
		})
		l.more(t, 100)
		l.stop()
		share(t, g, addresses...)
		l.only(t, http.StatusOK, http.StatusBadGateway, http.StatusServiceUnavailable)
		if l.statuses[http.StatusServiceUnavailable] == 0 {
			t.Errorf("%v: no request was refused", l.statuses)
		}
	}
	// What may be at most: a base_ejection_time lies between two of the same kind
	// of a target, but for those after the first.
	half := int(time.Since(began) / (500 * time.Millisecond))
	for line, most := range map[string]int{
		"target is unhealthy":                     3 * rounds,
		"target is healthy":                       3 * rounds,
		"target ejected":                          3 * (1 + half),
		"target is not ejected: too many are out": 3 * (1 + half),
		"circuit opens":                           1 + half,
	} {
		if n := strings.Count(g.output.String(), `"msg":"`+line+`"`); n > most {
			t.Errorf("%d times: %s; want at most %d", n, line, most)
		}
	}
}

// Of targets that are well, and of which one takes its time, the others get the
// requests; it loses none of those that it has, and is not ill for that.
func TestASlowTarget(t *testing.T) {
	t.Parallel()
	m, admin := newMembers(t, 3), freeAddress(t)
	g := start(t, fill(`
server:
  ADDRESSES
  admin: ADMIN
upstreams:
  heroes:
    targets: [http://FIRST, http://SECOND, http://THIRD]
    balance: least_requests
    health:
      path: /healthz
      interval: 1s
      unhealthy: 1
    outlier_detection:
      consecutive_gateway_failure: 1
    retries: {}
routes:
  - match: GET /heroes
    public: true
    upstream: heroes
`, "ADMIN", admin, "FIRST", m[0].address, "SECOND", m[1].address, "THIRD", m[2].address))
	m[0].until = make(chan struct{})
	m[0].mood.Store(slow)
	answers := make(chan string, 100)
	waiting := 0
	eventually(t, "it has a request", func() bool {
		waiting++
		go func() {
			var body []byte
			if resp, err := http.Get("http://" + g.listen + "/heroes"); err == nil {
				body, _ = io.ReadAll(resp.Body)
				_ = resp.Body.Close()
			}
			answers <- string(body)
		}()
		return m[0].served.Load() > 0
	})
	eventually(t, "the others are answered", func() bool {
		rows := g.upstream(t, admin, "heroes")
		return len(answers) == waiting-int(m[0].served.Load()) && rows[m[1].address].InFlight+rows[m[2].address].InFlight == 0
	})
	served, checks := m[0].served.Load(), m[0].checked.Load()
	eventually(t, "it was checked meanwhile", func() bool {
		for range 10 {
			if got := g.do(t, "GET /heroes"); got.status != http.StatusOK || got.body == m[0].address {
				t.Fatalf("%d %s", got.status, got.body)
			}
		}
		return m[0].checked.Load() >= checks+2
	})
	if got := g.upstream(t, admin, "heroes")[m[0].address]; got.State != "healthy" || got.InFlight != served || m[0].served.Load() != served {
		t.Errorf("%+v", got)
	}
	m[0].mood.Store(well)
	close(m[0].until)
	late := 0
	for range waiting {
		switch receive(t, "an answer", answers) {
		case m[0].address:
			late++
		case m[1].address, m[2].address:
		default:
			t.Error("an answer is lost")
		}
	}
	if int64(late) != served {
		t.Errorf("%d came late, want %d", late, served)
	}
	eventually(t, "it serves as the others do", func() bool { return g.do(t, "GET /heroes").body == m[0].address })
}
