package gateway

import (
	"io"
	"sync"
	"time"
)

const (
	// logDelay is how long a line waits for others, and so what of the log is lost
	// if the process is killed.
	logDelay = 10 * time.Millisecond
	// logBatch is how many bytes wait at the most: whoever logs more writes them.
	logBatch = 64 << 10
)

// LogWriter writes log lines some at a time: a system call for each request's
// line costs more than making the line. Nothing is dropped: where the lines do
// not go out as fast as they come, whoever logs waits. It is safe for concurrent
// use; each Write must be whole lines. [LogWriter.Close] writes what is left.
type LogWriter struct {
	to      io.Writer
	timer   *time.Timer
	writing sync.Mutex // keeps the order; taken before mu
	mu      sync.Mutex
	lines   []byte
	spare   []byte // what lines was before, to be filled again; guarded by writing
}

// NewLogWriter returns a LogWriter that writes to w.
func NewLogWriter(w io.Writer) *LogWriter {
	l := &LogWriter{to: w}
	l.timer = time.AfterFunc(logDelay, func() { _ = l.flush() }) // nobody is left to be told
	return l
}

// Write implements io.Writer. The error is that of lines before these, too.
func (l *LogWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	if len(l.lines) == 0 {
		l.timer.Reset(logDelay)
	}
	l.lines = append(l.lines, p...)
	full := len(l.lines) >= logBatch
	l.mu.Unlock()
	if full {
		return len(p), l.flush()
	}
	return len(p), nil
}

func (l *LogWriter) flush() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	lines := l.lines
	l.lines = l.spare[:0]
	l.mu.Unlock()
	l.spare = lines
	if len(lines) == 0 { // another wrote them
		return nil
	}
	_, err := l.to.Write(lines)
	return err
}

// Close writes what waits. It does not close what is written to.
func (l *LogWriter) Close() error { return l.flush() }
