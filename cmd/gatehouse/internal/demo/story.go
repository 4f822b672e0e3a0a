//go:build !nodemo

package demo

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// world is all that was started, as the story needs it.
type world struct {
	gateway, status string // base URLs
	redis           string // URL
	provider        *provider
	store           *redis.Client
	seed            *rsa.PrivateKey // signs as the older service of issuer seed does
}

// tokens are those that the reader may go on trying after the story.
type tokens struct{ admin1, admin2, revoked string }

// tell plays the story on w. What went wrong is remembered by t.
func tell(ctx context.Context, t *teller, w *world) (tokens, error) {
	heroes, threats := w.gateway+"/heroes-service", w.gateway+"/threats-service"
	var tk tokens
	tk.admin1 = login(ctx, t, w, admin1, "")
	tk.admin2 = login(ctx, t, w, admin2, "")
	if err := errors.Join(t.err(), ctx.Err()); err != nil {
		return tk, err
	}
	expired, _, err := w.provider.issue(admin2, time.Now().Add(-time.Hour))
	if err != nil {
		return tk, err
	}
	forged, err := reencode(tk.admin1, func(c map[string]any) { c["privileges"] = admin2.privileges })
	if err != nil {
		return tk, err
	}
	now := time.Now()
	node, err := sign(w.seed, jwtHeader{Alg: "RS256", Typ: "JWT"}, struct {
		Expires    int64    `json:"exp"`
		Privileges []string `json:"privileges"`
		IssuedAt   int64    `json:"iat"`
	}{now.Add(tokenLife).Unix(), admin2.privileges, now.Unix()})
	if err != nil {
		return tk, err
	}

	create := step{method: http.MethodPost, url: heroes + "/hero", body: `{"name":"Magneta"}`}
	with := func(s step, title, as, token string) step {
		s.title, s.as, s.token = title, as, token
		return s
	}
	answered := func(s step, status int, check func(answer) ([]string, error)) step {
		s.status, s.check = status, check
		return s
	}
	refused := func(s step, status int, reason string) step {
		s.status, s.reason = status, reason
		return s
	}

	t.play(ctx, answered(with(create, "admin2, who may CREATE_HERO, creates a hero", "admin2's token", tk.admin2),
		http.StatusCreated, heroSaw("admin2", admin2.privileges, true)))
	t.play(ctx, refused(with(create, "admin1, who may only ASSIGN_HERO, tries too", "admin1's token", tk.admin1),
		http.StatusForbidden, "insufficient_privileges"))
	t.play(ctx, refused(with(create, "admin1 writes CREATE_HERO into the token", "admin1's token with another payload, its signature kept", forged),
		http.StatusUnauthorized, "invalid_token"))
	t.play(ctx, refused(with(create, "somebody has no token", "no token", ""),
		http.StatusUnauthorized, "missing_token"))
	t.play(ctx, refused(with(create, "admin2's token of an hour ago has expired", "an expired token", expired),
		http.StatusUnauthorized, "expired_token"))

	rename := step{method: http.MethodPut, url: heroes + "/hero/1", body: `{"name":"Magneto"}`}
	t.play(ctx, refused(with(rename, "admin2 renames the hero, for which a password is not enough: the answer says what is (RFC 9470)", "admin2's token", tk.admin2),
		http.StatusUnauthorized, "insufficient_user_authentication"))
	strong := login(ctx, t, w, admin2, otp)
	t.play(ctx, answered(with(rename, "with the second factor it works", "admin2's new token", strong),
		http.StatusOK, heroSaw("admin2", admin2.privileges, false)))

	bob, _, err := w.provider.issue(account{name: "bob", email: "bob@example.com", privileges: []string{}}, time.Now())
	if err != nil {
		return tk, err
	}
	read := step{method: http.MethodGet, url: heroes + "/hero/1"}
	t.play(ctx, refused(with(read, "bob, who neither works with heroes nor has one, looks at a hero: the policy heroes.read denies it", "bob's token, with no privileges", bob),
		http.StatusForbidden, "policy_denied"))

	seedCreate := create
	seedCreate.url = w.gateway + "/seed/hero"
	t.play(ctx, answered(with(seedCreate, "an older service signs {exp, privileges, iat} with node's jsonwebtoken; it has its own route",
		"a token without iss, sub or kid", node),
		http.StatusCreated, heroSaw("", admin2.privileges, true)))

	t.play(ctx, step{
		title: "threats-service asks heroes-service, through the gateway, with its caller's own token", as: "admin1's token",
		method: http.MethodPost, url: threats + "/assign", token: tk.admin1, body: `{"hero":"1","threat":"meteor"}`,
		status: http.StatusOK, check: assigned,
	})

	forgedHeaders := http.Header{"x-jwt-sub": {"root"}, "X_Jwt_Sub": {"root"}}
	t.play(ctx, step{
		title: "admin1 claims to be root in headers of its own", as: "admin1's token",
		method: http.MethodGet, url: heroes + "/hero/1", token: tk.admin1, header: forgedHeaders,
		status: http.StatusOK, check: heroSaw("admin1", admin1.privileges, false),
	})
	t.play(ctx, step{
		title: "the same on a public route, where no token replaces them", as: "no token",
		method: http.MethodGet, url: w.gateway + "/healthz", header: forgedHeaders,
		status: http.StatusOK, check: sawNothing,
	})

	t.play(ctx, step{
		title: "admin1 asks more often than the limit per_user allows", as: "admin1's token",
		method: http.MethodGet, url: threats + "/threats", token: tk.admin1, times: 20,
		status: http.StatusTooManyRequests, reason: "rate_limited", check: retryAfter,
	})

	stolen, c, err := w.provider.issue(admin2, time.Now())
	if err != nil {
		return tk, err
	}
	tk.revoked = stolen
	t.play(ctx, answered(with(read, "a thief has a token of admin2's, and it works", "the stolen token", stolen),
		http.StatusOK, heroSaw("admin2", admin2.privileges, false)))
	if err := revoke(ctx, t, w, c); err != nil {
		return tk, err
	}
	t.play(ctx, refused(with(read, "it is revoked by one write to Redis; the thief tries again", "the stolen token", stolen),
		http.StatusUnauthorized, "revoked_token"))
	t.play(ctx, answered(with(read, "admin2's other token still works", "admin2's token", tk.admin2),
		http.StatusOK, heroSaw("admin2", admin2.privileges, false)))
	return tk, errors.Join(t.err(), ctx.Err())
}

