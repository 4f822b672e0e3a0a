package config

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// DNS says of which name an upstream's targets are the addresses.
type DNS struct {
	URL            *url.URL      // what targets are asked for: scheme, host, path, and the port unless SRV says it
	SRV            string        // the name of SRV records; "": the addresses of URL's host
	Family         string        // "ipv4", "ipv6", or "" for both
	Resolvers      []string      // host:port; nil: those of /etc/resolv.conf
	MinTTL, MaxTTL time.Duration // answers hold at least and at most so long
}

// Eureka says which application of a registry an upstream's targets are the instances of.
type Eureka struct {
	URLs     []*url.URL // of the servers; they may hold a user and a password, and are not to be shown
	App      string
	Scheme   string // "http", "https" or "h2c"
	PreferIP bool
	Interval time.Duration
}

// fileDNS is a URL, or that with more to say.
type fileDNS struct {
	URL      targetURL            `yaml:"url" need:"what targets are asked for, such as http://heroes.internal:8080" doc:"what targets are asked for; each address of its host is a target"`
	SRV      string               `yaml:"srv" doc:"the name of SRV records that say where the targets are, such as _http._tcp.heroes.internal"`
	Family   string               `yaml:"family" enum:"ipv4,ipv6" doc:"only such addresses; default both"`
	Resolver oneOrMany[dnsServer] `yaml:"resolver" doc:"the addresses of the DNS servers, such as 127.0.0.1:5353; default: those of /etc/resolv.conf"`
	MinTTL   time.Duration        `yaml:"min_ttl" doc:"how long an answer holds at least; default 1s"`
	MaxTTL   time.Duration        `yaml:"max_ttl" doc:"how long an answer holds at most; default 5m"`
}

func (d *fileDNS) readNode(r *reader, n *yaml.Node, path string) {
	type plain fileDNS
	if n.Kind == yaml.ScalarNode {
		r.read(n, path, &d.URL)
	} else {
		r.read(n, path, (*plain)(d))
	}
}

// dnsServer is the address of one, perhaps with a port.
type dnsServer string

