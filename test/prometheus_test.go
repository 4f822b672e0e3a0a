package test

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

const (
	dashboardFile = "../docs/grafana/gatehouse.json"
	alertsFile    = "../docs/prometheus/alerts.yaml"
)

// dashboard are the expressions of its panels, by their titles.
func dashboard(t *testing.T) map[string]string {
	t.Helper()
	var file struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
		Annotations struct{ List []struct{ Name, Expr string } }
	}
	text, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	note := func(title, expr string) {
		found[title] = fill(expr, "$job", "gatehouse", "$instance", ".*", "$__rate_interval", "1m")
	}
	for _, p := range file.Panels {
		for n, target := range p.Targets {
			note(p.Title+strings.Repeat("'", n), target.Expr)
		}
	}
	for _, a := range file.Annotations.List {
		note(a.Name, a.Expr)
	}
	return found
}

// alertNames are those of the rules.
func alertNames(t *testing.T) (names []string) {
	t.Helper()
	text, err := os.ReadFile(alertsFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(string(text), -1) {
		names = append(names, found[1])
	}
	return names
}

// What the dashboard and the alert rules ask for exists, and a real Prometheus
// that scrapes a gateway can answer it.
func TestPrometheus(t *testing.T) {
	p := newIDP(t)
	p.says(t, claims{"active": false})
	g := observed(t, newBackend(t).URL, p)
	m := newPrometheus(t, g)
	panels := dashboard(t)
	if len(panels) < 20 {
		t.Fatalf("only %d expressions in the dashboard", len(panels))
	}

	// No decision without Redis, and nothing is wrong: these must have no data.
	quiet := map[string]bool{"New configurations": true}
	unheard := func() (left []string) {
		for title, expr := range panels {
			n, err := m.ask(expr)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 && !quiet[title] {
				left = append(left, title)
			}
		}
		return left
	}
	var left []string
	eventually(t, "each panel of the dashboard has data", func() bool {
		g.do(t, "GET /guarded/1", bearer(p.token(t))).is(t, http.StatusOK)
		g.do(t, "GET /guarded/1").is(t, http.StatusUnauthorized)
		g.do(t, "GET /nobody").is(t, http.StatusBadGateway)
		left = unheard()
		return len(left) == 0
	})
	documented, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	rules := m.rules(t)
	if names := alertNames(t); len(rules) != len(names) || len(names) < 10 {
		t.Errorf("Prometheus has %d rules; the file holds %d", len(rules), len(names))
	}
	for _, expressions := range []map[string]string{panels, rules} {
		for title, expr := range expressions {
			for _, name := range regexp.MustCompile(`gatehouse_\w+`).FindAllString(expr, -1) {
				name = strings.TrimSuffix(name, "_bucket")
				if !strings.Contains(string(documented), "\n| `"+name+"` |") {
					t.Errorf("%s asks for %s, which does not exist", title, name)
				}
			}
		}
	}
	if n, err := m.ask(`up{job="gatehouse"} == 1`); err != nil || n != 1 {
		t.Errorf("Prometheus cannot scrape the gateway: %v", err)
	}
}

// The rules are well formed, and each fires where it should, and only there.
func TestAlertRules(t *testing.T) {
	for _, args := range [][]string{
		{"check", "rules", alertsFile},
		{"test", "rules", strings.Replace(alertsFile, ".yaml", "_test.yaml", 1)},
	} {
		if out, err := exec.Command("promtool", args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v (make test installs what the tests need)\n%s", strings.Join(args, " "), err, out)
		}
	}
	tests, err := os.ReadFile(strings.Replace(alertsFile, ".yaml", "_test.yaml", 1))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range alertNames(t) {
		if !strings.Contains(string(tests), "alertname: "+name+"\n") {
			t.Errorf("no test lets %s fire", name)
		}
	}
}
