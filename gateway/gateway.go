package gateway

import (
	"cmp"
	"context"
	"log"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"gatehouse/gateway/config"
	"gatehouse/gateway/internal/issuer"
)

// defaultGrace leaves room under Kubernetes' 30 seconds.
const defaultGrace = 25 * time.Second

// firstFetch bounds how long a start or a reload waits for the keys of issuers
// that do not answer; they are fetched in the background from then on.
const firstFetch = 5 * time.Second

// maxCacheBytes bounds the cache of verified tokens: room for some forty
// thousand tokens of 800 bytes.
const maxCacheBytes = 64 << 20

// Options are what a configuration file does not say.
type Options struct {
	Logger *slog.Logger     // default: [NewJSONLog] on standard error
	Now    func() time.Time // default: time.Now
	Grace  time.Duration    // how long [Gateway.Serve] lets requests finish; default 25 s
	// Version is what gatehouse_build_info calls the build; default "unknown".
	Version string
}

// Gateway checks tokens and forwards requests. It is an http.Handler and safe
// for concurrent use.
type Gateway struct {
	log      *slog.Logger
	errorLog *log.Logger
	now      func() time.Time
	grace    time.Duration
	started  time.Time
	metrics  *metrics
	cache    *issuer.Cache
	refusals refusals

	writeTimeout time.Duration // no reload changes it

	current     atomic.Pointer[snapshot]
	reloading   sync.Mutex     // one reload at a time
	active      sync.WaitGroup // requests and upgraded connections
	background  sync.WaitGroup // what waits for old configurations to drain
	draining    atomic.Bool
	hintAtProxy sync.Once
}

// New builds a gateway from cfg and starts it: keys are fetched before it
// returns, or go on being fetched in the background if an identity provider
// does not answer within seconds or ctx ends. The error is a config.Faults
// where the file is at fault.
func New(ctx context.Context, cfg *config.Config, o Options) (*Gateway, error) {
	g := &Gateway{log: o.Logger, now: o.Now, grace: o.Grace, cache: issuer.NewCache(maxCacheBytes), writeTimeout: cfg.Server.WriteTimeout}
	g.metrics = newMetrics(g.cache, cmp.Or(o.Version, "unknown"))
	g.metrics.registry.MustRegister(newIssuerStats(g.current.Load), newLimitStats(g.current.Load), newReplicaStats(g.current.Load), newTLSStats(g.current.Load), newUpstreamStats(g.current.Load), newSourceStats(g.current.Load))
	if g.log == nil {
		g.log = NewJSONLog(os.Stderr)
	}
	if g.now == nil {
		g.now = time.Now
	}
	g.started = g.now().UTC()
	if g.grace == 0 {
		g.grace = defaultGrace
	}
	g.errorLog = slog.NewLogLogger(g.log.Handler(), slog.LevelWarn)
	s, err := (&builder{cfg: cfg, metrics: g.metrics, cache: g.cache, log: g.log}).build()
	if err != nil {
		return nil, err
	}
	g.start(ctx, s, nil)
	g.current.Store(s)
	return g, nil
}

// Close stops what runs in the background, after the requests in flight. It
// must be called once, when no more requests come.
func (g *Gateway) Close() error {
	s := g.current.Load()
	s.retire()
	<-s.drained
	g.background.Wait()
	s.close()
	if h, ok := g.log.Handler().(*logHandler); ok {
		h.lines.flush()
	}
	return nil
}
