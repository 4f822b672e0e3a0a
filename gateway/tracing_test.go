package gateway

import (
	"context"
	"errors"
	"net/http/httptest"
	"testing"

	"github.com/redis/go-redis/v9"
)

// Without server.tracing nothing is allocated for it.
func TestTracingIsFreeWhenOff(t *testing.T) {
	b := newBench(t, nil, "")
	s := b.gateway.acquire()
	defer s.release()
	x := b.gateway.exchange(s, httptest.NewRecorder(), httptest.NewRequest("GET", "/open", nil))
	ctx := x.r.Context()
	answered := errors.New("an answer")
	process := redisSpans{}.ProcessHook(func(context.Context, redis.Cmder) error { return answered })
	pipeline := redisSpans{}.ProcessPipelineHook(func(context.Context, []redis.Cmder) error { return answered })
	cmd := redis.NewCmd(ctx, "GET", "x")
	cmds := []redis.Cmder{cmd}
	if n := testing.AllocsPerRun(100, func() {
		x.startSpan()
		if x.during(ctx, limitsRung) != ctx || process(ctx, cmd) != answered || pipeline(ctx, cmds) != answered {
			t.Fatal("something is recorded")
		}
		x.callSpan()
		x.endSpan("open", "", false)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
