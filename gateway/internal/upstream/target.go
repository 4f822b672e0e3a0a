package upstream

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"gatehouse/gateway/internal/socket"
)

// Bounds of the connections to targets.
const (
	connectTimeout   = 5 * time.Second // by default
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

// target is one server, how it is spoken to, and how it fares.
type target struct {
	Target
	key       string    // tells it from others; the same in every gateway
	name      string    // host:port or unix:/path, and what else tells it from its neighbours
	url       *url.URL  // of http or https
	transport transport // its own: what two targets of one name connect to may differ

	inFlight atomic.Int64
	outcomes [outcomeCount]atomic.Uint64
	failures [failureCount]atomic.Int64 // in a row

	// What follows belongs to the pool's mu.
	weight  int
	gone    bool
	picked  bool // by the view that is being made
	health  health
	why     error         // what the last check found
	row     int           // checks in a row that contradict health
	checked chan struct{} // closed after the first check
	unwatch context.CancelFunc
	since   time.Time // its state has been what it is
	warmed  time.Time // since when it warms up

	ejectedUntil time.Time
	ejectedFor   time.Duration
	times        int // how often it was ejected, less what good conduct took back
	readmitted   time.Time
	spared       time.Time // when the log last told that it is not ejected
	ejections    uint64
}

// transport sends requests over connections that it keeps.
type transport interface {
	http.RoundTripper
	CloseIdleConnections()
}

func (t Target) key() string {
	if t.Dial == "" {
		return t.URL.String()
	}
	return t.URL.String() + " at " + t.Dial
}

func newTarget(told Target, key string, o *Options) *target {
	t := &target{Target: told, key: key, url: told.URL, checked: make(chan struct{}), since: time.Now()}
	t.name = address(told) + strings.TrimSuffix(told.URL.EscapedPath(), "/")
	if told.URL.Scheme == "h2c" {
		clear := *told.URL
		clear.Scheme = "http"
		t.url = &clear
		long := newTransport(told.Dial, nil, o.ConnectTimeout)
		long.Protocols.SetUnencryptedHTTP2(true)
		t.transport = long
		return t
	}
	long := newTransport(told.Dial, o.TLS.Clone(), o.ConnectTimeout) // which net/http changes
	long.Protocols.SetHTTP1(true)
	long.Protocols.SetHTTP2(true)
	t.transport = long
	if told.URL.Scheme == "http" && !o.NetHTTP {
		t.transport = newDirect(told.URL, long)
	}
	return t
}

// roundTrip is that of [direct] for either kind of transport.
func (t *target) roundTrip(r *http.Request, more *added, e *ending) (*http.Response, error) {
	if d, ok := t.transport.(*direct); ok {
		return d.roundTrip(r, more, e)
	}
	return goLong(t.transport, r, more, e)
}

// address is where a target is connected to.
func address(t Target) string {
	switch {
	case t.Dial != "":
		return t.Dial
	case t.URL.Port() != "":
		return t.URL.Host
	case t.URL.Scheme == "https":
		return t.URL.Host + ":443"
	}
	return t.URL.Host + ":80"
}

func newTransport(dial string, tls *tls.Config, timeout time.Duration) *http.Transport {
	dialer := &net.Dialer{Timeout: timeout}
	connect := func(ctx context.Context, network, address string) (net.Conn, error) {
		if path, ok := strings.CutPrefix(dial, "unix:"); ok {
			network, address = "unix", path
		} else if dial != "" {
			network, address = "tcp", dial
		}
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return socket.New(conn), nil
	}
	return &http.Transport{
		Protocols:              &http.Protocols{},
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout, WriteByteTimeout: writeStall},
		TLSClientConfig:        tls,
		DialContext:            connect,
		TLSHandshakeTimeout:    timeout,
		MaxIdleConnsPerHost:    idleConnsPerHost,
		IdleConnTimeout:        idleConnTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: maxHeaderBytes,
		DisableCompression:     true, // bodies pass byte for byte
	}
}
