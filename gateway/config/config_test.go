package config

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// env is the environment of all tests.
func env(name string) (string, bool) {
	value, ok := map[string]string{
		"SECRET": "correct horse battery staple",
		"EMPTY":  "",
		"PORT":   "9009",
		"BYTES":  "4096",
		"YES":    "true",
		"KEY":    "-----BEGIN PUBLIC KEY-----",
	}[name]
	return value, ok
}

// wants runs f over the files of a directory, each with what it is to say in
// comments at its end: "# want: LINE:COLUMN: message". It must say that, no
// more and no less. UPDATE=1 writes what is said now; read the difference.
func wants(t *testing.T, dir string, f func(t *testing.T, file string, body []byte) []Fault) {
	files, err := filepath.Glob(dir + "/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in %s: %v", dir, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			body, _, _ := strings.Cut(string(data), "# want: ")
			var want, got []string
			for _, m := range regexp.MustCompile(`(?m)^# want: (.*)$`).FindAllStringSubmatch(string(data), -1) {
				want = append(want, m[1])
			}
			for _, fault := range f(t, file, []byte(body)) {
				got = append(got, strings.TrimPrefix(fault.Error(), file+":"))
			}
			if os.Getenv("UPDATE") != "" {
				for _, g := range got {
					body += "# want: " + g + "\n"
				}
				if err := os.WriteFile(file, []byte(body), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if !slices.Equal(got, want) || len(got) == 0 {
				t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
			}
		})
	}
}

// Each file of testdata/fault is wrong in one way.
func TestFaults(t *testing.T) {
	wants(t, "testdata/fault", func(t *testing.T, file string, body []byte) []Fault {
		cfg, warnings, err := Parse(file, body, Options{Env: env})
		faults, ok := err.(Faults)
		if !ok || cfg != nil || warnings != nil {
			t.Fatalf("got %v, %v and the error %v, want only faults", cfg, warnings, err)
		}
		for _, fault := range faults {
			for _, secret := range []string{"horse", "hidden", "hunter2", "1234567890123"} {
				if strings.Contains(fault.Message, secret) {
					t.Errorf("a fault shows a secret: %v", fault)
				}
			}
		}
		return faults
	})
}

// Each file of testdata/warning is right, and yet probably not what was meant.
func TestWarnings(t *testing.T) {
	wants(t, "testdata/warning", func(t *testing.T, file string, body []byte) []Fault {
		_, warnings, err := Parse(file, body, Options{Env: env})
		if err != nil {
			t.Fatal(err)
		}
		return warnings
	})
}

// load reads a file of testdata/ok, with which nothing is wrong.
func load(t *testing.T, file string) *Config {
	t.Helper()
	cfg, warnings, err := Load(file, Options{Env: env})
	if err != nil || len(warnings) > 0 {
		t.Fatalf("%s: %v, warnings %v", file, err, warnings)
	}
	return cfg
}

func TestOK(t *testing.T) {
	files, err := filepath.Glob("testdata/ok/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) { load(t, file) })
	}
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s is\n%+v, want\n%+v", what, got, want)
	}
}

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestDefaults(t *testing.T) {
	cfg := load(t, "testdata/ok/smallest.yaml")
	main := &Issuer{
		Name:           "main",
		Profile:        "jwt",
		Issuer:         "https://id.example.com",
		Audiences:      []string{"https://api.example.com"},
		Algorithms:     []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"},
		Leeway:         30 * time.Second,
		PrivilegesFrom: []ClaimSource{{Claim: "privileges"}},
		TokenFrom:      []TokenSource{{Header: "Authorization", Prefix: "Bearer"}},
		JWKS:           JWKS{Refresh: 10 * time.Minute, MinRefreshInterval: 30 * time.Second, MaxStale: 24 * time.Hour},
	}
	cfg.source = source{}
	equal(t, "the configuration", cfg, &Config{
		Version:   1,
		Server:    Server{Listen: ":8080", MaxConnections: 50_000, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, WriteTimeout: 30 * time.Second},
		Issuers:   map[string]*Issuer{"main": main},
		Headers:   Headers{Prefix: "x-jwt-", MaxBytes: 8192},
		Limits:    map[string]*Limit{},
		Upstreams: map[string]*Upstream{},
		Defaults:  Defaults{Timeout: 10 * time.Second, IdleTimeout: time.Minute, Transport: "direct", CloseOnExpiry: true, Mode: "enforce"},
		Routes: []*Route{{
			Name:      "GET /heroes/{id}",
			Match:     Match{Methods: []string{"GET"}, Path: "/heroes/{id}"},
			Issuers:   []*Issuer{main},
			All:       []string{"READ_HEROES"},
			Upstreams: only(newUpstream("http://127.0.0.1:9000", []Target{{mustURL(t, "http://127.0.0.1:9000"), "", 1}})),

			CloseOnExpiry: true,
		}},
	})
	if cfg.Revocation.Enabled() {
		t.Error("revocation is on, though the file does not ask for it")
	}
}

