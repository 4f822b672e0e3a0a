package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/agnivade/levenshtein"

	"gatehouse/gateway/config"
	"gatehouse/gateway/token"
)

// tests faults tests that could never pass.
func (b *builder) tests() {
	for i, t := range b.cfg.Tests {
		if _, err := requestOf(t).read(context.Background()); err != nil {
			b.fault(fmt.Sprintf("tests[%d].request", i), err)
		}
		reason := token.Reason(t.Expect.Reason)
		if reason == "" {
			continue
		}
		at := fmt.Sprintf("tests[%d].expect", i)
		if answer, known := answers[reason]; !known {
			b.fault(at, fmt.Errorf("there is no reason %q to refuse a request; did you mean %s?", reason, nearestReason(reason)))
		} else if answer.status != t.Expect.Status {
			b.fault(at, fmt.Errorf("%s has the status %d, not %d", reason, answer.status, t.Expect.Status))
		}
	}
}

func nearestReason(reason token.Reason) token.Reason {
	return slices.MinFunc(slices.Sorted(maps.Keys(answers)), func(a, b token.Reason) int {
		return levenshtein.ComputeDistance(string(a), string(reason)) - levenshtein.ComputeDistance(string(b), string(reason))
	})
}

func requestOf(t *config.Test) Request {
	q := Request{Method: t.Method, URL: t.URL, Client: t.IP, Issuer: t.Issuer, Time: t.Time}
	for _, name := range slices.Sorted(maps.Keys(t.Headers)) {
		q.Headers = append(q.Headers, name+": "+t.Headers[name])
	}
	if t.Claims != "" {
		q.Claims = []byte(t.Claims)
	}
	return q
}

// runTests runs the tests of routes.yaml by the ladder that serves. s was built
// offline, so that nobody is asked, and no test charges what another one meets.
func (b *builder) runTests(s *snapshot) []TestResult {
	g := &Gateway{now: time.Now, log: b.log}
	var out []TestResult
	for i, t := range b.cfg.Tests {
		start := time.Now()
		e, err := g.explain(context.Background(), s, requestOf(t), func() error {
			return errors.New("the request has a token, and to verify it somebody would have to be asked; a test takes claims")
		})
		pos := b.cfg.At(fmt.Sprintf("tests[%d]", i))
		r := TestResult{Suite: filepath.Base(pos.File), Name: t.Name, Pos: pos}
		if err != nil {
			r.Problem = err.Error()
		} else if r.Problem = difference(t.Expect, e); r.Problem != "" {
			for _, step := range e.Steps {
				r.Steps = append(r.Steps, step.Rung+": "+step.Found)
			}
		}
		r.Took = time.Since(start)
		out = append(out, r)
	}
	return out
}

// difference says in what an explanation is not as expected, or "".
func difference(want config.Expectation, e *Explanation) string {
	var wrong []string
	differs := func(what, got, expected string) {
		if expected != "" && got != expected {
			if got == "" {
				got = "none"
			}
			wrong = append(wrong, fmt.Sprintf("%s is %s, want %s", what, got, expected))
		}
	}
	differs("the route", e.Route, want.Route)
	status, reason := e.Status, e.Reason
	if e.WouldRefuse != "" { // what report mode lets pass for now
		status, reason = answers[e.WouldRefuse].status, e.WouldRefuse
	}
	forwarded := e.Forwarded() && e.WouldRefuse == ""
	switch {
	case want.Status == 0 && !forwarded:
		wrong = append(wrong, fmt.Sprintf("want it forwarded, but the gateway answers %d %s", status, reason))
	case want.Status != 0 && forwarded:
		wrong = append(wrong, strings.TrimSpace(fmt.Sprintf("want %d %s", want.Status, want.Reason))+", but it is forwarded")
	case want.Status != 0 && (status != want.Status || want.Reason != "" && string(reason) != want.Reason):
		wrong = append(wrong, strings.TrimSpace(fmt.Sprintf("want %d %s", want.Status, want.Reason))+fmt.Sprintf(", but the gateway answers %d %s", status, reason))
	case want.Status == 0:
		differs("the rule that allows", e.Rule, want.Rule)
		differs("the upstream", e.Forward.Upstream, want.Upstream)
		differs("the path", e.Forward.Path, want.Path)
		got := http.Header{}
		for _, h := range e.Forward.Headers {
			got.Set(h.Name, h.Value)
		}
		for _, name := range slices.Sorted(maps.Keys(want.Headers)) {
			differs("the header "+name, got.Get(name), want.Headers[name])
		}
	}
	return strings.Join(wrong, "; ")
}
