package test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"strings"
	"sync"
	"testing"
)

// signer signs tokens, good ones and odd ones.
type signer struct {
	alg, kid string
	key      any // *rsa.PrivateKey, *ecdsa.PrivateKey, ed25519.PrivateKey or the bytes of a secret
}

// claims is a token's payload, or its header. In a list of changes nil takes a claim out.
type claims map[string]any

func (c claims) with(changes ...claims) claims {
	out := maps.Clone(c)
	for _, change := range changes {
		for name, value := range change {
			if out[name] = value; value == nil {
				delete(out, name)
			}
		}
	}
	return out
}

// newSigner makes a key for RS256, PS256, ES256 or EdDSA.
func newSigner(t *testing.T, alg, kid string) signer {
	t.Helper()
	var key any
	var err error
	switch alg {
	case "RS256", "PS256":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ES256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "EdDSA":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		t.Fatalf("no such algorithm: %s", alg)
	}
	if err != nil {
		t.Fatal(err)
	}
	return signer{alg, kid, key}
}

// sign makes a token of these claims; headers change the usual header.
func (s signer) sign(t *testing.T, payload claims, headers ...claims) string {
	t.Helper()
	header := claims{"alg": s.alg, "typ": "JWT"}
	if s.kid != "" {
		header["kid"] = s.kid
	}
	return s.seal(t, toJSON(t, header.with(headers...)), toJSON(t, payload))
}

// seal signs any header and payload, JSON or not.
func (s signer) seal(t *testing.T, header, payload string) string {
	t.Helper()
	signed := b64(header) + "." + b64(payload)
	return minted(signed + "." + b64(string(s.signature(t, signed))))
}

func (s signer) signature(t *testing.T, signed string) []byte {
	t.Helper()
	digest := sha256.Sum256([]byte(signed))
	var sig []byte
	var err error
	switch key := s.key.(type) {
	case *rsa.PrivateKey:
		if s.alg == "PS256" {
			sig, err = rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		} else {
			sig, err = rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:])
		}
	case *ecdsa.PrivateKey:
		r, sv, e := ecdsa.Sign(rand.Reader, key, digest[:])
		if err = e; e == nil {
			sig = append(r.FillBytes(make([]byte, 32)), sv.FillBytes(make([]byte, 32))...)
		}
	case ed25519.PrivateKey:
		sig = ed25519.Sign(key, []byte(signed))
	case []byte:
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(signed))
		sig = mac.Sum(nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

// jwk is the public key as a JWK (RFC 7517, RFC 8037).
func (s signer) jwk() claims {
	jwk := claims{"kid": s.kid, "alg": s.alg, "use": "sig"}
	switch key := s.key.(type) {
	case *rsa.PrivateKey:
		jwk["kty"], jwk["n"], jwk["e"] = "RSA", b64(string(key.N.Bytes())), "AQAB"
	case *ecdsa.PrivateKey:
		point, _ := key.PublicKey.Bytes() // 4, x, y
		jwk["kty"], jwk["crv"] = "EC", "P-256"
		jwk["x"], jwk["y"] = b64(string(point[1:33])), b64(string(point[33:]))
	case ed25519.PrivateKey:
		jwk["kty"], jwk["crv"], jwk["x"] = "OKP", "Ed25519", b64(string(key[32:]))
	}
	return jwk
}

// pem is the public key as a PEM text.
func (s signer) pem(t *testing.T) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(s.key.(crypto.Signer).Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func toJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// tokens are all those that any test made. None may ever show in what the
// gateway writes.
var tokens struct {
	sync.Mutex
	all []string
}

// minted remembers a token and returns it.
func minted(token string) string {
	tokens.Lock()
	defer tokens.Unlock()
	tokens.all = append(tokens.all, token)
	return token
}

// forbidTokens fails the test if the text holds a token or a part of one that
// would do to use or to read it.
func forbidTokens(t *testing.T, where, text string) {
	t.Helper()
	tokens.Lock()
	defer tokens.Unlock()
	for _, token := range tokens.all {
		parts := strings.Split(token, ".")
		if len(parts) > 1 { // the first is a JWT's header, which is no secret
			parts = parts[1:]
		}
		for _, part := range parts {
			if len(part) >= 20 && strings.Contains(text, part) {
				t.Errorf("%s holds a part of a token: %.40s…", where, part)
				return
			}
		}
	}
}
