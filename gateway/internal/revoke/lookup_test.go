package revoke

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/sony/gobreaker/v2"

	"gatehouse/gateway/token"
)

func verified(t *testing.T, claims string) *token.Verified {
	t.Helper()
	c, err := token.ParseClaims([]byte(claims))
	if err != nil {
		t.Fatal(err)
	}
	v := &token.Verified{Issuer: "main", Claims: c, Key: "k1", Hash: "h4sh"}
	v.IssuedAt, v.HasIssuedAt = c.Get("iat").Float()
	return v
}

func client(t *testing.T, addr string) redis.UniversalClient {
	c := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1, DisableIdentity: true, Protocol: 2})
	t.Cleanup(func() { c.Close() })
	return c
}

func reasonOf(err error) token.Reason {
	var e *token.Error
	errors.As(err, &e)
	if e == nil {
		return ""
	}
	return e.Reason
}

var all = []Kind{JTI, SID, Subject, ClientID}

const claims = `{"jti":"a:b","sid":"s1","sub":"u1","client_id":"c1","iat":1700000000}`

func TestWhatRevokes(t *testing.T) {
	for _, c := range []struct {
		name, claims, key, value string
		check                    []Kind
		revoked                  bool
	}{
		{"nothing written", claims, "other", "1", all, false},
		{"jti, colons included", claims, "revoked:jti:main:a:b", "1", all, true},
		{"jti, empty value", claims, "revoked:jti:main:a:b", "", all, true},
		{"jti lifted", claims, "revoked:jti:main:a:b", "-", all, false},
		{"jti of another issuer", claims, "revoked:jti:other:a:b", "1", all, false},
		{"jti not checked", claims, "revoked:jti:main:a:b", "1", []Kind{SID}, false},
		{"no jti in the token", `{"sub":"u1"}`, "revoked:jti:main:", "1", all, false},
		{"sid", claims, "revoked:sid:main:s1", "x", all, true},
		{"kid, whatever check lists", claims, "revoked:kid:main:k1", "1", nil, true},
		{"kid lifted", claims, "revoked:kid:main:k1", "-", nil, false},
		{"jws, whatever check lists", claims, "revoked:jws:main:h4sh", "1", nil, true},
		{"sub before iat", claims, "revoked:sub:main:u1", "1699999999", all, false},
		{"sub at iat", claims, "revoked:sub:main:u1", "1700000000", all, true},
		{"sub after iat", claims, "revoked:sub:main:u1", "1700000001", all, true},
		{"sub, iat later in that second", `{"sub":"u1","iat":1700000000.9}`, "revoked:sub:main:u1", "1700000000", all, true},
		{"sub, iat in the next second", `{"sub":"u1","iat":1700000001.1}`, "revoked:sub:main:u1", "1700000000", all, false},
		{"sub, no iat", `{"sub":"u1"}`, "revoked:sub:main:u1", "1700000000", all, true},
		{"sub, no time", claims, "revoked:sub:main:u1", "1", all, true},
		{"sub, small number", claims, "revoked:sub:main:u1", "1000000000", all, true},
		{"sub, text", claims, "revoked:sub:main:u1", "yes", all, true},
		{"sub, negative", claims, "revoked:sub:main:u1", "-5", all, true},
		{"sub, beyond int64", claims, "revoked:sub:main:u1", "99999999999999999999", all, true},
		{"sub lifted", claims, "revoked:sub:main:u1", "-", all, false},
		{"client_id", claims, "revoked:client_id:main:c1", "1700000000", all, true},
		{"client_id earlier", claims, "revoked:client_id:main:c1", "1600000000", all, false},
		{"a number as jti", `{"jti":7}`, "revoked:jti:main:7", "1", all, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := miniredis.RunT(t)
			if err := s.Set(c.key, c.value); err != nil {
				t.Fatal(err)
			}
			l := NewLookup(Options{Client: client(t, s.Addr()), Check: c.check})
			err := l.Check(t.Context(), verified(t, c.claims))
			if want := map[bool]token.Reason{true: token.RevokedToken}[c.revoked]; reasonOf(err) != want {
				t.Errorf("got %v, want %q", err, want)
			}
		})
	}
}

func TestAKeyOfAnotherTypeRevokes(t *testing.T) {
	s := miniredis.RunT(t)
	if _, err := s.SAdd("revoked:sid:main:s1", "x"); err != nil {
		t.Fatal(err)
	}
	l := NewLookup(Options{Client: client(t, s.Addr()), Check: all})
	if err := l.Check(t.Context(), verified(t, claims)); reasonOf(err) != token.RevokedToken {
		t.Errorf("got %v", err)
	}
}

func TestOutage(t *testing.T) {
	for _, allow := range []bool{false, true} {
		s := miniredis.RunT(t)
		failures := 0
		l := NewLookup(Options{Client: client(t, s.Addr()), Check: all, Allow: allow, OnError: func(error) { failures++ }})
		v := verified(t, claims)
		if err := l.Check(t.Context(), v); err != nil {
			t.Fatal(err)
		}
		s.SetError("LOADING Redis is loading the dataset in memory")
		err := l.Check(t.Context(), v)
		if want := map[bool]token.Reason{false: token.StoreUnavailable}[allow]; reasonOf(err) != want || failures != 1 {
			t.Errorf("allow %v: got %v after %d failures", allow, err, failures)
		}
		if !allow && err.(*token.Error).RetryAfter <= 0 {
			t.Error("no RetryAfter")
		}
	}
}

