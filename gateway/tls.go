package gateway

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/gateway/config"
)

// rereadEvery is how often the files of certificates are looked at, when
// somebody needs what they hold.
const rereadEvery = 5 * time.Second

// maxKeyFile bounds a file of keys or certificates, in bytes.
const maxKeyFile = 1 << 20

// watched is what files hold. They are read anew when it is asked for, so that
// a renewed certificate needs no reload and nothing runs in between; a change
// that cannot be used leaves the last good value. It is safe for concurrent use.
type watched[T any] struct {
	files []string
	parse func(texts [][]byte, good *T) (*T, error) // good is the last good value, or nil
	told  func(err error)                           // of each change after the first, and what is wrong with it

	good atomic.Pointer[T]
	mu   sync.Mutex
	seen [sha256.Size]byte // what was read last, good or bad
	next time.Time         // when the files are looked at again
}

// watch reads the files for the first time; an error means that they are of no use.
func watch[T any](parse func(texts [][]byte, good *T) (*T, error), told func(error), files ...string) (*watched[T], error) {
	w := &watched[T]{files: files, parse: parse}
	err := w.read()
	w.told = told
	return w, err
}

// get returns the last good value, which must not be changed.
func (w *watched[T]) get() *T {
	if w.mu.TryLock() { // others need not wait for the disk
		if !time.Now().Before(w.next) {
			_ = w.read() // told has it
		}
		w.mu.Unlock()
	}
	return w.good.Load()
}

// refresh looks at the files now.
func (w *watched[T]) refresh() {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.read()
}

func (w *watched[T]) read() error {
	texts, err := make([][]byte, len(w.files)), error(nil)
	hash := sha256.New()
	for i, file := range w.files {
		text, failed := readSmall(file)
		if failed != nil && err == nil {
			err = failed
		}
		texts[i] = text
		_, _ = fmt.Fprintf(hash, "%d %v %s", len(text), failed, text)
	}
	w.next = time.Now().Add(rereadEvery)
	seen := [sha256.Size]byte(hash.Sum(nil))
	if seen == w.seen {
		return nil
	}
	w.seen = seen
	if err == nil {
		var value *T
		if value, err = w.parse(texts, w.good.Load()); err == nil {
			w.good.Store(value)
		}
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", strings.Join(w.files, ", "), err)
	}
	if w.told != nil {
		w.told(err)
	}
	return err
}

// readSmall reads a regular file of at most [maxKeyFile] bytes.
func readSmall(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxKeyFile {
		return nil, fmt.Errorf("%s is no file of at most %d bytes", file, maxKeyFile)
	}
	return os.ReadFile(file)
}

// parsePair takes no certificate that has expired in the place of one that
// lasts longer: what renews them has gone wrong.
func parsePair(texts [][]byte, good *tls.Certificate) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(texts[0], texts[1])
	if err == nil && good != nil && pair.Leaf.NotAfter.Before(time.Now()) && pair.Leaf.NotAfter.Before(good.Leaf.NotAfter) {
		return nil, fmt.Errorf("the certificate expired on %s; that in use lasts until %s", pair.Leaf.NotAfter.Format(time.RFC3339), good.Leaf.NotAfter.Format(time.RFC3339))
	}
	return &pair, err
}

func parseAuthorities(texts [][]byte, _ *x509.CertPool) (*x509.CertPool, error) {
	pool := x509.NewCertPool() // an empty one would stand for the system's authorities
	if !pool.AppendCertsFromPEM(texts[0]) {
		return nil, errors.New("no certificate in PEM")
	}
	return pool, nil
}

// frontTLS is what a listener shows to clients and asks of them.
type frontTLS struct {
	certificates []*watched[tls.Certificate] // the first is the default
	clients      *watched[x509.CertPool]     // nil: no client is asked for a certificate
	clientAuth   tls.ClientAuthType
	minVersion   uint16
}

// config is what a handshake that begins now goes by.
func (f *frontTLS) config() *tls.Config {
	c := &tls.Config{MinVersion: f.minVersion, NextProtos: []string{"h2", "http/1.1"}, GetCertificate: f.certificate}
	if f.clients != nil {
		c.ClientAuth, c.ClientCAs = f.clientAuth, f.clients.get()
	}
	return c
}

// vouches says whether one of its authorities signed the client's certificate.
// The handshake found one that did, but a connection that is kept can be older
// than the file, and than what is left of the certificate's time.
func (f *frontTLS) vouches(c *tls.ConnectionState) bool {
	if f.clients == nil || c == nil || len(c.VerifiedChains) == 0 {
		return false
	}
	between := x509.NewCertPool()
	for _, more := range c.PeerCertificates[1:] {
		between.AddCert(more)
	}
	_, err := c.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: f.clients.get(), Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return err == nil
}

// certificate returns the one for the name that the client asks for (RFC 6066
// §3): one that says so in full, else one with a wildcard, else the default.
func (f *frontTLS) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	var wildcard *tls.Certificate
	for _, w := range f.certificates {
		c := w.get()
		if hello.SupportsCertificate(c) != nil {
			continue
		}
		for _, name := range c.Leaf.DNSNames {
			if strings.EqualFold(name, hello.ServerName) {
				return c, nil
			}
		}
		if wildcard == nil {
			wildcard = c
		}
	}
	if wildcard != nil {
		return wildcard, nil
	}
	return f.certificates[0].get(), nil
}

