package gateway

import (
	"context"
	"io"
	"log/slog"
	"strconv"
	"time"
	"unicode/utf8"
)

// NewJSONLog returns a logger for [Options] that writes each record to w as a
// [slog.JSONHandler] without options does, each Write whole lines. It is safe for
// concurrent use. Any other logger serves, too, but this one makes a request's
// line for less, and where requests come fast it writes some lines at a time,
// within milliseconds; [Gateway.Close] writes the last.
func NewJSONLog(w io.Writer) *slog.Logger {
	lines := newLogLines(w)
	return slog.New(&logHandler{slog.NewJSONHandler(lines, nil), slog.NewJSONHandler(gathering{lines}, nil), lines, true})
}

// NewTextLog is [NewJSONLog] with the lines of a [slog.TextHandler].
func NewTextLog(w io.Writer) *slog.Logger {
	lines := newLogLines(w)
	return slog.New(&logHandler{slog.NewTextHandler(lines, nil), slog.NewTextHandler(gathering{lines}, nil), lines, false})
}

// logHandler is slog's, which writes all but the lines of requests.
type logHandler struct {
	slog.Handler
	requests slog.Handler // the same for those lines of requests that slog makes
	lines    *logLines
	json     bool
}

// logRequest writes a request's line.
func (g *Gateway) logRequest(ctx context.Context, level slog.Level, attrs []slog.Attr) {
	if h, ok := g.log.Handler().(*logHandler); ok {
		h.request(ctx, level, attrs)
		return
	}
	g.log.LogAttrs(ctx, level, requestMessage, attrs...)
}

// requestMessage is what the line of a request says that it is.
const requestMessage = "request"

// usualLine is room for the line of a request on the stack.
const usualLine = 1 << 10

func (h *logHandler) request(ctx context.Context, level slog.Level, attrs []slog.Attr) {
	now := time.Now()
	if h.json {
		var room [usualLine]byte
		if line, ok := appendJSONLine(room[:0], now, level, requestMessage, attrs); ok {
			h.lines.gather(line)
			return
		}
	}
	// No program counter: it says where a line was written, which these handlers do not.
	r := slog.NewRecord(now, level, requestMessage, 0)
	r.AddAttrs(attrs...)
	_ = h.requests.Handle(ctx, r)
}

// appendJSONLine appends the line that a [slog.JSONHandler] without options
// writes for a record, whose keys are the gateway's own and plain. It is not ok
// where a text is not ASCII or has control characters, or a value is none that a
// request's line has: slog knows how.
func appendJSONLine(line []byte, at time.Time, level slog.Level, message string, attrs []slog.Attr) (_ []byte, ok bool) {
	line = append(line, `{"time":"`...)
	line = at.AppendFormat(line, time.RFC3339Nano)
	line = append(line, `","level":"`...)
	line = append(line, level.String()...)
	line = append(line, `","msg":"`...)
	line = append(line, message...)
	line = append(line, '"')
	for _, a := range attrs {
		line = append(append(append(line, `,"`...), a.Key...), `":`...)
		switch v := a.Value; v.Kind() {
		case slog.KindString:
			if line, ok = appendJSONText(line, v.String()); !ok {
				return nil, false
			}
		case slog.KindInt64:
			line = strconv.AppendInt(line, v.Int64(), 10)
		case slog.KindDuration:
			line = strconv.AppendInt(line, v.Duration().Nanoseconds(), 10)
		case slog.KindBool:
			line = strconv.AppendBool(line, v.Bool())
		default:
			return nil, false
		}
	}
	return append(line, "}\n"...), true
}

// appendJSONText appends s in quotes. It is not ok where a backslash before a
// byte is not all that s takes.
func appendJSONText(line []byte, s string) (_ []byte, ok bool) {
	line = append(line, '"')
	done := 0
	if !plain(s) {
		for i := range len(s) {
			switch c := s[i]; {
			case c < ' ' || c >= utf8.RuneSelf:
				return nil, false
			case c == '"' || c == '\\':
				line = append(line, s[done:i]...)
				line = append(line, '\\', c)
				done = i + 1
			}
		}
	}
	line = append(line, s[done:]...)
	return append(line, '"'), true
}

// plain says of s, if it has eight bytes or more, whether each stands for itself
// in a JSON text; the last eight are looked at together, too.
func plain(s string) bool {
	if len(s) < 8 {
		return false
	}
	odd := oddBytes(s[len(s)-8:])
	for ; len(s) >= 8; s = s[8:] {
		odd |= oddBytes(s)
	}
	return odd == 0
}

// oddBytes is 0 if each of the first eight bytes of s stands for itself in a JSON
// text. A subtraction that borrows does so from a byte that is odd anyway.
func oddBytes(s string) uint64 {
	const each, top = 0x0101010101010101, 0x8080808080808080
	_ = s[7]
	x := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
	control, quote, backslash := x-each*' ', x^each*'"'-each, x^each*'\\'-each
	return (x | control | quote | backslash) & top
}
