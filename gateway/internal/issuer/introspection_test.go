package issuer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/gateway/token"
)

// oracle is an introspection endpoint on a real socket.
type oracle struct {
	url   string
	calls atomic.Int64

	mu   sync.Mutex
	h    http.HandlerFunc
	form url.Values  // of the last call
	head http.Header // of the last call
}

func newOracle(t testing.TB) *oracle {
	o := &oracle{}
	s := httptest.NewServer(o)
	t.Cleanup(s.Close)
	o.url = s.URL + "/introspect"
	return o
}

func (o *oracle) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	o.mu.Lock()
	h := o.h
	if r.Method == http.MethodPost && r.URL.Path == "/introspect" {
		o.calls.Add(1)
		o.form, o.head = r.PostForm, r.Header
	}
	o.mu.Unlock()
	h(w, r)
}

func (o *oracle) does(h http.HandlerFunc) { o.mu.Lock(); defer o.mu.Unlock(); o.h = h }

// says makes it give one answer to all.
func (o *oracle) says(answer m) { o.writes(encode(answer)) }

func (o *oracle) writes(body string) {
	o.does(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
}

func (o *oracle) fails(status int) {
	o.does(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
}

func (o *oracle) asked(t testing.TB, want int64) {
	t.Helper()
	if got := o.calls.Load(); got != want {
		t.Fatalf("%d calls, want %d", got, want)
	}
}

// asking is static with an issuer that is asked at o.
func asking(t testing.TB, o *oracle, change func(*Options)) *Issuer {
	t.Helper()
	return static(t, func(options *Options) {
		options.Cache = NewCache(8 << 20)
		options.Introspection = &Introspection{Endpoint: o.url, Auth: ClientAuth{ClientID: "gate house", Secret: "s:cr&t"}}
		if change != nil {
			change(options)
		}
	})
}

func always(o *Options) { o.Introspection.Always = true }

// active is an answer for an opaque token, with changes.
func active(changes m) m {
	now := time.Now().Unix()
	return with(m{"active": true, "aud": audience, "client_id": "shop", "iat": now, "exp": now + 300, "privileges": []string{"READ"}}, changes)
}

const opaque = "2YotnFZFEjr1zCsicMWpAA"

func TestOpaqueToken(t *testing.T) {
	o := newOracle(t)
	i := asking(t, o, nil)
	o.says(active(m{"sub": "alice", "token_type": "bearer"}))
	v, err := Set{i}.Verify(t.Context(), token.NewRaw(opaque))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(opaque))
	if v.Issuer != "main" || v.Key != "" || v.Hash != b64.EncodeToString(sum[:]) || v.Claims.Get("sub").Text() != "alice" ||
		!v.HasIssuedAt || len(v.Privileges) != 1 || v.Privileges[0] != "READ" || v.PrivilegesMissing {
		t.Errorf("verified as %+v", v)
	}
	again, err := Set{i}.Verify(t.Context(), token.NewRaw(opaque))
	if err != nil || again != v {
		t.Errorf("the second time: %p %v, want %p", again, err, v)
	}
	if !(Set{i}).Remembers(token.NewRaw(opaque)) || (Set{i}).Remembers(token.NewRaw(opaque+"x")) {
		t.Error("it does not remember exactly the token that it asked about")
	}
	expect(t, i, opaque+"x", "")
	o.asked(t, 2)
	if o.form.Get("token") != opaque+"x" || o.form.Get("token_type_hint") != "access_token" || o.head.Get("Accept") != "application/json" ||
		o.head.Get("Content-Type") != "application/x-www-form-urlencoded" {
		t.Errorf("the call: %v %v", o.form, o.head)
	}
}

func TestAnswersToOpaqueTokens(t *testing.T) {
	now := time.Now().Unix()
	anybody := func(o *Options) { o.Audiences = nil }
	for name, c := range map[string]struct {
		answer m
		change func(*Options)
		want   token.Reason
	}{
		"active":                   {active(nil), nil, ""},
		"not active":               {m{"active": false}, nil, token.InvalidToken},
		"not active, all the same": {active(m{"active": false}), nil, token.InvalidToken},
		"no aud":                   {active(m{"aud": nil}), nil, token.InvalidToken},
		"no aud, any":              {active(m{"aud": nil}), anybody, ""},
		"other aud":                {active(m{"aud": "https://other.example"}), nil, token.InvalidToken},
		"other aud, any":           {active(m{"aud": "https://other.example"}), anybody, ""},
		"aud among others":         {active(m{"aud": []string{"x", audience}}), nil, ""},
		"aud a number":             {active(m{"aud": 1}), anybody, token.InvalidToken},
		"iss":                      {active(m{"iss": iss}), nil, ""},
		"other iss":                {active(m{"iss": iss + "/"}), nil, token.InvalidToken},
		"iss a number":             {active(m{"iss": 1}), nil, token.InvalidToken},
		"expired":                  {active(m{"exp": now - 40}), nil, token.ExpiredToken},
		"expired within leeway":    {active(m{"exp": now - 10}), nil, ""},
		"no exp":                   {active(m{"exp": nil}), nil, ""},
		"no exp, max_lifetime":     {active(m{"exp": nil}), func(o *Options) { o.MaxLifetime = time.Hour }, token.InvalidToken},
		"too long":                 {active(m{"exp": now + 7200}), func(o *Options) { o.MaxLifetime = time.Hour }, token.InvalidToken},
		"exp a string":             {active(m{"exp": "soon"}), nil, token.InvalidToken},
		"not yet":                  {active(m{"nbf": now + 100}), nil, token.InvalidToken},
		"a refresh token":          {active(m{"token_type": "refresh_token"}), nil, token.InvalidToken},
		"bound to a key":           {active(m{"cnf": m{"jkt": "x"}}), nil, token.InvalidToken},
		"bound to a certificate":   {active(m{"cnf": m{"x5t#S256": "x"}}), nil, ""},
		"required claim": {active(m{"level": "2"}), func(o *Options) {
			o.RequiredClaims = []RequiredClaim{{token.MustPath("level"), []string{"2"}}}
		}, ""},
		"no required claim": {active(nil), func(o *Options) {
			o.RequiredClaims = []RequiredClaim{{token.MustPath("level"), nil}}
		}, token.InvalidToken},
		"iss is required, and not there": {active(nil), func(o *Options) {
			o.RequiredClaims = []RequiredClaim{{token.MustPath("iss"), nil}}
		}, token.InvalidToken},
		"profile rfc9068": {active(nil), func(o *Options) { o.Profile = RFC9068 }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOracle(t)
			i := asking(t, o, c.change)
			o.says(c.answer)
			expect(t, i, opaque, c.want)
			expect(t, i, opaque, c.want)
			if c.answer["exp"] != now-10 { // else it holds no longer than exp
				o.asked(t, 1)
			}
		})
	}
}

