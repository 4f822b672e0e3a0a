package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
	"github.com/rs/cors"

	"gatehouse/gateway/config"
	"gatehouse/gateway/internal/inject"
	"gatehouse/gateway/internal/issuer"
	"gatehouse/gateway/internal/limit"
	"gatehouse/gateway/internal/route"
	"gatehouse/gateway/internal/upstream"
	"gatehouse/gateway/policy"
	"gatehouse/gateway/token"
)

// snapshot is one configuration, built: what a request sees from its first
// rung to its last, however often the file is reloaded meanwhile. Only its
// count of users changes.
type snapshot struct {
	config  *config.Config
	proxies proxies
	inject  *inject.Rules
	table   *route.Table
	routes  []*builtRoute

	tokenHeaders []string // in which some issuer's tokens may stand

	policies map[string]*policy.Compiled   // nil for one that is at fault
	actors   map[string]policy.ActorClaims // by issuer
	grants   map[string]*grants            // by issuer; nil where all privileges of its tokens count

	issuers    map[string]*part[issuerOptions, *issuer.Issuer]
	limits     map[string]*part[limitOptions, *limit.Limiter]
	upstreams  map[string]*part[upstreamOptions, *upstream.Pool]
	registries map[string]*upstream.Eureka                  // that upstreams of this snapshot or of those before it follow
	redis      *part[redisOptions, redis.UniversalClient]   // nil without redis in the file
	store      *part[string, *limit.Store]                  // of shared limits, by database; nil without redis
	failures   *part[limit.FailureOptions, *limit.Failures] // nil without server.auth_failures
	revocation *part[revocationOptions, revocation]         // nil without revocation in the file
	audit      *part[config.Audit, *auditLog]               // nil without server.audit
	tracing    *part[config.Tracing, *tracing]              // nil without server.tracing
	admin      *part[adminOptions, *adminAuth]              // nil without server.admin
	logouts    map[string]*logout                           // by path; nil without any

	tls      *frontTLS                                        // nil without server.tls in the file
	adminTLS *frontTLS                                        // the same of the admin listener
	pairs    map[config.Certificate]*watched[tls.Certificate] // what the files of certificates hold

	users   atomic.Int64
	retired atomic.Bool
	once    sync.Once
	drained chan struct{} // closed when it is retired and the last user is gone
}

// part is something that a reload carries over as long as what it was built
// from stays the same: keys, buckets, connections.
type part[O, T any] struct {
	options O
	value   T
	holders atomic.Int32 // snapshots that use it
}

// hold keeps a part from being closed until as many drop it. The first of
// three configurations can outlast the second, so that no two neighbours can
// tell which parts are still of use.
func (p *part[O, T]) hold() {
	if p != nil {
		p.holders.Add(1)
	}
}

func (p *part[O, T]) drop(end func(T)) {
	if p != nil && p.holders.Add(-1) == 0 {
		end(p.value)
	}
}

// builtRoute is a row of the route table with everything that a request needs.
type builtRoute struct {
	name           string
	public         bool
	optional       bool
	places         []place
	severalIssuers bool
	privilegesFrom map[string]string // by issuer, for logs
	scope          map[string]string // by issuer: the challenge's scope, where privileges are scopes
	require        policy.Requirement
	delegation     policy.Delegation
	stepUp         policy.StepUp
	policy         *policy.Compiled // nil: none
	limits         struct{ before, after []*limit.Limiter }
	pattern        string // the path of the match
	traces         bool   // the match names TRACE
	to             destinations
	rewrite        rewrite
	cors           *cors.Cors // nil: the backend's own matter
	forwardToken   bool
	maxBody        int64 // bytes; 0: any
	closeOnExpiry  bool
	introspects    bool            // one of its issuers is asked about tokens
	report         bool            // mode: report, for what no issuer of reports decides
	reports        map[string]bool // by issuer, of those that have a mode of their own

	ok atomic.Pointer[series] // of its requests that were answered with 200; nil before the first
}

// revoked refuses a token that was withdrawn, and forgets it.
func (s *snapshot) revoked(ctx context.Context, found *foundToken, v *token.Verified) error {
	if s.revocation == nil {
		return nil
	}
	err := s.revocation.value.Check(ctx, v)
	if isRevoked(err) {
		found.issuers.Forget(found.raw)
	}
	return err
}

// overFailures refuses an address that sent too many invalid tokens, unless it
// brings one that was verified before: that one costs nothing to check.
func (s *snapshot) overFailures(ip netip.Addr, found *foundToken) error {
	if s.failures == nil || found.issuers.Remembers(found.raw) {
		return nil
	}
	return s.failures.value.Over(ip)
}

// countFailure counts an invalid token.
func (s *snapshot) countFailure(ip netip.Addr, err error) {
	var refused *token.Error
	if s.failures != nil && errors.As(err, &refused) && refused.Reason == token.InvalidToken {
		s.failures.value.Add(ip)
	}
}

// acquire returns the current snapshot, which stays whole until it is released.
func (g *Gateway) acquire() *snapshot {
	for {
		s := g.current.Load()
		s.users.Add(1)
		if g.current.Load() == s {
			return s
		}
		s.release() // it was swapped in between and may be closed already
	}
}

func (s *snapshot) release() {
	if s.users.Add(-1) == 0 && s.retired.Load() {
		s.once.Do(func() { close(s.drained) })
	}
}

// retire marks a snapshot that is no longer current; drained is closed once
// its last user is gone.
func (s *snapshot) retire() {
	s.users.Add(1)
	s.retired.Store(true)
	s.release()
}
