//go:build unix && !(linux && (amd64 || arm64))

package socket

import (
	"net"
	"syscall"
)

// CanProbe says whether [NothingToRead] can tell.
const CanProbe = true

// New returns conn.
func New(conn net.Conn) net.Conn { return conn }

// NothingToRead says whether a read into p, which is not empty, would wait. It
// takes what there is, so that a connection of which it says false is of no
// more use.
func NothingToRead(fd uintptr, p []byte) bool {
	_, err := syscall.Read(int(fd), p)
	return err == syscall.EAGAIN
}