// An answer need not say whose the token is; that is known all the same.
func TestIssOfAnOpaqueToken(t *testing.T) {
	for name, c := range map[string]struct {
		answer m
		issuer string
		want   token.Kind
	}{
		"said":                        {active(m{"iss": iss}), iss, token.String},
		"not said":                    {active(nil), iss, token.String},
		"no URL":                      {active(nil), `joe's "id" \`, token.String},
		"an issuer of tokens without": {active(nil), "", token.Missing},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOracle(t)
			i := asking(t, o, func(o *Options) { o.Issuer = c.issuer })
			o.says(c.answer)
			v, err := Set{i}.Verify(t.Context(), token.NewRaw(opaque))
			if err != nil {
				t.Fatal(err)
			}
			if got := v.Claims.Get("iss"); got.Kind() != c.want || got.Text() != c.issuer || v.Claims.Get("client_id").Text() != "shop" {
				t.Errorf("iss is %s %q, want %s %q", got.Kind(), got.Text(), c.want, c.issuer)
			}
		})
	}
}

// What is no answer, and an endpoint that is down, are never a token's fault.
func TestNoAnswerIsUnavailable(t *testing.T) {
	elsewhere := newOracle(t)
	elsewhere.says(active(nil))
	for name, h := range map[string]http.HandlerFunc{
		"500": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"401": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) },
		"400": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(400) },
		"204": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.url, http.StatusTemporaryRedirect)
		},
		"html":            func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"empty":           func(http.ResponseWriter, *http.Request) {},
		"no active":       func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, encode(active(m{"active": nil}))) },
		"active a string": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, encode(active(m{"active": "true"}))) },
		"active twice":    func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"active":false,"active":true}`) },
		"Active":          func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"Active":true}`) },
		"too long": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, encode(active(m{"x": strings.Repeat("x", maxAnswer)})))
		},
		"broken off": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"active":tr`)
			panic(http.ErrAbortHandler)
		},
		"something behind": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, encode(active(nil))+"{}") },
	} {
		t.Run(name, func(t *testing.T) {
			o := newOracle(t)
			i := asking(t, o, nil)
			o.does(h)
			expect(t, i, opaque, token.IssuerUnavailable)
			o.asked(t, 1)
			o.says(active(nil)) // and nothing of it is remembered
			expect(t, i, opaque, "")
			o.asked(t, 2)
		})
	}
	elsewhere.asked(t, 0)
}

