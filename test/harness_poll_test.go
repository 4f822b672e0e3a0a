package test

import (
	"testing"
	"time"
)

// patience is how long a condition may take to come true. It is long since it
// only ever passes where something is broken.
const patience = 30 * time.Second

// eventually asks until ok says yes, and fails the test if it never does.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for tick := time.NewTicker(10 * time.Millisecond); !ok(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never came true: %s", what)
		}
	}
}

// receive returns the next value of c, and fails the test if none comes.
func receive[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("never came: %s", what)
		panic("not reached")
	}
}
