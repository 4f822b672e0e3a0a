package upstream

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// zone is a DNS server on UDP and TCP of one loopback port that answers as a
// test tells it to. Names that it has no records of do not exist.
type zone struct {
	addr string

	mu      sync.Mutex
	records []dns.RR
	misdeed func(w dns.ResponseWriter, asked, answer *dns.Msg) bool // true: it has answered, or will not
	asked   []string                                                // NETWORK NAME TYPE
}

func startZone(t testing.TB, records ...string) *zone {
	t.Helper()
	z := &zone{}
	z.set(t, records...)
	var udp net.PacketConn
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		z.addr = tcp.Addr().String()
		udp, err = net.ListenPacket("udp", z.addr)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: z}, {Listener: tcp, Handler: z}} {
		go func() { _ = s.ActivateAndServe() }()
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return z
}

func (z *zone) set(t testing.TB, records ...string) {
	t.Helper()
	z.mu.Lock()
	defer z.mu.Unlock()
	z.records = rrs(t, records...)
}

func rrs(t testing.TB, records ...string) (list []dns.RR) {
	t.Helper()
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, rr)
	}
	return list
}

func (z *zone) misbehave(f func(w dns.ResponseWriter, asked, answer *dns.Msg) bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.misdeed = f
}

func (z *zone) times(question string) (n int) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, q := range z.asked {
		if q == question {
			n++
		}
	}
	return n
}

// ServeDNS implements dns.Handler.
func (z *zone) ServeDNS(w dns.ResponseWriter, asked *dns.Msg) {
	z.mu.Lock()
	q := asked.Question[0]
	z.asked = append(z.asked, fmt.Sprint(w.LocalAddr().Network(), " ", q.Name, " ", dns.TypeToString[q.Qtype]))
	answer := new(dns.Msg).SetReply(asked)
	name, exists := q.Name, false
	for range 20 {
		next := ""
		for _, rr := range z.records {
			if !strings.EqualFold(rr.Header().Name, name) {
				continue
			}
			exists = true
			if c, ok := rr.(*dns.CNAME); ok {
				next = c.Target
				answer.Answer = append(answer.Answer, dns.Copy(rr))
			} else if rr.Header().Rrtype == q.Qtype {
				answer.Answer = append(answer.Answer, dns.Copy(rr))
			}
		}
		if name = next; next == "" {
			break
		}
	}
	if !exists {
		answer.Rcode = dns.RcodeNameError
	}
	misdeed := z.misdeed
	z.mu.Unlock()
	if misdeed == nil || !misdeed(w, asked, answer) {
		if w.LocalAddr().Network() == "udp" {
			answer.Truncate(int(asked.IsEdns0().UDPSize()))
		}
		_ = w.WriteMsg(answer)
	}
}

