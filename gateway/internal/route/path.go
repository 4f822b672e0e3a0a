package route

import (
	"fmt"
	"iter"
	"net/url"
	"slices"
	"strings"
)

// BadPath says that a request's path has more than one reading, or none.
type BadPath struct{ Detail string }

func (e *BadPath) Error() string { return "bad path: " + e.Detail }

func badPath(format string, args ...any) *BadPath { return &BadPath{fmt.Sprintf(format, args...)} }

// pathFacts are what the gate saw while it read a path.
type pathFacts struct {
	encodedSlash bool // %2f: stays in its segment here, a separator to many a backend
	ambiguous    bool // ; ? # %25hh in any encoding, or a dot or space at a segment's end: some backends cut there or decode once more
}

// inspect refuses an escaped path that backends are known to read in different
// ways: bytes outside RFC 3986 §3.3 pchar, bad escapes, %00, %5c, and empty,
// . or .. segments in any encoding, with %2f taken for a separator too.
func inspect(path string) (pathFacts, error) {
	var facts pathFacts
	if path == "" || path[0] != '/' {
		return facts, badPath("it does not start with a slash")
	}
	// dots counts the leading dots of the segment at hand, -1 once it holds anything else.
	dots, empty := 0, true
	var before byte // the last of the segment
	endSegment := func(last bool) error {
		if !empty && (before == '.' || before == ' ') {
			facts.ambiguous = true
		}
		switch {
		case empty && !last:
			return badPath("it has an empty segment (//)")
		case dots == 1 || dots == 2:
			return badPath("it has a dot segment (. or ..)")
		}
		dots, empty = 0, true
		return nil
	}
	for i := 1; i < len(path); {
		c, size := path[i], 1
		if c == '%' {
			if i+2 >= len(path) || !isHex(path[i+1]) || !isHex(path[i+2]) {
				return facts, badPath("it has a percent sign without two hexadecimal digits")
			}
			c, size = unhex(path[i+1])<<4|unhex(path[i+2]), 3
			switch c {
			case 0:
				return facts, badPath("it has %%00")
			case 0xc0, 0xc1:
				return facts, badPath("it has %%%02x, which no UTF-8 has: an overlong slash or dot to some decoders", c)
			case 0xe0, 0xf0, 0xf8, 0xfc:
				if next, ok := unescape(path[i+3:]); ok && 0x80 <= next && next < overlong[c] {
					return facts, badPath("it has %%%02x%%%02x, which no UTF-8 has: an overlong slash or dot to some decoders", c, next)
				}
			case '\\':
				return facts, badPath("it has %%5c, a backslash, which some backends take for a slash")
			case '%':
				facts.ambiguous = true // or not: decodeAgain looks at what follows
			}
			if c < 0x20 || c == 0x7f {
				return facts, badPath("it has %%%02x, a control character, which some backends cut at or leave out", c)
			}
		} else if !isPchar(c) && c != '/' {
			return facts, badPath("it has the byte %#02x, which RFC 3986 does not allow there", c)
		}
		switch c {
		case '/':
			facts.encodedSlash = facts.encodedSlash || size == 3
			if err := endSegment(false); err != nil {
				return facts, err
			}
			i += size
			continue
		case ';', '?', '#': // the latter two only as %3f and %23
			facts.ambiguous = true
		}
		if c == '.' && dots >= 0 {
			dots++
		} else {
			dots = -1
		}
		empty, before = false, c
		i += size
	}
	return facts, endSegment(true)
}

// overlong is where the second byte of each form begins that is not longer than
// what it stands for (RFC 3629 §3, and RFC 2279 §2 for the last two).
var overlong = map[byte]byte{0xe0: 0xa0, 0xf0: 0x90, 0xf8: 0x88, 0xfc: 0x84}

// unescape returns the byte that s begins with an escape of.
func unescape(s string) (byte, bool) {
	if len(s) < 3 || s[0] != '%' || !isHex(s[1]) || !isHex(s[2]) {
		return 0, false
	}
	return unhex(s[1])<<4 | unhex(s[2]), true
}

// maxDecodings is how often a path may be decoded again before it is refused:
// nobody honest encodes a path four times.
const maxDecodings = 3

// readings yields the other paths that a backend may make of an ambiguous
// one, each once: segments cut at ; (path parameters, as Java's servlets do) or
// without the dots and spaces at their ends (as Windows' file systems do), all
// cut at an encoded ? or #, decoded once more, and combinations. They are made
// as they are asked for, so that the first bad one is the last; the error, which
// costs less than any of them, comes before.
func readings(path string) (iter.Seq[string], error) {
	decoded := []string{path}
	for {
		again, ok := decodeAgain(decoded[len(decoded)-1])
		if !ok {
			break
		}
		if len(decoded) == maxDecodings {
			return nil, badPath("it is percent-encoded more than %d times", maxDecodings)
		}
		decoded = append(decoded, again)
	}
	return func(yield func(string) bool) {
		had := []string{path}
		for _, path := range decoded {
			for _, end := range [...]string{path, cutQuery(path)} {
				for _, cut := range [...]string{end, cutParameters(end)} {
					for _, reading := range [...]string{cut, trimEnds(cut)} {
						if slices.Contains(had, reading) {
							continue
						}
						if had = append(had, reading); !yield(reading) {
							return
						}
					}
				}
			}
		}
	}, nil
}

// cutQuery drops everything from an encoded ? or #.
func cutQuery(path string) string {
	for i := range len(path) {
		if c, ok := unescape(path[i:]); ok && (c == '?' || c == '#') {
			return path[:i]
		}
	}
	return path
}

// cutParameters drops everything from ; or %3b to the end of each segment.
func cutParameters(path string) string {
	b := make([]byte, 0, len(path))
	cut := false
	for i := range len(path) {
		c, escaped := unescape(path[i:])
		if !escaped {
			c = path[i]
		}
		switch c {
		case '/':
			cut = false
		case ';':
			cut = true
		}
		if !cut {
			b = append(b, path[i])
		}
	}
	return string(b)
}

// trimEnds drops dots and spaces from the end of each segment.
func trimEnds(path string) string {
	b := make([]byte, 0, len(path))
	end := 0 // of b without the dots and spaces that it ends in
	for i := 0; i < len(path); {
		c, size := path[i], 1
		if unescaped, ok := unescape(path[i:]); ok {
			c, size = unescaped, 3
		}
		if c == '/' {
			b = b[:end]
		}
		b = append(b, path[i:i+size]...)
		if c != '.' && c != ' ' {
			end = len(b)
		}
		i += size
	}
	return string(b[:end])
}

// decodeAgain returns what one who decodes twice reads: every escape decoded,
// with those that this brings forth (%252e, but also %25%32%65) left as
// escapes, and slashes as slashes. ok is false if it brings forth none.
func decodeAgain(path string) (again string, ok bool) {
	if !strings.Contains(path, "%25") { // what brings forth an escape has a percent sign for it
		return "", false
	}
	decoded, err := url.PathUnescape(path)
	if err != nil {
		return "", false
	}
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	b.Grow(len(path))
	for i := 0; i < len(decoded); i++ {
		c := decoded[i]
		switch {
		case c == '%' && i+2 < len(decoded) && isHex(decoded[i+1]) && isHex(decoded[i+2]):
			ok = true
			if decoded[i+1] == '2' && decoded[i+2]|0x20 == 'f' {
				b.WriteByte('/')
				i += 2
				continue
			}
			b.WriteByte(c)
		case c == '/' || isPchar(c):
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String(), ok
}

func isPchar(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~!$&'()*+,;=:@", c) >= 0
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	}
	return c - 'a' + 10
}
