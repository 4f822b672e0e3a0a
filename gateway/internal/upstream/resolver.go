package upstream

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	resolvConf = "/etc/resolv.conf"

	// What fits into one datagram nearly everywhere (DNS flag day 2020); more comes by TCP.
	udpBytes = 1232

	maxAliases = 8 // CNAMEs in a row, as BIND follows at most 11 in one answer
	// Bounds of what resolv.conf may ask for.
	maxAnswerTime = 5 * time.Second
	maxAttempts   = 5
)

// resolver asks DNS servers one question at a time and remembers nothing:
// net.Resolver would do, but tells no TTL. It is safe for concurrent use.
type resolver struct {
	servers []string // host:port, tried in turn; empty: those of resolv.conf
	file    string   // resolv.conf
}

// answer is what the servers know of a name: records of one type, perhaps none.
type answer struct {
	records []dns.RR
	extra   []dns.RR      // addresses of the hosts that SRV records name, if the server sent them along
	ttl     time.Duration // the least of the records and of the aliases on the way to them
}

// settings are read for each round of questions, as they change while a
// laptop or a container moves.
func (r *resolver) settings() (*dns.ClientConfig, error) {
	if len(r.servers) > 0 {
		return &dns.ClientConfig{Servers: r.servers, Timeout: 2, Attempts: 2}, nil
	}
	c, err := dns.ClientConfigFromFile(r.file)
	if err != nil {
		return nil, fmt.Errorf("cannot read the DNS servers: %w", err)
	}
	if len(c.Servers) == 0 {
		return nil, fmt.Errorf("%s names no DNS server", r.file)
	}
	for i, s := range c.Servers {
		c.Servers[i] = net.JoinHostPort(s, c.Port)
	}
	c.Attempts = min(c.Attempts, maxAttempts)
	return c, nil
}

// lookup returns the records of that type. The name is fully qualified. A name
// that does not exist has none, and is no error.
func (r *resolver) lookup(ctx context.Context, conf *dns.ClientConfig, name string, kind uint16) (answer, error) {
	a := answer{ttl: math.MaxInt64}
	for range maxAliases {
		msg, err := r.ask(ctx, conf, name, kind)
		if err != nil {
			return answer{}, err
		}
		records, end, ttl := recordsOf(msg.Answer, name, kind)
		a.ttl = min(a.ttl, ttl)
		if len(records) > 0 {
			a.records, a.extra = records, msg.Extra
			return a, nil
		}
		if msg.Rcode == dns.RcodeNameError || end == dns.CanonicalName(name) {
			return answer{}, nil
		}
		name = end // a server that knows of the alias only
	}
	return answer{}, fmt.Errorf("more than %d aliases in a row", maxAliases)
}

// recordsOf returns the records of an answer that were asked for, that is those of
// the name or of what the name is an alias of, and the name at the end of the
// aliases. What else a server sends along is not looked at, since it could be
// anybody's (RFC 5452 §6).
func recordsOf(rrs []dns.RR, name string, kind uint16) (found []dns.RR, end string, ttl time.Duration) {
	end, ttl = dns.CanonicalName(name), math.MaxInt64
	for range maxAliases {
		alias := ""
		for _, rr := range rrs {
			h := rr.Header()
			if h.Class != dns.ClassINET || dns.CanonicalName(h.Name) != end {
				continue
			}
			if c, ok := rr.(*dns.CNAME); ok {
				alias, ttl = dns.CanonicalName(c.Target), min(ttl, ttlOf(h))
			} else if h.Rrtype == kind {
				found, ttl = append(found, rr), min(ttl, ttlOf(h))
			}
		}
		if len(found) > 0 || alias == "" {
			break
		}
		end = alias
	}
	return found, end, ttl
}

// ttlOf is 0 for what has its highest bit set (RFC 2181 §8).
func ttlOf(h *dns.RR_Header) time.Duration {
	if h.Ttl > math.MaxInt32 {
		return 0
	}
	return time.Duration(h.Ttl) * time.Second
}

// ask tries the servers in turn until one knows.
func (r *resolver) ask(ctx context.Context, conf *dns.ClientConfig, name string, kind uint16) (*dns.Msg, error) {
	timeout := min(time.Duration(conf.Timeout)*time.Second, maxAnswerTime)
	var last error
	for range conf.Attempts {
		for _, server := range conf.Servers {
			msg, err := exchange(ctx, "udp", server, name, kind, timeout)
			if err == nil && msg.Truncated {
				msg, err = exchange(ctx, "tcp", server, name, kind, timeout)
			}
			switch {
			case ctx.Err() != nil:
				return nil, errors.Join(ctx.Err(), last)
			case err != nil:
				last = fmt.Errorf("DNS server %s: %w", server, err)
			case msg.Rcode == dns.RcodeSuccess || msg.Rcode == dns.RcodeNameError:
				return msg, nil
			default:
				last = fmt.Errorf("DNS server %s answers %s", server, dns.RcodeToString[msg.Rcode])
			}
		}
	}
	return nil, last
}

// exchange asks one server once, from a port of its own.
func exchange(ctx context.Context, network, server, name string, kind uint16, timeout time.Duration) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, network, server)
	if err != nil {
		return nil, err
	}
	conn := &dns.Conn{Conn: raw, UDPSize: udpBytes}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	query := new(dns.Msg).SetQuestion(name, kind).SetEdns0(udpBytes, false)
	if err := conn.WriteMsg(query); err != nil {
		return nil, err
	}
	for {
		msg, err := conn.ReadMsg()
		if err == nil && fits(msg, query) {
			return msg, nil
		}
		// A datagram that does not fit may be forged, and the server's own still on its way.
		if broken := (*net.OpError)(nil); network == "tcp" || errors.As(err, &broken) {
			if err == nil {
				err = errors.New("answers another question")
			}
			return nil, err
		}
	}
}

// fits says whether msg answers the query (RFC 5452 §9.1).
func fits(msg, query *dns.Msg) bool {
	return msg.Response && msg.Id == query.Id && msg.Opcode == query.Opcode &&
		slices.EqualFunc(msg.Question, query.Question, func(a, b dns.Question) bool {
			return a.Qtype == b.Qtype && a.Qclass == b.Qclass && strings.EqualFold(a.Name, b.Name)
		})
}
