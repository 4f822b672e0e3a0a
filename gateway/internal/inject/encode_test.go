package inject

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/net/http/httpguts"

	"gatehouse/gateway/token"
)

func rules(t testing.TB, o Options) *Rules {
	t.Helper()
	if o.Prefix == "" {
		o.Prefix = "x-jwt-"
	}
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func verified(t testing.TB, claims string) *token.Verified {
	t.Helper()
	c, err := token.ParseClaims([]byte(claims))
	if err != nil {
		t.Fatalf("%s: %v", claims, err)
	}
	return &token.Verified{Issuer: "main", Claims: c}
}

// lines prints headers as a test table writes them.
func lines(headers []Header) string {
	var out []string
	for _, h := range headers {
		out = append(out, h.Name+": "+h.Value)
	}
	return strings.Join(out, "\n")
}

func TestName(t *testing.T) {
	for claim, want := range map[string]string{
		"sub":                     "sub",
		"userID":                  "user-id",
		"X5T":                     "x5t",
		"x5t#S256":                "x5t-s256",
		"https://x.example/roles": "https-x-example-roles",
		"client_id":               "client-id",
		"_claim_names":            "claim-names",
		"HTTPServer":              "httpserver", // a hyphen follows lower case only
		"v2Beta":                  "v2beta",     // and a digit is no letter
		"a-B":                     "a-b",
		"a--__b":                  "a-b",
		"trailing_":               "trailing",
		"größe":                   "gr-e",
		"éA":                      "a", // é is no ASCII letter
		"sub\r\nX-Admin: 1":       "sub-x-admin-1",
		"":                        "",
		"...":                     "",
		"ユーザー":                    "",
		"aBaBaB":                  "a-ba-ba-b",
	} {
		if got := Name(claim); got != want {
			t.Errorf("Name(%q) = %q, want %q", claim, got, want)
		}
	}
}

func TestEncodeAllClaims(t *testing.T) {
	for _, test := range []struct{ rule, claims, want string }{
		{"strings as they are", `{"sub":"jane doe"}`, "X-Jwt-Sub: jane doe"},
		{"numbers byte for byte", `{"n":1.50e+3,"big":12345678901234567890,"huge":1e400}`, "X-Jwt-N: 1.50e+3\nX-Jwt-Big: 12345678901234567890\nX-Jwt-Huge: 1e400"},
		{"booleans", `{"a":true,"b":false}`, "X-Jwt-A: true\nX-Jwt-B: false"},
		{"zero is a value", `{"n":0}`, "X-Jwt-N: 0"},
		{"arrays", `{"r":["A","B",3,true]}`, "X-Jwt-R: A,B,3,true"},
		{"a comma in an item", `{"r":["x,admin","y"]}`, "X-Jwt-R: x%2Cadmin,y"},
		{"a string's own comma", `{"s":"Doe, Jane"}`, "X-Jwt-S: Doe, Jane"},
		{"aud as a string is a list of one", `{"aud":"https://a,https://b"}`, "X-Jwt-Aud: https://a%2Chttps://b"},
		{"aud as an array", `{"aud":["a","b"]}`, "X-Jwt-Aud: a,b"},
		{"only the claim aud", `{"audience":"a,b"}`, "X-Jwt-Audience: a,b"},
		{"objects", `{"o": { "a" : [1, 2], "b": "x y" } }`, `X-Jwt-O: {"a":[1,2],"b":"x y"}`},
		{"an object's bytes stay", `{"o":{"a":"\u0041","n":1.0}}`, `X-Jwt-O: {"a":"\u0041","n":1.0}`},
		{"an object above 0x7E", `{"o":{"ü":"%"}}`, `X-Jwt-O: {"%C3%BC":"%25"}`},
		{"objects and arrays in arrays", `{"r":[ [1, 2], {"a": 1, "b": 2}, "c" ]}`, `X-Jwt-R: [1%2C2],{"a":1%2C"b":2},c`},
		{"percent", `{"s":"100%2C"}`, "X-Jwt-S: 100%252C"},
		{"control bytes", `{"s":"a\r\nX-Admin: 1\u0000\u007f\t"}`, "X-Jwt-S: a%0D%0AX-Admin: 1%00%7F%09"},
		{"UTF-8", `{"s":"Zoë"}`, "X-Jwt-S: Zo%C3%AB"},
		{"spaces at the ends", `{"s":"  a b ","r":[" x ","y"]}`, "X-Jwt-S: %20%20a b%20\nX-Jwt-R: %20x%20,y"},
		{"only spaces", `{"s":"  "}`, "X-Jwt-S: %20%20"},
		{"null and empty values", `{"a":null,"b":"","c":[],"d":{},"e":[null,"",[],{}]}`, ""},
		{"null and empty items", `{"r":[null,"a","",[],{},"b",null]}`, "X-Jwt-R: a,b"},
		{"a claim without a name", `{"...":"x","":"y"}`, ""},
		{"the token's order", `{"b":1,"a":2}`, "X-Jwt-B: 1\nX-Jwt-A: 2"},
	} {
		t.Run(test.rule, func(t *testing.T) {
			headers, collisions, err := rules(t, Options{}).Encode(verified(t, test.claims), false, Act{})
			if err != nil || collisions != nil {
				t.Fatalf("collisions %q, error %v", collisions, err)
			}
			if got := lines(headers); got != test.want {
				t.Errorf("%s gives\n%s\nwant\n%s", test.claims, got, test.want)
			}
		})
	}
}

func TestEncodeCollisions(t *testing.T) {
	const id, iss = "X-Jwt-User-Id", "X-Jwt-Iss"
	for _, test := range []struct {
		name, claims string
		alwaysIss    bool
		want         string
		collisions   []string
	}{
		{"two unregistered: neither", `{"userID":"a","user_id":"b","z":1}`, false, "X-Jwt-Z: 1", []string{id}},
		{"three: named once", `{"userID":"a","user_id":"b","user-id":"c"}`, false, "", []string{id}},
		{"the registered one, first", `{"sub":"jane","Sub":"root"}`, false, "X-Jwt-Sub: jane", []string{"X-Jwt-Sub"}},
		{"the registered one, last", `{"SUB":"root","sub":"jane"}`, false, "X-Jwt-Sub: jane", []string{"X-Jwt-Sub"}},
		{"the registered one of three", `{"clientId":"a","client_id":"b","client-id":"c"}`, false, "X-Jwt-Client-Id: b", []string{"X-Jwt-Client-Id"}},
		{"an empty registered claim lets nobody in", `{"sub":null,"Sub":"root"}`, false, "", []string{"X-Jwt-Sub"}},
		{"names, not values, collide", `{"user_id":null,"userID":"root"}`, false, "", []string{id}},
		{"alone under a folded name", `{"userID":"a"}`, false, "X-Jwt-User-Id: a", nil},
		{"iss is always sent", `{"sub":"a","iss":"https://id.example"}`, true, "X-Jwt-Iss: https://id.example\nX-Jwt-Sub: a", nil},
		{"none for a token without iss", `{"sub":"a"}`, true, "X-Jwt-Iss: none\nX-Jwt-Sub: a", nil},
		{"nobody poses as the issuer", `{"ISS":"https://id.example"}`, true, "X-Jwt-Iss: none", []string{iss}},
		{"iss is not asked for", `{"sub":"a"}`, false, "X-Jwt-Sub: a", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			headers, collisions, err := rules(t, Options{}).Encode(verified(t, test.claims), test.alwaysIss, Act{})
			if err != nil {
				t.Fatal(err)
			}
			if got := lines(headers); got != test.want {
				t.Errorf("%s gives\n%s\nwant\n%s", test.claims, got, test.want)
			}
			if !slices.Equal(collisions, test.collisions) {
				t.Errorf("collisions %q, want %q", collisions, test.collisions)
			}
		})
	}
}

