package token

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"sync"
	"unsafe"

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
// Two are equal with == if they are one value of one token.
type Value struct {
	of *contents
	at int // its node
}

// contents are all values of some claims in two pieces, since of remembered
// tokens there are many: a tree of strings and slices takes three times as much.
type contents struct {
	text  string // the token's own, then the strings that hold escapes, decoded
	nodes []node // each value after what it stands in, each member's name before it
}

// node is one value, or a member's name. Its kind is told by its first byte.
type node struct {
	start, end uint32 // in the text, with a string's quotes
	next       uint32 // the node after it and all that stands in it
}

func (c *contents) kind(at int) Kind {
	switch c.text[c.nodes[at].start] {
	case '"':
		return String
	case '{':
		return Object
	case '[':
		return Array
	case 't', 'f':
		return Bool
	case 'n':
		return Null
	}
	return Number
}

func (c *contents) raw(at int) string { return c.text[c.nodes[at].start:c.nodes[at].end] }

func (c *contents) unquoted(at int) string {
	return c.text[c.nodes[at].start+1 : c.nodes[at].end-1]
}

// Kind returns the value's JSON type.
func (v Value) Kind() Kind {
	if v.of == nil {
		return Missing
	}
	return v.of.kind(v.at)
}

// Text returns a string decoded, a number byte for byte as in the token, a
// boolean as true or false, and "" for everything else.
func (v Value) Text() string {
	switch v.Kind() {
	case String:
		return v.of.unquoted(v.at)
	case Number, Bool:
		return v.of.raw(v.at)
	}
	return ""
}

// Float returns a number's value. ok is false for other kinds and for numbers
// that no float64 holds (1e400).
func (v Value) Float() (f float64, ok bool) {
	if v.Kind() != Number {
		return 0, false
	}
	f, err := strconv.ParseFloat(v.of.raw(v.at), 64)
	return f, err == nil
}

// Items yields an array's items.
func (v Value) Items() iter.Seq[Value] {
	return func(yield func(Value) bool) {
		if v.Kind() != Array {
			return
		}
		nodes := v.of.nodes
		for at := v.at + 1; at < int(nodes[v.at].next); at = int(nodes[at].next) {
			if !yield(Value{v.of, at}) {
				return
			}
		}
	}
}

// Members yields an object's members in the token's order.
func (v Value) Members() iter.Seq2[string, Value] {
	return func(yield func(string, Value) bool) {
		if v.Kind() != Object {
			return
		}
		nodes := v.of.nodes
		for at := v.at + 1; at < int(nodes[v.at].next); at = int(nodes[at+1].next) {
			if !yield(v.of.unquoted(at), Value{v.of, at + 1}) {
				return
			}
		}
	}
}

// Member returns the object's member of exactly that name, or Missing.
func (v Value) Member(name string) Value {
	if v.Kind() != Object {
		return Value{}
	}
	nodes := v.of.nodes
	for at := v.at + 1; at < int(nodes[v.at].next); at = int(nodes[at+1].next) {
		if v.of.unquoted(at) == name {
			return Value{v.of, at + 1}
		}
	}
	return Value{}
}

// JSON returns the token's own bytes of an array or object without white
// space, and "" for other kinds.
func (v Value) JSON() string {
	if kind := v.Kind(); kind != Array && kind != Object {
		return ""
	}
	raw := jsontext.Value(v.of.raw(v.at))
	if raw.Compact() != nil { // not reached: the bytes were parsed before
		return ""
	}
	return string(raw)
}

// Claims are the claims of a token, immutable. The zero Claims hold none.
type Claims struct{ of *contents }

func (c Claims) root() Value { return Value{of: c.of} }

// Size returns how many bytes of memory the claims take.
func (c Claims) Size() int {
	if c.of == nil {
		return 0
	}
	return int(unsafe.Sizeof(*c.of)) + len(c.of.text) + len(c.of.nodes)*int(unsafe.Sizeof(node{}))
}

// ParseClaims reads a token's payload strictly (RFC 8259 with RFC 7493's
// care): one object, UTF-8, no name twice in one object, nothing after it, at
// most [MaxDepth] deep. encoding/json would fold the case of names, let the
// last of two duplicates win and mend bad UTF-8; each is a way to make two
// readers of one token disagree.
func ParseClaims(payload []byte) (Claims, error) {
	if len(payload) > maxPayload {
		return Claims{}, fmt.Errorf("the JSON has %d bytes; %d are allowed", len(payload), maxPayload)
	}
	p := parsers.Get().(*parser)
	p.payload = payload
	p.dec.Reset(bytes.NewBuffer(payload))
	defer p.release()
	if err := p.value(); err != nil {
		return Claims{}, err
	}
	c := Claims{p.contents()}
	if kind := c.root().Kind(); kind != Object {
		return Claims{}, fmt.Errorf("the JSON is of type %s, not an object", kind)
	}
	if _, err := p.dec.ReadToken(); err != io.EOF {
		return Claims{}, errors.New("there is something after the JSON object")
	}
	return c, nil
}

// maxPayload is a bound by which the places in the text fit a node, twice over:
// what is decoded is shorter than it was.
const maxPayload = 1 << 30