// login gets a token for a from the identity provider, over HTTP like everyone.
// With a code the user has two factors.
func login(ctx context.Context, t *teller, w *world, a account, code string) (token string) {
	form := url.Values{"grant_type": {"password"}, "username": {a.name}, "password": {a.secret}, "client_id": {client.name}, "client_secret": {client.secret}}
	title := a.name + " logs in at the identity provider"
	if code != "" {
		form.Set("otp", code)
		title += " again, with a second factor"
	}
	t.play(ctx, step{
		title: title, as: "client " + client.name,
		method: http.MethodPost, url: w.provider.issuer + "/token",
		header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, body: form.Encode(),
		status: http.StatusOK,
		check: func(ans answer) ([]string, error) {
			var body struct {
				Token   string `json:"access_token"`
				Expires int    `json:"expires_in"`
			}
			if err := json.Unmarshal(ans.body, &body); err != nil {
				return nil, fmt.Errorf("the body is no JSON: %w", err)
			}
			if body.Token == "" {
				return nil, errors.New("it holds no access_token")
			}
			token = body.Token
			return []string{fmt.Sprintf("a token for %d minutes, with the privileges %s", body.Expires/60, strings.Join(a.privileges, ", "))}, nil
		},
	})
	return token
}

// revoke withdraws a token as any program can.
func revoke(ctx context.Context, t *teller, w *world, c claims) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	key := "revoked:jti:main:" + c.ID
	// A token is good until the issuer's leeway after its exp; a minute covers it.
	left := time.Until(time.Unix(c.Expires, 0)).Round(time.Second) + time.Minute
	t.printf("\n    $ redis-cli -u %s SET %s 1 EX %d", w.redis, key, int(left.Seconds()))
	return w.store.Set(ctx, key, 1, left).Err()
}

