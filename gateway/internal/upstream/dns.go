package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
)

const (
	maxRound   = 30 * time.Second // for all the questions of one round
	maxAtOnce  = 8                // questions
	maxErrors  = 3                // that are told of one round
	firstRetry = time.Second      // doubled with each failure
	lastRetry  = 30 * time.Second
)

// DNSOptions are what a [DNS] source is made from.
type DNSOptions struct {
	URL       *url.URL      // what targets are asked for: scheme, host for Host and SNI, path; and the port, unless SRV says it
	SRV       string        // the name of SRV records (RFC 2782) that say where the targets are; "": the addresses of URL's host are
	Family    string        // "ipv4" or "ipv6": only such addresses; "": both
	Resolvers []string      // host:port, tried in turn; empty: those of /etc/resolv.conf
	MinTTL    time.Duration // answers hold at least so long,
	MaxTTL    time.Duration // and at most so long
	Log       *slog.Logger  // for changes of the targets and of whether servers answer
}

// DNS is a [Source]: the addresses of a name, asked for anew as their TTL
// ends. What cannot be resolved keeps its last good answer.
type DNS struct {
	standing
	o        DNSOptions
	resolver resolver
	kinds    []uint16
	known    map[question]answer // the last good answers to the questions of the last round
}

type question struct {
	name string
	kind uint16
}

// NewDNS makes a source that asks nobody before it runs.
func NewDNS(o DNSOptions) *DNS {
	d := &DNS{standing: standing{log: o.Log}, o: o, resolver: resolver{servers: o.Resolvers, file: resolvConf}, kinds: []uint16{dns.TypeA, dns.TypeAAAA}}
	switch o.Family {
	case "ipv4":
		d.kinds = d.kinds[:1]
	case "ipv6":
		d.kinds = d.kinds[1:]
	}
	return d
}