// A JWT, however broken, is never shown to anyone as an opaque token.
func TestJWTIsNeverOpaque(t *testing.T) {
	o := newOracle(t)
	i := asking(t, o, nil)
	o.says(active(nil))
	good := edToken(nil)
	parts := strings.Split(good, ".")
	expect(t, i, good, "")
	for _, bad := range []string{
		good + "A", parts[0] + ".." + parts[2], parts[0] + "=." + parts[1] + "." + parts[2],
		edToken(m{"iss": "https://other.example"}), edToken(m{"exp": 1}),
		sign("EdDSA", edKey(), ` {"alg":"none"}`, "no claims"), sign("EdDSA", edKey(), `{"alg":"EdDSA","alg":"EdDSA"}`, "{}"),
	} {
		if got, detail := verify(t, i, bad); got != token.InvalidToken && got != token.ExpiredToken {
			t.Errorf("got %q (%s)", got, detail)
		}
	}
	o.asked(t, 0)
	for n, other := range []string{"abc", "a.b.c", parts[0] + "." + parts[1], parts[0] + ".b.c.d.e", "e30", strings.Repeat("x", maxToken)} {
		expect(t, i, other, "")
		o.asked(t, int64(n)+1)
	}
	for _, none := range []string{"", "a\nb", "a b\x00", "tokén", strings.Repeat("x", maxToken+1)} {
		expect(t, i, none, token.InvalidToken)
	}
	o.asked(t, 6)
}

// Without introspection, or with several issuers that could be asked, nobody is.
func TestOpaqueTokenOfNobody(t *testing.T) {
	o := newOracle(t)
	o.says(active(nil))
	i, other := asking(t, o, nil), asking(t, o, func(o *Options) { o.Name, o.Issuer = "other", "https://other.example" })
	for _, set := range []Set{{static(t, nil)}, {i, other}} {
		if _, err := set.Verify(t.Context(), token.NewRaw(opaque)); err == nil || err.(*token.Error).Reason != token.InvalidToken {
			t.Errorf("%d issuers: %v", len(set), err)
		}
	}
	o.asked(t, 0)
	// Each issuer's verdict is its own.
	o.does(func(w http.ResponseWriter, r *http.Request) {
		id, _, _ := r.BasicAuth()
		fmt.Fprint(w, encode(active(m{"active": id == "other"})))
	})
	i, other = asking(t, o, nil), asking(t, o, func(o *Options) { o.Introspection.Auth.ClientID = "other" })
	expect(t, other, opaque, "")
	expect(t, i, opaque, token.InvalidToken)
	expect(t, other, opaque, "")
	o.asked(t, 2)
}

