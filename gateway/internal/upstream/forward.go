package upstream

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"gatehouse/gateway/internal/inject"
)

// Responses that say they are at most smallResponse bytes long usually come in
// one piece: they may wait flushDelay to be written with their headers in one
// go. All others are flushed as they come.
const (
	smallResponse = 4 << 10
	flushDelay    = 10 * time.Millisecond
)

// Call is one request's way to its target.
type Call struct {
	HashKey     string               // what a pool with [Hash] goes by; "": the targets' turns
	Once        bool                 // it must not reach two targets, whatever its method
	Path        string               // the escaped path to ask for; a target's own path is put before it
	Host        string               // sent as Host in place of the client's; "": the client's
	TargetHost  bool                 // send the target's own as Host
	Strip       *inject.Rules        // what is dropped from headers and trailers, both ways
	Headers     []inject.Header      // set after everything was dropped
	Trusted     bool                 // the peer is a trusted proxy, whose forwarding headers are extended
	Request     func(*http.Request)  // changes to the outgoing request before the gateway's own headers are set, such as taking the token out; may be nil
	Response    func(*http.Response) // last changes to the target's headers; may be nil
	RequestID   string               // X-Request-Id
	Traceparent string               // W3C Trace Context §3.2
	KeepState   bool                 // tracestate belongs to that traceparent
	Timeout     time.Duration        // to the response's headers, from when the request is sent whole
	IdleTimeout time.Duration        // between bytes of either body
	ErrorLog    *log.Logger          // what httputil has to say after the headers were sent

	// Renew says how much longer the exchange may last, or ends it with an
	// error. It is asked first after Lasts, in a goroutine of its own, never in
	// two at once, and its context ends with the exchange; nil lets it last.
	Renew func(context.Context) (time.Duration, error)
	Lasts time.Duration
}

// forwarding is what one request needs on its way there and back: one allocation.
type forwarding struct {
	proxy    httputil.ReverseProxy
	ending   ending
	dog      watchdog
	lease    lease
	body     *requestBody // nil without one
	letGo    atomic.Bool  // the transport needs no more of the body, and who reads it is woken by a deadline
	answer   responseBody
	upgraded *tunnel // nil unless it was
	failed   error   // what ErrorHandler was told
}

