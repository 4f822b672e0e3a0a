package gateway

import (
	"bufio"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	oteltrace "go.opentelemetry.io/otel/trace"
	"golang.org/x/net/http/httpguts"

	"gatehouse/gateway/internal/inject"
	"gatehouse/gateway/internal/limit"
	"gatehouse/gateway/internal/route"
	"gatehouse/gateway/internal/upstream"
	"gatehouse/gateway/policy"
	"gatehouse/gateway/token"
)

// exchange is one request and what became of it.
type exchange struct {
	gateway  *Gateway
	snapshot *snapshot
	w        *recorder
	recorder recorder // what w points to: no allocation of its own
	r        *http.Request
	upload   *upload // nil unless it is the body of an HTTP/2 request
	start    time.Time
	rung     rung
	entered  time.Time // that rung

	client    netip.Addr // who is calling, seen through trusted proxies
	trusted   bool       // the peer is a trusted proxy
	requestID string
	trace     trace
	span      oteltrace.Span // the request's; nil: it is not recorded
	call      oteltrace.Span // of the request to the upstream; nil until then

	route      *builtRoute     // nil until one matched
	asksFirst  bool            // a CORS preflight, which the gateway answers
	path       string          // the canonical escaped path
	bounded    bool            // the body is read through a bound
	overrides  []string        // methods other than its own that the target may take it to have
	signed     *token.Verified // nil until its issuer vouched for the token
	verified   *token.Verified // the same, once its bearer may use it
	actor      policy.Actor    // who acts in the token's subject's name
	acting     bool            // somebody does
	policy     policy.Decision // of the route's policy, if it was asked
	decision   limit.Decision  // what the limits left
	headers    []inject.Header
	to         *destination // nil until one is chosen
	found      *foundToken  // nil where no token was read
	token      foundToken   // what found points to: no allocation of its own
	would      *refusal     // what report mode let pass, the first of it; nil: nothing
	refused    *refusal     // nil if the request was forwarded
	overdue    bool         // it outlived its token, which was told; for renew alone
	forwarding bool         // the target may have been told of the request
	abort      bool         // the client is gone: nothing more is to be written

	verdict *verdict   // nil: the request is served here, not decided about for another proxy
	explain *explainer // is told what each rung finds; nil: nobody asked
	dry     *rehearsal // nil: the request is served
}

func (g *Gateway) begin(s *snapshot, w http.ResponseWriter, r *http.Request) *exchange {
	g.active.Add(1)
	x := g.exchange(s, w, r)
	x.w.last = endsDoubtfully(r)
	x.upload = holdUpload(r)
	if !x.trusted && r.Header["X-Forwarded-For"] != nil {
		g.hintAtProxy.Do(func() {
			g.log.Warn("X-Forwarded-For from a peer that is not in server.trusted_proxies is ignored; if a balancer stands in front, declare it, or all its clients share one address", "peer", r.RemoteAddr)
		})
	}
	x.startSpan()
	x.listen()
	return x
}

func (g *Gateway) exchange(s *snapshot, w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{gateway: g, snapshot: s, r: r, start: g.now()}
	x.entered = x.start
	x.recorder = recorder{ResponseWriter: w, strip: s.inject, finalOnly: !r.ProtoAtLeast(1, 1)}
	x.w = &x.recorder
	x.client, x.trusted = s.proxies.client(r)
	id, trace := newIDs()
	x.requestID, x.trace = requestID(r, x.trusted, id), traceOf(r, x.trusted, trace)
	return x
}

// end writes the access log and the metrics, also of a response that broke off.
func (x *exchange) end() {
	defer x.gateway.active.Done()
	broke := recover()
	if broke != nil && broke != http.ErrAbortHandler {
		x.gateway.log.Error("panic", "request_id", x.requestID, "panic", fmt.Sprint(broke), "stack", string(debug.Stack()))
		if x.w.status == 0 {
			x.refuse(refuse(internalError, "panic: %v", broke))
			broke = nil
		}
	}
	x.enter(x.rung)
	duration := x.entered.Sub(x.start)
	name, reason := unmatched, ""
	if x.route != nil {
		name = x.route.name
	}
	if x.would != nil {
		x.gateway.metrics.wouldRefuse.WithLabelValues(name, string(x.would.reason)).Inc()
	}
	if x.refused != nil {
		reason = string(x.refused.reason)
	}
	x.writeAccessLog(name, duration, broke != nil)
	x.endSpan(name, reason, broke != nil)
	x.gateway.refusals.keep(x)
	x.gateway.metrics.request(x.route, x.w.status, reason, duration)
	cut := broke != nil || x.abort
	if !cut && x.r.ProtoMajor == 2 && x.w.bytes > 0 && x.r.Context().Err() == nil {
		// What net/http holds of the body it writes once the handler has returned,
		// where nothing else ends the wait for a client that opens no window. The end
		// of the stream takes the deadline off.
		_ = http.NewResponseController(x.w).SetWriteDeadline(time.Now().Add(x.gateway.writeTimeout))
	}
	x.upload.end(func() {
		// Headers that nothing follows must end the stream: gRPC takes a status in
		// any others for a broken response.
		if !cut && x.w.bytes > 0 && x.r.Method != http.MethodHead {
			_ = http.NewResponseController(x.w).Flush()
		}
	})
	if cut {
		panic(http.ErrAbortHandler) // the client must see that the response is not whole
	}
}

