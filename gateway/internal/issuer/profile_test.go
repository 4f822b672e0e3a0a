package issuer

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"gatehouse/gateway/token"
)

func TestProfiles(t *testing.T) {
	full := m{"client_id": "web", "jti": "j1", "sub": "u1", "iat": time.Now().Unix(), "aud": audience}
	for _, c := range []struct {
		name   string
		change func(*Options)
		typ    string
		claims m
		want   token.Reason
	}{
		{"jwt, no typ", nil, "", full, ""},
		{"jwt, JWT", nil, "JWT", full, ""},
		{"jwt, at+jwt", nil, "at+jwt", full, ""},
		{"jwt, logout+jwt", nil, "logout+jwt", full, token.InvalidToken},
		{"jwt, dpop+jwt", nil, "dpop+jwt", full, token.InvalidToken},
		{"rfc9068", rfc9068, "at+jwt", full, ""},
		{"rfc9068, the whole media type", rfc9068, "application/AT+JWT", full, ""},
		{"rfc9068, no typ", rfc9068, "", full, token.InvalidToken},
		{"rfc9068, JWT", rfc9068, "JWT", full, token.InvalidToken},
		{"rfc9068, no sub", rfc9068, "at+jwt", plus(full, m{"sub": nil}), token.InvalidToken},
		{"rfc9068, no client_id", rfc9068, "at+jwt", plus(full, m{"client_id": nil}), token.InvalidToken},
		{"rfc9068, client_id a number", rfc9068, "at+jwt", plus(full, m{"client_id": 7}), token.InvalidToken},
		{"rfc9068, no jti", rfc9068, "at+jwt", plus(full, m{"jti": nil}), token.InvalidToken},
		{"rfc9068, jti empty", rfc9068, "at+jwt", plus(full, m{"jti": ""}), token.InvalidToken},
		{"rfc9068, no iat", rfc9068, "at+jwt", plus(full, m{"iat": nil}), token.InvalidToken},
		{"rfc9068, no aud", rfc9068, "at+jwt", plus(full, m{"aud": nil}), token.InvalidToken},

		{"logout token", nil, "", plus(full, m{"events": m{}}), token.InvalidToken},
		{"ID token, nonce", nil, "", plus(full, m{"nonce": "n"}), token.InvalidToken},
		{"ID token, at_hash", nil, "", plus(full, m{"at_hash": "h"}), token.InvalidToken},
		{"ID token, c_hash", nil, "", plus(full, m{"c_hash": "h"}), token.InvalidToken},
		{"ID token accepted", acceptIDTokens, "", plus(full, m{"nonce": "n", "at_hash": "h", "c_hash": "h"}), ""},
		{"logout token, ID tokens accepted", acceptIDTokens, "", plus(full, m{"events": m{}}), token.InvalidToken},

		{"cnf of another kind", nil, "", plus(full, m{"cnf": m{"jkt": "x"}}), token.InvalidToken},
		{"cnf of two kinds", nil, "", plus(full, m{"cnf": m{"x5t#S256": "x", "jkt": "x"}}), token.InvalidToken},
		{"cnf empty", nil, "", plus(full, m{"cnf": m{}}), token.InvalidToken},
		{"cnf a string", nil, "", plus(full, m{"cnf": "x"}), token.InvalidToken},
		{"cnf with a number", nil, "", plus(full, m{"cnf": m{"x5t#S256": 7}}), token.InvalidToken},
		{"cnf ignored", func(o *Options) { o.IgnoreCnf = true }, "", plus(full, m{"cnf": m{"jkt": "x"}}), ""},

		{"lifetime within", lifetime, "", plus(full, m{"exp": time.Now().Add(time.Hour).Unix()}), ""},
		{"lifetime over", lifetime, "", plus(full, m{"exp": time.Now().Add(time.Hour + time.Minute).Unix()}), token.InvalidToken},
		{"lifetime unknown", lifetime, "", plus(full, m{"iat": nil}), token.InvalidToken},

		{"required value", require("token_use", "access"), "", plus(full, m{"token_use": "access"}), ""},
		{"another value", require("token_use", "access"), "", plus(full, m{"token_use": "id"}), token.InvalidToken},
		{"no value", require("token_use", "access"), "", full, token.InvalidToken},
		{"one of two values", require("tenant", "a", "b"), "", plus(full, m{"tenant": "b"}), ""},
		{"an array that holds it", require("tenant", "a"), "", plus(full, m{"tenant": []string{"b", "a"}}), ""},
		{"an array that does not", require("tenant", "a"), "", plus(full, m{"tenant": []string{"b"}}), token.InvalidToken},
		{"a number", require("level", "2"), "", plus(full, m{"level": 2}), ""},
		{"a boolean", require("verified", "true"), "", plus(full, m{"verified": true}), ""},
		{"the other boolean", require("verified", "true"), "", plus(full, m{"verified": false}), token.InvalidToken},
		{"an object", require("tenant", "a"), "", plus(full, m{"tenant": m{"a": "a"}}), token.InvalidToken},
		{"deeper", require("realm.use", "access"), "", plus(full, m{"realm": m{"use": "access"}}), ""},
		{"only there", require("sid"), "", plus(full, m{"sid": "s"}), ""},
		{"only there, and not", require("sid"), "", full, token.InvalidToken},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := static(t, c.change)
			header := m{"alg": "EdDSA", "kid": "ed"}
			if c.typ != "" {
				header["typ"] = c.typ
			}
			expect(t, i, sign("EdDSA", edKey(), encode(header), encode(with(claims(iss), c.claims))), c.want)
		})
	}
}

