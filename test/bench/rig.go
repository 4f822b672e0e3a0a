package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// rig is the stage on which the peers are measured: keys, tokens, an identity
// provider in this process, a backend and Redis.
type rig struct {
	settings
	ctx       context.Context
	out       io.Writer
	root      string // of the repository
	dir       string // of this run, removed at its end
	binary    string // of Gatehouse
	signers   signers
	base      site // what all sites have in common
	provider  *http.Server
	backend   *process
	redis     *process
	countable bool   // perf counts instructions here
	counted   string // by what else, if not by perf
}

func (r *rig) say(format string, args ...any) { _, _ = fmt.Fprintf(r.out, format+"\n", args...) }

func newRig(ctx context.Context, out io.Writer, s settings) (r *rig, err error) {
	r = &rig{settings: s, ctx: ctx, out: out}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if r.dir = s.inside; r.dir == "" {
		if err := r.settle(); err != nil {
			return r, err
		}
	}
	programs := []string{nginx(), "wrk"}
	if s.emulate {
		programs = append(programs, emulator)
	}
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			return r, fmt.Errorf("%w (make bench installs what is missing)", err)
		}
	}
	raiseFiles()
	if s.inside == "" && !s.emulate {
		if err := counters(ctx, r.dir); err != nil {
			r.say("no instructions are counted: %v", err)
		} else {
			r.countable = true
		}
	}
	r.binary = filepath.Join(r.dir, "gatehouse")
	if s.inside == "" {
		if err := r.build("gatehouse", "./cmd/gatehouse", "-tags", "nodemo"); err != nil {
			return r, err
		}
	}
	if err := r.furnish(); err != nil {
		return r, err
	}
	if s.emulate {
		r.base.Issuer = "http://" + providerInside
		return r, r.signers.save(r.keys())
	}
	return r, r.serve()
}

// settle finds the repository and makes a directory for the run.
func (r *rig) settle() error {
	mod, err := exec.CommandContext(r.ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("go env GOMOD: %w", err)
	}
	r.root = filepath.Dir(strings.TrimSpace(string(mod)))
	if r.dir, err = os.MkdirTemp("", "gatehouse-bench-"); err != nil {
		return err
	}
	// nginx's workers run as another user, who must reach their files.
	return os.Chmod(r.dir, 0o755)
}

