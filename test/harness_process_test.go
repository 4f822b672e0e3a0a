package test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// process is a program that a test started. It ends with the test.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	output *output
	exited chan struct{} // closed once it has ended; then cmd.ProcessState is set
}

// launch starts a program whose output is kept, and shown if the test fails.
func launch(t *testing.T, name string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(name, args...), output: &output{}, exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stdin = stdin
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("%v (make test installs what the tests need)", err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("output of %s:\n%s", strings.Join(p.cmd.Args, " "), p.output)
		}
	})
	return p
}

func (p *process) ended() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// signal sends s; a process that has ended is left alone.
func (p *process) signal(s os.Signal) {
	if !p.ended() {
		_ = p.cmd.Process.Signal(s)
	}
}

// kill ends the process at once, as a crash would.
func (p *process) kill() {
	p.signal(os.Kill)
	<-p.exited
}

// exit waits for the process to end by itself and returns its status.
func (p *process) exit(t *testing.T) int {
	t.Helper()
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		t.Fatalf("%s does not end", p.cmd.Args[0])
		return 0
	}
}

// output is what a process wrote, readable while it writes.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// says waits until the output holds text.
func (o *output) says(t *testing.T, text string) {
	t.Helper()
	eventually(t, "the output says "+text, func() bool { return strings.Contains(o.String(), text) })
}
