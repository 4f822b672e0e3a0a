package issuer

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"

	"gatehouse/gateway/token"
)

// static makes an issuer with the public keys of all kinds, by kid.
func static(t testing.TB, change func(*Options)) *Issuer {
	t.Helper()
	set := encode(m{"keys": []m{
		jwkOf(&rsaKey().PublicKey, "rsa"), jwkOf(&ec256().PublicKey, "p256"), jwkOf(&ec384().PublicKey, "p384"),
		jwkOf(&ec521().PublicKey, "p521"), jwkOf(edKey(), "ed"),
	}})
	o := Options{
		Name: "main", Issuer: iss, Audiences: []string{audience}, Algorithms: allAlgorithms, Leeway: 30 * time.Second,
		PrivilegesFrom: []PrivilegeSource{{Path: token.MustPath("privileges")}},
		StaticKeys:     [][]byte{[]byte(set)},
	}
	if change != nil {
		change(&o)
	}
	return start(t, o)
}

const iss = "https://id.example.com"

func keyFor(alg string) (private any, kid string) {
	switch alg {
	case "ES256":
		return ec256(), "p256"
	case "ES384":
		return ec384(), "p384"
	case "ES512":
		return ec521(), "p521"
	case "EdDSA":
		return edKey(), "ed"
	}
	return rsaKey(), "rsa"
}

func TestEveryAlgorithm(t *testing.T) {
	i := static(t, nil)
	for _, alg := range allAlgorithms {
		private, kid := keyFor(alg)
		for _, header := range []m{{"alg": alg, "kid": kid}, {"alg": alg}} {
			good := sign(alg, private, encode(header), encode(claims(iss)))
			expect(t, i, good, "")

			// One bit of the signature, and the payload under a good signature.
			parts := strings.Split(good, ".")
			sig := must(b64.DecodeString(parts[2]))
			sig[len(sig)/2] ^= 1
			expect(t, i, parts[0]+"."+parts[1]+"."+b64.EncodeToString(sig), token.InvalidToken)
			other := b64.EncodeToString([]byte(encode(with(claims(iss), m{"sub": "root"}))))
			expect(t, i, parts[0]+"."+other+"."+parts[2], token.InvalidToken)
		}
	}
	// Each alg with a key of another: the signature is good, the key does not fit.
	for _, alg := range allAlgorithms {
		private, _ := keyFor(alg)
		for _, wrong := range []string{"RS256", "ES256", "ES384", "ES512", "EdDSA"} {
			_, kid := keyFor(wrong)
			if _, own := keyFor(alg); own == kid {
				continue
			}
			expect(t, i, sign(alg, private, encode(m{"alg": alg, "kid": kid}), encode(claims(iss))), token.InvalidToken)
		}
	}
}

func TestAlgorithmsAreTheIssuers(t *testing.T) {
	es := static(t, func(o *Options) {
		o.Algorithms = []string{"ES256"}
		o.StaticKeys = [][]byte{[]byte(encode(jwkOf(&ec256().PublicKey, "p256")))}
	})
	expect(t, es, sign("ES256", ec256(), `{"alg":"ES256"}`, encode(claims(iss))), "")
	expect(t, es, sign("RS256", rsaKey(), `{"alg":"RS256"}`, encode(claims(iss))), token.InvalidToken)
	expect(t, es, sign("ES256", ec256(), `{"alg":"ES384"}`, encode(claims(iss))), token.InvalidToken)

	// The key's own alg binds it, too.
	ps := static(t, func(o *Options) {
		o.StaticKeys = [][]byte{[]byte(encode(with(jwkOf(&rsaKey().PublicKey, ""), m{"alg": "PS256"})))}
	})
	expect(t, ps, sign("PS256", rsaKey(), `{"alg":"PS256"}`, encode(claims(iss))), "")
	expect(t, ps, sign("RS256", rsaKey(), `{"alg":"RS256"}`, encode(claims(iss))), token.InvalidToken)
}