func mustURL(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// names are targets as TARGET or TARGET*WEIGHT.
func names(targets []Target) []string {
	list := []string{}
	for _, t := range targets {
		name := t.Dial
		if name == "" {
			name = t.URL.Host
		}
		if t.Weight != 1 {
			name += "*" + strconv.Itoa(t.Weight)
		}
		list = append(list, name)
	}
	return list
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// run runs a source until the test ends; each set comes out of the channel.
func run(t *testing.T, s Source) <-chan []string {
	t.Helper()
	sets := make(chan []string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx, func(targets []Target) { sets <- names(targets) })
	}()
	t.Cleanup(func() { cancel(); <-done })
	return sets
}

func next(t *testing.T, sets <-chan []string, want ...string) {
	t.Helper()
	select {
	case got := <-sets:
		if !slices.Equal(got, append([]string{}, want...)) {
			t.Fatalf("the targets are %v, want %v", got, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("no targets were set, want %v", want)
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for tick := time.NewTicker(5 * time.Millisecond); !ok(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never came true: %s", what)
		}
	}
}

// options ask the servers for what hundredths of a second are: tests do not wait.
func options(t *testing.T, target string, servers ...*zone) DNSOptions {
	o := DNSOptions{URL: mustURL(t, target), MinTTL: 10 * time.Millisecond, MaxTTL: 10 * time.Millisecond, Log: quiet()}
	for _, z := range servers {
		o.Resolvers = append(o.Resolvers, z.addr)
	}
	return o
}

func TestDNSTargets(t *testing.T) {
	long := make([]string, 200)
	all := make([]string, 200)
	for i := range long {
		long[i] = fmt.Sprintf("heroes.internal. 5 A 10.0.%d.%d", i/100, i%100+1)
		all[i] = fmt.Sprintf("10.0.%d.%d:8080", i/100, i%100+1)
	}
	slices.Sort(all)
	for _, c := range []struct {
		name, target, srv, family string
		records                   []string
		want                      []string
	}{
		{"addresses of both families", "http://heroes.internal:8080", "", "",
			[]string{"heroes.internal. 5 A 10.0.0.2", "heroes.internal. 5 A 10.0.0.1", "heroes.internal. 5 AAAA fd00::1", "other.internal. 5 A 10.9.9.9"},
			[]string{"10.0.0.1:8080", "10.0.0.2:8080", "[fd00::1]:8080"}},
		{"one family", "http://heroes.internal:8080", "", "ipv6",
			[]string{"heroes.internal. 5 A 10.0.0.2", "heroes.internal. 5 AAAA fd00::1"}, []string{"[fd00::1]:8080"}},
		{"the scheme's port", "https://heroes.internal", "", "ipv4", []string{"heroes.internal. 5 A 10.0.0.1"}, []string{"10.0.0.1:443"}},
		{"the port of h2c", "h2c://heroes.internal", "", "", []string{"heroes.internal. 5 A 10.0.0.1"}, []string{"10.0.0.1:80"}},
		{"letters of any case", "http://Heroes.Internal:8080", "", "", []string{"heroes.internal. 5 A 10.0.0.1"}, []string{"10.0.0.1:8080"}},
		{"an address twice", "http://heroes.internal:8080", "", "", []string{"heroes.internal. 5 A 10.0.0.1", "heroes.internal. 5 AAAA ::ffff:10.0.0.1"}, []string{"10.0.0.1:8080"}},
		{"aliases", "http://heroes.internal:8080", "", "",
			[]string{"heroes.internal. 5 CNAME b.internal.", "b.internal. 5 CNAME c.internal.", "c.internal. 5 A 10.0.0.3"}, []string{"10.0.0.3:8080"}},
		{"addresses that lead nowhere, or here", "http://heroes.internal:8080", "", "",
			[]string{"heroes.internal. 5 A 0.0.0.0", "heroes.internal. 5 A 224.0.0.1", "heroes.internal. 5 AAAA ::", "heroes.internal. 5 A 10.0.0.1"}, []string{"10.0.0.1:8080"}},
		{"more than a datagram", "http://heroes.internal:8080", "", "ipv4", long, all},
		{"SRV", "http://heroes.internal", "_http._tcp.heroes.internal", "",
			[]string{"_http._tcp.heroes.internal. 5 SRV 10 5 8081 a.internal.", "_http._tcp.heroes.internal. 5 SRV 10 5 8082 b.internal.", "a.internal. 5 A 10.0.0.1", "b.internal. 5 AAAA fd00::2"},
			[]string{"10.0.0.1:8081", "[fd00::2]:8082"}},
		{"SRV weights", "http://heroes.internal", "_http._tcp.heroes.internal", "",
			[]string{"_http._tcp.heroes.internal. 5 SRV 10 0 8080 a.internal.", "_http._tcp.heroes.internal. 5 SRV 10 65535 8080 b.internal.", "_http._tcp.heroes.internal. 5 SRV 10 32767 8080 c.internal.",
				"a.internal. 5 A 10.0.0.1", "b.internal. 5 A 10.0.0.2", "c.internal. 5 A 10.0.0.3"},
			[]string{"10.0.0.1:8080", "10.0.0.2:8080*100", "10.0.0.3:8080*50"}},
		{"the weight of a host with two addresses", "http://heroes.internal", "_http._tcp.heroes.internal", "",
			[]string{"_http._tcp.heroes.internal. 5 SRV 10 4 8080 a.internal.", "_http._tcp.heroes.internal. 5 SRV 10 4 8080 b.internal.", "a.internal. 5 A 10.0.0.1", "a.internal. 5 A 10.0.0.2", "b.internal. 5 A 10.0.0.3"},
			[]string{"10.0.0.1:8080*50", "10.0.0.2:8080*50", "10.0.0.3:8080*100"}},
		{"the least SRV priority", "http://heroes.internal", "_http._tcp.heroes.internal", "",
			[]string{"_http._tcp.heroes.internal. 5 SRV 20 5 8081 a.internal.", "_http._tcp.heroes.internal. 5 SRV 10 5 8082 b.internal.", "a.internal. 5 A 10.0.0.1", "b.internal. 5 A 10.0.0.2"},
			[]string{"10.0.0.2:8082"}},
		{"the least SRV priority with addresses", "http://heroes.internal", "_http._tcp.heroes.internal", "",
			[]string{"_http._tcp.heroes.internal. 5 SRV 20 5 8081 a.internal.", "_http._tcp.heroes.internal. 5 SRV 10 5 8082 b.internal.", "a.internal. 5 A 10.0.0.1"},
			[]string{"10.0.0.1:8081"}},
		{"no such service", "http://heroes.internal", "_http._tcp.heroes.internal", "", []string{"_http._tcp.heroes.internal. 5 SRV 0 0 0 ."}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := options(t, c.target, startZone(t, c.records...))
			o.SRV, o.Family = c.srv, c.family
			next(t, run(t, NewDNS(o)), c.want...)
		})
	}
}

// Whatever the servers do, the last good targets stay, and good answers count again.
func TestDNSKeepsTheLastGoodSet(t *testing.T) {
	rcode := func(code int) func(dns.ResponseWriter, *dns.Msg, *dns.Msg) bool {
		return func(_ dns.ResponseWriter, _, answer *dns.Msg) bool {
			answer.Rcode, answer.Answer = code, nil
			return false
		}
	}
	for name, misdeed := range map[string]func(w dns.ResponseWriter, asked, answer *dns.Msg) bool{
		"NXDOMAIN": rcode(dns.RcodeNameError), "SERVFAIL": rcode(dns.RcodeServerFailure), "REFUSED": rcode(dns.RcodeRefused), "empty": rcode(dns.RcodeSuccess),
		"another name's records": func(_ dns.ResponseWriter, _, answer *dns.Msg) bool {
			for _, rr := range answer.Answer {
				rr.Header().Name = "evil.internal."
			}
			return false
		},
		"another class": func(_ dns.ResponseWriter, _, answer *dns.Msg) bool {
			for _, rr := range answer.Answer {
				rr.Header().Class = dns.ClassCHAOS
			}
			return false
		},
		"an alias of itself": func(_ dns.ResponseWriter, asked, answer *dns.Msg) bool {
			answer.Answer = []dns.RR{&dns.CNAME{Hdr: dns.RR_Header{Name: asked.Question[0].Name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET}, Target: asked.Question[0].Name}}
			return false
		},
		"aliases without end": func(_ dns.ResponseWriter, asked, answer *dns.Msg) bool {
			answer.Answer = []dns.RR{&dns.CNAME{Hdr: dns.RR_Header{Name: asked.Question[0].Name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET}, Target: "x" + asked.Question[0].Name}}
			return false
		},
		"a TCP server that answers another question": func(w dns.ResponseWriter, _, answer *dns.Msg) bool {
			if answer.Truncated = true; w.LocalAddr().Network() == "tcp" {
				answer.Truncated, answer.Question[0].Name = false, "evil.internal."
			}
			_ = w.WriteMsg(answer)
			return true
		},
		"a broken answer by TCP": func(w dns.ResponseWriter, _, answer *dns.Msg) bool {
			if answer.Truncated = true; w.LocalAddr().Network() == "tcp" {
				_, _ = w.Write([]byte("nonsense that is no DNS message"))
				return true
			}
			_ = w.WriteMsg(answer)
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			z := startZone(t, "heroes.internal. 5 A 10.0.0.1")
			d := NewDNS(options(t, "http://heroes.internal:8080", z))
			sets := run(t, d)
			next(t, sets, "10.0.0.1:8080")
			until(t, "the source is up", func() bool { return d.Health().Up })
			z.set(t, "heroes.internal. 5 A 10.0.0.2")
			z.misbehave(func(w dns.ResponseWriter, asked, answer *dns.Msg) bool {
				for _, rr := range answer.Answer { // were it taken, it would show
					if a, ok := rr.(*dns.A); ok {
						a.A = net.IPv4(10, 6, 6, 6)
					}
				}
				return misdeed(w, asked, answer)
			})
			until(t, "the source is down", func() bool { return !d.Health().Up })
			if h := d.Health(); h.Targets != 1 || h.Err == nil || h.Good.IsZero() {
				t.Errorf("the source is %+v", h)
			}
			z.misbehave(nil)
			z.set(t, "heroes.internal. 5 A 10.0.0.3")
			next(t, sets, "10.0.0.3:8080")
			until(t, "the source is up", func() bool { return d.Health().Up })
		})
	}
}

// What a forger sends before the server's own answer is passed over.
func TestDNSForgedDatagrams(t *testing.T) {
	z := startZone(t, "heroes.internal. 5 A 10.0.0.1")
	z.misbehave(func(w dns.ResponseWriter, asked, answer *dns.Msg) bool {
		if asked.Question[0].Qtype != dns.TypeA {
			return false
		}
		forged := func(change func(*dns.Msg)) {
			m := answer.Copy()
			m.Answer = rrs(t, asked.Question[0].Name+" 5 A 10.6.6.6")
			change(m)
			_ = w.WriteMsg(m)
		}
		forged(func(m *dns.Msg) { m.Id++ })
		forged(func(m *dns.Msg) { m.Question[0].Name = "evil.internal." })
		forged(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA })
		forged(func(m *dns.Msg) { m.Question = nil })
		forged(func(m *dns.Msg) { m.Response = false })
		forged(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify })
		_, _ = w.Write([]byte("nonsense"))
		return false
	})
	next(t, run(t, NewDNS(options(t, "http://heroes.internal:8080", z))), "10.0.0.1:8080")
}

