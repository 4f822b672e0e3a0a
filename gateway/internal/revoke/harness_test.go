package revoke

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"gatehouse/gateway/token"
)

// instance is a real Redis, with nothing on disk that outlives the test.
type instance struct {
	t    testing.TB
	addr string
	args []string
	cmd  *exec.Cmd
	*redis.Client
}

// serve starts a Redis on a free port of loopback.
func serve(t testing.TB, args ...string) *instance {
	t.Helper()
	i := &instance{t: t, addr: freeAddr(t), args: args}
	i.start()
	t.Cleanup(i.kill)
	i.Client = redis.NewClient(&redis.Options{Addr: i.addr, Protocol: 2, DisableIdentity: true, ReadTimeout: 20 * time.Second})
	t.Cleanup(func() { i.Client.Close() })
	return i
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

// start runs the server, after a kill on the same port again, and empty.
func (i *instance) start() {
	i.t.Helper()
	args := append([]string{"--port", portOf(i.addr), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", i.t.TempDir(), "--loglevel", "warning"}, i.args...)
	i.run(exec.Command("redis-server", args...))
}

func (i *instance) run(cmd *exec.Cmd) {
	i.t.Helper()
	i.cmd = cmd
	if err := i.cmd.Start(); err != nil {
		i.t.Fatalf("these tests need redis-server and redis-cli (Debian: redis-server, redis-tools): %v", err)
	}
	eventually(i.t, "redis-server answers", func() bool {
		c, err := net.DialTimeout("tcp", i.addr, time.Second)
		if err != nil {
			return false
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Second))
		_, _ = io.WriteString(c, "PING\r\n")
		answer := make([]byte, 16)
		n, _ := c.Read(answer)
		return n > 0 // an error is an answer too: it may want a password
	})
}

func (i *instance) kill() {
	if i.cmd.ProcessState == nil {
		_ = i.cmd.Process.Kill()
		_ = i.cmd.Wait()
	}
}

func (i *instance) signal(s syscall.Signal) {
	i.t.Helper()
	if err := i.cmd.Process.Signal(s); err != nil {
		i.t.Fatal(err)
	}
}

// do sends one command and fails the test if that is answered by an error.
func do(t testing.TB, c redis.UniversalClient, args ...any) any {
	t.Helper()
	answer, err := c.Do(context.Background(), args...).Result()
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return answer
}

func (i *instance) do(args ...any) any { i.t.Helper(); return do(i.t, i.Client, args...) }

func cli(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command("redis-cli", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("redis-cli %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("never came true: %s", what)
		}
		pause()
	}
}

// pause lets others run between two looks at a condition.
func pause() { <-time.After(2 * time.Millisecond) }

// connect is a client as a gateway makes it.
func connect(t testing.TB, addr string) *redis.Client {
	c := redis.NewClient(&redis.Options{
		Addr: addr, MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	t.Cleanup(func() { c.Close() })
	return c
}

// following is a replica under test.
type following struct {
	*Replica
	t testing.TB
}

// follow starts a replica and does not wait for it.
func follow(t testing.TB, o Options) following {
	t.Helper()
	if o.Check == nil {
		o.Check = all
	}
	r := NewReplica(o)
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	r.Start(gone)
	t.Cleanup(r.Close)
	return following{r, t}
}

// loaded starts a replica and waits until it is in step.
func loaded(t testing.TB, o Options) following {
	t.Helper()
	f := follow(t, o)
	f.inStep()
	return f
}

func (f following) inStep() {
	f.t.Helper()
	eventually(f.t, "in step", func() bool { return f.Health().InStep })
}

// outOfStep waits until the replica knows that it knows not everything.
func (f following) outOfStep() Health {
	f.t.Helper()
	var h Health
	eventually(f.t, "not in step", func() bool { h = f.Health(); return !h.InStep && h.Err != errNotYet })
	return h
}

func withJTI(t testing.TB, jti string) *token.Verified {
	t.Helper()
	c, err := token.ParseClaims(fmt.Appendf(nil, `{"jti":%q,"sub":"u1","iat":1700000000}`, jti))
	if err != nil {
		t.Fatal(err)
	}
	return &token.Verified{Issuer: "main", Claims: c, Key: "k1", Hash: "h4sh", IssuedAt: 1700000000, HasIssuedAt: true}
}

func (f following) verdict(v *token.Verified) token.Reason {
	return reasonOf(f.Check(context.Background(), v))
}

func (f following) revoked(jti string) bool {
	f.t.Helper()
	return f.verdict(withJTI(f.t, jti)) == token.RevokedToken
}

func (f following) sees(jti string) {
	f.t.Helper()
	eventually(f.t, jti+" is revoked", func() bool { return f.revoked(jti) })
}

func (f following) seesNot(jti string) {
	f.t.Helper()
	eventually(f.t, jti+" is not revoked", func() bool { return !f.revoked(jti) })
}

// holds says that jti stays revoked even after a later write was seen.
func (f following) holds(c redis.UniversalClient, jti string) {
	f.t.Helper()
	f.fence(c)
	if !f.revoked(jti) {
		f.t.Fatalf("%s is no longer revoked", jti)
	}
}

var fences atomic.Int64

// fence waits until everything written before is known.
func (f following) fence(c redis.UniversalClient) {
	f.t.Helper()
	begun := time.Now()
	name := fmt.Sprint("fence", fences.Add(1))
	do(f.t, c, "SET", Key(JTI, "main", name), "1", "EX", "600")
	f.sees(name)
	// A poll that began before may have seen it, and not what else was written.
	eventually(f.t, "another look", func() bool { return f.Health().LastGood.After(begun) })
}

func (i *instance) revoke(jti string) {
	i.t.Helper()
	i.do("SET", Key(JTI, "main", jti), "1", "EX", "600")
}

// connections returns the ids of the connections that track, or listen.
func (i *instance) connections(flag string) (ids []string) {
	i.t.Helper()
	for _, line := range strings.Split(i.do("CLIENT", "LIST").(string), "\n") {
		if strings.Contains(field(line, "flags=", " "), flag) {
			ids = append(ids, field(line, "id=", " "))
		}
	}
	return ids
}

func TestMain(m *testing.M) {
	redis.SetLogger(quiet{})
	os.Exit(m.Run())
}

// quiet drops go-redis' remarks on the outages that tests make.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}
