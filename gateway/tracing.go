package gateway

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"

	"gatehouse/gateway/config"
)

const (
	// flushTimeout bounds how long a drain waits for the collector, within the grace.
	flushTimeout = 5 * time.Second
	// closeTimeout is what is left to spans that a drain did not get rid of.
	closeTimeout = time.Second
)

// tracing records requests as spans.
type tracing struct {
	provider *sdktrace.TracerProvider
	tracer   oteltrace.Tracer
}

func newTracing(c config.Tracing, log *slog.Logger, m *metrics) *tracing {
	gate := &spanGate{dropped: m.spans.WithLabelValues("dropped")}
	gate.SpanProcessor = sdktrace.NewBatchSpanProcessor(&exporter{
		url: c.Endpoint + "/v1/traces", headers: c.Headers, log: log, spans: m.spans,
		client: &http.Client{
			Transport: &http.Transport{
				Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: exportTimeout / 2}).DialContext, TLSHandshakeTimeout: exportTimeout / 2,
				MaxResponseHeaderBytes: maxExportReply, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true,
			},
			// A redirect would hand the spans and the headers, of which one may be a key, to whoever it names.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		sent: func(n int) { gate.waiting.Add(int64(-n)) },
	}, sdktrace.WithMaxQueueSize(maxWaiting), sdktrace.WithMaxExportBatchSize(maxWaiting/4), sdktrace.WithExportTimeout(exportTimeout))
	// The name and what else tells this gateway from others are the deployment's to
	// say, as everywhere: OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES.
	host, _ := os.Hostname()
	about, _ := resource.New(context.Background(),
		resource.WithAttributes(attribute.String("service.name", "gatehouse"), attribute.String("service.version", m.version), attribute.String("service.instance.id", host)),
		resource.WithTelemetrySDK(), resource.WithFromEnv())
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithSpanProcessor(gate), sdktrace.WithResource(about),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(c.SampleRatio))),
	)
	return &tracing{provider, provider.Tracer("gatehouse", oteltrace.WithInstrumentationVersion(m.version))}
}

// flush sends what waits, as far as ctx and the bound let it.
func (t *tracing) flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	_ = t.provider.ForceFlush(ctx)
}

func (t *tracing) close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = t.provider.Shutdown(ctx)
}

// startSpan begins the request's span, a child of the one that a trusted proxy
// named. Its ids become those of the request, recorded or not.
func (x *exchange) startSpan() {
	if x.snapshot.tracing == nil {
		return
	}
	ctx := x.r.Context()
	if x.trace.extended() {
		ctx = oteltrace.ContextWithRemoteSpanContext(ctx, x.trace.remote(x.r.Header["Tracestate"]))
	}
	_, span := x.snapshot.tracing.value.tracer.Start(ctx, "HTTP", oteltrace.WithSpanKind(oteltrace.SpanKindServer), oteltrace.WithTimestamp(x.start))
	sc := span.SpanContext()
	x.trace.traceID = sc.TraceID().String()
	x.trace.record(sc)
	if sc.IsSampled() {
		x.span = span
	}
}

// remote is the caller's place in the trace. The state is passed on as it came;
// what cannot be read of it is only not recorded.
func (t trace) remote(state []string) oteltrace.SpanContext {
	traceID, _ := oteltrace.TraceIDFromHex(t.traceID) // both were read before
	spanID, _ := oteltrace.SpanIDFromHex(t.callerID)
	flags, _ := strconv.ParseUint(t.flags, 16, 8)
	c := oteltrace.SpanContextConfig{TraceID: traceID, SpanID: spanID, TraceFlags: oteltrace.TraceFlags(flags), Remote: true}
	if len(state) == 1 {
		c.TraceState, _ = oteltrace.ParseTraceState(state[0])
	}
	return oteltrace.NewSpanContext(c)
}

// record makes a span what the next one down the way has for its parent.
func (t *trace) record(sc oteltrace.SpanContext) {
	t.parentID = sc.SpanID().String()
	flags, _ := strconv.ParseUint(t.flags, 16, 8)
	t.flags = oteltrace.TraceFlags(flags).WithSampled(sc.IsSampled()).String()
}

// callSpan begins the span of the request to the upstream; the upstream is told
// that it is its parent.
func (x *exchange) callSpan() {
	if x.span == nil {
		return
	}
	name, method := spanMethod(x.r.Method)
	_, x.call = x.snapshot.tracing.value.tracer.Start(oteltrace.ContextWithSpan(x.r.Context(), x.span), name,
		oteltrace.WithSpanKind(oteltrace.SpanKindClient), oteltrace.WithTimestamp(x.entered), oteltrace.WithAttributes(
			attribute.String("http.request.method", method),
			attribute.String("gatehouse.upstream", x.to.upstream.Name()),
		))
	x.trace.record(x.call.SpanContext())
}

