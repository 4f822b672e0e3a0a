package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// paced sends requests at a fixed rate, whatever the answers do, and returns
// the median time from when a request was due to its answer's end: one that
// waits behind a slow one counts as slow, too.
func (r *rig) paced(address, path string, tokens []string, length time.Duration) (time.Duration, error) {
	const senders = 32
	total := int64(r.rate) * int64(length/time.Second)
	pause := time.Second / time.Duration(r.rate)
	var next atomic.Int64
	took := make([]time.Duration, total)
	errs := make([]error, senders)
	var all sync.WaitGroup
	begin := time.Now().Add(50 * time.Millisecond)
	for sender := range senders {
		all.Go(func() {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				errs[sender] = err
				return
			}
			defer func() { _ = conn.Close() }()
			answers := bufio.NewReader(conn)
			for r.ctx.Err() == nil {
				i := next.Add(1) - 1
				if i >= total {
					return
				}
				due := begin.Add(time.Duration(i) * pause)
				request := "GET " + path + " HTTP/1.1\r\nHost: localhost\r\n"
				if len(tokens) > 0 {
					request += "Authorization: Bearer " + tokens[int(i)%len(tokens)] + "\r\n"
				}
				time.Sleep(time.Until(due))
				if errs[sender] = once(conn, answers, request+"\r\n"); errs[sender] != nil {
					return
				}
				took[i] = time.Since(due)
			}
		})
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return 0, err
		}
	}
	slices.Sort(took)
	return took[len(took)/2], r.ctx.Err()
}

// once sends one request over a connection and reads its answer, which must be 200.
func once(conn net.Conn, answers *bufio.Reader, request string) error {
	if _, err := io.WriteString(conn, request); err != nil {
		return err
	}
	res, err := http.ReadResponse(answers, nil)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("a request is answered with %s", res.Status)
	}
	return nil
}

// added is the median time that a peer puts between a client and the backend.
func (r *rig) added(s *stand, c benchCase, tokens string, length time.Duration) (time.Duration, error) {
	var list []string
	if tokens != "-" {
		text, err := os.ReadFile(tokens)
		if err != nil {
			return 0, err
		}
		list = strings.Fields(string(text))
	}
	direct, err := r.paced(r.base.Backend, c.Path, list, length)
	if err != nil {
		return 0, fmt.Errorf("straight to the backend: %w", err)
	}
	through, err := r.paced(s.site.Listen, c.Path, list, length)
	return through - direct, err
}
