package gateway

import (
	"io"
	"sync"
)

// logLines writes lines one at a time. It is safe for concurrent use.
type logLines struct {
	to   io.Writer
	mu   sync.Mutex
	line []byte
}

// Write writes p, a line.
func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.to.Write(p)
}

// add is Write for a line that stands on the stack.
func (l *logLines) add(line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.line = append(l.line[:0], line...)
	_, _ = l.to.Write(l.line) // as slog.Logger does: nobody is left to be told
}