func TestVerified(t *testing.T) {
	i := static(t, nil)
	c := with(claims(iss), m{"exp": 4102444800.5, "iat": 1700000000})
	text := sign("RS256", rsaKey(), `{"alg":"RS256","kid":"rsa"}`, encode(c))
	v, err := Set{i}.Verify(t.Context(), token.NewRaw(text))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(text[:strings.LastIndex(text, ".")]))
	if v.Issuer != "main" || v.Key != "rsa" || v.Hash != base64.RawURLEncoding.EncodeToString(sum[:]) ||
		v.Expires != 4102444800.5 || v.IssuedAt != 1700000000 || !v.HasIssuedAt || v.Claims.Get("sub").Text() != "admin2" ||
		!slices.Equal(v.Privileges, []string{"CREATE_HERO", "ASSIGN_HERO"}) || v.PrivilegesMissing {
		t.Fatalf("%+v", v)
	}

	// RFC 7638 §3.1: a key without a name is called by its thumbprint.
	unnamed := static(t, func(o *Options) { o.StaticKeys = [][]byte{[]byte(encode(jwkOf(edKey(), "")))} })
	v, err = Set{unnamed}.Verify(t.Context(), token.NewRaw(sign("EdDSA", edKey(), `{"alg":"EdDSA","kid":"whatever"}`, encode(with(claims(iss), m{"iat": nil})))))
	if err != nil {
		t.Fatal(err)
	}
	sum = sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + jwkOf(edKey(), "")["x"].(string) + `"}`))
	if want := b64.EncodeToString(sum[:]); v.Key != want || v.HasIssuedAt {
		t.Fatalf("key %s, want %s; has iat: %v", v.Key, want, v.HasIssuedAt)
	}
}

func TestThumbprintOfRFC7638(t *testing.T) {
	k, err := parseJWK([]byte(`{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}`), allAlgorithms)
	if err != nil {
		t.Fatal(err)
	}
	if k.thumbprint != "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs" || k.name() != "2011-04-29" {
		t.Fatalf("%s, %s", k.thumbprint, k.name())
	}
}

