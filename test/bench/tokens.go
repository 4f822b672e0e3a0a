package main

import (
	"bufio"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

const (
	audience  = "https://api.example.com"
	privilege = "READ_HEROES"
)

// signers are the keys of one run.
type signers struct {
	rsa *rsa.PrivateKey
	ec  *ecdsa.PrivateKey
	ed  ed25519.PrivateKey
}

func newSigners() (s signers, err error) {
	if s.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return s, err
	}
	if s.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return s, err
	}
	_, s.ed, err = ed25519.GenerateKey(rand.Reader)
	return s, err
}

// save writes the keys (PKCS #8) into a PEM file.
func (s signers) save(file string) error {
	var text []byte
	for _, key := range []any{s.rsa, s.ec, s.ed} {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
	}
	return os.WriteFile(file, text, 0o600)
}

// readSigners reads what save wrote.
func readSigners(file string) (s signers, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return s, err
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return s, fmt.Errorf("%s: %w", file, err)
		}
		switch key := key.(type) {
		case *rsa.PrivateKey:
			s.rsa = key
		case *ecdsa.PrivateKey:
			s.ec = key
		case ed25519.PrivateKey:
			s.ed = key
		}
	}
	return s, nil
}

func (s signers) key(alg string) crypto.Signer {
	return map[string]crypto.Signer{"RS256": s.rsa, "ES256": s.ec, "EdDSA": s.ed}[alg]
}

// publicKey writes a public key into a PEM file.
func (s signers) publicKey(dir, alg string) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(s.key(alg).Public())
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, alg+".pem")
	return file, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600)
}

// keySet is the JWKS (RFC 7517, RFC 8037) of the public keys.
func (s signers) keySet() ([]byte, error) {
	point, err := s.ec.PublicKey.Bytes() // 4, x, y
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{"keys": []map[string]string{
		{"kid": "RS256", "alg": "RS256", "use": "sig", "kty": "RSA", "n": b64(s.rsa.N.Bytes()), "e": "AQAB"},
		{"kid": "ES256", "alg": "ES256", "use": "sig", "kty": "EC", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:])},
		{"kid": "EdDSA", "alg": "EdDSA", "use": "sig", "kty": "OKP", "crv": "Ed25519", "x": b64(s.ed[32:])},
	}})
}

// claims are a token's payload, of a size that makes an RS256 token some 800
// bytes long. Each number is a subject of its own.
type claims struct {
	Issuer     string   `json:"iss"`
	Audience   string   `json:"aud"`
	Subject    string   `json:"sub"`
	Client     string   `json:"client_id"`
	ID         string   `json:"jti"`
	Email      string   `json:"email"`
	IssuedAt   int64    `json:"iat"`
	Expires    int64    `json:"exp"`
	Privileges []string `json:"privileges"`
}

func newClaims(issuer string, number int) claims {
	now := time.Now().Unix()
	return claims{issuer, audience, fmt.Sprintf("user-%08d", number), "hero-app", fmt.Sprintf("%016x", number),
		fmt.Sprintf("user-%08d@heroes.example.com", number), now, now + 6*3600, []string{"CREATE_HERO", "ASSIGN_HERO", privilege}}
}

// sign makes a JWT.
func (s signers) sign(alg string, c claims) (string, error) {
	payload, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	text := b64([]byte(`{"alg":"`+alg+`","typ":"JWT","kid":"`+alg+`"}`)) + "." + b64(payload)
	digest := sha256.Sum256([]byte(text))
	var signature []byte
	switch alg {
	case "RS256":
		signature, err = rsa.SignPKCS1v15(rand.Reader, s.rsa, crypto.SHA256, digest[:])
	case "ES256":
		r, v, e := ecdsa.Sign(rand.Reader, s.ec, digest[:])
		if err = e; e == nil {
			signature = append(r.FillBytes(make([]byte, 32)), v.FillBytes(make([]byte, 32))...)
		}
	default:
		signature = ed25519.Sign(s.ed, []byte(text))
	}
	return text + "." + b64(signature), err
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// write signs n tokens, the first with the number first, and writes a line for
// each.
func (s signers) write(w io.Writer, alg, issuer string, first, n int) error {
	const batch = 1000
	out := bufio.NewWriter(w)
	for start := 0; start < n; start += batch {
		lines := make([]string, min(batch, n-start))
		errs := make([]error, runtime.NumCPU())
		var workers sync.WaitGroup
		for worker := range errs {
			workers.Go(func() {
				for i := worker; i < len(lines); i += len(errs) {
					token, err := s.sign(alg, newClaims(issuer, first+start+i))
					if err != nil {
						errs[worker] = err
						return
					}
					lines[i] = token
				}
			})
		}
		workers.Wait()
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
		if _, err := out.WriteString(strings.Join(lines, "\n") + "\n"); err != nil {
			return err
		}
	}
	return out.Flush()
}
