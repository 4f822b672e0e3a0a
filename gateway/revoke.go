package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"gatehouse/gateway/config"
	"gatehouse/gateway/internal/revoke"
	"gatehouse/gateway/token"
)

// Revocation says what to withdraw: the Value of one Kind (jti, sid, sub,
// client_id, kid) of an issuer, or one whole Token.
type Revocation struct {
	Issuer string // the issuer's name in the configuration; may be empty if there is one, or if Token's iss tells
	Kind   string
	Value  string
	Token  string // a secret: never log it
}

// Revoked is what was written to Redis.
type Revoked struct {
	Key     string
	Value   string
	TTL     time.Duration // 0: for ever
	Warning string        // what the operator should know, or ""
}

// Revoke writes a revocation to the Redis of cfg, for every gateway that uses
// it. A sub or client_id is cut off for all tokens issued until now; later
// ones are good again. The error says what to do when it cannot be written.
func Revoke(ctx context.Context, cfg *config.Config, r Revocation) (Revoked, error) {
	return write(ctx, cfg, r, "revoke", func(client redis.UniversalClient, w *Revoked) error {
		return revoke.Write(ctx, client, w.Key, w.Value, w.TTL)
	})
}

// Unrevoke lifts a revocation: it writes the reserved value, with the time that
// the revocation had left, or that Revoke would give.
func Unrevoke(ctx context.Context, cfg *config.Config, r Revocation) (Revoked, error) {
	return write(ctx, cfg, r, "unrevoke", func(client redis.UniversalClient, w *Revoked) (err error) {
		w.Value = revoke.NotRevoked
		w.TTL, err = revoke.Lift(ctx, client, w.Key, w.TTL)
		return err
	})
}

func write(ctx context.Context, cfg *config.Config, r Revocation, action string, do func(redis.UniversalClient, *Revoked) error) (Revoked, error) {
	client, err := openRedis(cfg)
	if err != nil {
		return Revoked{}, err
	}
	defer func() { _ = client.Close() }()
	now := time.Now()
	w, err := plan(cfg, r, now)
	if err != nil {
		return Revoked{}, err
	}
	if !cfg.Revocation.Enabled() {
		w.warn("the configuration has no revocation section: gateways that use it do not look revocations up")
	}
	if err := do(client, &w); err != nil {
		return w, err
	}
	return w, auditOffline(ctx, cfg.Server.Audit, w.record(now, revocationRecord{Door: doorCLI, Actor: userName(), Action: action}))
}

// userName is who runs the command.
func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "uid " + strconv.Itoa(os.Getuid())
}

// record completes the audit record of what was written.
func (w Revoked) record(now time.Time, r revocationRecord) revocationRecord {
	parts := strings.SplitN(w.Key, ":", 4)
	r.Kind, r.Issuer, r.Key = parts[1], parts[2], w.Key
	if w.TTL > 0 {
		r.Expires = now.Add(w.TTL)
	}
	return r
}

func openRedis(cfg *config.Config) (redis.UniversalClient, error) {
	if cfg.Redis.URL == "" {
		return nil, errors.New("the configuration has no redis.url, so there is no place for revocations")
	}
	options, err := redisConnection(cfg.Redis)
	if err != nil {
		return nil, cfg.Faultf("redis", "%v", err)
	}
	client, err := newRedis(options)
	if err != nil {
		return nil, cfg.Faultf("redis", "%v", err)
	}
	return client, nil
}

// Revocations calls yield for each revocation in the Redis of cfg, in no order,
// until it returns false: its key, what stands there, and how long it holds (0:
// for ever). The content "-" means that it was lifted.
func Revocations(ctx context.Context, cfg *config.Config, yield func(key, content string, left time.Duration) bool) error {
	client, err := openRedis(cfg)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	return revoke.List(ctx, client, func(e revoke.Entry) bool {
		return yield(revoke.Key(e.Kind, e.Issuer, e.Value), e.Content, e.Left)
	})
}

func (w *Revoked) warn(format string, args ...any) {
	if w.Warning != "" {
		w.Warning += "; "
	}
	w.Warning += fmt.Sprintf(format, args...)
}

// plan decides on key, value and time to live.
func plan(cfg *config.Config, r Revocation, now time.Time) (Revoked, error) {
	if r.Token != "" {
		return planToken(cfg, r, now)
	}
	i, err := issuerByName(cfg, r.Issuer)
	if err != nil {
		return Revoked{}, err
	}
	kind := revoke.Kind(r.Kind)
	w := Revoked{Key: revoke.Key(kind, i.Name, r.Value), Value: "1"}
	switch kind {
	case revoke.KeyID:
		return w, nil // a key stays blocked until somebody lifts it
	case revoke.Subject, revoke.ClientID:
		w.Value = strconv.FormatInt(now.Unix(), 10)
	case revoke.JTI, revoke.SID:
	default:
		return Revoked{}, fmt.Errorf("cannot revoke by %q; by jti, sid, sub, client_id, kid or a whole token", r.Kind)
	}
	if cfg.Revocation.Enabled() && !slices.Contains(cfg.Revocation.Check, r.Kind) {
		w.warn("revocation.check does not list %s: gateways do not look it up", r.Kind)
	}
	if i.MaxLifetime == 0 {
		w.warn("issuer %s has no max_lifetime, so the key stays in Redis for ever", i.Name)
		return w, nil
	}
	w.TTL = i.MaxLifetime + i.Leeway
	return w, nil
}

