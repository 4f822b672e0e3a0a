package revoke

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func logout(jti string) Logout {
	return Logout{Issuer: "main", ID: jti, Left: 90 * time.Second, Key: Key(JTI, "main", jti), Value: "1", TTL: time.Hour}
}

// With the rights that the documentation names, every step works, and with one less it is told.
func TestLogOutPermissions(t *testing.T) {
	t.Parallel()
	s := serve(t)
	const rights = "+set +get +eval +evalsha +type +pttl +persist +pexpire"
	for n, missing := range append([]string{""}, strings.Fields(rights)...) {
		s.do("ACL", "DELUSER", "gate")
		args := []any{"ACL", "SETUSER", "gate", "on", ">secret", "~revoked:*", "~logout:*"}
		for right := range strings.FieldsSeq(rights) {
			if right != missing {
				args = append(args, right)
			}
		}
		s.do(args...)
		c := redis.NewClient(&redis.Options{Addr: s.addr, Username: "gate", Password: "secret", MaxRetries: -1, DisableIdentity: true})
		t.Cleanup(func() { c.Close() })
		// A revocation that is longer, one that is for ever, and none.
		var failed error
		for kind, ttl := range map[string]int{"long": 9000, "ever": 0, "none": -1} {
			l := logout(fmt.Sprint(kind, n))
			switch {
			case ttl > 0:
				s.do("SET", l.Key, "1", "EX", ttl)
			case ttl == 0:
				s.do("SET", l.Key, "1")
			}
			s.do("SCRIPT", "FLUSH")
			if err := LogOut(t.Context(), c, l); err != nil {
				failed = err
				continue
			}
			if err := LogOut(t.Context(), c, l); !errors.Is(err, ErrReplayed) {
				failed = err
			}
		}
		if (failed == nil) != (missing == "") || errors.Is(failed, ErrReplayed) {
			t.Errorf("without %q: %v", missing, failed)
		}
	}
}

// failing refuses the commands after so many.
type failing struct {
	left int
}

func (f *failing) DialHook(next redis.DialHook) redis.DialHook { return next }
func (f *failing) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if f.left--; f.left < 0 {
			cmd.SetErr(errors.New("the connection broke"))
			return cmd.Err()
		}
		return next(ctx, cmd)
	}
}
func (f *failing) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// Wherever a gateway fails, the same logout can be tried again, and counts once.
func TestLogOutThatBreaksOff(t *testing.T) {
	t.Parallel()
	s := serve(t)
	sound := connect(t, s.addr)
	if err := LogOut(t.Context(), sound, logout("first")); err != nil { // the server knows the script from now on
		t.Fatal(err)
	}
	s.do("FLUSHALL")
	for steps := range 4 {
		c := connect(t, s.addr)
		do(t, c, "PING") // a connection begins with commands of its own
		c.AddHook(&failing{steps})
		l := logout(fmt.Sprint("l", steps))
		if err := LogOut(t.Context(), c, l); (err == nil) != (steps == 3) || errors.Is(err, ErrReplayed) {
			t.Fatalf("after %d steps: %v", steps, err)
		}
		name := s.Keys(t.Context(), "logout:*").Val()
		if steps == 3 {
			break
		}
		if steps > 0 {
			// Its claim is not yet the end of it.
			if err := LogOut(t.Context(), sound, l); err == nil || errors.Is(err, ErrReplayed) {
				t.Fatalf("while it is claimed: %v", err)
			}
			if len(name) != 1 || s.PTTL(t.Context(), name[0]).Val() > claimTime {
				t.Fatalf("the claim %q would last", name)
			}
			s.do("DEL", name[0]) // as its end does
		}
		if err := LogOut(t.Context(), sound, l); err != nil {
			t.Fatalf("once more: %v", err)
		}
		if err := LogOut(t.Context(), sound, l); !errors.Is(err, ErrReplayed) {
			t.Fatalf("after that: %v", err)
		}
		if got := s.Get(t.Context(), l.Key).Val(); got != "1" {
			t.Errorf("the revocation is %q", got)
		}
		if name = s.Keys(t.Context(), "logout:*").Val(); len(name) != 1 || s.PTTL(t.Context(), name[0]).Val() < 80*time.Second {
			t.Errorf("the logout is not remembered: %q", name)
		}
		s.do("DEL", name[0])
	}

	// A server that hangs is not waited for for ever.
	hung := connect(t, serve(t, "--enable-debug-command", "yes").addr)
	go hung.Do(context.Background(), "DEBUG", "SLEEP", "60")
	eventually(t, "it hangs", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		return hung.Ping(ctx).Err() != nil
	})
	if err := LogOut(t.Context(), hung, logout("hung")); err == nil || errors.Is(err, ErrReplayed) {
		t.Errorf("%v", err)
	}
}
