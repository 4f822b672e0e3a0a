package upstream

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of the connections to targets.
const (
	dialTimeout      = 5 * time.Second
	tlsTimeout       = 5 * time.Second
	idleConnTimeout  = 90 * time.Second
	idleConnsPerHost = 512 // net/http's default of 2 makes most requests open a connection
	maxHeaderBytes   = 256 << 10
	copyBufferBytes  = 32 << 10

	// An HTTP/2 connection carries many requests: one whose target is gone must
	// be noticed even while no request waits long enough to time out.
	pingAfter   = 30 * time.Second
	pingTimeout = 15 * time.Second
	writeStall  = 30 * time.Second
)

// Pool is an upstream: targets that all serve the same thing, taken in turn,
// and the connections to them. It is safe for concurrent use.
type Pool struct {
	name    string
	targets []target
	next    atomic.Uint64
	// HTTP/1.1, or HTTP/2 where TLS negotiates it; and HTTP/2 without TLS.
	transport, h2c *http.Transport
	buffers        buffers
}

// target is one server, and how it is spoken to.
type target struct {
	*url.URL
	transport *http.Transport
}

// New makes a pool of at least one target; it opens no connection yet. A
// target's path, if it has one, is put before each request's. The scheme h2c
// stands for HTTP/2 without TLS, by prior knowledge (RFC 9113 §3.3). https
// goes by tls, which is not changed; nil is net/http's own.
func New(name string, targets []*url.URL, tls *tls.Config) *Pool {
	p := &Pool{name: name, transport: newTransport(tls), h2c: newTransport(nil)}
	p.transport.Protocols.SetHTTP1(true)
	p.transport.Protocols.SetHTTP2(true)
	p.h2c.Protocols.SetUnencryptedHTTP2(true)
	for _, u := range targets {
		t := target{u, p.transport}
		if u.Scheme == "h2c" {
			clear := *u
			clear.Scheme = "http"
			t = target{&clear, p.h2c}
		}
		p.targets = append(p.targets, t)
	}
	return p
}

func newTransport(tls *tls.Config) *http.Transport {
	return &http.Transport{
		Protocols:              &http.Protocols{},
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout, WriteByteTimeout: writeStall},
		TLSClientConfig:        tls,
		DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout:    tlsTimeout,
		MaxIdleConnsPerHost:    idleConnsPerHost,
		IdleConnTimeout:        idleConnTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: maxHeaderBytes,
		DisableCompression:     true, // bodies pass byte for byte
	}
}

// Name returns the upstream's name.
func (p *Pool) Name() string { return p.name }

// Targets returns the targets' URLs.
func (p *Pool) Targets() []string {
	urls := make([]string, len(p.targets))
	for i, t := range p.targets {
		urls[i] = t.String()
	}
	return urls
}

// Close closes idle connections; those in use close when they become idle.
func (p *Pool) Close() {
	p.transport.CloseIdleConnections()
	p.h2c.CloseIdleConnections()
}

// pick returns the next target in turn.
func (p *Pool) pick() target {
	return p.targets[(p.next.Add(1)-1)%uint64(len(p.targets))]
}

// buffers is an httputil.BufferPool.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if buf, ok := b.pool.Get().(*[copyBufferBytes]byte); ok {
		return buf[:]
	}
	return make([]byte, copyBufferBytes)
}

func (b *buffers) Put(buf []byte) { b.pool.Put((*[copyBufferBytes]byte)(buf)) }