func TestDefaultsOfSections(t *testing.T) {
	cfg := parse(t, `
redis:
  url: redis://127.0.0.1:6379
revocation: {}
issuers:
  a:
    issuer: none
    audiences: any
    max_lifetime: 1h
    secret: 0123456789abcdef0123456789abcdef
limits:
  a:
    key: [ip]
    rate: 7/1m30s
routes:
  - match: /
    privileges: []
    limits: [a]
    upstream: http://127.0.0.1:9000
`)
	equal(t, "revocation", cfg.Revocation, Revocation{Check: []string{"jti", "sid", "sub", "client_id"}, Mode: "lookup", OnError: "deny"})
	equal(t, "the algorithms beside a secret", cfg.Issuers["a"].Algorithms, []string{"HS256"})
	equal(t, "the limit", cfg.Limits["a"], &Limit{Name: "a", Key: []string{"ip"}, Rate: Rate{7, 90 * time.Second}, IPv6Prefix: 64, Cost: 1})
}

func TestDefaultsOfIntrospection(t *testing.T) {
	cfg := parse(t, `
issuers:
  a:
    issuer: https://id.example.com
    audiences: any
    introspection:
      when: opaque
      auth:
        client_id: gatehouse
        client_secret: hidden
routes:
  - match: /
    privileges: []
    upstream: http://127.0.0.1:9000
`)
	equal(t, "the introspection", cfg.Issuers["a"].Introspection, Introspection{
		When: "opaque", Interval: 30 * time.Second, Auth: ClientAuth{Method: "client_secret_basic", ClientID: "gatehouse", ClientSecret: "hidden"},
		Misses: Misses{Rate{50, time.Second}, 200},
	})
}

func TestWholePolicy(t *testing.T) {
	p := load(t, "testdata/ok/whole.yaml").Policies["whole"]
	missing := false
	equal(t, "the first rule", p.Allow[0], PolicyRule{"first", Condition{
		Methods: []string{"GET"}, Has: []string{"A"}, One: []string{"B", "C"}, IPs: []string{"10.0.0.0/8", "::1"},
		Time: &PolicyTime{"08:00", "18:00", "Europe/Berlin", []string{"mon", "fri"}, "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"},
		Claims: []PolicyMatch{
			{Of: "tenant", Equals: "acme"}, {Of: "level", Equals: json.Number("2.50")}, {Of: "plan", In: []any{"gold", json.Number("7"), true}},
			{Of: "email", Matches: `.*@example\.com`}, {Of: "hero", Param: "id"}, {Of: "amr", Contains: "otp"}, {Of: "suspended", Present: &missing},
		},
		Headers: []PolicyMatch{{Of: "X-Region", Equals: "eu"}},
		All:     []Condition{{Any: []Condition{{Methods: []string{"GET", "HEAD"}}, {Not: &Condition{IPs: []string{"10.1.0.0/16"}}}}}},
	}})
	equal(t, "the second rule", p.Allow[1], PolicyRule{"", Condition{When: `claims.sub == "a"`}})
	equal(t, "the tests", p.Tests, []PolicyTest{{
		"one", `{"sub":"a","n":1e3,"list":[null,true,{}],"https://x.example/a":"b\n\u003c"}`, []string{}, "POST",
		map[string]string{"id": "7"}, map[string]string{"X-Region": "eu"}, "10.0.0.1", "2026-06-01T12:00:00Z", "allow", "allow[1]",
	}, {Expect: "deny"}})
	equal(t, "a place in the policy", p.At("allow[0].claims.email.matches").String(), "testdata/ok/policies/whole.yaml:19:24")
}

