package gateway

import (
	"bufio"
	"io"
	"net/http"
	"slices"
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

// FuzzFraming: as many lines are counted as net/http tells of, or more.
func FuzzFraming(f *testing.F) {
	f.Add("POST / HTTP/1.1\nHost: x\ncontent-LENGTH:5\n\nhelloPOST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nA: b\r\n\r\n", 7)
	f.Add("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 1)
	f.Fuzz(func(t *testing.T, text string, size int) {
		var counted framing
		for piece := range slices.Chunk([]byte(text), max(size, 1)) {
			counted.scan(piece)
		}
		var told int32
		for r := bufio.NewReader(strings.NewReader(text)); ; {
			req, err := http.ReadRequest(r)
			if err != nil {
				break
			}
			if req.ProtoMajor == 1 && (req.TransferEncoding != nil || req.Header["Content-Length"] != nil) {
				told++
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				break
			}
		}
		if got := counted.lines.Load(); got < told {
			t.Errorf("%q in pieces of %d: %d lines, and net/http tells of %d", text, size, got, told)
		}
	})
}

func BenchmarkFraming(b *testing.B) {
	head := []byte("GET /heroes/1 HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("Accept: application/json\r\n", 8) + "\r\n")
	var f framing
	for b.Loop() {
		f.scan(head)
	}
}
