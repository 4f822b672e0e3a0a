package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// caller is a well-behaved client. What it gets must be right, always.
type caller struct {
	name    string
	many    int  // at a time
	fragile bool // it may fail while its backend is down
	http1   bool // it cannot speak HTTP/2
	ask     func(s *soak, c *http.Client, url string) error
}

var allCallers = []caller{
	{name: "GET", many: 4, ask: func(s *soak, c *http.Client, url string) error { return s.gets(c, url+"/heroes", 200) }},
	{name: "download of 1 MB", many: 2, ask: func(s *soak, c *http.Client, url string) error { return s.gets(c, url+"/download/1m", megabyte) }},
	{name: "upload of 1 MB", many: 2, ask: func(s *soak, c *http.Client, url string) error {
		text, err := s.answer(c, "POST", url+"/odd/sink", s.token(), &zeros{megabyte}, megabyte, http.StatusOK)
		return differs(err, text, fmt.Sprint(megabyte))
	}},
	{name: "upload in chunks", many: 1, ask: func(s *soak, c *http.Client, url string) error {
		text, err := s.answer(c, "POST", url+"/odd/sink", s.token(), &zeros{megabyte}, -1, http.StatusOK)
		return differs(err, text, fmt.Sprint(megabyte))
	}},
	{name: "upload answered early", many: 1, ask: func(s *soak, c *http.Client, url string) error {
		_, err := s.answer(c, "POST", url+"/odd/early", s.token(), &zeros{megabyte}, megabyte, http.StatusConflict)
		return err
	}},
	{name: "slow answer", many: 8, ask: func(s *soak, c *http.Client, url string) error { return s.gets(c, url+"/odd/slow", 200) }},
	{name: "answer that breaks off", many: 1, ask: func(s *soak, c *http.Client, url string) error {
		if text, err := s.answer(c, "GET", url+"/odd/broken", s.token(), nil, 0, http.StatusOK); err == nil {
			return fmt.Errorf("%d of 1000000 bytes are taken for the whole", len(text))
		} else if text == "" {
			return err
		}
		return nil
	}},
	{name: "event stream", many: 4, ask: (*soak).listens},
	{name: "WebSocket", many: 4, http1: true, ask: (*soak).chats},
	{name: "revoked token", many: 1, ask: func(s *soak, c *http.Client, url string) error {
		text, err := s.answer(c, "GET", url+"/heroes", s.revoked, nil, 0, http.StatusUnauthorized)
		if err == nil && !strings.Contains(text, "revoked_token") {
			err = fmt.Errorf("refused as %s", text)
		}
		return err
	}},
	{name: "no token", many: 1, ask: func(s *soak, c *http.Client, url string) error {
		_, err := s.answer(c, "GET", url+"/heroes", "", nil, 0, http.StatusUnauthorized)
		return err
	}},
	{name: "GET of a backend that restarts", many: 2, fragile: true, ask: func(s *soak, c *http.Client, url string) error {
		return s.gets(c, url+"/fragile", 200)
	}},
}

// callerOf speaks one protocol to a gateway, on connections of its own.
func callerOf(g *soaked, http2 bool) *http.Client {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2 && g.site.TLS)
	protocols.SetUnencryptedHTTP2(http2 && !g.site.TLS)
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		Protocols: protocols, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // the certificate is its own, and renewed
		MaxIdleConnsPerHost: 100, IdleConnTimeout: 2 * time.Second, DisableCompression: true,
	}}
}

// token is one of the many.
func (s *soak) token() string { return s.tokens[rand.IntN(len(s.tokens))] }

// answer makes one request and returns the body of the answer, as far as it came.
func (s *soak) answer(c *http.Client, method, url, token string, body io.Reader, length int64, want int) (string, error) {
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		return "", err
	}
	req.ContentLength = length
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if res.StatusCode != want {
		return string(text), fmt.Errorf("%d, not %d: %.500s", res.StatusCode, want, text)
	}
	return string(text), err
}

func (s *soak) gets(c *http.Client, url string, length int) error {
	text, err := s.answer(c, "GET", url, s.token(), nil, 0, http.StatusOK)
	if err == nil && len(text) != length {
		err = fmt.Errorf("%d bytes, not %d", len(text), length)
	}
	return err
}

func differs(err error, got, want string) error {
	if err == nil && got != want {
		err = fmt.Errorf("%.200q, not %q", got, want)
	}
	return err
}

// listens takes some events, in order, and hangs up.
func (s *soak) listens(c *http.Client, url string) error {
	req, err := http.NewRequest("GET", url+"/odd/events", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+s.token())
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	lines := bufio.NewScanner(res.Body)
	for n, most := 0, rand.IntN(200); n < most; {
		if !lines.Scan() {
			return errors.Join(fmt.Errorf("the events end after %d", n), lines.Err())
		}
		if text := lines.Text(); text != "" {
			if text != fmt.Sprintf("data: %d", n) {
				return fmt.Errorf("event %d is %.200q", n, text)
			}
			n++
		}
	}
	return nil
}

// chats sends some messages through a WebSocket and wants each back.
func (s *soak) chats(c *http.Client, url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	lasting := *c
	lasting.Timeout = 0
	conn, _, err := websocket.Dial(ctx, url+"/odd/ws", &websocket.DialOptions{HTTPClient: &lasting, HTTPHeader: http.Header{"Authorization": {"Bearer " + s.token()}}}) //nolint:bodyclose // the connection is the body
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseNow() }()
	for n := range rand.IntN(100) {
		text := bytes.Repeat([]byte{byte('a' + n%26)}, n*10)
		if err := conn.Write(ctx, websocket.MessageText, text); err != nil {
			return err
		}
		_, got, err := conn.Read(ctx)
		if err != nil || !bytes.Equal(got, text) {
			return fmt.Errorf("message %d: %.100q: %w", n, got, err)
		}
		pause(ctx.Done(), 10*time.Millisecond)
	}
	if rand.IntN(2) == 0 {
		return nil // it hangs up
	}
	return conn.Close(websocket.StatusNormalClosure, "")
}
