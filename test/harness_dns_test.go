package test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// dnsServer is a real dnsmasq on a port of its own, which knows nothing but
// what a test tells it, all of it for a second.
type dnsServer struct {
	addr  string
	hosts string // path of its file of addresses
	args  []string
	proc  *process
}

func startDNS(t *testing.T) *dnsServer {
	t.Helper()
	who, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	d := &dnsServer{addr: freeAddress(t), hosts: filepath.Join(t.TempDir(), "hosts")}
	host, port, _ := strings.Cut(d.addr, ":")
	d.args = []string{
		"--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file=", "--log-facility=-", "--user=" + who.Username,
		"--bind-interfaces", "--listen-address=" + host, "--port=" + port, "--local=/internal/", "--local-ttl=1", "--addn-hosts=" + d.hosts,
	}
	write(t, d.hosts, "127.0.0.1 ready.internal\n")
	d.start(t)
	return d
}

// start starts it, again on the same port after a kill.
func (d *dnsServer) start(t *testing.T, args ...string) {
	t.Helper()
	program, err := exec.LookPath("dnsmasq")
	if err != nil {
		program = "/usr/sbin/dnsmasq" // where Debian has it, not on every PATH
	}
	d.proc = launch(t, program, slices.Concat(d.args, args)...)
	resolver := &net.Resolver{PreferGo: true, Dial: func(_ context.Context, network, _ string) (net.Conn, error) { return net.Dial(network, d.addr) }}
	eventually(t, "dnsmasq answers", func() bool {
		if d.proc.ended() {
			t.Fatalf("dnsmasq ended with status %d", d.proc.exit(t))
		}
		_, err := resolver.LookupHost(t.Context(), "ready.internal")
		return err == nil
	})
}

// set replaces all addresses: lines of an address and a name.
func (d *dnsServer) set(t *testing.T, lines ...string) {
	t.Helper()
	write(t, d.hosts, strings.Join(append(lines, "127.0.0.1 ready.internal"), "\n")+"\n")
	d.proc.signal(syscall.SIGHUP)
}

// restart replaces all that it is told by arguments, as SRV records are.
func (d *dnsServer) restart(t *testing.T, args ...string) {
	t.Helper()
	d.proc.kill()
	d.start(t, args...)
}

// crew are servers of one port on several loopback addresses, each of which
// answers with its address.
type crew struct {
	port string

	mu          sync.Mutex
	connections map[string]int // by address, opened so far
}

func startCrew(t *testing.T, addresses ...string) *crew {
	t.Helper()
	c := &crew{port: strconv.Itoa(freePort(t)), connections: map[string]int{}}
	for _, address := range addresses {
		l, err := net.Listen("tcp", net.JoinHostPort(address, c.port))
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{
			ReadHeaderTimeout: patience,
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/slow" {
					_ = http.NewResponseController(w).Flush()
					select {
					case <-r.Context().Done():
					case <-time.After(3 * time.Second): // longer than a TTL
					}
				}
				_, _ = fmt.Fprintf(w, "%s for %s", address, r.Host)
			}),
			ConnState: func(_ net.Conn, state http.ConnState) {
				if state == http.StateNew {
					c.mu.Lock()
					defer c.mu.Unlock()
					c.connections[address]++
				}
			},
		}
		go func() { _ = s.Serve(l) }()
		t.Cleanup(func() { _ = s.Close() })
	}
	return c
}

// opened returns how many connections that server has seen.
func (c *crew) opened(address string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.connections[address]
}
