package gateway

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"
)

// rotatedFile appends whole records to the file at path, which becomes path.1
// before it would grow beyond max bytes, path.1 becomes path.2, and so on up to
// keep. It is safe for concurrent use.
//
// Others write into the same file: commands, the gateway that a restart
// replaces, the snapshot that a reload replaces. So each write appends (a writer
// with an offset of its own would overwrite what others wrote since), and before
// each one is looked whether the file at path is still the one that is open.
// Only who has locked a full file may move it (rotate).
type rotatedFile struct {
	path string
	max  int64
	keep int

	mu   sync.Mutex
	file *os.File // nil: to be opened
	torn bool     // the file ends within a record

	stuck error     // why the file could not be rotated
	again time.Time // when that is tried again
}

// Write appends p, one record. The error tells of a record that was not written,
// or that was, into a file that could not be rotated.
func (f *rotatedFile) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	size, err := f.open()
	if err != nil {
		return 0, err
	}
	var stuck error
	if size > 0 && size+int64(len(p)) > f.max {
		if now := time.Now(); f.stuck == nil || !now.Before(f.again) {
			if f.stuck = f.rotate(int64(len(p))); f.stuck != nil {
				f.stuck = fmt.Errorf("the file could not be rotated and grows on: %w", f.stuck)
				f.again = now.Add(time.Minute)
			}
		}
		stuck = f.stuck
		if _, err := f.open(); err != nil {
			return 0, errors.Join(stuck, err)
		}
	}
	if f.torn { // a disk that was full must not cost the next record, too
		if _, err := io.WriteString(f.file, "\n"); err != nil {
			return 0, errors.Join(stuck, err)
		}
	}
	n, err := f.file.Write(p)
	f.torn = err != nil && (n > 0 || f.torn)
	return n, errors.Join(stuck, err)
}

// open makes sure that f.file is the file at path, and returns its size.
func (f *rotatedFile) open() (int64, error) {
	if f.file != nil {
		if size, ok := f.current(); ok {
			return size, nil
		}
		f.close()
	}
	file, size, err := openRecords(f.path)
	if err != nil {
		return 0, err
	}
	f.file, f.torn = file, torn(f.path, size)
	return size, nil
}

// openRecords opens a file to which records are appended, and returns its size.
func openRecords(path string) (*os.File, int64, error) {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, 0, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	return file, info.Size(), nil
}

// torn says whether the file of that size ends within a record: the disk was
// full, or the machine lost its power. One that may not be read is taken to be
// whole: it can be written to all the same.
func torn(path string, size int64) bool {
	if size == 0 { // or a pipe, which is not to be waited for
		return false
	}
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = file.Close() }() // nothing was written
	var last [1]byte
	_, err = file.ReadAt(last[:], size-1)
	return err == nil && last[0] != '\n'
}

// current returns the size of the open file, and whether it is the one at path.
func (f *rotatedFile) current() (int64, bool) {
	mine, err := f.file.Stat()
	if err != nil {
		return 0, false
	}
	there, err := os.Stat(f.path)
	return mine.Size(), err == nil && os.SameFile(mine, there)
}

// rotate gives every file the next number, if the open one is still at path and
// has no room for more bytes; the last one is overwritten.
//
// Others may find the same file full at the same time. Who came late and moved
// what is at path by then would shift a new file over those that were just
// filled. So only who has locked the full file moves it, and looks again first:
// moving it is the last step, and with it the others' locks are worth nothing.
//
// The lock is not waited for, as requests would be: records go on into the file
// that somebody is about to move. That is done at once or not at all (its process
// was stopped, say), which must be told: a file is not to grow for ever in silence.
func (f *rotatedFile) rotate(more int64) error {
	locked, err := tryLock(f.file)
	if err != nil {
		return err
	}
	size, ok := f.current()
	if !locked {
		if ok && size+more > 2*f.max {
			return errors.New("it is locked: somebody began to rotate it, and does not go on")
		}
		return nil
	}
	defer unlock(f.file)
	if !ok || size+more <= f.max {
		return nil
	}
	for n := f.keep - 1; n > 0; n-- {
		if err := os.Rename(f.numbered(n), f.numbered(n+1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.Rename(f.path, f.numbered(1))
}

func (f *rotatedFile) numbered(n int) string { return fmt.Sprintf("%s.%d", f.path, n) }

func (f *rotatedFile) close() {
	_ = f.file.Close() // written to without a buffer: nothing is lost
	f.file, f.stuck = nil, nil
}

// Close closes the file; a later Write opens it again.
func (f *rotatedFile) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file != nil {
		f.close()
	}
	return nil
}
