package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"gatehouse/gateway/internal/issuer"
	"gatehouse/gateway/internal/revoke"
	"gatehouse/gateway/token"
)

// oauthError is the body of a refusal (RFC 6749 §5.2).
type oauthError struct {
	Code        string `json:"error"`
	Description string `json:"error_description"`
}

func oauthRefuse(w http.ResponseWriter, status int, code, description string) {
	writeJSON(w, status, oauthError{code, description})
}

// verifier is [issuer.Set.Verify] or its like.
type verifier func(issuer.Set, context.Context, token.Raw) (*token.Verified, error)

// askedToken reads the token of an RFC 7009 or RFC 7662 request and verifies
// it. v is nil for a token that is no good. The answer
// has been written where ok is false.
func (g *Gateway) askedToken(w http.ResponseWriter, r *http.Request, s *snapshot, verify verifier) (found *foundToken, v *token.Verified, ok bool) {
	values := r.PostForm["token"]
	if len(values) != 1 || values[0] == "" {
		oauthRefuse(w, http.StatusBadRequest, "invalid_request", "The form needs one token.")
		return nil, nil, false
	}
	set, err := s.issuersOf(values[0], r.PostForm.Get("issuer"))
	if err != nil {
		oauthRefuse(w, http.StatusBadRequest, "invalid_request", err.Error())
		return nil, nil, false
	}
	found = &foundToken{place{issuers: set}, token.NewRaw(values[0])}
	if v, err = verify(set, context.WithValue(r.Context(), clientKey{}, peerIP(r.RemoteAddr)), found.raw); err == nil {
		err = s.revoked(r.Context(), found, v)
	}
	var refused *token.Error
	switch {
	case err == nil:
		return found, v, true
	case errors.As(err, &refused) && refused.Reason == rateLimited:
		w.Header().Set("Retry-After", strconv.Itoa(max(1, int(refused.RetryAfter.Seconds()))))
		oauthRefuse(w, http.StatusTooManyRequests, "temporarily_unavailable", answers[rateLimited].detail)
		return nil, nil, false
	case errors.As(err, &refused) && (refused.Reason == token.IssuerUnavailable || refused.Reason == token.StoreUnavailable):
		w.Header().Set("Retry-After", strconv.Itoa(max(1, int(refused.RetryAfter.Seconds()))))
		oauthRefuse(w, http.StatusServiceUnavailable, "temporarily_unavailable", answers[refused.Reason].detail)
		return nil, nil, false
	}
	return found, nil, true
}

// issuersOf returns the issuers that the token could be of; name says whose it
// is taken for, and is empty where that is plain.
func (s *snapshot) issuersOf(raw, name string) (issuer.Set, error) {
	if name != "" {
		if _, err := issuerByName(s.config, name); err != nil {
			return nil, err
		}
	}
	_, claims, notJWT := unverified(raw)
	var set issuer.Set
	could := 0
	for n, p := range s.issuers {
		if name != "" && name != n {
			continue
		}
		set = append(set, p.value)
		switch {
		case notJWT != nil && p.options.Introspection != nil, notJWT == nil && p.options.Issuer == "" && claims.Get("iss").Kind() == token.Missing:
			could++
		}
	}
	if could > 1 {
		return nil, errors.New("the token could be that of several issuers; name one with the parameter issuer")
	}
	return set, nil
}

// revokeToken is the revocation endpoint (RFC 7009). An unknown, expired or
// revoked token is a success: it is of no use already.
func (g *Gateway) revokeToken(w http.ResponseWriter, r *http.Request, s *snapshot, c caller) {
	if s.redis == nil || s.revocation == nil {
		oauthRefuse(w, http.StatusServiceUnavailable, "temporarily_unavailable", "The gateway has no revocation in its configuration.")
		return
	}
	found, v, ok := g.askedToken(w, r, s, issuer.Set.Signed)
	switch {
	case !ok:
		return
	case v == nil:
		w.WriteHeader(http.StatusOK)
		return
	case c.client != "" && clientOf(v) != c.client: // RFC 7009 §2.1: a client revokes its own tokens only
		g.metrics.adminRefusals.Inc()
		g.log.Warn("a client may not revoke another's token", "client", c.ip.String(), "actor", bounded(c.String()), "issuer", v.Issuer, "issued_to", bounded(clientOf(v)), "hash", v.Hash)
		oauthRefuse(w, http.StatusBadRequest, "unauthorized_client", "The token was not issued to this client.")
		return
	}
	what := Revocation{Issuer: v.Issuer, Token: found.raw.Reveal()}
	planned, err := plan(s.config, what, g.now())
	if err == nil {
		err = revoke.Write(r.Context(), s.redis.value, planned.Key, planned.Value, planned.TTL)
	}
	if err != nil {
		g.log.Error("a token was not revoked", "client", c.ip.String(), "actor", c.String(), "error", err)
		w.Header().Set("Retry-After", "1")
		oauthRefuse(w, http.StatusServiceUnavailable, "temporarily_unavailable", answers[token.StoreUnavailable].detail)
		return
	}
	g.auditRevocation(s, planned.record(g.now(), revocationRecord{
		Door: doorRevocation, Action: "revoke", Actor: c.String(), Client: c.ip.String(), RequestID: randomHex(16),
	}))
	w.WriteHeader(http.StatusOK)
}

// clientOf returns the client that a token was issued to: client_id (RFC 9068
// §2.2), or what OpenID Connect and Okta call it. One that is there and names
// nobody is not passed over for the next.
func clientOf(v *token.Verified) string {
	for _, name := range []string{"client_id", "azp", "cid"} {
		switch id := v.Claims.Get(name); id.Kind() {
		case token.Missing, token.Null:
		case token.String, token.Number:
			return id.Text()
		default:
			return ""
		}
	}
	return ""
}

// introspectToken is the introspection endpoint (RFC 7662): an active token's
// answer has the token's own claims.
func (g *Gateway) introspectToken(w http.ResponseWriter, r *http.Request, s *snapshot, _ caller) {
	_, v, ok := g.askedToken(w, r, s, issuer.Set.Verify)
	if !ok {
		return
	}
	if v == nil {
		writeJSON(w, http.StatusOK, struct { // no word of why (§2.2)
			Active bool `json:"active"`
		}{false})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(activeAnswer(v.Claims))
}

// activeAnswer is the claims, byte for byte, and what the endpoint itself says.
func activeAnswer(claims token.Claims) []byte {
	var b strings.Builder
	b.WriteString(`{"active":true,"token_type":"Bearer"`)
	for name, v := range claims.All() {
		if name == "active" || name == "token_type" { // a claim cannot speak for the endpoint
			continue
		}
		text := v.JSON()
		switch v.Kind() {
		case token.Null:
			text = "null"
		case token.Bool, token.Number:
			text = v.Text()
		case token.String:
			text = quoted(v.Text())
		}
		b.WriteString("," + quoted(name) + ":" + text)
	}
	b.WriteString("}\n")
	return []byte(b.String())
}

// quoted is s as a JSON string.
func quoted(s string) string {
	text, err := json.Marshal(s)
	if err != nil { // not reached: s is a string
		return `""`
	}
	return string(text)
}
