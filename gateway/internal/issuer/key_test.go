package issuer

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"

	"gatehouse/gateway/token"
)

// TestParseJWK is a table of keys that a provider may publish, and of what
// becomes of each.
func TestParseJWK(t *testing.T) {
	r, e, o := jwkOf(&rsaKey().PublicKey, "k"), jwkOf(&ec256().PublicKey, "k"), jwkOf(edKey(), "k")
	small := must(rsa.GenerateKey(rand.Reader, 1024))
	p224 := must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	x25519 := must(ecdh.X25519().GenerateKey(rand.Reader))
	big16k := new(big.Int).SetBit(new(big.Int).SetBit(new(big.Int), 16384, 1), 0, 1)
	for _, c := range []struct {
		name string
		jwk  string
		algs string // "" if it is left out
	}{
		{"RSA", encode(r), "RS256 RS384 RS512 PS256 PS384 PS512"},
		{"RSA without use", encode(with(r, m{"use": nil})), "RS256 RS384 RS512 PS256 PS384 PS512"},
		{"RSA with alg", encode(with(r, m{"alg": "PS384"})), "PS384"},
		{"RSA with x5c and more", encode(with(r, m{"x5c": []string{"AAAA"}, "x5t": "x", "issuer": "x"})), "RS256 RS384 RS512 PS256 PS384 PS512"},
		{"RSA with odd x5c", encode(with(r, m{"x5c": 1, "x5t": 2})), "RS256 RS384 RS512 PS256 PS384 PS512"},
		{"RSA to verify", encode(with(r, m{"use": nil, "key_ops": []string{"verify"}})), "RS256 RS384 RS512 PS256 PS384 PS512"},
		{"P-256", encode(e), "ES256"},
		{"P-384", encode(jwkOf(&ec384().PublicKey, "")), "ES384"},
		{"P-521", encode(jwkOf(&ec521().PublicKey, "")), "ES512"},
		{"Ed25519", encode(o), "EdDSA"},
		{"without kid", encode(with(o, m{"kid": nil})), "EdDSA"},

		{"use enc", encode(with(r, m{"use": "enc"})), ""},
		{"use unknown", encode(with(r, m{"use": "tls"})), ""},
		{"use a list", encode(with(r, m{"use": []string{"sig"}})), ""},
		{"to encrypt", encode(with(r, m{"key_ops": []string{"encrypt", "wrapKey"}})), ""},
		{"to sign", encode(with(r, m{"key_ops": []string{"sign"}})), ""},
		{"to do nothing", encode(with(r, m{"key_ops": []string{}})), ""},
		{"key_ops a string", encode(with(r, m{"key_ops": "verify"})), ""},
		{"alg of another kty", encode(with(r, m{"alg": "ES256"})), ""},
		{"alg of another curve", encode(with(e, m{"alg": "ES384"})), ""},
		{"alg to encrypt", encode(with(r, m{"alg": "RSA-OAEP-256"})), ""},
		{"alg none", encode(with(r, m{"alg": "none"})), ""},
		{"alg HS256", encode(with(r, m{"alg": "HS256"})), ""},
		{"alg a number", encode(with(r, m{"alg": 256})), ""},
		{"kid a number", encode(with(r, m{"kid": 1})), ""},
		{"kid null", `{"kty":"OKP","crv":"Ed25519","kid":null,"x":"` + o["x"].(string) + `"}`, ""},
		{"kid long", encode(with(r, m{"kid": strings.Repeat("k", maxKid+1)})), ""},
		{"symmetric", encode(m{"kty": "oct", "kid": "k", "alg": "HS256", "k": b64.EncodeToString(secret())}), ""},
		{"private RSA", encode(with(r, m{"d": "AQAB"})), ""},
		{"private EC", encode(with(e, m{"d": b64.EncodeToString(must(ec256().Bytes()))})), ""},
		{"private Ed25519", encode(with(o, m{"d": b64.EncodeToString(edKey().Seed())})), ""},
		{"RSA of 1024 bits", encode(jwkOf(&small.PublicKey, "k")), ""},
		{"RSA of 16385 bits", encode(with(r, m{"n": b64.EncodeToString(big16k.Bytes())})), ""},
		{"RSA with an even modulus", encode(with(r, m{"n": b64.EncodeToString(new(big.Int).Lsh(rsaKey().N, 1).Bytes())})), ""},
		{"RSA with exponent 1", encode(with(r, m{"e": "AQ"})), ""},
		{"RSA with exponent 2", encode(with(r, m{"e": "Ag"})), ""},
		{"RSA with exponent 0", encode(with(r, m{"e": "AA"})), ""},
		{"RSA with exponent 4", encode(with(r, m{"e": "BA"})), ""},
		{"RSA with an exponent that 64 bits cut to 65537", encode(with(r, m{"e": b64.EncodeToString([]byte{1, 0, 0, 0, 0, 0, 1, 0, 1})})), ""},
		{"RSA with an exponent of 2^31+1", encode(with(r, m{"e": b64.EncodeToString([]byte{0x80, 0, 0, 1})})), ""},
		{"RSA without e", encode(with(r, m{"e": nil})), ""},
		{"RSA without n", encode(with(r, m{"n": nil})), ""},
		{"RSA with n a number", encode(with(r, m{"n": 17})), ""},
		{"RSA with n no base64", encode(with(r, m{"n": "!!!"})), ""},
		{"EC off its curve", encode(with(e, m{"y": b64.EncodeToString(make([]byte, 32))})), ""},
		{"EC at 0,0", encode(with(e, m{"x": b64.EncodeToString(make([]byte, 32)), "y": b64.EncodeToString(make([]byte, 32))})), ""},
		{"EC of another curve's point", encode(with(e, m{"crv": "P-384"})), ""},
		{"EC with a huge x", encode(with(e, m{"x": b64.EncodeToString(make([]byte, 1000)[:999]) + "_w"})), ""},
		{"EC without y", encode(with(e, m{"y": nil})), ""},
		{"EC without crv", encode(with(e, m{"crv": nil})), ""},
		{"secp256k1", encode(with(e, m{"crv": "secp256k1"})), ""},
		{"P-224", encode(jwkOf(&p224.PublicKey, "k")), ""},
		{"X25519", encode(with(o, m{"crv": "X25519", "x": b64.EncodeToString(x25519.PublicKey().Bytes())})), ""},
		{"Ed448", encode(with(o, m{"crv": "Ed448"})), ""},
		{"Ed25519 too short", encode(with(o, m{"x": b64.EncodeToString(edKey()[:31])})), ""},
		{"Ed25519 empty", encode(with(o, m{"x": ""})), ""},
		{"kty unknown", encode(with(o, m{"kty": "AKP"})), ""},
		{"kty missing", encode(with(o, m{"kty": nil})), ""},
		{"kty lower case", encode(with(r, m{"kty": "rsa"})), ""},
		{"empty", `{}`, ""},
		{"null", `null`, ""},
		{"a string", `"key"`, ""},
		{"a list", `[1]`, ""},
		{"a member twice", `{"kty":"OKP","crv":"Ed25519","x":"` + o["x"].(string) + `","x":"` + o["x"].(string) + `"}`, ""},
		{"not UTF-8", `{"kty":"OKP","crv":"Ed25519","x":"` + o["x"].(string) + `","kid":"` + "\xff" + `"}`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, err := parseJWK([]byte(c.jwk), allAlgorithms)
			if (err == nil) != (c.algs != "") {
				t.Fatalf("error %v", err)
			}
			if err == nil && strings.Join(k.algs, " ") != c.algs {
				t.Fatalf("fits %v", k.algs)
			}

			// As one of a set it must not spoil the other one.
			good := encode(jwkOf(ec384().Public(), "good"))
			for _, set := range []string{`{"keys":[` + c.jwk + `,` + good + `]}`, `{"keys":[` + good + `,` + c.jwk + `]}`} {
				s, reasons, err := parseJWKS([]byte(set), allAlgorithms)
				if err != nil || s.byKid["good"] == nil {
					t.Fatalf("%v, %v", s, err)
				}
				if left := len(reasons) == 1; left == (c.algs != "") {
					t.Fatalf("left out: %v", reasons)
				}
			}
		})
	}
}

