package issuer

import (
	"crypto/ed25519"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"gatehouse/gateway/token"
)

const event = "http://schemas.openid.net/event/backchannel-logout"

// logoutClaims are good ones.
func logoutClaims(iss string) m {
	now := time.Now().Unix()
	return m{"iss": iss, "aud": "shop", "iat": now, "exp": now + 120, "jti": "l1", "sub": "alice", "sid": "s1", "events": m{event: m{}}}
}

func logoutToken(changes m) string {
	return sign("EdDSA", edKey(), `{"alg":"EdDSA","kid":"ed","typ":"logout+jwt"}`, encode(with(logoutClaims(iss), changes)))
}

// verifyLogout returns the reason of the refusal, "" if there is none, and its detail.
func verifyLogout(t *testing.T, i *Issuer, text string) (*Logout, token.Reason, string) {
	t.Helper()
	l, err := i.VerifyLogout(t.Context(), token.NewRaw(text), []string{"kiosk", "shop"})
	if err == nil {
		return l, "", ""
	}
	e := (*token.Error)(nil)
	if !errors.As(err, &e) || l != nil {
		t.Fatalf("%+v %T: %v", l, err, err)
	}
	if len(text) > 40 && strings.Contains(e.Detail, text[len(text)-20:]) {
		t.Fatalf("the detail holds the token: %s", e.Detail)
	}
	return nil, e.Reason, e.Detail
}

// Each rule of OpenID Connect Back-Channel Logout 1.0 §2.4 and §2.6, kept and broken.
func TestLogoutTokens(t *testing.T) {
	i := static(t, nil)
	now := time.Now().Unix()
	for name, c := range map[string]struct {
		changes m
		says    string // of the refusal; "" accepts
	}{
		"good":                     {nil, ""},
		"aud a list":               {m{"aud": []string{"other", "shop"}}, ""},
		"sid alone":                {m{"sub": nil}, ""},
		"sub alone":                {m{"sid": nil}, ""},
		"events with a value":      {m{"events": m{event: m{"more": 1}}}, ""},
		"unknown claims":           {m{"trace": "x", "at_hash": "x"}, ""},
		"iat at the leeway":        {m{"iat": now + 25}, ""},
		"exp within leeway":        {m{"exp": now - 25, "iat": now - 60}, ""},
		"a far exp and a new iat":  {m{"exp": now + 86400}, ""},
		"another issuer":           {m{"iss": "https://other.example.com"}, "iss is"},
		"a longer issuer":          {m{"iss": iss + "/"}, "iss is"},
		"no issuer":                {m{"iss": nil}, "iss is"},
		"another audience":         {m{"aud": "other"}, "aud is"},
		"the API as audience":      {m{"aud": audience}, "aud is"},
		"no audience":              {m{"aud": nil}, "aud is"},
		"an empty audience":        {m{"aud": []string{}}, "aud is"},
		"an odd audience":          {m{"aud": []any{"shop", 1}}, "claim aud"},
		"no iat":                   {m{"iat": nil}, "iat is missing"},
		"iat a string":             {m{"iat": "1"}, "claim iat"},
		"iat negative":             {m{"iat": -1}, "claim iat"},
		"iat in the future":        {m{"iat": now + 100}, "iat is"},
		"iat long ago":             {m{"iat": now - 700, "exp": now + 86400}, "counts for"},
		"no exp":                   {m{"exp": nil}, "exp is missing"},
		"exp over":                 {m{"exp": now - 60, "iat": now - 180}, "exp was"},
		"exp a string":             {m{"exp": "9999999999"}, "claim exp"},
		"not yet":                  {m{"nbf": now + 100}, "nbf is"},
		"no jti":                   {m{"jti": nil}, "claim jti"},
		"an empty jti":             {m{"jti": ""}, "claim jti"},
		"jti a number":             {m{"jti": 7}, "claim jti"},
		"no events":                {m{"events": nil}, "claim events"},
		"events a string":          {m{"events": event}, "claim events"},
		"events a list":            {m{"events": []string{event}}, "claim events"},
		"events empty":             {m{"events": m{}}, "claim events"},
		"another event":            {m{"events": m{"http://schemas.openid.net/event/other": m{}}}, "claim events"},
		"two events":               {m{"events": m{event: m{}, "x": m{}}}, "claim events"},
		"the event is null":        {m{"events": m{event: nil}}, "claim events"},
		"the event is true":        {m{"events": m{event: true}}, "claim events"},
		"the event is a list":      {m{"events": m{event: []string{}}}, "claim events"},
		"nonce":                    {m{"nonce": "n"}, "claim nonce"},
		"nonce an object":          {m{"nonce": struct{}{}}, "claim nonce"},
		"neither sid nor sub":      {m{"sid": nil, "sub": nil}, "neither sid nor sub"},
		"an empty sid":             {m{"sid": ""}, "claim sid"},
		"sid a number beside sub":  {m{"sid": 7}, "claim sid"},
		"an empty sub":             {m{"sub": "", "sid": nil}, "claim sub"},
		"sub a list beside sid":    {m{"sub": []string{"alice"}}, "claim sub"},
		"exp before iat, long ago": {m{"exp": 0, "iat": 0}, "exp was"},
	} {
		t.Run(name, func(t *testing.T) {
			l, reason, detail := verifyLogout(t, i, logoutToken(c.changes))
			if (reason == "") != (c.says == "") || !strings.Contains(detail, c.says) {
				t.Fatalf("got %q %s, want %q", reason, detail, c.says)
			}
			if l != nil && (l.ID != "l1" || l.Key != "ed" || l.Hash == "" || l.Session == "" && l.Subject == "" || l.Until.Before(time.Now())) {
				t.Errorf("%+v", l)
			}
		})
	}
	l, _, _ := verifyLogout(t, i, logoutToken(m{"iat": float64(now) - 0.5, "exp": now + 86400}))
	if l == nil || l.Session != "s1" || l.Subject != "alice" || l.IssuedAt != float64(now)-0.5 || l.Until.Unix() > now+maxLogoutAge.Milliseconds()/1000+31 {
		t.Errorf("%+v", l)
	}
}

