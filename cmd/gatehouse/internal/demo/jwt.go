//go:build !nodemo

package demo

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"
)

// b64 refuses bits that decode to nothing, so that a signature has one spelling.
var b64 = base64.RawURLEncoding.Strict()

// jwtHeader is a JOSE header in the order in which node's jsonwebtoken writes it.
type jwtHeader struct {
	Alg string `json:"alg"`
	Typ string `json:"typ"`
	Kid string `json:"kid,omitempty"`
}

// sign makes a compact JWS (RFC 7515 §3.1) with RS256.
func sign(key *rsa.PrivateKey, header jwtHeader, payload any) (string, error) {
	head, err := json.Marshal(header)
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(payload)
	if err != nil {
		return "", err
	}
	signed := b64.EncodeToString(head) + "." + b64.EncodeToString(body)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		return "", err
	}
	return signed + "." + b64.EncodeToString(signature), nil
}

// verify returns the payload of a token that key signed with RS256 under kid.
func verify(key *rsa.PublicKey, kid, token string) (payload []byte, ok bool) {
	parts := strings.SplitN(token, ".", 4)
	if len(parts) != 3 {
		return nil, false
	}
	var decoded [3][]byte
	for i, part := range parts {
		var err error
		if decoded[i], err = b64.DecodeString(part); err != nil {
			return nil, false
		}
	}
	var header jwtHeader
	if json.Unmarshal(decoded[0], &header) != nil || header.Alg != "RS256" || header.Kid != kid {
		return nil, false
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], decoded[2]) != nil {
		return nil, false
	}
	return decoded[1], true
}

// reencode puts other claims into a token and keeps its signature, as an
// attacker would who hopes that nobody checks.
func reencode(token string, change func(claims map[string]any)) (string, error) {
	parts := strings.Split(token, ".")
	payload, err := b64.DecodeString(parts[1])
	if err != nil {
		return "", err
	}
	var c map[string]any
	if err := json.Unmarshal(payload, &c); err != nil {
		return "", err
	}
	change(c)
	if payload, err = json.Marshal(c); err != nil {
		return "", err
	}
	parts[1] = b64.EncodeToString(payload)
	return strings.Join(parts, "."), nil
}