func TestAlways(t *testing.T) {
	for name, c := range map[string]struct {
		answer m
		want   token.Reason
	}{
		"active":         {active(nil), ""},
		"same iss, sub":  {active(m{"iss": iss, "sub": "admin2"}), ""},
		"not active":     {m{"active": false}, token.RevokedToken},
		"other iss":      {active(m{"iss": "https://other.example"}), token.InvalidToken},
		"other sub":      {active(m{"sub": "root"}), token.InvalidToken},
		"no aud":         {active(m{"aud": nil}), token.InvalidToken},
		"other aud":      {active(m{"aud": "https://other.example"}), token.InvalidToken},
		"expired":        {active(m{"exp": time.Now().Unix() - 40}), token.ExpiredToken},
		"refresh token":  {active(m{"token_type": "Refresh"}), token.InvalidToken},
		"bound":          {active(m{"cnf": m{"x5t#S256": "abc"}}), token.InvalidToken},
		"bound to a key": {active(m{"cnf": m{"jkt": "abc"}}), token.InvalidToken},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOracle(t)
			i := asking(t, o, always)
			o.says(c.answer)
			jwt := edToken(nil)
			expect(t, i, jwt, c.want)
			if c.want != token.ExpiredToken {
				expect(t, i, jwt, c.want)
				o.asked(t, 1)
			}
			// What fails here is not asked about.
			before := o.calls.Load()
			expect(t, i, edToken(m{"exp": 1}), token.ExpiredToken)
			expect(t, i, edToken(m{"aud": "x"}), token.InvalidToken)
			expect(t, i, jwt[:len(jwt)-10]+"AAAAAAAAAA", token.InvalidToken)
			o.asked(t, before)
		})
	}
	// A JWT keeps its own claims, whatever the answer says.
	o := newOracle(t)
	i := asking(t, o, always)
	o.says(active(m{"privileges": []string{"ROOT"}}))
	v, err := Set{i}.Verify(t.Context(), token.NewRaw(edToken(nil)))
	if err != nil || v.Key != "ed" || strings.Join(v.Privileges, " ") != "CREATE_HERO ASSIGN_HERO" {
		t.Errorf("verified as %+v, %v", v, err)
	}
	// To the same certificate as the token's own cnf, or to none as the issuer's cnf: ignore has it.
	bound := active(m{"cnf": m{"x5t#S256": "abc"}})
	o.says(bound)
	expect(t, i, edToken(m{"cnf": bound["cnf"]}), "")
	expect(t, i, edToken(m{"cnf": m{"x5t#S256": "abd"}}), token.InvalidToken)
	expect(t, asking(t, o, func(o *Options) { always(o); o.IgnoreCnf = true }), edToken(nil), "")
	// Without "always" nobody is asked about a JWT.
	never := newOracle(t)
	expect(t, asking(t, never, nil), edToken(nil), "")
	never.asked(t, 0)
}

func TestVerdictsAge(t *testing.T) {
	start := time.Now()
	for name, c := range map[string]struct {
		answer m
		want   token.Reason
		holds  time.Duration
	}{
		"active":     {active(nil), "", 30 * time.Second},
		"no exp":     {active(m{"exp": nil}), "", 30 * time.Second},
		"ends soon":  {active(m{"exp": start.Unix() + 20}), "", 19 * time.Second},
		"in leeway":  {active(m{"exp": start.Unix() - 5}), "", time.Second},
		"not active": {m{"active": false}, token.InvalidToken, refusedFor},
	} {
		t.Run(name, func(t *testing.T) {
			o, clock := newOracle(t), &clock{at: start}
			i := asking(t, o, func(o *Options) { o.Now = clock.now })
			o.says(c.answer)
			expect(t, i, opaque, c.want)
			clock.advance(c.holds - time.Millisecond)
			expect(t, i, opaque, c.want)
			o.asked(t, 1)
			clock.advance(time.Second + time.Millisecond)
			// The other way round from now on.
			if c.want == "" {
				o.says(m{"active": false})
				expect(t, i, opaque, token.InvalidToken)
			} else {
				o.says(active(nil))
				expect(t, i, opaque, "")
			}
			o.asked(t, 2)
		})
	}
}

