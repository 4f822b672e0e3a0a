package test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const floodedYAML = `
server:
  ADDRESSES
  write_timeout: 1s
  idle_timeout: 2s
routes:
  - match: /hangs
    public: true
    timeout: 1m
    idle_timeout: 500ms
    upstream: HANGS
  - match: /limited
    public: true
    limits: [per_ip]
    upstream: HANGS
  - match: /{rest...}
    public: true
    upstream: BACKEND
limits:
  per_ip:
    key: [ip]
    rate: 20/1h
`

// flooded is a gateway that is attacked over HTTP/2. What it asks its hanging
// backend is counted.
type flooded struct {
	*gateway
	asked, inFlight, most atomic.Int64
	resting               float64 // goroutines
}

func startFlooded(t *testing.T) *flooded {
	t.Helper()
	f := &flooded{}
	hangs := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		f.asked.Add(1)
		now := f.inFlight.Add(1)
		defer f.inFlight.Add(-1)
		for most := f.most.Load(); now > most && !f.most.CompareAndSwap(most, now); most = f.most.Load() {
		}
		_, _ = io.Copy(io.Discard, r.Body) // net/http notices only then that the caller has gone
		hold(r, nil)
	}))
	t.Cleanup(hangs.Close)
	f.gateway = start(t, fill(floodedYAML, "HANGS", hangs.URL, "BACKEND", newBackend(t).URL))
	f.resting = f.metric(t, "go_goroutines")
	return f
}

// heard is what a flooding client was told until its connection ended.
type heard struct {
	mu      sync.Mutex
	resets  map[http2.ErrCode]int
	answers int
	goAway  http2.ErrCode
	ended   chan struct{}
}

// hear reads beside the flood.
func (s *stream) hear() *heard {
	h := &heard{resets: map[http2.ErrCode]int{}, ended: make(chan struct{})}
	go func() {
		defer close(h.ended)
		for {
			f, err := s.framer.ReadFrame()
			if err != nil {
				return
			}
			h.mu.Lock()
			switch f := f.(type) {
			case *http2.RSTStreamFrame:
				h.resets[f.ErrCode]++
			case *http2.GoAwayFrame:
				h.goAway = f.ErrCode
			case *http2.MetaHeadersFrame:
				h.answers++
			}
			h.mu.Unlock()
		}
	}()
	return h
}

func (h *heard) reset(code http2.ErrCode) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.resets[code]
}

// open begins a stream.
func (s *stream) open(id uint32, whole bool, path string) error {
	s.fields.Reset()
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", path}, {":authority", "x"}} {
		_ = s.coder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	return s.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: s.fields.Bytes(), EndHeaders: true, EndStream: whole})
}

// bounded holds the gateway to what one connection may cost, while it is under
// attack and after, and looks whether it answers others meanwhile.
func (f *flooded) bounded(t *testing.T, attack func()) {
	t.Helper()
	f.most.Store(0)
	f.asked.Store(0)
	done := make(chan struct{})
	go func() { defer close(done); attack() }()
	most := 0.0
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for attacking := true; attacking; {
		select {
		case <-done:
			attacking = false
		case <-tick.C:
		}
		if a := f.do(t, "GET /x"); a.status != http.StatusOK {
			t.Errorf("another caller gets %d", a.status)
		}
		most = max(most, f.metric(t, "go_goroutines")-f.resting)
	}
	// A handler, its watchdog, and both sides of a connection to the target,
	// where one may be given up while the next begins.
	if most > 250*8 {
		t.Errorf("%v goroutines beyond those at rest", most)
	}
	if n := f.most.Load(); n > 250 {
		t.Errorf("%d requests at a time reached the backend", n)
	}
	t.Logf("at most %v goroutines more, %d requests at a time at the backend, %d in all", most, f.most.Load(), f.asked.Load())
	f.letsGo(t)
}

// letsGo waits until nothing of an attack is left but idle connections to the
// backends.
func (f *flooded) letsGo(t *testing.T) {
	t.Helper()
	eventually(t, "all is let go", func() bool {
		return f.inFlight.Load() == 0 && f.metric(t, `gatehouse_connections{state="active"}`) == 0 && f.metric(t, "go_goroutines") <= f.resting+100
	})
}

// http2Errors is the series of one of net/http's words.
func http2Errors(word string) string { return `gatehouse_http2_errors_total{error="` + word + `"}` }