// heroSaw checks what heroes-service noticed: who called (sub "" if the token
// names nobody), with which privileges, and that the token itself stayed at
// the gateway. all shows every header.
func heroSaw(sub string, privileges []string, all bool) func(answer) ([]string, error) {
	return func(a answer) ([]string, error) {
		var h heroAnswer
		if err := json.Unmarshal(a.body, &h); err != nil {
			return nil, fmt.Errorf("the body is no hero: %w", err)
		}
		lines := sawLines("heroes-service", h.Seen, all)
		if h.Seen.Authorization {
			return lines, errors.New("the backend received the token")
		}
		return lines, sawCaller("heroes-service", h.Seen, sub, privileges)
	}
}

func assigned(a answer) ([]string, error) {
	var got assignment
	if err := json.Unmarshal(a.body, &got); err != nil {
		return nil, fmt.Errorf("the body is no assignment: %w", err)
	}
	lines := append(sawLines("threats-service", got.Seen, false), sawLines("heroes-service", got.Hero.Seen, false)...)
	switch {
	case !got.Seen.Authorization:
		return lines, errors.New("threats-service received no token to pass on")
	case got.Hero.Seen.Authorization:
		return lines, errors.New("heroes-service received the token")
	}
	return lines, errors.Join(
		sawCaller("threats-service", got.Seen, "admin1", admin1.privileges),
		sawCaller("heroes-service", got.Hero.Seen, "admin1", admin1.privileges))
}

func sawCaller(service string, s seen, sub string, privileges []string) error {
	for name, want := range map[string]string{"x-jwt-sub": sub, "x-jwt-privileges": strings.Join(privileges, ",")} {
		if got := s.Claims[name]; got != want {
			return fmt.Errorf("%s saw %s: %q, not %q", service, name, got, want)
		}
	}
	return nil
}

func sawNothing(a answer) ([]string, error) {
	var body struct{ Seen seen }
	if err := json.Unmarshal(a.body, &body); err != nil {
		return nil, fmt.Errorf("the body is no JSON: %w", err)
	}
	lines := sawLines("heroes-service", body.Seen, true)
	if len(body.Seen.Claims) > 0 {
		return lines, errors.New("the backend saw a header that only the gateway may send")
	}
	return lines, nil
}

// sawLines shows what a backend saw: who called and what they may do, or all
// of it.
func sawLines(service string, s seen, all bool) []string {
	lines := []string{service + " saw:"}
	more := 0
	for _, name := range slices.Sorted(maps.Keys(s.Claims)) {
		if all || name == "x-jwt-sub" || name == "x-jwt-privileges" {
			lines = append(lines, "  "+name+": "+s.Claims[name])
		} else {
			more++
		}
	}
	switch {
	case len(s.Claims) == 0:
		lines = append(lines, "  no x-jwt- header")
	case more > 0:
		lines = append(lines, fmt.Sprintf("  and %d more x-jwt- headers", more))
	}
	if s.Authorization {
		lines = append(lines, "  and the token (forward_token)")
	}
	return lines
}

// retryAfter checks that a refusal says when to come back (RFC 9110 §10.2.3).
func retryAfter(a answer) ([]string, error) {
	var lines []string
	for _, name := range []string{"Retry-After", "RateLimit", "RateLimit-Policy"} {
		if v := a.header.Get(name); v != "" {
			lines = append(lines, name+": "+v)
		}
	}
	if n, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || n < 1 {
		return lines, errors.New("Retry-After is no number of seconds")
	}
	return lines, nil
}
