package upstream

import "encoding/binary"

// Close codes of RFC 6455 §7.4.1.
const (
	goingAway       = 1001
	policyViolation = 1008
)

const (
	opcodeClose = 0x8
	finalFrame  = 0x80
)

// frames follows a stream of WebSocket frames (RFC 6455 §5.2) by their headers
// alone, to know where one ends. The zero value stands before the first frame.
type frames struct {
	header [14]byte // the longest there is: 2 bytes, 8 of length, 4 of mask
	got    int      // bytes of the header
	left   uint64   // bytes of the payload that are to come
	closed bool     // a close frame has begun: nothing may follow it (§5.5.1)
}

// between says whether a frame has ended and none has begun.
func (f *frames) between() bool { return f.got == 0 && f.left == 0 }

// next takes bytes of p until a frame ends, or all, and returns how many.
func (f *frames) next(p []byte) int {
	for n := 0; n < len(p); {
		if f.left > 0 {
			taken := min(f.left, uint64(len(p)-n))
			f.left -= taken
			n += int(taken)
		} else {
			f.header[f.got] = p[n]
			f.got++
			n++
			f.begin()
		}
		if f.between() {
			return n
		}
	}
	return len(p)
}

// begin enters the payload if the header is whole.
func (f *frames) begin() {
	if f.got < 2 {
		return
	}
	size, length := 2, uint64(f.header[1]&0x7f)
	switch length {
	case 126:
		size, length = 4, uint64(binary.BigEndian.Uint16(f.header[2:]))
	case 127:
		size, length = 10, binary.BigEndian.Uint64(f.header[2:])
	}
	if f.header[1]&0x80 != 0 { // a mask, which no server may send (§5.1)
		size += 4
	}
	if f.got == size {
		f.got, f.left = 0, length
		f.closed = f.closed || f.header[0]&0x0f == opcodeClose
	}
}

// closeFrame is an unmasked close frame, as a server sends it (RFC 6455
// §5.5.1); the reason has at most 123 bytes.
func closeFrame(code uint16, reason string) []byte {
	frame := []byte{finalFrame | opcodeClose, byte(2 + len(reason))}
	return append(binary.BigEndian.AppendUint16(frame, code), reason...)
}
