package gateway

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/gateway/internal/upstream"
)

// source is where an upstream's targets come from, if no list says it.
type source interface {
	upstream.Source
	Health() upstream.SourceHealth
}

// sourceStats reports on where the targets of the current configuration come from.
type sourceStats struct {
	current          func() *snapshot
	up, age, targets *prometheus.Desc
}

func newSourceStats(current func() *snapshot) *sourceStats {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("gatehouse_upstream_source_"+name, help, []string{"upstream", "source"}, nil)
	}
	return &sourceStats{
		current: current,
		up:      desc("up", "1 while the source (dns, eureka) of an upstream's targets answers as it should."),
		age:     desc("age_seconds", "Time since the source last answered as it should; absent until it first does."),
		targets: desc("targets", "Targets that the source told of last."),
	}
}

// Describe implements prometheus.Collector.
func (l *sourceStats) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{l.up, l.age, l.targets} {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (l *sourceStats) Collect(to chan<- prometheus.Metric) {
	s := l.current()
	if s == nil {
		return
	}
	for name, p := range s.upstreams {
		source, ok := p.value.Source.(source)
		if !ok {
			continue
		}
		kind := "dns"
		if p.options.Eureka != nil {
			kind = "eureka"
		}
		h := source.Health()
		gauge := func(d *prometheus.Desc, v float64) {
			to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, name, kind)
		}
		gauge(l.up, oneIf(h.Up))
		gauge(l.targets, float64(h.Targets))
		if !h.Good.IsZero() {
			gauge(l.age, time.Since(h.Good).Seconds())
		}
	}
}
