package test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// startOne gives a gateway with one issuer, whose section may be lengthened,
// in front of one backend.
func startOne(t *testing.T, more string) (*gateway, *backend, *idp) {
	t.Helper()
	p := newIDP(t)
	g, b := startFor(t, p, more)
	return g, b, p
}

// startFor is startOne for a provider that was made before.
func startFor(t *testing.T, p *idp, more string) (*gateway, *backend) {
	t.Helper()
	b := newBackend(t)
	return start(t, fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]MORE
routes:
  - name: heroes
    match: /heroes/{id}
    privileges: [READ_HEROES]
    upstream: BACKEND
`, "IDP", p.URL, "BACKEND", b.URL, "MORE", more)), b
}

func TestGoodTokenReachesTheBackend(t *testing.T) {
	t.Parallel()
	p := newIDP(t)
	p.publish(newSigner(t, "RS256", "r"), newSigner(t, "PS256", "p"), newSigner(t, "EdDSA", "e"))
	g, b := startFor(t, p, "")
	for _, s := range p.keys {
		a := g.do(t, "GET /heroes/1", bearer(s.sign(t, p.good(claims{"sub": s.alg}))))
		a.is(t, http.StatusOK)
		b.last(t).has(t, "x-jwt-sub", s.alg)
		b.last(t).lacks(t, "authorization")
	}
	for _, good := range []claims{
		{"aud": []string{"https://other.example", audience}},
		{"exp": time.Now().Add(-10 * time.Second).Unix()}, // within the leeway
		{"nbf": time.Now().Unix()},
		{"iat": nil},
		{"exp": float64(time.Now().Unix()) + 60.5},
	} {
		g.do(t, "GET /heroes/1", bearer(p.token(t, good))).is(t, http.StatusOK)
	}
	g.do(t, "GET /heroes/1", "authorization: bearer "+p.token(t)).is(t, http.StatusOK)
	g.do(t, "GET /heroes/1", bearer(p.sign(t, p.good(), claims{"kid": nil}))).is(t, http.StatusOK)
	g.do(t, "GET /heroes/1", bearer(p.sign(t, p.good(), claims{"typ": "at+jwt"}))).is(t, http.StatusOK)
	g.do(t, "GET /heroes/1", bearer(p.sign(t, p.good(), claims{"typ": nil}))).is(t, http.StatusOK)
}

func TestBadTokensAreRefused(t *testing.T) {
	t.Parallel()
	p := newIDP(t)
	p.publish(newSigner(t, "EdDSA", "spare"))
	g, b := startFor(t, p, "")
	stranger := newSigner(t, "ES256", p.kid) // of the same name, not of the same key
	rsa := newSigner(t, "RS256", "rsa")

	good := p.token(t)
	part := strings.Split(good, ".")
	tampered := b64(strings.Replace(unb64(t, part[1]), "alice", "admin", 1))
	now := time.Now().Unix()

	for name, token := range map[string]string{
		"not a JWT":              "abc",
		"two parts":              part[0] + "." + part[1],
		"four parts":             good + ".x",
		"empty signature":        part[0] + "." + part[1] + ".",
		"a thousand dots":        strings.Repeat(".", 1000) + "a",
		"tampered payload":       part[0] + "." + tampered + "." + part[2],
		"another's signature":    part[0] + "." + part[1] + "." + strings.Split(p.token(t), ".")[2],
		"a stranger's key":       stranger.sign(t, p.good()),
		"key not in the set":     rsa.sign(t, p.good()),
		"unknown kid":            p.sign(t, p.good(), claims{"kid": "nobody"}),
		"kid of another key":     p.sign(t, p.good(), claims{"kid": "spare"}),
		"kid that is a path":     p.sign(t, p.good(), claims{"kid": "../../dev/null"}),
		"kid that is no string":  p.sign(t, p.good(), claims{"kid": 7}),
		"key in the header":      stranger.sign(t, p.good(), claims{"jwk": stranger.jwk(), "kid": nil}),
		"key by reference":       stranger.sign(t, p.good(), claims{"jku": p.URL + "/jwks", "kid": nil}),
		"alg none":               part0(t, p.sign(t, p.good(), claims{"alg": "none"})) + ".",
		"alg None":               part0(t, p.sign(t, p.good(), claims{"alg": "nOnE"})) + ".",
		"alg none, signed":       p.sign(t, p.good(), claims{"alg": "none"}),
		"alg of another curve":   p.sign(t, p.good(), claims{"alg": "ES384"}),
		"alg RS256 on an EC key": p.sign(t, p.good(), claims{"alg": "RS256"}),
		"alg missing":            p.sign(t, p.good(), claims{"alg": nil}),
		"HS256 by the PEM":       signer{"HS256", p.kid, []byte(p.pem(t))}.sign(t, p.good()),
		"HS256 by the JWK":       signer{"HS256", p.kid, []byte(toJSON(t, p.jwk()))}.sign(t, p.good()),
		"HS256 by nothing":       signer{"HS256", p.kid, []byte{}}.sign(t, p.good()),
		"signature of zeros":     part[0] + "." + part[1] + "." + b64(strings.Repeat("\x00", 64)),
		"signature in DER":       part[0] + "." + part[1] + "." + der(t, p.signer, part[0]+"."+part[1]),
		"unknown crit":           p.sign(t, p.good(), claims{"crit": []string{"x"}, "x": 1}),
		"empty crit":             p.sign(t, p.good(), claims{"crit": []string{}}),
		"unencoded payload":      p.sign(t, p.good(), claims{"crit": []string{"b64"}, "b64": false}),
		"bound to a client's key": p.token(t, claims{"cnf": map[string]any{
			"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}}),
		"no iss":              p.token(t, claims{"iss": nil}),
		"another iss":         p.token(t, claims{"iss": p.URL + "/"}),
		"iss in upper case":   p.token(t, claims{"iss": strings.ToUpper(p.URL)}),
		"iss in a list":       p.token(t, claims{"iss": []string{p.URL}}),
		"no aud":              p.token(t, claims{"aud": nil}),
		"another aud":         p.token(t, claims{"aud": "https://other.example"}),
		"aud a prefix":        p.token(t, claims{"aud": audience + "/x"}),
		"aud an empty list":   p.token(t, claims{"aud": []string{}}),
		"aud an object":       p.token(t, claims{"aud": map[string]any{audience: true}}),
		"no exp":              p.token(t, claims{"exp": nil}),
		"exp null":            p.seal(t, esHeader(p), strings.Replace(toJSON(t, p.good(claims{"exp": 1})), `"exp":1`, `"exp":null`, 1)),
		"exp a string":        p.token(t, claims{"exp": "4102444800"}),
		"exp too large":       p.seal(t, esHeader(p), strings.Replace(toJSON(t, p.good(claims{"exp": 1})), `"exp":1`, `"exp":1e400`, 1)),
		"exp negative":        p.token(t, claims{"exp": -1}),
		"nbf to come":         p.token(t, claims{"nbf": now + 300}),
		"nbf far to come":     p.seal(t, esHeader(p), strings.Replace(toJSON(t, p.good(claims{"nbf": 1})), `"nbf":1`, `"nbf":18446744073709551616`, 1)),
		"nbf a string":        p.token(t, claims{"nbf": "0"}),
		"iat to come":         p.token(t, claims{"iat": now + 300}),
		"iat a string":        p.token(t, claims{"iat": "0"}),
		"exp of another case": p.token(t, claims{"exp": nil, "Exp": now + 600}),
		"iss of another case": p.token(t, claims{"iss": nil, "iſs": p.URL}),
		"two payload names":   p.seal(t, esHeader(p), strings.Replace(toJSON(t, p.good()), `{`, `{"sub":"root",`, 1)),
		"two header names":    p.seal(t, `{"alg":"none","alg":"ES256","kid":"`+p.kid+`"}`, toJSON(t, p.good())),
		"payload and more":    p.seal(t, esHeader(p), toJSON(t, p.good())+"{}"),
		"payload an array":    p.seal(t, esHeader(p), "["+toJSON(t, p.good())+"]"),
		"payload not JSON":    p.seal(t, esHeader(p), "hello"),
		"payload empty":       p.seal(t, esHeader(p), ""),
		"payload not UTF-8":   p.seal(t, esHeader(p), strings.Replace(toJSON(t, p.good()), "alice", "al\xffice", 1)),
		"header not JSON":     p.seal(t, "hello", toJSON(t, p.good())),
		"header an array":     p.seal(t, "[]", toJSON(t, p.good())),
		"padded":              good + "==",
		"another last bit":    part[0] + "." + part[1] + "." + otherSpelling(part[2]),
		"encrypted (JWE)":     b64(`{"alg":"dir","enc":"A256GCM"}`) + ".." + b64("123456789012") + "." + b64("x") + "." + b64("1234567890123456"),
	} {
		minted(token)
		a := g.do(t, "GET /heroes/1", bearer(token))
		if p := a.refused(t, http.StatusUnauthorized, "invalid_token"); p.Reason != "invalid_token" {
			t.Errorf("^ %s", name)
			continue
		}
		a.challenges(t, "invalid_token")
	}
	b.untouched(t)
}

func TestExpiredTokenSaysSo(t *testing.T) {
	t.Parallel()
	g, b, p := startOne(t, "")
	old := claims{"exp": time.Now().Add(-5 * time.Minute).Unix()}
	a := g.do(t, "GET /heroes/1", bearer(p.token(t, old)))
	a.refused(t, http.StatusUnauthorized, "expired_token")
	a.challenges(t, "invalid_token")
	// Only a genuine token is told that it has expired.
	forged := newSigner(t, "ES256", p.kid).sign(t, p.good(old))
	g.do(t, "GET /heroes/1", bearer(forged)).refused(t, http.StatusUnauthorized, "invalid_token")
	b.untouched(t)
}

func TestMissingTokenIsChallengedWithoutAnError(t *testing.T) {
	t.Parallel()
	g, b, p := startOne(t, "")
	for _, header := range []string{
		"X-Nothing: x",
		"Authorization: Basic YWxpY2U6c2VjcmV0",
		"Authorization: " + p.token(t), // no scheme: not a Bearer token
		"Authorization: JWT " + p.token(t),
		"Cookie: access_token=" + p.token(t),
		"X-Authorization: Bearer " + p.token(t),
		"Authorization_: Bearer " + p.token(t),
	} {
		a := g.do(t, "GET /heroes/1", header)
		a.refused(t, http.StatusUnauthorized, "missing_token")
		a.challenges(t, "")
	}
	g.do(t, "GET /heroes/1?access_token="+p.token(t)).refused(t, http.StatusUnauthorized, "missing_token")
	b.untouched(t)
}

func TestTwoOrMalformedTokensAre400(t *testing.T) {
	t.Parallel()
	g, b, p := startOne(t, "")
	token := p.token(t)
	for _, headers := range [][]string{
		{bearer(token), bearer(token)},
		{bearer(token), "Authorization: Basic YWxpY2U6c2VjcmV0"},
		{"Authorization: Basic YWxpY2U6c2VjcmV0", bearer(token)},
		{bearer("")},
		{bearer(token + ", Bearer " + p.token(t))},
		{bearer(token + " x")},
		{bearer("a,b")},
		{bearer("\"" + token + "\"")},
		{bearer("é")},
	} {
		a := g.do(t, "GET /heroes/1", headers...)
		a.refused(t, http.StatusBadRequest, "bad_request")
		a.challenges(t, "invalid_request")
	}
	b.untouched(t)
}

func TestTokenMayComeFromElsewhere(t *testing.T) {
	t.Parallel()
	g, b, p := startOne(t, `
    token_from:
      - header
      - header: X-Access-Token
      - cookie: session
      - query: access_token`)
	token := p.token(t)

	g.do(t, "GET /heroes/1", "X-Access-Token: "+token).is(t, http.StatusOK)
	b.last(t).clean(t, token)

	g.do(t, "GET /heroes/1", "Cookie: a=1; session="+token+"; b=2").is(t, http.StatusOK)
	b.last(t).clean(t, token)
	if got := strings.Join(b.last(t).header("cookie"), ""); !strings.Contains(got, "a=1") || !strings.Contains(got, "b=2") {
		t.Errorf("the other cookies became %q", got)
	}

	g.do(t, "GET /heroes/1?x=%41&access_token="+token+"&y=b+c").is(t, http.StatusOK)
	if got := b.last(t).line(); got != "GET /heroes/1?x=%41&y=b+c HTTP/1.1" {
		t.Errorf("the backend got %s", got)
	}
	g.do(t, "GET /heroes/1?access%5Ftoken="+token).is(t, http.StatusOK)
	b.last(t).clean(t, token)

	before := b.count()
	for _, two := range [][]string{
		{"GET /heroes/1?access_token=" + token, bearer(token)},
		{"GET /heroes/1", bearer(token), "Cookie: session=" + token},
		{"GET /heroes/1", "X-Access-Token: " + token, "Cookie: session=" + token},
		{"GET /heroes/1", "Cookie: session=" + token + "; session=" + token},
		{"GET /heroes/1", "X-Access-Token: " + token, "X-Access-Token: " + token},
		{"GET /heroes/1?access_token=" + token + "&access_token=" + token},
		{"GET /heroes/1?access_token=" + token + "&bad=%zz"},
		{"GET /heroes/1?access_token=" + token + ";x=1"},
	} {
		g.do(t, two[0], two[1:]...).refused(t, http.StatusBadRequest, "bad_request")
	}
	// A browser sends cookies by itself, so another site's page must not act by one.
	for _, header := range []string{"Sec-Fetch-Site: cross-site", "Origin: https://evil.example"} {
		g.do(t, "POST /heroes/1", "Content-Length: 0", "Cookie: session="+token, header).refused(t, http.StatusForbidden, "cross_origin")
	}
	if b.count() != before {
		t.Error("a refused request reached the backend")
	}
	g.do(t, "POST /heroes/1", "Content-Length: 0", "Cookie: session="+token, "Sec-Fetch-Site: same-origin").is(t, http.StatusOK)
	g.do(t, "POST /heroes/1", "Content-Length: 0", bearer(token), "Sec-Fetch-Site: cross-site").is(t, http.StatusOK)
}

func TestOneIssuerCannotGrantWhatIsAnothers(t *testing.T) {
	t.Parallel()
	main, partner, staff, b := newIDP(t), newIDP(t), newIDP(t), newBackend(t)
	g := start(t, fill(`
issuers:
  main:
    issuer: MAIN
    audiences: [https://heroes.example]
    may_grant: [READ_HEROES, ADMIN]
  partner:
    issuer: PARTNER
    audiences: [https://heroes.example]
    may_grant: [READ_HEROES]
  staff:
    issuer: STAFF
    audiences: [https://heroes.example]
privileges:
  READ_HEROES: {}
  AUDIT: {}
  ADMIN:
    from: [main]
routes:
  - match: /heroes/{id}
    issuers: [main, partner]
    privileges: [READ_HEROES]
    upstream: BACKEND
  - match: /admin/{id}
    issuers: [main, partner]
    privileges: [ADMIN]
    upstream: BACKEND
  - match: /main/{id}
    issuers: [main]
    privileges: [READ_HEROES]
    upstream: BACKEND
  - match: /partner/{id}
    issuers: [partner]
    privileges: {any: [READ_HEROES, AUDIT]}
    upstream: BACKEND
  - match: /staff/{id}
    issuers: [staff]
    privileges: {any: [READ_HEROES, ADMIN]}
    upstream: BACKEND
`, "MAIN", main.URL, "PARTNER", partner.URL, "STAFF", staff.URL, "BACKEND", b.URL))
	all, admin := claims{"privileges": []string{"READ_HEROES", "ADMIN"}}, claims{"privileges": "ADMIN"}
	for _, p := range []*idp{main, partner} {
		g.do(t, "GET /heroes/1", bearer(p.token(t, all))).is(t, http.StatusOK)
		b.last(t).has(t, "x-jwt-iss", p.URL)
	}
	g.do(t, "GET /admin/1", bearer(main.token(t, all))).is(t, http.StatusOK)
	g.do(t, "GET /partner/1", bearer(partner.token(t, all))).is(t, http.StatusOK)
	g.do(t, "GET /staff/1", bearer(staff.token(t, all))).is(t, http.StatusOK)
	before := b.count()
	// With one issuer on the route it is no other than with several.
	g.do(t, "GET /partner/1", bearer(partner.token(t, claims{"privileges": "AUDIT"}))).refused(t, http.StatusForbidden, "insufficient_privileges")
	g.output.says(t, "partner may not grant AUDIT (may_grant)")
	g.do(t, "GET /staff/1", bearer(staff.token(t, admin))).refused(t, http.StatusForbidden, "insufficient_privileges")
	g.output.says(t, "tokens of staff do not give ADMIN (privileges.ADMIN.from)")
	g.do(t, "GET /admin/1", bearer(partner.token(t, all))).refused(t, http.StatusForbidden, "insufficient_privileges")
	g.do(t, "GET /main/1", bearer(partner.token(t, all))).refused(t, http.StatusUnauthorized, "invalid_token")
	// A key signs for its own issuer only.
	g.do(t, "GET /admin/1", bearer(partner.sign(t, main.good(all)))).refused(t, http.StatusUnauthorized, "invalid_token")
	if b.count() != before {
		t.Error("a refused request reached the backend")
	}
}

func TestStaticKeyForTokensWithoutIssuer(t *testing.T) {
	t.Parallel()
	p, b, seed := newIDP(t), newBackend(t), newSigner(t, "RS256", "")
	g := start(t, fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
    may_grant: [READ_HEROES]
  seed:
    issuer: none
    audiences: any
    may_grant: [CREATE_HERO]
    keys:
      - file: keys/public.pem
routes:
  - match: /heroes/{id}
    issuers: [main, seed]
    privileges:
      any: [READ_HEROES, CREATE_HERO]
    upstream: BACKEND
  - match: /seeded/{id}
    issuers: [seed]
    privileges: [CREATE_HERO]
    upstream: BACKEND
`, "IDP", p.URL, "BACKEND", b.URL), file{"keys/public.pem", seed.pem(t)})
	// As node's jsonwebtoken signs them.
	seeded := claims{"privileges": []string{"CREATE_HERO"}, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()}
	g.do(t, "GET /seeded/1", bearer(seed.sign(t, seeded))).is(t, http.StatusOK)
	g.do(t, "GET /heroes/1", bearer(seed.sign(t, seeded))).is(t, http.StatusOK)
	b.last(t).has(t, "x-jwt-iss", "none")
	g.do(t, "GET /heroes/1", bearer(p.token(t))).is(t, http.StatusOK)
	b.last(t).has(t, "x-jwt-iss", p.URL)

	before := b.count()
	for name, token := range map[string]string{
		"with an iss":            seed.sign(t, seeded.with(claims{"iss": "none"})),
		"with main's iss":        seed.sign(t, seeded.with(claims{"iss": p.URL})),
		"without exp":            seed.sign(t, seeded.with(claims{"exp": nil})),
		"signed by main":         p.sign(t, seeded),
		"HS256 by the PEM":       signer{"HS256", "", []byte(seed.pem(t))}.sign(t, seeded),
		"HS256 by the PEM, trim": signer{"HS256", "", []byte(strings.TrimSpace(seed.pem(t)))}.sign(t, seeded),
	} {
		if g.do(t, "GET /seeded/1", bearer(token)).refused(t, http.StatusUnauthorized, "invalid_token"); t.Failed() {
			t.Fatalf("^ %s", name)
		}
	}
	if b.count() != before {
		t.Error("a refused request reached the backend")
	}
}

func TestSecretIssuerTakesNothingElse(t *testing.T) {
	t.Parallel()
	const secret = "correct horse battery staple, and then some"
	b, rsa := newBackend(t), newSigner(t, "RS256", "")
	g := start(t, fill(`
issuers:
  legacy:
    issuer: legacy
    audiences: any
    secret: "${file:secret}"
routes:
  - match: /heroes/{id}
    privileges: [READ_HEROES]
    upstream: BACKEND
`, "BACKEND", b.URL), file{"secret", secret})
	hs := signer{"HS256", "", []byte(secret)}
	payload := claims{"iss": "legacy", "privileges": "READ_HEROES OTHER", "exp": time.Now().Add(time.Hour).Unix()}
	g.do(t, "GET /heroes/1", bearer(hs.sign(t, payload))).is(t, http.StatusOK)
	before := b.count()
	for name, token := range map[string]string{
		"another secret": signer{"HS256", "", []byte(secret + "!")}.sign(t, payload),
		"RS256":          rsa.sign(t, payload),
		"own jwk":        rsa.sign(t, payload, claims{"jwk": rsa.jwk()}),
		"alg none":       part0(t, hs.sign(t, payload, claims{"alg": "none"})) + ".",
		"alg HS384":      hs.sign(t, payload, claims{"alg": "HS384"}),
		"another iss":    hs.sign(t, payload.with(claims{"iss": "other"})),
	} {
		if g.do(t, "GET /heroes/1", bearer(token)).refused(t, http.StatusUnauthorized, "invalid_token"); t.Failed() {
			t.Fatalf("^ %s", name)
		}
	}
	if b.count() != before {
		t.Error("a refused request reached the backend")
	}
	if strings.Contains(g.output.String(), secret) {
		t.Error("the log holds the secret")
	}
}

func TestUnknownIssuerCostsNoFetch(t *testing.T) {
	t.Parallel()
	g, _, p := startOne(t, "")
	before := p.fetches.Load()
	other := newIDP(t)
	for range 20 {
		g.do(t, "GET /heroes/1", bearer(other.token(t))).refused(t, http.StatusUnauthorized, "invalid_token")
	}
	if p.fetches.Load() != before || other.fetches.Load() != 0 {
		t.Errorf("%d and %d fetches", p.fetches.Load()-before, other.fetches.Load())
	}
}

func TestCnfMayBeIgnoredIfTheFileSaysSo(t *testing.T) {
	t.Parallel()
	g, _, p := startOne(t, "\n    cnf: ignore")
	g.do(t, "GET /heroes/1", bearer(p.token(t, claims{"cnf": map[string]any{"jkt": "x"}}))).is(t, http.StatusOK)
}

func TestOneOddKeyDoesNotSpoilTheSet(t *testing.T) {
	t.Parallel()
	p := newIDP(t)
	p.serveJWKS(func(w http.ResponseWriter, _ *http.Request) {
		good := strings.TrimSuffix(strings.TrimPrefix(string(keySet(p.keys)), `{"keys":[`), `]}`)
		_, _ = io.WriteString(w, `{"keys":[{"kty":"XYZ","kid":"a"},{"kid":"b"},{"kty":"EC","crv":"secp256k1","x":"AA","y":"AA","kid":"c"},`+
			`{"kty":"OKP","crv":"X25519","x":"`+b64(strings.Repeat("x", 32))+`","kid":"d"},{"kty":"oct","k":"c2VjcmV0","kid":"e","alg":"HS256"},`+
			`{"kty":"EC","crv":"P-256","x":"`+b64(strings.Repeat("x", 32))+`","y":"`+b64(strings.Repeat("y", 32))+`","kid":"f"},`+good+`]}`)
	})
	g, _ := startFor(t, p, "")
	g.do(t, "GET /heroes/1", bearer(p.token(t))).is(t, http.StatusOK)
	hs := signer{"HS256", "e", []byte("secret")}
	g.do(t, "GET /heroes/1", bearer(hs.sign(t, p.good()))).refused(t, http.StatusUnauthorized, "invalid_token")
}

func part0(t *testing.T, token string) string {
	t.Helper()
	return token[:strings.LastIndexByte(token, '.')]
}

func esHeader(p *idp) string { return `{"alg":"ES256","kid":"` + p.kid + `"}` }

func unb64(t *testing.T, s string) string {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// der signs as ASN.1 does, not as RFC 7518 §3.4 says.
func der(t *testing.T, s signer, signed string) string {
	t.Helper()
	digest := sha256.Sum256([]byte(signed))
	sig, err := s.key.(*ecdsa.PrivateKey).Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return b64(string(sig))
}

// otherSpelling changes the bits of the last character that stand for nothing:
// lenient decoders read the same bytes from it, and a list of revoked tokens
// that compares text would not know it again. 64 bytes leave four such bits.
func otherSpelling(signature string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, signature[len(signature)-1])
	return signature[:len(signature)-1] + string(alphabet[last|1])
}
