package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"gatehouse/gateway/internal/inject"
	"gatehouse/gateway/internal/limit"
	"gatehouse/gateway/internal/route"
	"gatehouse/gateway/internal/upstream"
	"gatehouse/gateway/policy"
	"gatehouse/gateway/token"
)

// The reasons that are not about a token.
const (
	badPath          token.Reason = "bad_path"
	noRoute          token.Reason = "no_route"
	methodNotAllowed token.Reason = "method_not_allowed"
	policyDenied     token.Reason = "policy_denied"
	crossOrigin      token.Reason = "cross_origin"
	rateLimited      token.Reason = "rate_limited"
	headerTooLarge   token.Reason = "header_too_large"
	bodyTooLarge     token.Reason = "body_too_large"
	upstreamRefused  token.Reason = "upstream_refused"
	upstreamTimeout  token.Reason = "upstream_timeout"
	noHealthyTarget  token.Reason = "no_healthy_target"
	overloaded       token.Reason = "upstream_overloaded"
	circuitOpen      token.Reason = "circuit_open"
	internalError    token.Reason = "internal_error"
	noDecision       token.Reason = "no_decision"
	// The word of RFC 9470 §3.
	insufficientAuthentication token.Reason = "insufficient_user_authentication"
	clientGone                 token.Reason = "client_gone" // only in log and metrics: nobody is left to read it
)

// answers is what callers learn of each reason: never why a signature failed,
// never a byte of a token. challenge is the RFC 6750 §3.1 error code; "-" asks
// for a token without one.
var answers = map[token.Reason]struct {
	status    int
	detail    string
	challenge string
}{
	badPath:                      {400, "The path has more than one reading, or bytes that a path must not have.", ""},
	token.BadRequest:             {400, "The request is malformed.", ""},
	noRoute:                      {404, "There is nothing here.", ""},
	methodNotAllowed:             {405, "The method is not allowed here.", ""},
	token.MissingToken:           {401, "An access token is needed.", "-"},
	token.InvalidToken:           {401, "The access token is not valid.", "invalid_token"},
	token.ExpiredToken:           {401, "The access token has expired.", "invalid_token"},
	token.RevokedToken:           {401, "The access token was revoked.", "invalid_token"},
	token.InsufficientPrivileges: {403, "The access token does not carry the privileges that are needed here.", "insufficient_scope"},
	insufficientAuthentication:   {401, "The user must be authenticated in another way, or again.", "insufficient_user_authentication"},
	policyDenied:                 {403, "The access token's bearer may not do this here.", "insufficient_scope"},
	crossOrigin:                  {403, "A request from another origin cannot use the token of a cookie.", ""},
	rateLimited:                  {429, "Too many requests.", ""},
	bodyTooLarge:                 {413, "The request's body is larger than is allowed here.", ""},
	headerTooLarge:               {431, "The access token's claims are too large to be passed on.", ""},
	token.IssuerUnavailable:      {503, "The access token cannot be checked at present.", ""},
	token.StoreUnavailable:       {503, "What decides about this request cannot be asked at present.", ""},
	upstreamRefused:              {502, "The service behind the gateway did not answer.", ""},
	upstreamTimeout:              {504, "The service behind the gateway did not answer in time.", ""},
	noHealthyTarget:              {503, "The service behind the gateway is not available at present.", ""},
	overloaded:                   {503, "The service behind the gateway has as many requests as it may have.", ""},
	circuitOpen:                  {503, "The service behind the gateway is not available at present.", ""},
	internalError:                {500, "The gateway failed.", ""},
	noDecision:                   {403, "Nothing is decided about such a request.", ""},
	clientGone:                   {499, "", ""},
}

// realm is the protection space that every challenge names (RFC 9110 §11.5).
const realm = "gatehouse"

// defaultRetry is how long a caller should wait where nobody knows better.
const defaultRetry = time.Second

// refusal is the end of a request that is not forwarded: a reason for the
// caller and a detail for the log. It is an error.
type refusal struct {
	reason     token.Reason
	detail     string        // for the log only
	aboutToken bool          // a bad_request that a token caused: RFC 6750 invalid_request
	retryAfter time.Duration // 0: none, or the default for a 503
	allow      string        // Allow
	scope      string        // the challenge's scope
	stepUp     *policy.Challenge
	limit      *limit.Refused
}

func (f *refusal) Error() string { return string(f.reason) + ": " + f.detail }

func refuse(reason token.Reason, format string, args ...any) *refusal {
	return &refusal{reason: reason, detail: fmt.Sprintf(format, args...)}
}

// asRefusal turns the error of any rung into a refusal.
func asRefusal(err error) *refusal {
	var (
		own        *refusal
		tokenError *token.Error
		bad        *route.BadPath
		notFound   *route.NotFound
		notAllowed *route.MethodNotAllowed
		limited    *limit.Refused
		tooLarge   *inject.TooLarge
		tooMuch    *http.MaxBytesError
		failed     *upstream.Error
	)
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &tokenError):
		f := &refusal{reason: tokenError.Reason, detail: tokenError.Detail, retryAfter: tokenError.RetryAfter, aboutToken: true}
		if errors.As(tokenError, &limited) { // how many tokens an issuer is asked about is limited, too
			f.limit = limited
		}
		return f
	case errors.As(err, &bad):
		return refuse(badPath, "%s", bad.Detail)
	case errors.As(err, &notFound):
		return refuse(noRoute, "no route matches")
	case errors.As(err, &notAllowed):
		return &refusal{reason: methodNotAllowed, detail: notAllowed.Error(), allow: notAllowed.Allow}
	case errors.As(err, &limited):
		return &refusal{reason: rateLimited, detail: limited.Error(), retryAfter: limited.RetryAfter, limit: limited}
	case errors.As(err, &tooLarge):
		return refuse(headerTooLarge, "%v", tooLarge)
	case errors.As(err, &tooMuch):
		return refuse(bodyTooLarge, "the body has more than %d bytes", tooMuch.Limit)
	case errors.As(err, &failed):
		reason := map[upstream.Failure]token.Reason{
			upstream.Refused:         upstreamRefused,
			upstream.Timeout:         upstreamTimeout,
			upstream.ClientGone:      clientGone,
			upstream.ClientStalled:   token.BadRequest,
			upstream.ClientBroke:     token.BadRequest,
			upstream.NoHealthyTarget: noHealthyTarget,
			upstream.Overloaded:      overloaded,
			upstream.CircuitOpen:     circuitOpen,
		}[failed.Failure]
		return &refusal{reason: reason, detail: failed.Error(), retryAfter: failed.RetryAfter}
	}
	return refuse(internalError, "%v", err)
}

