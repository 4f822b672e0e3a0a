package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

var errStalled = errors.New("no progress in time")

// watchdog ends an exchange that makes no progress: timeout to the response's
// headers once the request is sent, idle between bytes of either body, nothing
// once upgraded. One timer serves all three.
type watchdog struct {
	timeout, idle time.Duration
	cancel        context.CancelCauseFunc
	conn          *http.ResponseController // the client's side

	mu        sync.Mutex // guards timer against the phases' races: the request's body and the response move at once
	timer     *time.Timer
	stopped   bool
	sent      bool        // the request's body is sent whole
	responded bool        // the response's headers are there
	reading   atomic.Bool // the client's body is being waited for
	blame     atomic.Bool // the client was being waited for when the time was over
}

func watch(cancel context.CancelCauseFunc, w http.ResponseWriter, hasBody bool, timeout, idle time.Duration) *watchdog {
	d := &watchdog{timeout: timeout, idle: idle, cancel: cancel, conn: http.NewResponseController(w), sent: !hasBody}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.timer = time.AfterFunc(d.patience(), d.bite)
	return d
}

// patience is how long the exchange may stand still in its present phase.
func (d *watchdog) patience() time.Duration {
	if d.sent && !d.responded {
		return d.timeout
	}
	return d.idle
}

// progress starts the time anew; change, if not nil, enters another phase.
func (d *watchdog) progress(change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if change != nil {
		change()
	}
	if !d.stopped {
		d.timer.Reset(d.patience())
	}
}

func (d *watchdog) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopped = true
	d.timer.Stop()
}

func (d *watchdog) bite() { d.end(errStalled) }

// end ends an exchange that is not over or upgraded.
func (d *watchdog) end(cause error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		return
	}
	d.stopped = true
	d.timer.Stop()
	d.blame.Store(d.reading.Load())
	d.cancel(cause)
	// Ending the context does not wake a Read from or a Write to the client;
	// a deadline does. Before the headers there is still a refusal to write.
	// Once the body was read whole, net/http itself reads ahead, and a deadline
	// would look as if the client had gone.
	if !d.sent {
		_ = d.conn.SetReadDeadline(time.Unix(1, 0))
	}
	if d.responded {
		_ = d.conn.SetWriteDeadline(time.Unix(1, 0))
	}
}

// stopReading wakes a Read of the client's body. A transport may come to ask
// for it when the exchange is over, and its connection not to be touched.
func (d *watchdog) stopReading() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.stopped && !d.sent {
		_ = d.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// requestBody is the client's body on its way to the target.
type requestBody struct {
	io.ReadCloser
	dog    *watchdog
	onEOF  func()
	whole  atomic.Bool           // it was read to its end
	failed atomic.Pointer[error] // what reading it from the client gave, if not EOF
	closed atomic.Bool           // no more of it is wanted
	letGo  *atomic.Bool          // set when it is closed before its end
}

func (b *requestBody) Read(p []byte) (int, error) {
	b.dog.reading.Store(true)
	n, err := b.ReadCloser.Read(p)
	b.dog.reading.Store(false)
	switch err {
	case nil:
		b.dog.progress(nil)
	case io.EOF:
		b.whole.Store(true)
		b.onEOF()
		b.dog.progress(func() { b.dog.sent = true })
	default:
		if !b.closed.Load() {
			b.failed.Store(&err)
		}
	}
	return n, err
}

// Close implements io.Closer. A Read that waits for the client must not hold it
// up: after an early response an HTTP/2 transport waits for it in turn, and the
// end of the response with it.
func (b *requestBody) Close() error {
	b.closed.Store(true)
	if !b.whole.Load() {
		b.letGo.Store(true)
	}
	b.dog.stopReading()
	return b.ReadCloser.Close()
}

// responseBody is the target's body on its way to the client.
type responseBody struct {
	io.ReadCloser
	dog   *watchdog
	onEnd func(error) // io.EOF, or why it broke off
}

func (b *responseBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.onEnd(err)
	}
	b.dog.progress(nil)
	return n, err
}
