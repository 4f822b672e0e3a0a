package test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

const dnsYAML = `
upstreams:
  heroes:
    dns:
      url: http://heroes.internal:PORT
      resolver: RESOLVER
SRV
routes:
  - match: /
    public: true
    upstream: heroes
`

// serving returns the addresses of the servers that answer now, each asked
// several times in turn.
func serving(t *testing.T, g *gateway) []string {
	t.Helper()
	seen := map[string]bool{}
	for range 12 {
		a := g.do(t, "GET /")
		if a.status != http.StatusOK {
			return []string{fmt.Sprint(a.status)}
		}
		address, _, _ := strings.Cut(a.body, " ")
		seen[address] = true
	}
	var list []string
	for address := range seen {
		list = append(list, address)
	}
	slices.Sort(list)
	return list
}

// served waits until exactly those servers answer.
func served(t *testing.T, g *gateway, addresses ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%v serve", addresses), func() bool { return slices.Equal(serving(t, g), addresses) })
}

func up(t *testing.T, g *gateway, source string, want float64) {
	t.Helper()
	series := fmt.Sprintf(`gatehouse_upstream_source_up{source=%q,upstream="heroes"}`, source)
	eventually(t, fmt.Sprintf("%s is %v", series, want), func() bool { return g.metric(t, series) == want && strings.Contains(g.metrics(t), series) })
}

// Records change under load: not one request is lost, nobody whose address
// stays is connected to anew, and what has begun ends where it began.
func TestDNSRecordsChangeUnderLoad(t *testing.T) {
	t.Parallel()
	d, c := startDNS(t), startCrew(t, "127.0.0.1", "127.0.0.2", "127.0.0.3")
	d.set(t, "127.0.0.1 heroes.internal", "127.0.0.2 heroes.internal")
	g := start(t, fill(dnsYAML, "PORT", c.port, "RESOLVER", d.addr, "SRV", ""))
	served(t, g, "127.0.0.1", "127.0.0.2")
	up(t, g, "dns", 1)

	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}
	t.Cleanup(client.CloseIdleConnections)
	get := func(path string) (int, string) {
		resp, err := client.Get("http://" + g.listen + path)
		if err != nil {
			return 0, err.Error()
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return 0, err.Error()
		}
		return resp.StatusCode, string(body)
	}
	var sent, lost atomic.Int64
	stop := make(chan struct{})
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if status, body := get("/"); status != http.StatusOK || !strings.HasSuffix(body, " for "+g.listen) {
					lost.Add(1)
					t.Errorf("lost a request: %d %s", status, body)
				}
				sent.Add(1)
			}
		})
	}
	slow := make(chan string, 20)
	for range 20 {
		go func() {
			_, body := get("/slow")
			slow <- body
		}()
	}
	stays := c.opened("127.0.0.2")
	for range 2 {
		d.set(t, "127.0.0.2 heroes.internal", "127.0.0.3 heroes.internal")
		served(t, g, "127.0.0.2", "127.0.0.3")
		d.set(t, "127.0.0.1 heroes.internal", "127.0.0.2 heroes.internal")
		served(t, g, "127.0.0.1", "127.0.0.2")
	}
	close(stop)
	load.Wait()
	first := 0
	for range 20 {
		if body := receive(t, "a slow answer", slow); strings.HasPrefix(body, "127.0.0.1 ") {
			first++
		} else if !strings.HasPrefix(body, "127.0.0.") {
			t.Errorf("a slow answer was lost: %s", body)
		}
	}
	if first == 0 {
		t.Error("no slow answer came from the server that went")
	}
	// Its connections are those that the load needs at a time, however often others come and go.
	if n := c.opened("127.0.0.2") - stays; n > 60 {
		t.Errorf("%d connections were opened to the server that stayed", n)
	}
	t.Logf("%d requests, %d lost", sent.Load(), lost.Load())
}

