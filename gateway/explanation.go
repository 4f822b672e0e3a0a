package gateway

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"gatehouse/gateway/internal/issuer"
	"gatehouse/gateway/internal/limit"
	"gatehouse/gateway/internal/upstream"
	"gatehouse/gateway/policy"
	"gatehouse/gateway/token"
)

// Explanation is the way of one request up the ladder, and what its caller
// would be told. It never holds a token.
type Explanation struct {
	Steps    []Step       `json:"steps"`
	Route    string       `json:"route,omitempty"`    // empty: none matched
	Rule     string       `json:"rule,omitempty"`     // of the route's policy, that allowed
	Status   int          `json:"status"`             // 0: it would be forwarded, and the backend answers
	Reason   token.Reason `json:"reason,omitempty"`   // empty: it would not be refused
	Detail   string       `json:"detail,omitempty"`   // for operators; callers never see it
	Response http.Header  `json:"response,omitempty"` // the headers of the gateway's own answer
	Forward  *Forwarded   `json:"forward,omitempty"`  // nil: it would not be forwarded
	// WouldRefuse is why enforce mode would refuse what report mode lets pass; "": it would not.
	WouldRefuse token.Reason `json:"would_refuse,omitempty"`
}

// Forwarded is what an upstream would receive.
type Forwarded struct {
	Upstream string   `json:"upstream"`
	Targets  []string `json:"targets"` // of which one is asked
	Path     string   `json:"path"`    // escaped, with the query but without a token; a target's own path goes before it
	Headers  []Header `json:"headers"` // that tell it who is calling
	Token    bool     `json:"token"`   // it receives the token, too
}

// Header is one header.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Forwarded says whether the request would reach its upstream.
func (e *Explanation) Forwarded() bool { return e.Forward != nil && e.Status == 0 }

// Refused says whether the request would be refused. One that is neither refused
// nor forwarded is a preflight, which the gateway answers.
func (e *Explanation) Refused() bool { return e.Reason != "" }

// Step is what one rung found.
type Step struct {
	Rung  string `json:"rung"`
	Found string `json:"found"`
	// Mark is Passed or Refused for what decides, Noted for what only tells.
	Mark Mark `json:"mark"`
}

// Mark is what a step means.
type Mark string

// The marks.
const (
	Passed  Mark = "passed"
	Refused Mark = "refused"
	Noted   Mark = "noted"
)

// explainer is the one recorder of the ladder: every rung tells it what it
// found. A nil explainer, as all requests have that nobody asks about, does
// nothing and costs nothing. What is told is made into words only at the end,
// so that a request which passes pays little for an explanation that nobody
// reads.
type explainer struct{ told []func(e *Explanation) }

func (t *explainer) tell(f func(e *Explanation)) { t.told = append(t.told, f) }

func (e *Explanation) pass(rung, format string, args ...any) {
	e.Steps = append(e.Steps, Step{rung, fmt.Sprintf(format, args...), Passed})
}

func (e *Explanation) note(rung, format string, args ...any) {
	e.Steps = append(e.Steps, Step{rung, fmt.Sprintf(format, args...), Noted})
}

// explanation puts into words what x met; x has been served or refused.
func (t *explainer) explanation(x *exchange) *Explanation {
	e := &Explanation{Rule: x.policy.Rule}
	if x.route != nil {
		e.Route = x.route.name
	}
	for _, f := range t.told {
		f(e)
	}
	if x.would != nil {
		e.WouldRefuse = x.would.reason
	}
	if f := x.refused; f != nil {
		e.Reason, e.Detail, e.Forward = f.reason, f.detail, nil
		e.Steps = append(e.Steps, Step{string(f.reason), f.detail, Refused})
	}
	if x.refused != nil || x.asksFirst {
		e.Status, e.Response = x.w.status, http.Header{}
		for _, name := range toldHeaders {
			if lines := x.w.Header()[http.CanonicalHeaderKey(name)]; lines != nil {
				e.Response[name] = lines
			}
		}
	}
	e.redact(x)
	return e
}

// toldHeaders are those of the gateway's own answers that say something about the request.
var toldHeaders = []string{
	"Allow", "Retry-After", "RateLimit", "RateLimit-Policy", "WWW-Authenticate",
	"Access-Control-Allow-Origin", "Access-Control-Allow-Methods", "Access-Control-Allow-Headers", "Access-Control-Allow-Credentials", "Access-Control-Max-Age",
}

// redact takes out every token that came with the request.
func (e *Explanation) redact(x *exchange) {
	raw := ""
	if x.found != nil && (x.dry == nil || x.dry.Claims == nil) {
		raw = x.found.raw.Reveal()
	}
	clean := func(s *string) {
		*s = Redact(without(*s, raw))
	}
	for i := range e.Steps {
		clean(&e.Steps[i].Found)
	}
	clean(&e.Detail)
	if e.Forward != nil {
		clean(&e.Forward.Path)
		for i, h := range e.Forward.Headers { // an opaque token may be its own jti
			e.Forward.Headers[i].Value = without(h.Value, raw)
		}
	}
}

