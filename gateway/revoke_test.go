package gateway

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"gatehouse/gateway/config"
)

// A token without iss could be that of several issuers: revoking it for the
// wrong one would leave it alive and say otherwise.
func TestRevokingATokenThatCouldBeTwoIssuers(t *testing.T) {
	enc := base64.RawURLEncoding.EncodeToString
	now := time.Now()
	raw := enc([]byte(`{"alg":"RS256"}`)) + "." + enc([]byte(fmt.Sprintf(`{"exp":%d}`, now.Add(time.Hour).Unix()))) + ".c2ln"
	cfg := &config.Config{Issuers: map[string]*config.Issuer{"one": {Name: "one"}, "two": {Name: "two"}}}
	for range 20 { // the order of a map is not the same each time
		if w, err := plan(cfg, Revocation{Token: raw}, now); err == nil || !strings.Contains(err.Error(), "--issuer") {
			t.Fatalf("got %+v, %v", w, err)
		}
	}
	w, err := plan(cfg, Revocation{Token: raw, Issuer: "two"}, now)
	if err != nil || !strings.HasPrefix(w.Key, "revoked:jws:two:") || w.TTL <= 0 || w.TTL > time.Hour {
		t.Errorf("named: got %+v, %v", w, err)
	}
}
