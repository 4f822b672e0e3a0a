package gateway

import (
	"errors"
	"net/http"
	"os"
	"time"
)

// lookAfter is how long a request is served before somebody looks whether its
// caller has gone; it may take twice as long.
const lookAfter = 50 * time.Millisecond

// reading is how a connection is read. Around each request net/http sets the
// deadline seven times, and while it serves one it reads a byte ahead, to see
// the caller go. Most of that is for nothing: so a deadline is set only before a
// Read that it may end, and the reading ahead begins only where a request takes
// its time.
type reading struct {
	wanted, set time.Time // the deadline that counts, and the one that the connection has
	going       bool      // a Read of the connection
	woken       bool      // the deadline is past on purpose, to wake a Read
	cleared     bool      // the deadline has been taken off since the last Read

	waiting    bool        // a Read that reads ahead, until it may look
	turn, seen int         // how often one waited, at all and when the timer was set
	timer      *time.Timer // ends the waiting
	timed      bool        // it is set
}

// Read implements net.Conn.
func (c *clientConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	if c.readsAhead(p) {
		c.wait()
	}
	if c.reads.woken {
		c.mu.Unlock()
		return 0, os.ErrDeadlineExceeded
	}
	c.reads.cleared, c.reads.going = false, true
	_ = c.settle() // whatever fails, fails again when it is read
	c.mu.Unlock()
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	c.reads.going = false
	woken := c.reads.woken
	c.mu.Unlock()
	if !c.listener.secure {
		c.framing.scan(p[:n])
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && !woken {
		c.timedOut(c.phase())
	} else if n > 0 {
		c.quiet.Store(false)
	}
	return n, err
}

// readsAhead says whether a Read is net/http's, to see the caller go: of one
// byte, just after the deadline was taken off. Any other that looks like it
// would come later by what it waits, and lose nothing.
func (c *clientConn) readsAhead(p []byte) bool {
	return len(p) == 1 && c.reads.cleared && c.state == http.StateActive && !c.listener.secure
}

// wait keeps a Read from the connection until it is to look, or is woken before.
// The timer outlasts the requests that are served quickly.
func (c *clientConn) wait() {
	r := &c.reads
	r.waiting = true
	r.turn++
	if !r.timed {
		r.timed, r.seen = true, r.turn
		if r.timer == nil {
			r.timer = time.AfterFunc(lookAfter, c.lookUp)
		} else {
			r.timer.Reset(lookAfter)
		}
	}
	for r.waiting {
		c.look.Wait()
	}
}

// lookUp lets a Read look that has waited since the timer was set.
func (c *clientConn) lookUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := &c.reads
	if r.timed = r.waiting && r.turn != r.seen; r.timed {
		r.seen = r.turn
		r.timer.Reset(lookAfter)
		return
	}
	c.wake()
}

func (c *clientConn) wake() {
	if c.reads.waiting {
		c.reads.waiting = false
		c.look.Broadcast()
	}
}

// settle sets the deadline that counts, unless the one that is set comes
// before it by the slack at most, and by an eighth of the time that is left: a
// refused body gets a second, which one of before may leave nothing of.
func (c *clientConn) settle() error {
	r := &c.reads
	if early := r.wanted.Sub(r.set); early == 0 || 0 < early && early <= min(c.listener.slack, time.Until(r.wanted)/8) {
		return nil
	}
	r.set = r.wanted
	return c.Conn.SetReadDeadline(r.set)
}

// SetReadDeadline implements net.Conn.
func (c *clientConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := &c.reads
	r.wanted, r.woken, r.cleared = t, !t.IsZero() && t.Unix() <= 1, t.IsZero() // net/http's way to wake, and the watchdog's
	if t.IsZero() {
		c.handshaken.Store(true) // net/http takes the deadline of the handshake off
	}
	c.wake()
	if r.going {
		return c.settle()
	}
	return nil
}

// SetDeadline implements net.Conn.
func (c *clientConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}