// A server that is dead or silent is passed over for the next.
func TestDNSServersInTurn(t *testing.T) {
	silent, failing, good := startZone(t), startZone(t), startZone(t, "heroes.internal. 5 A 10.0.0.1")
	silent.misbehave(func(dns.ResponseWriter, *dns.Msg, *dns.Msg) bool { return true })
	failing.misbehave(func(_ dns.ResponseWriter, _, answer *dns.Msg) bool {
		answer.Rcode = dns.RcodeServerFailure
		return false
	})
	dead := startZone(t)
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.addr = l.LocalAddr().String()
	_ = l.Close()
	next(t, run(t, NewDNS(options(t, "http://heroes.internal:8080", dead, failing, silent, good))), "10.0.0.1:8080")
}

// One family of addresses whose question fails keeps what it had; the other moves on.
func TestDNSOneQuestionFails(t *testing.T) {
	z := startZone(t, "heroes.internal. 5 A 10.0.0.1", "heroes.internal. 5 AAAA fd00::1")
	d := NewDNS(options(t, "http://heroes.internal:8080", z))
	sets := run(t, d)
	next(t, sets, "10.0.0.1:8080", "[fd00::1]:8080")
	z.misbehave(func(_ dns.ResponseWriter, asked, answer *dns.Msg) bool {
		if asked.Question[0].Qtype == dns.TypeAAAA {
			answer.Rcode, answer.Answer = dns.RcodeServerFailure, nil
		}
		return false
	})
	z.set(t, "heroes.internal. 5 A 10.0.0.2")
	next(t, sets, "10.0.0.2:8080", "[fd00::1]:8080")
	if d.Health().Up {
		t.Error("the source is up")
	}
	z.misbehave(nil)
	next(t, sets, "10.0.0.2:8080")
}