func parse(t *testing.T, text string) *Config {
	t.Helper()
	cfg, _, err := Parse("test.yaml", []byte(text), Options{Env: env})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestWhole(t *testing.T) {
	cfg := load(t, "testdata/ok/whole.yaml")
	equal(t, "server", cfg.Server, Server{
		Listen: "0.0.0.0:8443", Status: "[::1]:9902",
		Admin: "127.0.0.1:9901", AdminAuth: AdminAuth{TokenFile: "testdata/ok/admin-token", Clients: map[string]string{"hero-app": "0123456789abcdef"}, TLS: &TLS{Certificates: []Certificate{{"testdata/ok/admin.pem", "testdata/ok/admin-key.pem"}}, ClientCAFile: "testdata/ok/operators.pem", ClientAuth: "require", MinVersion: "1.2"}},
		Audit:          &Audit{File: "testdata/ok/audit.log", MaxBytes: 10 << 20, Keep: 5, SampleAllows: 100},
		Decision:       &Decision{"127.0.0.1:9903", "nginx"},
		AccessLog:      AccessLog{SampleAllows: 10},
		Tracing:        &Tracing{Endpoint: "https://collector.example.com/otlp", SampleRatio: 0.25, Headers: map[string]string{"Authorization": "Basic abc"}},
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")},
		AuthFailures:   &AuthFailures{Rate{10, time.Minute}, 20},
		TLS: &TLS{
			Certificates: []Certificate{{"testdata/ok/tls/api.pem", "testdata/ok/tls/api.key"}, {"/etc/gatehouse/other.pem", "/etc/gatehouse/other.key"}},
			ClientCAFile: "testdata/ok/tls/clients.pem", ClientAuth: "request", MinVersion: "1.3",
		},
		MaxConnections: 5000, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, WriteTimeout: 20 * time.Second,
	})
	equal(t, "redis", cfg.Redis, Redis{"rediss://user:password@redis.example.com:6380/2", "gatehouse", "secret", "testdata/ok/redis.pem", 3})
	equal(t, "revocation", cfg.Revocation, Revocation{Check: []string{"jti", "sid", "sub"}, Mode: "replica", Sync: "poll", PollInterval: 2 * time.Second, MaxStale: time.Minute, OnError: "allow"})
	equal(t, "headers", cfg.Headers, Headers{
		Prefix: "x-auth-user-",
		Claims: map[string]HeaderClaim{
			"id":    {Claim: "sub"},
			"roles": {Claim: "realm_access.roles", Type: "list"},
			"email": {Claim: "email", Header: "X-User-Email"},
		},
		MaxBytes: 4096,
	})
	perUser := &Limit{Name: "per_user", Key: []string{"claim:sub", "route"}, Rate: Rate{100, time.Minute}, Burst: 20, IPv6Prefix: 56, Cost: 1, Costs: map[string]int{"POST": 5, "OPTIONS": 0},
		Shared: true, Lease: 2, OnError: "allow", TierBy: "claim:plan", Tiers: map[string]Rate{"gold": {1000, time.Minute}}}
	perIP := &Limit{Name: "per_ip", Key: []string{"ip"}, Rate: Rate{50, time.Second}, IPv6Prefix: 64, Cost: 2, Mode: "report"}
	equal(t, "limits", cfg.Limits, map[string]*Limit{"per_user": perUser, "per_ip": perIP})
	equal(t, "privileges", cfg.Privileges, []Privilege{{"CREATE_HERO", "May create heroes.", []string{"main"}}, {"READ_HEROES", "", []string{"main"}}, {"scope:heroes", "", nil}})
	heroes := &Upstream{
		Name:      "heroes",
		Targets:   []Target{{mustURL(t, "http://127.0.0.1:9001"), "", 1}, {mustURL(t, "https://heroes.example.com/base"), "", 3}, {mustURL(t, "h2c://127.0.0.1:9002"), "testdata/ok/run/heroes.sock", 1}, {mustURL(t, "http://localhost"), "/run/app.sock", 1}},
		TLS:       UpstreamTLS{"testdata/ok/heroes-ca.pem", "heroes.internal", Certificate{"testdata/ok/client.pem", "/etc/gatehouse/client.key"}},
		Balance:   "least_requests",
		SlowStart: 30 * time.Second,
		Health: &Health{
			Path: "/healthz?deep=1", Host: "heroes.internal:8080", Interval: 5 * time.Second, Timeout: time.Second, Healthy: 1, Unhealthy: 2, Expect: []StatusRange{{200, 299}, {401, 401}},
		},
		OutlierDetection: &OutlierDetection{3, 10, 10 * time.Second, time.Minute, 100},
		NoHealthyTarget:  "try_all",
		ConnectTimeout:   time.Second,
		Timeout:          20 * time.Second,
		IdleTimeout:      10 * time.Minute,
		Transport:        "direct",
		MaxRequests:      1000,
		Retries:          &Retries{2, []string{"connect_failure", "503"}, 3 * time.Second, 10},
		CircuitBreaker:   &CircuitBreaker{80, 100, 30 * time.Second, 5 * time.Second},
	}
	villains := newUpstream("villains", []Target{{mustURL(t, "http://127.0.0.1:9004"), "", 1}})
	villains.Balance, villains.HashBy = "hash", "claim:sub"
	villains.Health = &Health{Path: "/", Interval: 10 * time.Second, Timeout: 2 * time.Second, Healthy: 2, Unhealthy: 3, Expect: []StatusRange{{200, 299}}}
	villains.OutlierDetection = &OutlierDetection{5, 0, 30 * time.Second, 5 * time.Minute, 50}
	villains.Retries = &Retries{1, []string{"connect_failure", "reset", "502", "503", "504"}, 0, 20}
	villains.CircuitBreaker = &CircuitBreaker{50, 20, 10 * time.Second, 10 * time.Second}
	bare := newUpstream("http://127.0.0.1:9003/base/", []Target{{mustURL(t, "http://127.0.0.1:9003/base/"), "", 1}})
	sidekicks, gadgets, extras, robots := newUpstream("sidekicks", nil), newUpstream("gadgets", nil), newUpstream("extras", nil), newUpstream("robots", nil)
	sidekicks.TLS.CAFile = "testdata/ok/heroes-ca.pem"
	sidekicks.DNS = &DNS{mustURL(t, "https://sidekicks.internal/base"), "_https._tcp.sidekicks.internal", "ipv4", []string{"127.0.0.1:5353", "[::1]:53"}, 2 * time.Second, time.Minute}
	extras.DNS = &DNS{mustURL(t, "http://extras.internal:8080"), "", "", nil, time.Second, 5 * time.Minute}
	registry := mustURL(t, "http://gatehouse:secret@eureka-1.internal:8761/eureka")
	gadgets.Eureka = &Eureka{[]*url.URL{registry, mustURL(t, "https://eureka-2.internal/eureka/")}, "GADGETS-SERVICE", "h2c", true, 10 * time.Second}
	robots.Eureka = &Eureka{[]*url.URL{mustURL(t, "http://eureka-1.internal:8761/eureka")}, "robots", "http", false, 30 * time.Second}
	equal(t, "upstreams", cfg.Upstreams, map[string]*Upstream{"heroes": heroes, "villains": villains, "sidekicks": sidekicks, "gadgets": gadgets, "extras": extras, "robots": robots})
	deny := HeaderEdits{Set: map[string]string{"X-Frame-Options": "DENY"}}
	equal(t, "defaults", cfg.Defaults, Defaults{Issuers: []string{"main"}, Limits: []string{"per_ip"}, Timeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, Transport: "net_http", MaxBody: 1 << 30, ResponseHeaders: deny, Mode: "report"})

	jwks := JWKS{Refresh: 10 * time.Minute, MinRefreshInterval: 30 * time.Second, MaxStale: 24 * time.Hour}
	privileges := []ClaimSource{{Claim: "privileges"}}
	bearer := TokenSource{Header: "Authorization", Prefix: "Bearer"}
	main := &Issuer{
		Name: "main", Profile: "rfc9068", Issuer: "https://id.example.com", Audiences: []string{"https://api.example.com", "heroes"},
		RequiredClaims: []RequiredClaim{{"realm_access.level", []string{"2", "3"}}, {"token_use", []string{"access"}}, {"verified", []string{"true"}}},
		Algorithms:     []string{"ES256", "EdDSA"},
		PrivilegesFrom: []ClaimSource{
			{Claim: "realm_access.roles"}, {Claim: "scope", Prefix: "scope:"}, {Claim: "/https:~1~1x.example~1roles", Prefix: "x:"},
		},
		TokenFrom:   []TokenSource{bearer, {Header: "X-Token", Prefix: "Token"}, {Header: "X-Bare"}, {Cookie: "session"}, {Query: "access_token"}, {WebSocketProtocol: "access_token"}},
		JWKS:        JWKS{"https://id.example.com/keys?tenant=a", 5 * time.Minute, 10 * time.Second, time.Hour, "testdata/ok/main.jwks"},
		MaxLifetime: 24 * time.Hour,
		MayGrant:    []string{"CREATE_HERO", "READ_HEROES", "scope:heroes"},
		IgnoreCnf:   true,
		Introspection: Introspection{
			When: "always", Interval: time.Minute, Endpoint: "https://id.example.com/introspect?tenant=a", MaxStale: 5 * time.Minute,
			Auth:   ClientAuth{Method: "private_key_jwt", ClientID: "gatehouse", KeyFile: "testdata/ok/keys/gatehouse.pem"},
			Misses: Misses{Rate{10, time.Second}, 20},
		},
		ActorFrom:         []string{"act.sub", "impersonator"},
		Mode:              "enforce",
		BackchannelLogout: BackchannelLogout{"/logout/main", []string{"gatehouse", "shop"}, Rate{5, time.Minute}},
	}
	local := &Issuer{
		Name: "local", Profile: "jwt", AcceptIDTokens: true, RequiredClaims: []RequiredClaim{{"jti", nil}, {"sub", nil}}, Issuer: "http://idp.internal:9000/realm", Insecure: true, Algorithms: publicKeyAlgorithms, Leeway: 30 * time.Second, MaxLifetime: time.Hour,
		PrivilegesFrom: privileges, TokenFrom: []TokenSource{bearer}, JWKS: jwks, MayGrant: []string{"READ_HEROES"},
	}
	seed := &Issuer{
		Name: "seed", Profile: "jwt", Algorithms: publicKeyAlgorithms, Leeway: 30 * time.Second, MaxLifetime: time.Hour,
		Keys:           []Key{{File: "testdata/ok/keys/public.pem"}, {File: "/etc/gatehouse/public.pem"}, {Text: "-----BEGIN PUBLIC KEY-----"}},
		PrivilegesFrom: []ClaimSource{{Claim: "scp"}}, TokenFrom: []TokenSource{bearer}, JWKS: jwks,
	}
	node := &Issuer{
		Name: "node", Profile: "jwt", Issuer: "heroes-auth", Audiences: []string{"heroes"}, BackchannelLogout: BackchannelLogout{"/logout/node", []string{"heroes"}, Rate{10, time.Second}}, Secret: "0123456789abcdef0123456789abcdef0123456789abcdef", Algorithms: []string{"HS256", "HS384"},
		Leeway: 30 * time.Second, MaxLifetime: time.Hour, PrivilegesFrom: privileges, TokenFrom: []TokenSource{bearer}, JWKS: jwks,
	}
	equal(t, "issuers", cfg.Issuers, map[string]*Issuer{"main": main, "local": local, "seed": seed, "node": node})

	want := []*Route{{
		Name: "create-hero", Match: Match{[]string{"POST", "PUT"}, "heroes.example.com", "/heroes-service/hero"},
		Issuers: []*Issuer{main}, All: []string{"CREATE_HERO"}, Limits: []*Limit{perUser, perIP}, Upstreams: only(heroes),
		Policy: "whole", Delegation: Delegation{Actors: []Actor{{"", "helpdesk"}, {"https://other.example.com", "batch"}}},
		StepUp:      StepUp{[]string{"gold", "silver"}, []string{"otp"}, []string{"hwk", "swk"}, 5 * time.Minute},
		StripPrefix: "/heroes-service", ForwardToken: true, EncodedSlash: true, IgnoreCase: true, Timeout: time.Minute, IdleTimeout: time.Hour, CloseOnExpiry: true, Mode: "enforce",
		MaxBody: 10 << 20, AddPrefix: "/v2", RewriteHost: "heroes.internal:8080",
		RequestHeaders:  HeaderEdits{Set: map[string]string{"X-Tenant": "blue"}, Add: map[string]string{"Accept-Language": "en"}, Remove: []string{"User-Agent"}},
		ResponseHeaders: HeaderEdits{Remove: []string{"Server"}},
		Cookies:         Cookies{Domain: map[string]string{"heroes.internal": "api.example.com"}, Path: map[string]string{"/": "/heroes-service"}},
		CORS:            &CORS{[]string{"https://app.example.com", "https://*.example.org"}, []string{"Authorization", "X-Csrf"}, []string{"ETag"}, true, 10 * time.Minute},
	}, {
		Name: "GET,HEAD heroes.example.com/heroes/{id}/{rest...}", Match: Match{[]string{"GET", "HEAD"}, "heroes.example.com", "/heroes/{id}/{rest...}"},
		Issuers: []*Issuer{main, local}, All: []string{"READ_HEROES"}, Any: []string{"scope:heroes", "CREATE_HERO"},
		Limits: []*Limit{perIP}, Upstreams: only(bare), MaxBody: 1 << 30, ResponseHeaders: deny,
	}, {
		Name: "/seed/{$}", Match: Match{Path: "/seed/{$}"},
		Delegation: Delegation{Deny: true}, StepUp: StepUp{AllAMR: []string{"otp"}},
		Issuers: []*Issuer{seed}, Limits: []*Limit{perIP}, Upstreams: only(bare), MaxBody: 1 << 30, ResponseHeaders: deny,
	}, {
		Name: "/node/", Match: Match{Path: "/node/"}, Optional: true,
		Issuers: []*Issuer{node}, Limits: []*Limit{perIP}, MaxBody: 1 << 30, ResponseHeaders: deny,
		Upstreams: []Destination{
			{villains, 0, &When{[]RequiredClaim{{"plan", []string{"gold"}}, {"realm_access.roles", []string{"beta", "staff"}}}, []HeaderValue{{"X-Canary", []string{"1", "always"}}}}},
			{heroes, 95, nil}, {bare, 1, nil},
		},
		Sticky: "claim:sub",
	}, {
		Name: "/healthz", Match: Match{Path: "/healthz"}, Public: true,
		Limits: []*Limit{perIP}, Upstreams: only(villains), MaxBody: 1 << 30, ResponseHeaders: deny,
	}}
	for _, u := range []*Upstream{sidekicks, gadgets, extras, robots} {
		like := *want[len(want)-1]
		like.Name, like.Match.Path, like.Upstreams = "/"+u.Name, "/"+u.Name, only(u)
		want = append(want, &like)
	}
	if len(cfg.Routes) != len(want) {
		t.Fatalf("%d routes, want %d", len(cfg.Routes), len(want))
	}
	for i := range want {
		equal(t, fmt.Sprintf("routes[%d]", i), cfg.Routes[i], want[i])
	}
	equal(t, "tests", cfg.Tests, []*Test{{
		Name: "a hero is created", Method: "POST", URL: "Heroes.Example.com/heroes-service/hero?dry=true", Headers: map[string]string{"X-Region": "eu"}, IP: "10.0.0.1",
		Claims: `{"sub":"alice","privileges":["CREATE_HERO"],"level":2}`, Issuer: "main", Time: time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC),
		Expect: Expectation{Route: "create-hero", Rule: "staff", Upstream: "heroes", Path: "/hero?dry=true", Headers: map[string]string{"x-auth-user-id": "alice"}},
	}, {
		Name: "/healthz", Method: "GET", URL: "/healthz",
	}, {
		Name: "GET /seed/", Method: "GET", URL: "/seed/", Expect: Expectation{Status: 401, Reason: "missing_token"},
	}, {
		Name: "/nowhere", Method: "GET", URL: "/nowhere", Expect: Expectation{Status: 404},
	}})
	if cfg.Routes[1].Upstreams[0] != cfg.Routes[2].Upstreams[0] {
		t.Error("two routes with one URL do not share their upstream")
	}
	if cfg.Routes[0].Limits[1] != cfg.Limits["per_ip"] || cfg.Routes[0].Issuers[0] != cfg.Issuers["main"] || cfg.Routes[0].Upstreams[0].Upstream != cfg.Upstreams["heroes"] {
		t.Error("a route refers to copies")
	}
}

