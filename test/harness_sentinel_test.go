package test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// sentinel watches a master and a replica of it, all real.
type sentinel struct {
	URL             string
	master, replica *redis
}

func startSentinel(t *testing.T) *sentinel {
	t.Helper()
	s := &sentinel{master: startRedis(t), replica: startRedis(t)}
	s.replica.do(t, "REPLICAOF", "127.0.0.1", s.master.port)
	eventually(t, "the replica is connected", func() bool {
		return strings.Contains(s.master.do(t, "INFO", "replication"), "state=online")
	})
	port := itoa(int64(freePort(t)))
	file := filepath.Join(t.TempDir(), "sentinel.conf") // Sentinel writes its state there
	write(t, file, fill(`port PORT
bind 127.0.0.1
sentinel monitor heroes 127.0.0.1 MASTER 1
sentinel down-after-milliseconds heroes 500
sentinel failover-timeout heroes 3000
`, "PORT", port, "MASTER", s.master.port))
	launch(t, "redis-server", file, "--sentinel")
	eventually(t, "Sentinel knows the replica", func() bool {
		out, _ := exec.Command("redis-cli", "-p", port, "SENTINEL", "REPLICAS", "heroes").Output()
		return strings.Contains(string(out), s.replica.port)
	})
	s.URL = "redis+sentinel://127.0.0.1:" + port + "/?master_name=heroes"
	return s
}

// failover kills the master and waits until its replica has taken over.
func (s *sentinel) failover(t *testing.T) {
	t.Helper()
	s.master.proc.kill()
	eventually(t, "the replica takes over", func() bool {
		// It hangs up on its clients as it becomes the master.
		out, _ := exec.Command("redis-cli", "-p", s.replica.port, "INFO", "replication").Output()
		return strings.Contains(string(out), "role:master")
	})
}
