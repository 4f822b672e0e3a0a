package policy

import (
	"strconv"
	"strings"
)

// decimal is a JSON number in its one normal form, so that == compares by
// value: ±0.d1d2… without zeros at either end, times a power of ten. Floats
// would make 9007199254740993 equal to 9007199254740992, and one user's number
// is then another's.
type decimal struct {
	negative bool
	digits   [64]byte
	n        int
	exponent int
}

// parseDecimal reads a number that is good JSON. ok is false for more digits
// or a larger exponent than anything that is compared has.
func parseDecimal(s string) (d decimal, ok bool) {
	s, d.negative = strings.CutPrefix(s, "-")
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		e, err := strconv.Atoi(s[i+1:])
		if err != nil || e > 1e6 || e < -1e6 {
			return decimal{}, false
		}
		d.exponent, s = e, s[:i]
	}
	fraction := false
	for _, c := range []byte(s) {
		switch {
		case c == '.':
			fraction = true
			continue
		case fraction:
			d.exponent--
		}
		if c == '0' && d.n == 0 {
			continue
		}
		if d.n == len(d.digits) {
			return decimal{}, false
		}
		d.digits[d.n] = c
		d.n++
	}
	if d.n == 0 {
		return decimal{}, true
	}
	for d.digits[d.n-1] == '0' {
		d.n--
		d.digits[d.n] = 0
		d.exponent++
	}
	return d, true
}
