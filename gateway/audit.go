package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/gateway/config"
)

// auditLog is where decisions are written down, one JSON record each. A record
// is written when the decision is made, before the request is forwarded, and
// not buffered: what was decided is on record though the process dies.
type auditLog struct {
	*slog.Logger
	sample int // of so many allowed requests one is written
	close  func() error
}

// The events of the audit log.
const (
	decisionEvent   = "decision"
	revocationEvent = "revocation"
)

func newAuditLog(c config.Audit, log *slog.Logger, errs prometheus.Counter) *auditLog {
	if c.File == "-" {
		return &auditLog{auditTo(&checked{Writer: os.Stdout, file: c.File, log: log, errors: errs}), c.SampleAllows, func() error { return nil }}
	}
	file := &rotatedFile{path: c.File, max: int64(c.MaxBytes), keep: c.Keep}
	return &auditLog{auditTo(&checked{Writer: file, file: c.File, log: log, errors: errs}), c.SampleAllows, file.Close}
}

// auditTo writes records as JSON, with the event in place of a message.
func auditTo(w io.Writer) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			switch {
			case len(groups) > 0:
			case a.Key == slog.LevelKey:
				return slog.Attr{}
			case a.Key == slog.MessageKey:
				a.Key = "event"
			}
			return a
		},
	}))
}

// checked tells of records that could not be written: slog does not. All are
// counted; a line for each would fill the next disk. Its caller, one slog
// handler, writes one record at a time.
type checked struct {
	io.Writer
	file   string
	log    *slog.Logger
	errors prometheus.Counter
	told   time.Time // when a line was last logged
}

func (c *checked) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	if err != nil {
		c.errors.Inc()
		if now := time.Now(); now.Sub(c.told) >= time.Minute {
			c.told = now
			c.log.Error("an audit record could not be written", "file", c.file, "error", err)
		}
	}
	return n, err
}

// The outcomes of a decision.
const (
	allowed = "allow"
	denied  = "deny"
	ended   = "end" // it was allowed, and what it began was cut off
)

// audit writes down what was decided about the request: who asked for what,
// and by which rule it was let through or refused; because is why not, would why
// it would not have been, and either may be nil. Refusals, and what mode: report
// makes of them, are all written.
func (x *exchange) audit(outcome string, because, would *refusal) {
	if x.snapshot.audit == nil || x.dry != nil {
		return
	}
	log := x.snapshot.audit.value
	if outcome == allowed && would == nil && log.sample > 1 && rand.IntN(log.sample) != 0 {
		return
	}
	attrs := make([]slog.Attr, 0, 20)
	attrs = append(attrs, slog.String("outcome", outcome))
	if because != nil {
		attrs = append(attrs, slog.String("reason", string(because.reason)))
	}
	if outcome == denied {
		attrs = append(attrs, slog.Int("status", answers[because.reason].status))
	}
	if would != nil {
		attrs = append(attrs, slog.String("would_refuse", string(would.reason)))
	}
	name := unmatched
	if x.route != nil {
		name = x.route.name
	}
	attrs = append(attrs, slog.String("route", name))
	if x.route != nil && x.route.policy != nil {
		attrs = append(attrs, slog.String("policy", x.route.policy.Name()))
	}
	if x.policy.Rule != "" {
		attrs = append(attrs, slog.String("rule", x.policy.Rule))
	}
	if v := x.signed; v != nil {
		attrs = append(attrs, slog.String("issuer", v.Issuer))
		for _, name := range []string{"sub", "client_id", "jti"} {
			// Some providers use an opaque token as its own jti.
			if text := v.Claims.Get(name).Text(); text != "" && text != x.found.raw.Reveal() {
				attrs = append(attrs, slog.String(name, bounded(text)))
			}
		}
	}
	if x.acting {
		attrs = append(attrs, slog.Group("act", "iss", bounded(x.actor.Issuer), "sub", bounded(x.actor.Subject)))
	}
	if x.found != nil {
		sum := sha256.Sum256([]byte(x.found.raw.Reveal()))
		attrs = append(attrs, slog.String("token_sha256", hex.EncodeToString(sum[:])))
	}
	attrs = append(attrs,
		slog.String("client", x.client.String()),
		slog.String("method", bounded(x.r.Method)),
		slog.String("host", bounded(x.r.Host)),
		slog.String("path", bounded(x.r.URL.EscapedPath())),
		slog.String("request_id", x.requestID),
		slog.String("trace_id", x.trace.id()),
	)
	log.LogAttrs(x.r.Context(), slog.LevelInfo, decisionEvent, attrs...)
}

// The doors through which a revocation comes, for its audit record.
const (
	doorCLI        = "command line"
	doorRevocation = "revocation endpoint"
	doorLogout     = "backchannel logout"
)

// revocationRecord says who withdrew what, and through which door.
type revocationRecord struct {
	Door      string
	Actor     string    // who asked for it, as far as the door knows
	Action    string    // revoke or unrevoke
	Issuer    string    // its name in the configuration
	Kind      string    // jti, sid, sub, client_id, kid or jws
	Key       string    // the key in Redis
	Expires   time.Time // zero: never
	RequestID string
	Client    string // the caller's address
}

func (r revocationRecord) attrs() []any {
	attrs := []any{"action", r.Action, "door", r.Door, "actor", bounded(r.Actor), "issuer", r.Issuer, "kind", r.Kind, "key", bounded(r.Key)}
	if !r.Expires.IsZero() {
		attrs = append(attrs, "expires", r.Expires.UTC().Truncate(time.Second))
	}
	if r.Client != "" {
		attrs = append(attrs, "client", r.Client)
	}
	if r.RequestID != "" {
		attrs = append(attrs, "request_id", r.RequestID)
	}
	return attrs
}

// auditRevocation writes down a revocation: in the audit log, or among the
// other log lines where there is none. Every revocation is on record.
func (g *Gateway) auditRevocation(s *snapshot, r revocationRecord) {
	if s.audit != nil {
		s.audit.value.Info(revocationEvent, r.attrs()...)
		return
	}
	g.log.Info(revocationEvent, r.attrs()...)
}

// auditOffline is auditRevocation for a command, which appends to the file of a
// gateway on the same machine, or to the one that a gateway will find: one
// line in one write, which the system does not mix with others'. Where the
// gateway writes its records to standard output, so does the command.
func auditOffline(ctx context.Context, c *config.Audit, r revocationRecord) error {
	switch {
	case c == nil:
		return nil
	case c.File == "-":
		return auditTo(os.Stdout).Handler().Handle(ctx, r.record())
	}
	file, size, err := openRecords(c.File)
	if err != nil {
		return fmt.Errorf("it was done, but could not be written into the audit log: %w", err)
	}
	if torn(c.File, size) {
		_, err = io.WriteString(file, "\n")
	}
	if err == nil {
		err = auditTo(file).Handler().Handle(ctx, r.record())
	}
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("it was done, but could not be written into the audit log: %w", err)
	}
	return nil
}

func (r revocationRecord) record() slog.Record {
	record := slog.NewRecord(time.Now(), slog.LevelInfo, revocationEvent, 0)
	record.Add(r.attrs()...)
	return record
}
