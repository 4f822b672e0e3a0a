package gateway

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/gateway/config"
	"gatehouse/gateway/internal/upstream"
	"gatehouse/gateway/token"
)

// bench is a gateway with one static Ed25519 key in front of one backend.
type bench struct {
	t       testing.TB
	key     ed25519.PrivateKey
	backend *httptest.Server
	gateway *Gateway
	front   *httptest.Server
}

func newBench(t testing.TB, backend http.HandlerFunc, extra string) *bench {
	t.Helper()
	b := &bench{t: t, backend: httptest.NewServer(backend)}
	t.Cleanup(b.backend.Close)
	_, b.key, _ = ed25519.GenerateKey(nil)
	g, err := New(t.Context(), b.config(extra), Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	b.gateway = g
	b.front = httptest.NewServer(g)
	t.Cleanup(func() {
		b.front.Close()
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func (b *bench) config(extra string) *config.Config {
	b.t.Helper()
	x := base64.RawURLEncoding.EncodeToString(b.key.Public().(ed25519.PublicKey))
	file := fmt.Sprintf(`
issuers:
  main:
    issuer: https://id.example.com
    audiences: any
    keys:
      - env: KEY
routes:
  - match: /open
    public: true
    upstream: %[1]s
  - match: /guarded
    privileges: [READ]
    upstream: %[1]s
%[2]s`, b.backend.URL, extra)
	cfg, _, err := config.Parse("routes.yaml", []byte(file), config.Options{Env: func(string) (string, bool) {
		return `{"kty":"OKP","crv":"Ed25519","x":"` + x + `"}`, true
	}})
	if err != nil {
		b.t.Fatal(err)
	}
	return cfg
}

func (b *bench) token(claims string) string { return b.padded(0, claims) }

// padded is token with so many bytes more in its header.
func (b *bench) padded(bytes int, claims string) string {
	enc := base64.RawURLEncoding.EncodeToString
	signed := enc([]byte(`{"alg":"EdDSA"`+strings.Repeat(" ", bytes*3/4)+`}`)) + "." + enc([]byte(claims))
	return signed + "." + enc(ed25519.Sign(b.key, []byte(signed)))
}

func (b *bench) claims(privileges string) string {
	return fmt.Sprintf(`{"iss":"https://id.example.com","sub":"alice","exp":%d,%s}`, time.Now().Add(time.Minute).Unix(), privileges)
}

func (b *bench) get(path, raw string) (*http.Response, string) {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, b.front.URL+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	if raw != "" {
		r.Header.Set("Authorization", "Bearer "+raw)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return res, string(body)
}

func TestTheLadder(t *testing.T) {
	b := newBench(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "sub=%s auth=%s", r.Header.Get("X-Jwt-Sub"), r.Header.Get("Authorization"))
	}, "")
	for _, c := range []struct {
		name, path, token string
		status            int
		want              string
	}{
		{"good", "/guarded", b.token(b.claims(`"privileges":["READ"]`)), 200, "sub=alice auth="},
		{"no privilege", "/guarded", b.token(b.claims(`"privileges":["WRITE"]`)), 403, "insufficient_privileges"},
		{"no token", "/guarded", "", 401, "missing_token"},
		{"bad token", "/guarded", b.token(b.claims(`"privileges":["READ"]`)) + "A", 401, "invalid_token"},
		{"public", "/open", "", 200, "sub= auth="},
		{"public leaves the token alone", "/open", "x", 200, "sub= auth=Bearer x"},
		{"no route", "/nowhere", "", 404, "no_route"},
	} {
		t.Run(c.name, func(t *testing.T) {
			res, body := b.get(c.path, c.token)
			if res.StatusCode != c.status || !strings.Contains(body, c.want) {
				t.Errorf("got %d %s, want %d %s", res.StatusCode, body, c.status, c.want)
			}
		})
	}
}

// The operator's mistake that a log should solve: the privileges are there,
// in another claim.
func TestTheLogNamesTheClaimThatWasMeant(t *testing.T) {
	claims, err := token.ParseClaims([]byte(`{"sub":"a","scp":["READ"],"realm_access":{"roles":["READ"]},"https://x.example/permissions":"READ","groups":7}`))
	if err != nil {
		t.Fatal(err)
	}
	rt := &builtRoute{privilegesFrom: map[string]string{"main": "privileges"}}
	rt.require.All = []string{"READ"}
	err = rt.carries(&token.Verified{Issuer: "main", Claims: claims, PrivilegesMissing: true}, nil, nil)
	for _, want := range []string{"no usable claim privileges", "scp", "realm_access.roles", "/https:~1~1x.example~1permissions"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
	if strings.Contains(err.Error(), "groups") {
		t.Errorf("%v names a number as privileges", err)
	}
}

func TestEveryReasonHasAnAnswer(t *testing.T) {
	for _, err := range []error{
		refuse(internalError, ""), errors.New("anything"),
		&upstream.Error{Failure: upstream.Refused}, &upstream.Error{Failure: upstream.Timeout}, &upstream.Error{Failure: upstream.ClientGone}, &upstream.Error{Failure: upstream.Overloaded, Err: io.EOF}, &upstream.Error{Failure: upstream.CircuitOpen, Err: io.EOF},
		&upstream.Error{Failure: upstream.ClientStalled}, &upstream.Error{Failure: upstream.ClientBroke},
		token.Errorf(token.MissingToken, ""), token.Errorf(token.InvalidToken, ""), token.Errorf(token.ExpiredToken, ""),
		token.Errorf(token.RevokedToken, ""), refuse(policyDenied, ""), refuse(insufficientAuthentication, ""), token.Errorf(token.BadRequest, ""), token.Errorf(token.InsufficientPrivileges, ""),
		token.Errorf(token.IssuerUnavailable, ""), token.Errorf(token.StoreUnavailable, ""),
	} {
		if f := asRefusal(fmt.Errorf("wrapped: %w", err)); answers[f.reason].status == 0 {
			t.Errorf("%v becomes %q, which has no answer", err, f.reason)
		}
	}
}

func TestAPanicIsA500(t *testing.T) {
	b := newBench(t, func(http.ResponseWriter, *http.Request) {}, "")
	b.gateway.current.Load().routes[0].to.weighted = nil
	res, body := b.get("/open", "")
	var p problem
	if err := json.Unmarshal([]byte(body), &p); err != nil || res.StatusCode != 500 || p.Reason != internalError {
		t.Errorf("got %d %s", res.StatusCode, body)
	}
}

// Requests and reloads at once: none is lost, every old configuration drains.
func TestReloadUnderLoad(t *testing.T) {
	b := newBench(t, func(http.ResponseWriter, *http.Request) {}, "")
	raw := b.token(b.claims(`"privileges":["READ"]`))
	keys := b.gateway.current.Load().issuers["main"]
	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for ctx.Err() == nil {
				if res, body := b.get("/guarded", raw); res.StatusCode != 200 {
					t.Errorf("got %d %s", res.StatusCode, body)
					return
				}
			}
		})
	}
	for i := range 100 {
		extra := ""
		if i%2 == 0 {
			extra = "  - match: /more\n    public: true\n    upstream: http://127.0.0.1:1\n"
		}
		old := b.gateway.current.Load()
		if err := b.gateway.Reload(ctx, b.config(extra)); err != nil {
			t.Fatal(err)
		}
		<-old.drained
	}
	cancel()
	callers.Wait()
	if b.gateway.current.Load().issuers["main"] != keys {
		t.Error("an issuer that did not change was not carried over")
	}
}

func TestARejectedReloadChangesNothing(t *testing.T) {
	b := newBench(t, func(http.ResponseWriter, *http.Request) {}, "")
	before := b.gateway.current.Load()
	err := b.gateway.Reload(t.Context(), b.config("  - match: /{x}/y\n    public: true\n    upstream: http://127.0.0.1:1\n  - match: /x/{y}\n    public: true\n    upstream: http://127.0.0.1:1\n"))
	var faults config.Faults
	if !errors.As(err, &faults) || faults[0].Line == 0 {
		t.Fatalf("got %v", err)
	}
	if b.gateway.current.Load() != before {
		t.Error("the configuration was swapped")
	}
}