func (t *explainer) began(x *exchange) {
	if t == nil {
		return
	}
	host := x.r.Host
	t.tell(func(e *Explanation) {
		client := "a client that is not known"
		if x.client.IsValid() {
			client = x.client.String()
		}
		if x.trusted {
			client += " (told by a trusted proxy)"
		}
		e.note("request", "%s %s of the host %s, from %s", bounded(x.r.Method), bounded(x.r.URL.EscapedPath()), bounded(host), client)
	})
}

// maxLooked bounds the routes that the explanation of a refusal looks at.
const maxLooked = 1000

func (t *explainer) matched(x *exchange) {
	if t == nil {
		return
	}
	t.tell(func(e *Explanation) {
		look, chosen := maxLooked, -1
		if x.dry != nil {
			look = 0
		}
		if x.route != nil {
			chosen = slices.Index(x.snapshot.routes, x.route)
			e.pass("route", "%s (%s)", x.route.name, x.snapshot.config.Routes[chosen].Match.Pattern())
		}
		r := x.r
		if x.asksFirst {
			r = forMethod(r)
			e.pass("preflight", "the route answers for a %s to come; no token is asked for", bounded(r.Method))
		}
		for _, near := range x.snapshot.table.Near(r, chosen, look) {
			e.note("near", "%s (%s) %s", x.snapshot.routes[near.Index].name, x.snapshot.config.Routes[near.Index].Match.Pattern(), near.Why)
		}
		if x.route != nil && x.route.public && !x.asksFirst {
			e.pass("public", "tokens are neither read nor removed")
		}
	})
}

// took tells of limits that were charged.
func (t *explainer) took(d limit.Decision, err error) {
	if t == nil || err != nil || d.Limit == "" {
		return
	}
	t.tell(func(e *Explanation) {
		e.pass("limits", "all admit; the tightest, %s, has %d left", d.Limit, d.Remaining)
	})
}

// peeked tells of limits that were only looked at.
func (t *explainer) peeked(states []limit.State) {
	t.tell(func(e *Explanation) {
		for _, s := range states {
			text := fmt.Sprintf("%s: %d in %s; this request would cost %d", s.Limit, s.Quota, s.Window, s.Cost)
			switch {
			case s.Wait > 0 && s.Report:
				e.note("limit", "%s and be over it, and pass, since the limit only reports", text)
				continue
			case s.Wait > 0:
				e.note("limit", "%s and be over it for %s", text, s.Wait)
				continue
			}
			text += fmt.Sprintf(" and leave %d", s.Remaining)
			if s.Down != nil {
				text += "; Redis cannot be asked: " + s.Down.Error()
			}
			e.pass("limit", "%s (looked at, not charged)", text)
		}
	})
}

func (t *explainer) found(x *exchange) {
	if t == nil {
		return
	}
	t.tell(func(e *Explanation) {
		switch {
		case x.found == nil && x.route.optional:
			e.pass("token", "none in %s, and the route takes requests without", x.route.sourceNames())
		case x.found == nil: // the refusal says so, or what report mode notes
		case x.dry != nil && x.dry.Claims != nil:
			e.pass("token", "claims alone, taken for those of a token in %s", x.found.source)
		default:
			e.pass("token", "in %s, %d bytes", x.found.source, x.found.raw.Len())
		}
	})
}

// record returns what is told of each check of the token; nil: nobody asked.
func (t *explainer) record() issuer.Record {
	if t == nil {
		return nil
	}
	return func(check, found string) { t.tell(func(e *Explanation) { e.pass(check, "%s", found) }) }
}

func (t *explainer) actor(x *exchange) {
	if t == nil || !x.acting {
		return
	}
	t.tell(func(e *Explanation) { e.note("actor", "%s acts for the subject", x.actor) })
}

func (t *explainer) bound(x *exchange) {
	if t == nil || x.verified.Certificate == "" {
		return
	}
	t.tell(func(e *Explanation) { e.pass("binding", "to the client certificate that the request came with") })
}

func (t *explainer) revoked(x *exchange) {
	if t == nil {
		return
	}
	t.tell(func(e *Explanation) {
		switch c := x.snapshot.config.Revocation; {
		case !c.Enabled():
		case x.dry != nil && x.dry.Claims != nil:
			e.note("revocation", "not asked about: claims alone were never issued")
		default:
			e.pass("revocation", "not revoked (%s mode; of %s)", c.Mode, strings.Join(c.Check, ", "))
		}
	})
}

