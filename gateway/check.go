package gateway

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"gatehouse/gateway/config"
)

// TestResult is what became of one test that the configuration has for itself.
type TestResult struct {
	Suite, Name string        // whose test it is, the policy's, and which
	config.Pos                // of the test
	Problem     string        // what is not as expected; empty: passed
	Steps       []string      // of a test that failed: what was looked at, and what it saw
	Took        time.Duration // of this test alone
}

// Check builds cfg as [New] would, starts nothing, connects to nothing, and
// runs the tests that the configuration has: those of the policies that its
// routes name, and its own, by the ladder that serves. The error is what is wrong with it, a config.Faults; then no
// test was run.
func Check(cfg *config.Config) ([]TestResult, error) {
	b := &builder{cfg: cfg, log: slog.New(slog.DiscardHandler), transient: true, offline: true}
	s, err := b.build()
	if err != nil {
		return nil, err
	}
	defer s.close()
	return append(s.runPolicyTests(), b.runTests(s)...), nil
}

// CheckReport is what a check of a file found.
type CheckReport struct {
	File            string
	Faults          config.Faults // then there are no Tests
	Warnings        []config.Fault
	Tests           []TestResult // suite by suite
	Routes, Issuers int
	Took            time.Duration
}

// CheckFile loads the file at path and checks it. The error says that it could
// not be read at all.
func CheckFile(path string, o config.Options) (CheckReport, error) {
	start := time.Now()
	r := CheckReport{File: path}
	cfg, warnings, err := config.Load(path, o)
	if err == nil {
		r.Warnings, r.Routes, r.Issuers = warnings, len(cfg.Routes), len(cfg.Issuers)
		r.Tests, err = Check(cfg)
	}
	r.Took = time.Since(start)
	if errors.As(err, &r.Faults) {
		return r, nil
	}
	return r, err
}

// Err says in short what is wrong, or nil.
func (r CheckReport) Err() error {
	failed := 0
	for _, t := range r.Tests {
		if t.Problem != "" {
			failed++
		}
	}
	switch {
	case len(r.Faults) > 0:
		return fmt.Errorf("%s has %s", r.File, count(len(r.Faults), "fault"))
	case failed > 0:
		return fmt.Errorf("%s failed", count(failed, "test"))
	}
	return nil
}

// suites returns the tests suite by suite, and how many of each failed.
func (r CheckReport) suites() (suites [][]TestResult, failed []int) {
	for i, t := range r.Tests {
		if i == 0 || t.Suite != r.Tests[i-1].Suite {
			suites, failed = append(suites, nil), append(failed, 0)
		}
		last := len(suites) - 1
		suites[last] = append(suites[last], t)
		if t.Problem != "" {
			failed[last]++
		}
	}
	return suites, failed
}

// Text writes the report as go test would: faults and warnings, each a line
// with its place, to problems, and what became of the tests to results.
func (r CheckReport) Text(results, problems io.Writer) error {
	var out, bad strings.Builder
	for _, w := range r.Warnings {
		fmt.Fprintf(&bad, "%s: warning: %s\n", w.Pos, w.Message)
	}
	for _, f := range r.Faults {
		fmt.Fprintln(&bad, f.Error())
	}
	suites, failed := r.suites()
	for i, tests := range suites {
		var took time.Duration
		for _, t := range tests {
			took += t.Took
			if t.Problem == "" {
				continue
			}
			fmt.Fprintf(&out, "--- FAIL: %s/%s (%s)\n    %s: %s\n", t.Suite, t.Name, t.Took.Round(time.Microsecond), t.Pos, t.Problem)
			for _, step := range t.Steps {
				fmt.Fprintf(&out, "        %s\n", step)
			}
		}
		if failed[i] > 0 {
			fmt.Fprintf(&out, "FAIL\t%s\t%d of %s failed\n", tests[0].Suite, failed[i], count(len(tests), "test"))
		} else {
			fmt.Fprintf(&out, "ok\t%s\t%s\t%s\n", tests[0].Suite, count(len(tests), "test"), took.Round(time.Microsecond))
		}
	}
	if r.Err() != nil {
		fmt.Fprintf(&out, "FAIL\t%s\n", r.File)
	} else {
		fmt.Fprintf(&out, "ok\t%s\t%s, %s\t%s\n", r.File, count(r.Routes, "route"), count(r.Issuers, "issuer"), r.Took.Round(time.Microsecond))
	}
	_, err := io.WriteString(problems, bad.String())
	if err == nil {
		_, err = io.WriteString(results, out.String())
	}
	return err
}

