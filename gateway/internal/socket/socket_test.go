package socket

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"
)

// pair returns the ends of a connection.
func pair(t testing.TB, wrap func(net.Conn) net.Conn) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	return wrap(near), wrap(far)
}

func TestConn(t *testing.T) {
	nettest.TestConn(t, func() (near, far net.Conn, stop func(), err error) {
		near, far = pair(t, New)
		return near, far, func() { _, _ = near.Close(), far.Close() }, nil
	})
}

// TestAsNet has the same done to a connection and to one of package net, by who
// sees what each call returns.
func TestAsNet(t *testing.T) {
	past := func(set func(time.Time) error) { _ = set(time.Now().Add(-time.Second)) }
	for name, story := range map[string]func(near, far net.Conn, say func(n int, err error)){
		"a part": func(near, far net.Conn, say func(int, error)) {
			say(far.Write([]byte("hello")))
			say(near.Read(make([]byte, 3)))
			say(near.Read(make([]byte, 3)))
		},
		"nothing": func(near, _ net.Conn, say func(int, error)) {
			say(near.Read(nil))
			say(near.Write(nil))
		},
		"nothing, past the deadline": func(near, _ net.Conn, say func(int, error)) {
			past(near.SetDeadline)
			say(near.Read(nil))
			say(near.Write(nil))
		},
		"the other end closes": func(near, far net.Conn, say func(int, error)) {
			say(far.Write([]byte("last")))
			_ = far.Close()
			say(near.Read(make([]byte, 9)))
			say(near.Read(make([]byte, 9)))
			say(near.Read(make([]byte, 9)))
		},
		"the other end closes for writing": func(near, far net.Conn, say func(int, error)) {
			_ = far.(interface{ CloseWrite() error }).CloseWrite()
			say(near.Read(make([]byte, 9)))
			say(near.Write([]byte("still")))
			say(io.ReadFull(far, make([]byte, 5)))
		},
		"the other end resets": func(near, far net.Conn, say func(int, error)) {
			_ = far.(interface{ SetLinger(int) error }).SetLinger(0)
			_ = far.Close()
			say(near.Read(make([]byte, 9)))
			say(near.Write([]byte("late")))
			say(near.Read(make([]byte, 9)))
		},
		"closed": func(near, _ net.Conn, say func(int, error)) {
			_ = near.Close()
			say(near.Read(make([]byte, 9)))
			say(near.Write([]byte("x")))
			say(near.Read(nil))
		},
		"closed for writing": func(near, _ net.Conn, say func(int, error)) {
			_ = near.(interface{ CloseWrite() error }).CloseWrite()
			say(near.Write([]byte("x")))
		},
		"closed while it reads": func(near, _ net.Conn, say func(int, error)) {
			time.AfterFunc(time.Millisecond, func() { _ = near.Close() })
			say(near.Read(make([]byte, 9)))
		},
		"past the deadline": func(near, far net.Conn, say func(int, error)) {
			say(far.Write([]byte("there")))
			past(near.SetDeadline)
			say(near.Read(make([]byte, 9)))
			say(near.Write([]byte("x")))
		},
		"a deadline while it reads": func(near, _ net.Conn, say func(int, error)) {
			_ = near.SetReadDeadline(time.Now().Add(time.Millisecond))
			say(near.Read(make([]byte, 9)))
			say(near.Write([]byte("x")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			var said [2][]string
			for i, wrap := range []func(net.Conn) net.Conn{func(c net.Conn) net.Conn { return c }, New} {
				near, far := pair(t, wrap)
				story(near, far, func(n int, err error) {
					var timeout net.Error
					said[i] = append(said[i], regexp.MustCompile(`:\d+`).ReplaceAllString(fmt.Sprintf("%d, %T: %[2]v, eof: %t, closed: %t, timeout: %t",
						n, err, err == io.EOF, errors.Is(err, net.ErrClosed), errors.As(err, &timeout) && timeout.Timeout()), ":port"))
				})
			}
			if want, got := strings.Join(said[0], "\n"), strings.Join(said[1], "\n"); got != want {
				t.Errorf("got\n%s\nwhere net's has\n%s", got, want)
			}
		})
	}
}

// TestWriteInParts writes far more than the kernel takes at a time, from two
// goroutines, whose bytes must not mix.
func TestWriteInParts(t *testing.T) {
	const size = 8 << 20
	near, far := pair(t, New)
	var all sync.WaitGroup
	for _, letter := range []string{"a", "b"} {
		all.Go(func() {
			if n, err := near.Write(bytes.Repeat([]byte(letter), size)); n != size || err != nil {
				t.Errorf("wrote %d bytes: %v", n, err)
			}
		})
	}
	got := make([]byte, 2*size)
	if _, err := io.ReadFull(far, got); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	if first, second := got[:size], got[size:]; strings.Trim(string(first), string(got[0])) != "" || strings.Trim(string(second), string(got[size])) != "" || got[0] == got[size] {
		t.Error("the bytes of two writes are mixed")
	}
}

// TestWriteEndsAmidst has a deadline end a Write of which a part has gone.
func TestWriteEndsAmidst(t *testing.T) {
	near, far := pair(t, New)
	wrote := make(chan int)
	go func() {
		n, err := near.Write(make([]byte, 64<<20))
		var timeout net.Error
		if n == 64<<20 || !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("wrote %d bytes: %v", n, err)
		}
		_ = near.Close()
		wrote <- n
	}()
	if _, err := io.ReadFull(far, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_ = near.SetWriteDeadline(time.Now().Add(-time.Second))
	n := <-wrote
	if rest, err := io.Copy(io.Discard, far); rest+1 != int64(n) || err != nil {
		t.Errorf("%d bytes arrived of %d: %v", rest+1, n, err)
	}
}

func TestNothingToRead(t *testing.T) {
	if !CanProbe {
		t.Skip("nothing can be told on this system")
	}
	near, far := pair(t, New)
	raw, err := near.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var nothing bool
	look := func() {
		if err := raw.Read(func(fd uintptr) bool { nothing = NothingToRead(fd, make([]byte, 1)); return true }); err != nil {
			t.Fatal(err)
		}
	}
	if look(); !nothing {
		t.Error("there is something before anything was sent")
	}
	if _, err := far.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if look(); nothing {
		t.Error("there is nothing after a byte was sent")
	}
	_ = far.Close()
	if look(); nothing {
		t.Error("there is nothing at the end")
	}
}

// TestOthersAreLeft wraps nothing but TCP.
func TestOthersAreLeft(t *testing.T) {
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	if got := New(a); got != a {
		t.Errorf("%T came back", got)
	}
}

func BenchmarkPingPong(b *testing.B) {
	for name, wrap := range map[string]func(net.Conn) net.Conn{"net": func(c net.Conn) net.Conn { return c }, "socket": New} {
		b.Run(name, func(b *testing.B) {
			near, far := pair(b, wrap)
			go func() { _, _ = io.Copy(struct{ io.Writer }{far}, struct{ io.Reader }{far}) }()
			p := make([]byte, 1000)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := near.Write(p); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(near, p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
