package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// vandal is a client that does wrong. What it gets is its own affair; nobody
// else must notice.
type vandal struct {
	name string
	many int
	act  func(s *soak, ctx context.Context, v *victim) error
}

// victim is a gateway, and clients of it over which to do wrong.
type victim struct {
	*soaked
	clients []*http.Client // HTTP/1.1 and HTTP/2
}

// open connects to the gateway.
func (v *victim) open(protocol string) (net.Conn, *net.TCPConn, error) {
	conn, err := net.DialTimeout("tcp", v.site.Listen, 10*time.Second)
	if err != nil {
		return nil, nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	raw := conn.(*net.TCPConn)
	if v.site.TLS {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}})
	}
	return conn, raw, nil
}

// hangUp ends a connection, now and then by a reset.
func hangUp(conn net.Conn, raw *net.TCPConn) {
	if rand.IntN(2) == 0 {
		_ = raw.SetLinger(0)
		_ = raw.Close()
	}
	_ = conn.Close()
}

func (s *soak) head(request string, more ...string) string {
	return request + " HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + s.token() + "\r\n" + strings.Join(more, "")
}

var allVandals = []vandal{
	{"upload cut off", 2, func(s *soak, ctx context.Context, v *victim) error {
		conn, raw, err := v.open("http/1.1")
		if err != nil {
			return err
		}
		defer hangUp(conn, raw)
		_, err = io.WriteString(conn, s.head("POST /odd/sink", "Content-Length: 1000000\r\n\r\n")+strings.Repeat("x", rand.IntN(500_000)))
		pause(ctx.Done(), time.Duration(rand.IntN(50))*time.Millisecond)
		return err
	}},
	{"download cut off", 2, func(s *soak, ctx context.Context, v *victim) error {
		conn, raw, err := v.open("http/1.1")
		if err != nil {
			return err
		}
		defer hangUp(conn, raw)
		if _, err = io.WriteString(conn, s.head("GET /odd/endless", "\r\n")); err != nil {
			return err
		}
		_, err = io.CopyN(io.Discard, conn, rand.Int64N(2_000_000))
		return err
	}},
	{"stream reset in a body", 4, func(s *soak, ctx context.Context, v *victim) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		client := v.clients[rand.IntN(len(v.clients))]
		if rand.IntN(2) == 0 {
			body := &hasty{left: rand.IntN(500_000), end: cancel}
			req, err := http.NewRequestWithContext(ctx, "POST", v.url+"/odd/sink", body)
			if err != nil {
				return err
			}
			req.Header.Set("Authorization", "Bearer "+s.token())
			if res, err := client.Do(req); err == nil {
				_ = res.Body.Close()
			}
			return nil
		}
		req, err := http.NewRequestWithContext(ctx, "GET", v.url+"/odd/endless", nil)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+s.token())
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		_, err = io.CopyN(io.Discard, res.Body, rand.Int64N(2_000_000))
		_ = res.Body.Close()
		return err
	}},
	{"answer not awaited", 2, func(s *soak, ctx context.Context, v *victim) error {
		ctx, cancel := context.WithTimeout(ctx, time.Duration(rand.IntN(100))*time.Millisecond)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, "GET", v.url+"/odd/slow", nil)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+s.token())
		if res, err := v.clients[rand.IntN(len(v.clients))].Do(req); err == nil {
			_ = res.Body.Close()
		}
		return nil
	}},
	{"slow reader", 6, func(s *soak, ctx context.Context, v *victim) error {
		conn, raw, err := v.open("http/1.1")
		if err != nil {
			return err
		}
		defer hangUp(conn, raw)
		_ = raw.SetReadBuffer(4096)
		if _, err = io.WriteString(conn, s.head("GET /odd/endless", "\r\n")); err != nil {
			return err
		}
		for some := make([]byte, 512); ctx.Err() == nil; pause(ctx.Done(), 500*time.Millisecond) {
			if _, err := conn.Read(some); err != nil {
				return nil // as it should be
			}
		}
		return nil
	}},
	{"slow-loris", 10, func(s *soak, ctx context.Context, v *victim) error {
		conn, raw, err := v.open("http/1.1")
		if err != nil {
			return err
		}
		defer hangUp(conn, raw)
		for _, c := range []byte(s.head("GET /heroes", "X: y\r\n\r\n")) {
			if _, err := conn.Write([]byte{c}); err != nil || ctx.Err() != nil {
				return nil // as it should be
			}
			pause(ctx.Done(), 200*time.Millisecond)
		}
		return fmt.Errorf("it came to its end")
	}},
	{"slow upload", 4, func(s *soak, ctx context.Context, v *victim) error {
		conn, raw, err := v.open("http/1.1")
		if err != nil {
			return err
		}
		defer hangUp(conn, raw)
		_, err = io.WriteString(conn, s.head("POST /odd/sink", "Content-Length: 1000000\r\n\r\n"))
		for range rand.IntN(50) {
			_, err = conn.Write([]byte("x"))
			pause(ctx.Done(), 100*time.Millisecond)
		}
		if rand.IntN(2) == 0 { // and then nothing more: the route's idle_timeout
			_, _ = io.Copy(io.Discard, conn)
		}
		return err
	}},
	{"garbage", 2, func(s *soak, ctx context.Context, v *victim) error {
		conn, raw, err := v.open("http/1.1")
		if err != nil {
			return err
		}
		if rand.IntN(2) == 0 {
			conn = raw // not even TLS
		}
		defer hangUp(conn, raw)
		junk := make([]byte, rand.IntN(10_000))
		for i := range junk {
			junk[i] = byte(rand.IntN(256))
		}
		_, err = conn.Write(junk)
		_, _ = io.CopyN(io.Discard, conn, 100)
		return err
	}},
	{"idle connection", 10, func(s *soak, ctx context.Context, v *victim) error {
		conn, raw, err := v.open("http/1.1")
		if err != nil {
			return err
		}
		defer hangUp(conn, raw)
		pause(ctx.Done(), time.Duration(rand.IntN(8000))*time.Millisecond)
		return nil
	}},
	{"rapid reset", 1, (*soak).rapidReset},
}

// rapidReset opens streams and resets each at once (CVE-2023-44487).
func (s *soak) rapidReset(ctx context.Context, v *victim) error {
	conn, raw, err := v.open("h2")
	if err != nil {
		return err
	}
	defer hangUp(conn, raw)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return err
	}
	framer := http2.NewFramer(conn, conn)
	var block bytes.Buffer
	coder := hpack.NewEncoder(&block)
	err = framer.WriteSettings()
	for id := uint32(1); id < 1000 && err == nil; id += 2 {
		block.Reset()
		for _, field := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":path", "/odd/slow"}, {":authority", "localhost"}, {"authorization", "Bearer " + s.token()}} {
			_ = coder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
		}
		if err = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true}); err == nil {
			err = framer.WriteRSTStream(id, http2.ErrCodeCancel)
		}
	}
	pause(ctx.Done(), 500*time.Millisecond)
	return nil // that it is cut off is as it should be
}

// hasty is a body whose sender goes away before its end.
type hasty struct {
	left int
	end  func()
}

func (h *hasty) Read(p []byte) (int, error) {
	if h.left <= 0 {
		h.end()
		return 0, context.Canceled
	}
	n := min(len(p), h.left, 16<<10)
	h.left -= n
	return n, nil
}
