package token

import (
	"net/http"
	"strings"
)

// WebSocketProtocol is a [Source] for browsers, whose WebSocket API can set no
// header but the list of subprotocols: new WebSocket(url, ["access_token",
// token]). The token is what follows the subprotocol Marker in
// Sec-WebSocket-Protocol (RFC 6455 §11.3.4).
type WebSocketProtocol struct{ Marker string }

const protocols = "Sec-Websocket-Protocol"

// Find implements [Source].
func (s WebSocketProtocol) Find(r *http.Request) (raw Raw, found bool, err error) {
	items := s.items(r)
	for i, item := range items {
		switch {
		case item != s.Marker:
			continue
		case found:
			return Raw{}, false, Errorf(BadRequest, "the subprotocol %s is offered twice", s.Marker)
		case i+1 == len(items) || !isToken68(items[i+1]):
			return Raw{}, false, Errorf(BadRequest, "no well-formed token follows the subprotocol %s", s.Marker)
		}
		raw, found = NewRaw(items[i+1]), true
	}
	return raw, found, nil
}

func (s WebSocketProtocol) items(r *http.Request) []string {
	var items []string
	for _, line := range r.Header[protocols] {
		for item := range strings.SplitSeq(line, ",") {
			items = append(items, strings.Trim(item, " \t"))
		}
	}
	return items
}

// Remove implements [Source]: the marker and the token go, so that the backend
// chooses among the subprotocols that mean something to it.
func (s WebSocketProtocol) Remove(r *http.Request) {
	var kept []string
	items := s.items(r)
	used := ""
	for i, item := range items {
		if i > 0 && items[i-1] == s.Marker {
			used = item
		}
	}
	for _, item := range items {
		if item != s.Marker && item != used {
			kept = append(kept, item)
		}
	}
	if kept == nil {
		delete(r.Header, protocols)
		return
	}
	r.Header[protocols] = []string{strings.Join(kept, ", ")}
}

// String implements [Source].
func (s WebSocketProtocol) String() string { return "subprotocol " + s.Marker }