// TestForged holds tokens that some library once accepted, each beside the
// good token that it is made of.
func TestForged(t *testing.T) {
	i := static(t, nil)
	rs := func(header, payload string) string { return sign("RS256", rsaKey(), header, payload) }
	const h = `{"alg":"RS256","kid":"rsa","typ":"JWT"}`
	p := encode(claims(iss))
	good := rs(h, p)
	expect(t, i, good, "")
	parts := strings.Split(good, ".")
	header, payload, signature := parts[0], parts[1], parts[2]
	flat := func(h string) string { return b64.EncodeToString([]byte(h)) + "." + payload }

	type forged struct{ name, text string }
	var table []forged
	add := func(name, text string) { table = append(table, forged{name, text}) }

	for _, none := range []string{"none", "None", "NONE", "nOnE", "noNe", ""} {
		add("alg "+none+", no signature", flat(`{"alg":"`+none+`","kid":"rsa"}`)+".")
		add("alg "+none+", the old signature", flat(`{"alg":"`+none+`","kid":"rsa"}`)+"."+signature)
	}
	add("no alg", rs(`{"kid":"rsa"}`, p))
	add("alg null", rs(`{"alg":null,"kid":"rsa"}`, p))
	add("alg number", rs(`{"alg":256,"kid":"rsa"}`, p))
	add("alg list", rs(`{"alg":["RS256"],"kid":"rsa"}`, p))
	add("alg lower case", rs(`{"alg":"rs256","kid":"rsa"}`, p))
	add("alg with space", rs(`{"alg":"RS256 ","kid":"rsa"}`, p))
	add("Alg", rs(`{"Alg":"RS256","kid":"rsa"}`, p))

	// RFC 8725 §2.1: the public key as a secret.
	pkix := must(x509.MarshalPKIXPublicKey(&rsaKey().PublicKey))
	pkcs1 := x509.MarshalPKCS1PublicKey(&rsaKey().PublicKey)
	pemPKIX := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pkix})
	for name, public := range map[string][]byte{
		"PKIX DER": pkix, "PKCS1 DER": pkcs1, "PKIX PEM": pemPKIX,
		"PKIX PEM without its last line break": pemPKIX[:len(pemPKIX)-1],
		"PKIX PEM after white space":           append([]byte("\n "), pemPKIX...),
		"PKIX PEM, CRLF":                       []byte(strings.ReplaceAll(string(pemPKIX), "\n", "\r\n")),
		"PKCS1 PEM":                            pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: pkcs1}),
		"JWK":                                  []byte(encode(jwkOf(&rsaKey().PublicKey, "rsa"))),
		"modulus":                              rsaKey().N.Bytes(),
		"empty":                                {},
	} {
		for _, alg := range []string{"HS256", "HS384", "HS512"} {
			add(alg+" with the RSA key as "+name, sign(alg, public, `{"alg":"`+alg+`","kid":"rsa"}`, p))
		}
	}

	// RFC 8725 §3.10 and CVE-2018-0114: a token that brings its own key.
	own := encode(with(jwkOf(&rsaOther().PublicKey, "rsa"), nil))
	add("embedded jwk", sign("RS256", rsaOther(), `{"alg":"RS256","kid":"rsa","jwk":`+own+`}`, p))
	add("embedded jwk without kid", sign("RS256", rsaOther(), `{"alg":"RS256","jwk":`+own+`}`, p))
	add("jku", sign("RS256", rsaOther(), `{"alg":"RS256","kid":"rsa","jku":"https://evil.example/jwks"}`, p))
	add("x5u", sign("RS256", rsaOther(), `{"alg":"RS256","kid":"rsa","x5u":"https://evil.example/cert"}`, p))
	add("x5c", sign("RS256", rsaOther(), `{"alg":"RS256","kid":"rsa","x5c":["AAAA"]}`, p))
	add("another's key", sign("RS256", rsaOther(), h, p))

	// CVE-2022-21449 and its like.
	for _, alg := range []string{"ES256", "ES384", "ES512"} {
		private, kid := keyFor(alg)
		k := private.(*ecdsa.PrivateKey)
		size := (k.Curve.Params().BitSize + 7) / 8
		input := b64.EncodeToString([]byte(`{"alg":"`+alg+`","kid":"`+kid+`"}`)) + "." + payload
		raw := mac(alg, k, input)
		expect(t, i, input+"."+b64.EncodeToString(raw), "")
		n := k.Curve.Params().N.FillBytes(make([]byte, size))
		zero := make([]byte, size)
		for name, sig := range map[string][]byte{
			"r=s=0": append(slices.Clone(zero), zero...), "r=s=n": append(slices.Clone(n), n...),
			"r=0": append(slices.Clone(zero), raw[size:]...), "s=0": append(slices.Clone(raw[:size]), zero...),
			"DER":                der(raw, size),
			"empty":              nil,
			"one byte short":     raw[:len(raw)-1],
			"one byte long":      append(slices.Clone(raw), 0),
			"twice":              append(slices.Clone(raw), raw...),
			"half":               raw[:size],
			"leading zero bytes": slices.Concat([]byte{0}, raw[:size], []byte{0}, raw[size:]),
		} {
			add(alg+" "+name, input+"."+b64.EncodeToString(sig))
		}
	}

	// Spellings of a good token that are not its own.
	add("empty", "")
	add("dots", "..")
	add("one part", header)
	add("two parts", header+"."+payload)
	add("four parts", good+".")
	add("five parts, as a JWE", good+"."+signature+"."+signature)
	add("ten thousand dots", strings.Repeat(".", 10000))
	add("empty header", "."+payload+"."+signature)
	add("empty payload", header+".."+signature)
	add("no signature", header+"."+payload+".")
	add("padding", good+"==")
	add("padded header", header+"="+"."+payload+"."+signature)
	add("truncated by one", good[:len(good)-1])
	add("truncated by two", good[:len(good)-2])
	add("a letter more", good+"A")
	add("line break at the end", good+"\n")
	add("line break inside", good[:len(good)-4]+"\r\n"+good[len(good)-4:])
	add("line break in the header", header[:4]+"\n"+header[4:]+"."+payload+"."+signature)
	add("space in front", " "+good)
	add("NUL at the end", good+"\x00")
	add("standard alphabet", header+"."+payload+"."+base64.RawStdEncoding.EncodeToString(must(b64.DecodeString(signature)))+"+")
	add("loose last bits of the signature", loose(t, good))
	add("JSON serialization", `{"protected":"`+header+`","payload":"`+payload+`","signature":"`+signature+`"}`)
	add("JSON serialization without protected", `{"payload":"`+payload+`","signature":"`+signature+`"}`)

	// Headers.
	add("header is a list", rs(`["RS256"]`, p))
	add("header twice", rs(h+h, p))
	add("header with a comma too many", rs(`{"alg":"RS256",}`, p))
	add("alg twice", rs(`{"alg":"RS256","alg":"RS256","kid":"rsa"}`, p))
	add("alg twice, none last", rs(`{"alg":"RS256","kid":"rsa","alg":"none"}`, p))
	add("alg twice by escapes", rs(`{"alg":"RS256","kid":"rsa","\u0061lg":"RS256"}`, p))
	add("header not UTF-8", rs("{\"alg\":\"RS256\",\"kid\":\"rsa\",\"x\":\"\xff\"}", p))
	add("b64 false", rs(`{"alg":"RS256","kid":"rsa","b64":false}`, p))
	add("b64 true", rs(`{"alg":"RS256","kid":"rsa","b64":true}`, p))
	add("b64 false with crit", rs(`{"alg":"RS256","kid":"rsa","b64":false,"crit":["b64"]}`, p))
	add("crit", rs(`{"alg":"RS256","kid":"rsa","crit":["exp"],"exp":1}`, p))
	add("crit empty", rs(`{"alg":"RS256","kid":"rsa","crit":[]}`, p))
	add("crit null", rs(`{"alg":"RS256","kid":"rsa","crit":null}`, p))
	for _, typ := range []string{`"logout+jwt"`, `"dpop+jwt"`, `"secevent+jwt"`, `"id_token"`, `"JOSE"`, `"jwt "`, `"text/jwt"`, `"application/"`, `1`, `null`, `["JWT"]`} {
		add("typ "+typ, rs(`{"alg":"RS256","kid":"rsa","typ":`+typ+`}`, p))
	}
	add("kid number", rs(`{"alg":"RS256","kid":1}`, p))
	add("kid list", rs(`{"alg":"RS256","kid":["rsa"]}`, p))
	add("kid null", rs(`{"alg":"RS256","kid":null}`, p))
	add("kid of another key", rs(`{"alg":"RS256","kid":"p256"}`, p))
	add("kid unknown", rs(`{"alg":"RS256","kid":"../../dev/null"}`, p))
	add("kid long", rs(`{"alg":"RS256","kid":"`+strings.Repeat("k", maxKid+1)+`"}`, p))
	add("header of 5 KiB", rs(`{"alg":"RS256","kid":"rsa","x":"`+strings.Repeat("x", 5<<10)+`"}`, p))

	// Claims.
	claim := func(name, value string) string {
		c := with(claims(iss), m{name: nil})
		return rs(h, strings.TrimSuffix(encode(c), "}")+`,"`+name+`":`+value+`}`)
	}
	expect(t, i, claim("x", "1"), "")
	now := time.Now().Unix()
	for _, v := range []string{`"4102444800"`, `-1`, `-4102444800`, `1e400`, `-1e400`, `18446744073709551616`, `253402300800`, `1e12`, `null`, `true`, `[4102444800]`, `{}`, `""`} {
		add("exp "+v, claim("exp", v))
		add("nbf "+v, claim("nbf", v))
		add("iat "+v, claim("iat", v))
	}
	add("exp missing", rs(h, encode(with(claims(iss), m{"exp": nil}))))
	add("Exp", rs(h, encode(with(claims(iss), m{"exp": nil, "Exp": now + 300}))))
	add("nbf in the future", claim("nbf", fmt.Sprint(now+120)))
	add("iat in the future", claim("iat", fmt.Sprint(now+120)))
	for _, v := range []string{`"https://id.example.com/"`, `"https://ID.example.com"`, `"https://evil.example"`, `""`, `null`, `["https://id.example.com"]`, `"https://id.example.com\u0000"`, `1`} {
		add("iss "+v, claim("iss", v))
	}
	add("iss missing", rs(h, encode(with(claims(iss), m{"iss": nil}))))
	add("iſſ", rs(h, encode(with(claims(iss), m{"iss": nil, "iſſ": iss}))))
	for _, v := range []string{`"https://other.example.com"`, `[]`, `["https://other.example.com"]`, `null`, `1`, `{"0":"https://api.example.com"}`, `[["https://api.example.com"]]`,
		`["https://api.example.com",1]`, `"https://api.example.com/"`, `"x https://api.example.com"`, `""`, `true`} {
		add("aud "+v, claim("aud", v))
	}
	add("aud missing", rs(h, encode(with(claims(iss), m{"aud": nil}))))
	for _, name := range append([]string{"cnf"}, identityClaims...) {
		add(name, claim(name, `{"x":1}`))
		add(name+" null", claim(name, `null`))
	}
	add("exp twice", rs(h, strings.TrimSuffix(p, "}")+fmt.Sprintf(`,"exp":%d}`, now+300)))
	add("sub twice deep inside", rs(h, strings.TrimSuffix(p, "}")+`,"act":{"sub":"a","sub":"b"}}`))
	add("payload a list", rs(h, `[`+p+`]`))
	add("payload a string", rs(h, `"x"`))
	add("payload with something after", rs(h, p+`x`))
	add("payload twice", rs(h, p+p))
	add("payload not UTF-8", rs(h, strings.Replace(p, "admin2", "admin\xff", 1)))
	add("payload with a lone surrogate", rs(h, strings.Replace(p, "admin2", `admin\ud800`, 1)))
	add("payload with a byte order mark", rs(h, "\ufeff"+p))
	add("payload nests 10,000 deep", rs(h, strings.TrimSuffix(p, "}")+`,"x":`+strings.Repeat("[", 5000)+strings.Repeat("]", 5000)+`}`))
	add("payload nests 33 deep", rs(h, strings.TrimSuffix(p, "}")+`,"x":`+strings.Repeat("[", 33)+strings.Repeat("]", 33)+`}`))
	add("64 KiB", rs(h, strings.TrimSuffix(p, "}")+`,"x":"`+strings.Repeat("x", 48<<10)+`"}`))
	add("1 MiB", strings.Repeat("a", 1<<20))

	for _, f := range table {
		t.Run(f.name, func(t *testing.T) { expect(t, i, f.text, token.InvalidToken) })
	}
	expect(t, i, good, "") // and nothing of it left a trace
}