// Addresses that come along with SRV records are not asked for; those of hosts
// that no record names are nobody's.
func TestDNSAdditionalSection(t *testing.T) {
	z := startZone(t, "_http._tcp.heroes.internal. 5 SRV 1 1 8080 a.internal.")
	z.misbehave(func(_ dns.ResponseWriter, asked, answer *dns.Msg) bool {
		if asked.Question[0].Qtype == dns.TypeSRV {
			answer.Extra = append(answer.Extra, rrs(t, "A.internal. 5 A 10.0.0.1", "evil.internal. 5 A 10.6.6.6", "a.internal. 5 TXT 10.6.6.6")...)
		}
		return false
	})
	o := options(t, "http://heroes.internal", z)
	o.SRV = "_http._tcp.heroes.internal"
	next(t, run(t, NewDNS(o)), "10.0.0.1:8080")
	if n := z.times("udp a.internal. A"); n > 0 {
		t.Errorf("the host was asked for %d times", n)
	}
}

// An answer holds as long as its records say, within the bounds.
func TestDNSTimeToLive(t *testing.T) {
	z := startZone(t, "heroes.internal. 100 CNAME b.internal.", "b.internal. 7 A 10.0.0.1", "huge.internal. 4294967295 A 10.0.0.1")
	d := NewDNS(options(t, "http://heroes.internal", z))
	if _, ttl, err := d.resolve(t.Context()); ttl != 7*time.Second || err != nil {
		t.Errorf("holds for %s (%v), want 7s", ttl, err)
	}
	d = NewDNS(options(t, "http://huge.internal", z))
	if _, ttl, err := d.resolve(t.Context()); ttl != 0 || err != nil {
		t.Errorf("holds for %s (%v), want 0s", ttl, err)
	}
	o := options(t, "http://heroes.internal", z)
	o.MinTTL, o.MaxTTL = time.Hour, time.Hour
	d = NewDNS(o)
	next(t, run(t, d), "10.0.0.1:80")
	before := z.times("udp heroes.internal. A")
	o.MinTTL, o.MaxTTL = time.Millisecond, time.Millisecond
	next(t, run(t, NewDNS(o)), "10.0.0.1:80")
	until(t, "it is asked again and again", func() bool { return z.times("udp heroes.internal. A") > before+3 })
}