// build builds a command of the repository into the directory of the run.
func (r *rig) build(name, command string, flags ...string) error {
	r.say("building %s", name)
	args := append([]string{"build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(r.dir, name)}, flags...)
	build := exec.CommandContext(r.ctx, "go", append(args, command)...)
	build.Dir, build.Env = r.root, append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", command, err, text)
	}
	return nil
}

// keys is the file in which a guest finds the keys of its run.
func (r *rig) keys() string { return filepath.Join(r.dir, "keys.pem") }

// furnish makes the keys, the certificate and the files that are downloaded.
func (r *rig) furnish() (err error) {
	if r.inside != "" {
		r.signers, err = readSigners(r.keys())
	} else {
		r.signers, err = newSigners()
	}
	if err != nil {
		return err
	}
	b := &r.base
	for alg, file := range map[string]*string{"RS256": &b.RS256, "ES256": &b.ES256, "EdDSA": &b.EdDSA} {
		if *file, err = r.signers.publicKey(r.dir, alg); err != nil {
			return err
		}
	}
	b.Certificate, b.CertificateKey = filepath.Join(r.dir, "localhost.pem"), filepath.Join(r.dir, "localhost.key")
	if err := r.certificate(b.Certificate, b.CertificateKey); err != nil {
		return err
	}
	b.Audience, b.Privilege, b.Answer, b.Cores = audience, privilege, strings.Repeat("x", 200), runtime.NumCPU()
	seen := map[string]bool{"/open": true}
	for _, c := range allCases {
		if !seen[c.Path] {
			seen[c.Path] = true
			b.Paths = append(b.Paths, c.Path)
		}
	}
	b.Paths = append(b.Paths, "/echo")
	backend := filepath.Join(r.dir, "backend", "download")
	if err := os.MkdirAll(backend, 0o755); err != nil {
		return err
	}
	for name, size := range map[string]int{"1k": kilobyte, "1m": megabyte} {
		if err := os.WriteFile(filepath.Join(backend, name), make([]byte, size), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// certificate makes one for localhost that signs itself: nobody verifies it.
func (r *rig) certificate(file, keyFile string) error {
	now := time.Now()
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, r.signers.ec.Public(), r.signers.ec)
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(r.signers.ec)
	if err != nil {
		return err
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	return errors.Join(os.WriteFile(file, public, 0o600), os.WriteFile(keyFile, private, 0o600),
		os.WriteFile(file+".bundle", append(public, private...), 0o600))
}

// serve starts what stands behind the peers.
func (r *rig) serve() error {
	keySet, err := r.signers.keySet()
	if err != nil {
		return err
	}
	address := "127.0.0.1:0"
	if r.inside != "" {
		address = providerInside
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	address = listener.Addr().String()
	r.base.Issuer, r.base.Echo = "http://"+address, address
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"issuer":"http://%s","jwks_uri":"http://%[1]s/jwks"}`, address)
	})
	mux.HandleFunc("GET /jwks", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(keySet) })
	mux.HandleFunc("/echo", func(w http.ResponseWriter, req *http.Request) { _ = json.NewEncoder(w).Encode(req.Header) })
	r.provider = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = r.provider.Serve(listener) }()

	if r.base.Backend, err = freeAddress(); err != nil {
		return err
	}
	if r.backend, err = r.startBackend("backend", r.base.Backend); err != nil {
		return err
	}
	return r.startRedis()
}

// startBackend starts an nginx that answers at an address. Its files are in a
// directory of that name.
func (r *rig) startBackend(name, address string) (*process, error) {
	site := r.base
	site.Dir, site.Backend = filepath.Join(r.dir, name), address
	if err := os.MkdirAll(site.Dir, 0o755); err != nil {
		return nil, err
	}
	file, err := site.fill("backend.conf")
	if err != nil {
		return nil, err
	}
	p, err := launch(exec.Command(nginx(), "-p", site.Dir, "-c", file), filepath.Join(r.dir, name+".out"))
	if err != nil {
		return nil, err
	}
	if err := r.accepts(p, address); err != nil {
		p.stop()
		return nil, fmt.Errorf("the backend: %w", err)
	}
	return p, nil
}

// startRedis starts an empty Redis, anew if there is one.
func (r *rig) startRedis() (err error) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		r.say("%v: gatehouse without bare is not measured", err)
		return nil
	}
	if r.redis != nil {
		r.redis.stop()
	}
	if r.base.Redis, err = freeAddress(); err != nil {
		return err
	}
	return r.launchRedis()
}

// launchRedis starts an empty Redis at its address.
func (r *rig) launchRedis() (err error) {
	_, port, _ := net.SplitHostPort(r.base.Redis)
	r.redis, err = launch(exec.Command("redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no",
		"--maxmemory-policy", "noeviction", "--dir", r.dir), filepath.Join(r.dir, "redis.out"))
	if err != nil {
		return err
	}
	return r.accepts(r.redis, r.base.Redis)
}

// accepts waits until a process takes connections.
func (r *rig) accepts(p *process, address string) error {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		if p.ended() {
			return fmt.Errorf("%s ended: %s", p.cmd.Args[0], p.said())
		}
		if conn, err := net.Dial("tcp", address); err == nil {
			return conn.Close()
		}
		time.Sleep(time.Millisecond)
	}
	return fmt.Errorf("%s does not listen: %s", p.cmd.Args[0], p.said())
}

func (r *rig) close() {
	for _, p := range []*process{r.backend, r.redis} {
		if p != nil {
			p.stop()
		}
	}
	if r.provider != nil {
		_ = r.provider.Close()
	}
	if r.dir != "" {
		_ = os.RemoveAll(r.dir)
	}
}

// tokens returns the file of a case's tokens, which is made when first asked for.
func (r *rig) tokens(c benchCase) (string, error) {
	if c.Tokens == "" {
		return "-", nil
	}
	return r.file(c.Tokens, func(w io.Writer) error {
		first, n := 0, 1
		switch {
		case c.Tokens == "many":
			first, n = 1, r.many
		case c.Once:
			first, n = 1_000_000, r.unique
		}
		if n > 1 {
			r.say("signing %d tokens (%s)", n, c.Alg)
		}
		return r.signers.write(w, c.Alg, r.base.Issuer, first, n)
	})
}

// file returns the path of a file of that name, written by write the first time.
func (r *rig) file(name string, write func(io.Writer) error) (string, error) {
	path := filepath.Join(r.dir, name+".txt")
	if exists(path) {
		return path, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		_ = os.Remove(path)
		return "", err
	}
	return path, nil
}

// machine says on what the figures were measured.
func (r *rig) machine() string {
	model := "an unnamed processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for _, line := range strings.Split(string(text), "\n") {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	parts := []string{fmt.Sprintf("%d cores of %s", runtime.NumCPU(), model), runtime.Version()}
	for _, version := range [][]string{{nginx(), "-v"}, {sbin("haproxy"), "-v"}} {
		if text, err := exec.Command(version[0], version[1:]...).CombinedOutput(); err == nil {
			line, _, _ := strings.Cut(string(text), "\n")
			line = strings.TrimPrefix(line, "nginx version: ")
			line, _, _ = strings.Cut(line, " - ")
			parts = append(parts, line)
		}
	}
	if r.counted != "" {
		parts = append(parts, r.counted)
	} else if !r.countable {
		parts = append(parts, "no instruction counters")
	}
	return strings.Join(parts, ", ")
}

// freeAddress returns a loopback address that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// raiseFiles asks for as many open files as the kernel gives, for us and for
// what is started here.
func raiseFiles() {
	for _, n := range []uint64{1 << 18, 1 << 16, uint64(openFiles())} {
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: n}) == nil {
			return
		}
	}
}

// openFiles is the most that may be open.
func openFiles() int {
	var has syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &has) != nil {
		return 1024
	}
	return int(min(has.Max, 1<<20))
}
