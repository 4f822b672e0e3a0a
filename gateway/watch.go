package gateway

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long changes are waited for to come together: an editor's save
// is several.
const settle = 20 * time.Millisecond

// Watch calls run, and again whenever one of the files that run read has
// changed, until ctx ends, which is no error. run tells reads of each file
// before it is read, be it there or not.
//
// Directories are watched, not files: editors put a new file in the place of
// the old one, and Kubernetes swaps the directory that a symbolic link names.
// What counts is whether the content differs, so that anything else in these
// directories is no reason to run.
func Watch(ctx context.Context, run func(reads func(path string))) error {
	for ctx.Err() == nil {
		seen := map[string]string{}
		run(func(path string) { seen[path] = print(path) })
		if err := changed(ctx, seen); err != nil {
			return err
		}
	}
	return nil
}

// changed returns once a file's print is another one, or ctx ends.
func changed(ctx context.Context, seen map[string]string) error {
	for {
		// Anew each time, as a directory may be another one by now.
		w, err := fsnotify.NewWatcher()
		if err != nil {
			return fmt.Errorf("cannot watch files: %w", err)
		}
		for dir := range directories(seen) {
			if err := w.Add(dir); err != nil && !errors.Is(err, fs.ErrNotExist) { // what went away meanwhile shows below
				_ = w.Close()
				return fmt.Errorf("cannot watch %s: %w", dir, err)
			}
		}
		now := map[string]string{} // what changed before the watch stood is seen here
		for path := range seen {
			now[path] = print(path)
		}
		if !maps.Equal(now, seen) {
			return w.Close()
		}
		select {
		case <-ctx.Done():
			return w.Close()
		case <-w.Events:
		case err := <-w.Errors:
			if !errors.Is(err, fsnotify.ErrEventOverflow) { // after which all of them are looked at
				_ = w.Close()
				return fmt.Errorf("cannot watch files: %w", err)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(settle):
		}
		_ = w.Close()
	}
}

// directories returns those in which a change of these files would show: where
// each name stands, where symbolic links on its way stand, where it leads to,
// and, if that is not there yet, the next one above that is.
func directories(files map[string]string) map[string]bool {
	dirs := map[string]bool{}
	for path := range files {
		paths := []string{path}
		if target, err := filepath.EvalSymlinks(path); err == nil {
			paths = append(paths, target)
		}
		for p := filepath.Dir(path); p != filepath.Dir(p); p = filepath.Dir(p) {
			if info, err := os.Lstat(p); err == nil && info.Mode()&os.ModeSymlink != 0 {
				paths = append(paths, p)
			}
		}
		for _, p := range paths {
			dir := filepath.Dir(p)
			for {
				if info, err := os.Stat(dir); err == nil && info.IsDir() || dir == filepath.Dir(dir) {
					break
				}
				dir = filepath.Dir(dir)
			}
			dirs[dir] = true
		}
	}
	return dirs
}

// print tells the contents of a file from each other, and from there being none.
func print(path string) string {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return "none"
	}
	f, err := os.Open(path)
	if err != nil {
		return "closed"
	}
	defer f.Close()
	sum := sha256.New()
	_, _ = io.Copy(sum, io.LimitReader(f, maxWatched)) // what cannot be read now changes when it can
	return string(sum.Sum(nil))
}

// maxWatched is more than any file of a configuration may have.
const maxWatched = 16 << 20
