package limit

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// redisServer is a real server on a free port of the loopback interface, that
// keeps nothing.
type redisServer struct {
	addr string
	args []string
	cmd  *exec.Cmd
}

func startRedis(t testing.TB, args ...string) *redisServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &redisServer{addr: ln.Addr().String(), args: args}
	ln.Close()
	r.start(t)
	t.Cleanup(r.kill)
	return r
}

// start starts the server, after a kill on the same port and without data.
func (r *redisServer) start(t testing.TB) {
	t.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatalf("shared limits are tested with a real Redis: %v; `make redis` installs it", err)
	}
	_, port, _ := strings.Cut(r.addr, ":")
	r.cmd = exec.Command(program, append([]string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir()}, r.args...)...)
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := r.client(t)
	eventually(t, "Redis answers", func() bool { return c.Ping(t.Context()).Err() == nil })
}

func (r *redisServer) kill() {
	if r.cmd.ProcessState == nil {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
	}
}

// client is one that a gateway would have.
func (r *redisServer) client(t testing.TB) *redis.Client {
	c := redis.NewClient(&redis.Options{
		Addr: r.addr, MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	t.Cleanup(func() { c.Close() })
	return c
}

func TestMain(m *testing.M) {
	logging.Disable() // the client's own lines about a Redis that is killed on purpose
	m.Run()
}

// patient is long enough for a Redis on a busy machine.
const patient = 20 * time.Second

// gateway is a Store of its own, as each gateway has one.
func (r *redisServer) gateway(t testing.TB, o StoreOptions) *Store {
	if o.Client == nil {
		o.Client = r.client(t)
	}
	if o.Timeout == 0 {
		o.Timeout = patient
	}
	return NewStore(o)
}

// age makes every bucket older.
func (r *redisServer) age(t *testing.T, c redis.UniversalClient, by time.Duration) {
	t.Helper()
	ctx := t.Context()
	keys, err := c.Keys(ctx, "limit:*{*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		var debt, at int64
		if _, err := fmt.Sscanf(c.Get(ctx, key).Val(), "%d@%d", &debt, &at); err != nil {
			t.Fatal(err)
		}
		if ttl := c.PTTL(ctx, key).Val(); ttl <= by {
			c.Del(ctx, key)
			continue
		} else if want := time.Duration(debt); ttl > want+time.Millisecond || ttl < want-patient {
			t.Errorf("a key lives for %s with a debt of %s", ttl, want)
		} else {
			c.Set(ctx, key, fmt.Sprintf("%d@%d", max(0, debt-int64(by)), at), ttl-by)
		}
	}
}

// scan reads a bucket as take.lua writes it.
func scan(state string, debt, at *int64) (int, error) { return fmt.Sscanf(state, "%d@%d", debt, at) }

func formatCount(n int) string { return fmt.Sprintf("%g", float64(n)) }

func clockOf(t *testing.T, c redis.UniversalClient) time.Time {
	t.Helper()
	now, err := c.Time(context.Background()).Result()
	if err != nil {
		t.Fatal(err)
	}
	return now
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patient); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patient)
		}
	}
}