// Without a resolver, servers and search list are those of resolv.conf.
func TestDNSResolvConf(t *testing.T) {
	z := startZone(t, "heroes.ns.cluster.internal. 5 A 10.0.0.1", "heroes. 5 A 10.6.6.6", "other.internal. 5 A 10.0.0.2", "other.internal.ns.cluster.internal. 5 A 10.6.6.6", "heroes.elsewhere.internal. 5 A 10.6.6.6")
	host, port, _ := net.SplitHostPort(z.addr)
	file := filepath.Join(t.TempDir(), "resolv.conf")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("nameserver " + host + "\nsearch ns.cluster.internal elsewhere.internal\noptions ndots:1 timeout:1 attempts:1\n")
	ask := func(target string) ([]string, error) {
		d := NewDNS(options(t, target))
		d.resolver.file = file
		conf, err := d.resolver.settings()
		if err != nil {
			return nil, err
		}
		conf.Servers = []string{net.JoinHostPort(host, port)} // nobody may listen on 53 here
		r := &round{DNS: d, conf: conf, learnt: map[question]answer{}}
		return names(r.byHost(t.Context())), nil
	}
	for target, want := range map[string]string{"http://heroes": "10.0.0.1:80", "http://other.internal": "10.0.0.2:80", "http://heroes.ns.cluster.internal.": "10.0.0.1:80"} {
		if got, err := ask(target); err != nil || !slices.Equal(got, []string{want}) {
			t.Errorf("%s is at %v (%v), want %s", target, got, err, want)
		}
	}
	// Nobody knows whether the first name of the search list has addresses, so the next is not taken.
	z.misbehave(func(_ dns.ResponseWriter, asked, answer *dns.Msg) bool {
		if asked.Question[0].Name == "heroes.ns.cluster.internal." {
			answer.Rcode, answer.Answer = dns.RcodeServerFailure, nil
		}
		return false
	})
	if got, err := ask("http://heroes"); err != nil || len(got) > 0 {
		t.Errorf("heroes is at %v (%v), want nowhere", got, err)
	}
	write("options ndots:1\n")
	if _, err := ask("http://heroes"); err == nil || !strings.Contains(err.Error(), "names no DNS server") {
		t.Errorf("without a server: %v", err)
	}
	_ = os.Remove(file)
	if _, err := ask("http://heroes"); err == nil {
		t.Error("without resolv.conf there is no error")
	}
}