// whole.yaml shows every key, so that the tests above miss none.
func TestWholeIsWhole(t *testing.T) {
	data, err := os.ReadFile("testdata/ok/whole.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("testdata/ok/policies/whole.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keysOf(reflect.TypeFor[filePolicy](), nil) {
		if !regexp.MustCompile("(?m)(^|[ {-])" + key + ":").Match(text) {
			t.Errorf("testdata/ok/policies/whole.yaml has no %q", key)
		}
	}
	for _, key := range keysOf(reflect.TypeFor[fileConfig](), nil) {
		if key != "max_stale" && !regexp.MustCompile(`\b`+key+`:`).Match(data) {
			t.Errorf("the key %q is not in whole.yaml", key)
		}
	}
}

// keysOf returns the keys of t and of all types in it.
func keysOf(t reflect.Type, keys []string) []string {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return keysOf(t.Elem(), keys)
	case reflect.Struct:
		for i := range t.NumField() {
			// A condition holds conditions.
			if key := t.Field(i).Tag.Get("yaml"); key != "" && !slices.Contains(keys, key) {
				keys = keysOf(t.Field(i).Type, append(keys, key))
			}
		}
	}
	return keys
}

// reference puts one value where any text may stand, and returns what was read.
func reference(dir, value string) (string, error) {
	cfg, _, err := Parse(filepath.Join(dir, "routes.yaml"), []byte(`
routes:
  - name: `+value+`
    match: /
    public: true
    upstream: http://127.0.0.1:9000
`), Options{Env: env})
	if err != nil {
		return "", err
	}
	return cfg.Routes[0].Name, nil
}

