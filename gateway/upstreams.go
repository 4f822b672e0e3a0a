package gateway

import (
	"cmp"
	"net/http"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/gateway/internal/upstream"
	"gatehouse/gateway/token"
)

// hashBy reads what requests of an upstream are told apart by: claim:PATH,
// header:NAME or cookie:NAME. It returns nil for "".
func hashBy(source string) func(*exchange) string {
	kind, name, _ := strings.Cut(source, ":")
	switch kind {
	case "claim":
		path, err := token.ParsePath(name)
		if err != nil { // not reached: config has read it
			return nil
		}
		return func(x *exchange) string {
			if x.verified == nil {
				return ""
			}
			value := x.verified.Claims.Lookup(path)
			return cmp.Or(value.Text(), value.JSON())
		}
	case "header":
		name = http.CanonicalHeaderKey(name)
		return func(x *exchange) string { return strings.Join(x.r.Header[name], ",") }
	case "cookie":
		return func(x *exchange) string {
			if c, err := x.r.Cookie(name); err == nil {
				return c.Value
			}
			return ""
		}
	}
	return nil
}

// upstreamState is an upstream, and how its targets fare.
type upstreamState struct {
	Name    string            `json:"name"`
	Balance string            `json:"balance"`
	Circuit string            `json:"circuit,omitempty"` // closed, open or half-open
	Targets []upstream.Status `json:"targets"`
}

// upstreamStates are all upstreams by name.
func (s *snapshot) upstreamStates() []upstreamState {
	rows := make([]upstreamState, 0, len(s.upstreams))
	for name, p := range s.upstreams {
		rows = append(rows, upstreamState{name, p.options.Balance, p.value.Circuit(), p.value.Status()})
	}
	slices.SortFunc(rows, func(a, b upstreamState) int { return strings.Compare(a.Name, b.Name) })
	return rows
}

// listUpstreams answers GET /upstreams.
func (g *Gateway) listUpstreams(w http.ResponseWriter, _ *http.Request, s *snapshot, _ caller) {
	writeJSON(w, http.StatusOK, map[string]any{"upstreams": s.upstreamStates()})
}

// upstreamReadiness is a detail of /readyz: an upstream without a healthy target
// refuses requests by itself, and no other gateway would serve them better.
type upstreamReadiness struct {
	Ready   bool `json:"ready"`
	Targets int  `json:"targets"`
	Healthy int  `json:"healthy"`
}

func (s *snapshot) upstreamReadiness() map[string]upstreamReadiness {
	details := map[string]upstreamReadiness{}
	for name, p := range s.upstreams {
		var d upstreamReadiness
		for _, t := range p.value.Status() {
			d.Targets++
			if t.Usable() {
				d.Healthy++
			}
		}
		d.Ready = d.Healthy > 0
		details[name] = d
	}
	return details
}

// upstreamStats reports on the targets of the current configuration. One that
// has gone is reported no more.
type upstreamStats struct {
	current                                         func() *snapshot
	healthy, ejected, inFlight, requests, ejections *prometheus.Desc
	retries, circuit                                *prometheus.Desc
}

func newUpstreamStats(current func() *snapshot) *upstreamStats {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("gatehouse_upstream_target_"+name, help, append([]string{"upstream", "target"}, labels...), nil)
	}
	return &upstreamStats{
		current:   current,
		healthy:   desc("healthy", "1 while the target's health checks are good, or nobody asks."),
		ejected:   desc("ejected", "1 while the target is ejected for its failures."),
		inFlight:  desc("requests_in_flight", "Requests that the target has now, upgraded connections included."),
		requests:  desc("requests_total", "Requests to the target by outcome: success, server_error (5xx), gateway_error (502, 503, 504), refused (no connection, or it broke before the headers), timeout (before the headers), broken_off (the response), client (who went, stalled or sent nonsense).", "outcome"),
		ejections: desc("ejections_total", "How often the target was ejected."),
		retries:   prometheus.NewDesc("gatehouse_upstream_retries_total", "Requests that were sent again to another target, by outcome: success, failure; budget_exhausted counts those that would have been.", []string{"upstream", "outcome"}, nil),
		circuit:   prometheus.NewDesc("gatehouse_upstream_circuit_open", "1 while requests are refused since too many failed, 0.5 while some are tried, else 0.", []string{"upstream"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (l *upstreamStats) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{l.healthy, l.ejected, l.inFlight, l.requests, l.ejections, l.retries, l.circuit} {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (l *upstreamStats) Collect(to chan<- prometheus.Metric) {
	s := l.current()
	if s == nil {
		return
	}
	for name, p := range s.upstreams {
		if p.options.Retries != nil {
			for outcome, n := range p.value.Retried() {
				to <- prometheus.MustNewConstMetric(l.retries, prometheus.CounterValue, float64(n), name, outcome)
			}
		}
		if circuit := p.value.Circuit(); circuit != "" {
			to <- prometheus.MustNewConstMetric(l.circuit, prometheus.GaugeValue, map[string]float64{"open": 1, "half-open": 0.5}[circuit], name)
		}
		for _, t := range p.value.Status() {
			report := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
				to <- prometheus.MustNewConstMetric(d, kind, v, append([]string{name, t.Target}, labels...)...)
			}
			report(l.healthy, prometheus.GaugeValue, oneIf(t.Healthy))
			report(l.ejected, prometheus.GaugeValue, oneIf(t.EjectedUntil != nil))
			report(l.inFlight, prometheus.GaugeValue, float64(t.InFlight))
			report(l.ejections, prometheus.CounterValue, float64(t.Ejections))
			for outcome, n := range t.Requests {
				report(l.requests, prometheus.CounterValue, float64(n), outcome)
			}
		}
	}
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