// TestResetStreamsAreBounded: a reset stream frees its place among those that
// may be open, and must not thereby let one more request in while the old one
// is at work.
func TestResetStreamsAreBounded(t *testing.T) {
	t.Parallel()
	const streams = 1500 // more than may be open and wait together
	f := startFlooded(t)
	for name, c := range map[string]struct {
		reset func(s *stream, id uint32) error
		word  string // by which net/http counts it
	}{
		// CVE-2023-44487
		"by the client": {func(s *stream, id uint32) error { return s.framer.WriteRSTStream(id, http2.ErrCodeCancel) }, ""},
		// CVE-2025-8671: what is not allowed makes the server do it.
		"by a window too large": {func(s *stream, id uint32) error { return s.framer.WriteWindowUpdate(id, 1<<31-1) }, "stream_FLOW_CONTROL_ERROR_bad_flow"},
		"by a window update of 0": {func(s *stream, id uint32) error {
			return s.framer.WriteRawFrame(http2.FrameWindowUpdate, 0, id, make([]byte, 4))
		}, "frame_windowupdate_zero_inc_stream"},
		"by a stream upon itself": {func(s *stream, id uint32) error {
			return s.framer.WritePriority(id, http2.PriorityParam{StreamDep: id})
		}, "stream_PROTOCOL_ERROR_priority"},
		"by data after the end":     {func(s *stream, id uint32) error { return s.framer.WriteData(id, false, []byte("x")) }, "stream_STREAM_CLOSED_closed"},
		"by a header after the end": {func(s *stream, id uint32) error { return s.open(id, true, "/hangs") }, "stream_STREAM_CLOSED_headers_half_closed"},
		"by a frame of a wrong length": {func(s *stream, id uint32) error {
			return s.framer.WriteRawFrame(http2.FramePriority, 0, id, make([]byte, 4))
		}, "frame_priority_bad_length"},
	} {
		t.Run(name, func(t *testing.T) {
			s := f.frames(t)
			h := s.hear()
			f.bounded(t, func() {
				for id := uint32(1); id < 2*streams; id += 2 {
					if s.open(id, true, "/hangs") != nil || c.reset(s, id) != nil {
						break
					}
				}
				_ = s.framer.WriteGoAway(0, http2.ErrCodeNo, nil)
				<-h.ended
			})
			if c.word != "" && f.metric(t, http2Errors(c.word)) == 0 {
				t.Errorf("%s was not counted", c.word)
			}
		})
	}
	f.counts(t, `gatehouse_requests_total{reason="client_gone",route="/hangs",status="499"}`, 1)
}

// TestResetStreamsCountForLimits: each of them is a request, however short.
func TestResetStreamsCountForLimits(t *testing.T) {
	t.Parallel()
	f := startFlooded(t)
	s := f.frames(t)
	s.hear()
	for id := uint32(1); id < 2000; id += 2 {
		if s.open(id, true, "/limited") != nil || s.framer.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
			break
		}
	}
	f.counts(t, `gatehouse_limit_decisions_total{limit="per_ip",outcome="refused"}`, 1)
	eventually(t, "all is let go", func() bool { return f.inFlight.Load() == 0 })
	if n := f.asked.Load(); n > 20 {
		t.Errorf("%d requests reached the backend", n)
	}
}

// TestStreamsAreCapped: of the streams that may be open none is refused, and
// each one more is.
func TestStreamsAreCapped(t *testing.T) {
	t.Parallel()
	f := startFlooded(t)
	s := f.frames(t)
	h := s.hear()
	id := uint32(1)
	open := func(n int) {
		for ; n > 0; n, id = n-1, id+2 {
			if err := s.open(id, false, "/x"); err != nil {
				t.Fatal(err)
			}
		}
	}
	open(250)
	open(5) // not acknowledged yet: it may not know the bound (RFC 9113 §5.1.2)
	eventually(t, "streams above the cap are refused", func() bool { return h.reset(http2.ErrCodeRefusedStream) == 5 })
	f.counts(t, http2Errors("stream_REFUSED_STREAM_over_max_streams_race"), 5)
	if err := s.framer.WriteSettingsAck(); err != nil {
		t.Fatal(err)
	}
	open(5)
	eventually(t, "it should know better", func() bool { return h.reset(http2.ErrCodeProtocol) == 5 })
	f.counts(t, http2Errors("stream_PROTOCOL_ERROR_over_max_streams"), 5)
	for end := uint32(1); end < 500; end += 2 {
		if err := s.framer.WriteData(end, true, nil); err != nil {
			t.Fatal(err)
		}
	}
	answers := func() int { h.mu.Lock(); defer h.mu.Unlock(); return h.answers }
	eventually(t, "all of the 250 are answered", func() bool { return answers() == 250 })
	if err := s.open(id, true, "/x"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "and then one more", func() bool { return answers() == 251 })
	if h.goAway != http2.ErrCodeNo {
		t.Errorf("the connection ended with %v", h.goAway)
	}
}

// TestAnswersThatNobodyTakesAreBounded: a client that opens no window for what
// it asks for must not keep it, whatever it answers otherwise.
func TestAnswersThatNobodyTakesAreBounded(t *testing.T) {
	t.Parallel()
	f := startFlooded(t)
	s := f.frames(t)
	if err := s.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); err != nil {
		t.Fatal(err)
	}
	h := s.hear()
	for id := uint32(1); id < 500; id += 4 {
		if s.open(id, true, "/..") != nil || s.open(id+2, true, "/x") != nil {
			t.Fatal("the connection ends")
		}
	}
	eventually(t, "each stream is reset", func() bool { return h.reset(http2.ErrCodeInternal) == 250 })
	f.letsGo(t)
}

