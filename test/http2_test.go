package test

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// stream is one HTTP/2 stream by hand.
type stream struct {
	framer *http2.Framer
	fields bytes.Buffer
	coder  *hpack.Encoder
}

func (g *gateway) frames(t *testing.T) *stream {
	t.Helper()
	return framesOn(t, dial(t, g.listen))
}

func framesOn(t *testing.T, conn net.Conn) *stream {
	t.Cleanup(func() { _ = conn.Close() })
	_, _ = io.WriteString(conn, http2.ClientPreface)
	s := &stream{framer: http2.NewFramer(conn, conn)}
	s.framer.AllowIllegalWrites = true
	s.coder = hpack.NewEncoder(&s.fields)
	s.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = s.framer.WriteSettings()
	return s
}

// ask sends one request, given as "name: value" fields, and returns the status,
// or 0 if the stream or the connection is broken off.
func (s *stream) ask(body string, fields ...string) (status string) {
	for _, f := range fields {
		at := strings.Index(f[1:], ": ") + 1
		_ = s.coder.WriteField(hpack.HeaderField{Name: f[:at], Value: f[at+2:]})
	}
	_ = s.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: s.fields.Bytes(), EndHeaders: true, EndStream: body == ""})
	if body != "" {
		_ = s.framer.WriteData(1, true, []byte(body))
	}
	for {
		f, err := s.framer.ReadFrame()
		if err != nil {
			return "0"
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			return f.PseudoValue("status")
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return "0"
		}
	}
}

// TestOddHTTP2IsRefused: what HTTP/1.1 cannot say, or says otherwise, must not
// become an HTTP/1.1 request.
func TestOddHTTP2IsRefused(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	g := start(t, fill(`
routes:
  - match: /{rest...}
    public: true
    timeout: 2s
    upstream: BACKEND
`, "BACKEND", b.URL))
	usual := []string{":method: POST", ":scheme: http", ":path: /x", ":authority: x"}
	with := func(fields ...string) []string { return append(usual[:len(usual):len(usual)], fields...) }
	type odd struct {
		fields []string
		body   string
	}
	try := func(name string, c odd) {
		t.Helper()
		status := g.frames(t).ask(c.body, c.fields...)
		if status != "0" && !strings.HasPrefix(status, "4") && status != "502" && status != "501" {
			t.Errorf("%s: %s", name, status)
		}
		for _, r := range b.all() {
			if length := r.header("Content-Length"); length == nil || length[0] == itoa(int64(len(r.body))) { // else it is seen to break off
				t.Errorf("%s: it reached the backend: %q", name, r.raw)
			}
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if c.body == "" && b.bytes > 0 {
			t.Errorf("%s: %d bytes reached the backend", name, b.bytes)
		}
		b.requests = nil
	}
	for name, c := range map[string]odd{
		"a path without a slash":           {[]string{":method: GET", ":scheme: http", ":path: x", ":authority: x"}, ""}, // as CVE-2026-33186
		"a path that is a URL":             {[]string{":method: GET", ":scheme: http", ":path: http://y/x", ":authority: x"}, ""},
		"an empty path":                    {[]string{":method: GET", ":scheme: http", ":path: ", ":authority: x"}, ""},
		"a version in the query":           {[]string{":method: GET", ":scheme: http", ":path: /x?a HTTP/1.0", ":authority: x"}, ""},
		"two paths":                        {with(":path: /y"), ""},
		"a path with a line feed":          {[]string{":method: GET", ":scheme: http", ":path: /x\r\nA: b", ":authority: x"}, ""},
		"a method that is two":             {[]string{":method: GET,PUT", ":scheme: http", ":path: /x", ":authority: x"}, ""},
		"a method with a space":            {[]string{":method: GET /y HTTP/1.1", ":scheme: http", ":path: /x", ":authority: x"}, ""},
		"another host":                     {with("host: y"), ""},
		"two hosts":                        {with("host: x", "host: x"), ""},
		"a host with a user":               {[]string{":method: GET", ":scheme: http", ":path: /x", ":authority: y@x"}, ""},
		"a host with a line feed":          {[]string{":method: GET", ":scheme: http", ":path: /x", ":authority: x\r\nA: b"}, ""},
		"a value with a line feed":         {with("a: b\r\nc: d"), ""}, // as CVE-2023-27491
		"a value with NUL":                 {with("a: b\x00"), ""},
		"a name with a line feed":          {with("a\r\nb: c"), ""},
		"a name with a colon":              {with("a:b: c"), ""},
		"a name with a space":              {with("a b: c"), ""},
		"a name in capitals":               {with("A: b"), ""},
		"an unknown pseudo header":         {with(":a: b"), ""},
		"a pseudo header after the others": {[]string{":method: GET", ":scheme: http", ":path: /x", "a: b", ":authority: x"}, ""},
		"connection":                       {with("connection: content-length"), ""},
		"keep-alive":                       {with("keep-alive: 1"), ""},
		"upgrade":                          {with("upgrade: websocket"), ""},
		"te other than trailers":           {with("te: gzip"), ""},
		"CONNECT":                          {[]string{":method: CONNECT", ":authority: x:443"}, ""},
		"extended CONNECT":                 {[]string{":method: CONNECT", ":protocol: websocket", ":scheme: http", ":path: /x", ":authority: x"}, ""},
	} {
		try(name, c)
	}
	for name, c := range map[string]odd{ // afterwards: what the backend gets of these may come late
		"transfer-encoding":          {with("transfer-encoding: chunked"), "0\r\n\r\n"},
		"more than content-length":   {with("content-length: 3"), "1234"},
		"less than content-length":   {with("content-length: 30"), "1234"},
		"two content-lengths":        {with("content-length: 4", "content-length: 30"), "1234"},
		"content-length with a sign": {with("content-length: +4"), "1234"},
		"content-length of 2^64":     {with("content-length: 18446744073709551616"), "1234"},
	} {
		try(name, c)
	}
	if status := g.frames(t).ask("1234", with("content-length: 4", "te: trailers", "host: x", "cookie: a=1", "cookie: b=2")...); status != "200" {
		t.Errorf("a good request: %s", status)
	}
	b.last(t).has(t, "Cookie", "a=1; b=2")
	b.last(t).has(t, "Host", "x")
	b.last(t).has(t, "Content-Length", "4")
}

func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	g := start(t, "routes:\n  - match: /{rest...}\n    public: true\n    upstream: "+hanging(t).URL+"\n")
	s := g.frames(t)
	for {
		f, err := s.framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if settings, ok := f.(*http2.SettingsFrame); ok && !settings.IsAck() {
			if n, ok := settings.Value(http2.SettingMaxConcurrentStreams); !ok || n != 250 {
				t.Errorf("%d streams", n)
			}
			break
		}
	}
}