// canonical refuses what must not be matched at all: methods and upgrades that
// turn the connection into a tunnel past every rule, and methods and hosts that
// have more than one reading.
func (x *exchange) canonical() error {
	if x.r.Method == http.MethodConnect {
		return refuse(token.BadRequest, "CONNECT is refused: this is no forward proxy")
	}
	// Routes, policies and limits know methods by their case, as RFC 9110 §9.1
	// wants it; Django, Werkzeug and PHP's frameworks take delete for DELETE.
	if upper := strings.ToUpper(x.r.Method); upper != x.r.Method {
		return refuse(token.BadRequest, "the method %s is not in upper case, and some backends would take it for %s; send that", bounded(x.r.Method), bounded(upper))
	}
	if err := x.upgrade(); err != nil {
		return err
	}
	if x.r.ProtoMajor >= 2 {
		// HTTP/2 has one way to say each of these (RFC 9113 §8.3.1), and net/http
		// lets others pass: what reads them otherwise sees another request.
		if !httpguts.ValidHeaderFieldName(x.r.Method) { // RFC 9110 §9.1: a token. The transport would refuse it, and the target be blamed
			return refuse(token.BadRequest, "the :method %s is no method", strconv.Quote(bounded(x.r.Method)))
		}
		if uri := x.r.RequestURI; uri != "*" && !strings.HasPrefix(uri, "/") {
			return refuse(token.BadRequest, "the :path %s does not begin with a slash", strconv.Quote(bounded(uri)))
		}
		if hosts := x.r.Header["Host"]; len(hosts) > 1 || len(hosts) == 1 && hosts[0] != x.r.Host {
			return refuse(token.BadRequest, "the host header and :authority differ")
		}
		if lengths := x.r.Header["Content-Length"]; len(lengths) > 1 {
			return refuse(token.BadRequest, "two content-length fields")
		} else if len(lengths) == 1 && strconv.FormatInt(x.r.ContentLength, 10) != lengths[0] {
			return refuse(token.BadRequest, "the content-length %s is none", strconv.Quote(bounded(lengths[0]))) // net/http takes what it cannot read for 0
		}
	}
	// The absolute form is for http and https, with a host and no user (RFC 9110
	// §4.2); net/http takes GET x:80 for the URL 80 of a scheme x, and would send
	// that on past every pattern.
	switch u := x.r.URL; {
	case u.Opaque != "" || u.User != nil || u.Scheme != "" && (u.Scheme != "http" && u.Scheme != "https" || u.Host == ""):
		return refuse(token.BadRequest, "the request target %s is neither a path nor an http URL", strconv.Quote(bounded(x.r.RequestURI)))
	case x.r.Host == "" && x.r.ProtoAtLeast(1, 1):
		return refuse(token.BadRequest, "the host is empty")
	case strings.ContainsAny(u.RawQuery, " #"): // HTTP/2 can say the first, and to HTTP/1.1 what follows it is the version
		return refuse(token.BadRequest, "the query has a space or a #, where some backends end it")
	}
	if x.r.URL.Path == "" { // http://host without a path is that of its root (RFC 9112 §3.2.1)
		x.r.URL.Path = "/"
	}
	host, ok := route.CanonicalHost(x.r.Host)
	if !ok {
		return refuse(token.BadRequest, "the host %s has bytes that no host has", strconv.Quote(bounded(x.r.Host)))
	}
	x.r.Host = host
	return nil
}

