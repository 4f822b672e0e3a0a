package upstream

import (
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
)

// Pool is an upstream: targets that all serve the same thing, taken in turn,
// and the connections to them. It is safe for concurrent use.
type Pool struct {
	name      string
	targets   []*url.URL
	next      atomic.Uint64
	transport *http.Transport
	buffers   buffers
}

// New makes a pool of at least one target; it opens no connection yet. A
// target's path, if it has one, is put before each request's.
func New(name string, targets []*url.URL) *Pool {
	return &Pool{
		name:    name,
		targets: targets,
		transport: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSHandshakeTimeout:    tlsTimeout,
			ForceAttemptHTTP2:      true,
			MaxIdleConnsPerHost:    idleConnsPerHost,
			IdleConnTimeout:        idleConnTimeout,
			ExpectContinueTimeout:  time.Second,
			MaxResponseHeaderBytes: maxHeaderBytes,
			DisableCompression:     true, // bodies pass byte for byte
		},
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
func (p *Pool) Close() { p.transport.CloseIdleConnections() }

// pick returns the next target in turn.
func (p *Pool) pick() *url.URL {
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