type jsonPlace struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
}

type jsonFault struct {
	jsonPlace
	Message string `json:"message"`
}

type jsonTest struct {
	Suite string `json:"suite"`
	Name  string `json:"name"`
	jsonPlace
	Passed   bool     `json:"passed"`
	Problem  string   `json:"problem,omitempty"`
	Steps    []string `json:"steps,omitempty"`
	Duration float64  `json:"duration"` // seconds
}

// JSON writes the report as one line of JSON; durations are in seconds.
func (r CheckReport) JSON(w io.Writer) error {
	faults := func(list []config.Fault) []jsonFault {
		out := []jsonFault{}
		for _, f := range list {
			out = append(out, jsonFault{jsonPlace(f.Pos), f.Message})
		}
		return out
	}
	tests := []jsonTest{}
	for _, t := range r.Tests {
		tests = append(tests, jsonTest{t.Suite, t.Name, jsonPlace(t.Pos), t.Problem == "", t.Problem, t.Steps, t.Took.Seconds()})
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(struct {
		File     string      `json:"file"`
		Passed   bool        `json:"passed"`
		Faults   []jsonFault `json:"faults"`
		Warnings []jsonFault `json:"warnings"`
		Tests    []jsonTest  `json:"tests"`
		Duration float64     `json:"duration"`
	}{r.File, r.Err() == nil, faults(r.Faults), faults(r.Warnings), tests, r.Took.Seconds()})
}

// The elements of JUnit's XML as CI systems read them.
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Time     decimal      `xml:"time,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Time     decimal     `xml:"time,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Class   string        `xml:"classname,attr"`
		Name    string        `xml:"name,attr"`
		File    string        `xml:"file,attr"`
		Line    int           `xml:"line,attr,omitempty"`
		Time    decimal       `xml:"time,attr"`
		Failure *junitFailure `xml:"failure"`
	}
	junitFailure struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// decimal is a number of seconds as xs:decimal has it: without an exponent, which
// readers that go by the schema refuse.
type decimal float64

// MarshalText implements encoding.TextMarshaler.
func (d decimal) MarshalText() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(d), 'f', 6, 64), nil
}

// JUnit writes the report as JUnit's XML. The file itself is a suite with one
// case, which fails with its faults.
func (r CheckReport) JUnit(w io.Writer) error {
	whole := junitCase{Class: r.File, Name: "configuration", File: r.File, Time: decimal(r.Took.Seconds())}
	all := junitSuites{Tests: 1, Time: decimal(r.Took.Seconds())}
	if len(r.Faults) > 0 {
		whole.Failure, all.Failures = &junitFailure{r.Err().Error(), r.Faults.Error()}, 1
	}
	all.Suites = []junitSuite{{Name: r.File, Tests: 1, Failures: all.Failures, Time: all.Time, Cases: []junitCase{whole}}}
	suites, failed := r.suites()
	for i, tests := range suites {
		s := junitSuite{Name: tests[0].Suite, Tests: len(tests), Failures: failed[i]}
		for _, t := range tests {
			c := junitCase{Class: t.Suite, Name: t.Name, File: t.File, Line: t.Line, Time: decimal(t.Took.Seconds())}
			if t.Problem != "" {
				c.Failure = &junitFailure{t.Problem, strings.Join(append([]string{t.Pos.String() + ": " + t.Problem}, t.Steps...), "\n")}
			}
			s.Cases, s.Time = append(s.Cases, c), s.Time+c.Time
		}
		all.Suites, all.Tests, all.Failures = append(all.Suites, s), all.Tests+s.Tests, all.Failures+s.Failures
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
