package test

import (
	"os/exec"
	"strings"
	"testing"
)

// cluster is a Redis Cluster of masters alone.
type cluster struct {
	URL     string
	masters []*redis
}

func startCluster(t *testing.T, masters int) *cluster {
	t.Helper()
	c := &cluster{}
	create := []string{"--cluster", "create", "--cluster-yes"}
	for range masters {
		r := &redis{port: itoa(int64(freePort(t)))}
		r.start(t, "--cluster-enabled", "yes", "--cluster-port", itoa(int64(freePort(t))), "--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no")
		c.masters, create = append(c.masters, r), append(create, "127.0.0.1:"+r.port)
	}
	if out, err := exec.Command("redis-cli", create...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, r := range c.masters {
		eventually(t, "the Cluster is whole", func() bool {
			info := r.do(t, "CLUSTER", "INFO")
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:"+itoa(int64(masters)))
		})
	}
	c.URL = "redis+cluster://127.0.0.1:" + c.masters[0].port + "/?addr=127.0.0.1:" + c.masters[1].port
	return c
}

// owner is the master that has the key's slot.
func (c *cluster) owner(t *testing.T, key string) *redis {
	t.Helper()
	for _, r := range c.masters {
		if !r.proc.ended() && !strings.HasPrefix(r.do(t, "EXISTS", key), "MOVED") {
			return r
		}
	}
	t.Fatalf("no master has the slot of %s", key)
	return nil
}
