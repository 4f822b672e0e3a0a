package gateway

import (
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// armed is a connection that notes the deadlines for writing.
type armed struct {
	net.Conn
	set []time.Time
}

func (a *armed) Write(p []byte) (int, error) { return len(p), nil }

func (a *armed) SetWriteDeadline(t time.Time) error {
	a.set = append(a.set, t)
	return nil
}

// A write always has seven eighths of the write timeout at least, however long
// ago the deadline was set, and whoever set another one since.
func TestWritesHaveTheirTime(t *testing.T) {
	const timeout = 8 * time.Second
	for name, test := range map[string]struct {
		pause time.Duration
		other bool // somebody sets a deadline in between, and takes it off
		state http.ConnState
		want  int // deadlines that Write sets
	}{
		"at once":                  {0, false, http.StateActive, 1},
		"within an eighth":         {timeout / 8, false, http.StateActive, 1},
		"after an eighth":          {timeout/8 + 1, false, http.StateActive, 2},
		"after the deadline":       {2 * timeout, false, http.StateActive, 2},
		"another deadline between": {0, true, http.StateActive, 2},
		"an upgraded connection":   {2 * timeout, false, http.StateHijacked, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var under armed
				c := &clientConn{Conn: &under, listener: &connections{writeTimeout: timeout}, state: test.state}
				_, _ = c.Write([]byte("a"))
				if test.other {
					_ = c.SetWriteDeadline(time.Now())
					_ = c.SetWriteDeadline(time.Time{})
				}
				time.Sleep(test.pause)
				_, _ = c.Write([]byte("b"))
				own := under.set
				if test.other {
					own = append(own[:1:1], own[3:]...)
				}
				if len(own) != test.want {
					t.Fatalf("%d deadlines, want %d", len(own), test.want)
				}
				if test.want > 0 && time.Until(own[len(own)-1]) < timeout/8*7 {
					t.Errorf("a write has %s", time.Until(own[len(own)-1]))
				}
			})
		})
	}
}
