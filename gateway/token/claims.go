package token

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// MaxDepth is how deeply the claims' arrays and objects may nest. Real tokens
// stay under ten; the bound keeps every walk over them short.
const MaxDepth = 32

// Kind is the JSON type of a claim.
type Kind uint8

// The kinds of [Value]. Missing is the zero value: the claim is not there.
const (
	Missing Kind = iota
	Null
	Bool
	Number
	String
	Array
	Object
)

func (k Kind) String() string {
	return [...]string{"missing", "null", "boolean", "number", "string", "array", "object"}[k]
}

// Value is one JSON value of the claims, immutable. The zero Value is Missing.
type Value struct {
	text string    // String: decoded; Number, Bool: as in the token; Array, Object: the token's bytes
	in   *contents // Array, Object
	kind Kind
}

// contents are apart, since most values are scalars, and of remembered tokens
// there are many.
type contents struct {
	names []string // Object: names beside items
	items []Value
}

// Kind returns the value's JSON type.
func (v Value) Kind() Kind { return v.kind }

// Text returns a string decoded, a number byte for byte as in the token, a
// boolean as true or false, and "" for everything else.
func (v Value) Text() string {
	switch v.kind {
	case String, Number, Bool:
		return v.text
	}
	return ""
}

// Float returns a number's value. ok is false for other kinds and for numbers
// that no float64 holds (1e400).
func (v Value) Float() (f float64, ok bool) {
	if v.kind != Number {
		return 0, false
	}
	f, err := strconv.ParseFloat(v.text, 64)
	return f, err == nil
}

// Items returns an array's items; the caller must not change the slice.
func (v Value) Items() []Value {
	if v.kind != Array {
		return nil
	}
	return v.in.items
}

// Members yields an object's members in the token's order.
func (v Value) Members() iter.Seq2[string, Value] {
	return func(yield func(string, Value) bool) {
		if v.kind != Object {
			return
		}
		for i, name := range v.in.names {
			if !yield(name, v.in.items[i]) {
				return
			}
		}
	}
}

// Member returns the object's member of exactly that name, or Missing.
func (v Value) Member(name string) Value {
	if v.kind != Object {
		return Value{}
	}
	for i, n := range v.in.names {
		if n == name {
			return v.in.items[i]
		}
	}
	return Value{}
}

// JSON returns the token's own bytes of an array or object without white
// space, and "" for other kinds.
func (v Value) JSON() string {
	if v.kind != Array && v.kind != Object {
		return ""
	}
	raw := jsontext.Value(v.text).Clone()
	if raw.Compact() != nil { // not reached: the bytes were parsed before
		return ""
	}
	return string(raw)
}

// Claims are the claims of a token, immutable. The zero Claims hold none.
type Claims struct{ root Value }

// ParseClaims reads a token's payload strictly (RFC 8259 with RFC 7493's
// care): one object, UTF-8, no name twice in one object, nothing after it, at
// most [MaxDepth] deep. encoding/json would fold the case of names, let the
// last of two duplicates win and mend bad UTF-8; each is a way to make two
// readers of one token disagree.
func ParseClaims(payload []byte) (Claims, error) {
	src := string(payload) // one copy; every value without escapes points into it
	dec := decoders.Get().(*jsontext.Decoder)
	dec.Reset(bytes.NewBuffer(payload))
	defer func() {
		dec.Reset(nothing{}) // it must not hold on to the token
		decoders.Put(dec)
	}()
	root, err := parseValue(dec, src)
	if err != nil {
		return Claims{}, err
	}
	if root.kind != Object {
		return Claims{}, fmt.Errorf("the JSON is of type %s, not an object", root.kind)
	}
	if _, err := dec.ReadToken(); err != io.EOF {
		return Claims{}, errors.New("there is something after the JSON object")
	}
	return Claims{root}, nil
}

// decoders are reused, because making one costs as much as reading a token.
var decoders = sync.Pool{New: func() any { return jsontext.NewDecoder(nothing{}) }}

// nothing is a reader at its end.
type nothing struct{}

func (nothing) Read([]byte) (int, error) { return 0, io.EOF }

func parseValue(dec *jsontext.Decoder, src string) (Value, error) {
	v := Value{kind: Array}
	end := jsontext.Kind(']')
	switch dec.PeekKind() {
	case '[':
	case '{':
		v.kind, end = Object, '}'
	default:
		return parseScalar(dec, src)
	}
	v.in = &contents{}
	if dec.StackDepth() >= MaxDepth {
		return Value{}, fmt.Errorf("the JSON nests deeper than %d", MaxDepth)
	}
	if _, err := dec.ReadToken(); err != nil {
		return Value{}, syntaxError(err)
	}
	start := dec.InputOffset() - 1
	if start == 0 { // room for the claims themselves, most often a dozen
		n := min(16, 1+len(src)/20)
		v.in.names, v.in.items = make([]string, 0, n), make([]Value, 0, n)
	}
	for dec.PeekKind() != end {
		if v.kind == Object {
			name, err := parseScalar(dec, src)
			if err != nil {
				return Value{}, err
			}
			v.in.names = append(v.in.names, name.text)
		}
		item, err := parseValue(dec, src)
		if err != nil {
			return Value{}, err
		}
		v.in.items = append(v.in.items, item)
	}
	if _, err := dec.ReadToken(); err != nil {
		return Value{}, syntaxError(err)
	}
	v.text = src[start:dec.InputOffset()]
	return v, nil
}

// parseScalar reads a value that is no array or object, or an object's name.
func parseScalar(dec *jsontext.Decoder, src string) (Value, error) {
	raw, err := dec.ReadValue()
	if err != nil {
		return Value{}, syntaxError(err)
	}
	end := int(dec.InputOffset())
	text := src[end-len(raw) : end]
	switch raw.Kind() {
	case 'n':
		return Value{kind: Null}, nil
	case 't', 'f':
		return Value{kind: Bool, text: text}, nil
	case '0':
		return Value{kind: Number, text: text}, nil
	}
	if strings.IndexByte(text, '\\') < 0 {
		return Value{kind: String, text: text[1 : len(text)-1]}, nil
	}
	unquoted, err := jsontext.AppendUnquote(nil, raw)
	if err != nil {
		return Value{}, syntaxError(err)
	}
	return Value{kind: String, text: string(unquoted)}, nil
}

// syntaxError keeps what is wrong and where, and drops the offending bytes:
// they are part of a token.
func syntaxError(err error) error {
	var s *jsontext.SyntacticError
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		return errors.New("a name stands twice in one JSON object")
	case errors.As(err, &s):
		return fmt.Errorf("bad JSON at byte %d", s.ByteOffset)
	}
	return errors.New("bad JSON")
}

// All yields the top-level claims in the token's order.
func (c Claims) All() iter.Seq2[string, Value] { return c.root.Members() }

// Get returns the top-level claim of exactly that name, or Missing.
func (c Claims) Get(name string) Value { return c.root.Member(name) }

// Lookup follows p through objects, and in a JSON Pointer's manner through
// array indices; a step that leads nowhere gives Missing.
func (c Claims) Lookup(p Path) Value {
	if p.IsZero() {
		return Value{}
	}
	v := c.root
	for _, step := range p.steps {
		switch v.kind {
		case Object:
			v = v.Member(step)
		case Array:
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(v.in.items) || strconv.Itoa(i) != step {
				return Value{}
			}
			v = v.in.items[i]
		default:
			return Value{}
		}
	}
	return v
}
