package gateway

import (
	"strings"
	"testing"
)

// However the bytes come, the same lines are counted.
func TestFramingLinesAreCounted(t *testing.T) {
	for text, want := range map[string]int32{
		"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n": 2,
		"POST / HTTP/1.1\ncontent-LENGTH:5\ntransfer-encodinG: chunked\n\n":          2,
		"POST / HTTP/1.1\r\nContent-Lengt: 5\r\nX: Content-Length\r\n\r\n":           0,
		"\nc\nt\nco\ncontent-content-length\ntcontent-length\n\n\ncontent-length":    1,
		"Transfer-Encoding": 0, // a request line
		"":                  0,
	} {
		for size := 1; size <= len(text)+1; size++ {
			var f framing
			for rest := text; rest != ""; {
				n := min(size, len(rest))
				f.scan([]byte(rest[:n]))
				rest = rest[n:]
			}
			if got := f.lines.Load(); got != want {
				t.Fatalf("%q in pieces of %d: %d lines, want %d", text, size, got, want)
			}
		}
	}
}

func BenchmarkFraming(b *testing.B) {
	head := []byte("GET /heroes/1 HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("Accept: application/json\r\n", 8) + "\r\n")
	var f framing
	for b.Loop() {
		f.scan(head)
	}
}
