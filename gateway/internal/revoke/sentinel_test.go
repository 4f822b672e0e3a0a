package revoke

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// TestSentinel: the master falls silent, and the replica goes to the new one.
func TestSentinel(t *testing.T) {
	t.Parallel()
	master := serve(t)
	slave := serve(t, "--replicaof", "127.0.0.1 "+portOf(master.addr))
	eventually(t, "the replica is connected", func() bool {
		info, _ := master.Info(t.Context(), "replication").Result()
		return field(info, "slave0:", "\r\n") != "" && field(info, "state=", ",") == "online"
	})
	sentinel := &instance{t: t, addr: freeAddr(t)}
	file := filepath.Join(t.TempDir(), "sentinel.conf") // Sentinel writes its state there
	text := fmt.Sprintf("port %s\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 %s 1\nsentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n", portOf(sentinel.addr), portOf(master.addr))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	sentinel.run(exec.Command("redis-server", file, "--sentinel"))
	t.Cleanup(sentinel.kill)
	monitor := connect(t, sentinel.addr)
	eventually(t, "Sentinel knows the replica", func() bool {
		list, _ := monitor.Do(t.Context(), "SENTINEL", "REPLICAS", "main").Slice()
		return len(list) == 1
	})

	gate := redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: "main", SentinelAddrs: []string{sentinel.addr}, MaxRetries: -1, DisableIdentity: true,
	})
	t.Cleanup(func() { gate.Close() })
	f := loaded(t, Options{Client: gate})
	master.revoke("a")
	f.sees("a")
	eventually(t, "replicated", func() bool { return slave.Exists(t.Context(), Key(JTI, "main", "a")).Val() == 1 })

	// Writes go on while the master falls silent and another takes over.
	master.signal(syscall.SIGSTOP)
	eventually(t, "failover", func() bool {
		info, _ := slave.Info(t.Context(), "replication").Result()
		return field(info, "role:", "\r\n") == "master"
	})
	slave.revoke("b")
	f.sees("b")
	f.inStep()
	master.signal(syscall.SIGCONT)
	slave.revoke("c")
	f.sees("c")
	for _, jti := range []string{"a", "b", "c"} {
		f.holds(slave.Client, jti)
	}
}

// TestReplacedServer: new connections reach another server, while the old one
// still answers those that it has, as behind a balancer, or cut off from
// Sentinel.
func TestReplacedServer(t *testing.T) {
	both(t, func(t *testing.T, sync Sync) {
		before, after := serve(t), serve(t)
		before.revoke("a")
		var target atomic.Pointer[string]
		target.Store(&before.addr)
		client := redis.NewClient(&redis.Options{
			Addr: "redis.example.com:6379", MaxRetries: -1, DisableIdentity: true, ConnMaxLifetime: time.Nanosecond,
			Dialer: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, *target.Load())
			},
		})
		t.Cleanup(func() { client.Close() })
		f := loaded(t, Options{Client: client, Sync: sync})
		after.revoke("b")
		target.Store(&after.addr)
		f.sees("b")
		f.inStep()
		f.holds(after.Client, "a")
	})
}
