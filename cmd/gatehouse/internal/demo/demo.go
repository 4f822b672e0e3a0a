//go:build !nodemo

// Package demo plays the gateway's story on one machine: a small identity
// provider, two backends that know nothing of a gateway, an embedded Redis and
// the gateway itself, as it is and from routes.yaml, all on loopback in one
// process. The build tag nodemo leaves it out.
package demo

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"gatehouse/gateway"
	"gatehouse/gateway/config"
)

// Options are what the demo command can be told.
type Options struct {
	Config  string    // path of routes.yaml
	Once    bool      // end after the story
	Verbose bool      // write the gateway's log to Log
	Out     io.Writer // the story
	Log     io.Writer // warnings, and the gateway's log if Verbose
}

// audience is the one that routes.yaml asks for.
const audience = "https://api.example.com"

// Run starts everything, tells the story, and stays up until ctx ends unless
// o.Once is set. The error names each answer that was not the expected one; a
// story that ctx cut short is an error too.
func Run(ctx context.Context, o Options) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	idp, err := listen("127.0.0.1:0")
	if err != nil {
		return err
	}
	p, err := newProvider("http://"+idp.Addr().String(), audience)
	if err != nil {
		return errors.Join(err, idp.Close())
	}
	defer serve(idp, p)()

	listener, err := listen("127.0.0.1:8080", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }() // a second time if the gateway ran
	status, err := listen("127.0.0.1:9902", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer func() { _ = status.Close() }()
	gatewayURL := "http://" + listener.Addr().String()

	transport := &http.Transport{} // no proxy from the environment: everything is on loopback
	defer transport.CloseIdleConnections()
	client := &http.Client{
		Transport: transport,
		Timeout:   10 * time.Second,
		// The gateway answers by itself or forwards; a redirect would be a wrong answer.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	heroes, err := listen("127.0.0.1:0")
	if err != nil {
		return err
	}
	defer serve(heroes, newHeroes())()
	threats, err := listen("127.0.0.1:0")
	if err != nil {
		return err
	}
	defer serve(threats, newThreats(gatewayURL+"/heroes-service", client))()

	mini := miniredis.NewMiniRedis()
	mini.ClockTTL(true) // else keys with a TTL never expire
	if err := mini.Start(); err != nil {
		return err
	}
	defer mini.Close()
	store := redis.NewClient(&redis.Options{Addr: mini.Addr()})
	defer func() { _ = store.Close() }()

	dir, err := os.MkdirTemp("", "gatehouse-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	seed, seedFile, err := newSeed(dir)
	if err != nil {
		return err
	}

	env := map[string]string{
		"GATEHOUSE_LISTEN": listener.Addr().String(),
		"GATEHOUSE_STATUS": status.Addr().String(),
		"REDIS_URL":        "redis://" + mini.Addr(),
		"ISSUER_URL":       p.issuer,
		"SEED_KEY_FILE":    seedFile,
		"HEROES_URL":       "http://" + heroes.Addr().String(),
		"THREATS_URL":      "http://" + threats.Addr().String(),
	}
	cfg, warnings, err := config.Load(o.Config, config.Options{Env: func(name string) (string, bool) {
		if v, ok := env[name]; ok {
			return v, true
		}
		return os.LookupEnv(name)
	}})
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w; run the demo where the repository's routes.yaml is, or name the file with --config", err)
	}
	if err != nil {
		return err
	}
	for _, warning := range warnings {
		_, _ = fmt.Fprintln(o.Log, "warning:", warning)
	}
	logger := slog.New(slog.DiscardHandler)
	if o.Verbose {
		logger = slog.New(slog.NewJSONHandler(o.Log, nil))
	}
	g, err := gateway.New(ctx, cfg, gateway.Options{Logger: logger, Grace: 2 * time.Second})
	if err != nil {
		return err
	}
	// The gateway outlives the story's ctx, so that it is told to drain before
	// its backends go.
	gctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan error, 1)
	go func() {
		err := g.Serve(gctx, listener, status)
		cancel(errors.Join(errors.New("the gateway stopped"), err))
		served <- err
	}()
	defer func() {
		stop()
		transport.CloseIdleConnections()
		err = errors.Join(err, <-served, g.Close())
	}()

	w := &world{gatewayURL, "http://" + status.Addr().String(), env["REDIS_URL"], p, store, seed}
	t := &teller{screen: newScreen(o.Out), client: client}
	w.introduce(t.screen, env, o)
	tk, err := tell(ctx, t, w)
	if ctx.Err() != nil {
		return fmt.Errorf("the story was cut short: %w", context.Cause(ctx))
	}
	if err == nil {
		t.printf("\n%s", t.bold(t.green(fmt.Sprintf("All %d answers were the expected ones.", t.played))))
	} else {
		t.printf("\n%s", t.bold(t.red(err.Error())))
	}
	if o.Once {
		return err
	}
	w.invite(t.screen, tk)
	<-ctx.Done()
	t.printf("\nGoodbye.")
	return err
}

