package gateway

import (
	"io"
	"sync"
	"time"
)

const (
	// gatherFor is how long the lines of requests wait for others, and so what of
	// them is lost if the process is killed.
	gatherFor = 10 * time.Millisecond
	// gatherBytes is PIPE_BUF: what a pipe takes as one (pipe(7)), so that what else
	// is written to it, be it the audit log's records, comes between lines, never
	// within one.
	gatherBytes = 4096
)

// logLines writes log lines, those of requests some at a time where they come
// fast: a system call for each costs more than making it. Nothing is dropped;
// where lines do not go out as fast as they come, whoever logs waits. It is safe
// for concurrent use.
type logLines struct {
	to      io.Writer
	late    *time.Timer // writes what waits
	mu      sync.Mutex
	waiting []byte    // whole lines of requests
	wrote   time.Time // lines of requests, the last time
}

func newLogLines(to io.Writer) *logLines {
	l := &logLines{to: to}
	l.late = time.AfterFunc(gatherFor, l.flush)
	return l
}

// Write writes p, a line, at once, after those that wait.
func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write()
	return l.to.Write(p)
}

// gather writes the line of a request at once where it is a lone one, so that
// who has the answer finds the line, else soon and with others.
func (l *logLines) gather(line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting)+len(line) > gatherBytes {
		l.write()
	}
	first := len(l.waiting) == 0
	l.waiting = append(l.waiting, line...)
	if time.Since(l.wrote) >= gatherFor {
		l.write()
	} else if first {
		l.late.Reset(gatherFor)
	}
}

// flush writes what waits.
func (l *logLines) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write()
}

// write is flush for who holds mu.
func (l *logLines) write() {
	if len(l.waiting) == 0 {
		return
	}
	_, _ = l.to.Write(l.waiting) // as slog.Logger does: nobody is left to be told
	l.waiting = l.waiting[:0]
	l.wrote = time.Now() // after it: where writing is slow, more lines gather
}

// gathering writes the lines of requests that slog makes.
type gathering struct{ *logLines }

func (g gathering) Write(p []byte) (int, error) {
	g.gather(p)
	return len(p), nil
}
