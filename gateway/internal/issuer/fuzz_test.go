package issuer

import (
	"errors"
	"strings"
	"testing"

	"gatehouse/gateway/token"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
)

// FuzzParseJWS: whatever is accepted has one spelling, and jwx reads the same
// message from it.
func FuzzParseJWS(f *testing.F) {
	good := sign("EdDSA", edKey(), `{"alg":"EdDSA","kid":"ed","typ":"JWT"}`, encode(claims(iss)))
	for _, seed := range []string{good, good + "=", good + "\n", "..", "a.b.c", "", good + ".x", `{"payload":""}`, "eyJhbGciOiJub25lIn0.e30.", "e30.e30.AA"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parse(text)
		if err != nil {
			if err.Reason != token.InvalidToken || len(err.Detail) > 1000 {
				t.Fatal(err)
			}
			return
		}
		parts := strings.Split(text, ".")
		if len(parts) != 3 || string(c.input) != parts[0]+"."+parts[1] || b64.EncodeToString(c.signature) != parts[2] {
			t.Fatal("another spelling of the token is accepted")
		}
		msg, jwxErr := jws.Parse([]byte(text), jws.WithCompact())
		if jwxErr != nil { // it may dislike a jwk or x5c that decides nothing here
			return
		}
		h := msg.Signatures()[0].ProtectedHeaders()
		if h.Algorithm().String() != c.alg || h.KeyID() != c.kid || h.Type() != c.typ {
			t.Fatalf("jwx reads alg %q kid %q typ %q, we read %q %q %q", h.Algorithm(), h.KeyID(), h.Type(), c.alg, c.kid, c.typ)
		}
		if payload, err := token.ParseClaims(msg.Payload()); err != nil || payload.Get("iss").Text() != c.claims.Get("iss").Text() {
			t.Fatal("jwx reads another payload")
		}
	})
}

// FuzzVerify: of all tokens only the signed one is accepted.
func FuzzVerify(f *testing.F) {
	i := static(f, nil)
	good := sign("EdDSA", edKey(), `{"alg":"EdDSA","kid":"ed","typ":"JWT"}`, encode(claims(iss)))
	header, rest, _ := strings.Cut(good, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	f.Add(header, payload, signature)
	f.Add(b64.EncodeToString([]byte(`{"alg":"none"}`)), payload, "")
	f.Add(b64.EncodeToString([]byte(`{"alg":"ES256"}`)), payload, strings.Repeat("A", 86))
	f.Fuzz(func(t *testing.T, header, payload, signature string) {
		text := header + "." + payload + "." + signature
		v, err := Set{i}.Verify(t.Context(), token.NewRaw(text))
		if err == nil && text != good {
			t.Fatalf("%q is accepted: %+v", text, v)
		}
		if e := (*token.Error)(nil); err != nil && (!errors.As(err, &e) || v != nil) {
			t.Fatal(err)
		}
	})
}

// FuzzParseJWKS: a set never panics, and every key that it yields is fit for
// use.
func FuzzParseJWKS(f *testing.F) {
	for _, j := range []m{jwkOf(&rsaKey().PublicKey, "r"), jwkOf(&ec256().PublicKey, "e"), jwkOf(&ec521().PublicKey, "e5"), jwkOf(edKey(), "o"), {"kty": "oct", "k": "AA"}, {"kty": "RSA", "n": "AQ", "e": ""}} {
		f.Add([]byte(encode(m{"keys": []m{j, jwkOf(edKey(), "")}})))
	}
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"","y":""},{"kty":"OKP","crv":"X25519","x":"AA"},1,null]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		set, _, err := parseJWKS(text, allAlgorithms)
		if err != nil {
			return
		}
		if len(set.keys) == 0 || len(set.keys) > maxKeys {
			t.Fatalf("%d keys", len(set.keys))
		}
		token := &compact{input: []byte("a.b"), signature: make([]byte, 64)}
		for _, k := range set.keys {
			if len(k.algs) == 0 || len(k.thumbprint) != 43 || !set.has(k.thumbprint) {
				t.Fatalf("%+v", k)
			}
			for _, alg := range k.algs {
				v, err := jws.NewVerifier(jwa.SignatureAlgorithm(alg))
				if err != nil || v.Verify(token.input, token.signature, k.public) == nil {
					t.Fatalf("a signature of zeros is that of %+v (%v)", k, err)
				}
			}
		}
	})
}

// FuzzMaxAge: whatever the header says, the time is none that could stop the
// refresh or make it run wild once it is clamped.
func FuzzMaxAge(f *testing.F) {
	for _, seed := range []string{"", "max-age=300", "no-store", "max-age=\"1\", public", "max-age=-1", "max-age=99999999999999999999", ",,=,max-age"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if age := maxAge(map[string][]string{"Cache-Control": {value}}); age < 0 {
			t.Fatal(age)
		}
	})
}
