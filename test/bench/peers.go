package main

import (
	"embed"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
)

//go:embed peers
var templates embed.FS

// peer is a gateway, and how it is set up here.
type peer struct {
	Name     string
	Program  string // nginx, haproxy or gatehouse
	Config   string // the name of its template
	Auth     bool   // it checks tokens
	Passes   bool   // it takes part where no token is asked for
	Remember int    // verified tokens that it remembers, where that can be said
	Full     bool   // Gatehouse with all that a deployment has
	Shared   bool   // and its limits counted in Redis
	NoEdDSA  bool
}

// allPeers are in the order of the report. The first is what the others are
// compared with.
var allPeers = []peer{
	{Name: "gatehouse", Program: "gatehouse", Config: "gatehouse.yaml", Auth: true, Passes: true, Full: true},
	{Name: "gatehouse-bare", Program: "gatehouse", Config: "gatehouse.yaml", Auth: true, Passes: true},
	{Name: "gatehouse-shared", Program: "gatehouse", Config: "gatehouse.yaml", Auth: true, Full: true, Shared: true},
	{Name: "nginx-lua", Program: "nginx", Config: "nginx.conf", Auth: true, Remember: 100000},
	{Name: "nginx-lua-each", Program: "nginx", Config: "nginx.conf", Auth: true},
	{Name: "haproxy", Program: "haproxy", Config: "haproxy.cfg", Auth: true, NoEdDSA: true},
	{Name: "nginx-open", Program: "nginx", Config: "nginx.conf", Passes: true},
	{Name: "haproxy-open", Program: "haproxy", Config: "haproxy.cfg", Passes: true},
}

// site is what the templates are filled with.
type site struct {
	peer
	TLS                    bool
	Cores                  int
	Dir                    string // the peer's own
	Listen, Status         string
	Backend, Echo, Redis   string
	Issuer, Audience       string
	Privilege              string
	RS256, ES256, EdDSA    string // files of public keys
	Certificate            string // file, and with the key behind it in Certificate.bundle
	CertificateKey, Answer string
	Paths                  []string
	Routes, Issuers        []int // further ones, by number
}

// fill writes a template into the site's directory and returns the file.
func (s site) fill(name string) (string, error) {
	t, err := template.ParseFS(templates, "peers/"+name)
	if err != nil {
		return "", err
	}
	var text strings.Builder
	if err := t.Execute(&text, s); err != nil {
		return "", err
	}
	file := filepath.Join(s.Dir, name)
	return file, os.WriteFile(file, []byte(text.String()), 0o600)
}

// command returns the peer's command line.
func (s site) command(gatehouse string) (*exec.Cmd, error) {
	file, err := s.fill(s.Config)
	if err != nil {
		return nil, err
	}
	switch s.Program {
	case "nginx":
		if s.Auth {
			lua, err := templates.ReadFile("peers/gate.lua")
			if err != nil {
				return nil, err
			}
			if err := os.WriteFile(filepath.Join(s.Dir, "gate.lua"), lua, 0o600); err != nil {
				return nil, err
			}
		}
		return exec.Command(nginx(), "-p", s.Dir, "-c", file), nil
	case "haproxy":
		return exec.Command(sbin("haproxy"), "-db", "-f", file), nil
	default:
		return exec.Command(gatehouse, "serve", "--grace", "1s", "--config", file), nil
	}
}

func nginx() string { return sbin("nginx") }

// sbin finds a program that a user's PATH may not lead to.
func sbin(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	return "/usr/sbin/" + name
}

// installed says whether the peer's program is there.
func (p peer) installed() bool {
	if p.Program == "gatehouse" {
		return true
	}
	if p.Program == "nginx" && p.Auth && !exists("/usr/lib/nginx/modules/ngx_http_lua_module.so") {
		return false
	}
	_, err := exec.LookPath(sbin(p.Program))
	return err == nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