// A DNS server that is dead, knows nothing or says that the name is gone
// changes nothing; what it says once it is back counts.
func TestDNSServerFails(t *testing.T) {
	t.Parallel()
	d, c := startDNS(t), startCrew(t, "127.0.0.1", "127.0.0.2")
	d.set(t, "127.0.0.1 heroes.internal")
	g := start(t, fill(dnsYAML, "PORT", c.port, "RESOLVER", d.addr, "SRV", ""))
	served(t, g, "127.0.0.1")

	d.proc.kill()
	up(t, g, "dns", 0)
	served(t, g, "127.0.0.1")
	g.output.says(t, "the last good ones stay")
	write(t, d.hosts, "127.0.0.2 heroes.internal\n127.0.0.1 ready.internal\n")
	d.start(t)
	served(t, g, "127.0.0.2")
	up(t, g, "dns", 1)
	g.output.says(t, "is up again")

	d.set(t) // NXDOMAIN
	up(t, g, "dns", 0)
	served(t, g, "127.0.0.2")
	d.set(t, "127.0.0.1 heroes.internal")
	served(t, g, "127.0.0.1")
	up(t, g, "dns", 1)

	d.set(t)
	d.restart(t, "--txt-record=heroes.internal,x") // the name is there, and has no address
	up(t, g, "dns", 0)
	served(t, g, "127.0.0.1")
	d.set(t, "127.0.0.2 heroes.internal")
	served(t, g, "127.0.0.2")
}

// Without DNS a gateway starts all the same, and serves once it hears.
func TestDNSComesLater(t *testing.T) {
	t.Parallel()
	d, c := startDNS(t), startCrew(t, "127.0.0.1")
	d.proc.kill()
	g := start(t, fill(dnsYAML, "PORT", c.port, "RESOLVER", d.addr, "SRV", ""))
	if a := g.do(t, "GET /"); a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, "no_healthy_target") {
		t.Errorf("without a target: %d %s", a.status, a.body)
	}
	up(t, g, "dns", 0)
	write(t, d.hosts, "127.0.0.1 heroes.internal\n127.0.0.1 ready.internal\n")
	d.start(t)
	served(t, g, "127.0.0.1")
}

// SRV records say ports, weights and which targets are asked first.
func TestDNSServiceRecords(t *testing.T) {
	t.Parallel()
	d, one, other := startDNS(t), startCrew(t, "127.0.0.1"), startCrew(t, "127.0.0.2")
	d.set(t, "127.0.0.1 a.internal", "127.0.0.2 b.internal")
	record := func(host, port string, priority, weight int) string {
		return fmt.Sprintf("--srv-host=_http._tcp.heroes.internal,%s.internal,%s,%d,%d", host, port, priority, weight)
	}
	d.restart(t, record("a", one.port, 1, 30), record("b", other.port, 1, 10))
	g := start(t, fill(dnsYAML, ":PORT", "", "RESOLVER", d.addr, "SRV", "      srv: _http._tcp.heroes.internal"))
	served(t, g, "127.0.0.1", "127.0.0.2")
	counts := map[string]int{}
	for range 400 {
		address, _, _ := strings.Cut(g.do(t, "GET /").body, " ")
		counts[address]++
	}
	if n := counts["127.0.0.1"]; n < 280 || n > 320 {
		t.Errorf("of 400 requests, %d went to the one of three quarters", n)
	}
	d.restart(t, record("a", one.port, 2, 30), record("b", other.port, 1, 10))
	served(t, g, "127.0.0.2")
	d.restart(t, record("a", one.port, 1, 30), record("b", other.port, 2, 10))
	served(t, g, "127.0.0.1")
	d.restart(t, "--srv-host=_http._tcp.heroes.internal,a.internal,"+other.port) // nobody listens there
	eventually(t, "the new port is asked", func() bool { return g.do(t, "GET /").status == http.StatusBadGateway })
	d.restart(t, "--srv-host=_http._tcp.heroes.internal") // RFC 2782: no such service
	eventually(t, "there is no target", func() bool { return g.do(t, "GET /").status == http.StatusServiceUnavailable })
	d.restart(t, record("b", other.port, 1, 10))
	served(t, g, "127.0.0.2")
}
