package test

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
)

// member is one of several servers of an upstream. It answers with its address,
// until its mood or its life changes.
type member struct {
	address string
	served  atomic.Int64 // requests, health checks aside
	checked atomic.Int64
	mood    atomic.Value  // a string
	got     atomic.Value  // the last request's body, a string
	until   chan struct{} // it is slow
	server  *http.Server
}

const (
	well      = "well"
	sick      = "sick"      // its health checks fail, requests do not
	erring    = "erring"    // 500
	overtaxed = "overtaxed" // 503
	breaking  = "breaking"  // in the middle of a body
	resetting = "resetting" // the connection, when it has read the request
	stalled   = "stalled"   // the same, and it stays there
	hung      = "hung"
	slow      = "slow" // until a channel is closed; its health checks are not

	alternating = "alternating" // every other answer is 503, to requests and to checks
)

// newMembers starts n members, and ends them with the test.
func newMembers(t *testing.T, n int) []*member {
	t.Helper()
	list := make([]*member, n)
	for i := range list {
		m := &member{}
		eventually(t, "there is a port", func() bool { m.address = freeAddress(t); return m.listen() == nil })
		t.Cleanup(m.kill)
		list[i] = m
	}
	return list
}

// start starts it again, well, where it was before.
func (m *member) start(t *testing.T) {
	t.Helper()
	eventually(t, "the port is free again", func() bool { return m.listen() == nil })
}

func (m *member) listen() error {
	l, err := net.Listen("tcp", m.address)
	if err != nil {
		return err
	}
	m.mood.Store(well)
	m.server = &http.Server{Handler: m, ErrorLog: quiet}
	go func(s *http.Server) { _ = s.Serve(l) }(m.server)
	return nil
}

// kill closes its port and all its connections.
func (m *member) kill() { _ = m.server.Close() }

// refuse closes its port, and its connections once they are idle.
func (m *member) refuse(t *testing.T) {
	t.Helper()
	if err := m.server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// ServeHTTP implements http.Handler.
func (m *member) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	mood := m.mood.Load()
	if r.URL.Path == "/healthz" {
		if n := m.checked.Add(1); mood == sick || mood == erring || mood == alternating && n%2 == 0 {
			w.WriteHeader(http.StatusInternalServerError)
		} else if mood == hung {
			hold(r, nil)
		}
		return
	}
	if n := m.served.Add(1); mood == alternating && n%2 == 0 {
		mood = overtaxed
	}
	switch mood {
	case erring:
		w.WriteHeader(http.StatusInternalServerError)
	case overtaxed:
		w.WriteHeader(http.StatusServiceUnavailable)
	case hung:
		hold(r, nil)
	case slow:
		hold(r, m.until)
		_, _ = io.WriteString(w, m.address)
	case breaking:
		w.Header().Set("Content-Length", "100000")
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case stalled:
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		hold(r, nil)
	case resetting:
		_, _ = io.Copy(io.Discard, r.Body)
		panic(http.ErrAbortHandler)
	default:
		body, _ := io.ReadAll(r.Body)
		m.got.Store(string(body))
		_, _ = io.WriteString(w, m.address)
	}
}

// memberCommand has this program be a member in a process of its own, which can
// be killed.
const memberCommand = "member"

func serveAsMember(address string) int {
	m := &member{address: address}
	m.mood.Store(well)
	_ = http.ListenAndServe(address, m)
	return 1
}

// launchMember starts a member as a process at that address.
func launchMember(t *testing.T, address string) *process {
	t.Helper()
	p := launch(t, os.Args[0], memberCommand, address)
	eventually(t, "the member listens", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return p
}

// row is what GET /upstreams of the admin listener says of a target.
type row struct {
	Target, URL, State, Why string
	Weight                  int
	InFlight                int64 `json:"requests_in_flight"`
	Ejections               int
	Requests                map[string]int
}

// upstream is the rows of one upstream by the targets' addresses.
func (g *gateway) upstream(t *testing.T, admin, name string) map[string]row {
	t.Helper()
	rows := map[string]row{}
	for _, r := range upstreamOf(t, admin, name).Targets {
		rows[r.Target] = r
	}
	return rows
}

// circuit is the state of an upstream's circuit breaker.
func (g *gateway) circuit(t *testing.T, admin, name string) string {
	t.Helper()
	return upstreamOf(t, admin, name).Circuit
}

type upstreamState struct {
	Name, Circuit string
	Targets       []row
}

func upstreamOf(t *testing.T, admin, name string) upstreamState {
	t.Helper()
	resp, err := http.Get("http://" + admin + "/upstreams")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var all struct{ Upstreams []upstreamState }
	if err := json.NewDecoder(resp.Body).Decode(&all); err != nil {
		t.Fatal(err)
	}
	for _, u := range all.Upstreams {
		if u.Name == name {
			return u
		}
	}
	t.Fatalf("no upstream %s: %+v", name, all)
	return upstreamState{}
}
