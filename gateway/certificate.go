package gateway

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"strings"

	"gatehouse/gateway/token"
)

// bound refuses a token that is bound to a client certificate which the
// request does not come with (RFC 8705 §3): a thief has the token, but not the
// key of the certificate.
func (p proxies) bound(r *http.Request, v *token.Verified) error {
	if v.Certificate == "" {
		return nil
	}
	certificate := p.certificate(r)
	if certificate == nil {
		return token.Errorf(token.InvalidToken, "the token is bound to a client certificate (cnf.x5t#S256), and the request came with none")
	}
	sum := sha256.Sum256(certificate)
	print := base64.RawURLEncoding.EncodeToString(sum[:])
	if subtle.ConstantTimeCompare([]byte(print), []byte(v.Certificate)) != 1 {
		return token.Errorf(token.InvalidToken, "the token is bound to another client certificate: cnf.x5t#S256 is %s, the request's is %s", bounded(v.Certificate), print)
	}
	return nil
}

// certificate returns the client's certificate in DER: that of the TLS
// connection, or what a trusted proxy wrote into Client-Cert (RFC 9440 §2.2).
func (p proxies) certificate(r *http.Request) []byte {
	if _, trusted := p.client(r); trusted {
		lines := r.Header["Client-Cert"]
		if len(lines) != 1 {
			return nil
		}
		// A structured field's byte sequence (RFC 9651 §3.3.5): base64 between colons.
		text, ok := strings.CutPrefix(strings.Trim(lines[0], " "), ":")
		text, closed := strings.CutSuffix(text, ":")
		der, err := base64.StdEncoding.DecodeString(text)
		if !ok || !closed || err != nil {
			return nil
		}
		return der
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		return r.TLS.PeerCertificates[0].Raw
	}
	return nil
}