// der is how X9.62 and most libraries outside JOSE write an ECDSA signature.
func der(raw []byte, size int) []byte {
	return must(asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:size]), new(big.Int).SetBytes(raw[size:])}))
}

// loose returns the token with unused last bits of its signature set; a lax
// decoder takes it for the same token.
func loose(t *testing.T, good string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, good[len(good)-1])
	out := good[:len(good)-1] + string(alphabet[last|1])
	cut := strings.LastIndexByte(good, '.') + 1
	if out == good || string(must(b64.DecodeString(out[cut:]))) != string(must(b64.DecodeString(good[cut:]))) {
		t.Fatal("this is no loose spelling")
	}
	return out
}

// TestAccepted are the neighbours of the forged ones that must pass.
func TestAccepted(t *testing.T) {
	i := static(t, nil)
	c := claims(iss)
	now := time.Now().Unix()
	for _, typ := range []string{"JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "Application/JWT", ""} {
		expect(t, i, sign("RS256", rsaKey(), encode(m{"alg": "RS256", "typ": typ}), encode(c)), "")
	}
	for name, change := range map[string]m{
		"aud list":              {"aud": []string{"https://x.example.com", audience}},
		"exp float":             {"exp": float64(now) + 300.25},
		"exp within leeway":     {"exp": now - 25},
		"nbf within leeway":     {"nbf": now + 25},
		"iat within leeway":     {"iat": now + 25},
		"exp at the latest":     {"exp": latest},
		"nbf 0":                 {"nbf": 0},
		"no iat":                {"iat": nil},
		"unknown claims":        {"amr": []string{"pwd"}, "x": m{"y": []any{nil, true, 1.5}}},
		"Nonce is another name": {"Nonce": "x"},
	} {
		t.Run(name, func(t *testing.T) {
			expect(t, i, sign("RS256", rsaKey(), `{"alg":"RS256"}`, encode(with(c, change))), "")
		})
	}
	own := encode(jwkOf(&rsaOther().PublicKey, ""))
	expect(t, i, sign("RS256", rsaKey(), `{"alg":"RS256","jwk":`+own+`,"jku":"https://x","x5u":1,"x5c":[],"cty":"x"}`, encode(c)), "")
	expect(t, i, sign("RS256", rsaKey(), `{"alg":"RS256","kid":""}`, encode(c)), "")

	free := static(t, func(o *Options) { o.Audiences, o.IgnoreCnf = nil, true })
	expect(t, free, sign("RS256", rsaKey(), `{"alg":"RS256"}`, encode(with(c, m{"aud": nil, "cnf": m{"jkt": "x"}}))), "")
	expect(t, free, sign("RS256", rsaKey(), `{"alg":"RS256"}`, encode(with(c, m{"aud": 1}))), token.InvalidToken)
	nobody := static(t, func(o *Options) { o.Audiences = []string{} })
	expect(t, nobody, sign("RS256", rsaKey(), `{"alg":"RS256"}`, encode(c)), token.InvalidToken)
}