// planToken names one token by its hash, which is looked up for every token
// whatever check lists. Nothing of the token is verified: who can write to
// Redis can revoke what they like.
func planToken(cfg *config.Config, r Revocation, now time.Time) (Revoked, error) {
	signed, claims, err := unverified(r.Token)
	if err != nil {
		return planOpaque(cfg, r, err)
	}
	name := r.Issuer
	if name == "" {
		iss := claims.Get("iss").Text()
		for _, i := range cfg.Issuers {
			if i.Issuer != iss {
				continue
			}
			if name != "" { // only tokens without iss can be several issuers'
				return Revoked{}, fmt.Errorf("the token has no iss, and it could be that of %s or of %s; name one with --issuer", name, i.Name)
			}
			name = i.Name
		}
		if name == "" {
			return Revoked{}, fmt.Errorf("no issuer of the configuration has the token's iss %q; name one with --issuer", iss)
		}
	}
	i, err := issuerByName(cfg, name)
	if err != nil {
		return Revoked{}, err
	}
	sum := sha256.Sum256([]byte(signed))
	w := Revoked{Key: revoke.Key(revoke.JWS, i.Name, base64.RawURLEncoding.EncodeToString(sum[:])), Value: "1"}
	exp, ok := claims.Get("exp").Float()
	if !ok {
		return Revoked{}, errors.New("the token has no exp, so that no gateway accepts it; nothing was written")
	}
	left := exp + i.Leeway.Seconds() - float64(now.UnixMilli())/1000
	if left <= 0 {
		return Revoked{}, errors.New("the token has expired, so that no gateway accepts it; nothing was written")
	}
	w.TTL = time.Duration(min(left, 100*365*24*3600) * float64(time.Second))
	return w, nil
}

// planOpaque names a token that is no JWT, for the one issuer that could be
// asked about it. notJWT is why it is none.
func planOpaque(cfg *config.Config, r Revocation, notJWT error) (Revoked, error) {
	var asked []*config.Issuer
	for _, i := range cfg.Issuers {
		if i.Introspection.Enabled() && (r.Issuer == "" || r.Issuer == i.Name) {
			asked = append(asked, i)
		}
	}
	switch len(asked) {
	case 0:
		return Revoked{}, notJWT
	case 1:
	default:
		return Revoked{}, errors.New("several issuers introspect opaque tokens, and nothing in the token says whose it is; name one with --issuer")
	}
	i := asked[0]
	sum := sha256.Sum256([]byte(r.Token))
	w := Revoked{Key: revoke.Key(revoke.JWS, i.Name, base64.RawURLEncoding.EncodeToString(sum[:])), Value: "1"}
	if i.MaxLifetime == 0 {
		w.warn("issuer %s has no max_lifetime, so the key stays in Redis for ever", i.Name)
		return w, nil
	}
	w.TTL = i.MaxLifetime + i.Leeway
	return w, nil
}

func issuerByName(cfg *config.Config, name string) (*config.Issuer, error) {
	if i := cfg.Issuers[name]; i != nil {
		return i, nil
	}
	names := make([]string, 0, len(cfg.Issuers))
	for n, i := range cfg.Issuers {
		if name == "" && len(cfg.Issuers) == 1 {
			return i, nil
		}
		names = append(names, n)
	}
	if name == "" {
		return nil, fmt.Errorf("the configuration has several issuers; name one with --issuer: %s", strings.Join(names, ", "))
	}
	return nil, fmt.Errorf("the configuration has no issuer %q; it has %s", name, strings.Join(names, ", "))
}

// unverified reads a JWT without checking its signature.
func unverified(raw string) (signed string, claims token.Claims, err error) {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return "", token.Claims{}, errors.New("this is no JWT: it has not three parts between two dots")
	}
	// Without a header that is a JSON object it is opaque to the gateway, though
	// its second part may look like claims: it is named by the hash of the whole.
	header, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err == nil {
		_, err = token.ParseClaims(header)
	}
	if err != nil {
		return "", token.Claims{}, errors.New("this is no JWT: its header is not a JSON object in base64url")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", token.Claims{}, errors.New("this is no JWT: its payload is not base64url")
	}
	claims, err = token.ParseClaims(payload)
	if err != nil {
		return "", token.Claims{}, fmt.Errorf("this is no JWT: %w", err)
	}
	return parts[0] + "." + parts[1], claims, nil
}