// A header's rules, and tokens of other kinds by the same key (RFC 8725 §3.11, §3.12).
func TestLogoutTokensOfOtherKinds(t *testing.T) {
	i := static(t, func(o *Options) {
		o.Algorithms, o.AcceptIDTokens = []string{"EdDSA"}, true
		o.StaticKeys = [][]byte{[]byte(encode(jwkOf(edKey(), "ed")))}
	})
	good := encode(logoutClaims(iss))
	ed := func(header, payload string) string { return sign("EdDSA", edKey(), header, payload) }
	for name, c := range map[string]struct {
		text string
		ok   bool
	}{
		"logout+jwt":               {ed(`{"alg":"EdDSA","kid":"ed","typ":"logout+jwt"}`, good), true},
		"application/logout+jwt":   {ed(`{"alg":"EdDSA","kid":"ed","typ":"application/Logout+JWT"}`, good), true},
		"JWT":                      {ed(`{"alg":"EdDSA","kid":"ed","typ":"JWT"}`, good), true},
		"no typ":                   {ed(`{"alg":"EdDSA","kid":"ed"}`, good), true},
		"no kid":                   {ed(`{"alg":"EdDSA"}`, good), true},
		"at+jwt":                   {ed(`{"alg":"EdDSA","kid":"ed","typ":"at+jwt"}`, good), false},
		"secevent+jwt":             {ed(`{"alg":"EdDSA","kid":"ed","typ":"secevent+jwt"}`, good), false},
		"typ a number":             {ed(`{"alg":"EdDSA","kid":"ed","typ":1}`, good), false},
		"alg none":                 {b64.EncodeToString([]byte(`{"alg":"none"}`)) + "." + b64.EncodeToString([]byte(good)) + ".", false},
		"alg nOnE":                 {b64.EncodeToString([]byte(`{"alg":"nOnE"}`)) + "." + b64.EncodeToString([]byte(good)) + ".", false},
		"an alg that is not ours":  {sign("ES256", ec256(), `{"alg":"ES256","kid":"p256"}`, good), false},
		"HS256 by the public key":  {sign("HS256", []byte(edKey().Public().(ed25519.PublicKey)), `{"alg":"HS256"}`, good), false},
		"a stranger's key":         {sign("EdDSA", newEd(), `{"alg":"EdDSA","kid":"ed"}`, good), false},
		"its own key in jwk":       {sign("EdDSA", newEd(), `{"alg":"EdDSA","jwk":`+encode(jwkOf(edKey(), ""))+`}`, good), false},
		"crit":                     {ed(`{"alg":"EdDSA","kid":"ed","crit":["x"],"x":1}`, good), false},
		"two events":               {ed(`{"alg":"EdDSA","kid":"ed"}`, strings.Replace(good, `"events"`, `"events":{},"events"`, 1)), false},
		"padded":                   {ed(`{"alg":"EdDSA","kid":"ed"}`, good) + "=", false},
		"no JWT":                   {"opaque", false},
		"nothing":                  {"", false},
		"long":                     {strings.Repeat("a", maxToken+1), false},
		"an access token":          {ed(`{"alg":"EdDSA","kid":"ed","typ":"at+jwt"}`, encode(claims(iss))), false},
		"an access token for shop": {ed(`{"alg":"EdDSA","kid":"ed","typ":"JWT"}`, encode(with(claims(iss), m{"aud": "shop", "sid": "s1"}))), false},
		"an ID token": {ed(`{"alg":"EdDSA","kid":"ed","typ":"JWT"}`,
			encode(with(logoutClaims(iss), m{"events": nil, "nonce": "n", "at_hash": "x"}))), false},
	} {
		t.Run(name, func(t *testing.T) {
			_, reason, detail := verifyLogout(t, i, c.text)
			if (reason == "") != c.ok {
				t.Errorf("got %q %s", reason, detail)
			}
			if strings.Contains(name, "alg") && !strings.Contains(detail, "none of this issuer's algorithms") {
				t.Errorf("it is refused for another reason: %s", detail)
			}
		})
	}
	// And the other way round, also where ID tokens pass for access tokens.
	anyone := static(t, func(o *Options) { o.Audiences, o.AcceptIDTokens = nil, true })
	for _, typ := range []string{"logout+jwt", "JWT"} {
		expect(t, anyone, ed(`{"alg":"EdDSA","kid":"ed","typ":"`+typ+`"}`, good), token.InvalidToken)
	}
}

