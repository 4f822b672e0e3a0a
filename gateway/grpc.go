package gateway

import (
	"net/http"
	"strconv"
	"strings"
)

// isGRPC says whether the caller speaks gRPC, and reads no other kind of answer.
// It does so in HTTP/2 only; gRPC-Web has HTTP statuses of its own to go by.
func isGRPC(r *http.Request) bool {
	if r.ProtoMajor != 2 {
		return false
	}
	rest, ok := strings.CutPrefix(strings.ToLower(r.Header.Get("Content-Type")), "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// grpcCodes are gRPC's words for our refusals. Where the meaning is plain they
// are those that a gRPC server would give itself, else those of gRPC's own
// mapping of HTTP statuses.
var grpcCodes = map[int]int{
	400: 3,  // INVALID_ARGUMENT
	401: 16, // UNAUTHENTICATED
	403: 7,  // PERMISSION_DENIED
	404: 12, // UNIMPLEMENTED: no such method
	405: 12,
	413: 8, // RESOURCE_EXHAUSTED
	429: 8,
	431: 8,
	500: 13, // INTERNAL
	502: 14, // UNAVAILABLE
	503: 14,
	504: 4, // DEADLINE_EXCEEDED
}

// grpcRefusal answers with headers that are trailers as well, and an HTTP status
// that says nothing, as gRPC over HTTP/2 wants it ("Trailers-Only").
func (x *exchange) grpcRefusal(reason string, status int, detail string) {
	code, ok := grpcCodes[status]
	if !ok {
		code = 2 // UNKNOWN
	}
	h := x.w.Header()
	h.Set("Content-Type", "application/grpc")
	h.Set("Grpc-Status", strconv.Itoa(code))
	h.Set("Grpc-Message", grpcMessage(detail))
	h.Set("Gatehouse-Reason", reason)
	x.w.status = status // what log and metrics tell
	x.w.WriteHeader(http.StatusOK)
}

// grpcMessage encodes a message as gRPC over HTTP/2 wants it: bytes beyond
// printable ASCII, and the percent sign, in percent-encoding.
func grpcMessage(s string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c > 0x7e || c == '%' {
			b.Write([]byte{'%', digits[c>>4], digits[c&15]})
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
