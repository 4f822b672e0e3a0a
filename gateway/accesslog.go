package gateway

import (
	"log/slog"
	"math/rand/v2"
	"time"
)

// writeAccessLog writes the request's line. Of requests with which nothing was
// wrong the configuration may ask for a sample.
func (x *exchange) writeAccessLog(route string, duration time.Duration, broke bool) {
	fine := x.refused == nil && x.would == nil && !broke && x.w.status < 500
	if n := x.snapshot.config.Server.AccessLog.SampleAllows; fine && n > 1 && rand.IntN(n) != 0 {
		return
	}
	level := slog.LevelInfo
	if x.refused != nil && x.w.status >= 500 {
		level = slog.LevelWarn
	}
	if !x.gateway.log.Enabled(x.r.Context(), level) {
		return
	}
	attrs := make([]slog.Attr, 0, 20)
	attrs = append(attrs,
		slog.String("request_id", x.requestID),
		slog.String("trace_id", x.trace.id()),
		slog.String("client", x.client.String()),
		slog.String("method", bounded(x.r.Method)),
		slog.String("host", bounded(x.r.Host)),
		slog.String("path", bounded(x.r.URL.EscapedPath())),
		slog.String("route", route),
		slog.Int("status", x.w.status),
		slog.Int64("bytes", x.w.bytes),
		slog.Duration("duration", duration),
	)
	if x.to != nil {
		attrs = append(attrs, slog.String("upstream", x.to.upstream.Name()))
	}
	attrs = x.caller(attrs)
	if x.verdict != nil {
		attrs = append(attrs, slog.String("decision", x.verdict.dialect.proxy))
	}
	if x.policy.Rule != "" {
		attrs = append(attrs, slog.String("rule", x.policy.Rule))
	}
	if x.policy.Undecided != "" {
		attrs = append(attrs, slog.String("undecided", x.policy.Undecided))
	}
	if x.would != nil {
		attrs = append(attrs, slog.String("would_refuse", string(x.would.reason)))
		if x.refused == nil {
			attrs = append(attrs, slog.String("detail", x.would.detail))
		}
	}
	if x.refused != nil {
		attrs = append(attrs, slog.String("reason", string(x.refused.reason)), slog.String("detail", x.refused.detail))
	}
	if broke {
		attrs = append(attrs, slog.Bool("broken_off", true))
	}
	x.gateway.logRequest(x.r.Context(), level, attrs)
}

// caller appends who a log line says is calling: the token's subject, and who
// acts in the subject's name.
func (x *exchange) caller(attrs []slog.Attr) []slog.Attr {
	if x.signed != nil {
		attrs = append(attrs, slog.String("issuer", x.signed.Issuer), slog.String("sub", bounded(x.signed.Claims.Get("sub").Text())))
	}
	if x.acting {
		attrs = append(attrs, slog.String("actor", bounded(x.actor.String())))
	}
	return attrs
}
