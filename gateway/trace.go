package gateway

import (
	"math/rand/v2"
	"net/http"
	"strings"
)

// newIDs are ids for a request that has none, in one allocation.
func newIDs() (request, trace string) {
	ids := randomHex(16 + 24)
	return ids[:32], ids[32:]
}

// requestID returns the id that a trusted proxy gave the request, or a new one.
func requestID(r *http.Request, trusted bool, fresh string) string {
	if ids := r.Header["X-Request-Id"]; trusted && len(ids) == 1 && isID(ids[0]) {
		return ids[0]
	}
	return fresh
}

// isID keeps what goes into every log line short and plain.
func isID(s string) bool {
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-_.:+/=", c) >= 0) {
			return false
		}
	}
	return 0 < len(s) && len(s) <= 128
}

// randomHex returns n random bytes in hexadecimal. The ids tell requests
// apart; nobody gains by guessing one, so that the fast generator will do.
func randomHex(n int) string {
	var few [96]byte
	digits := few[:0]
	for len(digits) < 2*n {
		for bits, left := rand.Uint64(), 16; left > 0; left-- {
			digits = append(digits, "0123456789abcdef"[bits&15])
			bits >>= 4
		}
	}
	return string(digits[:2*n])
}

// trace is the request's place in a W3C trace (Trace Context §3.2).
type trace struct {
	traceID, parentID, flags string
	callerID                 string // the parent's id that a trusted proxy gave; "" begins a trace
}

// extended says whether a trusted proxy began it.
func (t trace) extended() bool { return t.callerID != "" }

func (t trace) id() string     { return t.traceID }
func (t trace) parent() string { return "00-" + t.traceID + "-" + t.parentID + "-" + t.flags }

// traceOf extends the trace of a trusted proxy or begins one.
func traceOf(r *http.Request, trusted bool, fresh string) trace {
	t := trace{traceID: fresh[:32], parentID: fresh[32:], flags: "00"}
	if lines := r.Header["Traceparent"]; trusted && len(lines) == 1 {
		if id, caller, flags, ok := parseTraceparent(lines[0]); ok {
			t.traceID, t.callerID, t.flags = id, caller, flags
		}
	}
	return t
}

// parseTraceparent reads a traceparent of version 00, or the first four fields
// of a later one (§3.2.4).
func parseTraceparent(s string) (traceID, parentID, flags string, ok bool) {
	fields := strings.Split(s, "-")
	if len(fields) < 4 || len(fields[0]) != 2 || fields[0] == "ff" || fields[0] == "00" && len(fields) != 4 {
		return "", "", "", false
	}
	version := fields[0]
	traceID, parentID, flags = fields[1], fields[2], fields[3]
	if len(traceID) != 32 || len(parentID) != 16 || len(flags) != 2 || strings.Trim(version+traceID+parentID+flags, "0123456789abcdef") != "" {
		return "", "", "", false
	}
	if strings.Trim(traceID, "0") == "" || strings.Trim(parentID, "0") == "" {
		return "", "", "", false
	}
	return traceID, parentID, flags, true
}
