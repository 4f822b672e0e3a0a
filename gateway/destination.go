package gateway

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/gateway/config"
	"gatehouse/gateway/internal/upstream"
	"gatehouse/gateway/token"
)

// destination is one of the upstreams that a route's requests go to.
type destination struct {
	upstream    *upstream.Pool
	when        *when                  // nil: none
	weight      float64                // its share of the requests that no condition sends elsewhere
	seed        uint64                 // tells it from the others where a value is hashed
	hash        func(*exchange) string // what its upstream is to hash; nil: nothing
	timeout     time.Duration
	idleTimeout time.Duration
	answered    prometheus.Observer // how long its upstream takes; nil: nobody counts
}

// destinations are a route's. A request that came so far is admitted: which of
// them it goes to is the last choice, and changes nothing that was decided.
type destinations struct {
	conditional []destination // in the file's order
	weighted    []destination // one at least
	sticky      func(*exchange) string
}

// of chooses where a request goes.
func (d *destinations) of(x *exchange) *destination {
	for i := range d.conditional {
		if d.conditional[i].when.holds(x) {
			return &d.conditional[i]
		}
	}
	if len(d.weighted) == 1 {
		return &d.weighted[0]
	}
	if d.sticky != nil {
		if value := d.sticky(x); value != "" {
			return d.owner(value)
		}
	}
	if x.dry != nil { // an explanation, and the test of a file, must say the same each time
		return d.heaviest()
	}
	return d.draw(rand.Float64())
}

// owner returns whom a value belongs to, by rendezvous hashing with weights
// (Schindelhauer and Schomaker, "Weighted distributed hash tables", 2005): who
// gets more weight takes from the others, and nothing else moves. It is the same
// in every gateway, and on every route with the same weights.
func (d *destinations) owner(value string) *destination {
	var best *destination
	highest := math.Inf(-1)
	for i := range d.weighted {
		var h xxhash.Digest
		h.ResetWithSeed(d.weighted[i].seed)
		_, _ = h.WriteString(value)
		// Of 53 bits, above 0 and below 1.
		point := (float64(h.Sum64()>>11) + 0.5) / (1 << 53)
		if score := -d.weighted[i].weight / math.Log(point); score > highest {
			best, highest = &d.weighted[i], score
		}
	}
	return best
}

// draw returns one by a number from 0 to 1.
func (d *destinations) draw(at float64) *destination {
	total := 0.0
	for _, w := range d.weighted {
		total += w.weight
	}
	at *= total
	for i := range d.weighted {
		if at -= d.weighted[i].weight; at < 0 {
			return &d.weighted[i]
		}
	}
	return &d.weighted[len(d.weighted)-1]
}

func (d *destinations) heaviest() *destination {
	most := &d.weighted[0]
	for i := range d.weighted {
		if d.weighted[i].weight > most.weight {
			most = &d.weighted[i]
		}
	}
	return most
}

// why says why a request goes where it does; "" where there is no choice.
func (x *exchange) why() string {
	d := &x.route.to
	if x.to.when != nil {
		return "is taken, since its condition (when) holds"
	}
	total := 0.0
	for _, w := range d.weighted {
		total += w.weight
	}
	switch {
	case len(d.weighted) == 1 && d.conditional == nil:
		return ""
	case len(d.weighted) == 1:
		return "is taken, since no condition (when) holds"
	case d.sticky != nil && d.sticky(x) != "":
		return fmt.Sprintf("has %v of %v by weight, and the request's value (sticky) belongs to it", x.to.weight, total)
	}
	return fmt.Sprintf("has %v of %v by weight, and is drawn for each request", x.to.weight, total)
}

// when is a condition of which all must hold.
type when struct {
	claims  []claimValues
	headers []config.HeaderValue
}

type claimValues struct {
	path   token.Path
	values []string
}

func newWhen(c *config.When) *when {
	if c == nil {
		return nil
	}
	w := &when{headers: c.Headers}
	for _, claim := range c.Claims {
		if path, err := token.ParsePath(claim.Claim); err == nil { // config has read it
			w.claims = append(w.claims, claimValues{path, claim.Values})
		}
	}
	return w
}

// holds looks at the claims of the verified token, which nobody but its issuer
// chose, and at headers, which the caller did.
func (w *when) holds(x *exchange) bool {
	for _, c := range w.claims {
		if x.verified == nil || !c.hold(x.verified.Claims.Lookup(c.path)) {
			return false
		}
	}
	for _, h := range w.headers {
		if !slices.ContainsFunc(x.r.Header[h.Name], func(line string) bool { return slices.Contains(h.Values, line) }) {
			return false
		}
	}
	return true
}

func (c claimValues) hold(v token.Value) bool {
	if v.Kind() == token.Array {
		for item := range v.Items() {
			if c.hold(item) {
				return true
			}
		}
		return false
	}
	return v.Text() != "" && slices.Contains(c.values, v.Text())
}

// destinations builds where a route's requests go.
func (b *builder) destinations(s *snapshot, c *config.Route) destinations {
	list := destinations{sticky: hashBy(c.Sticky)}
	for _, to := range c.Upstreams {
		u := to.Upstream
		d := destination{
			upstream: b.upstream(s, u), when: newWhen(to.When), weight: float64(to.Weight), seed: xxhash.Sum64String(u.Name), hash: hashBy(u.HashBy),
			timeout:     cmp.Or(c.Timeout, u.Timeout, b.cfg.Defaults.Timeout),
			idleTimeout: cmp.Or(c.IdleTimeout, u.IdleTimeout, b.cfg.Defaults.IdleTimeout),
		}
		if b.metrics != nil {
			d.answered = b.metrics.upstreams.WithLabelValues(u.Name)
		}
		if d.when != nil {
			list.conditional = append(list.conditional, d)
		} else {
			list.weighted = append(list.weighted, d)
		}
	}
	return list
}