// upgrade leaves of what the client offers to go on with websocket or nothing.
// Whatever else opens a tunnel whose requests nobody checks, and httputil would
// pass it on (golang/go#80416). An offer of h2c is ignored, as any server may
// (RFC 9110 §7.8, RFC 9113 §3.1): Java's HttpClient and curl --http2 make it with
// ordinary requests, which go on in HTTP/1.1.
func (x *exchange) upgrade() error {
	offered := x.r.Header["Upgrade"]
	if offered == nil {
		return nil
	}
	rest := offered[:0:0]
	for protocol := range strings.SplitSeq(strings.Join(offered, ","), ",") {
		switch protocol = strings.TrimSpace(protocol); {
		case strings.EqualFold(protocol, "h2c") && x.verdict == nil: // whoever forwards himself would not ignore it
			delete(x.r.Header, "Http2-Settings")
		case protocol != "":
			rest = append(rest, protocol)
		}
	}
	switch {
	case len(rest) == 0:
		delete(x.r.Header, "Upgrade")
	case len(rest) > 1 || !strings.EqualFold(rest[0], "websocket"):
		return refuse(token.BadRequest, "an upgrade to %s is refused; only websocket is forwarded", bounded(strings.Join(rest, ", ")))
	default:
		x.r.Header["Upgrade"] = rest
	}
	return nil
}

// match finds the request's route; a preflight's is that of the request it asks
// about, if that answers preflights itself. About one that another proxy has is
// decided as about any request.
func (x *exchange) match() error {
	if x.verdict == nil && isPreflight(x.r) {
		if m, err := x.snapshot.table.Match(forMethod(x.r)); err == nil && x.snapshot.routes[m.Index].cors != nil {
			x.route, x.path, x.asksFirst = x.snapshot.routes[m.Index], m.Path, true
			x.explain.matched(x)
			return nil
		}
	}
	m, err := x.snapshot.table.Match(x.r)
	if err == nil {
		x.route, x.path = x.snapshot.routes[m.Index], m.Path
	}
	x.explain.matched(x)
	if err == nil && x.r.Method == http.MethodTrace && !x.route.traces {
		// RFC 9110 §9.3.8: the answer holds the request, and so what the gateway adds to it.
		err = refuse(token.BadRequest, "TRACE is refused: the answer would show the headers that the backend received; a route is for it whose match names it")
	}
	if err == nil {
		err = x.sameForOverrides()
	}
	return err
}

// boundBody holds the body to the route's max_body: at once where its length is
// declared, else while it is sent.
func (x *exchange) boundBody() error {
	switch limit := x.route.maxBody; {
	case limit == 0 || x.r.ContentLength == 0:
	case x.r.ContentLength > limit:
		return refuse(bodyTooLarge, "the body has %d bytes; max_body is %d", x.r.ContentLength, limit)
	default:
		// A transport reads the body beside the response, whose headers are not
		// its own: told of the writer, it would set one (Connection: close) while
		// they are written, and concurrent writes of a map end the process.
		x.r.Body, x.bounded = http.MaxBytesReader(nil, x.r.Body, limit), true
	}
	return nil
}

// take asks the limits of one place; a request that is asked for in two is told
// of the tightest limit of both.
func (x *exchange) take(limiters []*limit.Limiter) error {
	if len(limiters) == 0 {
		return nil
	}
	x.enter(limitsRung)
	subject := limit.Subject{
		IP: x.client, Route: x.route.name, Method: x.r.Method, Overrides: x.overrides, Header: x.r.Header, Verified: x.verified, Report: x.route.report,
	}
	var d limit.Decision
	var err error
	if x.dry != nil {
		var states []limit.State
		states, d, err = limit.Peek(x.r.Context(), limiters, subject)
		x.explain.peeked(states)
	} else {
		d, err = limit.Take(x.during(x.r.Context(), limitsRung), limiters, subject)
		x.decision = x.decision.Tighter(d)
		x.explain.took(x.decision, err)
	}
	if d.Reported != nil {
		x.note(d.Reported)
	}
	return err
}

// claimHeaders encodes the token's claims for the backend.
func (x *exchange) claimHeaders() (err error) {
	x.enter(headersRung)
	var collisions []string
	x.headers, collisions, err = x.snapshot.inject.Encode(x.verified, x.route.severalIssuers, inject.Act{Issuer: x.actor.Issuer, Subject: x.actor.Subject})
	if len(collisions) > 0 {
		x.explain.collided(collisions)
	}
	if len(collisions) > 0 && x.dry == nil {
		x.gateway.metrics.collisions.Add(float64(len(collisions)))
		x.gateway.log.LogAttrs(x.r.Context(), slog.LevelWarn, "claims fold to one header name; neither is sent", append(x.caller(nil),
			slog.String("request_id", x.requestID), slog.String("claims", bounded(strings.Join(collisions, " "))))...)
	}
	return err
}

