package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// check refuses a peer that does not do the job. Everything is asked twice,
// since the second answer may come from a memory of the first.
func (r *rig) check(s *stand, c benchCase) error {
	if c.Path == "/open" {
		return s.passes(c, "")
	}
	alg := c.Alg
	good := newClaims(r.base.Issuer, 7)
	change := func(alter func(*claims)) claims {
		changed := good
		alter(&changed)
		return changed
	}
	token, err := r.signers.sign(alg, good)
	if err != nil {
		return err
	}
	for range 2 {
		if err := s.passes(c, token); err != nil {
			return err
		}
		for _, bad := range []struct {
			name   string
			claims claims
			status int
		}{
			{"an expired token", change(func(c *claims) { c.Expires = time.Now().Unix() - 3600 }), http.StatusUnauthorized},
			{"a token of another issuer", change(func(c *claims) { c.Issuer = "http://127.0.0.1:1" }), http.StatusUnauthorized},
			{"a token for another audience", change(func(c *claims) { c.Audience = "https://other.example.com" }), http.StatusUnauthorized},
			{"a token without the privilege", change(func(c *claims) { c.Privileges = []string{"READ_HEROESS"} }), http.StatusForbidden},
		} {
			refused, err := r.signers.sign(alg, bad.claims)
			if err != nil {
				return err
			}
			if err := s.refuses(c, bad.name, refused, bad.status); err != nil {
				return err
			}
		}
		dot := strings.LastIndexByte(token, '.')
		other := map[bool]string{true: "B", false: "A"}[token[dot+9] == 'A']
		if err := s.refuses(c, "a bad signature", token[:dot+9]+other+token[dot+10:], http.StatusUnauthorized); err != nil {
			return err
		}
		if err := s.refuses(c, "no token", "", http.StatusUnauthorized); err != nil {
			return err
		}
		if err := s.tells(token, good); err != nil {
			return err
		}
	}
	return nil
}

// passes wants the case's own request to reach the backend.
func (s *stand) passes(c benchCase, token string) error {
	status, answer, err := s.ask(c.Method, c.Path, token, c.Body)
	if err != nil {
		return err
	}
	if status != http.StatusOK || len(answer) != c.Answer {
		return fmt.Errorf("a good request is answered with %d and %d bytes, not 200 and %d", status, len(answer), c.Answer)
	}
	return nil
}

func (s *stand) refuses(c benchCase, what, token string, want int) error {
	status, _, err := s.ask(c.Method, c.Path, token, 0)
	if err == nil && status != want {
		err = fmt.Errorf("%s is answered with %d, not %d", what, status, want)
	}
	return err
}

// tells wants the backend to see who calls, and nothing that the caller forged.
func (s *stand) tells(token string, c claims) error {
	status, answer, err := s.ask("GET", "/echo", token, 0, "X-Jwt-Sub", "admin", "X-Jwt-Evil", "1", "x-jwt-email", "admin@heroes.example.com")
	if err != nil {
		return err
	}
	var saw http.Header
	if err := json.Unmarshal([]byte(answer), &saw); err != nil {
		return fmt.Errorf("/echo is answered with %d: %w", status, err)
	}
	for name, want := range map[string][]string{
		"X-Jwt-Sub": {c.Subject}, "X-Jwt-Client-Id": {c.Client}, "X-Jwt-Email": {c.Email}, "X-Jwt-Evil": nil, "Authorization": nil,
	} {
		if !slices.Equal(saw[name], want) {
			return fmt.Errorf("the backend sees %s %q, not %q", name, saw[name], want)
		}
	}
	return nil
}