// introduce says what runs where.
func (w *world) introduce(s screen, env map[string]string, o Options) {
	s.printf("%s\n", s.bold("Gatehouse, and everything around it, in this one process on loopback:"))
	for _, row := range [][3]string{
		{"gateway", w.gateway, "from " + o.Config},
		{"its status", w.status, "/livez /readyz /metrics"},
		{"identity provider", w.provider.issuer, "knows admin1 (ASSIGN_HERO) and admin2 (CREATE_HERO, ASSIGN_HERO)"},
		{"heroes-service", env["HEROES_URL"], "checks nothing, reads x-jwt-* headers"},
		{"threats-service", env["THREATS_URL"], "calls heroes-service through the gateway"},
		{"Redis", w.redis, "holds what was revoked"},
	} {
		s.printf("  %-18s %-24s %s", row[0], row[1], s.faint(row[2]))
	}
}

// invite prints commands for a reader who wants to try more.
func (w *world) invite(s screen, tk tokens) {
	create := func(token string) string {
		return "curl -i " + w.gateway + "/heroes-service/hero -H 'Authorization: Bearer " + token + `' -d '{"name":"Bombasto"}'`
	}
	s.printf("\nEverything stays up. The tokens below are good for %d minutes. Paste:", int(tokenLife.Minutes()))
	for _, row := range [][2]string{
		{"admin2 creates a hero: 201", create(tk.admin2)},
		{"admin1 may not: 403", create(tk.admin1)},
		{"the stolen token, revoked: 401", create(tk.revoked)},
		{"is it ready?", "curl -i " + w.status + "/readyz"},
		{"what has it counted?", "curl -s " + w.status + "/metrics"},
		{"a new token for admin2", "curl -s -u " + client.name + ":" + client.secret + " " + w.provider.issuer + "/token -d grant_type=password -d username=" + admin2.name + " -d password=" + admin2.secret},
		{"log admin2 out everywhere: every token it has now is refused", "REDIS_URL=" + w.redis + " go run ./cmd/gatehouse revoke --config routes.yaml --issuer main --sub admin2"},
	} {
		s.printf("\n%s\n%s", s.faint("# "+row[0]), row[1])
	}
	s.printf("\nCtrl-C ends it.")
}

// newSeed makes the older service's key pair and writes the public half, as a
// PEM file, into dir.
func newSeed(dir string) (key *rsa.PrivateKey, file string, err error) {
	if key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return nil, "", err
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, "", err
	}
	file = filepath.Join(dir, "seed.pem")
	return key, file, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600)
}

// listen opens the first of addrs that is free.
func listen(addrs ...string) (l net.Listener, err error) {
	for _, addr := range addrs {
		if l, err = net.Listen("tcp", addr); err == nil {
			return l, nil
		}
	}
	return nil, err
}

// serve serves h on l until the returned func is called, which waits for the
// server's end.
func serve(l net.Listener, h http.Handler) (stop func()) {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l) // ends with stop, and only so
	}()
	return func() {
		_ = srv.Close()
		<-done
	}
}
