package gateway

import (
	"bytes"
	"embed"
	"net/http"
	"time"
)

// pageText is the admin page. It holds no data: its script asks GET /state for
// that, and the operator for a token where that needs one.
//
//go:embed page
var pageText embed.FS

// pageFiles are its files by pattern. They are for anyone, since a browser loads
// them before it can be given a token.
var pageFiles = map[string]string{
	"GET /{$}":      "page/index.html",
	"GET /page.css": "page/page.css",
	"GET /page.js":  "page/page.js",
}

// pageHeaders are on all answers of the admin listener. Nothing is loaded from
// elsewhere, no text becomes markup or script (Trusted Types), and no other site
// frames the page, holds a window of it, or takes in an answer.
var pageHeaders = map[string]string{
	"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'; " +
		"base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Referrer-Policy":              "no-referrer",
	"X-Content-Type-Options":       "nosniff",
	"Cache-Control":                "no-store",
}

func showFile(name string) adminHandler {
	return func(w http.ResponseWriter, r *http.Request, _ *snapshot, _ caller) {
		text, err := pageText.ReadFile(name)
		if err != nil { // not reached: a test asks for each
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(text))
	}
}