// Run implements [Source]. It may run once.
func (d *DNS) Run(ctx context.Context, set func([]Target)) {
	retry := firstRetry
	for ctx.Err() == nil {
		targets, ttl, err := d.resolve(ctx)
		if ctx.Err() != nil {
			return
		}
		wait := min(max(ttl, d.o.MinTTL), d.o.MaxTTL)
		if err == nil {
			retry = firstRetry
		} else {
			wait = min(wait, retry)
			retry = min(2*retry, lastRetry)
		}
		if targets != nil {
			d.good(targets, err, set)
		} else {
			d.bad(err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// round is one time that all is asked.
type round struct {
	*DNS
	conf *dns.ClientConfig

	mu     sync.Mutex
	learnt map[question]answer
	ttl    time.Duration
	errs   []error
}

// resolve returns the targets, nil if nothing is known of any, and how long
// that holds. With an error, some are as they were known before.
func (d *DNS) resolve(ctx context.Context) ([]Target, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, maxRound)
	defer cancel()
	conf, err := d.resolver.settings()
	if err != nil {
		return nil, 0, err
	}
	r := &round{DNS: d, conf: conf, learnt: map[question]answer{}, ttl: math.MaxInt64}
	var targets []Target
	if d.o.SRV == "" {
		targets = r.byHost(ctx)
	} else {
		targets = r.bySRV(ctx)
	}
	if targets == nil && r.errs == nil {
		r.errs = append(r.errs, fmt.Errorf("DNS knows no targets of %s", cmp.Or(d.o.SRV, d.o.URL.Hostname())))
	}
	if targets != nil {
		d.known = r.learnt
	}
	return targets, r.ttl, errors.Join(r.errs...)
}

// ask returns the answer to one question, or the last good one.
func (r *round) ask(ctx context.Context, name string, kind uint16) (a answer, failed bool) {
	q := question{dns.CanonicalName(name), kind}
	a, err := r.resolver.lookup(ctx, r.conf, q.name, kind)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		if len(r.errs) < maxErrors {
			r.errs = append(r.errs, fmt.Errorf("%s %s: %w", q.name, dns.TypeToString[kind], err))
		}
		a = r.known[q]
	} else if len(a.records) > 0 {
		r.ttl = min(r.ttl, a.ttl)
	}
	r.learnt[q] = a
	return a, err != nil
}

// byHost makes a target of each address of the URL's host.
func (r *round) byHost(ctx context.Context) (targets []Target) {
	port := r.o.URL.Port()
	if port == "" {
		port = map[string]string{"https": "443"}[r.o.URL.Scheme]
	}
	for _, a := range r.addresses(ctx, r.conf.NameList(r.o.URL.Hostname())) {
		targets = append(targets, Target{r.o.URL, net.JoinHostPort(a.String(), cmp.Or(port, "80")), 1})
	}
	return targets
}

// addresses returns those of the first name that has any. A name of which
// nobody can tell now ends the search: the next could be another's.
func (r *round) addresses(ctx context.Context, names []string) []netip.Addr {
	for _, name := range names {
		var found [2]answer
		var failed [2]bool
		var asked sync.WaitGroup
		for i, kind := range r.kinds {
			asked.Go(func() { found[i], failed[i] = r.ask(ctx, name, kind) })
		}
		asked.Wait()
		var addrs []netip.Addr
		for _, rr := range slices.Concat(found[0].records, found[1].records) {
			if a, ok := addressOf(rr); ok {
				addrs = append(addrs, a)
			}
		}
		if len(addrs) > 0 || failed != [2]bool{} {
			return addrs
		}
	}
	return nil
}

// addressOf returns the address in an A or AAAA record, if it can be connected to.
func addressOf(rr dns.RR) (netip.Addr, bool) {
	var ip net.IP
	switch rr := rr.(type) {
	case *dns.A:
		ip = rr.A
	case *dns.AAAA:
		ip = rr.AAAA
	}
	a, ok := netip.AddrFromSlice(ip)
	a = a.Unmap()
	return a, ok && connectable(a)
}

// connectable says whether a, which is no IPv4 address within IPv6, is that of
// one machine: 0.0.0.0, as filtering resolvers answer, would be this one itself.
func connectable(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsMulticast() && a.Zone() == ""
}

// bySRV makes a target of each address of the hosts that the SRV records name,
// of the least priority that has any.
func (r *round) bySRV(ctx context.Context) []Target {
	var found answer
	for _, name := range r.conf.NameList(r.o.SRV) {
		var failed bool
		if found, failed = r.ask(ctx, name, dns.TypeSRV); failed || len(found.records) > 0 {
			break
		}
	}
	if len(found.records) > maxTargets {
		r.errs = append(r.errs, fmt.Errorf("%d SRV records, more than the %d targets that an upstream may have", len(found.records), maxTargets))
		return nil
	}
	services, none := servicesOf(found.records)
	if none {
		return []Target{} // "decidedly not available at this domain" (RFC 2782)
	}
	came := r.came(found.extra)
	for len(services) > 0 {
		n := slices.IndexFunc(services, func(s *dns.SRV) bool { return s.Priority != services[0].Priority })
		if n < 0 {
			n = len(services)
		}
		if targets := r.ofServices(ctx, services[:n], came); targets != nil {
			return targets
		}
		services = services[n:]
	}
	return nil
}

// servicesOf returns what SRV records name, by priority; none if they say that
// there is no such service.
func servicesOf(rrs []dns.RR) (services []*dns.SRV, none bool) {
	for _, rr := range rrs {
		if s, ok := rr.(*dns.SRV); !ok || s.Target == "." || s.Port == 0 {
			none = none || ok && s.Target == "."
		} else {
			services = append(services, s)
		}
	}
	slices.SortStableFunc(services, func(a, b *dns.SRV) int { return cmp.Compare(a.Priority, b.Priority) })
	return services, none && len(services) == 0
}

// came returns the addresses that came along with SRV records, by host.
func (r *round) came(extra []dns.RR) map[string][]netip.Addr {
	came := map[string][]netip.Addr{}
	for _, rr := range extra {
		if h := rr.Header(); slices.Contains(r.kinds, h.Rrtype) && h.Class == dns.ClassINET {
			if a, ok := addressOf(rr); ok {
				host := dns.CanonicalName(h.Name)
				came[host] = append(came[host], a)
				r.ttl = min(r.ttl, ttlOf(h))
			}
		}
	}
	return came
}

// ofServices makes the targets of SRV records of one priority; hosts of which
// no address came along are asked for.
func (r *round) ofServices(ctx context.Context, services []*dns.SRV, came map[string][]netip.Addr) (targets []Target) {
	var mu sync.Mutex
	var asked errgroup.Group
	asked.SetLimit(maxAtOnce)
	found := map[string][]netip.Addr{}
	for _, s := range services {
		host := dns.CanonicalName(s.Target)
		mu.Lock()
		_, twice := found[host]
		if !twice {
			found[host] = came[host]
		}
		mu.Unlock()
		if !twice && came[host] == nil {
			asked.Go(func() error {
				addrs := r.addresses(ctx, []string{host})
				mu.Lock()
				defer mu.Unlock()
				found[host] = addrs
				return nil
			})
		}
	}
	_ = asked.Wait()
	for _, s := range services {
		addrs := found[dns.CanonicalName(s.Target)]
		for _, a := range addrs {
			// A host's weight is spread over its addresses; the factor keeps what division would lose.
			weight := int(s.Weight) * 1000 / len(addrs)
			targets = append(targets, Target{r.o.URL, net.JoinHostPort(a.String(), strconv.Itoa(int(s.Port))), weight})
		}
	}
	return targets
}
