package test

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// redis is a real server on a port of its own.
type redis struct {
	URL  string
	port string
	proc *process
}

func startRedis(t *testing.T) *redis {
	t.Helper()
	r := &redis{port: strconv.Itoa(freePort(t))}
	r.URL = "redis://127.0.0.1:" + r.port
	r.start(t)
	return r
}

// start starts the server, again on the same port after a kill.
func (r *redis) start(t *testing.T, args ...string) {
	t.Helper()
	r.proc = launch(t, "redis-server", append([]string{"--port", r.port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir()}, args...)...)
	eventually(t, "redis answers", func() bool {
		out, _ := exec.Command("redis-cli", "-p", r.port, "PING").Output()
		return strings.TrimSpace(string(out)) == "PONG"
	})
}

// do runs redis-cli, as anyone would who revokes a token by hand.
func (r *redis) do(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("redis-cli", append([]string{"-p", r.port}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("redis-cli %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// ttl returns a key's remaining seconds; -1 is for ever, -2 not there.
func (r *redis) ttl(t *testing.T, key string) int {
	t.Helper()
	var seconds int
	if _, err := fmt.Sscan(r.do(t, "TTL", key), &seconds); err != nil {
		t.Fatal(err)
	}
	return seconds
}