// Redis hangs: after tripAfter look-ups the breaker answers at once, and one
// request tries again after openFor. synctest's clock counts what is waited.
func TestBreaker(t *testing.T) {
	hang := client(t, "127.0.0.1:0") // outside the bubble: go-redis keeps goroutines of its own
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		hang.(*redis.Client).AddHook(hook(func(ctx context.Context) error {
			asked++
			<-ctx.Done()
			return ctx.Err()
		}))
		l := NewLookup(Options{Client: hang, Check: all})
		v := verified(t, claims)
		start := time.Now()
		for range 100 {
			if err := l.Check(t.Context(), v); reasonOf(err) != token.StoreUnavailable {
				t.Fatalf("got %v", err)
			}
		}
		if asked != tripAfter || time.Since(start) != tripAfter*lookupTimeout {
			t.Errorf("100 requests asked %d times and waited %v", asked, time.Since(start))
		}
		time.Sleep(openFor + time.Millisecond)
		_ = l.Check(t.Context(), v)
		_ = l.Check(t.Context(), v)
		if asked != tripAfter+1 {
			t.Errorf("asked %d times after the pause, want one trial", asked-tripAfter)
		}
	})
}

// A client that breaks its request off at once is answered as any other: else
// that alone would open `on_error: allow` to it.
func TestAClientThatWentAway(t *testing.T) {
	s := serve(t)
	s.revoke("x")
	failures := 0
	l := NewLookup(Options{Client: connect(t, s.addr), Check: all, Allow: true, OnError: func(error) { failures++ }})
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Check(gone, withJTI(t, "x")); reasonOf(err) != token.RevokedToken || failures != 0 {
		t.Errorf("got %v after %d failures", err, failures)
	}
	if err := l.Check(gone, withJTI(t, "y")); err != nil || failures != 0 {
		t.Errorf("not revoked: got %v after %d failures", err, failures)
	}
}

// A real Redis that hangs, or is gone: few requests ask it, the others wait for
// nothing.
func TestDeadRedis(t *testing.T) {
	for name, die := range map[string]func(*instance){
		"hangs": func(s *instance) { s.signal(syscall.SIGSTOP) },
		"gone":  (*instance).kill,
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t)
			asked := 0
			l := NewLookup(Options{Client: connect(t, s.addr), Check: all, OnError: func(err error) {
				if !errors.Is(err, gobreaker.ErrOpenState) {
					asked++
				}
			}})
			v := verified(t, claims)
			if err := l.Check(t.Context(), v); err != nil {
				t.Fatal(err)
			}
			die(s)
			start := time.Now()
			for range 10_000 {
				if err := l.Check(t.Context(), v); reasonOf(err) != token.StoreUnavailable {
					t.Fatal(err)
				}
			}
			if most := tripAfter + int(time.Since(start)/openFor); asked > most {
				t.Errorf("asked %d times, want at most %d", asked, most)
			}
			if name == "gone" {
				s.start()
			} else {
				s.signal(syscall.SIGCONT)
			}
			eventually(t, "asked again", func() bool { return l.Check(t.Context(), v) == nil })
		})
	}
}

// hook answers every pipeline in Redis's place.
type hook func(context.Context) error

func (h hook) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (h hook) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (h hook) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := h(ctx)
		for _, c := range cmds {
			c.SetErr(err)
		}
		return err
	}
}

func TestWrite(t *testing.T) {
	s := miniredis.RunT(t)
	c := client(t, s.Addr())
	if err := Write(t.Context(), c, Key(JTI, "main", "x"), "1", 1500*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if got := s.TTL("revoked:jti:main:x"); got != 2*time.Second {
		t.Errorf("TTL %v, want it rounded up", got)
	}
	if err := Write(t.Context(), c, Key(KeyID, "main", "k"), "1", 0); err != nil {
		t.Fatal(err)
	}
	if got := s.TTL("revoked:kid:main:k"); got != 0 {
		t.Errorf("TTL %v, want none", got)
	}
	s.SetError("OOM command not allowed")
	if err := Write(t.Context(), c, "k", "1", 0); err == nil {
		t.Error("a refused write gives no error")
	}
}

// TestList: a list that is not whole says so.
func TestList(t *testing.T) {
	s := serve(t)
	s.revoke("x")
	s.do("SET", Key(KeyID, "main", "k"), "1")
	s.do("SADD", Key(SID, "main", "s"), "1")
	s.do("SET", "revoked:odd", "1")
	lists := func(c redis.UniversalClient) (map[string]Entry, error) {
		t.Helper()
		entries := map[string]Entry{}
		err := List(t.Context(), c, func(e Entry) bool { entries[e.Value] = e; return true })
		return entries, err
	}
	entries, err := lists(s.Client)
	if x := entries["x"]; err != nil || len(entries) != 3 || x.Left <= 0 || x.Left > 600*time.Second || x.Content != "1" {
		t.Errorf("%+v, %v", entries, err)
	}
	if k, list := entries["k"], entries["s"]; k.Left != 0 || k.Content != "1" || list.Kind != SID || list.Content != "" {
		t.Errorf("%+v", entries)
	}
	for _, lacks := range []string{"pttl", "get"} {
		s.do("ACL", "SETUSER", lacks, "on", ">pw", "~revoked:*", "+scan", "+get", "+pttl", "-"+lacks)
		c := redis.NewClient(&redis.Options{Addr: s.addr, Username: lacks, Password: "pw", Protocol: 2, DisableIdentity: true})
		t.Cleanup(func() { c.Close() })
		if entries, err := lists(c); err == nil || !strings.Contains(err.Error(), "NOPERM") {
			t.Errorf("without %s: %+v, %v", lacks, entries, err)
		}
	}
}