// tolerated tells of what report mode lets pass.
func (t *explainer) tolerated(f *refusal) {
	if t == nil {
		return
	}
	t.tell(func(e *Explanation) {
		e.note(string(f.reason), "%s; it passes, since the mode is report", f.detail)
	})
}

func (t *explainer) carried(x *exchange, privileges []string, err error) {
	if t == nil {
		return
	}
	t.tell(func(e *Explanation) {
		tell := e.pass
		if err != nil {
			tell = e.note
		}
		tell("privileges", "needs %s; the token has %s", needs(x.route.require), listed(privileges))
		v := x.verified
		if withheld := x.snapshot.grants[v.Issuer].withheld(v.Privileges); len(withheld) > 0 {
			e.note("privileges", "do not count: %s", bounded(strings.Join(withheld, "; ")))
		}
	})
}

func needs(q policy.Requirement) string {
	var parts []string
	if len(q.All) > 0 {
		parts = append(parts, listed(q.All))
	}
	if len(q.Any) > 0 {
		parts = append(parts, "one of "+listed(q.Any))
	}
	if parts == nil {
		return "none"
	}
	return strings.Join(parts, " and ")
}

func listed(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return bounded(strings.Join(names, ", "))
}

func (t *explainer) delegated(x *exchange) {
	if t == nil || !x.acting {
		return
	}
	t.tell(func(e *Explanation) { e.pass("delegation", "the route lets %s act", x.actor) })
}

func (t *explainer) steppedUp(x *exchange) {
	if t == nil {
		return
	}
	t.tell(func(e *Explanation) {
		s := x.route.stepUp
		var asked []string
		if len(s.ACR) > 0 {
			asked = append(asked, "acr of "+listed(s.ACR))
		}
		if q := s.AMR; len(q.All)+len(q.Any) > 0 {
			asked = append(asked, "amr with "+needs(q))
		}
		if s.MaxAuthAge > 0 {
			asked = append(asked, "auth_time at most "+s.MaxAuthAge.String()+" ago")
		}
		if asked != nil {
			e.pass("step-up", "the route asks for %s", strings.Join(asked, ", "))
		}
	})
}

// decided tells of a policy. It decides once more, with a recorder: a decision
// depends on nothing but its input.
func (t *explainer) decided(x *exchange, p *policy.Compiled, in policy.Input) {
	if t == nil {
		return
	}
	own := in // in itself must not escape where nobody asks
	t.tell(func(e *Explanation) {
		p.Decide(own, func(s policy.Step) { e.note("policy", "%s", stepText(s)) })
		if x.policy.Allowed {
			e.pass("policy", "%s allows it by the rule %s", p.Name(), x.policy.Rule)
		}
	})
}

func (t *explainer) collided(names []string) {
	if t == nil {
		return
	}
	t.tell(func(e *Explanation) {
		e.note("headers", "claims fold to one name; of them at most a registered one is sent: %s", bounded(strings.Join(names, ", ")))
	})
}

// forwards tells what the upstream would receive.
func (t *explainer) forwards(x *exchange, c upstream.Call) {
	if t == nil {
		return
	}
	call := c // c itself must not escape where nobody asks
	t.tell(func(e *Explanation) {
		out := x.r.Clone(x.r.Context())
		if x.found != nil {
			x.found.source.Remove(out)
		}
		f := &Forwarded{
			Upstream: x.to.upstream.Name(), Targets: x.to.upstream.Targets(), Path: call.Path,
			Headers: make([]Header, len(call.Headers)), Token: x.found != nil && (x.route.forwardToken || x.would != nil),
		}
		// Who asks knows the query. A refusal that is kept is shown to others, and a
		// query may hold what is secret: a code, a signature, the key of a link.
		if x.dry != nil && (out.URL.RawQuery != "" || out.URL.ForceQuery) {
			f.Path += "?" + out.URL.RawQuery
		}
		for i, h := range call.Headers {
			f.Headers[i] = Header(h)
		}
		kept := out.Header.Clone()
		call.Strip.Request(kept, call.Trusted)
		var dropped []string
		for name := range out.Header {
			if _, stays := kept[name]; !stays {
				dropped = append(dropped, name)
			}
		}
		if slices.Sort(dropped); dropped != nil {
			e.note("headers", "dropped from the caller's: %s", bounded(strings.Join(dropped, ", ")))
		}
		if x.verified != nil {
			e.pass("headers", "%d that tell who is calling", len(f.Headers))
		}
		switch {
		case call.TargetHost:
			e.note("rewrite", "Host is the target's own")
		case call.Host != "":
			e.note("rewrite", "Host is %s", call.Host)
		}
		if why := x.why(); why != "" {
			e.note("upstream", "%s %s", f.Upstream, why)
		}
		e.pass("forward", "to the upstream %s, %s of %s", f.Upstream, f.Path, cmp.Or(strings.Join(f.Targets, ", "), "targets that are not known here"))
		e.Forward = f
	})
}
