//go:build unix

package upstream

import "syscall"

// canProbe says whether a connection that is idle can be looked at.
const canProbe = true

// nothingToRead says whether a read would wait. It takes what there is, so
// that a connection of which it says false is of no more use.
func nothingToRead(fd uintptr, p []byte) bool {
	_, err := syscall.Read(int(fd), p)
	return err == syscall.EAGAIN
}