func TestSubstitution(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"secret": "from a file\n", "windows": "from a file\r\n", "two": "one\n\n", "bare": "bare",
		"dollar": "${env:SECRET} $$", "long": strings.Repeat("a", 1<<20+1),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for value, want := range map[string]string{
		"${env:SECRET}":                 "correct horse battery staple",
		`"${env:SECRET}"`:               "correct horse battery staple",
		"'a ${env:PORT} b ${env:PORT}'": "a 9009 b 9009",
		"${env:PORT}":                   "9009",
		"${env:NOT_SET:-fallback: yes}": "", // the colon and the space make it a YAML map
		"${env:NOT_SET:-fallback}":      "fallback",
		"${env:NOT_SET:-a:-b}":          "a:-b",
		"${env:EMPTY:-fallback}":        "fallback",
		"${env:SECRET:-fallback}":       "correct horse battery staple",
		"x${env:EMPTY}":                 "x",
		"x${env:NOT_SET:-}":             "x",
		"${env:EMPTY}":                  "", // an empty name
		"${env:NOT_SET}":                "",
		"${file:secret}":                "from a file",
		"${file:windows}":               "from a file",
		"${file:bare}":                  "bare",
		"${file:" + dir + "/bare}":      "bare",
		"${file:dollar}":                "${env:SECRET} $$",
		"${file:long}":                  "",
		"${file:none}":                  "",
		"${file:two}":                   "", // a name with a newline
		"a$b $ $1 (c) $":                "a$b $ $1 (c) $",
		"$$":                            "$",
		"$${env:SECRET}":                "${env:SECRET}",
		"$$$${env:PORT}":                "$${env:PORT}",
		"$$${env:PORT}":                 "$9009",
		"${ENV:SECRET}":                 "",
		"${env:1}":                      "",
		"${env:}":                       "",
		"${}":                           "",
		"${":                            "",
		"${env:A:-${env:SECRET}}":       "",
	} {
		got, err := reference(dir, value)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s gives %q, %v; want %q", value, got, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "horse") {
			t.Errorf("%s: the fault shows what was put in: %v", value, err)
		}
	}
}

