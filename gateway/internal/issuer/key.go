package issuer

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"gatehouse/gateway/token"

	"github.com/lestrrat-go/jwx/v2/jwk"
)

// key is one key of an issuer, immutable.
type key struct {
	kid        string // "" if it has none
	thumbprint string // RFC 7638 with SHA-256, base64url
	algs       []string
	public     any // *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey; []byte for a secret
}

// name is how revocation lists and logs call the key.
func (k *key) name() string { return cmp.Or(k.kid, k.thumbprint) }

func (k *key) fits(alg string) bool { return slices.Contains(k.algs, alg) }

// errOtherUse marks keys that are in order but not for verifying this issuer's
// tokens; every provider that also encrypts publishes some.
var errOtherUse = errors.New("not for these tokens")

// parseJWK reads one JWK (RFC 7517 §4) and decides whether it can verify a
// signature of one of the issuer's algorithms.
func parseJWK(text []byte, allowed []string) (*key, error) {
	c, err := token.ParseClaims(text)
	if err != nil {
		return nil, fmt.Errorf("not a JWK: %w", err)
	}
	members := map[string]string{} // those that are the key itself
	for _, name := range []string{"kty", "kid", "use", "alg", "crv", "n", "e", "x", "y"} {
		switch v := c.Get(name); v.Kind() {
		case token.Missing:
		case token.String:
			members[name] = v.Text()
		default:
			return nil, fmt.Errorf("%s is a JSON %s, not a string", name, v.Kind())
		}
	}
	kid, use, alg := members["kid"], members["use"], members["alg"]
	if len(kid) > maxKid {
		return nil, fmt.Errorf("kid has %d bytes; %d are allowed", len(kid), maxKid)
	}
	if use != "" && use != "sig" {
		return nil, fmt.Errorf("%w: use %s", errOtherUse, quote(use))
	}
	if ops := c.Get("key_ops"); ops.Kind() != token.Missing {
		if ops.Kind() != token.Array {
			return nil, fmt.Errorf("key_ops is a JSON %s, not an array", ops.Kind())
		}
		if !meets(ops, []string{"verify"}) {
			return nil, fmt.Errorf("%w: key_ops %s lacks verify", errOtherUse, quote(ops.JSON()))
		}
	}
	if members["kty"] == "oct" {
		return nil, errors.New("a symmetric key: whoever may read it may sign (RFC 8725 §2.1), so it is never used")
	}
	for _, name := range []string{"d", "p", "q", "dp", "dq", "qi", "oth"} {
		if c.Get(name).Kind() != token.Missing {
			return nil, errors.New("a private key: whoever may read it may sign, so it is never used")
		}
	}
	if len(members["e"]) > 8 { // jwx would cut it to 64 bits
		return nil, errors.New("the RSA exponent is too large")
	}

	for _, name := range []string{"kid", "use", "alg"} {
		delete(members, name)
	}
	bare, err := json.Marshal(members)
	if err != nil {
		return nil, err
	}
	parsed, err := jwk.ParseKey(bare)
	if err != nil {
		return nil, errors.New("kty, crv or the key's own members are missing, malformed or unknown")
	}
	var public any
	if err := parsed.Raw(&public); err != nil {
		return nil, errors.New("crv or the key's own members are missing, malformed or unknown")
	}
	return newKey(public, kid, alg, allowed)
}

// kidOf returns the kid of a JWK that may be bad otherwise, or "".
func kidOf(text []byte) string {
	c, err := token.ParseClaims(text)
	if kid := c.Get("kid"); err == nil && kid.Kind() == token.String {
		return kid.Text()
	}
	return ""
}

