package upstream

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestWhatEjects(t *testing.T) {
	for _, c := range []struct {
		name     string
		outcomes []outcome
		gateway  bool // by consecutive_gateway_failure: 3
		any      bool // by consecutive_5xx: 3
	}{
		{"no connection", []outcome{refusedUs, refusedUs, refusedUs}, true, true},
		{"time-outs", []outcome{timedOut, timedOut, timedOut}, true, true},
		{"broken bodies", []outcome{brokeOff, brokeOff, brokeOff}, true, true},
		{"502, 503, 504", []outcome{answered(502), answered(503), answered(504)}, true, true},
		{"500s", []outcome{answered(500), answered(501), answered(599)}, false, true},
		{"a 500 between", []outcome{timedOut, timedOut, answered(500), timedOut}, false, true},
		{"404s", []outcome{answered(404), answered(404), answered(429)}, false, false},
		{"two only", []outcome{timedOut, timedOut}, false, false},
		{"a success between", []outcome{timedOut, timedOut, answered(200), timedOut, timedOut}, false, false},
		{"clients that go", []outcome{clientEnded, clientEnded, clientEnded, clientEnded}, false, false},
		{"clients that go between", []outcome{timedOut, timedOut, clientEnded, timedOut}, true, true},
	} {
		for _, o := range []Outliers{{ConsecutiveGatewayFailure: 3}, {Consecutive5xx: 3}} {
			o.BaseEjectionTime, o.MaxEjectionTime, o.MaxEjectionPercent = time.Hour, time.Hour, 50
			p := newPool(t, Options{Targets: targetsOf(1, 1), Outliers: &o})
			for _, outcome := range c.outcomes {
				p.serves(p.target(t, "a"), 1, outcome)
			}
			want := c.any
			if o.ConsecutiveGatewayFailure > 0 {
				want = c.gateway
			}
			if got := p.states() == "a ejected, b unknown"; got != want {
				t.Errorf("%s, %+v: %s", c.name, o, p.states())
			}
		}
	}
}

// Each ejection is longer than the one before, up to the longest; good conduct
// makes the next one shorter.
func TestEjectionsGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logged
		p := newPool(t, Options{Targets: targetsOf(1, 1), Log: log.logger(), Outliers: &Outliers{
			ConsecutiveGatewayFailure: 2, BaseEjectionTime: 10 * time.Second, MaxEjectionTime: 25 * time.Second, MaxEjectionPercent: 50,
		}})
		a := p.target(t, "a")
		ejection := func(want time.Duration) {
			t.Helper()
			p.serves(a, 2, gatewayError)
			synctest.Wait()
			if got := p.picks(10, nil); got["a"] != 0 {
				t.Fatalf("it was picked while it was out: %v", got)
			}
			p.serves(a, 5, gatewayError) // requests that had begun before
			time.Sleep(want - time.Nanosecond)
			synctest.Wait()
			if p.states() != "a ejected, b unknown" {
				t.Fatalf("before %s are over: %s", want, p.states())
			}
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			if got := p.picks(10, nil); got["a"] != 5 {
				t.Fatalf("after %s: %v", want, got)
			}
		}
		ejection(10 * time.Second)
		ejection(20 * time.Second)
		ejection(25 * time.Second)
		ejection(25 * time.Second)
		p.serves(a, 1, gatewayError) // is forgiven by the next success
		p.serves(a, 1, succeeded)
		time.Sleep(30 * time.Second) // four, less three
		ejection(20 * time.Second)
		time.Sleep(time.Hour)
		ejection(10 * time.Second)
		if got := p.Status()[0].Ejections; got != 6 {
			t.Errorf("%d ejections", got)
		}
		want := `level=WARN msg="target ejected" upstream=heroes target=a why="2 failures in a row, the last: gateway_error" for=10s`
		if lines := log.lines(); len(lines) != 12 || lines[0] != want || lines[1] != `level=INFO msg="target returns after its ejection" upstream=heroes target=a after=10s` {
			t.Errorf("%d lines:\n%s", len(lines), strings.Join(lines, "\n"))
		}
		p.Close()
	})
}

func TestHowManyMayBeEjected(t *testing.T) {
	for _, c := range []struct {
		targets, percent, want int
	}{
		{1, 50, 0}, {1, 99, 0}, {1, 100, 1}, {2, 10, 1}, {3, 10, 1}, {3, 50, 1}, {4, 50, 2}, {10, 35, 3}, {3, 100, 3},
	} {
		p := newPool(t, Options{Targets: targetsOf(slices.Repeat([]int{1}, c.targets)...), Outliers: &Outliers{
			ConsecutiveGatewayFailure: 1, BaseEjectionTime: time.Hour, MaxEjectionTime: time.Hour, MaxEjectionPercent: c.percent,
		}})
		for _, target := range p.targets {
			p.serves(target, 3, refusedUs)
		}
		if got := strings.Count(p.states(), "ejected"); got != c.want {
			t.Errorf("%d %% of %d: %d are out, want %d", c.percent, c.targets, got, c.want)
		}
	}
}

// While one is out others are kept in, of which the log tells now and then; they
// go once there is room, if they fail still.
func TestEjectionWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logged
		p := newPool(t, Options{Targets: targetsOf(1, 1), Log: log.logger(), Outliers: &Outliers{
			ConsecutiveGatewayFailure: 3, BaseEjectionTime: time.Minute, MaxEjectionTime: time.Minute, MaxEjectionPercent: 50,
		}})
		p.serves(p.target(t, "a"), 3, refusedUs)
		p.serves(p.target(t, "b"), 1000, refusedUs)
		if got := p.states(); got != "a ejected, b unknown" {
			t.Fatal(got)
		}
		if lines := log.lines(); len(lines) != 2 || !strings.Contains(lines[1], "not ejected: too many are out") {
			t.Errorf("%d lines:\n%s", len(lines), strings.Join(lines, "\n"))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		p.serves(p.target(t, "b"), 2, refusedUs) // the thousand and second is one of three
		if got := p.states(); got != "a unknown, b ejected" {
			t.Fatal(got)
		}
		p.Close()
	})
}

func TestAllOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tryAll := range []bool{false, true} {
			p := newPool(t, Options{Targets: targetsOf(1, 1), TryAll: tryAll, Outliers: &Outliers{
				ConsecutiveGatewayFailure: 1, BaseEjectionTime: time.Minute, MaxEjectionTime: time.Minute, MaxEjectionPercent: 100,
			}})
			p.serves(p.target(t, "a"), 1, refusedUs)
			time.Sleep(10 * time.Second)
			p.serves(p.target(t, "b"), 1, refusedUs)
			got := p.picks(10, nil)
			if tryAll && (got["a"] != 5 || got["b"] != 5) || !tryAll && got["nobody"] != 10 {
				t.Errorf("try_all %v: %v", tryAll, got)
			}
			var failed *Error
			if err := p.none(); !errors.As(err, &failed) || failed.Failure != NoHealthyTarget || failed.RetryAfter != 50*time.Second || err.Error() != "none of the 2 targets of heroes is healthy; a is ejected" {
				t.Errorf("%v, %+v", err, failed)
			}
			time.Sleep(50 * time.Second)
			synctest.Wait()
			if got := p.picks(10, nil); got["a"] != 10 {
				t.Errorf("when the first is back: %v", got)
			}
			p.Close()
		}
	})
}
