package gateway

import (
	"context"
	"sync"

	"github.com/redis/go-redis/v9"

	"gatehouse/gateway/config"
	"gatehouse/gateway/internal/issuer"
	"gatehouse/gateway/internal/revoke"
	"gatehouse/gateway/internal/upstream"
)

// ReloadFrom is Reload with what load returns, whose error counts as a reload
// that failed and is returned.
func (g *Gateway) ReloadFrom(ctx context.Context, load func() (*config.Config, error)) error {
	cfg, err := load()
	if err != nil {
		g.metrics.reload(err)
		return err
	}
	return g.Reload(ctx, cfg)
}

// Reload swaps the configuration: build, start, swap, drain the old. What cfg
// does not change carries over: keys, buckets, connections. An error is a
// config.Faults and means that nothing has changed; a new issuer that cannot
// be reached is none. Requests in flight finish with the configuration they
// began with. Listen addresses stay what they were until a restart.
func (g *Gateway) Reload(ctx context.Context, cfg *config.Config) error {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	old := g.current.Load()
	s, err := (&builder{cfg: cfg, old: old, metrics: g.metrics, cache: g.cache, log: g.log}).build()
	if err != nil {
		g.metrics.reload(err)
		return err
	}
	if was, is := old.config.Server, cfg.Server; was.Listen != is.Listen || was.Status != is.Status || was.Admin != is.Admin || decisionAddress(was) != decisionAddress(is) {
		g.log.Warn("listen addresses cannot change by a reload; restart to use the new ones",
			"listen", was.Listen, "new_listen", is.Listen, "status", was.Status, "new_status", is.Status, "admin", was.Admin, "new_admin", is.Admin,
			"decision", decisionAddress(was), "new_decision", decisionAddress(is))
	}
	if was, is := old.config.Server, cfg.Server; (was.TLS == nil) != (is.TLS == nil) || (was.AdminAuth.TLS == nil) != (is.AdminAuth.TLS == nil) {
		g.log.Warn("TLS cannot come or go by a reload; restart to switch it", "tls", was.TLS != nil, "new_tls", is.TLS != nil, "admin_tls", was.AdminAuth.TLS != nil, "new_admin_tls", is.AdminAuth.TLS != nil)
	}
	if was, is := old.config.Server, cfg.Server; was.ReadHeaderTimeout != is.ReadHeaderTimeout || was.IdleTimeout != is.IdleTimeout || was.WriteTimeout != is.WriteTimeout {
		g.log.Warn("the timeouts of server cannot change by a reload; restart to use the new ones")
	}
	s.refreshFiles()
	g.start(ctx, s, old)
	if s.store != nil {
		s.store.value.Use(s.redis.value, cfg.Redis.Replicas)
	}
	g.current.Store(s)
	g.metrics.reload(nil)
	old.retire()
	g.background.Add(1)
	go func() {
		defer g.background.Done()
		<-old.drained
		old.close()
	}()
	g.log.Info("configuration reloaded", "routes", len(s.routes))
	return nil
}

// start starts the parts of s that are not old's, and waits a little for their
// keys and targets.
func (g *Gateway) start(ctx context.Context, s, old *snapshot) {
	ctx, cancel := context.WithTimeout(ctx, firstFetch)
	defer cancel()
	var started sync.WaitGroup
	for name, p := range s.issuers {
		if old == nil || old.issuers[name] != p {
			started.Go(func() { p.value.Start(ctx) })
		}
	}
	for name, p := range s.upstreams {
		if old == nil || old.upstreams[name] != p {
			started.Go(func() { p.value.Start(ctx) })
		}
	}
	if s.revocation != nil && (old == nil || old.revocation != s.revocation) {
		if replica, ok := s.revocation.value.(*revoke.Replica); ok {
			started.Go(func() { replica.Start(ctx) })
		}
	}
	started.Wait()
}

// startVerifying starts what verifies tokens, for a command: it forwards
// nothing, and backends and registries need not hear of it.
func (g *Gateway) startVerifying(ctx context.Context, s *snapshot) {
	g.start(ctx, s, &snapshot{upstreams: s.upstreams})
}

// hold keeps the parts of s from being closed before s is.
func (s *snapshot) hold() {
	for _, p := range s.issuers {
		p.hold()
	}
	for _, p := range s.upstreams {
		p.hold()
	}
	s.revocation.hold()
	s.audit.hold()
	s.tracing.hold()
	s.redis.hold()
}

// close stops the parts of s that no other snapshot uses.
func (s *snapshot) close() {
	for _, p := range s.issuers {
		p.drop((*issuer.Issuer).Close)
	}
	for _, p := range s.upstreams {
		p.drop((*upstream.Pool).Close)
	}
	s.revocation.drop(func(r revocation) {
		if replica, ok := r.(*revoke.Replica); ok {
			replica.Close()
		}
	})
	s.tracing.drop((*tracing).close)
	s.audit.drop(func(a *auditLog) { _ = a.close() })
	s.redis.drop(func(c redis.UniversalClient) { _ = c.Close() })
}
