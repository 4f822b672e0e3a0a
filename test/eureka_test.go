package test

import (
	"net/http"
	"strings"
	"testing"
)

const eurekaYAML = `
upstreams:
  heroes:
    eureka:
      url: REGISTRY
      interval: 1s
  shared:
    eureka:
      url: REGISTRY
      app: HEROES
      interval: 1s
      prefer_ip: true
routes:
  - match: /
    public: true
    upstream: heroes
  - match: /shared
    public: true
    upstream: shared
`

// A real registry, in both of its languages: instances come, go out of service,
// leave, fall silent; it is killed, and comes back knowing nobody.
func TestRealEureka(t *testing.T) {
	t.Parallel()
	for name, accept := range map[string]string{"JSON": "", "XML": "application/xml"} {
		t.Run(name, func(t *testing.T) {
			e := startEureka(t, accept)
			c := startCrew(t, "127.0.0.1", "127.0.0.2", "127.0.0.3")
			e.register(t, "127.0.0.1", c.port, 3600, `{"weight":"3"}`)
			g := start(t, fill(eurekaYAML, "REGISTRY", e.URL))
			served(t, g, "127.0.0.1")
			up(t, g, "eureka", 1)
			if a := g.do(t, "GET /shared"); a.status != http.StatusOK {
				t.Errorf("the other upstream of the registry answers %d", a.status)
			}

			e.register(t, "127.0.0.2", c.port, 3600, `{"@class":"java.util.Collections$EmptyMap"}`)
			served(t, g, "127.0.0.1", "127.0.0.2")
			counts := map[string]int{}
			for range 400 {
				address, _, _ := strings.Cut(g.do(t, "GET /").body, " ")
				counts[address]++
			}
			if n := counts["127.0.0.1"]; n < 280 || n > 320 {
				t.Errorf("of 400 requests, %d went to the one of three quarters", n)
			}

			e.do(t, http.MethodPut, "apps/HEROES/127.0.0.1:heroes/status?value=OUT_OF_SERVICE", "")
			served(t, g, "127.0.0.2")
			e.do(t, http.MethodDelete, "apps/HEROES/127.0.0.1:heroes/status?value=UP", "")
			served(t, g, "127.0.0.1", "127.0.0.2")
			e.do(t, http.MethodDelete, "apps/HEROES/127.0.0.2:heroes", "")
			served(t, g, "127.0.0.1")
			e.register(t, "127.0.0.3", c.port, 1, "{}") // no heartbeat follows
			served(t, g, "127.0.0.1", "127.0.0.3")
			served(t, g, "127.0.0.1")
			if whole, deltas := e.count("/eureka/apps"), e.count("/eureka/apps/delta"); whole != 1 || deltas < 4 {
				t.Errorf("both upstreams asked for all %d times and for changes %d times, want 1 and one for each change", whole, deltas)
			}

			e.proc.kill()
			up(t, g, "eureka", 0)
			served(t, g, "127.0.0.1")
			e.start(t)
			eventually(t, "the gateway has asked again", func() bool {
				return strings.Contains(g.output.String(), "Eureka knows no application") || e.count("/eureka/apps") > 2
			})
			served(t, g, "127.0.0.1")
			up(t, g, "eureka", 0)
			e.register(t, "127.0.0.2", c.port, 3600, "{}")
			served(t, g, "127.0.0.2")
			up(t, g, "eureka", 1)

			e.do(t, http.MethodPut, "apps/HEROES/127.0.0.2:heroes/status?value=DOWN", "")
			eventually(t, "there is no target", func() bool { return g.do(t, "GET /").status == http.StatusServiceUnavailable })
		})
	}
}
