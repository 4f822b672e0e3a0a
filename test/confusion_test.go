package test

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// smuggled is what no backend may ever take for a request.
const smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"

// A reading is what one request on a connection of its own must come to.
type reading struct {
	name string
	raw  string // what is sent, byte for byte
	// outcome is "STATUS reason", with reason - for net/http's own plain text;
	// and whether the connection ends (close) or serves another request (keep).
	outcome string
	// got is what the backend received, byte for byte but for what no two
	// requests share; "": not one byte. cut: a request that did not end.
	got string
}

const (
	forwardedHead = "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Host: x\r\nX-Forwarded-Proto: http\r\n"
	cut           = "cut off"
)

// post is a request with that head, which the backend receives, and what
// follows it.
func post(head, rest string) string { return "POST /x HTTP/1.1\r\nHost: x\r\n" + head + "\r\n" + rest }

// readings is the table of all that two parsers are known to read in two ways.
func readings() []reading {
	length := itoa(int64(len(smuggled)))
	chunks := "5\r\nhello\r\n0\r\n\r\n"
	got := func(head, body string) string {
		return "POST /x HTTP/1.1\r\nHost: x\r\n" + head + body
	}
	asChunks := got("Transfer-Encoding: chunked\r\n"+forwardedHead+"\r\n", chunks)
	asLength := got("Content-Length: 5\r\n"+forwardedHead+"\r\n", "hello")
	upgrade := "GET /x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + forwardedHead + "\r\n"
	get := func(more string) string { return "GET /x HTTP/1.1\r\nHost: x\r\n" + more + forwardedHead + "\r\n" }
	te := func(line string) string { return post(line+"\r\n", "0\r\n\r\n"+smuggled) }
	cl := func(lines string) string { return post(lines, "hello") }
	chunked := func(rest string) string { return post("Transfer-Encoding: chunked\r\n", rest) }

	return []reading{
		// CL.TE and TE.CL: the chunks count, and nothing after them (RFC 9112 §6.1).
		{"Content-Length before chunks", post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nG"), "200 close", got("Transfer-Encoding: chunked\r\n"+forwardedHead+"\r\n", "0\r\n\r\n")},
		{"chunks before Content-Length", post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", chunks+smuggled), "200 close", asChunks},
		{"Content-Length of all beside chunks", post("Content-Length: 15\r\nTransfer-Encoding: chunked\r\n", chunks), "200 close", asChunks},
		{"a bad Content-Length beside chunks", post("Content-Length: -1\r\nTransfer-Encoding: chunked\r\n", chunks), "400 - close", ""},
		{"content-length in lower case", post("content-length: 15\r\ntransfer-encoding: chunked\r\n", chunks), "200 close", asChunks},
		{"chunks alone", post("Transfer-Encoding: chunked\r\n", chunks), "200 keep", asChunks},
		{"chunks in capitals", post("TRANSFER-ENCODING: CHUNKED\r\n", chunks), "200 keep", asChunks},

		// TE.TE.
		{"xchunked", te("Transfer-Encoding: xchunked"), "501 - close", ""},
		{"identity", te("Transfer-Encoding: identity"), "501 - close", ""},
		{"gzip, chunked", te("Transfer-Encoding: gzip, chunked"), "501 - close", ""},
		{"chunked, identity", te("Transfer-Encoding: chunked, identity"), "501 - close", ""},
		{"chunked twice in one line", te("Transfer-Encoding: chunked, chunked"), "501 - close", ""},
		{"chunked in two lines", te("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), "501 - close", ""},
		{"chunked and identity in two lines", te("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"), "501 - close", ""},
		{"a comma at the end", te("Transfer-Encoding: chunked,"), "501 - close", ""},
		{"a comma at the beginning", te("Transfer-Encoding: ,chunked"), "501 - close", ""},
		{"in quotes", te(`Transfer-Encoding: "chunked"`), "501 - close", ""},
		{"with a parameter", te("Transfer-Encoding: chunked;q=1"), "501 - close", ""},
		{"an empty value", te("Transfer-Encoding:"), "501 - close", ""},
		{"a vertical tab before", te("Transfer-Encoding: \vchunked"), "400 - close", ""},
		{"a vertical tab after", te("Transfer-Encoding: chunked\v"), "400 - close", ""},
		{"a form feed", te("Transfer-Encoding:\fchunked"), "400 - close", ""},
		{"NUL after", te("Transfer-Encoding: chunked\x00"), "400 - close", ""},
		{"a no-break space", te("Transfer-Encoding:\xa0chunked"), "501 - close", ""},
		{"a tab before, as RFC 9110 allows", post("Transfer-Encoding:\tchunked\r\n", chunks), "200 keep", asChunks},
		{"white space after, as RFC 9110 allows", post("Transfer-Encoding: chunked \t\r\n", chunks), "200 keep", asChunks},
		{"a space before the colon", te("Transfer-Encoding : chunked"), "400 - close", ""},
		{"a tab before the colon", te("Transfer-Encoding\t: chunked"), "400 - close", ""},
		{"folded, as RFC 9112 §5.2 unfolds it", post("Transfer-Encoding:\r\n chunked\r\n", chunks), "200 keep", asChunks},
		{"folded, with a Content-Length", post("Transfer-Encoding:\r\n chunked\r\nContent-Length: 5\r\n", chunks+smuggled), "200 close", asChunks},
		{"an underscore", post("Transfer_Encoding: chunked\r\nContent-Length: 5\r\n", "hello"), "200 keep", got("Content-Length: 5\r\nTransfer_encoding: chunked\r\n"+forwardedHead+"\r\n", "hello")},
		{"behind a bare CR", te("X: y\rTransfer-Encoding: chunked"), "400 - close", ""},
		{"behind a bare LF", post("X: y\nTransfer-Encoding: chunked\r\n", chunks), "200 keep", got("Transfer-Encoding: chunked\r\nX: y\r\n"+forwardedHead+"\r\n", chunks)},
		{"in HTTP/1.0", "POST /x HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks, "200 close", got("Content-Length: 0\r\n"+forwardedHead+"\r\n", "")},

		// Content-Length.
		{"alone", cl("Content-Length: 5\r\n"), "200 keep", asLength},
		{"twice the same", cl("Content-Length: 5\r\nContent-Length: 5\r\n"), "200 keep", asLength},
		{"two that differ", cl("Content-Length: 5\r\nContent-Length: 6\r\n"), "400 - close", ""},
		{"a list of the same", cl("Content-Length: 5, 5\r\n"), "400 - close", ""},
		{"a list", cl("Content-Length: 5, 6\r\n"), "400 - close", ""},
		{"plus", cl("Content-Length: +5\r\n"), "400 - close", ""},
		{"minus", cl("Content-Length: -5\r\n"), "400 - close", ""},
		{"minus zero", cl("Content-Length: -0\r\n"), "400 - close", ""},
		{"hexadecimal", cl("Content-Length: 0x5\r\n"), "400 - close", ""},
		{"an underscore in the number", cl("Content-Length: 1_0\r\n"), "400 - close", ""},
		{"a fraction", cl("Content-Length: 5.0\r\n"), "400 - close", ""},
		{"an exponent", cl("Content-Length: 5e0\r\n"), "400 - close", ""},
		{"a space inside", cl("Content-Length: 1 0\r\n"), "400 - close", ""},
		{"empty", cl("Content-Length:\r\n"), "400 - close", ""},
		{"2^64", cl("Content-Length: 18446744073709551616\r\n"), "400 - close", ""},
		{"2^63", cl("Content-Length: 9223372036854775808\r\n"), "400 - close", ""},
		{"a vertical tab", cl("Content-Length: \v5\r\n"), "400 - close", ""},
		{"NUL in the number", cl("Content-Length: 5\x00\r\n"), "400 - close", ""},
		{"Arabic digits", cl("Content-Length: \u0665\r\n"), "400 - close", ""},
		{"zeros before it", cl("Content-Length: 005\r\n"), "200 keep", asLength},
		{"a space before its colon", cl("Content-Length : 5\r\n"), "400 - close", ""},
		{"its name with an underscore", cl("Content_Length: 0\r\nContent-Length: 5\r\n"), "200 keep", got("Content-Length: 5\r\nContent_length: 0\r\n"+forwardedHead+"\r\n", "hello")},
		{"on a GET, hiding a request", "GET /x HTTP/1.1\r\nHost: x\r\nContent-Length: " + length + "\r\n\r\n" + smuggled, "200 keep", "GET /x HTTP/1.1\r\nHost: x\r\nContent-Length: " + length + "\r\n" + forwardedHead + "\r\n" + smuggled},

		// Chunks.
		{"0x", chunked("0x5\r\nhello\r\n0\r\n\r\n"), "400 bad_request close", cut},
		{"plus", chunked("+5\r\nhello\r\n0\r\n\r\n"), "400 bad_request close", cut},
		{"minus", chunked("-5\r\nhello\r\n0\r\n\r\n"), "400 bad_request close", cut},
		{"an underscore", chunked("0_5\r\nhello\r\n0\r\n\r\n"), "400 bad_request close", cut},
		{"17 digits", chunked("00000000000000005\r\nhello\r\n0\r\n\r\n"), "400 bad_request close", cut},
		{"2^64", chunked("10000000000000000\r\nhello\r\n0\r\n\r\n"), "400 bad_request close", cut},
		{"no size", chunked("\r\nhello\r\n0\r\n\r\n"), "400 bad_request close", cut},
		{"a space before the size", chunked(" 5\r\nhello\r\n0\r\n\r\n"), "400 bad_request close", cut},
		{"a space after the size", chunked("5 \r\nhello\r\n0\r\n\r\n"), "200 keep", asChunks},
		{"no CRLF after the data", chunked("5\r\nhello0\r\n\r\n"), "400 bad_request close", cut},
		{"more data than the size", chunked("4\r\nhello\r\n0\r\n\r\n"), "400 bad_request close", cut},
		{"LF after the size", chunked("5\nhello\r\n0\r\n\r\n"), "400 bad_request close", cut},
		{"LF after the data", chunked("5\r\nhello\n0\r\n\r\n"), "400 bad_request close", cut},
		{"CR after the size", chunked("5\rhello\r\n0\r\n\r\n"), "400 bad_request close", cut},
		{"LF at the end", chunked("5\r\nhello\r\n0\n\n"), "400 bad_request close", cut},
		{"an extension", chunked("5;a=b\r\nhello\r\n0;c\r\n\r\n"), "200 keep", asChunks},
		{"an extension in quotes", chunked("5;a=\"b;\"\r\nhello\r\n0\r\n\r\n"), "200 keep", asChunks},
		{"LF in an extension", chunked("5;a\nb\r\nhello\r\n0\r\n\r\n"), "400 bad_request close", cut},
		{"LF in an extension's quotes", chunked("5;a=\"\n\"\r\nhello\r\n0\r\n\r\n"), "400 bad_request close", cut},
		{"CR in an extension", chunked("5;a\rb\r\nhello\r\n0\r\n\r\n"), "400 bad_request close", cut},
		{"a long extension", chunked("5;" + strings.Repeat("a", 5000) + "\r\nhello\r\n0\r\n\r\n"), "400 bad_request close", cut},
		{"many extensions", chunked(strings.Repeat("1;"+strings.Repeat("a", 100)+"\r\nx\r\n", 300) + "0\r\n\r\n"), "400 bad_request close", cut},
		{"a last chunk of many zeros", chunked("5\r\nhello\r\n000\r\n\r\n"), "200 keep", asChunks},
		{"capital digits", chunked("A\r\nhellohello\r\n0\r\n\r\n"), "200 keep", got("Transfer-Encoding: chunked\r\n"+forwardedHead+"\r\n", "a\r\nhellohello\r\n0\r\n\r\n")},
		{"data that is a request", chunked("23\r\n" + smuggled + "\r\n0\r\n\r\n"), "200 keep", got("Transfer-Encoding: chunked\r\n"+forwardedHead+"\r\n", "23\r\n"+smuggled+"\r\n0\r\n\r\n")},

		// Trailers stay behind the body, and bring nothing that the gateway says.
		{"a trailer of framing", post("Transfer-Encoding: chunked\r\nTrailer: Content-Length\r\n", "0\r\nContent-Length: 5\r\n\r\n"), "400 - close", ""},
		{"a trailer nobody announced", chunked("0\r\nX-Jwt-Sub: eve\r\nAuthorization: x\r\n\r\n"), "200 keep", got("Transfer-Encoding: chunked\r\n"+forwardedHead+"\r\n", "0\r\n\r\n")},
		{"a trailer of another method", post("Transfer-Encoding: chunked\r\nTrailer: X-HTTP-Method-Override\r\n", "0\r\nX-HTTP-Method-Override: DELETE\r\n\r\n"), "200 keep", got("Transfer-Encoding: chunked\r\n"+forwardedHead+"\r\n", "0\r\n\r\n")},
		{"a trailer of the gateway's", post("Transfer-Encoding: chunked\r\nTrailer: X-Jwt-Sub, X-Sum\r\n", "0\r\nX-Jwt-Sub: eve\r\nX-Sum: 1\r\n\r\n"), "200 keep", got("Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n"+forwardedHead+"\r\n", "0\r\nX-Sum: 1\r\n\r\n")},

		// Lines and names.
		{"bare LF everywhere", "GET /x HTTP/1.1\nHost: x\n\n", "200 keep", get("")},
		{"bare CR in a value", "GET /x HTTP/1.1\r\nHost: x\r\nA: b\rC: d\r\n\r\n", "400 - close", ""},
		{"CR CR LF", "GET /x HTTP/1.1\r\nHost: x\r\nA: b\r\r\n\r\n", "400 - close", ""},
		{"folded", "GET /x HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", "200 keep", get("A: b c\r\n")},
		{"folded first", "GET /x HTTP/1.1\r\n Host: x\r\n\r\n", "400 - close", ""},
		{"a space before the colon", "GET /x HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n", "400 - close", ""},
		{"no colon", "GET /x HTTP/1.1\r\nHost: x\r\nA\r\n\r\n", "400 - close", ""},
		{"an empty name", "GET /x HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n", "400 - close", ""},
		{"NUL in a name", "GET /x HTTP/1.1\r\nHost: x\r\nA\x00: b\r\n\r\n", "400 - close", ""},
		{"NUL in a value", "GET /x HTTP/1.1\r\nHost: x\r\nA: b\x00\r\n\r\n", "400 - close", ""},
		{"8 bits in a name", "GET /x HTTP/1.1\r\nHost: x\r\n\xc0A: b\r\n\r\n", "400 - close", ""},
		{"8 bits in a value", "GET /x HTTP/1.1\r\nHost: x\r\nA: \xe9\r\n\r\n", "200 keep", get("A: \xe9\r\n")},
		{"brackets in a name", "GET /x HTTP/1.1\r\nHost: x\r\nA[]: b\r\n\r\n", "400 - close", ""},
		{"a slash in a name", "GET /x HTTP/1.1\r\nHost: x\r\nA/B: b\r\n\r\n", "400 - close", ""},
		{"odd characters of a token in a name", "GET /x HTTP/1.1\r\nHost: x\r\nA!#$%&'*+-.^_`|~: b\r\n\r\n", "200 keep", get("A!#$%&'*+-.^_`|~: b\r\n")},

		// The request line.
		{"HTTP/0.9", "GET /x\r\n\r\n", "400 - close", ""},
		{"HTTP/1.2", "GET /x HTTP/1.2\r\nHost: x\r\n\r\n", "200 keep", get("")},
		{"HTTP/2.0 in words", "GET /x HTTP/2.0\r\nHost: x\r\n\r\n", "505 - close", ""},
		{"HTTP/3.0 in words", "GET /x HTTP/3.0\r\nHost: x\r\n\r\n", "505 - close", ""},
		{"a version in lower case", "GET /x http/1.1\r\nHost: x\r\n\r\n", "400 - close", ""},
		{"a version of many digits", "GET /x HTTP/1.11\r\nHost: x\r\n\r\n", "400 - close", ""},
		{"a tab in place of a space", "GET\t/x HTTP/1.1\r\nHost: x\r\n\r\n", "400 - close", ""},
		{"a # in the query", "GET /x?a#b HTTP/1.1\r\nHost: x\r\n\r\n", "400 bad_request keep", ""},
		{"two spaces", "GET  /x HTTP/1.1\r\nHost: x\r\n\r\n", "400 - close", ""},
		{"a space in the target", "GET /x y HTTP/1.1\r\nHost: x\r\n\r\n", "400 - close", ""},
		{"a method with a colon", "GE:T /x HTTP/1.1\r\nHost: x\r\n\r\n", "400 - close", ""},
		{"an empty line before", "\r\nGET /x HTTP/1.1\r\nHost: x\r\n\r\n", "400 - close", ""},
		{"CONNECT", "CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n", "400 bad_request keep", ""},
		{"a path of no scheme's", "GET x:..%2fadmin HTTP/1.1\r\nHost: x\r\n\r\n", "400 bad_request keep", ""},
		{"asterisk", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "400 bad_path keep", ""},
		{"asterisk for GET", "GET * HTTP/1.1\r\nHost: x\r\n\r\n", "400 bad_path keep", ""},
		{"no slash", "GET x HTTP/1.1\r\nHost: x\r\n\r\n", "400 - close", ""},
		{"authority for GET", "GET x:80 HTTP/1.1\r\nHost: x\r\n\r\n", "400 bad_request keep", ""},

		// Host: the one that counts for routing is the one that is told.
		{"absolute form", "GET http://x/x HTTP/1.1\r\nHost: x\r\n\r\n", "200 keep", get("")},
		{"absolute form and another Host", "GET http://x/x HTTP/1.1\r\nHost: other\r\n\r\n", "200 keep", get("")}, // RFC 9112 §3.2.2
		{"absolute form of another scheme", "GET ftp://x/x HTTP/1.1\r\nHost: x\r\n\r\n", "400 bad_request keep", ""},
		{"absolute form of https", "GET https://x/x HTTP/1.1\r\nHost: x\r\n\r\n", "200 keep", get("")},
		{"absolute form with a user", "GET http://u:p@x/x HTTP/1.1\r\nHost: x\r\n\r\n", "400 bad_request keep", ""},
		{"absolute form without a host", "GET http:///x HTTP/1.1\r\nHost: x\r\n\r\n", "400 bad_request keep", ""},
		{"two Hosts", "GET /x HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "400 - close", ""},
		{"the same Host twice", "GET /x HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", "400 - close", ""},
		{"no Host", "GET /x HTTP/1.1\r\n\r\n", "400 - close", ""},
		{"an empty Host", "GET /x HTTP/1.1\r\nHost:\r\n\r\n", "400 bad_request keep", ""},
		{"Host with a user", "GET /x HTTP/1.1\r\nHost: u@x\r\n\r\n", "400 - close", ""},
		{"Host with a comma", "GET /x HTTP/1.1\r\nHost: x,y\r\n\r\n", "400 bad_request keep", ""},
		{"Host with a slash", "GET /x HTTP/1.1\r\nHost: x/y\r\n\r\n", "400 - close", ""},
		{"Host with a space", "GET /x HTTP/1.1\r\nHost: x y\r\n\r\n", "400 - close", ""},
		{"Host with a percent sign", "GET /x HTTP/1.1\r\nHost: x%2fy\r\n\r\n", "400 bad_request keep", ""},
		{"Host with letters for a port", "GET /x HTTP/1.1\r\nHost: x:y\r\n\r\n", "400 bad_request keep", ""},
		{"Host with two ports", "GET /x HTTP/1.1\r\nHost: x:1:2\r\n\r\n", "400 bad_request keep", ""},
		{"Host with a port too high", "GET /x HTTP/1.1\r\nHost: x:65536\r\n\r\n", "400 bad_request keep", ""},
		{"Host with an empty port", "GET /x HTTP/1.1\r\nHost: x:\r\n\r\n", "200 keep", get("")},
		{"Host in capitals with a dot", "GET /x HTTP/1.1\r\nHost: X.\r\n\r\n", "200 keep", get("")},
		{"another path in a header", "GET /x HTTP/1.1\r\nHost: x\r\nX-Original-URL: /admin\r\nX_Rewrite_Url: /admin\r\n\r\n", "200 keep", get("")}, // CVE-2018-14773
		{"X-Forwarded-Host", "GET /x HTTP/1.1\r\nHost: x\r\nX-Forwarded-Host: y\r\nForwarded: host=y\r\nX-Host: z\r\n\r\n", "200 keep", "GET /x HTTP/1.1\r\nHost: x\r\n" + forwardedHead + "X-Host: z\r\n\r\n"},

		// Upgrades: an offer of h2c is as if it were not there (RFC 9110 §7.8).
		{"h2c", "GET /x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n", "200 keep", get("")},
		{"h2c in capitals that Connection does not name", "GET /x HTTP/1.1\r\nHost: x\r\nUpgrade: H2C\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n", "200 keep", get("")},
		{"h2c with a body", post("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nContent-Length: 5\r\n", "hello"), "200 keep", asLength},
		{"h2c with chunks", post("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nTransfer-Encoding: chunked\r\n", chunks), "200 keep", asChunks},
		{"HTTP/2 after an offer of it", "GET /x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "200 close", get("")},
		{"h2c or WebSocket", "GET /x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c, websocket\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n", "200 keep", upgrade},
		{"WebSocket or h2c in two lines", "GET /x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n", "200 keep", upgrade},
		{"an empty offer", "GET /x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade:\r\n\r\n", "200 keep", get("")},
		{"h2c or TLS", "GET /x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c, TLS/1.0\r\n\r\n", "400 bad_request keep", ""},
		{"HTTP2-Settings alone", "GET /x HTTP/1.1\r\nHost: x\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n", "200 keep", get("Http2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n")},
		{"TLS", "OPTIONS /x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: TLS/1.0\r\n\r\n", "400 bad_request keep", ""},

		// Connection names nothing that the gateway says, and no framing.
		{"Connection of headers of the gateway's", "GET /x HTTP/1.1\r\nHost: x\r\nConnection: x-forwarded-for, x-forwarded-host, x-jwt-sub, x-request-id, traceparent, host\r\n\r\n", "200 keep", get("")},
		{"Connection of Content-Length", post("Connection: content-length\r\nContent-Length: 5\r\n", "hello"), "200 keep", asLength},
		{"Connection of Transfer-Encoding", post("Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n", chunks), "200 keep", asChunks},
		{"an empty Connection first", "GET /x HTTP/1.1\r\nHost: x\r\nConnection:\r\nConnection: a\r\nA: b\r\n\r\n", "200 keep", get("")}, // CVE-2021-33197
		{"Connection of a cookie", "GET /x HTTP/1.1\r\nHost: x\r\nConnection: cookie\r\nCookie: a=b\r\n\r\n", "200 keep", get("")},
		{"hop-by-hop headers", "GET /x HTTP/1.1\r\nHost: x\r\nKeep-Alive: 1\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eDp4\r\nTE: gzip\r\n\r\n", "200 keep", get("")},
	}
}

// twins are the lines in which no two requests are alike.
var twins = regexp.MustCompile(`(?m)^(X-Request-Id|Traceparent): .*\r\n`)

func TestOneReadingOfEveryRequest(t *testing.T) {
	t.Parallel()
	b, behind := newBackend(t), newBackend(t)
	yaml := `
routes:
  - match: /{rest...}
    public: true
    upstream: BACKEND
`
	direct := start(t, fill(yaml, "BACKEND", b.URL))
	through := start(t, fill(yaml, "BACKEND", newNginx(t, behind.URL)))
	for _, r := range readings() {
		if got := direct.read(t, r, b); got != r.got && (r.got != cut || got != "") {
			t.Errorf("%s: %.300q:\nthe backend got  %.600q,\nnot              %.600q", r.name, r.raw, got, r.got)
		}
		// nginx reads what the gateway wrote as the same request.
		got := through.read(t, r, behind)
		if want, seen := whatOf(t, r.got), whatOf(t, got); got != cut && want != seen {
			t.Errorf("%s: %.300q:\nnginx read %.300q, not %.300q", r.name, r.raw, seen, want)
		}
	}
}

// read sends the request, fails the test unless the outcome is the allowed one,
// and returns what the backend got.
func (g *gateway) read(t *testing.T, r reading, b *backend) string {
	t.Helper()
	before := b.count()
	conn := dial(t, g.listen)
	defer func() { _ = conn.Close() }()
	go func() { _, _ = io.WriteString(conn, r.raw) }()
	answers := bufio.NewReader(conn)
	resp, err := http.ReadResponse(answers, nil)
	if err != nil {
		t.Fatalf("%s: %.300q: no answer: %v", r.name, r.raw, err)
	}
	body, _ := io.ReadAll(resp.Body) // what net/http refuses ends in a reset if more was sent
	outcome := describe(answer{resp.StatusCode, resp.Header, string(body)})
	outcome += g.next(t, conn, answers)
	if outcome != r.outcome {
		t.Errorf("%s: %.300q:\nit became %s, not %s", r.name, r.raw, outcome, r.outcome)
	}
	var got string
	for _, request := range b.all()[before:] {
		if strings.HasPrefix(request.raw, "GET /next ") {
			continue
		}
		got += twins.ReplaceAllString(request.raw, "")
	}
	if strings.Contains(got, "Transfer-Encoding: chunked\r\n") && !strings.Contains(got, "\r\n0\r\n") {
		return cut
	}
	return got
}

func describe(a answer) string {
	var p problem
	switch {
	case a.status < 400:
		return itoa(int64(a.status))
	case a.header.Get("Content-Type") != "application/problem+json" || json.Unmarshal([]byte(a.body), &p) != nil:
		return itoa(int64(a.status)) + " -"
	}
	return itoa(int64(a.status)) + " " + p.Reason
}

// next says whether the connection serves one more request, and that alone.
func (g *gateway) next(t *testing.T, conn net.Conn, answers *bufio.Reader) string {
	t.Helper()
	_, _ = io.WriteString(conn, "GET /next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	resp, err := http.ReadResponse(answers, nil)
	if err != nil {
		return " close"
	}
	_, _ = io.ReadAll(resp.Body)
	if rest, _ := io.ReadAll(answers); len(rest) > 0 || resp.StatusCode != http.StatusOK {
		t.Errorf("the next request became %d, and then came %.200q", resp.StatusCode, rest)
	}
	return " keep"
}

// whatOf returns a request's line and its body without framing.
func whatOf(t *testing.T, raw string) string {
	t.Helper()
	if raw == "" || raw == cut {
		return ""
	}
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
	if err != nil {
		t.Errorf("%.300q: %v", raw, err)
		return ""
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Errorf("%.300q: %v", raw, err)
	}
	return firstLine(raw) + " " + r.Host + " " + string(body)
}

// TestOverridesDoNotChangeTheMethod: a backend that takes another method from a
// header or the query does so only where that method may do the same.
func TestOverridesDoNotChangeTheMethod(t *testing.T) {
	t.Parallel()
	p, b := newIDP(t), newBackend(t)
	g := start(t, fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
    token_from:
      - header
      - cookie: session
routes:
  - match: GET,POST /heroes/{id}
    public: true
    upstream: BACKEND
  - match: DELETE /heroes/{id}
    privileges: [DELETE_HERO]
    upstream: BACKEND
  - match: /any/{id}
    public: true
    upstream: BACKEND
  - match: /mine/{id}
    privileges: []
    upstream: BACKEND
  - match: /mixed/{id}
    public: true
    upstream: BACKEND
  - match: DELETE /mixed/{id}
    privileges: [DELETE_HERO]
    upstream: BACKEND
`, "IDP", p.URL, "BACKEND", b.URL))
	for _, override := range []string{
		"X-HTTP-Method-Override: DELETE", "x-http-method-override: delete", "X-HTTP-Method: DELETE", "X-Method-Override: DELETE",
		"X_HTTP_Method_Override: DELETE", "X.HTTP.Method.Override: DELETE", "X~HTTP~Method`Override: DELETE", "X-HTTP-Method-Override: PUT", "X-HTTP-Method-Override: POST\r\nX-HTTP-Method-Override: DELETE",
		"X-HTTP-Method-Override: POST, DELETE", "X-HTTP-Method-Override: CONNECT",
	} {
		g.do(t, "POST /heroes/1", "Content-Length: 0", override).refused(t, http.StatusBadRequest, "bad_request")
	}
	for _, query := range []string{"_method=DELETE", "a=b&_method=delete", "%5fmethod=DELETE", "_%6dethod=DELETE", "_method=POST&_method=DELETE",
		"a;_method=DELETE", "_method=DELETE;a", "_method=DELETE%", "_METHOD=DELETE", "X-HTTP-Method-Override=DELETE", "x-http-method=DELETE",
		".method=DELETE", "+_method=DELETE", "%20.method=DELETE", "_method%00x=DELETE", "_method%00%zz=DELETE", // as PHP reads names
	} {
		g.do(t, "POST /heroes/1?"+query, "Content-Length: 0").refused(t, http.StatusBadRequest, "bad_request")
	}
	// Of a list some frameworks take the first, some the last.
	for _, list := range []string{"DELETE, x", "x,delete", "DELETE\r\nX-HTTP-Method-Override: x", "A,B,C,D,E,F,G,H,I"} {
		g.do(t, "POST /mixed/1", "Content-Length: 0", "X-HTTP-Method-Override: "+list).refused(t, http.StatusBadRequest, "bad_request")
	}
	g.do(t, "POST /any/1", "Content-Length: 0", "X-HTTP-Method-Override: CONNECT").refused(t, http.StatusBadRequest, "bad_request")
	// A safe method needs no proof of origin, and what it is taken for would.
	g.do(t, "GET /mine/1?_method=DELETE", "Cookie: session="+p.token(t), "Sec-Fetch-Site: cross-site").refused(t, http.StatusForbidden, "cross_origin")
	b.untouched(t)
	g.do(t, "POST /heroes/1", "Content-Length: 0", "X-HTTP-Method-Override: GET").is(t, http.StatusOK)
	b.last(t).has(t, "X-Http-Method-Override", "GET")
	g.do(t, "POST /mixed/1", "Content-Length: 0", "X-HTTP-Method-Override: PUT, PATCH,PUT,put, A,B,C,D,E,F,").is(t, http.StatusOK)
	g.do(t, "POST /any/1?_method=DELETE", "Content-Length: 0", "X-HTTP-Method-Override: DELETE").is(t, http.StatusOK)
	b.last(t).has(t, "X-Http-Method-Override", "DELETE")
	g.do(t, "GET /mine/1", "Cookie: session="+p.token(t), "Sec-Fetch-Site: cross-site").is(t, http.StatusOK)
}
