package gateway

import (
	"context"
	"sync"

	"gatehouse/gateway/config"
	"gatehouse/gateway/internal/revoke"
)

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
	g.metrics.reloads.WithLabelValues(outcome(err)).Inc()
	if err != nil {
		return err
	}
	if was, is := old.config.Server, cfg.Server; was.Listen != is.Listen || was.Status != is.Status || was.Admin != is.Admin {
		g.log.Warn("listen addresses cannot change by a reload; restart to use the new ones",
			"listen", was.Listen, "new_listen", is.Listen, "status", was.Status, "new_status", is.Status, "admin", was.Admin, "new_admin", is.Admin)
	}
	if was, is := old.config.Server.TLS, cfg.Server.TLS; (was == nil) != (is == nil) {
		g.log.Warn("server.tls cannot come or go by a reload; restart to switch it", "tls", was != nil, "new_tls", is != nil)
	}
	s.refreshFiles()
	g.start(ctx, s, old)
	g.current.Store(s)
	old.retire()
	g.background.Add(1)
	go func() {
		defer g.background.Done()
		<-old.drained
		old.close(s)
	}()
	g.log.Info("configuration reloaded", "routes", len(s.routes))
	return nil
}

// start starts the parts of s that are not old's, and waits a little for their keys.
func (g *Gateway) start(ctx context.Context, s, old *snapshot) {
	ctx, cancel := context.WithTimeout(ctx, firstFetch)
	defer cancel()
	var started sync.WaitGroup
	for name, p := range s.issuers {
		if old == nil || old.issuers[name] != p {
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

// close stops the parts of s that successor does not use; nil uses none.
func (s *snapshot) close(successor *snapshot) {
	if successor == nil {
		successor = &snapshot{}
	}
	for name, p := range s.issuers {
		if successor.issuers[name] != p {
			p.value.Close()
		}
	}
	for name, p := range s.upstreams {
		if successor.upstreams[name] != p {
			p.value.Close()
		}
	}
	if s.revocation != nil && s.revocation != successor.revocation {
		if replica, ok := s.revocation.value.(*revoke.Replica); ok {
			replica.Close()
		}
	}
	if s.audit != nil && s.audit != successor.audit {
		_ = s.audit.value.close()
	}
	if s.redis != nil && s.redis != successor.redis {
		_ = s.redis.value.Close()
	}
}
