package limit

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// The problem types of draft-ietf-httpapi-ratelimit-headers-11 §5. Problems of
// both have the extension member violated-policies, an array of the limits' names.
const (
	QuotaExceeded            = "https://iana.org/assignments/http-problem-types#quota-exceeded"
	TemporaryReducedCapacity = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
)

// Refused says that a limit admits no more of a caller's requests for now.
type Refused struct {
	Limit      string        // the name of the limit with the longest wait
	Violated   []string      // the names of all that refused, in no order
	Quota      int           // tokens that the limit allows in Window, in the long run
	Window     time.Duration // whole seconds
	Remaining  int           // tokens that are left, fewer than the request costs
	RetryAfter time.Duration // until the request is admitted, if nobody else takes its place
	Reduced    bool          // Redis cannot be asked, and this gateway's share of the limit is spent
}

func (e *Refused) Error() string {
	share := ""
	if e.Reduced {
		share = " (this gateway's share while Redis cannot be asked)"
	}
	return fmt.Sprintf("over the limit %s of %d requests in %s%s; the next is admitted in %s", e.Limit, e.Quota, e.Window, share, e.RetryAfter)
}

// Problem returns the problem type, an absolute URI (RFC 9457 §3.1.1).
func (e *Refused) Problem() string {
	if e.Reduced {
		return TemporaryReducedCapacity
	}
	return QuotaExceeded
}

// Headers returns the values of the three header fields of the answer, as
// draft-ietf-httpapi-ratelimit-headers-11 has them (Structured Fields, RFC
// 9651): RateLimit: "per_user";r=0;t=12, RateLimit-Policy:
// "per_user";q=100;w=60 and Retry-After: 12 (RFC 9110 §10.2.3). Waits are
// rounded up to whole seconds, never down, and the draft's §6 forbids a
// Retry-After that is earlier than t.
func (e *Refused) Headers() (rateLimit, policy, retryAfter string) {
	return limitField(quote(e.Limit), e.Remaining, e.RetryAfter), policyField(e.Limit, e.Quota, e.Window),
		strconv.FormatInt(ceilSeconds(e.RetryAfter), 10)
}

// Headers returns the values of RateLimit and RateLimit-Policy for an answer
// that was not refused, as [Refused.Headers] has them; t is when there is one
// token more. Both are "" where no limit applied.
func (d Decision) Headers() (rateLimit, policy string) {
	if d.plan == nil {
		return "", ""
	}
	return limitField(d.plan.quoted, d.Remaining, d.Reset), d.plan.policy
}

func limitField(quoted string, left int, wait time.Duration) string {
	var few [96]byte // each answer has this field: one allocation instead of four
	b := append(few[:0], quoted...)
	b = strconv.AppendInt(append(b, ";r="...), int64(min(left, maxInteger)), 10)
	b = strconv.AppendInt(append(b, ";t="...), ceilSeconds(wait), 10)
	return string(b)
}

func policyField(name string, quota int, window time.Duration) string {
	return quote(name) + ";q=" + strconv.Itoa(quota) + ";w=" + strconv.FormatInt(ceilSeconds(window), 10)
}

// maxInteger is the largest Integer of Structured Fields (RFC 9651 §3.3.1).
const maxInteger = 999_999_999_999_999

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
	return int(min(q, maxInteger)), window
}

// quote writes a Structured Fields String (RFC 9651 §4.1.6).
func quote(s string) string {
	if !strings.ContainsAny(s, `\"`) {
		return `"` + s + `"`
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// printable reports whether a Structured Fields String can hold s.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c < 0x20 || c > 0x7e })
}
