package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// stand is a peer that runs.
type stand struct {
	*process
	site   site
	url    string        // scheme and address
	client *http.Client  // speaks as the case does
	first  time.Duration // from its start to its first 200
	aides  []*process    // that work for it
}

// errMissing is a peer that cannot take part here.
var errMissing = errors.New("cannot take part")

// start starts a peer for a case. It is up when it has answered the first
// request of the case.
func (r *rig) start(c benchCase, p peer) (*stand, error) {
	if !p.installed() {
		return nil, fmt.Errorf("%w: %s is not installed", errMissing, p.Program)
	}
	s := r.base
	s.peer, s.TLS, s.Dir = p, c.TLS, filepath.Join(r.dir, "peers", p.Name)
	if !p.Full {
		s.Redis = ""
	} else if s.Redis == "" {
		return nil, fmt.Errorf("%w: redis-server is not installed", errMissing)
	}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return nil, err
	}
	return r.raise(s, c, nil)
}

// raise starts a site, with more environment.
func (r *rig) raise(s site, c benchCase, env []string) (*stand, error) {
	var err error
	if s.Listen, err = freeAddress(); err != nil {
		return nil, err
	}
	if s.Status, err = freeAddress(); err != nil {
		return nil, err
	}
	cmd, err := s.command(r.binary)
	if err != nil {
		return nil, err
	}
	cmd.Env = append(os.Environ(), env...)
	output := os.DevNull
	if s.Full || s.Program != "gatehouse" {
		output = filepath.Join(s.Dir, "output.log") // the access log of a gateway that has everything on
	}
	token := ""
	if c.Path != "/open" {
		if token, err = r.signers.sign("RS256", newClaims(r.base.Issuer, 0)); err != nil {
			return nil, err
		}
	}
	run := &stand{site: s, url: "http://" + s.Listen, client: newClient(c)}
	if c.TLS {
		run.url = "https://" + s.Listen
	}
	if s.Redis != "" && r.redis != nil {
		run.aides = append(run.aides, r.redis)
	}
	begin := time.Now()
	if run.process, err = launch(cmd, output); err != nil {
		return nil, err
	}
	for time.Since(begin) < 5*time.Minute { // ten million revocations take a while to read
		if err := r.ctx.Err(); err != nil {
			run.stop()
			return nil, err
		}
		if run.ended() {
			return nil, fmt.Errorf("%w: it ended: %s", errMissing, run.said())
		}
		status, _, err := run.ask(c.Method, c.Path, token, c.Body)
		if err == nil && status == http.StatusOK {
			run.first = time.Since(begin)
			return run, nil
		}
		time.Sleep(time.Millisecond)
	}
	run.stop()
	return nil, fmt.Errorf("%s never answered with 200: %s", s.Name, run.said())
}

// rests waits until a site does no more of itself: it answers once it knows
// what is revoked, and then asks Redis when each of them ends.
func (s *stand) rests(ctx context.Context) error {
	const look = time.Second
	before := time.Duration(-1)
	for range 300 {
		spent, err := processorTime(s.pids())
		if err != nil {
			return err
		}
		if before >= 0 && spent-before < look/50 {
			return nil
		}
		before = spent
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(look):
		}
	}
	return errors.New("it does not come to rest")
}

// newClient speaks the protocol of a case.
func newClient(c benchCase) *http.Client {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(!c.HTTP2)
	protocols.SetHTTP2(c.HTTP2)
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,                                                              // HAProxy may end an HTTP/2 connection after a refusal
		Protocols:         protocols, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // the certificate is its own
	}}
}

// ask makes one request and returns the answer.
func (s *stand) ask(method, path, token string, body int, headers ...string) (status int, answer string, err error) {
	var content io.Reader
	if body > 0 {
		content = &zeros{body}
	}
	req, err := http.NewRequest(method, s.url+path, content)
	if err != nil {
		return 0, "", err
	}
	req.ContentLength = int64(body)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := s.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, string(text), err
}

// zeros is a body of so many bytes.
type zeros struct{ left int }

func (z *zeros) Read(p []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), z.left)
	clear(p[:n])
	z.left -= n
	return n, nil
}

// pids are the processes that do the peer's work, its own first.
func (s *stand) pids() []int {
	all := s.tree()
	for _, aide := range s.aides {
		all = append(all, aide.tree()...)
	}
	return all
}

// stop ends the peer.
func (s *stand) stop() {
	s.client.CloseIdleConnections()
	s.process.stop()
}