func TestTime(t *testing.T) {
	at := newClock()
	i := static(t, func(o *Options) { o.Now = at.now })
	exp := at.now().Unix() + 100
	text := sign("EdDSA", edKey(), `{"alg":"EdDSA"}`, encode(with(claims(iss), m{"exp": exp, "nbf": exp - 50, "iat": nil})))
	for _, c := range []struct {
		unix int64
		want token.Reason
	}{{exp - 81, token.InvalidToken}, {exp - 80, ""}, {exp, ""}, {exp + 29, ""}, {exp + 30, token.ExpiredToken}, {exp + 1<<33, token.ExpiredToken}} {
		at.mu.Lock()
		at.at = time.Unix(c.unix, 0)
		at.mu.Unlock()
		expect(t, i, text, c.want)
	}
	// A forged token is never called expired: that would say that it was good once.
	forged := sign("EdDSA", newEd(), `{"alg":"EdDSA"}`, encode(with(claims(iss), m{"exp": 1})))
	expect(t, i, forged, token.InvalidToken)
}

func TestSecret(t *testing.T) {
	i := static(t, func(o *Options) {
		o.Algorithms, o.Secret, o.StaticKeys = []string{"HS256", "HS512"}, secret(), nil
	})
	for _, kid := range []string{``, `,"kid":"x"`} {
		expect(t, i, sign("HS256", secret(), `{"alg":"HS256"`+kid+`}`, encode(claims(iss))), "")
	}
	expect(t, i, sign("HS512", secret(), `{"alg":"HS512"}`, encode(claims(iss))), "")
	expect(t, i, sign("HS384", secret(), `{"alg":"HS384"}`, encode(claims(iss))), token.InvalidToken)
	expect(t, i, sign("HS256", secret()[:63], `{"alg":"HS256"}`, encode(claims(iss))), token.InvalidToken)
	expect(t, i, sign("RS256", rsaKey(), `{"alg":"RS256"}`, encode(claims(iss))), token.InvalidToken)
	v := must(Set{i}.Verify(t.Context(), token.NewRaw(sign("HS256", secret(), `{"alg":"HS256"}`, encode(claims(iss))))))
	if v.Key != "secret" {
		t.Fatalf("a secret is called %q", v.Key)
	}
}