// plus is with, but keeps what is nil, so that a later with takes it out.
func plus(base, changes m) m {
	sum := maps.Clone(base)
	maps.Copy(sum, changes)
	return sum
}

func rfc9068(o *Options)        { o.Profile = RFC9068 }
func acceptIDTokens(o *Options) { o.AcceptIDTokens = true }
func lifetime(o *Options)       { o.MaxLifetime = time.Hour }
func require(path string, values ...string) func(*Options) {
	return func(o *Options) {
		o.RequiredClaims = []RequiredClaim{{Path: token.MustPath(path), Values: values}}
	}
}

func TestTheBindingIsHandedOn(t *testing.T) {
	v, err := Set{static(t, nil)}.Verify(t.Context(), token.NewRaw(edToken(m{"cnf": m{"x5t#S256": "print"}})))
	if err != nil || v.Certificate != "print" {
		t.Errorf("got %+v, %v", v, err)
	}
	v, err = Set{static(t, func(o *Options) { o.IgnoreCnf = true })}.Verify(t.Context(), token.NewRaw(edToken(m{"cnf": m{"x5t#S256": "print"}})))
	if err != nil || v.Certificate != "" {
		t.Errorf("ignored: got %+v, %v", v, err)
	}
}

func TestProfileOptions(t *testing.T) {
	for _, o := range []Options{
		{Profile: "rfc9086"},
		{Profile: RFC9068, Audiences: nil},
	} {
		o.Name, o.Issuer, o.Algorithms, o.Secret = "main", iss, []string{"HS256"}, secret()
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), "profile") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// Explain tells each check, and stops where Verify does.
func TestExplain(t *testing.T) {
	i := static(t, nil)
	explain := func(text string) (checks []string, err error) {
		_, err = Set{i}.Explain(t.Context(), token.NewRaw(text), func(check, found string) {
			checks = append(checks, check)
			if found == "" || strings.Contains(found, text) {
				t.Errorf("%s: found %q", check, found)
			}
		})
		return checks, err
	}
	checks, err := explain(edToken(nil))
	if want := "form issuer algorithm kind signature audience time"; err != nil || strings.Join(checks, " ") != want {
		t.Errorf("got %v, %v; want %s", checks, err, want)
	}
	checks, err = explain(edToken(m{"exp": 1}))
	if want := "form issuer algorithm kind signature audience"; err == nil || strings.Join(checks, " ") != want {
		t.Errorf("expired: got %v, %v; want %s", checks, err, want)
	}
	checks, err = explain("a.b")
	if err == nil || checks != nil {
		t.Errorf("no JWT: got %v, %v", checks, err)
	}
}

// A token that was verified before is explained as it was served: from memory.
func TestExplainTellsOfMemory(t *testing.T) {
	i := static(t, func(o *Options) { o.Cache = NewCache(1 << 20) })
	raw := token.NewRaw(edToken(nil))
	if _, err := (Set{i}).Verify(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	var checks []string
	_, err := Set{i}.Explain(t.Context(), raw, func(check, _ string) { checks = append(checks, check) })
	if got, want := strings.Join(checks, " "), "memory audience time"; err != nil || got != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

// Claims that are taken for signed pass and fail by what they say, as those of a token do.
func TestAssume(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, c := range []struct {
		claims string
		reason token.Reason
		says   string
	}{
		{`{"iss":"ISS","aud":"api","exp":1800000060,"privileges":["A"]}`, "", ""},
		{`{"iss":"ISS","aud":"api","exp":1799999000}`, token.ExpiredToken, "exp was"},
		{`{"iss":"ISS","aud":"api","exp":1800000060,"nbf":1800000050}`, token.InvalidToken, "nbf is"},
		{`{"iss":"ISS","aud":"other","exp":1800000060}`, token.InvalidToken, "aud is"},
		{`{"iss":"ISS","aud":[1],"exp":1800000060}`, token.InvalidToken, "aud"},
		{`{"iss":"https://other.example","aud":"api","exp":1800000060}`, token.InvalidToken, "iss is"},
		{`{"iss":"ISS","aud":"api"}`, token.InvalidToken, "exp is missing"},
		{`{"iss":"ISS","aud":"api","exp":1800000060,"nonce":"x"}`, token.InvalidToken, "ID token"},
	} {
		i := static(t, func(o *Options) { o.Audiences, o.Leeway = []string{"api"}, 0 })
		claims, err := token.ParseClaims([]byte(strings.ReplaceAll(c.claims, "ISS", i.o.Issuer)))
		if err != nil {
			t.Fatal(err)
		}
		v, err := Set{i}.Assume(claims, now, func(string, string) {})
		var refused *token.Error
		switch {
		case c.reason == "" && (err != nil || v.Issuer != i.o.Name || len(v.Privileges) != 1):
			t.Errorf("%s: %+v, %v", c.claims, v, err)
		case c.reason != "" && (!errors.As(err, &refused) || refused.Reason != c.reason || !strings.Contains(refused.Detail, c.says)):
			t.Errorf("%s: %v, want %s: %s", c.claims, err, c.reason, c.says)
		}
	}
}
