//go:build unix && !aix

package gateway

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// tryLock locks the open file against everybody who opened it on their own, in
// this process or another (flock(2)), and does not wait: false where somebody
// holds it. A process that ends lets go of it.
func tryLock(f *os.File) (bool, error) {
	err := flock(f, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// unlock is not left to Close: a program that is being started may have the
// descriptor for a moment, and the lock with it.
func unlock(f *os.File) { _ = flock(f, unix.LOCK_UN) }

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("flock", err)
		}
	}
}
