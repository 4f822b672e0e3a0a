package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
)

// prometheus is a real one that scrapes a gateway each second, and has the
// project's alert rules.
type prometheus struct{ URL string }

func newPrometheus(t *testing.T, g *gateway) *prometheus {
	t.Helper()
	dir, address := t.TempDir(), freeAddress(t)
	rules, err := filepath.Abs(alertsFile)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "prometheus.yml"), fill(`
global:
  scrape_interval: 1s
  evaluation_interval: 1s
rule_files: [RULES]
scrape_configs:
  - job_name: gatehouse
    static_configs:
      - targets: [STATUS]
`, "STATUS", g.status, "RULES", rules))
	p := launch(t, "prometheus", "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	m := &prometheus{URL: "http://" + address}
	eventually(t, "Prometheus is ready", func() bool {
		if p.ended() {
			t.Fatalf("Prometheus ended with status %d", p.exit(t))
		}
		resp, err := http.Get(m.URL + "/-/ready")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return m
}

// ask returns how many series the expression yields now.
func (m *prometheus) ask(expr string) (series int, err error) {
	resp, err := http.Get(m.URL + "/api/v1/query?query=" + url.QueryEscape(expr))
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		Status, Error string
		Warnings      []string
		Data          struct{ Result []any }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return 0, err
	}
	if answer.Status != "success" || len(answer.Warnings) > 0 {
		return 0, fmt.Errorf("%s: %s %s", expr, answer.Error, strings.Join(answer.Warnings, " "))
	}
	return len(answer.Data.Result), nil
}

// rules returns the expressions of the alert rules by name, once each was
// evaluated, which must have gone well.
func (m *prometheus) rules(t *testing.T) map[string]string {
	t.Helper()
	expressions := map[string]string{}
	eventually(t, "each rule was evaluated", func() bool {
		resp, err := http.Get(m.URL + "/api/v1/rules")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		var answer struct {
			Data struct {
				Groups []struct {
					Rules []struct{ Name, Query, Health, LastError string }
				}
			}
		}
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
			t.Fatal(err)
		}
		for _, group := range answer.Data.Groups {
			for _, rule := range group.Rules {
				if rule.Health == "unknown" {
					return false
				}
				if rule.Health != "ok" {
					t.Errorf("%s is %s: %s", rule.Name, rule.Health, rule.LastError)
				}
				expressions[rule.Name] = rule.Query
			}
		}
		return len(expressions) > 0
	})
	return expressions
}
