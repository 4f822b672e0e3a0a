package upstream

import (
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
// once upgraded. One timer serves all three, and the lease's first question.
//
// Setting a timer takes longer than looking at the clock, and most exchanges
// are over before any is due: one that goes off too soon is set again.
type watchdog struct {
	timeout, idle time.Duration
	ending        *ending
	conn          http.ResponseController // the client's side
	http1         bool                    // the client's protocol; in HTTP/2 what comes after a read deadline resets the stream, and the response with it

	mu        sync.Mutex // guards what follows: the request's body and the response move at once
	timer     *time.Timer
	due       time.Time // when it goes off
	moved     time.Time // when there last was progress
	lease     func()    // asked at expires; nil: no more
	expires   time.Time
	stopped   bool
	sent      bool        // the request's body is sent whole
	responded bool        // the response's headers are there
	reading   atomic.Bool // the client's body is being waited for
	blame     atomic.Bool // the client was being waited for when the time was over
}

// watch begins to watch. With lease, that is called once when lasts is over,
// in a goroutine of its own, unless the dog was stopped before.
func (d *watchdog) watch(lasts time.Duration, lease func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.moved = time.Now()
	d.lease, d.expires = lease, d.moved.Add(lasts)
	d.due = d.next()
	d.timer = time.AfterFunc(d.due.Sub(d.moved), d.bite)
}

// next is when something has to be done if nothing moves. mu is held.
func (d *watchdog) next() time.Time {
	at := d.moved.Add(d.patience())
	if d.lease != nil && d.expires.Before(at) {
		at = d.expires
	}
	return at
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
	if d.stopped {
		return
	}
	d.moved = time.Now()
	if at := d.next(); at.Before(d.due) {
		d.due = at
		d.timer.Reset(at.Sub(d.moved))
	}
}

func (d *watchdog) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopped = true
	d.timer.Stop()
}

// retire is stop. It returns when the lease was to be asked about; zero if it
// was, or there is none.
func (d *watchdog) retire() (lease time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopped = true
	d.timer.Stop()
	if d.lease != nil {
		lease = d.expires
	}
	return lease
}

// bite runs when the timer goes off.
func (d *watchdog) bite() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		return
	}
	now := time.Now()
	if now.Sub(d.moved) >= d.patience() {
		d.finish(errStalled)
		return
	}
	if d.lease != nil && !now.Before(d.expires) {
		go d.lease()
		d.lease = nil
	}
	d.due = d.next()
	d.timer.Reset(d.due.Sub(now))
}

// end ends an exchange that is not over or upgraded.
func (d *watchdog) end(cause error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.stopped {
		d.finish(cause)
	}
}

// finish is end; mu is held.
func (d *watchdog) finish(cause error) {
	d.stopped = true
	d.timer.Stop()
	d.blame.Store(d.reading.Load())
	d.ending.end(cause)
	// That does not wake a Read from or a Write to the client; a deadline does.
	// Before the headers there is still a refusal to write.
	// Once the body was read whole, net/http itself reads ahead, and a deadline
	// would look as if the client had gone.
	d.wakeReader()
	if d.responded {
		_ = d.conn.SetWriteDeadline(time.Unix(1, 0))
	}
}

// stopReading wakes a Read of the client's body. A transport may come to ask
// for it when the exchange is over, and its connection not to be touched.
func (d *watchdog) stopReading() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.stopped {
		d.wakeReader()
	}
}

// wakeReader ends a Read of the client's body. mu is held.
func (d *watchdog) wakeReader() {
	if !d.sent && (d.http1 || !d.responded) {
		_ = d.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// sendingPause is how long an HTTP/2 client that sends at full speed takes at
// most until a Read of its body has something, so that it need not be woken.
const sendingPause = time.Millisecond

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
	switch {
	case b.whole.Load():
	case b.dog.http1:
		b.letGo.Store(true)
		b.dog.stopReading()
	default:
		time.AfterFunc(sendingPause, b.dog.stopReading)
	}
	return b.ReadCloser.Close()
}

// responseBody is the target's body on its way to the client.
type responseBody struct {
	io.ReadCloser
	dog     *watchdog
	request *requestBody // nil without one
	onEnd   func(error)  // io.EOF, or why it broke off
}

func (b *responseBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.onEnd(err)
	}
	b.dog.progress(nil)
	return n, err
}

// Close implements io.Closer. An HTTP/2 transport would wait for a Read of the
// request's body that waits for the client, were the exchange not over.
func (b *responseBody) Close() error {
	if b.request != nil && !b.request.whole.Load() {
		b.dog.ending.end(nil)
	}
	return b.ReadCloser.Close()
}