// newKey makes a key of public if it is strong enough and fits one of the
// allowed algorithms; alg, if not "", is the only one that its owner wants.
func newKey(public any, kid, alg string, allowed []string) (*key, error) {
	var kty, crv string
	switch pub := public.(type) {
	case *rsa.PublicKey:
		kty = "RSA"
		// RFC 7518 §3.3 wants 2048 bits; one far larger would only burn time.
		if bits := pub.N.BitLen(); bits < 2048 || bits > 16384 {
			return nil, fmt.Errorf("an RSA key of %d bits; 2048 to 16384 are allowed (RFC 7518 §3.3)", bits)
		}
		if pub.E < 3 || pub.E%2 == 0 || pub.E > math.MaxInt32 || pub.N.Bit(0) == 0 {
			return nil, errors.New("an RSA key with an impossible exponent or modulus")
		}
	case *ecdsa.PublicKey:
		kty, crv = "EC", pub.Curve.Params().Name
		if _, err := pub.ECDH(); err != nil { // invalid-curve attacks
			return nil, fmt.Errorf("an EC key whose point is not on the curve %s, or a curve that no algorithm uses", crv)
		}
	case ed25519.PublicKey:
		kty, crv = "OKP", "Ed25519"
		if len(pub) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("an Ed25519 key of %d bytes", len(pub))
		}
	default:
		return nil, fmt.Errorf("%w: a key of type %T, of which no algorithm makes use", errOtherUse, public)
	}

	k := &key{kid: kid, public: public}
	for _, a := range allowed {
		if want := algorithms[a]; want.kty == kty && want.crv == crv && (alg == "" || alg == a) {
			k.algs = append(k.algs, a)
		}
	}
	if k.algs == nil {
		what := strings.TrimSpace(kty + " " + crv)
		if alg != "" {
			what += " with alg " + quote(alg)
		}
		return nil, fmt.Errorf("%w: a key of type %s fits none of %s", errOtherUse, what, strings.Join(allowed, ", "))
	}
	canonical, err := jwk.FromRaw(public)
	if err != nil {
		return nil, err
	}
	sum, err := canonical.Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, err
	}
	k.thumbprint = base64.RawURLEncoding.EncodeToString(sum)
	return k, nil
}

// parseStatic reads the keys of one file: PEM (public keys and certificates),
// a JWK or a JWKS. Unlike a published set it must hold nothing else.
func parseStatic(text []byte, allowed []string) ([]*key, error) {
	text = bytes.TrimSpace(text)
	if bytes.HasPrefix(text, []byte("{")) {
		items, err := splitJWKS(text)
		if errors.Is(err, errNoSet) {
			items, err = [][]byte{text}, nil
		}
		if err != nil {
			return nil, err
		}
		var keys []*key
		for n, item := range items {
			k, err := parseJWK(item, allowed)
			if err != nil {
				return nil, fmt.Errorf("JWK %d of %d: %w", n+1, len(items), err)
			}
			keys = append(keys, k)
		}
		if keys == nil {
			return nil, errors.New("a JWKS without keys")
		}
		return keys, nil
	}

	var keys []*key
	for n := 1; len(text) > 0; n++ {
		block, rest := pem.Decode(text)
		if block == nil {
			return nil, errors.New("neither PEM (-----BEGIN PUBLIC KEY-----) nor a JWK ({\"kty\": …})")
		}
		text = bytes.TrimSpace(rest)
		public, err := publicOf(block)
		if err == nil {
			var k *key
			if k, err = newKey(public, "", "", allowed); err == nil {
				keys = append(keys, k)
				continue
			}
		}
		return nil, fmt.Errorf("PEM block %d: %w", n, err)
	}
	if keys == nil {
		return nil, errors.New("empty; a PEM or JWK public key should be here")
	}
	return keys, nil
}

func publicOf(block *pem.Block) (any, error) {
	switch block.Type {
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return cert.PublicKey, nil
	}
	if strings.HasSuffix(block.Type, "PRIVATE KEY") {
		return nil, fmt.Errorf("%s: a private key has no business in a gateway; `openssl pkey -in key.pem -pubout` writes the public one", block.Type)
	}
	return nil, fmt.Errorf("%s: expected PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE", quote(block.Type))
}
