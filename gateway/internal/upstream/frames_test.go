package upstream

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
)

// frame is one with a payload of n bytes, its length written in size bytes.
func frame(first byte, n, size int, mask bool) []byte {
	f := []byte{first}
	switch size {
	case 1:
		f = append(f, byte(n))
	case 2:
		f = binary.BigEndian.AppendUint16(append(f, 126), uint16(n))
	case 8:
		f = binary.BigEndian.AppendUint64(append(f, 127), uint64(n))
	}
	if mask {
		f[1] |= 0x80
		f = append(f, 1, 2, 3, 4)
	}
	return append(f, bytes.Repeat([]byte{0x88}, n)...) // a payload that looks like headers
}

// boundaries are the offsets in stream at which a frame ends, read in pieces
// as long as sizes says, again and again.
func boundaries(stream []byte, sizes []byte) (ends []int, f frames) {
	at := 0
	for i := 0; at < len(stream); i++ {
		size := len(stream)
		if len(sizes) > 0 {
			size = int(sizes[i%len(sizes)]) + 1
		}
		piece := stream[at:min(len(stream), at+size)]
		for len(piece) > 0 {
			n := f.next(piece)
			at, piece = at+n, piece[n:]
			if f.between() {
				ends = append(ends, at)
			}
		}
	}
	return ends, f
}

func TestFrames(t *testing.T) {
	for _, c := range []struct {
		name   string
		frames [][]byte
		rest   []byte // a frame that does not end
		closed bool
	}{
		{name: "nothing"},
		{name: "half a header", rest: []byte{0x81}},
		{name: "a header without its length", rest: []byte{0x81, 126, 0}},
		{name: "a header without its mask", rest: []byte{0x81, 0x80, 1, 2, 3}},
		{name: "a payload that goes on", rest: []byte{0x81, 5, 1, 2, 3, 4}},
		{name: "a length beyond all", rest: append([]byte{0x82, 127}, bytes.Repeat([]byte{0xff}, 100)...)},
		{name: "empty", frames: [][]byte{frame(0x81, 0, 1, false), frame(0x81, 0, 1, true)}},
		{name: "short", frames: [][]byte{frame(0x81, 1, 1, false), frame(0x82, 125, 1, false)}},
		{name: "16 bits", frames: [][]byte{frame(0x81, 126, 2, false), frame(0x82, 65535, 2, false)}},
		{name: "64 bits", frames: [][]byte{frame(0x81, 65536, 8, false), frame(0x81, 1, 1, false)}},
		{name: "longer than needed", frames: [][]byte{frame(0x81, 3, 2, false), frame(0x81, 3, 8, false), frame(0x81, 0, 8, false)}},
		{name: "masked", frames: [][]byte{frame(0x81, 5, 1, true), frame(0x81, 300, 2, true), frame(0x81, 7, 8, true)}},
		{name: "fragments and a ping between", frames: [][]byte{frame(0x01, 5, 1, false), frame(0x89, 0, 1, false), frame(0x80, 5, 1, false)}},
		{name: "close", frames: [][]byte{closeFrame(1000, "bye")}, closed: true},
		{name: "close that has begun", rest: []byte{0x88, 2}, closed: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var want []int
			var stream []byte
			for _, f := range c.frames {
				stream = append(stream, f...)
				want = append(want, len(stream))
			}
			stream = append(stream, c.rest...)
			for _, sizes := range [][]byte{nil, {0}, {1}, {2, 0, 8}} {
				got, f := boundaries(stream, sizes)
				if !slices.Equal(got, want) || f.closed != c.closed || f.between() != (len(c.rest) == 0) {
					t.Errorf("in pieces of %v: frames end at %v, want %v; closed %v, between %v", sizes, got, want, f.closed, f.between())
				}
			}
		})
	}
}