// A reference may stand for numbers and truth values, but never for a key.
func TestSubstitutionOfTypes(t *testing.T) {
	cfg := parse(t, `
server:
  listen: "127.0.0.1:${env:PORT}"
headers:
  max_bytes: ${env:BYTES}
routes:
  - match: /
    public: ${env:YES}
    timeout: ${env:NOT_SET:-3s}
    upstream: http://127.0.0.1:${env:PORT}
`)
	if cfg.Server.Listen != "127.0.0.1:9009" || cfg.Headers.MaxBytes != 4096 || !cfg.Routes[0].Public || cfg.Routes[0].Timeout != 3*time.Second || cfg.Routes[0].Upstreams[0].Upstream.Targets[0].URL.Port() != "9009" {
		t.Errorf("got %+v", cfg)
	}
	for text, want := range map[string]string{
		"headers:\n  max_bytes: ${env:SECRET}":                              `x:2:14: headers.max_bytes is "${env:SECRET}"; want a whole number above 0, without quotes`,
		"headers:\n  max_bytes: ${env:EMPTY}":                               `x:2:14: headers.max_bytes is "${env:EMPTY}"; want a whole number above 0, without quotes`,
		"${env:YES}: 1":                                                     `x:1:1: unknown key "${env:YES}" in the file; known here: `,
		"defaults:\n  timeout: ${env:PORT}":                                 `x:2:12: defaults.timeout is "${env:PORT}"; want a duration`,
		"server:\n  trusted_proxies:\n    - 1.2.3.4/8\n    - ${env:SECRET}": `x:4:7: server.trusted_proxies[1] is "${env:SECRET}": want a network`,
	} {
		if _, _, err := Parse("x", []byte(text), Options{Env: env}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gives\n%v, want\n%s", text, err, want)
		}
	}
}