func TestCachedVerdictsAreJudgedEachTime(t *testing.T) {
	o, clock := newOracle(t), newClock()
	i := asking(t, o, func(o *Options) { o.Now, o.Introspection.Interval, o.Leeway = clock.now, time.Hour, 0 })
	o.says(active(m{"exp": nil, "nbf": clock.now().Unix() + 60}))
	expect(t, i, opaque, token.InvalidToken)
	clock.advance(61 * time.Second)
	expect(t, i, opaque, "")
	o.asked(t, 1)
}

func TestProviderDownAfterAnswers(t *testing.T) {
	o, clock := newOracle(t), newClock()
	i := asking(t, o, func(o *Options) { o.Now, o.Introspection.MaxStale = clock.now, time.Minute })
	strict := asking(t, o, func(o *Options) { o.Now = clock.now })
	o.says(m{"active": false})
	expect(t, i, "withdrawn", token.InvalidToken)
	o.says(active(nil))
	expect(t, i, opaque, "")
	expect(t, strict, opaque, "")
	o.fails(http.StatusBadGateway)
	clock.advance(31 * time.Second)
	expect(t, strict, opaque, token.IssuerUnavailable)
	expect(t, i, opaque, "")
	expect(t, i, "withdrawn", token.InvalidToken)
	expect(t, i, "unknown", token.IssuerUnavailable)
	clock.advance(60 * time.Second)
	expect(t, i, opaque, token.IssuerUnavailable)
	o.says(m{"active": false})
	expect(t, i, opaque, token.InvalidToken)
}

// A stale verdict does not outlive the token.
func TestStaleVerdictEndsWithExp(t *testing.T) {
	o, clock := newOracle(t), newClock()
	i := asking(t, o, func(o *Options) { o.Now, o.Introspection.MaxStale = clock.now, time.Hour })
	o.says(active(nil)) // for 300 s, with a leeway of 30
	expect(t, i, opaque, "")
	o.fails(500)
	clock.advance(320 * time.Second)
	expect(t, i, opaque, "")
	clock.advance(15 * time.Second)
	expect(t, i, opaque, token.ExpiredToken)
}

func TestBreaker(t *testing.T) {
	o := newOracle(t)
	var fetches atomic.Int64
	i := asking(t, o, func(o *Options) {
		o.OnFetch = func(kind string, err error) {
			if kind == "introspection" && err != nil {
				fetches.Add(1)
			}
		}
	})
	// Answers about one odd token trip nothing.
	o.fails(http.StatusBadRequest)
	for n := range 2 * tripAfter {
		expect(t, i, fmt.Sprint("odd", n), token.IssuerUnavailable)
	}
	o.asked(t, 2*tripAfter)
	o.fails(http.StatusInternalServerError)
	for n := range 2 * tripAfter {
		expect(t, i, fmt.Sprint("down", n), token.IssuerUnavailable)
	}
	o.asked(t, 3*tripAfter)
	if got := fetches.Load(); got != 3*tripAfter {
		t.Errorf("%d fetches were told, want %d", got, 3*tripAfter)
	}
	o.says(active(nil))
	eventually(t, "it is asked again", func() bool { got, _ := verify(t, i, opaque); return got == "" })
	o.asked(t, 3*tripAfter+1)
}