// parser reads one payload.
type parser struct {
	dec     *jsontext.Decoder
	payload []byte
	decoded []byte // the strings that hold escapes, in quotes, which follow the payload
	nodes   []node
}

// parsers are reused, because making one costs as much as reading a token.
var parsers = sync.Pool{New: func() any { return &parser{dec: jsontext.NewDecoder(nothing{})} }}

// maxKept bounds what a parser takes of memory while it waits: the largest of
// documents must not stay for good.
const maxKept = 1 << 10 // nodes

// release puts p back without anything of the token.
func (p *parser) release() {
	p.dec.Reset(nothing{})
	p.payload, p.decoded, p.nodes = nil, nil, p.nodes[:0]
	if cap(p.nodes) <= maxKept {
		parsers.Put(p)
	}
}

// nothing is a reader at its end.
type nothing struct{}

func (nothing) Read([]byte) (int, error) { return 0, io.EOF }

// contents returns what was read, in no more memory than it needs.
func (p *parser) contents() *contents {
	c := &contents{nodes: make([]node, len(p.nodes))}
	copy(c.nodes, p.nodes)
	if p.decoded == nil {
		c.text = string(p.payload)
	} else {
		c.text = string(slices.Concat(p.payload, p.decoded))
	}
	return c
}

// value reads one value with all that stands in it.
func (p *parser) value() error {
	var end jsontext.Kind
	switch p.dec.PeekKind() {
	case '[':
		end = ']'
	case '{':
		end = '}'
	default:
		return p.scalar()
	}
	if p.dec.StackDepth() >= MaxDepth {
		return fmt.Errorf("the JSON nests deeper than %d", MaxDepth)
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return syntaxError(err)
	}
	at := len(p.nodes)
	p.nodes = append(p.nodes, node{start: uint32(p.dec.InputOffset() - 1)})
	for p.dec.PeekKind() != end {
		if end == '}' {
			if err := p.scalar(); err != nil { // the name
				return err
			}
		}
		if err := p.value(); err != nil {
			return err
		}
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return syntaxError(err)
	}
	p.nodes[at].end, p.nodes[at].next = uint32(p.dec.InputOffset()), uint32(len(p.nodes))
	return nil
}

// scalar reads a value that is no array or object, or an object's name.
func (p *parser) scalar() error {
	raw, err := p.dec.ReadValue()
	if err != nil {
		return syntaxError(err)
	}
	end := int(p.dec.InputOffset())
	n := node{uint32(end - len(raw)), uint32(end), uint32(len(p.nodes) + 1)}
	if raw.Kind() == '"' && bytes.IndexByte(raw, '\\') >= 0 {
		n.start = uint32(len(p.payload) + len(p.decoded))
		p.decoded = append(p.decoded, '"')
		if p.decoded, err = jsontext.AppendUnquote(p.decoded, raw); err != nil {
			return syntaxError(err)
		}
		p.decoded = append(p.decoded, '"')
		n.end = uint32(len(p.payload) + len(p.decoded))
	}
	p.nodes = append(p.nodes, n)
	return nil
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

// With returns the claims with one more, a string. None of that name may be there.
func (c Claims) With(name, text string) Claims {
	of := c.of
	if of == nil {
		of = &contents{text: "{}", nodes: []node{{0, 2, 1}}}
	}
	start, at := uint32(len(of.text)), uint32(len(of.nodes))
	middle := start + uint32(len(name)) + 2
	end := middle + uint32(len(text)) + 2
	more := &contents{
		text:  of.text + `"` + name + `""` + text + `"`,
		nodes: slices.Concat(of.nodes, []node{{start, middle, at + 1}, {middle, end, at + 2}}),
	}
	more.nodes[0].next = at + 2
	return Claims{more}
}

// All yields the top-level claims in the token's order.
func (c Claims) All() iter.Seq2[string, Value] { return c.root().Members() }

// Get returns the top-level claim of exactly that name, or Missing.
func (c Claims) Get(name string) Value { return c.root().Member(name) }

// Lookup follows p through objects, and in a JSON Pointer's manner through
// array indices; a step that leads nowhere gives Missing.
func (c Claims) Lookup(p Path) Value {
	if p.IsZero() {
		return Value{}
	}
	v := c.root()
	for _, step := range p.steps {
		switch v.Kind() {
		case Object:
			v = v.Member(step)
		case Array:
			v = v.item(step)
		default:
			return Value{}
		}
	}
	return v
}

// Blocked says whether p ends early at a value of another type than it asks for:
// a string, number or boolean, or an array of which it asks for a name. What it
// leads to may then be meant, and is not just left out.
func (c Claims) Blocked(p Path) bool {
	v := c.root()
	for _, step := range p.steps {
		switch v.Kind() {
		case Object:
			v = v.Member(step)
		case Array:
			if _, err := strconv.Atoi(step); err != nil {
				return true
			}
			v = v.item(step)
		default:
			return v.Kind() != Missing && v.Kind() != Null
		}
	}
	return false
}

// item returns the array's item of that index in the one spelling that RFC 6901
// §4 allows, or Missing.
func (v Value) item(index string) Value {
	left, err := strconv.Atoi(index)
	if err != nil || left < 0 || strconv.Itoa(left) != index {
		return Value{}
	}
	for item := range v.Items() {
		if left == 0 {
			return item
		}
		left--
	}
	return Value{}
}