// Forward sends r to a target and its response to w, streaming both
// ways. An error is an *[Error], or the one of c.Renew, and means that nothing
// was written to w. A response that breaks off ends in http.ErrAbortHandler, as
// httputil does it, so that the client sees it break, too. A WebSocket that
// ends with r's context or by c.Renew is told so by a close frame.
func (p *Pool) Forward(w http.ResponseWriter, r *http.Request, c Call) error {
	t, err := p.begin(&c)
	if err != nil {
		return err
	}
	defer t.end()
	hasBody := r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0
	f := &forwarding{
		dog: watchdog{
			timeout: c.Timeout, idle: c.IdleTimeout, conn: *http.NewResponseController(w), http1: r.ProtoMajor == 1, sent: !hasBody,
		},
		lease: lease{renew: c.Renew},
	}
	ending, dog, lease, proxy := &f.ending, &f.dog, &f.lease, &f.proxy
	dog.ending = ending
	defer ending.end(nil)
	client := r.Context()
	defer context.AfterFunc(client, func() {
		// To net/http a Read that was woken is a client that has gone, and the
		// rest of an early response is still on its way to this one.
		if !f.letGo.Load() {
			ending.end(context.Cause(client))
		}
	})()
	ctx := client
	if hasBody {
		ctx = ending.context(context.WithoutCancel(client))
		r = r.WithContext(ctx)
	} else {
		t.ending = ending
	}
	lease.parent, lease.ending, lease.dog = ctx, ending, dog
	if hasBody {
		// Without it an HTTP/1 server reads the rest of the request before it
		// writes the response, so that the two could not flow at once.
		_ = http.NewResponseController(w).EnableFullDuplex()
	}
	if c.Renew != nil {
		dog.watch(c.Lasts, lease.ask)
	} else {
		dog.watch(0, nil)
	}
	defer dog.stop()
	defer func() { _ = lease.stop() }()
	defer func() {
		if f.upgraded != nil {
			f.upgraded.release()
		}
	}()
	defer func() { // also of a response that broke off
		if f.failed == nil && f.body != nil && !f.body.whole.Load() && f.upgraded == nil && r.ProtoMajor == 1 {
			// net/http would wait for what is left of the body, and without end. The
			// transport's Read is woken first; httputil has the other not close it.
			_, _ = f.body.Close(), r.Body.Close()
		}
	}()
	*proxy = httputil.ReverseProxy{
		Transport:  t,
		BufferPool: &p.buffers,
		ErrorLog:   c.ErrorLog,
		Rewrite: func(pr *httputil.ProxyRequest) {
			aim(pr.Out, t.target.url, &c)
			pr.Out.URL.RawQuery, pr.Out.URL.ForceQuery = pr.In.URL.RawQuery, pr.In.URL.ForceQuery
			if c.Request != nil {
				c.Request(pr.Out)
			}
			t.added = added{rewriteHeaders(t.own[:0], pr, &c), c.Headers}
			if hasBody && pr.Out.Body != nil {
				f.body = &requestBody{ReadCloser: pr.Out.Body, dog: dog, onEOF: trailerCopier(pr), letGo: &f.letGo}
				pr.Out.Body, t.body = f.body, f.body
			}
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { f.failed = err },
	}
	proxy.ModifyResponse = func(res *http.Response) error {
		if res.StatusCode < 100 { // http.Transport takes it; a server's WriteHeader panics
			return fmt.Errorf("the status %03d is none", res.StatusCode)
		}
		t.ended = answered(res.StatusCode)
		t.judge(t.ended)
		c.Strip.Response(res.Header)
		if f.body != nil && !f.body.whole.Load() && r.ProtoMajor == 1 && res.StatusCode != http.StatusSwitchingProtocols {
			// The target answered early. What is left of the body, or comes
			// after a malformed one, must not be read as the next request:
			// full duplex switches net/http's own guard off.
			Linger(w)
		}
		if c.Response != nil {
			c.Response(res)
		}
		if res.StatusCode == http.StatusSwitchingProtocols {
			dog.stop()
			if target, ok := res.Body.(io.ReadWriteCloser); ok {
				f.upgraded = &tunnel{target: target, client: &dog.conn}
				res.Body = f.upgraded
				lease.upgraded(f.upgraded)
			}
			return nil
		}
		dog.progress(func() { dog.responded = true })
		c.Strip.Response(res.Trailer)
		if len(res.Trailer) > 0 && r.ProtoMajor == 1 && r.ProtoMinor == 1 && r.Method != http.MethodHead {
			res.Header.Del("Content-Length") // HTTP/2 may have both; HTTP/1.1 has trailers after chunks only
		}
		there := arrived(res)
		f.answer = responseBody{res.Body, dog, f.body, func(err error) {
			switch cause := ending.why(ctx); {
			case err == io.EOF:
				c.Strip.Response(res.Trailer)
			case cause != nil && (!errors.Is(cause, errStalled) || dog.blame.Load()), f.body != nil && f.body.failed.Load() != nil:
				t.ended = clientEnded
			default:
				t.ended = brokeOff
			}
		}}
		res.Body = &f.answer
		switch {
		case res.ContentLength == 0:
			// Nothing follows: in HTTP/2 the headers must end the stream, or
			// gRPC takes a response of nothing but trailers for a broken one.
			proxy.FlushInterval = 0
		case there: // it is written whole with its headers
			proxy.FlushInterval = 0
		case 0 < res.ContentLength && res.ContentLength <= smallResponse && !isEventStream(res.Header):
			proxy.FlushInterval = flushDelay
		default:
			proxy.FlushInterval = -1
		}
		handOver(w.Header(), res)
		return nil
	}
	proxy.ServeHTTP(w, r)
	if f.failed == nil {
		return nil
	}
	if err := lease.stop(); err != nil {
		return err
	}
	failure := classify(ending.why(ctx), client, dog, f.body, f.failed)
	switch failure {
	case Refused:
		t.ended = refusedUs
	case Timeout:
		t.ended = timedOut
	}
	t.judge(t.ended)
	if failure == ClientBroke {
		f.failed = *f.body.failed.Load() // what became of the body, not what the transport made of it
	}
	return &Error{Failure: failure, Target: t.target.name, Err: f.failed}
}

// handOver puts a response's headers where they are written from: httputil would
// copy each value by itself, and look at the spelling of each name once more.
func handOver(h http.Header, res *http.Response) {
	_, typed := res.Header["Content-Type"]
	if len(h) == 0 {
		maps.Copy(h, res.Header)
		res.Header = nil
	}
	if !typed {
		h["Content-Type"] = nil // or net/http would guess one from the body
	}
}

// isEventStream says whether a response is a stream of Server-Sent Events, each
// of which is to be seen at once. httputil could tell, were the headers left to it.
func isEventStream(h http.Header) bool {
	mediaType, _, _ := strings.Cut(strings.Join(h["Content-Type"], ";"), ";")
	return strings.EqualFold(strings.TrimSpace(mediaType), "text/event-stream")
}

// Linger has net/http close the connection after the response, and no sooner
// than the client could read it: what the client still sends would reset the
// connection, and take the response away (RFC 9112 §9.6). net/http does so for
// who reads more than allowed, and only then. It is for the goroutine that
// answers, before the answer's headers are written.
func Linger(w http.ResponseWriter) {
	for {
		outer, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			break
		}
		w = outer.Unwrap()
	}
	_, _ = http.MaxBytesReader(w, io.NopCloser(strings.NewReader("more")), 0).Read(make([]byte, 1))
}

