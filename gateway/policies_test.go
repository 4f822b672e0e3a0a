package gateway

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gatehouse/gateway/config"
)

// policyConfig is a configuration whose one route, GET /heroes/{id}, names the
// policy of that text.
func policyConfig(t *testing.T, text string) *config.Config {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "policies"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "policies", "p.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, _, err := config.Parse(filepath.Join(dir, "routes.yaml"), []byte(`
issuers:
  main:
    issuer: https://id.example.com
    audiences: any
routes:
  - match: GET /heroes/{id}
    policy: p
    upstream: http://127.0.0.1:9000
`), config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func passes(t *testing.T, cfg *config.Config) {
	t.Helper()
	results, err := Check(cfg)
	if err != nil || len(results) == 0 {
		t.Fatalf("%d tests, %v", len(results), err)
	}
	for _, r := range results {
		if r.Problem != "" {
			t.Errorf("%s/%s: %s\n%s", r.Suite, r.Name, r.Problem, strings.Join(r.Steps, "\n"))
		}
	}
}

func TestShippedPoliciesPassTheirTests(t *testing.T) {
	files, err := filepath.Glob("../policies/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no policies: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(filepath.Base(file), func(t *testing.T) { passes(t, policyConfig(t, string(text))) })
	}
}

func TestReferencePolicyPassesItsTests(t *testing.T) {
	doc, err := os.ReadFile("../docs/policies.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```yaml\n(# policies/.*?)```").FindSubmatch(doc)
	if block == nil {
		t.Fatal("docs/policies.md shows no policy")
	}
	passes(t, policyConfig(t, string(block[1])))
}

// What is wrong in a policy is told with the place in its own file, after what
// is wrong in routes.yaml.
func TestPolicyFaultsHaveTheirPlace(t *testing.T) {
	cfg := policyConfig(t, `headers: [Cookie]
allow:
  - name: own
    claims:
      hero: {param: name}
      email: {matches: '('}
  - when: claims.nothing
  - ip: 10.0.0.1/8
tests:
  - expect: allow
    rule: onw
    claims: {exp: 1}
`)
	_, err := Check(cfg)
	var faults config.Faults
	if !errors.As(err, &faults) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{
		"policies/p.yaml:1:11: ", "policies/p.yaml:6:24: ", "policies/p.yaml:7:11: ", "policies/p.yaml:8:9: ", "policies/p.yaml:11:11: ", "policies/p.yaml:9:1: ",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no fault at %s:\n%v", want, err)
		}
	}
	if _, err := Check(cfg); err == nil {
		t.Error("check passes a policy that does not compile")
	}
}

func TestRouteMustHaveItsPolicysParameters(t *testing.T) {
	_, err := Check(policyConfig(t, `
allow:
  - claims:
      hero: {param: name}
tests:
  - expect: deny
`))
	if err == nil || !strings.Contains(err.Error(), "routes.yaml:8:13: ") || !strings.Contains(err.Error(), "path parameter name") || !strings.Contains(err.Error(), "it has id") {
		t.Errorf("got %v", err)
	}
}

func TestFailingPolicyTestTellsWhatItSaw(t *testing.T) {
	results, err := Check(policyConfig(t, `
allow:
  - name: own
    claims:
      hero: {param: id}
tests:
  - name: wrong
    claims: {hero: 7}
    params: {id: "7"}
    expect: deny
`))
	if err != nil || len(results) != 1 {
		t.Fatalf("%v, %v", results, err)
	}
	r := results[0]
	if !strings.Contains(r.Problem, "rule own allows it") || !strings.Contains(strings.Join(r.Steps, "\n"), `saw 7, id is "7"`) || r.Line != 7 {
		t.Errorf("got %+v", r)
	}
}

// JUnit's schemas have times as xs:decimal, which knows no exponent.
func TestJUnitTimesAreDecimal(t *testing.T) {
	var out strings.Builder
	r := CheckReport{File: "routes.yaml", Tests: []TestResult{{Suite: "p", Name: "quick", Took: 1500}, {Suite: "p", Name: "slow", Took: 3 << 40}}, Took: 2}
	if err := r.JUnit(&out); err != nil {
		t.Fatal(err)
	}
	times := regexp.MustCompile(`time="([^"]*)"`).FindAllStringSubmatch(out.String(), -1)
	if len(times) != 6 {
		t.Errorf("%d times in %s", len(times), &out)
	}
	for _, time := range times {
		if !regexp.MustCompile(`^\d+\.\d+$`).MatchString(time[1]) {
			t.Errorf("%s is no xs:decimal", time[0])
		}
	}
}