func TestParseJWKS(t *testing.T) {
	key := encode(jwkOf(edKey(), "k"))
	for _, c := range []struct {
		name, set string
		keys      int // 0: refused
	}{
		{"one", `{"keys":[` + key + `]}`, 1},
		{"other members", `{"a":{"keys":1},"keys":[` + key + `],"b":[[]]}`, 1},
		{"the same twice", `{"keys":[` + key + `,` + key + `]}`, 2},
		{"as many as may be", `{"keys":[` + strings.Repeat(key+",", maxKeys-1) + key + `]}`, maxKeys},
		{"one more", `{"keys":[` + strings.Repeat(key+",", maxKeys) + key + `]}`, 0},
		{"empty", `{"keys":[]}`, 0},
		{"only a bad one", `{"keys":[{"kty":"oct","k":"AAAA"}]}`, 0},
		{"keys twice", `{"keys":[` + key + `],"keys":[` + key + `]}`, 0},
		{"keys null", `{"keys":null}`, 0},
		{"keys an object", `{"keys":{"0":` + key + `}}`, 0},
		{"no keys", `{}`, 0},
		{"Keys", `{"Keys":[` + key + `]}`, 0},
		{"a bare key", key, 0},
		{"a list", `[` + key + `]`, 0},
		{"cut", `{"keys":[` + key, 0},
		{"something after", `{"keys":[` + key + `]}x`, 0},
		{"HTML", `<html>Down for maintenance</html>`, 0},
		{"nothing", ``, 0},
		{"deep", strings.Repeat(`{"keys":[`, 20000), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _, err := parseJWKS([]byte(c.set), allAlgorithms)
			switch {
			case c.keys == 0 && err == nil:
				t.Fatal("accepted")
			case c.keys > 0 && (err != nil || len(s.keys) != c.keys):
				t.Fatalf("%v, %v", s, err)
			}
		})
	}
}

