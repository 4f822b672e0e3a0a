package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"gatehouse/gateway/config"
	"gatehouse/gateway/internal/inject"
	"gatehouse/gateway/token"
)

// Inspection is what a configuration's issuers make of a token.
type Inspection struct {
	Checks  []Finding // in their order; the last one is the first that failed
	Claims  []Claim   // as the token has them; nil if they cannot be read
	Headers []string  // "Name: value", what a backend would receive; nil if the token was refused
}

// Finding is what one check of a token found.
type Finding struct {
	Name   string // the check, or the reason of the refusal
	Found  string // for the operator: may hold claims, never the token
	Passed bool
}

// Claim is one top-level claim.
type Claim struct{ Name, Value string }

// Accepted says whether every check passed.
func (i Inspection) Accepted() bool {
	return len(i.Checks) > 0 && i.Checks[len(i.Checks)-1].Passed
}

// Inspect verifies a token with the code that serves requests and tells each
// check. It fetches keys and asks Redis as a gateway would; ctx bounds it. The
// error says that the configuration cannot be used; a refused token is none.
//
// Tokens without iss can be those of several issuers; name says whose it is
// taken for, and is empty where that is plain.
func Inspect(ctx context.Context, cfg *config.Config, raw, name string) (Inspection, error) {
	s, err := (&builder{cfg: cfg, log: slog.New(slog.DiscardHandler), transient: true}).build()
	if err != nil {
		return Inspection{}, err
	}
	defer s.close()
	(&Gateway{now: time.Now}).startVerifying(ctx, s)
	issuers, err := s.issuersOf(raw, name)
	if err != nil {
		return Inspection{}, fmt.Errorf("%w (--issuer)", err)
	}
	var in Inspection
	if _, claims, err := unverified(raw); err == nil {
		for name, v := range claims.All() {
			in.Claims = append(in.Claims, Claim{name, v.Text() + v.JSON()})
		}
	}
	pass := func(check, found string) { in.Checks = append(in.Checks, Finding{check, found, true}) }
	fail := func(err error) (Inspection, error) {
		var refused *token.Error
		if errors.As(err, &refused) {
			in.Checks = append(in.Checks, Finding{string(refused.Reason), refused.Detail, false})
		} else {
			in.Checks = append(in.Checks, Finding{string(headerTooLarge), err.Error(), false})
		}
		return in, nil
	}
	found := foundToken{place{issuers: issuers}, token.NewRaw(raw)}
	v, err := issuers.Explain(ctx, found.raw, pass)
	if err != nil {
		return fail(err)
	}
	if v.Certificate != "" {
		pass("binding", "bound to the client certificate "+v.Certificate+"; each request must come with it")
	}
	if s.revocation != nil {
		if err := s.revoked(ctx, &found, v); err != nil {
			return fail(err)
		}
		pass("revocation", "not revoked")
	}
	if withheld := s.grants[v.Issuer].withheld(v.Privileges); len(withheld) > 0 {
		pass("privileges", "do not count: "+strings.Join(withheld, "; "))
	}
	actor, _ := s.actors[v.Issuer].Find(v.Claims)
	headers, collisions, err := s.inject.Encode(v, false, inject.Act{Issuer: actor.Issuer, Subject: actor.Subject})
	if err != nil {
		return fail(err)
	}
	for _, name := range collisions {
		pass("header", name+" is the name of two claims; see the headers for which was sent, if any")
	}
	for _, h := range headers {
		in.Headers = append(in.Headers, h.Name+": "+h.Value)
	}
	return in, nil
}