// refuse writes the one kind of answer that the gateway gives of its own.
func (x *exchange) refuse(err error) {
	f := asRefusal(err)
	x.refused = f
	answer := answers[f.reason]
	if !x.forwarding { // else it was let through, and failed after that
		x.audit(denied, f, x.would)
	}
	if f.reason == clientGone {
		x.w.status = answer.status
		x.abort = true // or net/http would answer 200 to one who only stopped sending
		return
	}
	h := x.w.Header()
	clear(h) // what a failed forward may have left there
	if x.route != nil {
		x.route.rewrite.response.apply(h)
		x.shareCORS(h)
	}
	x.leaveBody(h)
	if challenge := f.challenge(answer.challenge); challenge != "" {
		h.Set("WWW-Authenticate", challenge)
	}
	if f.allow != "" {
		h.Set("Allow", f.allow)
	}
	if f.limit != nil {
		limited, policy, _ := f.limit.Headers()
		h.Set("RateLimit", limited)
		h.Set("RateLimit-Policy", policy)
	}
	if f.retryAfter == 0 && answer.status == http.StatusServiceUnavailable {
		f.retryAfter = defaultRetry
	}
	if f.retryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64(math.Ceil(f.retryAfter.Seconds())), 10))
	}
	h.Set("Cache-Control", "no-store")
	h.Set("X-Request-Id", x.requestID)
	if x.verdict == nil && isGRPC(x.r) { // to a proxy, its 200 would be a permission
		x.grpcRefusal(string(f.reason), answer.status, answer.detail)
		return
	}
	p := problem{
		Type: "about:blank", Title: http.StatusText(answer.status), Status: answer.status,
		Detail: answer.detail, Reason: f.reason, RequestID: x.requestID,
	}
	if f.limit != nil {
		p.Type, p.Violated = f.limit.Problem(), f.limit.Violated
	}
	body, err := json.Marshal(p)
	if err != nil { // not reached: a struct of strings
		body = nil
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	x.w.WriteHeader(answer.status)
	if x.r.Method != http.MethodHead || x.verdict != nil { // a proxy asks about a HEAD with a GET
		_, _ = x.w.Write(body) // a client that has gone needs no refusal
	}
}

// A refusal does not wait for the request's body: a small one that has yet to
// be forwarded gets a moment to come, so that the connection can be used again;
// with any other the connection ends, and what is left of it must not be read
// as the next request.
const (
	smallBody = 64 << 10
	smallWait = time.Second
	drainWait = 5 * time.Second // for a client to notice the answer before it sees a reset
)

func (x *exchange) leaveBody(h http.Header) {
	if x.r.ProtoMajor != 1 || x.r.ContentLength == 0 {
		return
	}
	wait := smallWait
	// Whoever waits to be asked for the body would be waited for in turn: net/http
	// does not see that in one that is bounded.
	if x.forwarding || x.r.Header["Expect"] != nil || x.r.ContentLength < 0 || x.r.ContentLength > smallBody {
		h.Set("Connection", "close")
		wait = drainWait
		if x.bounded { // net/http no longer knows the body, and would reset the connection
			upstream.Linger(x.w)
		}
	}
	_ = http.NewResponseController(x.w).SetReadDeadline(time.Now().Add(wait)) // net/http takes it off for the next request
}

// problem is an RFC 9457 problem detail with extension members.
type problem struct {
	Type      string       `json:"type"`
	Title     string       `json:"title"`
	Status    int          `json:"status"`
	Detail    string       `json:"detail"`
	Reason    token.Reason `json:"reason"`
	RequestID string       `json:"request_id,omitempty"`
	Violated  []string     `json:"violated-policies,omitempty"` // the limits that refused
}

// challenge returns the WWW-Authenticate header (RFC 6750 §3), or "".
func (f *refusal) challenge(code string) string {
	if f.reason == token.BadRequest && f.aboutToken {
		code = "invalid_request"
	}
	if code == "" {
		return ""
	}
	var b strings.Builder
	b.WriteString(`Bearer realm="` + realm + `"`)
	if code != "-" {
		b.WriteString(`, error="` + code + `"`)
	}
	if f.scope != "" {
		b.WriteString(`, scope="` + f.scope + `"`)
	}
	if f.stepUp != nil {
		if values := f.stepUp.ACRValues; len(values) > 0 {
			b.WriteString(`, acr_values="` + strings.Join(values, " ") + `"`)
		}
		if age := f.stepUp.MaxAge; age > 0 {
			b.WriteString(`, max_age="` + strconv.FormatInt(int64(age.Seconds()), 10) + `"`)
		}
	}
	return b.String()
}