// More targets than an upstream may have are no answer.
func TestDNSTooManyTargets(t *testing.T) {
	var records []string
	for i := range maxTargets + 1 {
		records = append(records, fmt.Sprintf("heroes.internal. 5 A 10.0.%d.%d", i/250, i%250+1))
	}
	z := startZone(t, "heroes.internal. 5 A 10.0.0.1")
	d := NewDNS(options(t, "http://heroes.internal:8080", z))
	sets := run(t, d)
	next(t, sets, "10.0.0.1:8080")
	z.set(t, records...)
	until(t, "the source is down", func() bool { return !d.Health().Up && d.Health().Err != nil })
	if err := d.Health().Err; !strings.Contains(err.Error(), "1025 targets") {
		t.Errorf("the error is %v", err)
	}
	z.set(t, "heroes.internal. 5 A 10.0.0.2")
	next(t, sets, "10.0.0.2:8080")
}

// Whatever a server answers, what is taken of it is the name's own and can be connected to.
func FuzzDNSAnswer(f *testing.F) {
	for _, records := range [][]string{
		{"heroes.internal. 5 A 10.0.0.1"}, {"heroes.internal. 5 CNAME b.", "b. 5 AAAA fd00::1"},
		{"heroes.internal. 5 SRV 1 2 3 a.internal.", "a.internal. 5 A 10.0.0.1"}, {"heroes.internal. 5 SRV 0 0 0 ."},
	} {
		m := new(dns.Msg).SetQuestion("heroes.internal.", dns.TypeA)
		m.Answer = rrs(f, records...)
		packed, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed)
	}
	f.Fuzz(func(t *testing.T, packed []byte) {
		m := new(dns.Msg)
		if m.Unpack(packed) != nil {
			return
		}
		for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV} {
			found, end, ttl := recordsOf(m.Answer, "heroes.internal.", kind)
			if ttl < 0 {
				t.Errorf("holds for %s", ttl)
			}
			for _, rr := range found {
				if h := rr.Header(); h.Rrtype != kind || dns.CanonicalName(h.Name) != end || h.Class != dns.ClassINET {
					t.Errorf("took %s", rr)
				}
				if a, ok := addressOf(rr); ok && (a.IsUnspecified() || a.IsMulticast() || a.Is4In6()) {
					t.Errorf("took %s", a)
				}
			}
			services, none := servicesOf(found)
			if none && len(services) > 0 || len(services) > len(found) {
				t.Errorf("%d services, none %v", len(services), none)
			}
		}
	})
}
