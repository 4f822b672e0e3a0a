package gateway

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"gatehouse/gateway/internal/issuer"
)

// described are the gateway's own metrics with their labels in order.
func described(t *testing.T) map[string]string {
	t.Helper()
	b := newBench(t, nil, "")
	descs := make(chan *prometheus.Desc)
	go func() {
		b.gateway.metrics.registry.Describe(descs)
		close(descs)
	}()
	form := regexp.MustCompile(`fqName: "(\w+)".* constLabels: \{(.*)\}, variableLabels: \{(.*)\}`)
	found := map[string]string{}
	for d := range descs {
		parts := form.FindStringSubmatch(d.String())
		if parts == nil {
			t.Fatalf("%s has another form", d)
		}
		if !strings.HasPrefix(parts[1], "gatehouse_") {
			continue
		}
		labels := regexp.MustCompile(`\w+`).FindAllString(regexp.MustCompile(`="[^"]*"`).ReplaceAllString(parts[2], "")+" "+parts[3], -1)
		slices.Sort(labels)
		found[parts[1]] = strings.Join(labels, " ")
	}
	return found
}

// The page names each metric with its labels, and none that is not there.
func TestMetricsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(gatehouse_\\w+)` \\| (counter|gauge|histogram) \\| (.*?) ?\\| ").FindAllStringSubmatch(string(page), -1) {
		labels := regexp.MustCompile(`\w+`).FindAllString(row[3], -1)
		slices.Sort(labels)
		documented[row[1]] = strings.Join(labels, " ")
	}
	exist := described(t)
	for name, labels := range exist {
		if got, ok := documented[name]; !ok {
			t.Errorf("docs/metrics.md has no row for %s", name)
		} else if got != labels {
			t.Errorf("docs/metrics.md gives %s the labels %q; it has %q", name, got, labels)
		}
	}
	for name := range documented {
		if _, ok := exist[name]; !ok {
			t.Errorf("docs/metrics.md tells of %s, which does not exist", name)
		}
	}
}

// Names are as Prometheus wants them, of metrics without a value yet, too.
func TestMetricsAreNamedAsIsUsual(t *testing.T) {
	m := newMetrics(issuer.NewCache(1), "v1")
	m.requests.WithLabelValues("r", "200", "").Inc()
	m.request(&builtRoute{name: "r"}, 1000, "", 0)
	m.wouldRefuse.WithLabelValues("r", "x").Inc()
	m.fetches.WithLabelValues("i", "jwks", "success").Inc()
	m.fallbacks.WithLabelValues("limits", "deny").Inc()
	m.logouts.WithLabelValues("i", "invalid").Inc()
	m.certificates.WithLabelValues("f", "success").Inc()
	m.http2Errors.WithLabelValues("x").Inc()
	m.connectionTimeouts.WithLabelValues("idle").Inc()
	m.upstreams.WithLabelValues("u").Observe(1)
	m.reload(nil)
	m.spans.WithLabelValues("failed").Inc()
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var own []*dto.MetricFamily
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "gatehouse_") {
			own = append(own, f)
		}
	}
	problems, err := promlint.NewWithMetricFamilies(own).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