func (d *dnsServer) readText(s string) error {
	if ip, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil && ip.Zone() == "" {
		*d = dnsServer(net.JoinHostPort(ip.String(), "53"))
		return nil
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil || a.Port() == 0 {
		return errors.New("want the address of a DNS server, such as 127.0.0.1:5353 or 10.0.0.2; a name could not be looked up yet")
	}
	*d = dnsServer(a.String())
	return nil
}

// fileEureka is a URL, or that with more to say.
type fileEureka struct {
	URL      oneOrMany[registryURL] `yaml:"url" need:"where the registry is, such as http://eureka.internal:8761/eureka" doc:"the URLs of the registry's servers, tried in turn"`
	App      string                 `yaml:"app" doc:"the application's name in the registry; default: the upstream's name"`
	Scheme   string                 `yaml:"scheme" enum:"http,https,h2c" doc:"http and h2c go to an instance's port, https to its securePort; default http"`
	PreferIP bool                   `yaml:"prefer_ip" doc:"true connects to an instance's ipAddr in place of its hostName"`
	Interval time.Duration          `yaml:"interval" doc:"how often the registry is asked; default 30s"`
}

func (e *fileEureka) readNode(r *reader, n *yaml.Node, path string) {
	type plain fileEureka
	if n.Kind == yaml.MappingNode {
		r.read(n, path, (*plain)(e))
	} else {
		r.read(n, path, &e.URL)
	}
}

// registryURL is an http or https URL that may hold a user and a password.
type registryURL struct{ *url.URL }

func (u *registryURL) readText(s string) error {
	whole, err := url.Parse(s)
	if err == nil && whole.User != nil {
		bare := *whole
		bare.User = nil
		s = bare.String()
	}
	if _, err := plainURL(s); err != nil {
		return err
	}
	u.URL = whole
	return nil
}

// discovery reads where the targets of an upstream come from, if no list says it.
func (r *reader) discovery(path string, f *fileUpstream, u *Upstream) {
	var said []string
	for _, key := range []string{"targets", "dns", "eureka"} {
		if r.has(path + "." + key) {
			said = append(said, key)
		}
	}
	switch {
	case len(said) == 0 && !r.bad[path]:
		r.lacks(path, "%s needs one of the keys targets, dns and eureka: where its servers are, such as targets: [http://127.0.0.1:9000]", path)
	case len(said) > 1:
		at := path + "." + said[1]
		r.fault(at, "%s stands beside %s; the targets of an upstream come from one place, make two upstreams of it", at, said[0])
	}
	scheme := "https"
	if at := path + ".dns"; r.ok(at) {
		if u.DNS = r.dns(at, &f.DNS); u.DNS != nil {
			scheme = u.DNS.URL.Scheme
		}
	}
	if at := path + ".eureka"; r.ok(at) {
		u.Eureka = r.eureka(at, u.Name, &f.Eureka)
		scheme = u.Eureka.Scheme
	}
	if at := path + ".tls"; scheme != "https" && r.ok(at) {
		r.fault(at, "%s means nothing, since targets are asked by %s://, not by https://", at, scheme)
	}
}

func (r *reader) dns(path string, f *fileDNS) *DNS {
	if f.URL.URL == nil {
		return nil
	}
	d := &DNS{URL: f.URL.URL, SRV: f.SRV, Family: f.Family, MinTTL: or(f.MinTTL, time.Second), MaxTTL: or(f.MaxTTL, 5*time.Minute)}
	at := r.first(path+".url", path)
	host := d.URL.Hostname()
	err := r.target(d.URL)
	if _, isAddress := netip.ParseAddr(host); isAddress == nil {
		err = errors.New("that is an address, of which there is nothing to look up; write it into targets")
	} else if err == nil && !isDomainName(host) {
		err = errors.New("its host is no name that DNS could know")
	} else if err == nil && r.has(path+".srv") && d.URL.Port() != "" {
		err = errors.New("it has a port, and with srv the SRV records say the port; leave out one of the two")
	}
	if err != nil {
		r.fault(at, "%s is %s: %v", at, r.quote(at, d.URL.String()), err)
	}
	if at := path + ".srv"; r.ok(at) && !isDomainName(f.SRV) {
		r.fault(at, "%s is %s; want the whole name of SRV records, such as _http._tcp.heroes.internal", at, r.quote(at, f.SRV))
	}
	if at := r.first(path+".min_ttl", path+".max_ttl"); d.MinTTL > d.MaxTTL && r.ok(at) {
		r.fault(at, "%s: min_ttl (%s) is longer than max_ttl (%s)", path, d.MinTTL, d.MaxTTL)
	}
	for _, server := range f.Resolver {
		if server != "" {
			d.Resolvers = append(d.Resolvers, string(server))
		}
	}
	r.distinct(path+".resolver", d.Resolvers)
	return d
}

func (r *reader) eureka(path, name string, f *fileEureka) *Eureka {
	e := &Eureka{App: or(f.App, name), Scheme: or(f.Scheme, "http"), PreferIP: f.PreferIP, Interval: or(f.Interval, 30*time.Second)}
	at := r.first(path+".url", path)
	for i, u := range f.URL {
		if u.URL == nil {
			continue
		}
		if slices.ContainsFunc(e.URLs, func(o *url.URL) bool { return o.String() == u.String() }) {
			r.fault(r.first(index(at, i), at), "%s stands twice in %s", r.quote(at, u.String()), at)
		}
		e.URLs = append(e.URLs, u.URL)
	}
	if at := path + ".interval"; r.ok(at) && e.Interval < time.Second {
		r.fault(at, "%s is %s; a registry is asked once a second at most", at, e.Interval)
	}
	return e
}

// isDomainName says whether DNS could know s (RFC 1035 §2.3.4), _http labels included.
func isDomainName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
			return false
		}
	}
	return len(s) <= 253
}

func (*fileDNS) schema(g *generator) schema {
	return anyOf(g.of(reflect.TypeFor[targetURL](), ""), g.object(reflect.TypeFor[fileDNS]()))
}

func (*fileEureka) schema(g *generator) schema {
	return anyOf(g.of(reflect.TypeFor[oneOrMany[registryURL]](), ""), g.object(reflect.TypeFor[fileEureka]()))
}

func (*dnsServer) schema(g *generator) schema   { return g.text(`^[0-9a-fA-F.:\[\]]+$`) }
func (*registryURL) schema(g *generator) schema { return (*webURL)(nil).schema(g) }
