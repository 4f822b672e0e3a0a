package issuer

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"math/big"
	"strings"
	"testing"
	"time"

	"gatehouse/gateway/token"
)

// BenchmarkVerify compares the whole of Set.Verify with std crypto's check of
// the signature alone, on a token of about 800 bytes.
func BenchmarkVerify(b *testing.B) {
	now := time.Now().Unix()
	c := with(claims(iss), m{
		"nbf": now, "jti": "0f3c2b1a-1111-2222-3333-444455556666", "sub": "3d1f2b7e-9c55-4f1e-8f9a-0d3f1a2b3c4d",
		"client_id": "web", "scope": "openid profile email", "email": "hero@example.com", "name": "Admin Two", "tenant": "north",
	})
	for _, alg := range []string{"RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA", "HS256"} {
		private, kid := keyFor(alg)
		i := static(b, nil)
		if alg == "HS256" {
			private = secret()
			i = static(b, func(o *Options) {
				o.Algorithms, o.Secret, o.StaticKeys = []string{alg}, secret(), nil
			})
		}
		text := sign(alg, private, encode(m{"alg": alg, "kid": kid, "typ": "at+jwt"}), encode(c))
		input, sig := cut(text)
		b.Run(alg+"/crypto", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !plain(alg, private, input, sig) {
					b.Fatal("bad signature")
				}
			}
		})
		set, raw := Set{i}, token.NewRaw(text)
		b.Run(alg+"/gateway", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := set.Verify(b.Context(), raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("parse", func(b *testing.B) {
		text := sign("EdDSA", edKey(), `{"alg":"EdDSA","kid":"ed","typ":"at+jwt"}`, encode(c))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := parse(text); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func cut(text string) (input, sig []byte) {
	n := strings.LastIndexByte(text, '.')
	return []byte(text[:n]), must(b64.DecodeString(text[n+1:]))
}

// plain verifies with std crypto.
func plain(alg string, private any, input, sig []byte) bool {
	switch k := private.(type) {
	case ed25519.PrivateKey:
		return ed25519.Verify(k.Public().(ed25519.PublicKey), input, sig)
	case []byte:
		return string(mac(alg, k, string(input))) == string(sig)
	}
	hash := hashes[alg[2:]]
	h := hash.New()
	h.Write(input)
	sum := h.Sum(nil)
	switch k := private.(type) {
	case *rsa.PrivateKey:
		if alg[0] == 'P' {
			return rsa.VerifyPSS(&k.PublicKey, hash, sum, sig, nil) == nil
		}
		return rsa.VerifyPKCS1v15(&k.PublicKey, hash, sum, sig) == nil
	case *ecdsa.PrivateKey:
		r, s := new(big.Int).SetBytes(sig[:len(sig)/2]), new(big.Int).SetBytes(sig[len(sig)/2:])
		return ecdsa.Verify(&k.PublicKey, sum, r, s)
	}
	return false
}
