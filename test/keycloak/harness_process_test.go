//go:build keycloak

package keycloak

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// How long a condition may take to come true. Both are long since they only
// ever pass where something is broken.
const (
	patience      = time.Minute
	startPatience = 5 * time.Minute // for Keycloak, which builds itself when it starts for the first time
)

// eventually asks until ok says yes, and fails the test if it never does.
func eventually(t *testing.T, what string, ok func() bool) { t.Helper(); within(t, patience, what, ok) }

func within(t *testing.T, patience time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never came true: %s", what)
		}
	}
}

// lastPort starts at a place of this process's own below the range that the
// kernel gives to outgoing connections, so that nothing takes a port between
// its choice and its use.
var lastPort = func() *atomic.Int32 {
	var n atomic.Int32
	n.Store(int32(10000 + os.Getpid()%200*100))
	return &n
}()

// freePort returns a loopback port that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	for range 1000 {
		port := fmt.Sprint(lastPort.Add(1))
		if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return ""
}

// process is a program that a test started. It ends with the test.
type process struct {
	cmd    *exec.Cmd
	output *output
	exited chan struct{} // closed once it has ended; then cmd.ProcessState is set
}

// launch starts a program whose output is kept, and shown if the test fails.
func launch(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: cmd, output: &output{}, exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.output, p.output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("output of %s:\n%.100000s", cmd.Path, p.output)
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

// kill ends the process and its children at once, as a crash would: kc.sh is a
// shell that waits for the program. They stay in this process group, so that
// an interrupt from the keyboard reaches them too.
func (p *process) kill() {
	if p.ended() {
		return
	}
	pid := p.cmd.Process.Pid
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for child := range strings.FieldsSeq(string(children)) {
		var n int
		if _, err := fmt.Sscan(child, &n); err == nil {
			_ = syscall.Kill(n, syscall.SIGKILL)
		}
	}
	_ = p.cmd.Process.Kill()
	<-p.exited
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

// startRedis starts a server on a port of its own and returns its URL.
func startRedis(t *testing.T) string {
	t.Helper()
	port := freePort(t)
	launch(t, exec.Command("redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir()))
	eventually(t, "redis answers", func() bool {
		out, _ := exec.Command("redis-cli", "-p", port, "PING").Output()
		return strings.TrimSpace(string(out)) == "PONG"
	})
	return "redis://127.0.0.1:" + port
}
