package revoke

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

func clusterNode(t *testing.T) *instance {
	return serve(t, "--cluster-enabled", "yes", "--cluster-port", portOf(freeAddr(t)), "--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no")
}

// TestCluster: three masters, slots on the move, and a master that dies.
func TestCluster(t *testing.T) {
	t.Parallel()
	var nodes []*instance
	var addrs []string
	for range 3 {
		n := clusterNode(t)
		nodes, addrs = append(nodes, n), append(addrs, n.addr)
	}
	cli(t, append([]string{"--cluster", "create", "--cluster-yes"}, addrs...)...)
	whole := func() {
		t.Helper()
		for _, n := range nodes {
			eventually(t, "the Cluster is whole", func() bool {
				info, _ := n.ClusterInfo(t.Context()).Result()
				return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d", len(nodes)))
			})
		}
	}
	whole()
	gate := redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: addrs, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	t.Cleanup(func() { gate.Close() })
	revoke := func(jti string) {
		t.Helper()
		eventually(t, "written", func() bool { return gate.Set(t.Context(), Key(JTI, "main", jti), "1", 0).Err() == nil })
	}
	// Enough names to have some on every master.
	for n := range 60 {
		revoke(fmt.Sprint("before", n))
	}
	f := loaded(t, Options{Client: gate})
	poll := loaded(t, Options{Client: gate, Sync: Poll})
	if h := f.Health(); h.Mode != Tracking || h.Servers != 3 || h.Entries != 60 || h.Resyncs != 3 {
		t.Errorf("%+v", h)
	}
	for n := range 60 {
		revoke(fmt.Sprint("after", n))
	}
	listed := 0 // the masters are asked at the same time, the caller is told of one key at a time
	if err := List(t.Context(), gate, func(Entry) bool { listed++; return listed < 5 }); err != nil || listed != 5 {
		t.Errorf("%d keys were listed of the 5 that were wanted: %v", listed, err)
	}
	for n := range 60 {
		f.sees(fmt.Sprint("after", n))
		poll.sees(fmt.Sprint("after", n))
	}
	// A logout's name and its revocation are on any two masters.
	for n := range 20 {
		l := logout(fmt.Sprint("logout", n))
		if err := LogOut(t.Context(), gate, l); err != nil {
			t.Fatal(err)
		}
		if err := LogOut(t.Context(), gate, l); !errors.Is(err, ErrReplayed) {
			t.Fatal(err)
		}
		f.sees(l.ID)
	}

	// Slots move, with the keys in them; their revocations hold, and new ones
	// in them are seen.
	id := func(n *instance) string { return n.do("CLUSTER", "MYID").(string) }
	cli(t, "--cluster", "reshard", nodes[0].addr, "--cluster-from", id(nodes[0]), "--cluster-to", id(nodes[1]), "--cluster-slots", "1500", "--cluster-yes")
	for n := range 60 {
		revoke(fmt.Sprint("moved", n))
	}
	for n := range 60 {
		f.sees(fmt.Sprint("moved", n))
		if !f.revoked(fmt.Sprint("before", n)) {
			t.Error("lost with its slot")
		}
	}
	f.inStep()

	// A key of a slot that is half-way over, written at its new place.
	slot := int(gate.ClusterKeySlot(t.Context(), Key(JTI, "main", "half-way")).Val())
	from, to := 0, 1
	for n := range nodes {
		if strings.HasPrefix(nodes[n].Get(t.Context(), Key(JTI, "main", "half-way")).String(), "get") && nodes[n].Get(t.Context(), Key(JTI, "main", "half-way")).Err() == redis.Nil {
			from, to = n, (n+1)%3
		}
	}
	nodes[to].do("CLUSTER", "SETSLOT", slot, "IMPORTING", id(nodes[from]))
	nodes[from].do("CLUSTER", "SETSLOT", slot, "MIGRATING", id(nodes[to]))
	revoke("half-way")
	f.sees("half-way")
	for _, n := range nodes {
		n.do("CLUSTER", "SETSLOT", slot, "NODE", id(nodes[to]))
	}

	// A master dies and its replica takes over.
	spare := clusterNode(t)
	cli(t, "--cluster", "add-node", spare.addr, nodes[0].addr, "--cluster-slave", "--cluster-master-id", id(nodes[0]))
	nodes = append(nodes, spare)
	eventually(t, "the replica has everything", func() bool {
		info, _ := spare.Info(t.Context(), "replication").Result()
		return field(info, "master_link_status:", "\r\n") == "up"
	})
	whole()
	nodes[0].kill()
	eventually(t, "the replica takes over", func() bool {
		info, _ := spare.Info(t.Context(), "replication").Result()
		return field(info, "role:", "\r\n") == "master"
	})
	for n := range 60 {
		revoke(fmt.Sprint("late", n))
	}
	for n := range 60 {
		f.sees(fmt.Sprint("late", n))
		if !f.revoked(fmt.Sprint("before", n)) {
			t.Error("lost with its master")
		}
	}
	f.inStep()
	if h := f.Health(); h.Servers != 3 || h.Denies {
		t.Errorf("%+v", h)
	}
}
