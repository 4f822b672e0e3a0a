//go:build !unix

package socket

import "net"

// CanProbe says whether [NothingToRead] can tell.
const CanProbe = false

// New returns conn.
func New(conn net.Conn) net.Conn { return conn }

// NothingToRead says false.
func NothingToRead(uintptr, []byte) bool { return false }
