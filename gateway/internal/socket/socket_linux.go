//go:build linux && (amd64 || arm64)

package socket

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// CanProbe says whether [NothingToRead] can tell.
const CanProbe = true

// New returns conn, if it is a *net.TCPConn as a [*Conn], which is to be used in
// its place.
func New(conn net.Conn) net.Conn {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return conn
	}
	c := &Conn{TCPConn: tcp, raw: raw}
	c.in.try, c.out.try = c.in.receive, c.out.send
	return c
}

// Conn is a *net.TCPConn with a Read and a Write of its own. They do what its
// own do, and give the same errors.
type Conn struct {
	*net.TCPConn
	raw     syscall.RawConn
	in, out side
}

// side is one direction of a connection.
type side struct {
	mu    sync.Mutex
	p     []byte // what is to be moved yet
	n     int    // bytes moved
	errno syscall.Errno
	try   func(fd uintptr) bool // made once, for it would be an allocation each time
}

// Read implements net.Conn. Concurrent calls take turns.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return c.TCPConn.Read(p)
	}
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	c.in.p = p
	n, err := c.in.moved("read", c.raw.Read(c.in.try), c)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// Write implements net.Conn. Concurrent calls take turns, each with the whole
// of p.
func (c *Conn) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return c.TCPConn.Write(p)
	}
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.p = p
	return c.out.moved("write", c.raw.Write(c.out.try), c)
}

// moved says what came of it, where polled is what the poller says.
func (s *side) moved(op string, polled error, c *Conn) (int, error) {
	n, errno := s.n, s.errno
	s.p, s.n, s.errno = nil, 0, 0
	if polled == nil && errno == 0 {
		return n, nil
	}
	return n, c.failed(op, polled, errno)
}

// failed is the error that package net would give.
func (c *Conn) failed(op string, polled error, errno syscall.Errno) error {
	err := os.NewSyscallError(op, errno)
	if polled != nil { // it was closed, or its deadline passed
		err = polled
		if inner := (*net.OpError)(nil); errors.As(polled, &inner) {
			err = inner.Err
		}
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// receive reads once; false: there is nothing yet.
func (s *side) receive(fd uintptr) bool {
	if s.n, s.errno = call(syscall.SYS_RECVFROM, fd, s.p); s.errno == 0 {
		acquired(fd)
	}
	return s.errno != syscall.EAGAIN
}

// send writes as much as there is; false: there is no room for the rest yet.
func (s *side) send(fd uintptr) bool {
	released()
	for len(s.p) > 0 {
		n, errno := call(syscall.SYS_SENDTO, fd, s.p)
		if errno != 0 {
			s.errno = errno
			return errno != syscall.EAGAIN
		}
		s.n, s.p = s.n+n, s.p[n:]
	}
	s.errno = 0
	return true
}

// call receives into p, or sends p, which is not empty, without waiting and
// without telling the scheduler.
func call(trap, fd uintptr, p []byte) (int, syscall.Errno) {
	const flags = syscall.MSG_DONTWAIT | syscall.MSG_NOSIGNAL
	for {
		n, _, errno := syscall.RawSyscall6(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
		switch errno {
		case 0:
			return int(n), 0
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}

// NothingToRead says whether a read into p, which is not empty, would wait. It
// takes what there is, so that a connection of which it says false is of no
// more use.
func NothingToRead(fd uintptr, p []byte) bool {
	_, errno := call(syscall.SYS_RECVFROM, fd, p)
	return errno == syscall.EAGAIN
}