func TestEnvironmentOfTheProcess(t *testing.T) {
	t.Setenv("GATEHOUSE_TEST_NAME", "from the process")
	cfg, _, err := Parse("x", []byte("routes:\n  - name: ${env:GATEHOUSE_TEST_NAME}\n    match: /\n    public: true\n    upstream: http://127.0.0.1:9000"), Options{})
	if err != nil || cfg.Routes[0].Name != "from the process" {
		t.Errorf("got %v, %v", cfg, err)
	}
}

// Faults that are found later stand where the value stands.
func TestPositions(t *testing.T) {
	cfg := load(t, "testdata/ok/whole.yaml")
	data, err := os.ReadFile("testdata/ok/whole.yaml")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(data), "\n")
	for path, want := range map[string]string{
		"version":                         "1",
		"server.trusted_proxies[1]":       `"fd00::/8"]`,
		"issuers":                         "issuers:",
		"issuers.main":                    "main:",
		"issuers.main.audiences[1]":       "heroes]",
		"issuers.main.jwks.uri":           "https://id.example.com/keys?tenant=a",
		"issuers.main.privileges_from[2]": "claim: /https:~1~1x.example~1roles",
		"issuers.seed.keys[1].file":       "/etc/gatehouse/public.pem",
		"issuers.seed.keys[1].nothing":    "file: /etc/gatehouse/public.pem",
		"issuers.seed.token_from[0]":      "header",
		"headers.claims.email.header":     "x-user-email",
		"limits.per_ip.rate":              "50/1s",
		"limits.per_ip.key[0]":            "ip",
		"routes":                          "routes:",
		"routes[2].upstream":              "http://127.0.0.1:9003/base/",
		"routes[3].upstream":              "upstream:",
		"routes[3].upstream[1].weight":    "95",
		"routes[0].match.host":            "POST,PUT Heroes.Example.com/heroes-service/hero",
		"routes[1].match.host":            "heroes.example.com",
		"routes[1].privileges.any[1]":     "CREATE_HERO]",
		"routes[0].privileges.all[0]":     "[CREATE_HERO]",
		"routes[99].upstream":             "routes:",
		"nothing.of.the.kind":             "version: 1",
	} {
		p := cfg.At(path)
		if p.File != "testdata/ok/whole.yaml" || p.Line == 0 {
			t.Errorf("%s is at %v", path, p)
		} else if got := lines[p.Line-1][p.Column-1:]; got != want {
			t.Errorf("%s is at %v: %q, want %q", path, p, got, want)
		}
	}
	equal(t, "the fault", cfg.Faultf("routes[3].upstream[1].to", "is %s", "down").Error(), "testdata/ok/whole.yaml:351:13: is down")
	equal(t, "the position in no file", new(Config).At("routes[0]"), Pos{})
}

