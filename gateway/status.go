package gateway

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"gatehouse/gateway/internal/revoke"
)

// Status returns the handler of the status listener: /livez, /readyz and
// /metrics, nothing else. It tells of issuers and dependencies by the names of
// the configuration, and is meant for an address that only operators reach.
func (g *Gateway) Status() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, readiness{Status: "ok"}) })
	mux.HandleFunc("GET /readyz", g.readyz)
	mux.Handle("GET /metrics", g.metrics.handler())
	return mux
}

// readiness is the answer of /readyz. Status is "ok" or says what is wrong;
// the rest is detail.
type readiness struct {
	Status     string                     `json:"status"`
	Issuers    map[string]issuerReadiness `json:"issuers,omitempty"`
	Revocation *storeReadiness            `json:"revocation,omitempty"`

	Upstreams map[string]upstreamReadiness `json:"upstreams,omitempty"`
}

type issuerReadiness struct {
	Ready     bool       `json:"ready"`
	Keys      int        `json:"keys"`
	Fetched   *time.Time `json:"fetched,omitempty"`
	NextFetch *time.Time `json:"next_fetch,omitempty"`
	Error     string     `json:"error,omitempty"`
}

type storeReadiness struct {
	Ready   bool       `json:"ready"`
	Mode    string     `json:"mode"`              // lookup, or how a replica follows: tracking, poll
	Entries int        `json:"entries,omitempty"` // of a replica
	Good    *time.Time `json:"good,omitempty"`    // when a replica was last in step
	Warning string     `json:"warning,omitempty"`
	Error   string     `json:"error,omitempty"`
}

// revocationReadiness reports on revocations, and whether their posture for an
// outage refuses requests now.
func (s *snapshot) revocationReadiness(ctx context.Context) (detail storeReadiness, denies bool) {
	switch r := s.revocation.value.(type) {
	case *revoke.Replica:
		h := r.Health()
		detail = storeReadiness{Ready: h.InStep, Mode: string(h.Mode), Entries: h.Entries, Warning: h.Warning}
		if !h.LastGood.IsZero() {
			detail.Good = &h.LastGood
		}
		if h.Err != nil {
			detail.Error = Redact(h.Err.Error())
		}
		return detail, h.Denies
	case *revoke.Lookup:
		detail = storeReadiness{Ready: true, Mode: "lookup"}
		if err := r.Ping(ctx); err != nil {
			return storeReadiness{Mode: "lookup", Error: Redact(err.Error())}, !r.Tolerant()
		}
	}
	return detail, false
}

// readyz fails only where serving would be wrong.
func (g *Gateway) readyz(w http.ResponseWriter, r *http.Request) {
	s := g.acquire()
	defer s.release()
	answer, status := g.readiness(r.Context(), s), http.StatusOK
	if answer.Status != "ok" {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, answer)
}

// readiness is not ok while draining, with no issuer that could verify
// anything, or with a store down that the posture does not tolerate.
func (g *Gateway) readiness(ctx context.Context, s *snapshot) readiness {
	answer := readiness{Status: "ok", Issuers: map[string]issuerReadiness{}, Upstreams: s.upstreamReadiness()}
	usable := len(s.issuers) == 0
	for name, p := range s.issuers {
		h := p.value.Health()
		detail := issuerReadiness{Ready: h.Ready, Keys: h.Keys}
		if !h.Fetched.IsZero() {
			detail.Fetched = &h.Fetched
		}
		if !h.Due.IsZero() {
			detail.NextFetch = &h.Due
		}
		if h.Err != nil {
			detail.Error = Redact(h.Err.Error())
		}
		answer.Issuers[name] = detail
		usable = usable || h.Ready
	}
	if !usable {
		answer.Status = "no issuer has keys"
	}
	if s.revocation != nil {
		detail, denies := s.revocationReadiness(ctx)
		answer.Revocation = &detail
		if denies {
			answer.Status = "revocations cannot be checked"
		}
	}
	if g.draining.Load() {
		answer.Status = "draining"
	}
	return answer
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	writeAs(w, "application/json", status, v)
}

func writeProblem(w http.ResponseWriter, p problem) {
	writeAs(w, "application/problem+json", p.Status, p)
}

func writeAs(w http.ResponseWriter, contentType string, status int, v any) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a client that has gone needs no answer
}