// Logout tokens share the bounded refetch of keys, and its answers, with all others.
func TestLogoutTokensWithUnknownKeys(t *testing.T) {
	first, second := newEd(), newEd()
	p := newProvider(t, jwkOf(first, "first"))
	clock := newClock()
	o := p.options()
	o.Now = clock.now
	i := start(t, o)
	of := func(k any, kid string) string {
		return sign("EdDSA", k, encode(m{"alg": "EdDSA", "kid": kid}), encode(with(logoutClaims(p.url), m{"aud": "shop"})))
	}
	want := func(text string, want token.Reason) {
		t.Helper()
		if _, got, detail := verifyLogout(t, i, text); got != want {
			t.Fatalf("got %q %s, want %q", got, detail, want)
		}
	}
	want(of(first, "first"), "")
	p.fetched(t, 1, 1)
	for n := range 50 { // one fetch, however many there are
		want(of(second, string(rune('a'+n%26))), token.InvalidToken)
	}
	p.fetched(t, 2, 1)
	want(of(second, "first"), token.InvalidToken) // a known kid asks for nothing
	clock.advance(time.Minute)
	p.rotate(jwkOf(first, "first"), jwkOf(second, "second"))
	want(of(second, "second"), "")
	p.fetched(t, 3, 1)
	// Nobody can tell: never the token's fault.
	p.answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	clock.advance(time.Minute)
	want(of(newEd(), "third"), token.IssuerUnavailable)
	want(of(first, "first"), "")
}
