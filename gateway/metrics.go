package gateway

import (
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"gatehouse/gateway/internal/issuer"
	"gatehouse/gateway/internal/limit"
	"gatehouse/gateway/internal/revoke"
)

// unmatched is the route label of requests that no route matched.
const unmatched = "-"

// buckets are for what waits for others, in seconds.
var buckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60}

// metrics are the gateway's Prometheus metrics. Labels are names from the
// configuration and words from fixed lists, never what a caller sent.
type metrics struct {
	registry    *prometheus.Registry
	version     string
	spans       *prometheus.CounterVec   // outcome
	traffic     *prometheus.Registry     // requests and wouldRefuse alone, which the admin page asks for every few seconds
	requests    *prometheus.CounterVec   // route, status, reason
	durations   *prometheus.HistogramVec // route, status, reason
	rungs       [rungs]prometheus.Observer
	upstreams   *prometheus.HistogramVec // upstream
	wouldRefuse *prometheus.CounterVec   // route, reason
	fetches     *prometheus.CounterVec   // issuer, kind, outcome
	fallbacks   *prometheus.CounterVec   // dependency, posture
	logouts     *prometheus.CounterVec   // issuer, outcome
	collisions  prometheus.Counter
	reloads     *prometheus.CounterVec // outcome
	reloaded    prometheus.Gauge       // whether the last reload succeeded
	configured  prometheus.Gauge       // when a configuration was last taken up

	auditErrors, adminRefusals prometheus.Counter
	certificates               *prometheus.CounterVec // file, outcome
	http2Errors                *prometheus.CounterVec // error

	connections        [4]prometheus.Gauge    // by http.ConnState
	connectionsRefused prometheus.Counter     // over server.max_connections
	connectionTimeouts *prometheus.CounterVec // phase
}

