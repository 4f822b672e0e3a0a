package gateway

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
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
