package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	collectorpb "go.opentelemetry.io/proto/slim/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/slim/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/slim/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/slim/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

const (
	exportTimeout  = 10 * time.Second // for one batch
	maxExportReply = 64 << 10
)

// exporter sends batches of spans to a collector: OTLP 1.11 over HTTP, in
// protobuf. OpenTelemetry's own brings gRPC and a gateway for it along, which
// made the program half as large again. One batch is sent at a time, once: what
// a collector does not take is counted and gone.
type exporter struct {
	url     string
	headers map[string]string
	client  *http.Client
	log     *slog.Logger
	spans   *prometheus.CounterVec // outcome
	sent    func(n int)            // told of spans that are waited for no more
	failing atomic.Bool
}

// ExportSpans implements sdktrace.SpanExporter. It returns no error, since the
// SDK would print it past the log.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	defer e.sent(len(spans))
	rejected, err := e.post(ctx, &collectorpb.ExportTraceServiceRequest{ResourceSpans: resourceSpans(spans)})
	if err != nil {
		rejected = len(spans)
	}
	rejected = max(0, min(rejected, len(spans)))
	e.spans.WithLabelValues("exported").Add(float64(len(spans) - rejected))
	e.spans.WithLabelValues("failed").Add(float64(rejected))
	switch failing := rejected > 0; {
	case failing && e.failing.CompareAndSwap(false, true):
		e.log.Warn("spans cannot be exported", "endpoint", e.url, "spans", rejected, "error", err)
	case !failing && e.failing.CompareAndSwap(true, false):
		e.log.Info("spans can be exported again", "endpoint", e.url)
	}
	return nil
}

// Shutdown implements sdktrace.SpanExporter.
func (e *exporter) Shutdown(context.Context) error {
	e.client.CloseIdleConnections()
	return nil
}

// post sends one batch and returns how many spans of it the collector would not have.
func (e *exporter) post(ctx context.Context, batch *collectorpb.ExportTraceServiceRequest) (rejected int, err error) {
	body, err := proto.Marshal(batch)
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	for name, value := range e.headers {
		req.Header.Set(name, value)
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("User-Agent", "gatehouse")
	resp, err := e.client.Do(req)
	if err != nil {
		if failed := (*url.Error)(nil); errors.As(err, &failed) {
			err = failed.Err
		}
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	reply, err := io.ReadAll(io.LimitReader(resp.Body, maxExportReply))
	if err != nil {
		return 0, err
	}
	if resp.StatusCode/100 != 2 {
		return 0, fmt.Errorf("the collector answers %d", resp.StatusCode)
	}
	var answer collectorpb.ExportTraceServiceResponse
	if proto.Unmarshal(reply, &answer) != nil {
		return 0, nil // a 2xx is what counts
	}
	rejected = int(answer.GetPartialSuccess().GetRejectedSpans())
	if rejected > 0 {
		err = nil
	}
	return rejected, err
}

// resourceSpans writes spans in OTLP's own types. All are of one provider and
// one tracer.
func resourceSpans(spans []sdktrace.ReadOnlySpan) []*tracepb.ResourceSpans {
	if len(spans) == 0 {
		return nil
	}
	out := make([]*tracepb.Span, len(spans))
	for i, s := range spans {
		out[i] = otlpSpan(s)
	}
	resource, scope := spans[0].Resource(), spans[0].InstrumentationScope()
	return []*tracepb.ResourceSpans{{
		Resource:  &resourcepb.Resource{Attributes: keyValues(resource.Attributes())},
		SchemaUrl: resource.SchemaURL(),
		ScopeSpans: []*tracepb.ScopeSpans{{
			Scope: &commonpb.InstrumentationScope{Name: scope.Name, Version: scope.Version}, SchemaUrl: scope.SchemaURL, Spans: out,
		}},
	}}
}

func otlpSpan(s sdktrace.ReadOnlySpan) *tracepb.Span {
	sc, parent := s.SpanContext(), s.Parent()
	traceID, spanID, parentID := sc.TraceID(), sc.SpanID(), parent.SpanID()
	out := &tracepb.Span{
		TraceId: traceID[:], SpanId: spanID[:], TraceState: sc.TraceState().String(), Flags: uint32(sc.TraceFlags()),
		Name: s.Name(), Kind: tracepb.Span_SpanKind(s.SpanKind()), // the numbers are the same
		StartTimeUnixNano: uint64(s.StartTime().UnixNano()), EndTimeUnixNano: uint64(s.EndTime().UnixNano()),
		Attributes: keyValues(s.Attributes()), DroppedAttributesCount: uint32(s.DroppedAttributes()),
	}
	if parent.SpanID().IsValid() {
		out.ParentSpanId = parentID[:]
		out.Flags |= uint32(tracepb.SpanFlags_SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK)
		if parent.IsRemote() {
			out.Flags |= uint32(tracepb.SpanFlags_SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK)
		}
	}
	if status := s.Status(); status.Code == codes.Error {
		out.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: status.Description}
	}
	return out
}

func keyValues(attributes []attribute.KeyValue) []*commonpb.KeyValue {
	out := make([]*commonpb.KeyValue, len(attributes))
	for i, a := range attributes {
		v := &commonpb.AnyValue{}
		switch a.Value.Type() {
		case attribute.INT64:
			v.Value = &commonpb.AnyValue_IntValue{IntValue: a.Value.AsInt64()}
		case attribute.BOOL:
			v.Value = &commonpb.AnyValue_BoolValue{BoolValue: a.Value.AsBool()}
		default:
			v.Value = &commonpb.AnyValue_StringValue{StringValue: a.Value.String()}
		}
		out[i] = &commonpb.KeyValue{Key: string(a.Key), Value: v}
	}
	return out
}

// maxWaiting bounds the spans that wait for the collector; one more is dropped
// and counted. It is the length of the batcher's own queue, which therefore
// never drops one.
const maxWaiting = 2048

// spanGate lets spans into the batcher as long as there is room.
type spanGate struct {
	sdktrace.SpanProcessor
	waiting atomic.Int64
	dropped prometheus.Counter
}

// OnEnd implements sdktrace.SpanProcessor. It never waits.
func (g *spanGate) OnEnd(s sdktrace.ReadOnlySpan) {
	switch {
	case !s.SpanContext().IsSampled():
	case g.waiting.Add(1) > maxWaiting:
		g.waiting.Add(-1)
		g.dropped.Inc()
	default:
		g.SpanProcessor.OnEnd(s)
	}
}