func newMetrics(cache *issuer.Cache, version string) *metrics {
	rungDurations := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "gatehouse_rung_duration_seconds",
		Help:    "Time that requests spent on one rung of the gateway's ladder: route, limits, token, revocation, policy, headers, forward (to the end of the response).",
		Buckets: []float64{.00001, .00005, .0001, .0005, .001, .005, .01, .05, .1, .5, 1, 5},
	}, []string{"rung"})
	m := &metrics{
		registry: prometheus.NewRegistry(),
		version:  version,
		spans: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gatehouse_spans_total",
			Help: "Spans by what became of them: exported, failed (the collector did not take them), dropped (too many waited for it).",
		}, []string{"outcome"}),
		traffic: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gatehouse_requests_total",
			Help: "Requests by route name, status and the reason of a refusal (empty if forwarded).",
		}, []string{"route", "status", "reason"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "gatehouse_request_duration_seconds",
			Help:    "Time from a request's headers to the end of its response.",
			Buckets: buckets,
		}, []string{"route", "status", "reason"}),
		upstreams: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "gatehouse_upstream_duration_seconds",
			Help:    "Time from when a request was let through to the headers of the upstream's answer, or to its failure.",
			Buckets: buckets,
		}, []string{"upstream"}),
		wouldRefuse: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gatehouse_would_refuse_total",
			Help: "Requests that mode: report let pass, by route name and the reason for which they would have been refused.",
		}, []string{"route", "reason"}),
		fetches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gatehouse_issuer_fetches_total",
			Help: "Fetches of discovery documents and key sets, and introspections, by issuer and outcome.",
		}, []string{"issuer", "kind", "outcome"}),
		fallbacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gatehouse_fallbacks_total",
			Help: "Requests decided by the posture for an outage, by dependency and posture.",
		}, []string{"dependency", "posture"}),
		logouts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gatehouse_logouts_total",
			Help: "Back-channel logout requests by issuer and outcome: logged_out, invalid, replayed, limited, unavailable.",
		}, []string{"issuer", "outcome"}),
		collisions: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gatehouse_header_collisions_total",
			Help: "Claims not sent because two fold to one header name.",
		}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gatehouse_reloads_total",
			Help: "Reloads of the configuration by outcome.",
		}, []string{"outcome"}),
		reloaded: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "gatehouse_config_last_reload_successful",
			Help: "1 if the last reload of the configuration succeeded, 0 if the gateway goes on with an older one.",
		}),
		configured: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "gatehouse_config_last_reload_success_timestamp_seconds",
			Help: "When a configuration was last taken up, at the start or by a reload, in Unix seconds.",
		}),
		auditErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gatehouse_audit_errors_total",
			Help: "Audit records that could not be written.",
		}),
		adminRefusals: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gatehouse_admin_refusals_total",
			Help: "Requests to the admin listener that were refused for their Host, Origin or credentials.",
		}),
		certificates: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gatehouse_tls_reloads_total",
			Help: "Changes of the files of certificates by outcome.",
		}, []string{"file", "outcome"}),
		http2Errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gatehouse_http2_errors_total",
			Help: "Mistakes of clients in HTTP/2, by net/http's words for them.",
		}, []string{"error"}),
		connectionsRefused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gatehouse_connections_refused_total",
			Help: "Connections that were closed at once since server.max_connections were open.",
		}),
		connectionTimeouts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gatehouse_connection_timeouts_total",
			Help: "Connections of clients that were too slow, by what was waited for: handshake, headers, body (of a refused request), response (to be taken), idle (the next request).",
		}, []string{"phase"}),
	}
	connections := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "gatehouse_connections",
		Help: "Open connections of clients by state: new (no request yet), active, idle, upgraded.",
	}, []string{"state"})
	for state, word := range connectionStates {
		m.connections[state] = connections.WithLabelValues(word)
	}
	for r := range rungs {
		m.rungs[r] = rungDurations.WithLabelValues(r.String())
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "gatehouse_build_info",
		Help:        "1; the labels say which build of Gatehouse runs.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	build.Set(1)
	m.reloaded.Set(1)
	m.configured.SetToCurrentTime()
	entries := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gatehouse_token_cache_entries",
		Help: "Verified tokens that are remembered.",
	}, func() float64 { n, _ := cache.Size(); return float64(n) })
	bytes := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gatehouse_token_cache_bytes",
		Help: "Memory that the remembered tokens are taken to need.",
	}, func() float64 { _, n := cache.Size(); return float64(n) })
	lookups := func(outcome string, n func() uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name:        "gatehouse_token_cache_lookups_total",
			Help:        "Look-ups in the cache of verified tokens by outcome.",
			ConstLabels: prometheus.Labels{"outcome": outcome},
		}, func() float64 { return float64(n()) })
	}
	m.traffic.MustRegister(m.requests, m.wouldRefuse)
	m.registry.MustRegister(entries, bytes, lookups("hit", cache.Hits), lookups("miss", cache.Misses))
	m.registry.MustRegister(build, m.spans, rungDurations, m.upstreams, m.reloaded, m.configured)
	m.registry.MustRegister(m.requests, m.durations, m.wouldRefuse, m.fetches, m.fallbacks, m.logouts, m.collisions, m.reloads, m.certificates, m.http2Errors, m.auditErrors, m.adminRefusals,
		connections, m.connectionsRefused, m.connectionTimeouts,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// yes is the value of a gauge that tells whether something is so.
func yes(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// issuerStats reports on the keys of the current configuration's issuers.
type issuerStats struct {
	current          func() *snapshot
	ready, keys, age *prometheus.Desc
}

func newIssuerStats(current func() *snapshot) *issuerStats {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("gatehouse_issuer_"+name, help, []string{"issuer"}, nil)
	}
	return &issuerStats{
		current: current,
		ready:   desc("ready", "1 while the issuer has keys that are not too old to verify with."),
		keys:    desc("keys", "Keys of the issuer that are at hand."),
		age:     desc("keys_age_seconds", "Time since the issuer's key set was last fetched; there is none for keys of the configuration, or before the first fetch."),
	}
}

// Describe implements prometheus.Collector.
func (l *issuerStats) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{l.ready, l.keys, l.age} {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (l *issuerStats) Collect(to chan<- prometheus.Metric) {
	s := l.current()
	if s == nil {
		return
	}
	for name, p := range s.issuers {
		h := p.value.Health()
		gauge := func(d *prometheus.Desc, v float64) {
			to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, name)
		}
		gauge(l.ready, yes(h.Ready))
		gauge(l.keys, float64(h.Keys))
		if !h.Fetched.IsZero() {
			gauge(l.age, time.Since(h.Fetched).Seconds())
		}
	}
}

// limitStats reports the counts of the current configuration's limits. A limit
// that a reload changes begins anew, as after a restart.
type limitStats struct {
	current                   func() *snapshot
	decisions, keys, replicas *prometheus.Desc
}

func newLimitStats(current func() *snapshot) *limitStats {
	return &limitStats{
		current:   current,
		decisions: prometheus.NewDesc("gatehouse_limit_decisions_total", "Decisions of rate limits by limit and outcome: admitted, refused, reported (mode: report let it pass), fallback (decided without Redis), spilled (the table was full).", []string{"limit", "outcome"}, nil),
		keys:      prometheus.NewDesc("gatehouse_limit_keys", "Callers that a limit tells apart now.", []string{"limit"}, nil),
		replicas:  prometheus.NewDesc("gatehouse_limit_replicas", "Gateways that share the limits, as configured or as last seen in Redis.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (l *limitStats) Describe(descs chan<- *prometheus.Desc) {
	descs <- l.decisions
	descs <- l.keys
	descs <- l.replicas
}

// replicaStats reports on the replica of revocations, if there is one.
type replicaStats struct {
	current                                                func() *snapshot
	age, entries, bytes, resyncs, inStep, denies, warnings *prometheus.Desc
}

func newReplicaStats(current func() *snapshot) *replicaStats {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("gatehouse_revocation_replica_"+name, help, labels, nil)
	}
	return &replicaStats{
		current:  current,
		age:      desc("age_seconds", "Time since the replica of revocations was last known to be in step."),
		entries:  desc("entries", "Revocations that the replica holds."),
		bytes:    desc("bytes", "Memory that they are taken to need."),
		resyncs:  desc("resyncs_total", "Loads of all revocations from a server, the first included."),
		inStep:   desc("in_step", "1 while every revocation in Redis is in the replica; mode is tracking or poll.", "mode"),
		denies:   desc("denies", "1 while the replica is too old to decide by, so that on_error refuses every token."),
		warnings: desc("warning", "1 while Redis could forget a revocation or cannot be followed as configured."),
	}
}

// Describe implements prometheus.Collector.
func (l *replicaStats) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{l.age, l.entries, l.bytes, l.resyncs, l.inStep, l.denies, l.warnings} {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (l *replicaStats) Collect(to chan<- prometheus.Metric) {
	s := l.current()
	if s == nil || s.revocation == nil {
		return
	}
	replica, ok := s.revocation.value.(*revoke.Replica)
	if !ok {
		return
	}
	h := replica.Health()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	if !h.LastGood.IsZero() {
		gauge(l.age, h.Age.Seconds())
	}
	gauge(l.entries, float64(h.Entries))
	gauge(l.bytes, float64(h.Bytes))
	to <- prometheus.MustNewConstMetric(l.resyncs, prometheus.CounterValue, float64(h.Resyncs))
	gauge(l.inStep, yes(h.InStep), string(h.Mode))
	gauge(l.denies, yes(h.Denies))
	gauge(l.warnings, yes(h.Warning != ""))
}

// Collect implements prometheus.Collector.
func (l *limitStats) Collect(to chan<- prometheus.Metric) {
	s := l.current()
	if s == nil {
		return
	}
	report := func(name string, c limit.Stats) {
		for outcome, n := range map[string]uint64{"admitted": c.Admitted, "refused": c.Refused, "reported": c.Reported, "fallback": c.Fallbacks, "spilled": c.Spills} {
			to <- prometheus.MustNewConstMetric(l.decisions, prometheus.CounterValue, float64(n), name, outcome)
		}
		to <- prometheus.MustNewConstMetric(l.keys, prometheus.GaugeValue, float64(c.Keys), name)
	}
	for name, p := range s.limits {
		report(name, p.value.Stats())
	}
	if s.failures != nil {
		report(limit.FailuresName, s.failures.value.Stats())
	}
	if s.store != nil {
		to <- prometheus.MustNewConstMetric(l.replicas, prometheus.GaugeValue, float64(s.store.value.Replicas()))
	}
}

// maxScrapes bounds the answers of /metrics at a time: each holds every metric
// until it is taken.
const maxScrapes = 4

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes})
}

