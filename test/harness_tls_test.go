package test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	mathbig "math/big"
	"net"
	"testing"
	"time"
)

// pair is a certificate and its key. One that is an authority signs others.
type pair struct {
	cert, key string // PEM; cert goes on with the authorities between it and the first
	leaf      *x509.Certificate
	private   *ecdsa.PrivateKey
	first     *pair // the authority at the chain's end
}

// newAuthority makes an authority of its own.
func newAuthority(t *testing.T) *pair { return (*pair)(nil).make(t, true, time.Time{}, nil) }

// intermediate makes an authority below a.
func (a *pair) intermediate(t *testing.T) *pair { return a.make(t, true, time.Time{}, nil) }

// issue signs a certificate, for servers and clients, with these names.
func (a *pair) issue(t *testing.T, names ...string) *pair {
	return a.make(t, false, time.Time{}, names)
}

// expired signs a certificate that ended a minute ago.
func (a *pair) expired(t *testing.T, names ...string) *pair {
	return a.make(t, false, time.Now().Add(-time.Minute), names)
}

// make signs a certificate; it lasts until then, or for hours.
func (a *pair) make(t *testing.T, authority bool, until time.Time, names []string) *pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	number := serial.Add(1)
	template := &x509.Certificate{
		SerialNumber: mathbig.NewInt(number), Subject: pkix.Name{CommonName: itoa(number)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Duration(number) * time.Hour),
		IsCA: authority, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if !until.IsZero() {
		template.NotAfter = until
	}
	if authority {
		template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageCertSign, nil
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	signer, parent := key, template
	if a != nil {
		signer, parent = a.private, a.leaf
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{private: key, first: a, cert: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
	if p.leaf, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	p.key = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	if a != nil && a.first != nil {
		p.cert, p.first = p.cert+a.cert, a.first
	}
	return p
}

// pool holds this authority alone.
func (a *pair) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.leaf)
	return pool
}

// shown is the pair as a program shows it.
func (a *pair) shown(t *testing.T) tls.Certificate {
	t.Helper()
	c, err := tls.X509KeyPair([]byte(a.cert), []byte(a.key))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// files are the pair's, by those names.
func (a *pair) files(name string) []file {
	return []file{{name + ".pem", a.cert}, {name + ".key", a.key}}
}

// trusting is a client of a server with such certificates. It shows its own,
// if any, whichever authorities the server says it wants.
func trusting(a *pair, own ...tls.Certificate) *tls.Config {
	c := &tls.Config{RootCAs: a.pool(), ServerName: "127.0.0.1"}
	if len(own) > 0 {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own[0], nil }
	}
	return c
}

// quiet is for servers whose clients are meant to fail.
var quiet = log.New(io.Discard, "", 0)