func TestStaticKeys(t *testing.T) {
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	pkix := block("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(&rsaKey().PublicKey)))
	ecPKIX := block("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(&ec256().PublicKey)))
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	cert := block("CERTIFICATE", must(x509.CreateCertificate(rand.Reader, template, template, edKey().Public(), edKey())))
	small := must(rsa.GenerateKey(rand.Reader, 1024))
	for _, c := range []struct {
		name, text string
		keys       int
		err        string
	}{
		{"PKIX", pkix, 1, ""},
		{"PKCS1", block("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&rsaKey().PublicKey)), 1, ""},
		{"certificate", cert, 1, ""},
		{"three, with white space", "\n" + pkix + "\n" + ecPKIX + "  \n" + cert + "\n", 3, ""},
		{"JWK", " " + encode(jwkOf(edKey(), "k")), 1, ""},
		{"JWKS", encode(m{"keys": []m{jwkOf(edKey(), "k"), jwkOf(&ec256().PublicKey, "")}}), 2, ""},

		{"nothing", " \n", 0, "empty"},
		{"neither", "hello", 0, "neither PEM"},
		{"something after", pkix + "hello", 0, "neither PEM"},
		{"private PKCS8", block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(edKey()))), 0, "private key has no business"},
		{"private RSA", pkix + block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey())), 0, "PEM block 2: RSA PRIVATE KEY"},
		{"other PEM", block("CERTIFICATE REQUEST", []byte{1}), 0, "expected PUBLIC KEY"},
		{"broken DER", block("PUBLIC KEY", []byte{1, 2, 3}), 0, "PEM block 1"},
		{"RSA of 1024 bits", block("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(&small.PublicKey))), 0, "1024 bits"},
		{"private JWK", encode(with(jwkOf(edKey(), "k"), m{"d": b64.EncodeToString(edKey().Seed())})), 0, "private key"},
		{"symmetric JWK", `{"kty":"oct","k":"AAAA"}`, 0, "symmetric"},
		{"JWKS with a bad one", encode(m{"keys": []m{jwkOf(edKey(), "k"), {"kty": "x"}}}), 0, "JWK 2 of 2"},
		{"JWKS without any", `{"keys":[]}`, 0, "without keys"},
		{"JWKS with keys twice", `{"keys":[],"keys":[]}`, 0, "two members"},
		{"to encrypt", encode(with(jwkOf(edKey(), "k"), m{"use": "enc"})), 0, `use "enc"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			i, err := New(Options{Algorithms: allAlgorithms, StaticKeys: [][]byte{[]byte(pkix), []byte(c.text)}})
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || !strings.HasPrefix(err.Error(), "key 2: ") {
					t.Fatalf("got %v, want one about %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			h := i.Health()
			if !h.Ready || h.Keys != c.keys+1 || h.Err != nil || !h.Fetched.IsZero() {
				t.Fatalf("%+v", h)
			}
		})
	}
	// A key that none of the algorithms can use is a mistake worth telling.
	_, err := New(Options{Algorithms: []string{"ES256"}, StaticKeys: [][]byte{[]byte(pkix)}})
	if !errors.Is(err, errOtherUse) {
		t.Fatal(err)
	}
}

func TestOptions(t *testing.T) {
	key := [][]byte{[]byte(encode(jwkOf(edKey(), "k")))}
	for _, c := range []struct {
		name string
		o    Options
		err  string // "" if they are good
	}{
		{"published keys", Options{Issuer: iss, Algorithms: []string{"RS256"}}, ""},
		{"http on loopback", Options{Issuer: "http://127.0.0.1:1/x", Algorithms: []string{"RS256"}}, ""},
		{"http on localhost", Options{Issuer: "http://localhost:1", Algorithms: []string{"RS256"}}, ""},
		{"http on ::1", Options{Issuer: "http://[::1]", Algorithms: []string{"RS256"}}, ""},
		{"http, insecure", Options{Issuer: "http://id.example.com", Insecure: true, Algorithms: []string{"RS256"}}, ""},
		{"an address of keys", Options{Issuer: "joe", JWKSURI: iss + "/jwks", Algorithms: []string{"RS256"}}, ""},
		{"a secret", Options{Algorithms: []string{"HS256"}, Secret: secret()[:32]}, ""},
		{"empty lists are none", Options{Issuer: iss, Algorithms: []string{"RS256"}, StaticKeys: [][]byte{}, Secret: []byte{}}, ""},

		{"http", Options{Issuer: "http://id.example.com", Algorithms: []string{"RS256"}}, "is http"},
		{"http on a name like loopback", Options{Issuer: "http://127.0.0.1.example.com", Algorithms: []string{"RS256"}}, "is http"},
		{"no URL", Options{Issuer: "joe", Algorithms: []string{"RS256"}}, "not an https URL"},
		{"a password", Options{Issuer: "https://a:b@id.example.com", Algorithms: []string{"RS256"}}, "password"},
		{"keys over http", Options{Issuer: iss, JWKSURI: "http://id.example.com/jwks", Algorithms: []string{"RS256"}}, "is http"},
		{"nothing to discover", Options{Algorithms: []string{"RS256"}}, "nothing to discover"},
		{"no algorithm", Options{Issuer: iss}, "at least one algorithm"},
		{"none", Options{Issuer: iss, Algorithms: []string{"none"}}, `"none" is no algorithm`},
		{"ES256K", Options{Issuer: iss, Algorithms: []string{"ES256K"}}, `"ES256K" is no algorithm`},
		{"HS256 without a secret", Options{Issuer: iss, Algorithms: []string{"RS256", "HS256"}}, "HS256 needs a secret"},
		{"RS256 with a secret", Options{Issuer: iss, Algorithms: []string{"HS256", "RS256"}, Secret: secret()}, "RS256 cannot be verified with a secret"},
		{"a short secret", Options{Algorithms: []string{"HS256", "HS512"}, Secret: secret()[:63]}, "63 bytes, and HS512 needs at least 64"},
		{"a secret and keys", Options{Algorithms: []string{"HS256"}, Secret: secret(), StaticKeys: key}, "no other keys"},
		{"a secret and an address", Options{Algorithms: []string{"HS256"}, Secret: secret(), JWKSURI: iss}, "no other keys"},
		{"keys and an address", Options{Algorithms: []string{"EdDSA"}, StaticKeys: key, JWKSURI: iss}, "either static keys or"},
	} {
		t.Run(c.name, func(t *testing.T) {
			i, err := New(c.o)
			switch {
			case c.err == "" && err != nil:
				t.Fatal(err)
			case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
				t.Fatalf("got %v, want one about %q", err, c.err)
			}
			if i != nil {
				i.Close()
			}
		})
	}
}

// TestPublishedSecret: HS256 by an oct key that the provider publishes, which
// anyone may read.
func TestPublishedSecret(t *testing.T) {
	p := newProvider(t, m{"kty": "oct", "kid": "s", "alg": "HS256", "k": b64.EncodeToString(secret())}, jwkOf(edKey(), "ed"))
	i := start(t, p.options())
	expect(t, i, p.edToken(edKey(), "ed"), "")
	expect(t, i, sign("HS256", secret(), `{"alg":"HS256","kid":"s"}`, encode(claims(p.url))), token.InvalidToken)
	p.fetched(t, 1, 1)
}
