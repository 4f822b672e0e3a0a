package gateway

import (
	"context"
	"crypto/sha256"
	"io"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// poll is how often the files are looked at where the kernel tells nothing: on
// a network's file system, or when it has no watch left to give.
const poll = 10 * time.Second

// Files are those that a configuration was read from, by path, with a print of
// what each held.
type Files map[string]string

// Note adds a file, be it there or not. It is to be called before the file is
// read, as [config.Options] do with Reads, so that no change is missed.
func (f Files) Note(path string) { f[path] = print(path) }

// Watch calls run whenever the content of one of the files has changed and then
// been at rest for settle, since a save is several changes and half a file may
// be one without faults, and at once when again has a value; it watches the
// files that run returns from then on. It ends with ctx, and runs nothing after.
//
// Directories are watched, not files: editors put a new file in the place of
// the old one, and Kubernetes swaps the directory that a symbolic link names.
// What counts is whether the content differs, so that anything else in these
// directories is no reason to run.
func Watch(ctx context.Context, files Files, settle time.Duration, again <-chan os.Signal, run func() Files) {
	for files.changed(ctx, settle, again) {
		files = run()
	}
}

// changed returns true once the files have changed or again has a value, and
// false when ctx ends.
func (f Files) changed(ctx context.Context, settle time.Duration, again <-chan os.Signal) bool {
	for before := f; ; {
		// Anew each time, as a directory may be another one by now; and before
		// the look, which sees what changed until then.
		events, stop := f.watch()
		now := Files{}
		for path := range f {
			now.Note(path)
		}
		rest, same := maps.Equal(now, before), maps.Equal(now, f)
		if rest && !same {
			stop()
			return true
		}
		before = now
		if rest {
			select {
			case <-events:
			case <-time.After(poll):
			case <-again:
				stop()
				return true
			case <-ctx.Done():
			}
		}
		stop()
		select {
		case <-time.After(settle):
		case <-again:
			return true
		case <-ctx.Done():
			return false
		}
	}
}

// watch returns a channel that is closed at the next event among the files. Whom
// the kernel grants no watch is left with poll.
func (f Files) watch() (events <-chan struct{}, stop func()) {
	if len(f) == 0 {
		return nil, func() {}
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, func() {}
	}
	for dir := range directories(f) {
		_ = w.Add(dir)
	}
	event := make(chan struct{})
	go func() {
		select {
		case <-w.Events:
		case err := <-w.Errors:
			_ = err // more events than fit in the queue are events, too
		}
		close(event)
	}()
	return event, func() { _ = w.Close() }
}

// directories returns those in which a change of these files would show: where
// each name stands, where symbolic links on its way stand, where it leads to,
// and, if that is not there yet, the next one above that is.
func directories(files Files) map[string]bool {
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
