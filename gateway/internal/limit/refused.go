package limit

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Refused says that a limit admits no more of a caller's requests for now.
type Refused struct {
	Limit      string        // the limit's name
	Quota      int           // requests that the limit allows in Window, in the long run
	Window     time.Duration // whole seconds
	RetryAfter time.Duration // until the next request is admitted, if nobody else takes its place
}

func (e *Refused) Error() string {
	return fmt.Sprintf("over the limit %s of %d requests in %s; the next is admitted in %s", e.Limit, e.Quota, e.Window, e.RetryAfter)
}

// Headers returns the values of the three header fields of the answer, as
// draft-ietf-httpapi-ratelimit-headers-11 has them (Structured Fields, RFC
// 9651): RateLimit: "per_user";r=0;t=12, RateLimit-Policy:
// "per_user";q=100;w=60 and Retry-After: 12 (RFC 9110 §10.2.3). Waits are
// rounded up to whole seconds, never down, and the draft's §6 forbids a
// Retry-After that is earlier than t.
func (e *Refused) Headers() (rateLimit, policy, retryAfter string) {
	seconds := ceilSeconds(e.RetryAfter)
	name := quote(e.Limit)
	return fmt.Sprintf("%s;r=0;t=%d", name, seconds),
		fmt.Sprintf("%s;q=%d;w=%d", name, e.Quota, ceilSeconds(e.Window)),
		strconv.FormatInt(seconds, 10)
}

func ceilSeconds(d time.Duration) int64 {
	s := int64(d / time.Second)
	if d%time.Second > 0 {
		s++
	}
	return s
}

// policy returns the quota and the window that tell a caller about a rate. The
// draft's §3.1.3 wants whole seconds, at least one, so another window is
// rounded up and the quota grows with it, rounded down: 5/100ms is 50 in 1s. A
// bucket's burst is not in it; the draft has no word for that.
func policy(r Rate) (quota int, window time.Duration) {
	window = time.Duration(ceilSeconds(r.Per)) * time.Second
	q := math.Floor(float64(r.Count) * float64(window) / float64(r.Per))
	return int(min(q, 999_999_999_999_999)), window // RFC 9651 §3.3.1
}

// quote writes a Structured Fields String (RFC 9651 §4.1.6).
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// printable reports whether a Structured Fields String can hold s.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c < 0x20 || c > 0x7e })
}
