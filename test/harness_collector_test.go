package test

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	collectorpb "go.opentelemetry.io/proto/slim/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/slim/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// collector receives spans as OTLP over HTTP.
type collector struct {
	URL string

	mu       sync.Mutex
	spans    []*span
	resource map[string]string
	instead  http.HandlerFunc // replaces the usual answer if set
}

// span is one with its ids in hexadecimal and its attributes as text.
type span struct {
	*tracepb.Span
	trace, id, parent string
	attributes        map[string]string
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "50") // ms
	c := &collector{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.instead != nil {
			instead := c.instead
			c.mu.Unlock()
			instead(w, r)
			c.mu.Lock()
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPost || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("no OTLP: %s %s %s %v", r.Method, r.URL.Path, r.Header.Get("Content-Type"), err)
		}
		if got := r.Header.Get("X-Key"); got != "secret" {
			t.Errorf("the header X-Key is %q", got)
		}
		forbidTokens(t, "a batch of spans", string(body))
		var batch collectorpb.ExportTraceServiceRequest
		if err := proto.Unmarshal(body, &batch); err != nil {
			t.Errorf("no protobuf: %v", err)
		}
		for _, of := range batch.ResourceSpans {
			c.resource = map[string]string{}
			for _, a := range of.Resource.Attributes {
				c.resource[a.Key] = a.Value.GetStringValue()
			}
			for _, scope := range of.ScopeSpans {
				for _, s := range scope.Spans {
					read := &span{s, hex.EncodeToString(s.TraceId), hex.EncodeToString(s.SpanId), hex.EncodeToString(s.ParentSpanId), map[string]string{}}
					for _, a := range s.Attributes {
						text := a.Value.String()
						_, text, _ = strings.Cut(text, ":")
						read.attributes[a.Key] = strings.Trim(text, `"`)
					}
					c.spans = append(c.spans, read)
				}
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	c.URL = server.URL
	return c
}

// answers replaces the collector's answer.
func (c *collector) answers(h http.HandlerFunc) { c.mu.Lock(); c.instead = h; c.mu.Unlock() }

// of returns the spans of that trace so far.
func (c *collector) of(trace string) (found []*span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if s.trace == trace {
			found = append(found, s)
		}
	}
	return found
}

// whole waits for the span of that trace which the gateway began for the
// request, and returns it with its children, by their names.
func (c *collector) whole(t *testing.T, trace string) (server *span, children map[string]*span) {
	t.Helper()
	eventually(t, "the trace "+trace+" is exported", func() bool {
		for _, s := range c.of(trace) {
			if s.Kind == tracepb.Span_SPAN_KIND_SERVER {
				server = s
			}
		}
		return server != nil
	})
	children = map[string]*span{}
	for _, s := range c.of(trace) {
		if s == server {
			continue
		}
		if s.parent != server.id {
			t.Errorf("the span %s has the parent %s, not the request's %s", s.Name, s.parent, server.id)
		}
		if s.StartTimeUnixNano < server.StartTimeUnixNano || s.EndTimeUnixNano > server.EndTimeUnixNano || s.StartTimeUnixNano > s.EndTimeUnixNano {
			t.Errorf("the span %s does not lie inside the request's", s.Name)
		}
		children[s.Name] = s
	}
	return server, children
}

// has fails the test unless the span has these attributes.
func (s *span) has(t *testing.T, want map[string]string) {
	t.Helper()
	for key, value := range want {
		if got := s.attributes[key]; got != value {
			t.Errorf("the span %s has %s: %q, want %q", s.Name, key, got, value)
		}
	}
}
