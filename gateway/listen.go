package gateway

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// maxRequestHeader bounds a request's header. net/http answers a larger one
// with a plain 431 before any handler.
const maxRequestHeader = 64 << 10

// backReadTimeout bounds a request to the status and admin listeners: bodies
// are small there, and nobody has shown yet who sends them.
const backReadTimeout = 10 * time.Second

// backWriteTimeout bounds an answer there: none streams, and who takes nothing
// of his would hold it, and the connection, without end.
const backWriteTimeout = 30 * time.Second

// Bounds of HTTP/2 on a client's connection. net/http starts no more handlers
// at a time than there may be streams, however fast these are reset
// (CVE-2023-39325).
const (
	maxStreams       = 250 // at a time on one connection
	maxUnreadBytes   = 1 << 20
	http2Silence     = time.Minute      // then the client is asked whether it is there
	http2PingTimeout = 15 * time.Second // for its answer
)

// Serve answers requests until ctx ends, then drains: readiness goes false,
// no connection is accepted any more, requests in flight and upgraded
// connections finish within the grace, and what is left is cut off. A nil
// listener is opened from the configuration (server.listen, server.status), as
// are those of server.admin and server.decision; Serve closes them. The error is nil after a drain. Serve may be called once.
func (g *Gateway) Serve(ctx context.Context, listener, status net.Listener) (err error) {
	server := g.current.Load().config.Server
	plain := func(*snapshot) *frontTLS { return nil }
	sides := [...]struct {
		key, address string
		listener     net.Listener
		handler      http.Handler
		tls          func(*snapshot) *frontTLS
		front        bool // callers come here, or the proxy that asks about them
	}{
		{"listen", server.Listen, listener, g, func(s *snapshot) *frontTLS { return s.tls }, true},
		{"decision", decisionAddress(server), nil, g.Decision(), plain, true},
		{"status", server.Status, status, g.Status(), plain, false},
		{"admin", server.Admin, nil, g.Admin(), func(s *snapshot) *frontTLS { return s.adminTLS }, false},
	}
	var listening []any
	for i := range sides {
		side := &sides[i]
		if side.listener == nil && side.address != "" {
			side.listener, err = net.Listen("tcp", side.address)
		}
		if err != nil {
			for _, other := range sides {
				if other.listener != nil {
					_ = other.listener.Close()
				}
			}
			return fmt.Errorf("server.%s: %w", side.key, err)
		}
		if side.listener != nil {
			listening = append(listening, side.key, side.listener.Addr().String())
		}
	}
	alive, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	failed := make(chan error, len(sides))
	var fronts []*http.Server
	for _, side := range sides {
		if side.listener == nil {
			continue
		}
		if !side.front {
			s := g.backServer(side.handler, alive)
			go func() { failed <- g.accept(s, side.listener, side.tls) }()
			defer func() { _ = s.Close() }()
			continue
		}
		s := g.server(side.handler, alive)
		s.ConnContext, s.ConnState = framingContext, entered
		s.Protocols.SetHTTP2(true)
		s.Protocols.SetUnencryptedHTTP2(true) // by prior knowledge (RFC 9113 §3.3); an upgrade to it is ignored
		callers := &connections{
			Listener: side.listener, metrics: g.metrics, writeTimeout: server.WriteTimeout, slack: min(server.IdleTimeout, server.ReadHeaderTimeout) / 8, secure: side.tls(g.current.Load()) != nil,
			most: func() int { return g.current.Load().config.Server.MaxConnections },
		}
		go func() { failed <- g.accept(s, callers, side.tls) }()
		fronts = append(fronts, s)
	}
	g.log.Info("listening", listening...)
	select {
	case err := <-failed:
		for _, front := range fronts {
			_ = front.Close()
		}
		return err
	case <-ctx.Done():
	}
	g.drain(fronts, kill)
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// accept serves the listener, with TLS if the configuration has it for that one.
func (g *Gateway) accept(server *http.Server, l net.Listener, of func(*snapshot) *frontTLS) error {
	if of(g.current.Load()) == nil {
		return server.Serve(l)
	}
	server.TLSConfig = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := of(g.current.Load()).config()
		if !server.Protocols.HTTP2() { // what is offered is taken
			c.NextProtos = []string{"http/1.1"}
		}
		return c, nil
	}}
	return server.ServeTLS(l, "", "")
}

func (g *Gateway) server(h http.Handler, alive context.Context) *http.Server {
	server := g.current.Load().config.Server
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	return &http.Server{
		Protocols: protocols,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          maxStreams,
			MaxReceiveBufferPerConnection: maxUnreadBytes,
			MaxReceiveBufferPerStream:     maxUnreadBytes,
			SendPingTimeout:               http2Silence,
			PingTimeout:                   http2PingTimeout,
			WriteByteTimeout:              server.WriteTimeout,
			CountError:                    func(word string) { g.metrics.http2Errors.WithLabelValues(word).Inc() },
		},
		Handler:           h,
		ReadHeaderTimeout: server.ReadHeaderTimeout,
		IdleTimeout:       server.IdleTimeout,
		MaxHeaderBytes:    maxRequestHeader,
		ErrorLog:          g.errorLog,
		// OPTIONS * is no exception: net/http would answer it past the gateway.
		DisableGeneralOptionsHandler: true,
		BaseContext:                  func(net.Listener) context.Context { return alive },
	}
}

// backServer is the one for the status or the admin listener.
func (g *Gateway) backServer(h http.Handler, alive context.Context) *http.Server {
	s := g.server(h, alive)
	s.ReadTimeout, s.WriteTimeout = backReadTimeout, backWriteTimeout
	return s
}

// drain lets requests finish within the grace and ends the rest.
func (g *Gateway) drain(fronts []*http.Server, kill context.CancelFunc) {
	g.draining.Store(true)
	g.log.Info("draining", "grace", g.grace.String())
	ctx, cancel := context.WithTimeout(context.Background(), g.grace)
	defer cancel()
	down := make(chan error, len(fronts))
	for _, front := range fronts { // all at once: none must go on accepting while another drains
		go func() { down <- front.Shutdown(ctx) }()
	}
	var err error
	for range fronts {
		err = cmp.Or(err, <-down)
	}
	// Shutdown does not wait for upgraded connections: their handlers do.
	upgraded := make(chan struct{})
	go func() { g.active.Wait(); close(upgraded) }()
	if err == nil {
		select {
		case <-upgraded:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err != nil {
		g.log.Warn("the grace is over; requests in flight are cut off")
		kill()
		for _, front := range fronts {
			_ = front.Close()
		}
		<-upgraded
	}
	if t := g.current.Load().tracing; t != nil {
		t.value.flush(ctx)
	}
	g.log.Info("drained")
}