// TestScriptAgainstOracle compares the script with the same arithmetic in Go,
// at the very microsecond that the script ran.
func TestScriptAgainstOracle(t *testing.T) {
	r := startRedis(t)
	s, c := r.gateway(t, StoreOptions{}), r.client(t)
	ctx := t.Context()
	rnd := newRand(3)
	written, refusals, partial, floored := 0, 0, 0, 0
	for n := range 3000 {
		asks := make([]ask, 1+rnd.IntN(3))
		type state struct{ debt, at int64 }
		before := make([]state, len(asks))
		now := clockOf(t, c)
		for i := range asks {
			rate := Rate{1 + rnd.IntN(5000), []time.Duration{time.Second, time.Minute, 24 * time.Hour}[rnd.IntN(3)]}
			burst := 1 + rnd.IntN(50)
			g, err := newGCRA(rate, burst)
			if err != nil {
				t.Fatal(err)
			}
			a := ask{key: "limit:test:{" + strconv.Itoa(n) + "}" + strconv.Itoa(i), gcra: g, cost: 1 + rnd.IntN(burst), must: rnd.IntN(4) > 0}
			a.want = a.cost + rnd.IntN(3)*rnd.IntN(burst)
			if rnd.IntN(3) == 0 {
				a.floor = rnd.Int64N(g.capacity + 1)
			}
			asks[i] = a
			if rnd.IntN(4) > 0 {
				age := rnd.Int64N(2*g.capacity/1000+2) - g.capacity/2000 // sometimes the clock went back
				before[i] = state{rnd.Int64N(g.capacity + g.capacity/4 + 1), now.UnixMicro() - age}
				if err := c.Set(ctx, a.key, fmt.Sprintf("%d@%d", before[i].debt, before[i].at), 0).Err(); err != nil {
					t.Fatal(err)
				}
			}
		}
		admitted, err := s.take(ctx, asks)
		if err != nil {
			t.Fatal(err)
		}
		// One bucket that was written tells the time.
		var at int64
		after := make([]state, len(asks))
		for i, a := range asks {
			_, _ = fmt.Sscanf(c.Get(ctx, a.key).Val(), "%d@%d", &after[i].debt, &after[i].at)
			if after[i].at != 0 && after[i] != before[i] {
				at = after[i].at
			}
		}
		if at == 0 {
			if refusals++; admitted && asks[0].must && asks[0].debt > int64(patient) {
				t.Fatalf("call %d: admitted, and nothing was written", n)
			}
			continue
		}
		written++
		all := true
		kept, owed, taken := make([]int64, len(asks)), make([]int64, len(asks)), make([]int, len(asks))
		for i, a := range asks {
			if before[i].at != 0 {
				kept[i] = decay(before[i].debt, (at-before[i].at)*1000)
			}
			owed[i] = min(a.gcra.capacity, max(kept[i], a.floor))
			taken[i] = min(a.want, a.gcra.left(owed[i]))
			if taken[i] < a.cost {
				taken[i] = 0
				all = all && !a.must
			} else if taken[i] < a.want {
				partial++
			}
			if a.floor > kept[i] {
				floored++
			}
		}
		if all != admitted {
			t.Fatalf("call %d: admitted is %t, the oracle says %t: %+v", n, admitted, all, asks)
		}
		for i, a := range asks {
			if !all {
				taken[i] = 0
			}
			owed[i] += int64(taken[i]) * a.gcra.interval
			if a.debt != owed[i] || a.taken != taken[i] {
				t.Fatalf("call %d, bucket %d: debt %d and %d tokens, the oracle says %d and %d", n, i, a.debt, a.taken, owed[i], taken[i])
			}
			if owed[i] > kept[i] && after[i] != (state{owed[i], at}) && (after[i].at != 0 || owed[i] > int64(patient)) { // or its time is over
				t.Fatalf("call %d, bucket %d: %+v was written, want %d@%d", n, i, after[i], owed[i], at)
			}
		}
	}
	if written < 1000 || refusals < 50 || partial < 50 || floored < 50 {
		t.Errorf("%d written, %d refused, %d in part, %d by the floor: the story never came to the point", written, refusals, partial, floored)
	}
}

// TestForeignValue: whatever stands in a bucket's place is no reason to fail.
func TestForeignValue(t *testing.T) {
	r := startRedis(t)
	c := r.client(t)
	l := limiter(t, Options{Rate: Rate{2, time.Hour}, Store: r.gateway(t, StoreOptions{})})
	var k key
	s := caller(1)
	k.write(l, &s, 0)
	c.Set(t.Context(), k.redis("test", ""), "not a bucket", 0)
	if n := admitted(5, caller(1), l); n != 2 {
		t.Errorf("%d admitted, want the burst of 2", n)
	}
	c.Del(t.Context(), k.redis("test", ""))
	c.LPush(t.Context(), k.redis("test", ""), "a list")
	if n := admitted(5, caller(2), l); n != 2 {
		t.Errorf("another key: %d admitted, want 2", n)
	}
	if err := Allow([]*Limiter{l}, caller(1)); err == nil {
		t.Error("a gateway forgot what it knew of a bucket when Redis failed it")
	}
}