func TestIssuersOfARoute(t *testing.T) {
	other := newEd()
	a := static(t, nil)
	b := static(t, func(o *Options) {
		o.Name, o.Issuer, o.StaticKeys = "b", "https://b.example.com", [][]byte{[]byte(encode(jwkOf(other, "ed")))}
	})
	none := static(t, func(o *Options) { o.Name, o.Issuer = "seed", "" })
	set := Set{a, b, none}
	try := func(k any, c m) string {
		v, err := set.Verify(t.Context(), token.NewRaw(sign("EdDSA", k, `{"alg":"EdDSA","kid":"ed"}`, encode(c))))
		if err != nil {
			return string(err.(*token.Error).Reason)
		}
		return v.Issuer
	}
	for _, c := range []struct {
		name string
		key  any
		iss  any
		want string
	}{
		{"a", edKey(), iss, "main"},
		{"b", other, "https://b.example.com", "b"},
		{"no iss", edKey(), nil, "seed"},
		{"a's key signs for b", edKey(), "https://b.example.com", "invalid_token"},
		{"b's key signs for a", other, iss, "invalid_token"},
		{"b's key signs for none", other, nil, "invalid_token"},
		{"unknown", edKey(), "https://c.example.com", "invalid_token"},
		{"empty string is not absent", edKey(), "", "invalid_token"},
	} {
		if got := try(c.key, with(claims(""), m{"iss": c.iss})); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
	if _, err := (Set{}).Verify(t.Context(), token.NewRaw("a.b.c")); err == nil {
		t.Error("an empty set accepted something")
	}
}

func TestPrivileges(t *testing.T) {
	i := static(t, func(o *Options) {
		o.PrivilegesFrom = []PrivilegeSource{
			{Path: token.MustPath("realm_access.roles")},
			{Path: token.MustPath("scope"), Prefix: "scope:"},
		}
	})
	for _, c := range []struct {
		claims              m
		want                []string
		missing, unreadable bool
	}{
		{m{"realm_access": m{"roles": []any{"A", "B C", 1, nil, []string{"D"}, m{"E": 1}, ""}}}, []string{"A", "B C"}, false, true},
		{m{"realm_access": m{"roles": []string{"A", ""}}, "scope": nil}, []string{"A"}, false, false},
		{m{"scope": "read  write "}, []string{"scope:read", "scope:write"}, false, false},
		{m{"realm_access": m{"roles": "A B"}, "scope": []string{"x,admin"}}, []string{"A", "B", "scope:x,admin"}, false, false},
		{m{"scope": "a\tb\u00a0c"}, []string{"scope:a\tb\u00a0c"}, false, false},
		{m{"scope": ""}, nil, false, false},
		{m{"scope": []int{}}, nil, false, false},
		{m{"scope": []any{nil}}, nil, false, true},
		{m{"scope": "a", "realm_access": nil}, []string{"scope:a"}, false, false},
		{m{"scope": "a", "realm_access": m{"roles": m{"A": true}}}, []string{"scope:a"}, false, true},
		{m{"scope": "a", "realm_access": "A"}, []string{"scope:a"}, false, true},
		{m{"scope": "a", "realm_access": []any{m{"roles": "A"}}}, []string{"scope:a"}, false, true},
		{m{"scope": 1, "realm_access": m{"roles": m{"A": true}}}, nil, true, true},
		{m{"scope": true, "realm_access": "A"}, nil, true, true},
		{m{"privileges": "A"}, nil, true, false},
	} {
		v, err := Set{i}.Verify(t.Context(), token.NewRaw(sign("EdDSA", edKey(), `{"alg":"EdDSA"}`, encode(with(claims(iss), c.claims)))))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(v.Privileges, c.want) || v.PrivilegesMissing != c.missing || v.PrivilegesUnreadable != c.unreadable {
			t.Errorf("%v: %q, missing %v, unreadable %v", c.claims, v.Privileges, v.PrivilegesMissing, v.PrivilegesUnreadable)
		}
	}
}

// TestDetail: the operator reads which check failed, with what was found and
// what was expected.
func TestDetail(t *testing.T) {
	i := static(t, nil)
	evil := strings.Repeat("evil\n\x1b[31m", 300)
	for _, c := range []struct {
		header  string
		claims  m
		mention []string
	}{
		{`{"alg":"HS256"}`, nil, []string{`alg "HS256"`, "RS256, RS384"}},
		{`{"alg":"RS256"}`, m{"iss": "https://evil.example"}, []string{`"https://evil.example"`, `"` + iss + `"`}},
		{`{"alg":"RS256","kid":"rsa"}`, m{"aud": "other"}, []string{`aud is "other"`, audience, `"rsa"`}},
		{`{"alg":"RS256","kid":"rsa"}`, m{"aud": nil}, []string{`aud is "missing"`}},
		{`{"alg":"RS256"}`, m{"exp": 1600000000}, []string{"1600000000", "2020-09-13T12:26:40Z", "leeway 30s"}},
		{`{"alg":"RS256"}`, m{"nbf": 4000000000}, []string{"4000000000", "2096-10-02T07:06:40Z"}},
		{`{"alg":"RS256","kid":"lost"}`, nil, []string{`kid "lost"`, `"p256"`}},
		{`{"alg":"RS256","kid":"` + strings.Repeat("k", maxKid+1) + `"}`, nil, []string{"kid has 513 bytes"}},
		{`{"alg":"RS256","kid":"ed"}`, nil, []string{"for [EdDSA]"}},
		{`{"alg":"RS256"}`, m{"iss": evil}, []string{`evil\n\x1b`}},
		{`{"alg":"RS256"}`, m{"exp": evil}, []string{`evil\n\x1b`}},
		{`{"alg":"RS256"}`, m{"aud": []string{evil, evil}}, []string{`evil\`}},
		{`{"alg":"RS256","typ":"` + strings.Repeat("x", 3000) + `"}`, nil, []string{`typ "xxx`}},
	} {
		_, detail := verify(t, i, sign("RS256", rsaKey(), c.header, encode(with(claims(iss), c.claims))))
		for _, want := range c.mention {
			if !strings.Contains(detail, want) {
				t.Errorf("%q does not mention %q", detail, want)
			}
		}
		if strings.ContainsAny(detail, "\n\x1b") || len(detail) > 700 {
			t.Errorf("unfit for a log: %q", detail)
		}
	}
}

// TestTries: of many fitting keys four are tried, the first ones.
func TestTries(t *testing.T) {
	var keys []m
	var private []any
	for range 6 {
		k := newEd()
		private, keys = append(private, k), append(keys, jwkOf(k, ""))
	}
	i := static(t, func(o *Options) { o.StaticKeys = [][]byte{[]byte(encode(m{"keys": keys}))} })
	for n, k := range private {
		want := token.Reason("")
		if n >= maxTried {
			want = token.InvalidToken
		}
		expect(t, i, sign("EdDSA", k, `{"alg":"EdDSA"}`, encode(claims(iss))), want)
	}
	// A name makes the choice exact, and one that several share still works.
	for n := range keys {
		keys[n]["kid"] = []string{"a", "a", "a", "b", "c", "d"}[n]
	}
	i = static(t, func(o *Options) { o.StaticKeys = [][]byte{[]byte(encode(m{"keys": keys}))} })
	for n, k := range private {
		expect(t, i, sign("EdDSA", k, `{"alg":"EdDSA","kid":"`+keys[n]["kid"].(string)+`"}`, encode(claims(iss))), "")
		expect(t, i, sign("EdDSA", k, `{"alg":"EdDSA","kid":"x"}`, encode(claims(iss))), token.InvalidToken)
	}
}

// The examples of RFC 7515, appendix A, as far as their algorithms are ours:
// A.1 (HS256), A.2 (RS256), A.3 (ES256), A.4 (ES512) and A.5 (none). Their
// payloads are no claims of ours (A.1–A.3 expired in 2011, A.4 is not JSON).
func TestRFC7515(t *testing.T) {
	const claims2011 = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
	at := func() time.Time { return time.Unix(1300819370, 0) }
	for _, c := range []struct {
		name, alg, jwk, text string
	}{
		{"A.2", "RS256", `{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}`,
			"eyJhbGciOiJSUzI1NiJ9." + claims2011 + ".cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"},
		{"A.3", "ES256", `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`,
			"eyJhbGciOiJFUzI1NiJ9." + claims2011 + ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := static(t, func(o *Options) {
				o.Issuer, o.Audiences, o.Now, o.StaticKeys = "joe", nil, at, [][]byte{[]byte(c.jwk)}
			})
			expect(t, i, c.text, "")
			expect(t, i, strings.Replace(c.text, "kzODAs", "kzODEs", 1), token.InvalidToken)
			i.o.Now = time.Now
			expect(t, i, c.text, token.ExpiredToken)
		})
	}
	t.Run("A.1", func(t *testing.T) {
		k := must(b64.DecodeString("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"))
		text := "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." + claims2011 + ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
		i := static(t, func(o *Options) {
			o.Issuer, o.Audiences, o.Now, o.StaticKeys, o.Secret, o.Algorithms = "joe", nil, at, nil, k, []string{"HS256"}
		})
		expect(t, i, text, "")
		i = static(t, func(o *Options) {
			o.Issuer, o.Audiences, o.Now, o.StaticKeys, o.Secret, o.Algorithms = "joe", nil, at, nil, secret(), []string{"HS256"}
		})
		expect(t, i, text, token.InvalidToken)
	})
	t.Run("A.4", func(t *testing.T) { // the payload is the word Payload, so this is about the signature alone
		k := must(parseJWK([]byte(`{"kty":"EC","crv":"P-521","x":"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk","y":"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"}`), allAlgorithms))
		i := static(t, nil)
		c := &compact{alg: "ES512", input: []byte("eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA"), signature: must(b64.DecodeString("AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn"))}
		if got, _ := newKeySet([]*key{k}, nil).verify(c, i.verifiers["ES512"]); got != k {
			t.Fatal("the example does not verify")
		}
		c.input[0] ^= 1
		if got, _ := newKeySet([]*key{k}, nil).verify(c, i.verifiers["ES512"]); got != nil {
			t.Fatal("a changed example verifies")
		}
	})
	t.Run("A.6", func(t *testing.T) { // the JSON serialization is no JWT (RFC 7519 §3)
		i := static(t, func(o *Options) { o.Issuer, o.Audiences, o.Now = "joe", nil, at })
		expect(t, i, `{"payload":"`+claims2011+`","signatures":[{"protected":"eyJhbGciOiJSUzI1NiJ9","header":{"kid":"2010-12-29"},"signature":"cC4h"}]}`, token.InvalidToken)
	})
	t.Run("A.5", func(t *testing.T) {
		i := static(t, func(o *Options) { o.Issuer, o.Audiences, o.Now = "joe", nil, at })
		expect(t, i, "eyJhbGciOiJub25lIn0."+claims2011+".", token.InvalidToken)
	})
}

// The examples of RFC 7520, §4.1 (RS256) and §4.4 (HS256). Their payload is a
// sentence of a novel, so this is about signatures alone; §4.5 to §4.8 use
// detached content and the JSON serialization, which are no JWTs.
func TestRFC7520(t *testing.T) {
	const sentence = "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4"
	for _, c := range []struct {
		name, alg, header, signature string
		key                          *key
	}{
		{"4.1", "RS256", "eyJhbGciOiJSUzI1NiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9",
			"MRjdkly7_-oTPTS3AXP41iQIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZopdHM1O2U4mwzJdQx996ivp83xuglII7PNDi84wnB-BDkoBwA78185hX-Es4JIwmDLJK3lfWRa-XtL0RnltuYv746iYTh_qHRD68BNt1uSNCrUCTJDt5aAE6x8wW1Kt9eRo4QPocSadnHXFxnt8Is9UzpERV0ePPQdLuW3IS_de3xyIrDaLGdjluPxUAhb6L2aXic1U12podGU0KLUQSE_oI-ZnmKJ3F4uOZDnd6QZWJushZ41Axf_fcIe8u9ipH84ogoree7vjbU5y18kDquDg",
			must(parseJWK([]byte(`{"kty":"RSA","kid":"bilbo.baggins@hobbiton.example","use":"sig","n":"n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw","e":"AQAB"}`), allAlgorithms))},
		{"4.4", "HS256", "eyJhbGciOiJIUzI1NiIsImtpZCI6IjAxOGMwYWU1LTRkOWItNDcxYi1iZmQ2LWVlZjMxNGJjNzAzNyJ9", "s0h6KThzkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0",
			&key{kid: "018c0ae5-4d9b-471b-bfd6-eef314bc7037", thumbprint: "secret", algs: []string{"HS256"}, public: must(b64.DecodeString("hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg"))}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := must(jws.NewVerifier(jwa.SignatureAlgorithm(c.alg)))
			example := &compact{alg: c.alg, kid: c.key.kid, input: []byte(c.header + "." + sentence), signature: must(b64.DecodeString(c.signature))}
			set := newKeySet([]*key{c.key}, nil)
			if got, _ := set.verify(example, v); got != c.key {
				t.Fatal("the example does not verify")
			}
			example.input[0] ^= 1
			if got, _ := set.verify(example, v); got != nil {
				t.Fatal("a changed example verifies")
			}
		})
	}
}

// TestTrusts: what a verification that was kept must ask before it counts again.
func TestTrusts(t *testing.T) {
	i := static(t, nil)
	now := time.Now()
	print := i.keys.Load().keys[0].thumbprint
	if err := i.trusts(print, now); err != nil {
		t.Fatal(err)
	}
	if err := i.trusts("x", now); err == nil || err.Reason != token.InvalidToken {
		t.Fatal(err)
	}
}
