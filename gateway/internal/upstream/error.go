package upstream

import (
	"fmt"
	"time"
)

// Failure is the way in which forwarding failed.
type Failure int

// The ways in which forwarding fails before the response's headers were sent.
const (
	Refused         Failure = iota // no connection, or the target broke it or answered nonsense
	Timeout                        // the target's headers did not come in time
	ClientGone                     // the client closed its connection
	ClientStalled                  // the client stopped sending its body
	ClientBroke                    // the client's body is malformed
	NoHealthyTarget                // there is none, or none is used at present
	Overloaded                     // as many requests as may be are in flight
	CircuitOpen                    // too many requests failed lately
)

func (f Failure) String() string {
	return [...]string{"refused", "timeout", "client gone", "client stalled", "client's body malformed", "no healthy target", "overloaded", "circuit open"}[f]
}

// Error says how forwarding failed; nothing has been sent to the client.
type Error struct {
	Failure Failure
	Target  string // the target's host:port; "" if none was asked
	Err     error
	// RetryAfter is when a target may be back; 0: nobody knows.
	RetryAfter time.Duration
}

func (e *Error) Error() string {
	if e.Failure >= NoHealthyTarget { // nobody was asked
		return e.Err.Error()
	}
	return fmt.Sprintf("%s: %v: %v", e.Target, e.Failure, e.Err)
}

// Unwrap returns what net/http said.
func (e *Error) Unwrap() error { return e.Err }
