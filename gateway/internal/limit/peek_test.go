package limit

import (
	"errors"
	"testing"
	"time"

	"gatehouse/gateway/token"
)

// While Redis is away a look meets the posture that a request would meet.
func TestPeekInAnOutage(t *testing.T) {
	for _, c := range []struct {
		posture OnError
		refused bool
	}{{OnErrorLocal, false}, {OnErrorAllow, false}, {OnErrorDeny, true}} {
		r := startRedis(t)
		store := r.gateway(t, StoreOptions{Client: r.client(t)})
		l := limiter(t, Options{Rate: Rate{1, time.Hour}, Burst: 2, Store: store, OnError: c.posture})
		r.kill()
		states, _, err := Peek(t.Context(), []*Limiter{l}, caller(1))
		var e *token.Error
		if (err != nil) != c.refused || c.refused && (!errors.As(err, &e) || e.Reason != token.StoreUnavailable) {
			t.Errorf("%s: %v", c.posture, err)
		}
		if len(states) != 1 || states[0].Down == nil || l.Stats().Fallbacks != 0 {
			t.Errorf("%s: %+v", c.posture, states)
		}
	}
}