func TestOneCallForOneToken(t *testing.T) {
	o := newOracle(t)
	i := asking(t, o, nil)
	held, enter := make(chan struct{}), make(chan struct{}, maxInFlight)
	o.does(func(w http.ResponseWriter, _ *http.Request) {
		enter <- struct{}{}
		<-held
		fmt.Fprint(w, encode(active(nil)))
	})
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if _, err := (Set{i}).Verify(t.Context(), token.NewRaw(opaque)); err != nil {
				t.Error(err)
			}
		})
	}
	<-enter
	// One who goes away fails alone.
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (Set{i}).Verify(gone, token.NewRaw(opaque)); err == nil || err.(*token.Error).Reason != token.IssuerUnavailable {
		t.Errorf("whoever has gone away got %v", err)
	}
	// So many calls at one time, and no more.
	for n := range maxInFlight - 1 {
		all.Go(func() {
			if _, err := (Set{i}).Verify(t.Context(), token.NewRaw(fmt.Sprint("other", n))); err != nil {
				t.Error(err)
			}
		})
	}
	for range maxInFlight - 1 {
		<-enter
	}
	expect(t, i, "one too many", token.IssuerUnavailable)
	o.asked(t, maxInFlight)
	close(held)
	all.Wait()
	expect(t, i, "one too many", "")
	o.asked(t, maxInFlight+1)
}

func TestVerdictsAreBounded(t *testing.T) {
	o := newOracle(t)
	i := asking(t, o, nil)
	n := i.introspection
	good := &verdict{facts: &facts{}, until: time.Now().Add(time.Hour)}
	kept := digest{1}
	n.keep(kept, good)
	for k := range 2 * maxRefused {
		n.keep(digestOf(token.NewRaw(fmt.Sprint(k))), &verdict{refusal: token.Errorf(token.InvalidToken, "")})
	}
	n.refused.CleanUp()
	if size := n.refused.EstimatedSize(); size > maxRefused {
		t.Errorf("%d refused tokens are remembered", size)
	}
	if n.find(kept) != good {
		t.Error("refused tokens pushed out an active one")
	}
	for k := range 2 * maxVerdictBytes / entryBytes {
		n.keep(digestOf(token.NewRaw(fmt.Sprint("a", k))), good)
	}
	n.active.CleanUp()
	if bytes := n.active.WeightedSize(); bytes > maxVerdictBytes {
		t.Errorf("active tokens take %d bytes", bytes)
	}
}