// classify tells whose fault it was. What the client did comes first: its
// going away shows as a failure of the target, too.
func classify(cause error, client context.Context, dog *watchdog, body *requestBody, err error) Failure {
	var timeout net.Error
	broke := body != nil && body.failed.Load() != nil
	// A target that breaks off lets go of a body that its client still sends. The
	// Read that this wakes is to net/http a client that has gone, but ends nothing.
	letGo := cause == nil && !broke && body != nil && body.letGo.Load()
	switch {
	case errors.Is(cause, errStalled) && dog.blame.Load():
		return ClientStalled
	case errors.Is(cause, errStalled):
		return Timeout
	case client.Err() != nil && !letGo:
		return ClientGone
	case broke:
		return ClientBroke
	case errors.As(err, &timeout) && timeout.Timeout():
		return Timeout
	}
	return Refused
}

// aim sends the request to the target, with its path byte for byte: httputil
// would re-encode some, and drop a query that net/url cannot parse.
func aim(r *http.Request, target *url.URL, c *Call) {
	out := r.URL
	out.Scheme, out.Host = target.Scheme, target.Host
	out.RawPath = strings.TrimSuffix(target.EscapedPath(), "/") + c.Path
	if decoded, err := url.PathUnescape(out.RawPath); err == nil { // the path was checked before
		out.Path = decoded
	}
	switch {
	case c.TargetHost:
		r.Host = target.Host
	case c.Host != "":
		r.Host = c.Host
	}
}

// rewriteHeaders drops what the gateway owns, and appends what it says itself
// to own. It runs after httputil removed the hop-by-hop headers, and what is
// appended is set later still, so that no Connection header can name it.
func rewriteHeaders(own []inject.Header, pr *httputil.ProxyRequest, c *Call) []inject.Header {
	in, out := pr.In.Header, pr.Out.Header
	c.Strip.Request(out, c.Trusted)
	c.Strip.Trailer(pr.Out.Trailer)
	if !c.KeepState {
		delete(out, "Tracestate")
	}

	peer, _, err := net.SplitHostPort(pr.In.RemoteAddr)
	if err != nil {
		peer = pr.In.RemoteAddr
	}
	proto := "http"
	if pr.In.TLS != nil {
		proto = "https"
	}
	own = append(own, inject.Header{Name: "Traceparent", Value: c.Traceparent}, inject.Header{Name: "X-Request-Id", Value: c.RequestID})
	if !c.Trusted {
		own = append(own, inject.Header{Name: "X-Forwarded-For", Value: peer}, inject.Header{Name: "X-Forwarded-Proto", Value: proto})
		if pr.In.Host != "" { // HTTP/1.0 need not name one
			own = append(own, inject.Header{Name: "X-Forwarded-Host", Value: pr.In.Host})
		}
		if pr.In.TLS != nil && len(pr.In.TLS.VerifiedChains) > 0 {
			setClientCert(out, pr.In.TLS.VerifiedChains[0])
		}
		return own
	}
	// httputil has removed these four from Out, whoever sent them.
	out["X-Forwarded-For"] = []string{strings.Join(append(in["X-Forwarded-For"][:len(in["X-Forwarded-For"]):len(in["X-Forwarded-For"])], peer), ", ")}
	keepOr(out, in, "X-Forwarded-Proto", proto)
	keepOr(out, in, "X-Forwarded-Host", pr.In.Host)
	if before := in["Forwarded"]; before != nil {
		hop := "for=" + forwardedNode(peer) + ";proto=" + proto
		out["Forwarded"] = []string{strings.Join(before, ", ") + ", " + hop}
	}
	return own
}

// setClientCert tells of the client's certificate as RFC 9440 §2 wants it: as
// byte sequences (RFC 9651 §3.3.5), without the authority at the chain's end,
// which a target must know by itself.
func setClientCert(out http.Header, chain []*x509.Certificate) {
	encoded := make([]string, len(chain))
	for i, c := range chain {
		encoded[i] = ":" + base64.StdEncoding.EncodeToString(c.Raw) + ":"
	}
	out["Client-Cert"] = encoded[:1:1]
	if len(chain) > 2 {
		out["Client-Cert-Chain"] = []string{strings.Join(encoded[1:len(chain)-1], ", ")}
	}
}

func keepOr(out, in http.Header, name, own string) {
	if values := in[name]; len(values) > 0 {
		out[name] = values
		return
	}
	out[name] = []string{own}
}

// forwardedNode writes an address as RFC 7239 §6 wants it.
func forwardedNode(ip string) string {
	if strings.Contains(ip, ":") {
		return `"[` + ip + `]"`
	}
	return ip
}

// trailerCopier hands the client's trailers on when its body ends: httputil
// announces them, and leaves their values behind.
func trailerCopier(pr *httputil.ProxyRequest) func() {
	return func() {
		for name := range pr.Out.Trailer {
			pr.Out.Trailer[name] = pr.In.Trailer[name]
		}
	}
}