func (x *exchange) forward() error {
	if x.verdict != nil {
		return x.allow()
	}
	x.to = x.route.to.of(x)
	call := upstream.Call{
		Path:        x.route.rewrite.path(x.path),
		Host:        x.route.rewrite.host,
		TargetHost:  x.route.rewrite.targetHost,
		Strip:       x.snapshot.inject,
		Headers:     x.headers,
		Trusted:     x.trusted,
		RequestID:   x.requestID,
		KeepState:   x.trace.extended(),
		Timeout:     x.to.timeout,
		IdleTimeout: x.to.idleTimeout,
		ErrorLog:    x.gateway.errorLog,
	}
	if x.verified != nil && x.route.closeOnExpiry {
		call.Lasts, call.Renew = x.lasts(), x.renew
	}
	if x.to.hash != nil {
		call.HashKey = x.to.hash(x)
	}
	// A backend may take it for a request of another method, and RFC 9110 §9.2.2
	// is about the one that it takes it for.
	call.Once = x.to.upstream.Retries != nil && overridden(x.r) != nil
	call.Request = x.edit
	if x.would != nil {
		call.Headers = append(slices.Clip(x.headers), inject.Header{Name: inject.WouldRefuse, Value: string(x.would.reason)})
	}
	call.Response = x.mark
	x.explain.forwards(x, call)
	if x.dry != nil {
		return nil
	}
	x.audit(allowed, nil, x.would)
	x.enter(forwardRung)
	x.callSpan()
	call.Traceparent = x.trace.parent()
	x.forwarding = true
	err := x.to.upstream.Forward(x.w, x.r, call)
	if err != nil {
		x.answered()
	}
	return err
}

// edit changes the request's headers on their way to the target. It runs before
// the gateway's own are set.
func (x *exchange) edit(r *http.Request) {
	if x.found != nil && !x.route.forwardToken && x.would == nil {
		x.found.source.Remove(r)
	}
	x.route.rewrite.request.applyToRequest(r)
}

// answered measures how long the target took to answer, or to fail.
func (x *exchange) answered() {
	if x.to.answered != nil {
		x.to.answered.Observe(x.gateway.now().Sub(x.entered).Seconds())
	}
}

// mark changes the target's headers on their way to the client.
func (x *exchange) mark(res *http.Response) {
	x.answered()
	if x.call != nil {
		x.call.SetAttributes(attribute.Int("http.response.status_code", res.StatusCode))
	}
	x.route.rewrite.cookies.apply(res.Header)
	x.route.rewrite.response.apply(res.Header)
	x.shareCORS(res.Header)
	if limited, policy := x.decision.Headers(); limited != "" {
		// Both are lists: a backend may have limits of its own to tell of.
		both := [...]string{limited, policy} // one allocation
		for i, name := range [...]string{"Ratelimit", "Ratelimit-Policy"} {
			if before := res.Header[name]; before != nil {
				res.Header[name] = append(before, both[i])
			} else {
				res.Header[name] = both[i : i+1 : i+1]
			}
		}
	}
	if x.found != nil {
		x.found.mark(res)
	}
}

// jwt finds what has the form of a JWT, signed or encrypted (RFC 7515 §7.1, RFC
// 7516 §7.1).
var jwt = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]*){2,4}`)

// maxLogged bounds what a caller can write into one field of a log line.
const maxLogged = 256

func bounded(s string) string {
	if strings.Contains(s, "eyJ") { // {" in base64: a token may stand in a path, or where its sender did not mean it to
		s = jwt.ReplaceAllString(s, "[token]")
	}
	if len(s) <= maxLogged {
		return s
	}
	return s[:maxLogged] + "…"
}

// recorder remembers what was answered.
type recorder struct {
	http.ResponseWriter
	strip  *inject.Rules
	last   bool // no request may follow on the connection
	status int  // 0 until the final status is written
	bytes  int64

	finalOnly bool // HTTP/1.0 has no informational responses (RFC 9110 §15.2)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter. Informational responses come
// straight from the target, so their headers are looked at here.
func (w *recorder) WriteHeader(status int) {
	if status < 200 && w.finalOnly {
		return
	}
	if status < 200 {
		h := w.Header()
		w.strip.Response(h)
		// HTTP/2's writer may still read the headers when the client's reset has it
		// return, and a map that is read and written ends the process. It reads a
		// copy where one of them is not for such a response.
		h["Transfer-Encoding"] = nil
		defer delete(h, "Transfer-Encoding")
	} else if w.status == 0 {
		w.status = status
		w.close()
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *recorder) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
		w.close()
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

func (w *recorder) close() {
	if w.last {
		w.Header()["Connection"] = []string{"close"}
	}
}

// Hijack is how httputil answers 101.
func (w *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.status = http.StatusSwitchingProtocols
	}
	return conn, rw, err
}
