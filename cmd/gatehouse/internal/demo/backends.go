//go:build !nodemo

package demo

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// seen is what a backend noticed of its caller. The backends here stand for
// services that were there before the gateway: they check nothing.
type seen struct {
	Claims        map[string]string `json:"claims"`        // the x-jwt-* headers
	Authorization bool              `json:"authorization"` // whether a token came along
}

// look collects every header that CGI, PHP and their like would take for an
// x-jwt- one: to them X_Jwt_Sub and x-jwt-sub are the same.
func look(r *http.Request) seen {
	s := seen{Claims: map[string]string{}, Authorization: r.Header.Get("Authorization") != ""}
	for name, values := range r.Header {
		folded := strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name))
		if !strings.HasPrefix(folded, "x-jwt-") {
			continue
		}
		if old, twice := s.Claims[folded]; twice {
			values = append([]string{old}, values...)
		}
		s.Claims[folded] = strings.Join(values, " and ")
	}
	return s
}

// hero is one row of heroes-service.
type hero struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// heroAnswer is how heroes-service answers about a hero.
type heroAnswer struct {
	hero
	Seen seen `json:"seen"`
}

const maxHeroes = 1000

// newHeroes returns heroes-service: POST /hero, GET and PUT /hero/{id}, GET /healthz.
// It keeps its heroes in memory and is safe for concurrent use.
func newHeroes() http.Handler {
	var mu sync.Mutex
	var heroes []hero
	mux := http.NewServeMux()
	mux.HandleFunc("POST /hero", func(w http.ResponseWriter, r *http.Request) {
		var h hero
		if !readJSON(w, r, &h) {
			return
		}
		if h.Name == "" {
			http.Error(w, "a hero has a name", http.StatusBadRequest)
			return
		}
		mu.Lock()
		full := len(heroes) == maxHeroes
		if !full {
			h.ID = strconv.Itoa(len(heroes) + 1)
			heroes = append(heroes, h)
		}
		mu.Unlock()
		if full {
			http.Error(w, "no room for another hero", http.StatusInsufficientStorage)
			return
		}
		writeJSON(w, http.StatusCreated, heroAnswer{h, look(r)})
	})
	mux.HandleFunc("GET /hero/{id}", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		known := heroes // only ever appended to, or replaced
		mu.Unlock()
		i, err := strconv.Atoi(r.PathValue("id"))
		if err != nil || i < 1 || i > len(known) {
			http.Error(w, "no such hero", http.StatusNotFound)
			return
		}
		writeJSON(w, http.StatusOK, heroAnswer{known[i-1], look(r)})
	})
	mux.HandleFunc("PUT /hero/{id}", func(w http.ResponseWriter, r *http.Request) {
		var h hero
		if !readJSON(w, r, &h) {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		i, err := strconv.Atoi(r.PathValue("id"))
		if err != nil || i < 1 || i > len(heroes) {
			http.Error(w, "no such hero", http.StatusNotFound)
			return
		}
		heroes = slices.Clone(heroes) // others may be reading the old ones
		heroes[i-1].Name = h.Name
		writeJSON(w, http.StatusOK, heroAnswer{heroes[i-1], look(r)})
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, map[string]any{"status": "ok", "seen": look(r)})
	})
	return mux
}

// assignment is what threats-service makes of a hero and a threat.
type assignment struct {
	Threat string     `json:"threat"`
	Hero   heroAnswer `json:"hero"` // as heroes-service answered
	Seen   seen       `json:"seen"`
}

// newThreats returns threats-service: GET /threats and POST /assign. It finds
// heroes at the URL heroes, with client and with its own caller's token.
func newThreats(heroes string, client *http.Client) http.Handler {
	threats := []string{"flood", "meteor", "dragon"}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /threats", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, map[string]any{"threats": threats, "seen": look(r)})
	})
	mux.HandleFunc("POST /assign", func(w http.ResponseWriter, r *http.Request) {
		var order struct{ Hero, Threat string }
		if !readJSON(w, r, &order) {
			return
		}
		req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, heroes+"/hero/"+url.PathEscape(order.Hero), nil)
		if err != nil {
			http.Error(w, "bad hero", http.StatusBadRequest)
			return
		}
		if lines := r.Header["Authorization"]; lines != nil {
			req.Header["Authorization"] = lines
		}
		resp, err := client.Do(req)
		if err != nil {
			http.Error(w, "heroes-service does not answer", http.StatusBadGateway)
			return
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode != http.StatusOK {
			http.Error(w, "heroes-service answered "+resp.Status, http.StatusBadGateway)
			return
		}
		a := assignment{Threat: order.Threat, Seen: look(r)}
		if json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&a.Hero) != nil {
			http.Error(w, "heroes-service answered something else", http.StatusBadGateway)
			return
		}
		writeJSON(w, http.StatusOK, a)
	})
	return mux
}

// readJSON reads a bounded body into v; where it cannot, it has answered 400.
func readJSON(w http.ResponseWriter, r *http.Request, v any) bool {
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(v); err != nil {
		http.Error(w, "the body must be a JSON object", http.StatusBadRequest)
		return false
	}
	return true
}