// However a stream is cut into pieces, its frames end at the same places: those
// that a reading of the whole finds.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{0x81, 0, 0x82, 126, 0, 1, 7, 0x88, 0x82, 1, 2, 3, 4, 3, 0xe8}, []byte{0, 3})
	f.Add([]byte{0x82, 127, 0, 0, 0, 0, 0, 0, 0, 2, 1, 2, 0x89}, []byte{2})
	f.Add([]byte{0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255, 1, 2}, []byte{})
	f.Fuzz(func(t *testing.T, stream, sizes []byte) {
		var want []int
		for at := 0; ; {
			rest := stream[at:]
			if len(rest) < 2 {
				break
			}
			size, length := 2, uint64(rest[1]&0x7f)
			if length >= 126 {
				wide := map[uint64]int{126: 2, 127: 8}[length]
				if size += wide; len(rest) < size {
					break
				}
				length = 0
				for _, b := range rest[2:size] {
					length = length<<8 | uint64(b)
				}
			}
			if rest[1] >= 0x80 {
				size += 4
			}
			if len(rest) < size || length > uint64(len(rest)-size) {
				break
			}
			at += size + int(length)
			want = append(want, at)
		}
		if got, _ := boundaries(stream, sizes); !slices.Equal(got, want) {
			t.Errorf("frames end at %v, want %v", got, want)
		}
	})
}

// dig gives a tunnel, and the target at its other end.
func dig(t *testing.T) (*tunnel, net.Conn) {
	t.Helper()
	near, target := net.Pipe()
	tun := &tunnel{target: near, client: http.NewResponseController(httptest.NewRecorder())}
	t.Cleanup(func() { tun.release(); _ = target.Close() })
	return tun, target
}

func readExactly(t *testing.T, r io.Reader, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got % x, %v, want % x", got, err, want)
	}
}

func TestTunnelEndsBetweenFrames(t *testing.T) {
	tun, target := dig(t)
	hello := frame(0x81, 5, 1, false)
	go func() { _, _ = target.Write(hello) }()
	readExactly(t, tun, hello)
	rest := make(chan []byte)
	go func() { all, _ := io.ReadAll(tun); rest <- all }()
	tun.end(policyViolation, "why")
	tun.end(goingAway, "later")
	if got := <-rest; !bytes.Equal(got, []byte{0x88, 5, 0x03, 0xf0, 'w', 'h', 'y'}) {
		t.Errorf("the client got % x", got)
	}
	if n, err := tun.Write([]byte("late")); n != 4 || err != nil {
		t.Errorf("what comes late: %d, %v", n, err)
	}
	if _, err := target.Read(make([]byte, 1)); err == nil {
		t.Error("the target's side is open, or was told what came late")
	}
}

func TestTunnelFinishesTheFrame(t *testing.T) {
	for _, size := range []int{1, 4, 1000} { // of what the client's side reads at once
		tun, target := dig(t)
		long, next := frame(0x82, 300, 2, false), frame(0x82, 20, 1, false)
		go func() { _, _ = target.Write(long[:100]) }()
		readExactly(t, tun, long[:100])
		tun.end(policyViolation, "why")
		go func() { _, _ = target.Write(slices.Concat(long[100:], next)) }()
		var got []byte
		for p := make([]byte, size); ; {
			n, err := tun.Read(p)
			if got = append(got, p[:n]...); err != nil {
				break
			}
		}
		if want := slices.Concat(long[100:], closeFrame(policyViolation, "why")); !bytes.Equal(got, want) {
			t.Errorf("reading %d at once: got % x, want % x", size, got, want)
		}
	}
}

// A target that stops in the middle of a frame gets no second close frame into it.
func TestTunnelOfAStuckFrame(t *testing.T) {
	tun, target := dig(t)
	long := frame(0x82, 300, 2, false)
	go func() { _, _ = target.Write(long[:100]) }()
	readExactly(t, tun, long[:100])
	tun.end(policyViolation, "why")
	if got, err := io.ReadAll(tun); len(got) > 0 || err == nil {
		t.Errorf("got % x, %v, want an error", got, err)
	}
}

// After the target's own close frame there is nothing to add (RFC 6455 §5.5.1).
func TestTunnelAfterAClose(t *testing.T) {
	tun, target := dig(t)
	bye := closeFrame(1000, "bye")
	go func() { _, _ = target.Write(bye) }()
	readExactly(t, tun, bye)
	tun.end(policyViolation, "why")
	if got, err := io.ReadAll(tun); len(got) > 0 || err != nil {
		t.Errorf("got % x, %v, want EOF", got, err)
	}
}
