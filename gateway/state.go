package gateway

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"time"

	"gatehouse/gateway/internal/limit"
)

// shownRefusals is how many refusals are part of a [state].
const shownRefusals = 50

// state is how the gateway stands: what the admin page shows. Counts are since
// the start, or since a reload changed what they are of; whoever wants rates
// asks twice.
type state struct {
	readiness
	Time      time.Time        `json:"time"` // of the gateway's clock, which the other times are of, too
	Started   time.Time        `json:"started"`
	Routes    []routeState     `json:"routes"` // in the order of the file
	Unmatched *traffic         `json:"unmatched"`
	Limits    []limitState     `json:"limits"`    // by name
	Upstreams []upstreamState  `json:"upstreams"` // by name
	Refusals  []RefusedRequest `json:"refusals"`  // the latest first, without explanations
}

type routeState struct {
	MatrixRoute
	Limits    []string `json:"limits,omitempty"`
	Upstreams []string `json:"upstreams"`
	*traffic
}

// traffic counts requests.
type traffic struct {
	Requests    uint64            `json:"requests"`
	Refused     map[string]uint64 `json:"refused,omitempty"`      // of them, by reason
	WouldRefuse map[string]uint64 `json:"would_refuse,omitempty"` // of them, that mode: report let pass, by reason
}

type limitState struct {
	Name      string   `json:"name"`
	Key       []string `json:"key"`
	Quota     int      `json:"quota"`
	Window    float64  `json:"window_seconds"`
	Shared    bool     `json:"shared"`
	Mode      string   `json:"mode,omitempty"` // empty: that of each route
	Keys      int      `json:"keys"`           // that it tells apart now
	Admitted  uint64   `json:"admitted"`
	Refused   uint64   `json:"refused"`
	Reported  uint64   `json:"reported"`
	Fallbacks uint64   `json:"fallback"`
	Spills    uint64   `json:"spilled"`
}

func (l limitState) with(c limit.Stats) limitState {
	l.Keys, l.Admitted, l.Refused, l.Reported, l.Fallbacks, l.Spills = c.Keys, c.Admitted, c.Refused, c.Reported, c.Fallbacks, c.Spills
	return l
}

// showState answers GET /state.
func (g *Gateway) showState(w http.ResponseWriter, r *http.Request, s *snapshot, _ caller) {
	answer := state{
		readiness: g.readiness(r.Context(), s), Time: g.now().UTC(), Started: g.started,
		Routes: make([]routeState, len(s.routes)), Limits: []limitState{}, Upstreams: s.upstreamStates(), Refusals: g.refusals.latest(shownRefusals),
	}
	byRoute := g.metrics.byRoute()
	of := func(route string) *traffic { return cmp.Or(byRoute[route], &traffic{}) }
	answer.Unmatched = of(unmatched)
	for i, c := range s.config.Routes {
		row := routeState{MatrixRoute: s.matrixRoute(i), traffic: of(c.Name)}
		for _, l := range c.Limits {
			row.Limits = append(row.Limits, l.Name)
		}
		for _, d := range c.Upstreams {
			row.Upstreams = append(row.Upstreams, d.Upstream.Name)
		}
		answer.Routes[i] = row
	}
	for _, name := range slices.Sorted(maps.Keys(s.limits)) {
		c := s.config.Limits[name]
		row := limitState{Name: name, Key: c.Key, Quota: c.Rate.Count, Window: c.Rate.Per.Seconds(), Shared: c.Shared, Mode: c.Mode}
		answer.Limits = append(answer.Limits, row.with(s.limits[name].value.Stats()))
	}
	if c := s.config.Server.AuthFailures; c != nil {
		row := limitState{Name: limit.FailuresName, Key: []string{"ip"}, Quota: c.Rate.Count, Window: c.Rate.Per.Seconds()}
		answer.Limits = append(answer.Limits, row.with(s.failures.value.Stats()))
	}
	writeJSON(w, http.StatusOK, answer)
}

// byRoute returns what was counted by route name.
func (m *metrics) byRoute() map[string]*traffic {
	families, _ := m.traffic.Gather() // what can be gathered of two counters that never fail
	counts := map[string]*traffic{}
	for _, f := range families {
		for _, series := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range series.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			t := counts[labels["route"]]
			if t == nil {
				t = &traffic{Refused: map[string]uint64{}, WouldRefuse: map[string]uint64{}}
				counts[labels["route"]] = t
			}
			n, reason := uint64(series.GetCounter().GetValue()), labels["reason"]
			if f.GetName() == "gatehouse_would_refuse_total" {
				t.WouldRefuse[reason] += n
				continue
			}
			t.Requests += n
			if reason != "" {
				t.Refused[reason] += n
			}
		}
	}
	return counts
}