// series are those that requests of one route, status and reason count in.
type series struct {
	requests  prometheus.Counter
	durations prometheus.Observer
}

// request counts a request; rt is nil where no route matched.
func (m *metrics) request(rt *builtRoute, status int, reason string, d time.Duration) {
	var s series
	switch {
	case rt == nil:
		s = m.series(unmatched, status, reason)
	case status != http.StatusOK || reason != "":
		s = m.series(rt.name, status, reason)
	default: // what most requests come to: looked up once
		known := rt.ok.Load()
		if known == nil {
			s := m.series(rt.name, status, reason)
			known = &s
			rt.ok.Store(known)
		}
		s = *known
	}
	s.requests.Inc()
	s.durations.Observe(d.Seconds())
}

func (m *metrics) series(route string, status int, reason string) series {
	label := "other" // a backend may answer any three digits; labels stay bounded
	if 100 <= status && status <= 599 {
		label = strconv.Itoa(status)
	}
	return series{m.requests.WithLabelValues(route, label, reason), m.durations.WithLabelValues(route, label, reason)}
}

// reload counts a reload, and notes whether the configuration was taken up.
func (m *metrics) reload(err error) {
	m.reloads.WithLabelValues(outcome(err)).Inc()
	if err != nil {
		m.reloaded.Set(0)
		return
	}
	m.reloaded.Set(1)
	m.configured.SetToCurrentTime()
}

func outcome(err error) string {
	if err != nil {
		return "failure"
	}
	return "success"
}