// TestFloodsOfFramesAreBounded: frames that cost their sender nothing must not
// fill the gateway's memory, nor keep a connection without a request.
func TestFloodsOfFramesAreBounded(t *testing.T) {
	t.Parallel()
	f := startFlooded(t)
	raw := func(write func(*http2.Framer)) string {
		var one bytes.Buffer
		f := http2.NewFramer(&one, nil)
		f.AllowIllegalWrites = true
		write(f)
		return one.String()
	}
	begin := func(s *stream, whole bool) {
		s.fields.Reset()
		for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", "/hangs"}, {":authority", "x"}} {
			_ = s.coder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
		}
		_ = s.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: s.fields.Bytes(), EndHeaders: whole})
	}
	const most = 1 << 20 // bytes of what does not end its connection
	for _, c := range []struct {
		name   string
		first  func(s *stream)
		frames string // again and again; what is answered is not read
		ends   bool   // the connection; else it costs time, and its sender as much
	}{
		// CVE-2024-27316, CVE-2023-45288: a header without end.
		{"CONTINUATION", func(s *stream) { begin(s, false) }, raw(func(f *http2.Framer) {
			var block bytes.Buffer
			_ = hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("y", 1000), Sensitive: true})
			_ = f.WriteContinuation(1, false, block.Bytes())
		}), true},
		{"empty CONTINUATION", func(s *stream) { begin(s, false) }, raw(func(f *http2.Framer) { _ = f.WriteContinuation(1, false, nil) }), true},
		{"PING", func(*stream) {}, raw(func(f *http2.Framer) { _ = f.WritePing(false, [8]byte{}) }), true},
		{"SETTINGS", func(*stream) {}, raw(func(f *http2.Framer) {
			_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
		}), false},
		{"empty DATA", func(s *stream) { begin(s, true) }, raw(func(f *http2.Framer) { _ = f.WriteData(1, false, nil) }), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			peak := f.peak(t)
			conn := dial(t, f.listen)
			s := framesOn(t, conn)
			c.first(s)
			many := strings.Repeat(c.frames, 1000)
			for sent := 0; c.ends || sent < most; {
				n, err := io.WriteString(conn, many)
				if sent += n; errors.Is(err, os.ErrDeadlineExceeded) && c.ends {
					t.Errorf("it goes on after %d bytes", sent)
				}
				if err != nil {
					t.Logf("%v after %d bytes", err, sent)
					break
				}
			}
			if a := f.do(t, "GET /x"); a.status != http.StatusOK {
				t.Errorf("another caller gets %d", a.status)
			}
			if c.name == "empty DATA" {
				f.counts(t, `gatehouse_requests_total{reason="bad_request",route="/hangs",status="400"}`, 1)
			}
			if more := f.peak(t) - peak; more > 64 {
				t.Errorf("%d MiB more", more)
			}
		})
	}
	f.letsGo(t)
}

// TestHeadersAreBoundedUnpacked: a few bytes of HPACK can stand for megabytes
// (CVE-2016-6581).
func TestHeadersAreBoundedUnpacked(t *testing.T) {
	t.Parallel()
	f := startFlooded(t)
	peak := f.peak(t)
	s := f.frames(t)
	h := s.hear()
	for _, field := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":path", "/x"}, {":authority", "x"}} {
		_ = s.coder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	for range 16_000 { // the first is put into the table, each other one a byte
		_ = s.coder.WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("y", 4000)})
	}
	block := s.fields.Bytes()
	if len(block) > 32_000 {
		t.Fatalf("%d bytes are no bomb", len(block))
	}
	first := min(len(block), 16_000)
	_ = s.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:first], EndStream: true})
	_ = s.framer.WriteContinuation(1, true, block[first:])
	receive(t, "the end of the connection", h.ended)
	if more := f.peak(t) - peak; more > 32 {
		t.Errorf("64 MB of headers took %d MiB", more)
	}
	f.do(t, "GET /x").is(t, http.StatusOK)
}

// TestHTTP2ConnectionsAreCapped: as those of HTTP/1.1 are.
func TestHTTP2ConnectionsAreCapped(t *testing.T) {
	t.Parallel()
	g := start(t, fill("server:\n  ADDRESSES\n  max_connections: 2\nroutes:\n  - match: /{rest...}\n    public: true\n    upstream: BACKEND\n", "BACKEND", newBackend(t).URL))
	usual := []string{":method: GET", ":scheme: http", ":path: /x", ":authority: x"}
	for range 2 {
		if status := g.frames(t).ask("", usual...); status != "200" {
			t.Errorf("%s", status)
		}
	}
	if status := g.frames(t).ask("", usual...); status != "0" {
		t.Errorf("a third connection gets %s", status)
	}
	g.counts(t, "gatehouse_connections_refused_total", 1)
}
