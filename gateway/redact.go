package gateway

import (
	"regexp"
	"strings"

	"gatehouse/gateway/token"
)

// redactedToken stands where a token stood.
var redactedToken = token.Raw{}.String()

// likeJWT finds what begins as a JWT does, the base64 of {", be it cut short.
var likeJWT = regexp.MustCompile(`eyJ[\w-]{8,}[\w.-]*`)

// Redact replaces all that looks like a JWT, or the beginning of one, in a text
// that is shown to people: a token may stand where nobody meant it to, as in a
// path, or where a file's name belongs on a command line.
func Redact(text string) string { return likeJWT.ReplaceAllString(text, redactedToken) }

// telling is how much of a token's beginning tells that it is one.
const telling = 16

// without returns text without the token raw, whole or cut short.
func without(text, raw string) string {
	if raw == "" {
		return text
	}
	var b strings.Builder
	for {
		at := strings.Index(text, raw[:min(len(raw), telling)])
		if at < 0 {
			b.WriteString(text)
			return b.String()
		}
		b.WriteString(text[:at])
		b.WriteString(redactedToken)
		for i := 0; i < len(raw) && at < len(text) && text[at] == raw[i]; i++ {
			at++
		}
		text = text[at:]
	}
}
