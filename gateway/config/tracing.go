package config

import (
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
	"gopkg.in/yaml.v3"
)

// Tracing says where spans of requests go (OpenTelemetry, OTLP over HTTP).
type Tracing struct {
	Endpoint    string            // of the collector, without the signal's path /v1/traces
	SampleRatio float64           // of requests whose trace begins here: 0 to 1
	Headers     map[string]string // sent to the collector
}

type fileTracing struct {
	Endpoint    webURL            `yaml:"endpoint" need:"the collector that spans are sent to, such as http://127.0.0.1:4318" doc:"the collector's URL for OTLP over HTTP, to which /v1/traces is appended"`
	SampleRatio ratio             `yaml:"sample_ratio" doc:"which part of the traces that begin here is recorded; default 1, all"`
	Headers     map[string]string `yaml:"headers" doc:"sent to the collector, such as Authorization"`
}

// ratio is a part of a whole.
type ratio float64

func (v *ratio) readNode(r *reader, n *yaml.Node, path string) {
	s, ok := r.scalar(n, path, "a number from 0 to 1")
	if !ok {
		return
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(0 <= f && f <= 1) || n.Tag == "!!str" && n.Style != 0 {
		r.fault(path, "%s is %s; want a number from 0 to 1, such as 0.1 for one of ten, without quotes", path, r.quote(path, s))
		return
	}
	*v = ratio(f)
}

func (*ratio) schema(g *generator) schema {
	return g.scalar(schema{"type": "number", "minimum": 0, "maximum": 1})
}

func (r *reader) tracing(f *fileTracing) *Tracing {
	if !r.has("server.tracing") {
		return nil
	}
	t := &Tracing{SampleRatio: 1, Headers: f.Headers}
	if r.ok("server.tracing.endpoint") {
		if f.Endpoint.RawQuery != "" || strings.HasSuffix(f.Endpoint.Path, "/v1/traces") {
			r.fault("server.tracing.endpoint", "server.tracing.endpoint is the collector's URL without a query and without /v1/traces, which is appended")
		}
		t.Endpoint = strings.TrimSuffix(f.Endpoint.String(), "/")
	}
	if r.has("server.tracing.sample_ratio") {
		t.SampleRatio = float64(f.SampleRatio)
	}
	for name, value := range f.Headers {
		if at := "server.tracing.headers." + name; !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			r.fault(at, "%s is no header: a name is letters, digits and hyphens, and a value one line", at)
		}
	}
	return t
}
