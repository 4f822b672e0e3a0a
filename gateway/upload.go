package gateway

import (
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// uploadPause is how long the end of a request waits for a Read of its body
// that is under way: while a client sends at full speed it returns at once.
const uploadPause = time.Millisecond

// upload is the body of an HTTP/2 request whose response may be there before
// all of it. A transport goes on reading such a body beside the response.
//
// Two things must not happen then. A Read that takes something after the
// handler returned makes net/http's server send a WINDOW_UPDATE for a stream
// that ends, and panic, which ends the client's connection with all of its
// streams (golang/go#56940). And bytes that come for a body that was closed
// make it reset the stream, with what is left of the response.
type upload struct {
	io.ReadCloser
	reading chan struct{} // holds a value during a Read
	over    atomic.Bool
}

// holdUpload has the request's body wait for [upload.end].
func holdUpload(r *http.Request) *upload {
	if r.ProtoMajor != 2 || r.ContentLength == 0 {
		return nil
	}
	u := &upload{ReadCloser: r.Body, reading: make(chan struct{}, 1)}
	r.Body = u
	return u
}

// Read implements io.Reader.
func (u *upload) Read(p []byte) (int, error) {
	u.reading <- struct{}{}
	defer func() { <-u.reading }()
	if u.over.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	return u.ReadCloser.Read(p)
}

// Close implements io.Closer. It wakes no Read: the stream is still to carry
// the response.
func (u *upload) Close() error {
	u.over.Store(true)
	return nil
}

// end returns when nothing is read any more; flush is what is written before a
// Read that still waits for the client is broken off. A nil upload has no end.
func (u *upload) end(flush func()) {
	if u == nil {
		return
	}
	u.over.Store(true)
	defer func() { <-u.reading }() // a transport may still come, and is told that it is over
	select {
	case u.reading <- struct{}{}:
		return
	default:
	}
	flush()
	pause := time.NewTimer(uploadPause)
	defer pause.Stop()
	select {
	case u.reading <- struct{}{}:
	case <-pause.C:
		_ = u.ReadCloser.Close()
		u.reading <- struct{}{}
	}
}
