package gateway

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// TestAnUploadIsReadNoMore: a transport that comes for more of a body when its
// request has ended is told so, and does not wait for ever.
func TestAnUploadIsReadNoMore(t *testing.T) {
	r := &http.Request{ProtoMajor: 2, ContentLength: -1, Body: io.NopCloser(strings.NewReader("more"))}
	u := holdUpload(r)
	u.end(func() { t.Error("flushed, though nobody reads") })
	read := make(chan error, 1)
	go func() {
		_, err := r.Body.Read(make([]byte, 1))
		read <- err
	}()
	select {
	case err := <-read:
		if err != http.ErrBodyReadAfterClose {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it waits")
	}
}

// An answer that comes before its upload was sent, to a client that opens no
// window for it, ends all the same, and with it the wait of a reload.
func TestAnAnswerThatNobodyTakesEnds(t *testing.T) {
	b := newBench(t, func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.WriteString(w, "early")
	}, `
server:
  write_timeout: 300ms
`)
	front := httptest.NewUnstartedServer(b.gateway)
	front.Config.Protocols = new(http.Protocols)
	front.Config.Protocols.SetUnencryptedHTTP2(true)
	front.Start()
	t.Cleanup(front.Close)
	conn, err := net.Dial("tcp", front.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(conn, http2.ClientPreface)
	f := http2.NewFramer(conn, conn)
	_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	var fields bytes.Buffer
	coder := hpack.NewEncoder(&fields)
	for _, field := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", "/open"}, {":authority", "x"}} {
		_ = coder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: fields.Bytes(), EndHeaders: true})
	_ = f.WriteData(1, false, []byte("a"))
	for answered := false; ; {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if _, headers := frame.(*http2.HeadersFrame); headers && !answered {
			answered = true
			old := b.gateway.current.Load()
			if err := b.gateway.Reload(t.Context(), b.config("  - match: /more\n    public: true\n    upstream: http://127.0.0.1:1\n")); err != nil {
				t.Fatal(err)
			}
			select {
			case <-old.drained:
			case <-time.After(10 * time.Second):
				t.Fatal("the configuration of before the reload is held")
			}
		}
		if reset, ok := frame.(*http2.RSTStreamFrame); ok {
			if !answered || reset.ErrCode != http2.ErrCodeInternal {
				t.Errorf("answered: %v; %v", answered, reset.ErrCode)
			}
			return
		}
	}
}
