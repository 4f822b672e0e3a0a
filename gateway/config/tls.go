package config

import (
	"net/url"
	"strings"
)

// TLS is what the gateway shows its clients, and asks of them. The paths of
// files are resolved already; what they hold is not looked at here.
type TLS struct {
	Certificates []Certificate // chosen by the names that the client asks for; the first is the default
	ClientCAFile string        // PEM: who may sign clients' certificates; empty: none is asked for
	ClientAuth   string        // "require" or "request"; empty without ClientCAFile
	MinVersion   string        // "1.2" or "1.3"
}

// Certificate is a certificate with those that lead to its authority, and its key.
type Certificate struct{ CertFile, KeyFile string } // PEM

// UpstreamTLS is what the gateway asks of targets with https, and shows them.
// The zero value asks for the target's host by the system's authorities.
type UpstreamTLS struct {
	CAFile      string      // PEM: who alone may sign the targets' certificates; empty: the system's authorities
	ServerName  string      // asked for and verified instead of the target's host
	Certificate Certificate // shown to a target that asks; empty: none
}

type fileTLS struct {
	CertFile     string            `yaml:"cert_file" doc:"a PEM file of the certificate and those that lead to its authority"`
	KeyFile      string            `yaml:"key_file" doc:"the PEM file of its private key"`
	Certificates []fileCertificate `yaml:"certificates" doc:"several, chosen by the name that the client asks for; the first is the default"`
	ClientCAFile string            `yaml:"client_ca_file" doc:"a PEM file of the authorities that may sign clients' certificates; default: none is asked for"`
	ClientAuth   string            `yaml:"client_auth" enum:"require,request" doc:"request lets clients without a certificate pass, too; default require"`
	MinVersion   string            `yaml:"min_version" enum:"1.2,1.3" doc:"the least version of TLS; default 1.2"`
}

type fileCertificate struct {
	CertFile string `yaml:"cert_file" need:"a PEM file of the certificate and those that lead to its authority" doc:"a PEM file of the certificate and those that lead to its authority"`
	KeyFile  string `yaml:"key_file" need:"the PEM file of its private key" doc:"the PEM file of its private key"`
}

type fileUpstreamTLS struct {
	CAFile     string `yaml:"ca_file" doc:"a PEM file of the authorities that alone may sign the targets' certificates; default: the system's"`
	ServerName string `yaml:"server_name" doc:"the name to ask for and to verify instead of the target's host"`
	CertFile   string `yaml:"cert_file" doc:"a PEM file of the certificate that is shown to targets that ask for one"`
	KeyFile    string `yaml:"key_file" doc:"the PEM file of its private key"`
}

// targetURL is an absolute http, https or h2c URL.
type targetURL struct{ *url.URL }

func (u *targetURL) readText(s string) (err error) {
	u.URL, err = parseURL(s, "http", "https", "h2c")
	return err
}

func (r *reader) tls(path string, f *fileTLS) *TLS {
	if !r.has(path) {
		return nil
	}
	t := &TLS{MinVersion: or(f.MinVersion, "1.2")}
	one, list := r.has(path+".cert_file") || r.has(path+".key_file"), r.has(path+".certificates")
	switch {
	case one && list:
		r.fault(path+".certificates", "%s has certificates beside cert_file and key_file; put all into certificates, the default first", path)
	case one:
		t.Certificates = append(t.Certificates, r.certificate(path, f.CertFile, f.KeyFile))
	case !list && !r.bad[path]:
		r.lacks(path, "%s needs a certificate: cert_file and key_file, or certificates for several", path)
	}
	for i, c := range f.Certificates {
		next := Certificate{r.resolvePath(c.CertFile), r.resolvePath(c.KeyFile)}
		for _, other := range t.Certificates {
			if at := index(path+".certificates", i) + ".cert_file"; other.CertFile == next.CertFile && r.ok(at) {
				r.fault(at, "%s stands twice in %s.certificates", r.quote(at, c.CertFile), path)
			}
		}
		t.Certificates = append(t.Certificates, next)
	}
	if f.ClientCAFile != "" {
		t.ClientCAFile, t.ClientAuth = r.resolvePath(f.ClientCAFile), or(f.ClientAuth, "require")
	} else if at := path + ".client_auth"; r.ok(at) && !r.has(path+".client_ca_file") {
		r.fault(at, "%s needs client_ca_file: the authorities that may sign clients' certificates", at)
	}
	return t
}

// certificate reads a pair that stands in a map with other keys.
func (r *reader) certificate(path, certFile, keyFile string) Certificate {
	for key, other := range map[string]string{"cert_file": "key_file", "key_file": "cert_file"} {
		if r.has(path+"."+key) && !r.has(path+"."+other) {
			r.lacks(path, "%s has %s without %s; a certificate is of use with its key only", path, key, other)
		}
	}
	if certFile == "" || keyFile == "" {
		return Certificate{}
	}
	return Certificate{r.resolvePath(certFile), r.resolvePath(keyFile)}
}

func (r *reader) upstreamTLS(path string, f *fileUpstreamTLS, targets []Target) UpstreamTLS {
	var t UpstreamTLS
	if !r.has(path) {
		return t
	}
	if f.CAFile != "" {
		t.CAFile = r.resolvePath(f.CAFile)
	}
	t.ServerName, t.Certificate = f.ServerName, r.certificate(path, f.CertFile, f.KeyFile)
	if at := path + ".server_name"; r.ok(at) && !isHostname(f.ServerName) {
		r.fault(at, "%s is %s; want a host name, without a port", at, r.quote(at, f.ServerName))
	}
	for _, target := range targets {
		if target.URL.Scheme == "https" {
			return t
		}
	}
	if r.ok(strings.TrimSuffix(path, ".tls") + ".targets") {
		r.fault(path, "%s means nothing, since no target begins with https://", path)
	}
	return t
}

// isHostname says whether s can be asked for by SNI (RFC 6066 §3), or is an
// address, which cannot, but can be verified.
func isHostname(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._:") == "" &&
		(!strings.Contains(s, ":") || strings.Count(s, ":") > 1)
}
