package gateway

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"gatehouse/gateway/token"
)

// Bounds of what is kept for operators: some 5 MB at the most.
const (
	keptRefusals = 256
	keptBytes    = 16 << 10 // of one explanation
)

// RefusedRequest is a request that was refused, as operators see it. It never
// holds a token, a query or a header's value but what a policy looked at.
type RefusedRequest struct {
	RequestID string       `json:"request_id"`
	Time      time.Time    `json:"time"`
	Route     string       `json:"route,omitempty"`
	Method    string       `json:"method"`
	Host      string       `json:"host"`
	Path      string       `json:"path"`
	Client    string       `json:"client"`
	Status    int          `json:"status"`
	Reason    token.Reason `json:"reason"`
	Detail    string       `json:"detail"`
	Issuer    string       `json:"issuer,omitempty"`
	Subject   string       `json:"sub,omitempty"`
	Actor     string       `json:"actor,omitempty"`

	Explanation *Explanation `json:"explanation,omitempty"` // nil in a list
}

// refusals are the last requests that were refused, kept while server.admin is
// there to show them.
//
// Their explanations are recorded while they are served. One that were made
// afterwards could only guess what the keys, Redis and the buckets said a moment
// ago, and would ask and charge them again, for each request of an attack. What
// the rungs tell is made into words only once a request is refused, so that one
// which is forwarded pays a closure for each rung.
type refusals struct {
	mu   sync.Mutex
	ring [keptRefusals]*RefusedRequest
	next int
}

// explainers are reused.
var explainers = sync.Pool{New: func() any { return new(explainer) }}

// listen makes the rungs of x tell what they find, if anybody could ask.
func (x *exchange) listen() {
	if x.snapshot.admin != nil {
		x.explain = explainers.Get().(*explainer)
		x.explain.began(x)
	}
}

// keep keeps x if it was refused.
func (f *refusals) keep(x *exchange) {
	if x.explain == nil {
		return
	}
	defer func() {
		clear(x.explain.told) // they hold the request
		x.explain.told = x.explain.told[:0]
		explainers.Put(x.explain)
		x.explain = nil
	}()
	if x.refused == nil || x.refused.reason == clientGone {
		return
	}
	e := x.explain.explanation(x)
	e.cut()
	// Cloned: what was read from a request would hold on to all of its bytes.
	kept := func(s string) string { return Redact(strings.Clone(bounded(s))) }
	r := &RefusedRequest{
		RequestID: kept(x.requestID), Time: x.start.UTC(), Route: e.Route, Method: kept(x.r.Method), Host: kept(x.r.Host), Path: kept(x.r.URL.EscapedPath()),
		Client: x.client.String(), Status: e.Status, Reason: e.Reason, Detail: e.Detail, Explanation: e,
	}
	if x.signed != nil {
		r.Issuer, r.Subject = x.signed.Issuer, kept(x.signed.Claims.Get("sub").Text())
	}
	if x.acting {
		r.Actor = kept(x.actor.String())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ring[f.next] = r
	f.next = (f.next + 1) % keptRefusals
}

// cut bounds an explanation that a caller can make long: by claims, or by a
// policy of many rules. The last step, which says why, stays.
func (e *Explanation) cut() {
	left := keptBytes
	e.Detail = strings.Clone(e.Detail[:min(len(e.Detail), maxDetail)])
	for i, s := range e.Steps {
		e.Steps[i].Found = s.Found[:min(len(s.Found), maxDetail)]
		if left -= len(s.Rung) + len(e.Steps[i].Found) + 32; left < 0 && i < len(e.Steps)-1 {
			last := e.Steps[len(e.Steps)-1]
			last.Found = last.Found[:min(len(last.Found), maxDetail)]
			e.Steps = append(slices.Clip(e.Steps[:i]), Step{"…", "and more that is not kept", Noted}, last)
			return
		}
	}
}

// maxDetail bounds one text of an explanation that is kept.
const maxDetail = 1 << 10

// all returns what is kept, the latest first.
func (f *refusals) all() []*RefusedRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := []*RefusedRequest{}
	for i := range f.ring {
		if r := f.ring[(f.next-1-i+2*keptRefusals)%keptRefusals]; r != nil {
			list = append(list, r)
		}
	}
	return list
}

// listRefusals answers GET /refusals: the last refusals, without explanations.
func (g *Gateway) listRefusals(w http.ResponseWriter, _ *http.Request, _ *snapshot, _ caller) {
	writeJSON(w, http.StatusOK, map[string]any{"refusals": g.refusals.latest(keptRefusals)})
}

// latest returns the last n, without explanations.
func (f *refusals) latest(n int) []RefusedRequest {
	list := f.all()
	short := make([]RefusedRequest, min(n, len(list)))
	for i := range short {
		short[i] = *list[i]
		short[i].Explanation = nil
	}
	return short
}

// showRefusal answers GET /refusals/{request_id}: one, with its explanation.
func (g *Gateway) showRefusal(w http.ResponseWriter, r *http.Request, _ *snapshot, _ caller) {
	id := r.PathValue("request_id")
	for _, kept := range g.refusals.all() {
		if kept.RequestID == id {
			writeJSON(w, http.StatusOK, kept)
			return
		}
	}
	writeProblem(w, problem{Type: "about:blank", Title: http.StatusText(http.StatusNotFound), Status: http.StatusNotFound, Detail: "Among the last refusals is none of that request id."})
}

// explainRequest answers POST /explain, whose body is a [Request], with what
// this gateway would make of it now: its keys, its buckets, its revocations.
func (g *Gateway) explainRequest(w http.ResponseWriter, r *http.Request, s *snapshot, _ caller) {
	bad := func(detail string) {
		writeProblem(w, problem{Type: "about:blank", Title: http.StatusText(http.StatusBadRequest), Status: http.StatusBadRequest, Detail: detail, Reason: token.BadRequest})
	}
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	var q Request
	if err := dec.Decode(&q); err != nil {
		bad("The body is no JSON object with method, url, headers, client, token or claims, issuer and time.")
		return
	}
	if _, err := dec.Token(); err != io.EOF {
		bad("There is something after the JSON object.")
		return
	}
	e, err := g.explain(r.Context(), s, q, func() error { return nil })
	if err != nil {
		bad(Redact(err.Error()))
		return
	}
	writeJSON(w, http.StatusOK, e)
}
