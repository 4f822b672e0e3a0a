package config

import (
	"net/netip"
	"strings"
)

// minSecret is the least length, in bytes, of a secret that guards a listener.
const minSecret = 16

type fileAdminAuth struct {
	TokenFile string                      `yaml:"token_file" doc:"a file with the operators' bearer token"`
	Clients   map[string]*fileAdminClient `yaml:"clients" doc:"OAuth clients by client_id"`
	TLS       fileTLS                     `yaml:"tls" doc:"the admin listener speaks TLS; whoever has a client certificate of client_ca_file is an operator"`
}

type fileAdminClient struct {
	ClientSecret string `yaml:"client_secret" need:"the secret that the client shows, such as ${file:/run/secrets/hero-app}" doc:"at least 16 bytes"`
}

type fileAudit struct {
	File         string `yaml:"file" need:"where the records go: a file, or - for standard output" doc:"a file, or - for standard output"`
	MaxBytes     int    `yaml:"max_bytes" doc:"at which the file is rotated; default 100 MiB"`
	Keep         int    `yaml:"keep" doc:"how many old files stay; default 10"`
	SampleAllows int    `yaml:"sample_allows" doc:"100 writes one of a hundred allowed requests; default all"`
}

type fileAccessLog struct {
	SampleAllows int `yaml:"sample_allows" doc:"100 writes one of a hundred requests with which nothing was wrong; default all"`
}

func (r *reader) admin(f *fileServer, s *Server) {
	if r.ok("server.admin") {
		s.Admin = f.Admin.String()
		for _, other := range []struct{ key, value string }{{"listen", s.Listen}, {"status", s.Status}} {
			if s.Admin == other.value && f.Admin.port != "0" {
				r.fault("server.admin", "server.admin is the address of server.%s; who may administer the gateway must be told apart by the port, give it another", other.key)
			}
		}
	}
	const at = "server.admin_auth"
	if !r.has(at) {
		if r.ok("server.admin") && !s.AdminOnLoopback() {
			r.fault("server.admin", "server.admin is reached from other machines and asks nobody who he is; add server.admin_auth, or listen on 127.0.0.1")
		}
		return
	}
	if !r.has("server.admin") {
		r.fault(at, "server.admin_auth guards server.admin, which is off; give it an address such as 127.0.0.1:9901")
	}
	if !r.has(at+".token_file") && !r.has(at+".clients") && !r.has(at+".tls.client_ca_file") {
		r.fault(at, "server.admin_auth lets nobody in; give it token_file, clients, or tls with client_ca_file")
	}
	s.AdminAuth.TLS = r.tls(at+".tls", &f.AdminAuth.TLS)
	if f.AdminAuth.TokenFile != "" {
		s.AdminAuth.TokenFile = r.resolvePath(f.AdminAuth.TokenFile)
	}
	for id, client := range f.AdminAuth.Clients {
		path := at + ".clients." + id
		if len(client.ClientSecret) < minSecret && r.ok(path+".client_secret") {
			r.fault(path+".client_secret", "%s.client_secret has %d bytes; give it at least %d, from openssl rand -hex 32 say", path, len(client.ClientSecret), minSecret)
		}
		if s.AdminAuth.Clients == nil {
			s.AdminAuth.Clients = map[string]string{}
		}
		s.AdminAuth.Clients[id] = client.ClientSecret
	}
}

func (r *reader) audit(f *fileAudit) *Audit {
	if !r.has("server.audit") {
		return nil
	}
	a := &Audit{File: f.File, MaxBytes: or(f.MaxBytes, 100<<20), Keep: or(f.Keep, 10), SampleAllows: or(f.SampleAllows, 1)}
	if f.File == "-" {
		for _, key := range []string{"max_bytes", "keep"} {
			if at := "server.audit." + key; r.has(at) {
				r.fault(at, "%s means nothing for standard output, which is not rotated; leave it out", at)
			}
		}
	} else if f.File != "" {
		a.File = r.fromDir(f.File)
	}
	if a.MaxBytes < 1<<20 {
		r.fault("server.audit.max_bytes", "server.audit.max_bytes is %d; a file of records is at least 1048576 bytes (1 MiB) long before it is rotated", a.MaxBytes)
	}
	return a
}

// AdminOnLoopback says whether only this machine reaches the admin listener.
func (s Server) AdminOnLoopback() bool { return onLoopback(s.Admin) }

// onLoopback says whether only this machine reaches a listener.
func onLoopback(address string) bool {
	host := strings.Trim(address[:max(0, strings.LastIndexByte(address, ':'))], "[]")
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
