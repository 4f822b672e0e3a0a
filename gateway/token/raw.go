package token

import (
	"fmt"
	"log/slog"
	"unsafe"
)

const redacted = "[redacted token]"

// Raw is a token as the caller sent it. However it is printed, logged or
// marshalled it shows only a placeholder, so that no log line can leak a
// credential; [Raw.Reveal] is the one way to the bytes.
//
// The bytes stand behind a pointer because fmt cannot call [Raw.Format] on an
// unexported field of another struct, and would print what stands in it. It is
// the string's own, since a pointer to the string would be an allocation for
// each request.
type Raw struct {
	data *byte
	len  int
}

// NewRaw wraps the token s.
func NewRaw(s string) Raw { return Raw{unsafe.StringData(s), len(s)} }

// Reveal returns the token itself. Never log what it returns.
func (r Raw) Reveal() string { return unsafe.String(r.data, r.len) }

// Len returns the token's length in bytes.
func (r Raw) Len() int { return r.len }

// String returns a placeholder, never the token.
func (r Raw) String() string { return redacted }

// Format writes a placeholder for every verb, so that %x and %#v leak nothing either.
func (r Raw) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText returns a placeholder; encoding/json uses it.
func (r Raw) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue returns a placeholder to log/slog.
func (r Raw) LogValue() slog.Value { return slog.StringValue(redacted) }