func TestEncodeChosenClaims(t *testing.T) {
	path := token.MustPath
	r := rules(t, Options{Claims: map[string]Claim{
		"user":   {Path: path("sub")},
		"roles":  {Path: path("realm_access.roles"), List: true},
		"aud":    {Path: path("/aud"), List: true},
		"mail":   {Path: path("email"), Header: "x-user-email"},
		"second": {Path: path("/realm_access/roles/1")},
	}})
	for _, test := range []struct {
		name, claims string
		alwaysIss    bool
		want         string
	}{
		{"sorted by key, nothing else", `{"zzz":1,"sub":"jane","email":"j@x","aud":"a,b","realm_access":{"roles":["r,1","r2"]}}`, false,
			"X-Jwt-Aud: a%2Cb\nX-User-Email: j@x\nX-Jwt-Roles: r%2C1,r2\nX-Jwt-Second: r2\nX-Jwt-User: jane"},
		{"missing claims", `{"realm_access":7}`, false, ""},
		{"a string where a list is wanted", `{"realm_access":{"roles":"admin,root"}}`, false, ""},
		{"an object where a list is wanted", `{"realm_access":{"roles":{"a":1}}}`, false, ""},
		{"a number where a list is wanted", `{"aud":7}`, false, ""},
		{"iss though not chosen", `{"sub":"jane","iss":"https://id.example"}`, true, "X-Jwt-Iss: https://id.example\nX-Jwt-User: jane"},
	} {
		t.Run(test.name, func(t *testing.T) {
			headers, collisions, err := r.Encode(verified(t, test.claims), test.alwaysIss, Act{})
			if err != nil || collisions != nil {
				t.Fatalf("collisions %q, error %v", collisions, err)
			}
			if got := lines(headers); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}

	t.Run("chosen iss comes once", func(t *testing.T) {
		r := rules(t, Options{Claims: map[string]Claim{"iss": {Path: path("iss")}}})
		headers, collisions, err := r.Encode(verified(t, `{"iss":"i"}`), true, Act{})
		if got := lines(headers); got != "X-Jwt-Iss: i" || collisions != nil || err != nil {
			t.Errorf("%q, collisions %q, error %v", got, collisions, err)
		}
	})
	t.Run("another claim as iss gives way where iss is needed", func(t *testing.T) {
		r := rules(t, Options{Claims: map[string]Claim{"iss": {Path: path("tenant")}}})
		headers, collisions, err := r.Encode(verified(t, `{"iss":"i","tenant":"t"}`), true, Act{})
		if got := lines(headers); got != "X-Jwt-Iss: i" || !slices.Equal(collisions, []string{"X-Jwt-Iss"}) || err != nil {
			t.Errorf("%q, collisions %q, error %v", got, collisions, err)
		}
		headers, _, _ = r.Encode(verified(t, `{"iss":"i","tenant":"t"}`), false, Act{})
		if got := lines(headers); got != "X-Jwt-Iss: t" {
			t.Errorf("without need %q", got)
		}
	})
}

func TestEncodeMaxBytes(t *testing.T) {
	const claims = `{"sub":"0123456789","n":null}`
	fits := len("X-Jwt-Sub") + len("0123456789")
	if headers, _, err := rules(t, Options{MaxBytes: fits}).Encode(verified(t, claims), false, Act{}); err != nil || len(headers) != 1 {
		t.Errorf("%d bytes: %v, %v", fits, headers, err)
	}
	headers, _, err := rules(t, Options{MaxBytes: fits - 1}).Encode(verified(t, claims), false, Act{})
	var large *TooLarge
	if !errors.As(err, &large) || *large != (TooLarge{fits, fits - 1}) || headers != nil {
		t.Errorf("%d bytes: %v, %v", fits-1, headers, err)
	}
	if _, _, err := rules(t, Options{}).Encode(verified(t, `{"s":"`+strings.Repeat("é", DefaultMaxBytes/6+1)+`"}`), false, Act{}); !errors.As(err, &large) {
		t.Errorf("the encoded length counts, and 0 means the default: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	sub := token.MustPath("sub")
	for _, test := range []struct {
		o    Options
		want string
	}{
		{Options{}, `the header prefix "" must be`},
		{Options{Prefix: "x-jwt"}, `"x-jwt-"`},
		{Options{Prefix: "X-Jwt-"}, `"x-jwt-"`},
		{Options{Prefix: "x_jwt-"}, `"x-jwt-"`},
		{Options{Prefix: "x-"}, `would let a claim set x-`},
		{Options{Prefix: "content-"}, `would let a claim set content-encoding`},
		{Options{Prefix: "x-forwarded-jwt-"}, `would let a claim set`},
		{Options{Prefix: "x-original-"}, `would let a claim set x-original-url`},
		{Options{Prefix: "x-rewrite-"}, `would let a claim set x-rewrite-url`},
		{Options{Prefix: "client-cert-"}, `would let a claim set`},
		{Options{Prefix: "x-jwt-", Claims: map[string]Claim{"userID": {Path: sub}}}, `"user-id"`},
		{Options{Prefix: "x-jwt-", Claims: map[string]Claim{"": {Path: sub}}}, `the header suffix ""`},
		{Options{Prefix: "x-jwt-", Claims: map[string]Claim{"a": {Path: sub, Header: "X User"}}}, `"X User" for the claim sub is no header name`},
		{Options{Prefix: "x-jwt-", Claims: map[string]Claim{"a": {Path: sub, Header: "Content-Length"}}}, `cannot be sent as Content-Length`},
		{Options{Prefix: "x-jwt-", Claims: map[string]Claim{"a": {Path: sub, Header: "x_forwarded_for"}}}, `cannot be sent as x_forwarded_for`},
		{Options{Prefix: "x-jwt-", Claims: map[string]Claim{"a": {Path: sub, Header: "X-User"}, "b": {Path: sub, Header: "x_user"}}}, `a and b would both be sent as X_user`},
		{Options{Prefix: "x-jwt-", Claims: map[string]Claim{"a": {Path: sub}, "b": {Path: sub, Header: "X-Jwt-A"}}}, `a and b would both be sent as X-Jwt-A`},
	} {
		if _, err := New(test.o); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v, want %q", test.o, err, test.want)
		}
	}
	rules(t, Options{Claims: map[string]Claim{"a": {Path: sub, Header: "X-User"}, "b": {Path: sub}}}) // and the plain case passes
}

// TestEncodedValuesTravel sends odd claims through net/http's real client and
// server: what the backend reads, decoded, is the claim.
func TestEncodedValuesTravel(t *testing.T) {
	got := make(chan http.Header, 1)
	backend := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header }))
	defer backend.Close()
	for _, value := range []string{"a b", " a ", "\t", "\r\nX-Admin: 1", "\x00", "Zoë", "100%", "%2C", ",", "\u2028", "\x7f", strings.Repeat("x", 4000)} {
		quoted, err := jsontext.AppendQuote(nil, value)
		if err != nil {
			t.Fatal(err)
		}
		headers, _, err := rules(t, Options{MaxBytes: 1 << 20}).Encode(verified(t, `{"s":`+string(quoted)+`,"r":["one",`+string(quoted)+`]}`), false, Act{})
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequest("GET", backend.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range headers {
			if !httpguts.ValidHeaderFieldValue(h.Value) || !httpguts.ValidHeaderFieldName(h.Name) || http.CanonicalHeaderKey(h.Name) != h.Name {
				t.Errorf("%q: %q is no header", value, h)
			}
			req.Header[h.Name] = []string{h.Value}
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatalf("%q: %v", value, err)
		}
		res.Body.Close()
		arrived := <-got
		if s, err := url.PathUnescape(arrived.Get("X-Jwt-S")); s != value || err != nil {
			t.Errorf("%q arrived as %q, %v", value, s, err)
		}
		items := strings.Split(arrived.Get("X-Jwt-R"), ",")
		if len(items) != 2 {
			t.Fatalf("%q: %d items", value, len(items))
		}
		if s, err := url.PathUnescape(items[1]); s != value || err != nil {
			t.Errorf("item %q arrived as %q, %v", value, s, err)
		}
		if arrived.Get("X-Admin") != "" {
			t.Errorf("%q made a header of its own", value)
		}
	}
}

func FuzzEncode(f *testing.F) {
	for _, seed := range []string{"a", "a,b", " a ", "100%", "%2C", "\r\n", "\x00", "Zoë", "{}", "", "\x7f\x80"} {
		f.Add(seed, seed+",x")
	}
	r := rules(f, Options{MaxBytes: 1 << 30})
	f.Fuzz(func(t *testing.T, a, b string) {
		qa, errA := jsontext.AppendQuote(nil, a)
		qb, errB := jsontext.AppendQuote(nil, b)
		if errA != nil || errB != nil {
			t.Skip("no JSON string holds bad UTF-8")
		}
		claims := `{"s":` + string(qa) + `,"aud":` + string(qa) + `,"r":[` + string(qa) + `,` + string(qb) + `,[` + string(qa) + `,1]],"o":{` + string(qa) + `:` + string(qb) + `}}`
		headers, _, err := r.Encode(verified(t, claims), false, Act{})
		if err != nil {
			t.Fatal(err)
		}
		found := http.Header{}
		for _, h := range headers {
			if h.Value == "" || !httpguts.ValidHeaderFieldValue(h.Value) || h.Value != strings.TrimSpace(h.Value) {
				t.Errorf("%q is no header value", h.Value)
			}
			for i := range len(h.Value) {
				if c := h.Value[i]; c < 0x20 || c > 0x7e {
					t.Errorf("%q holds the byte %#x", h.Value, c)
				}
			}
			if found.Get(h.Name) != "" {
				t.Errorf("%s comes twice", h.Name)
			}
			found[h.Name] = []string{h.Value}
		}
		same := func(what, header, want string) {
			if got, err := url.PathUnescape(header); got != want || err != nil {
				t.Errorf("%s: %q decodes to %q, %v; want %q", what, header, got, err, want)
			}
		}
		same("string", found.Get("X-Jwt-S"), a)
		same("aud", found.Get("X-Jwt-Aud"), a)
		if strings.Contains(found.Get("X-Jwt-Aud"), ",") {
			t.Errorf("aud %q became two", a)
		}
		same("object", found.Get("X-Jwt-O"), "{"+string(qa)+":"+string(qb)+"}")
		want := slices.DeleteFunc([]string{a, b, "[" + string(qa) + ",1]"}, func(s string) bool { return s == "" })
		items := strings.Split(found.Get("X-Jwt-R"), ",")
		if len(items) != len(want) {
			t.Fatalf("%q has %d items, want %d", found.Get("X-Jwt-R"), len(items), len(want))
		}
		for i := range want {
			same("item", items[i], want[i])
		}
	})
}

func FuzzName(f *testing.F) {
	for _, seed := range []string{"sub", "userID", "X5T", "https://x.example/roles", "_a_", "é", "a\r\nb", ""} {
		f.Add(seed)
	}
	r := rules(f, Options{})
	f.Fuzz(func(t *testing.T, claim string) {
		name := Name(claim)
		if name == "" {
			if r.header(claim) != "" {
				t.Errorf("%q has a header but no name", claim)
			}
			if strings.ContainsFunc(claim, func(c rune) bool { return c < 0x80 && token.Fold(byte(c)) != '-' }) {
				t.Errorf("%q gives no name", claim)
			}
			return
		}
		if !httpguts.ValidHeaderFieldName(name) || strings.Trim(name, "-") != name || strings.Contains(name, "--") || strings.ToLower(name) != name {
			t.Errorf("Name(%q) = %q", claim, name)
		}
		if got, want := r.header(claim), http.CanonicalHeaderKey("x-jwt-"+name); got != want {
			t.Errorf("%q is sent as %q, not %q", claim, got, want)
		}
		if Name(name) != name {
			t.Errorf("Name(%q) = %q is not stable", claim, name)
		}
		// Hyphens apart, exactly the claim's letters and digits are left.
		letters := func(s string) string {
			return strings.Map(func(c rune) rune {
				if c < 0x80 && token.Fold(byte(c)) != '-' {
					return rune(token.Fold(byte(c)))
				}
				return -1
			}, s)
		}
		if letters(name) != letters(claim) {
			t.Errorf("Name(%q) = %q loses or adds something", claim, name)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	r := rules(b, Options{})
	v := verified(b, `{"iss":"https://id.example.com","sub":"jane","aud":["https://api.example.com"],"exp":1793756236,"iat":1793752636,"jti":"c0ffee","client_id":"web","privileges":["CREATE_HERO","ASSIGN_HERO"],"userName":"Zoë"}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := r.Encode(v, false, Act{}); err != nil {
			b.Fatal(err)
		}
	}
}

// Who acts in the subject's name is the gateway's finding: no claim can say it.
func TestActor(t *testing.T) {
	claim := func(s string) token.Path {
		p, err := token.ParsePath(s)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	chosen := func(claims map[string]Claim) Options { return Options{Claims: claims} }
	desk := Act{Issuer: "https://desk.example", Subject: "help,desk%é"}
	const sent = "X-Jwt-Act-Iss: https://desk.example\nX-Jwt-Act-Sub: help,desk%25%C3%A9"
	for _, c := range []struct {
		name       string
		options    Options
		claims     string
		act        Act
		want       string
		collisions []string
	}{
		{"nobody acts", Options{}, `{}`, Act{}, "", nil},
		{"somebody acts", Options{}, `{}`, desk, sent, nil},
		{"with a map", chosen(map[string]Claim{"sub": {Path: claim("sub")}}), `{"sub":"alice"}`, desk, sent + "\nX-Jwt-Sub: alice", nil},
		{"a claim says that somebody acts", Options{}, `{"act_sub":"root","act.iss":"https://evil.example"}`, Act{}, "", []string{"X-Jwt-Act-Sub", "X-Jwt-Act-Iss"}},
		{"a claim says that another acts", Options{}, `{"act_sub":"root"}`, desk, sent, []string{"X-Jwt-Act-Sub"}},
		{"the map gives the name to a claim", chosen(map[string]Claim{"act-sub": {Path: claim("may_act.sub")}}), `{"may_act":{"sub":"bob"}}`, desk,
			"X-Jwt-Act-Iss: https://desk.example\nX-Jwt-Act-Sub: bob", nil},
		{"nobody knows who acts", Options{}, `{}`, Act{Issuer: "https://desk.example"}, "X-Jwt-Act-Iss: https://desk.example", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			headers, collisions, err := rules(t, c.options).Encode(verified(t, c.claims), false, c.act)
			if got := lines(headers); got != c.want || !slices.Equal(collisions, c.collisions) || err != nil {
				t.Errorf("got\n%s\ncollisions %q, error %v; want\n%s\n%q", got, collisions, err, c.want, c.collisions)
			}
		})
	}
}
