//go:build !nodemo

package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// step is one request of the story and the answer that it must get.
type step struct {
	title       string
	method, url string
	as          string // who asks, for the reader
	token       string // "" sends none
	header      http.Header
	body        string
	times       int    // asks again until the answer has the wanted status, at most so often; 0 means once
	status      int    // the expected answer
	reason      string // its reason, if it is a refusal
	// check returns the answer's interesting lines, and what is wrong with it.
	// It runs only if the status is the expected one. nil: nothing to check.
	check func(answer) ([]string, error)
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

// teller plays steps over HTTP, prints them and remembers what went wrong.
type teller struct {
	screen
	client *http.Client
	played int
	wrong  []string
}

// play sends a step's request and reports whether the answer was the expected
// one. After the end of ctx it does nothing.
func (t *teller) play(ctx context.Context, s step) bool {
	if ctx.Err() != nil {
		return false
	}
	t.played++
	t.printf("\n%s", t.bold(fmt.Sprintf("%2d  %s", t.played, s.title)))
	t.printf("    -> %s %s   %s", s.method, path(s.url), t.faint(s.as))
	for _, name := range slices.Sorted(maps.Keys(s.header)) {
		t.printf("       %s: %s", name, strings.Join(s.header[name], ", "))
	}
	if s.body != "" {
		t.printf("       %s", s.body)
	}
	a, before, err := t.ask(ctx, s)
	if err == nil && a.status != s.status {
		err = fmt.Errorf("the status is %d", a.status)
	}
	var lines []string
	if err == nil && s.reason != "" {
		lines, err = refusal(a, s.reason)
	}
	if err == nil && s.check != nil {
		var more []string
		more, err = s.check(a)
		lines = append(lines, more...)
	}
	if before > 0 {
		t.printf("    <- 200, %d times", before)
	}
	if a.status != 0 {
		mark := t.green("✓")
		if err != nil {
			mark = t.red("✗")
		}
		t.printf("    <- %s %s", t.bold(fmt.Sprintf("%d %s", a.status, http.StatusText(a.status))), mark)
	}
	for _, line := range lines {
		t.printf("       %s", line)
	}
	if err == nil {
		return true
	}
	if ctx.Err() == nil { // else the gateway is going down, and no answer means anything
		expected := strings.TrimSpace(fmt.Sprintf("%d %s", s.status, s.reason))
		t.printf("    %s", t.red(fmt.Sprintf("✗ expected %s, but %v", expected, err)))
		t.wrong = append(t.wrong, fmt.Sprintf("%d, %s: expected %s, but %v", t.played, s.title, expected, err))
	}
	return false
}

// ask sends the request, more than once if the step says so, and returns the
// last answer and how many went before it with 200.
func (t *teller) ask(ctx context.Context, s step) (a answer, before int, err error) {
	for {
		if a, err = t.send(ctx, s); err != nil || a.status == s.status || a.status != http.StatusOK || before+1 >= s.times {
			return a, before, err
		}
		before++
	}
}

func (t *teller) send(ctx context.Context, s step) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, s.method, s.url, strings.NewReader(s.body))
	if err != nil {
		return answer{}, err
	}
	for name, values := range s.header {
		req.Header[name] = values // as it is spelled: that is the point of some
	}
	if s.token != "" {
		req.Header.Set("Authorization", "Bearer "+s.token)
	}
	resp, err := t.client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the request is on the screen already
		}
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return answer{resp.StatusCode, resp.Header, body}, err
}

// err says which answers were not the expected ones.
func (t *teller) err() error {
	if len(t.wrong) == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d answers were not the expected ones:\n  %s", len(t.wrong), t.played, strings.Join(t.wrong, "\n  "))
}

// refusal checks that an answer is a problem document (RFC 9457) with that reason.
func refusal(a answer, reason string) ([]string, error) {
	var problem struct {
		Reason string `json:"reason"`
	}
	if err := json.Unmarshal(a.body, &problem); err != nil {
		return nil, fmt.Errorf("the body is no problem document: %w", err)
	}
	lines := []string{"reason: " + problem.Reason}
	for _, challenge := range a.header.Values("WWW-Authenticate") {
		lines = append(lines, "WWW-Authenticate: "+challenge)
	}
	if problem.Reason != reason {
		return lines, fmt.Errorf("the reason is %q", problem.Reason)
	}
	return lines, nil
}

func path(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return raw
	}
	return u.RequestURI()
}
