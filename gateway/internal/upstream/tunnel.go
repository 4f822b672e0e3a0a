package upstream

import (
	"io"
	"net/http"
	"sync"
	"time"
)

// lastWords is how long an upgraded connection that the gateway ends may take
// to finish a frame, to tell the client, and to hear its answer.
const lastWords = time.Second

// tunnel is the target's side of an upgraded connection, as httputil copies
// from and to it. What it gives to read is all that the client receives, so
// here a close frame can be put between two frames of the target.
type tunnel struct {
	target io.ReadWriteCloser
	client *http.ResponseController

	mu       sync.Mutex
	frames   frames // as far as the target was read
	ended    bool
	farewell []byte // once ended: what the client is still to receive
	cut      *time.Timer
}

// Read implements io.Reader. Once the tunnel has ended it gives the rest of the
// frame that had begun, the close frame, and EOF.
func (t *tunnel) Read(p []byte) (int, error) {
	for {
		if n, done := t.partingWords(p); n > 0 {
			return n, nil
		} else if done {
			return 0, io.EOF
		}
		n, err := t.target.Read(p)
		if n, err, more := t.follow(p[:n], err); !more {
			return n, err
		}
	}
}

// partingWords gives the close frame if it is time for it.
func (t *tunnel) partingWords(p []byte) (n int, done bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended || !t.frames.between() {
		return 0, false
	}
	n = copy(p, t.farewell)
	t.farewell = t.farewell[n:]
	return n, len(t.farewell) == 0
}

// follow decides what of the target's bytes, and of the error that came with
// them, goes on to the client; more says that it is for partingWords to say.
func (t *tunnel) follow(p []byte, err error) (n int, _ error, more bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		for n < len(p) {
			n += t.frames.next(p[n:])
		}
		return n, err, false
	}
	if !t.frames.between() {
		n = t.frames.next(p)
	}
	if t.frames.between() {
		if t.frames.closed {
			t.farewell = nil
		}
		return n, nil, n == 0
	}
	return n, err, false
}

// Write implements io.Writer. What a client sends after the end goes nowhere,
// and is yet read: closing a connection with unread bytes resets it, and the
// close frame would be lost on the way (RFC 9293 §3.10.4).
func (t *tunnel) Write(p []byte) (int, error) {
	t.mu.Lock()
	ended := t.ended
	t.mu.Unlock()
	if ended {
		return len(p), nil
	}
	n, err := t.target.Write(p)
	if err != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.ended { // meanwhile, which is why
			return len(p), nil
		}
	}
	return n, err
}

// CloseWrite tells the target that the client sends no more.
func (t *tunnel) CloseWrite() error {
	if half, ok := t.target.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return http.ErrNotSupported
}

// Close implements io.Closer. httputil calls it when the request's context has
// ended, which is the end of the grace, or when all is over.
func (t *tunnel) Close() error {
	t.end(goingAway, "the gateway is shutting down")
	return nil
}

// end lets the client be told, and closes both sides soon.
func (t *tunnel) end(code uint16, reason string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return
	}
	t.ended = true
	if !t.frames.closed {
		t.farewell = closeFrame(code, reason)
	}
	t.cut = time.AfterFunc(lastWords, t.sever)
	if t.frames.between() {
		_ = t.target.Close() // wakes Read
	}
}

// sever ends whatever still waits for either side.
func (t *tunnel) sever() {
	_ = t.target.Close()
	_ = t.client.SetReadDeadline(time.Unix(1, 0))
	_ = t.client.SetWriteDeadline(time.Unix(1, 0))
}

// release closes the target's side when the copying is over.
func (t *tunnel) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	if t.cut != nil {
		t.cut.Stop()
	}
	_ = t.target.Close()
}