// What gateway code finds wrong with a value may quote it, secret or not.
func TestFaultfMasks(t *testing.T) {
	cfg := parse(t, `
redis:
  url: redis://:${env:PORT}x@127.0.0.1:6379
revocation: {}
routes:
  - name: ${env:SECRET}
    match: /
    public: true
    upstream: http://127.0.0.1:9000
`)
	for path, want := range map[string]string{
		"routes[0].name": `bad "${env:SECRET}" 9009`,
		"routes[0]":      `bad "${env:SECRET}" 9009`,
		"redis.url":      `bad "correct horse battery staple" ${env:PORT}`,
		"server":         `bad "correct horse battery staple" 9009`,
	} {
		equal(t, path, cfg.Faultf(path, "bad %q %d", "correct horse battery staple", 9009).Message, want)
	}
}

func TestLoadErrors(t *testing.T) {
	if _, _, err := Load(filepath.Join(t.TempDir(), "none.yaml"), Options{}); !os.IsNotExist(err) {
		t.Errorf("a file that is not there gives %v", err)
	}
	long := filepath.Join(t.TempDir(), "long.yaml")
	if err := os.WriteFile(long, []byte("#"+strings.Repeat("a", MaxBytes)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Load(long, Options{}); err == nil || err.Error() != long+":1:1: the file is longer than 4 MiB" {
		t.Errorf("a long file gives %v", err)
	}
}

// Ten thousand routes load, and as many faults are all told.
func TestManyRoutes(t *testing.T) {
	var b strings.Builder
	b.WriteString("issuers:\n  main:\n    issuer: https://id.example.com\n    audiences: any\nupstreams:\n")
	for i := range 10_000 {
		fmt.Fprintf(&b, "  u%05d:\n    targets: [http://127.0.0.1:9000]\n", i)
	}
	b.WriteString("routes:\n")
	for i := range 10_000 {
		fmt.Fprintf(&b, "  - match: GET /service-%d/{id}/{rest...}\n    privileges: [READ_%d]\n    upstream: u%05d\n", i, i, i)
	}
	cfg := parse(t, b.String())
	if len(cfg.Routes) != 10_000 || cfg.Routes[9_999].All[0] != "READ_9999" {
		t.Errorf("%d routes", len(cfg.Routes))
	}
	_, _, err := Parse("x", []byte(strings.ReplaceAll(b.String(), "upstream: u", "upstream: v")), Options{})
	if faults, ok := err.(Faults); !ok || len(faults) != 10_000 {
		t.Errorf("%d faults, want 10000", len(faults))
	}
}

func TestPattern(t *testing.T) {
	for _, m := range []Match{{nil, "", "/"}, {[]string{"GET"}, "", "/x"}, {[]string{"GET", "PUT"}, "a.example", "/x"}} {
		cfg := parse(t, "issuers: {a: {issuer: https://a.example, audiences: any}}\nroutes:\n  - match: "+m.Pattern()+"\n    privileges: []\n    upstream: http://127.0.0.1:9000")
		equal(t, m.Pattern(), cfg.Routes[0].Match, m)
	}
}

// Whatever the bytes, there is no panic, and every fault stands in the file.
func FuzzPolicy(f *testing.F) {
	for _, pattern := range []string{"testdata/*/policies/*.yaml", "../../policies/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("no files in %s: %v", pattern, err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, faults := newReader("routes.yaml", Options{env, func(string) {}}).parsePolicy("p.yaml", "p", data)
		for _, fault := range faults {
			if fault.File != "p.yaml" || fault.Line < 1 || fault.Column < 1 {
				t.Errorf("a fault without a place: %v", fault)
			}
		}
		for _, test := range p.Tests {
			if len(faults) == 0 && test.Claims != "" && !json.Valid([]byte(test.Claims)) {
				t.Errorf("the claims of a test are no JSON: %s", test.Claims)
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/fault/*.yaml", "testdata/ok/*.yaml", "testdata/warning/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	breaks := regexp.MustCompile("\r\n|[\n\r\u0085\u2028\u2029]")
	f.Fuzz(func(t *testing.T, data []byte) {
		if strings.Contains(string(data), "file:") {
			return // it could name any file of this machine
		}
		cfg, warnings, err := Parse("x.yaml", data, Options{Env: env})
		if (cfg == nil) != (err != nil) {
			t.Fatalf("%v and %v", cfg, err)
		}
		faults, _ := err.(Faults)
		if err != nil && len(faults) == 0 {
			t.Fatalf("the error is %#v", err)
		}
		lines := len(breaks.FindAll(data, -1)) + 1
		for _, fault := range append(faults, warnings...) {
			if fault.File != "x.yaml" || fault.Line < 1 || fault.Line > lines || fault.Column < 1 || fault.Column > len(data)+1 || fault.Message == "" {
				t.Errorf("%d lines, and a fault at %d:%d: %s", lines, fault.Line, fault.Column, fault.Message)
			}
		}
	})
}

// only is where a route with one upstream leads.
func only(u *Upstream) []Destination { return []Destination{{Upstream: u, Weight: 1}} }
