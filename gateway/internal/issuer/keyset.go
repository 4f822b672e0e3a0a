package issuer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/lestrrat-go/jwx/v2/jws"
)

const (
	maxKeys  = 1000 // of one published set; real ones have two or three
	maxTried = 4    // signatures checked for one token
)

// keySet is the keys of one issuer, immutable.
type keySet struct {
	keys    []*key            // in the provider's order
	byKid   map[string][]*key // those with a kid; several may share one
	unnamed []*key            // those without
	skipped map[string]error  // kid -> why that key is of no use
	prints  map[string]bool   // by thumbprint
	fetched time.Time         // when they were asked for; zero for static keys
}

func newKeySet(keys []*key, skipped map[string]error) *keySet {
	s := &keySet{keys: keys, byKid: map[string][]*key{}, skipped: skipped, prints: map[string]bool{}}
	for _, k := range keys {
		s.prints[k.thumbprint] = true
		if k.kid == "" {
			s.unnamed = append(s.unnamed, k)
		} else {
			s.byKid[k.kid] = append(s.byKid[k.kid], k)
		}
	}
	return s
}

// at returns the same keys as of another fetch.
func (s *keySet) at(fetched time.Time) *keySet {
	c := *s
	c.fetched = fetched
	return &c
}

func (s *keySet) has(thumbprint string) bool { return s.prints[thumbprint] }

// verify returns the key that made the token's signature, or nil. known says
// whether the token named, or at least fitted, a key of the set: if so, a
// newer set is not worth asking for. The package's comment has the rules.
func (s *keySet) verify(t *compact, v jws.Verifier) (signer *key, known bool) {
	candidates := s.keys
	if t.kid != "" {
		if candidates, known = s.byKid[t.kid]; !known {
			_, known = s.skipped[t.kid]
			candidates = s.unnamed
		}
	}
	tried := 0
	for _, k := range candidates {
		if !k.fits(t.alg) {
			continue
		}
		if tried++; tried > maxTried {
			break
		}
		if v.Verify(t.input, t.signature, k.public) == nil {
			return k, true
		}
	}
	return nil, known || t.kid == "" && tried > 0
}

// parseJWKS reads a published key set (RFC 7517 §5). Keys that are of no use
// are left out, each with its reason by kid or, without one, by its place; a
// set without any usable key is an error.
func parseJWKS(text []byte, allowed []string) (*keySet, map[string]error, error) {
	items, err := splitJWKS(text)
	if err != nil {
		return nil, nil, err
	}
	var keys []*key
	byKid, reasons := map[string]error{}, map[string]error{}
	var first error
	for n, item := range items {
		k, err := parseJWK(item, allowed)
		if err == nil {
			keys = append(keys, k)
			continue
		}
		if first == nil {
			first = err
		}
		if kid := kidOf(item); kid != "" {
			byKid[kid] = err
			reasons[fmt.Sprintf("kid %s", quote(kid))] = err
		} else {
			reasons[fmt.Sprintf("number %d", n+1)] = err
		}
	}
	switch {
	case keys != nil:
		return newKeySet(keys, byKid), reasons, nil
	case first != nil:
		return nil, nil, fmt.Errorf("none of the %d keys in the set is usable; the first: %w", len(items), first)
	}
	return nil, nil, errors.New("the key set is empty")
}

var errNoSet = errors.New("the JSON object has no member keys, so it is no key set (RFC 7517 §5)")

// splitJWKS returns the raw items of a key set. Each is read strictly later
// and by itself, so that one bad key does not spoil the set.
func splitJWKS(text []byte) ([][]byte, error) {
	dec := jsontext.NewDecoder(bytes.NewReader(text), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if tok, err := dec.ReadToken(); err != nil || tok.Kind() != '{' {
		return nil, errors.New("the key set is not a JSON object")
	}
	var items [][]byte
	found := false
	for dec.PeekKind() == '"' {
		name, err := dec.ReadToken()
		if err != nil {
			return nil, errors.New("the key set is not JSON")
		}
		if name.String() != "keys" {
			if err := dec.SkipValue(); err != nil {
				return nil, errors.New("the key set is not JSON")
			}
			continue
		}
		if found {
			return nil, errors.New("the key set has two members named keys")
		}
		found = true
		if tok, err := dec.ReadToken(); err != nil || tok.Kind() != '[' {
			return nil, errors.New("the key set's member keys is not an array")
		}
		for dec.PeekKind() != ']' {
			item, err := dec.ReadValue()
			if err != nil {
				return nil, errors.New("the key set is not JSON")
			}
			if len(items) == maxKeys {
				return nil, fmt.Errorf("the key set has more than %d keys", maxKeys)
			}
			items = append(items, bytes.Clone(item))
		}
		if _, err := dec.ReadToken(); err != nil {
			return nil, errors.New("the key set is not JSON")
		}
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, errors.New("the key set is not JSON")
	}
	if _, err := dec.ReadToken(); err != io.EOF {
		return nil, errors.New("there is something after the key set's JSON object")
	}
	if !found {
		return nil, errNoSet
	}
	return items, nil
}