func TestClientAuthentication(t *testing.T) {
	ec := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	small := must(rsa.GenerateKey(rand.Reader, 1024))
	asPEM := func(key any) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))})
	}
	private := jwkOf(&ec.PublicKey, "gate-1")
	private["d"] = b64.EncodeToString(must(ec.Bytes()))

	o := newOracle(t)
	o.says(active(nil))
	ask := func(a ClientAuth) {
		t.Helper()
		a.ClientID = "gate house"
		expect(t, asking(t, o, func(o *Options) { o.Introspection.Auth = a }), opaque, "")
	}
	ask(ClientAuth{Secret: "s:cr&t"})
	if o.head.Get("Authorization") != "Basic Z2F0ZStob3VzZTpzJTNBY3IlMjZ0" || o.form.Has("client_id") || o.form.Has("client_secret") { // gate+house:s%3Acr%26t
		t.Errorf("basic: %v %v", o.head, o.form)
	}
	ask(ClientAuth{Method: ClientSecretPost, Secret: "s:cr&t"})
	if o.head.Get("Authorization") != "" || o.form.Get("client_id") != "gate house" || o.form.Get("client_secret") != "s:cr&t" {
		t.Errorf("post: %v %v", o.head, o.form)
	}
	seen := map[string]bool{}
	for _, c := range []struct {
		key      []byte
		alg, kid string
		public   any
	}{
		{asPEM(ec), "ES256", "", &ec.PublicKey}, {[]byte(encode(private)), "ES256", "gate-1", &ec.PublicKey},
		{asPEM(rsaKey()), "RS256", "", &rsaKey().PublicKey}, {asPEM(edKey()), "EdDSA", "", edKey()},
	} {
		ask(ClientAuth{Method: PrivateKeyJWT, Key: c.key})
		if o.form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" || o.form.Has("client_secret") {
			t.Errorf("%s: %v", c.alg, o.form)
		}
		// It verifies as any token does, for the issuer as audience.
		assertion := o.form.Get("client_assertion")
		set := encode(m{"keys": []m{jwkOf(c.public, c.kid)}})
		client := static(t, func(o *Options) {
			o.Issuer, o.Audiences, o.StaticKeys, o.Algorithms, o.MaxLifetime = "gate house", []string{iss}, [][]byte{[]byte(set)}, []string{c.alg}, assertionLife
		})
		v, err := Set{client}.Verify(t.Context(), token.NewRaw(assertion))
		if err != nil {
			t.Errorf("%s: %v", c.alg, err)
			continue
		}
		jti := v.Claims.Get("jti").Text()
		if v.Claims.Get("sub").Text() != "gate house" || len(jti) < 20 || seen[jti] || c.kid != "" && v.Key != c.kid {
			t.Errorf("%s: %+v", c.alg, v)
		}
		seen[jti] = true
	}

	for name, c := range map[string]func(*Options){
		"no client": func(o *Options) { o.Introspection.Auth.ClientID = "" },
		"no secret": func(o *Options) { o.Introspection.Auth.Secret = "" },
		"unknown":   func(o *Options) { o.Introspection.Auth.Method = "none" },
		"no key":    func(o *Options) { o.Introspection.Auth.Method = PrivateKeyJWT },
		"public key": func(o *Options) {
			o.Introspection.Auth = ClientAuth{PrivateKeyJWT, "a", "", []byte(encode(jwkOf(edKey(), "")))}
		},
		"secret as key": func(o *Options) {
			o.Introspection.Auth = ClientAuth{PrivateKeyJWT, "a", "", []byte(`{"kty":"oct","k":"c2VjcmV0"}`)}
		},
		"small key":   func(o *Options) { o.Introspection.Auth = ClientAuth{PrivateKeyJWT, "a", "", asPEM(small)} },
		"no endpoint": func(o *Options) { o.Introspection.Endpoint = "" },
		"http":        func(o *Options) { o.Introspection.Endpoint = "http://id.example.com/introspect" },
		"userinfo":    func(o *Options) { o.Introspection.Endpoint = "https://a:b@id.example.com/introspect" },
	} {
		options := asking(t, o, nil).o
		in := *options.Introspection
		options.Introspection = &in
		c(&options)
		if _, err := New(options); err == nil || strings.Contains(err.Error(), "c2VjcmV0") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEndpointFromDiscovery(t *testing.T) {
	o := newOracle(t)
	o.says(active(nil))
	for name, c := range map[string]struct {
		endpoint any
		want     token.Reason
	}{
		"there": {o.url, ""}, "not there": {nil, token.IssuerUnavailable}, "a number": {1, token.IssuerUnavailable},
		"http to another machine": {"http://id.example.com/introspect", token.IssuerUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProvider(t, jwkOf(edKey(), "ed"))
			p.answerMeta(func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprint(w, encode(with(m{"issuer": p.url, "jwks_uri": p.url + "/jwks"}, m{"introspection_endpoint": c.endpoint})))
			})
			options := p.options()
			options.Introspection = &Introspection{Auth: ClientAuth{ClientID: "a", Secret: "b"}}
			unstarted, err := New(options)
			if err != nil {
				t.Fatal(err)
			}
			expect(t, unstarted, opaque, token.IssuerUnavailable)
			expect(t, start(t, options), opaque, c.want)
		})
	}
	o.asked(t, 1)
}

func TestExplainTellsOfIntrospection(t *testing.T) {
	o := newOracle(t)
	i := asking(t, o, always)
	for text, want := range map[string]string{
		opaque:       "form introspection audience time",
		edToken(nil): "form issuer algorithm kind signature audience time introspection",
	} {
		o.says(active(nil))
		var checks []string
		_, err := Set{i}.Explain(t.Context(), token.NewRaw(text), func(check, _ string) { checks = append(checks, check) })
		if got := strings.Join(checks, " "); err != nil || got != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
		o.says(m{"active": false})
		if _, err := (Set{asking(t, o, always)}).Explain(t.Context(), token.NewRaw(text), func(string, string) {}); err == nil {
			t.Error("an inactive token is explained as good")
		}
	}
}