// endSpan ends the request's spans.
func (x *exchange) endSpan(route, reason string, broke bool) {
	if x.span == nil {
		return
	}
	failure := reason
	if broke {
		failure = "broken_off"
	}
	if x.call != nil {
		if failure != "" {
			fail(x.call, failure)
		}
		x.call.End(oteltrace.WithTimestamp(x.entered))
	}
	name, method := spanMethod(x.r.Method)
	scheme := "http"
	if x.r.TLS != nil {
		scheme = "https"
	}
	attributes := []attribute.KeyValue{
		attribute.String("http.request.method", method),
		attribute.String("url.scheme", scheme),
		attribute.String("url.path", bounded(x.r.URL.EscapedPath())), // the query may hold a token
		attribute.String("server.address", bounded(x.r.Host)),
		attribute.String("client.address", x.client.String()),
		attribute.String("network.protocol.version", version(x.r)),
		attribute.Int("http.response.status_code", x.w.status),
		attribute.String("gatehouse.route", route),
		attribute.String("gatehouse.request_id", x.requestID),
	}
	if x.route != nil && x.route.pattern != "" {
		name += " " + x.route.pattern
		attributes = append(attributes, attribute.String("http.route", x.route.pattern))
	}
	if reason != "" {
		attributes = append(attributes, attribute.String("gatehouse.reason", reason))
	}
	x.span.SetName(name)
	x.span.SetAttributes(attributes...)
	if broke || x.w.status >= 500 { // what the caller did wrong is no error of the server's
		fail(x.span, cmp.Or(failure, strconv.Itoa(x.w.status)))
	}
	x.span.End(oteltrace.WithTimestamp(x.entered))
}

func fail(span oteltrace.Span, kind string) {
	span.SetAttributes(attribute.String("error.type", kind))
	span.SetStatus(codes.Error, "")
}

// spanMethods are those that spans are named after (OpenTelemetry's conventions
// for HTTP spans); a caller may make up any number of others.
var spanMethods = []string{"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}

// spanMethod returns what a span's name and its http.request.method say.
func spanMethod(method string) (name, attribute string) {
	if slices.Contains(spanMethods, method) {
		return method, method
	}
	return "HTTP", "_OTHER"
}

func version(r *http.Request) string {
	if r.ProtoMajor >= 2 {
		return strconv.Itoa(r.ProtoMajor)
	}
	return strconv.Itoa(r.ProtoMajor) + "." + strconv.Itoa(r.ProtoMinor)
}

// rungKey is where a context keeps the rung on which others are asked.
type rungKey struct{}

// during is the context for what a rung may have to ask of others: each question
// is a child of the request's span.
func (x *exchange) during(ctx context.Context, r rung) context.Context {
	if x.span == nil {
		return ctx
	}
	return context.WithValue(oteltrace.ContextWithSpan(ctx, x.span), rungKey{}, r)
}

// records says whether a question of that context is recorded.
func records(ctx context.Context) bool {
	_, ok := ctx.Value(rungKey{}).(rung)
	return ok
}

// ask begins the span of a question to another process, in a context that
// records, and returns what ends it.
func ask(ctx context.Context, name string, attributes ...attribute.KeyValue) func(error) {
	r := ctx.Value(rungKey{}).(rung)
	tracer := oteltrace.SpanFromContext(ctx).TracerProvider().Tracer("gatehouse")
	_, span := tracer.Start(ctx, cmp.Or(name, r.String()), oteltrace.WithSpanKind(oteltrace.SpanKindClient), oteltrace.WithAttributes(attributes...))
	span.SetAttributes(attribute.String("gatehouse.rung", r.String()))
	return func(err error) {
		switch timeout := net.Error(nil); {
		case err == nil || errors.Is(err, redis.Nil):
		case errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout():
			fail(span, "timeout")
		default:
			fail(span, "_OTHER")
		}
		span.End()
	}
}

// waits makes spans of what a request waits for at that issuer.
func waits(issuer string) func(context.Context, string) func(error) {
	return func(ctx context.Context, kind string) func(error) {
		if !records(ctx) {
			return func(error) {}
		}
		return ask(ctx, kind, attribute.String("gatehouse.issuer", issuer))
	}
}

// redisSpans makes spans of what a request asks of Redis, named after the rung.
type redisSpans struct{}

// DialHook implements redis.Hook.
func (redisSpans) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements redis.Hook.
func (redisSpans) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if !records(ctx) {
			return next(ctx, cmd)
		}
		done := ask(ctx, "", attribute.String("db.system.name", "redis"), attribute.String("db.operation.name", cmd.Name()))
		err := next(ctx, cmd)
		done(err)
		return err
	}
}

// ProcessPipelineHook implements redis.Hook.
func (redisSpans) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if !records(ctx) {
			return next(ctx, cmds)
		}
		done := ask(ctx, "", attribute.String("db.system.name", "redis"), attribute.String("db.operation.name", "PIPELINE"), attribute.Int("db.operation.batch.size", len(cmds)))
		err := next(ctx, cmds)
		done(err)
		return err
	}
}
