package config

type fileDecision struct {
	Listen address `yaml:"listen" need:"where the proxy asks, such as 127.0.0.1:9903" doc:"host:port on which the proxy asks"`
	Proxy  string  `yaml:"proxy" enum:"nginx,traefik,caddy,envoy" need:"who asks: nginx, traefik, caddy or envoy" doc:"who asks, and so which headers tell of the original request"`
}

func (r *reader) decision(f *fileServer, s *Server) {
	const at = "server.decision"
	if !r.has(at) {
		return
	}
	s.Decision = &Decision{Listen: f.Decision.Listen.String(), Proxy: f.Decision.Proxy}
	for _, other := range []struct{ key, value string }{{"listen", s.Listen}, {"status", s.Status}, {"admin", s.Admin}} {
		if s.Decision.Listen == other.value && f.Decision.Listen.port != "0" && r.ok(at+".listen") {
			r.fault(at+".listen", "server.decision.listen is the address of server.%s; whoever asks for decisions must be told apart by the port, give it another", other.key)
		}
	}
	if len(f.TrustedProxies) == 0 && !r.bad["server.trusted_proxies"] {
		r.fault(at, "server.decision answers trusted proxies alone, and the file names none; add server.trusted_proxies, such as 127.0.0.1/32 for a proxy on this machine")
	}
}

// warnUndecided warns of what a decision cannot do, since the request stays
// with the proxy. Beside server.listen, where it can be done, it may be meant
// for that.
func (c *Config) warnUndecided(warn func(path, format string, args ...any)) {
	d := c.Server.Decision
	if d == nil {
		return
	}
	if !onLoopback(d.Listen) {
		warn("server.decision.listen", "server.decision.listen is reached from other machines, and tokens come to it in clear text; listen on 127.0.0.1, beside the proxy, or fence the network off")
	}
	if c.Server.Listen != "" {
		return
	}
	for name, i := range c.Issuers {
		for _, from := range i.TokenFrom {
			if from.Query != "" {
				warn("issuers."+name+".token_from", "issuers.%s: a token in the query parameter %s reaches the backend, since no answer of server.decision changes a URL; have callers send it in a header", name, from.Query)
			}
		}
	}
	for i, r := range c.Routes {
		for _, key := range []struct {
			name string
			used bool
		}{
			{"strip_prefix", r.StripPrefix != ""},
			{"add_prefix", r.AddPrefix != ""},
			{"rewrite_host", r.RewriteHost != ""},
			{"request_headers", !r.RequestHeaders.empty()},
			{"rewrite_cookies", r.Cookies.Domain != nil || r.Cookies.Path != nil},
			{"max_body", r.MaxBody != 0},
			{"cors", r.CORS != nil},
		} {
			if key.used {
				warn(index("routes", i), "routes[%d].%s changes nothing, since server.decision decides only and server.listen is off; have %s do it", i, key.name, d.Proxy)
			}
		}
	}
}

func (e HeaderEdits) empty() bool { return len(e.Set)+len(e.Add)+len(e.Remove) == 0 }
