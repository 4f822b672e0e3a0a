package gateway

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
)

// rotatedFile appends whole records to the file at path, which becomes path.1
// before it would grow beyond max bytes, path.1 becomes path.2, and so on up to
// keep. It is safe for concurrent use.
//
// Others write into the same file: commands, the gateway that a restart
// replaces, the snapshot that a reload replaces. So each write appends (a writer
// with an offset of its own would overwrite what others wrote since), and before
// each one is looked whether the file at path is still the one that is open.
type rotatedFile struct {
	path string
	max  int64
	keep int

	mu   sync.Mutex
	file *os.File // nil: to be opened
	torn bool     // the last write ended within a record
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
		if stuck = f.rotate(); stuck != nil {
			stuck = fmt.Errorf("the file could not be rotated and grows on: %w", stuck)
		}
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
		mine, err := f.file.Stat()
		if err == nil {
			var there os.FileInfo
			if there, err = os.Stat(f.path); err == nil && os.SameFile(mine, there) {
				return mine.Size(), nil
			}
		}
		f.close()
	}
	file, err := os.OpenFile(f.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	info, err := file.Stat()
	if err != nil {
		return 0, errors.Join(err, file.Close())
	}
	f.file = file
	return info.Size(), nil
}

// rotate gives every file the next number; the last one is overwritten.
func (f *rotatedFile) rotate() error {
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
	f.file, f.torn = nil, false
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