// serverTLS builds server.tls and that of the admin listener. A file without
// one keeps what the listener was started with, which cannot change.
func (b *builder) serverTLS(s *snapshot) {
	s.tls = b.frontTLS(s, "server.tls", b.cfg.Server.TLS, b.old.tls)
	s.adminTLS = b.frontTLS(s, "server.admin_auth.tls", b.cfg.Server.AdminAuth.TLS, b.old.adminTLS)
}

func (b *builder) frontTLS(s *snapshot, at string, c *config.TLS, old *frontTLS) *frontTLS {
	if c == nil {
		return old
	}
	f := &frontTLS{minVersion: tls.VersionTLS12}
	if c.MinVersion == "1.3" {
		f.minVersion = tls.VersionTLS13
	}
	for i, certificate := range c.Certificates {
		f.certificates = append(f.certificates, b.pair(s, fmt.Sprintf("%s.certificates[%d].cert_file", at, i), certificate))
	}
	if c.ClientCAFile != "" {
		f.clientAuth = tls.RequireAndVerifyClientCert
		if c.ClientAuth == "request" {
			f.clientAuth = tls.VerifyClientCertIfGiven
		}
		if old != nil && old.clients != nil && old.clients.files[0] == c.ClientCAFile {
			f.clients = old.clients
		} else {
			var err error
			if f.clients, err = watch(parseAuthorities, b.told(c.ClientCAFile), c.ClientCAFile); err != nil {
				b.fault(at+".client_ca_file", err)
			}
		}
	}
	return f
}

// upstreamTLS builds what targets with https are asked for; nil is net/http's own.
func (b *builder) upstreamTLS(s *snapshot, c *config.Upstream) (t *tls.Config, authorities []byte) {
	at := "upstreams." + c.Name + ".tls."
	if c.TLS == (config.UpstreamTLS{}) {
		return nil, nil
	}
	t = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.TLS.ServerName}
	if file := c.TLS.CAFile; file != "" {
		var err error
		if authorities, err = readSmall(file); err == nil {
			if t.RootCAs, err = parseAuthorities([][]byte{authorities}, nil); err != nil {
				err = fmt.Errorf("%s: %w", file, err)
			}
		}
		if err != nil {
			b.fault(at+"ca_file", err)
		}
	}
	if c.TLS.Certificate.CertFile != "" {
		if pair := b.pair(s, at+"cert_file", c.TLS.Certificate); pair != nil {
			t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair.get(), nil }
		}
	}
	return t, authorities
}

// pair returns what the files of a certificate hold, whoever else uses it.
func (b *builder) pair(s *snapshot, at string, c config.Certificate) *watched[tls.Certificate] {
	if s.pairs[c] == nil {
		s.pairs[c] = b.old.pairs[c]
	}
	if s.pairs[c] == nil {
		w, err := watch(parsePair, b.told(c.CertFile), c.CertFile, c.KeyFile)
		if err != nil {
			b.fault(at, err)
			return nil
		}
		s.pairs[c] = w
	}
	return s.pairs[c]
}

// told counts and logs what became of a change of the file.
func (b *builder) told(file string) func(error) {
	log, metrics := b.log, b.metrics
	return func(err error) {
		if metrics != nil {
			metrics.certificates.WithLabelValues(file, outcome(err)).Inc()
		}
		if err != nil {
			log.Error("a changed certificate cannot be used; the old one serves on", "file", file, "error", err)
		} else {
			log.Info("a changed certificate was taken up", "file", file)
		}
	}
}

// refreshFiles takes up what changed in the files of certificates.
func (s *snapshot) refreshFiles() {
	for _, pair := range s.pairs {
		pair.refresh()
	}
	for _, front := range []*frontTLS{s.tls, s.adminTLS} {
		if front != nil && front.clients != nil {
			front.clients.refresh()
		}
	}
}

// tlsStats reports on the certificates of the current configuration.
type tlsStats struct {
	current  func() *snapshot
	notAfter *prometheus.Desc
}

func newTLSStats(current func() *snapshot) *tlsStats {
	return &tlsStats{current, prometheus.NewDesc("gatehouse_tls_certificate_not_after_seconds",
		"When a certificate of the gateway's own expires, in Unix seconds.", []string{"file"}, nil)}
}

// Describe implements prometheus.Collector.
func (l *tlsStats) Describe(descs chan<- *prometheus.Desc) { descs <- l.notAfter }

// Collect implements prometheus.Collector.
func (l *tlsStats) Collect(to chan<- prometheus.Metric) {
	s := l.current()
	if s == nil {
		return
	}
	files := map[string]bool{}
	for c, pair := range s.pairs {
		if !files[c.CertFile] { // with two keys, of which one cannot fit
			files[c.CertFile] = true
			to <- prometheus.MustNewConstMetric(l.notAfter, prometheus.GaugeValue, float64(pair.get().Leaf.NotAfter.Unix()), c.CertFile)
		}
	}
}
