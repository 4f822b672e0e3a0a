package main

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// needs skips a test where what it drives is not installed (make bench does that).
func needs(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("it starts servers and loads them")
	}
	for _, program := range []string{nginx(), "wrk"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
}

// leftOver lists the processes that have a word on their command line.
func leftOver(t *testing.T, word string) (found []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), word) {
			found = append(found, strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	return found
}

func TestAQuickRunMeasuresEveryPeerAndLeavesNothing(t *testing.T) {
	needs(t)
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	var out strings.Builder
	err := run(t.Context(), []string{"-quick", "-cases", "many-tokens", "-peers", "gatehouse-bare,nginx-lua,haproxy", "-results", dir}, &out)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	files, err := filepath.Glob(filepath.Join(dir, "peers-*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("raw results: %v %v", files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var kept struct{ Results []result }
	if err := json.Unmarshal(text, &kept); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, r := range kept.Results {
		seen[r.Peer] = true
		if r.Requests == 0 || r.CPU <= 0 || r.P50 <= 0 || r.Loaded <= 0 || r.First <= 0 || r.Added == nil {
			t.Errorf("not all was measured: %+v", r)
		}
	}
	for _, p := range allPeers {
		if strings.Contains("gatehouse-bare,nginx-lua,haproxy", p.Name) && p.Name != "gatehouse" && p.installed() && !seen[p.Name] {
			t.Errorf("%s was not measured:\n%s", p.Name, out.String())
		}
	}
	if left := leftOver(t, dir); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}

// stopping cancels as soon as anything that is written holds a word.
type stopping struct {
	word string
	stop func()
}

func (s stopping) Write(p []byte) (int, error) {
	if strings.Contains(string(p), s.word) {
		s.stop()
	}
	return len(p), nil
}

func TestAStoppedRunLeavesNothing(t *testing.T) {
	needs(t)
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	ctx, cancel := context.WithCancel(t.Context())
	stop := func() { time.AfterFunc(time.Second, cancel) } // somewhere in a measurement
	err := run(ctx, []string{"-quick", "-rounds", "50", "-cases", "one-token", "-peers", "gatehouse-bare,nginx-lua-each", "-results", dir}, stopping{"round 1", stop})
	cancel()
	if err == nil {
		t.Log("it was done before it was stopped")
	}
	if left := leftOver(t, dir); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "gatehouse-bench-*")); err != nil || len(left) > 0 {
		t.Errorf("left over: %q %v", left, err)
	}
}

// honest does the job of a peer, but for one thing that it does wrong.
func honest(keys signers, issuer, wrong string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		var text string
		var signature []byte
		var c claims
		if dot := strings.LastIndexByte(token, '.'); dot > 0 {
			text = token[:dot]
			signature, _ = base64.RawURLEncoding.DecodeString(token[dot+1:])
			payload, _ := base64.RawURLEncoding.DecodeString(text[strings.IndexByte(text, '.')+1:])
			_ = json.Unmarshal(payload, &c)
		}
		digest := sha256.Sum256([]byte(text))
		for _, rung := range []struct {
			name   string
			fails  bool
			status int
		}{
			{"no token", token == "", http.StatusUnauthorized},
			{"signature", rsa.VerifyPKCS1v15(&keys.rsa.PublicKey, crypto.SHA256, digest[:], signature) != nil, http.StatusUnauthorized},
			{"exp", c.Expires < time.Now().Unix(), http.StatusUnauthorized},
			{"iss", c.Issuer != issuer, http.StatusUnauthorized},
			{"aud", c.Audience != audience, http.StatusUnauthorized},
			{"privilege", !slices.Contains(c.Privileges, privilege), http.StatusForbidden},
		} {
			if rung.fails && (rung.name != wrong) && (wrong != "no token" || token != "") {
				w.WriteHeader(rung.status)
				return
			}
		}
		if r.URL.Path != "/echo" {
			_, _ = io.WriteString(w, strings.Repeat("x", map[bool]int{true: 5, false: 200}[wrong == "short"]))
			return
		}
		h := http.Header{"X-Jwt-Sub": {c.Subject}, "X-Jwt-Client-Id": {c.Client}, "X-Jwt-Email": {c.Email}}
		switch wrong {
		case "forged sub":
			h["X-Jwt-Sub"] = append(r.Header["X-Jwt-Sub"], c.Subject)
		case "evil":
			h["X-Jwt-Evil"] = r.Header["X-Jwt-Evil"]
		case "token passed on":
			h["Authorization"] = r.Header["Authorization"]
		}
		_ = json.NewEncoder(w).Encode(h)
	}
}

func TestAPeerThatDoesNotDoTheJobIsNotTimed(t *testing.T) {
	t.Parallel()
	keys, err := newSigners()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{signers: keys}
	r.base.Issuer = "http://127.0.0.1:9"
	c := allCases[1]
	for _, wrong := range []string{"", "no token", "signature", "exp", "iss", "aud", "privilege", "forged sub", "evil", "token passed on", "short"} {
		server := httptest.NewServer(honest(keys, r.base.Issuer, wrong))
		s := &stand{url: server.URL, client: newClient(c)}
		if err := r.check(s, c); (err == nil) != (wrong == "") {
			t.Errorf("a peer that does wrong in %q: %v", wrong, err)
		}
		server.Close()
	}
}

func TestReadersOfTools(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	l, err := readWrk([]byte("Running 1s test\n  Latency {\n\n{\"requests\":1000,\"micros\":2000000,\"refused\":0,\"broken\":0,\"p50\":7,\"p99\":70}\n"))
	if err != nil || l != (load{1000, 2, 7, 70}) {
		t.Error(l, err)
	}
	for _, bad := range []string{"", "unable to connect", `{"requests":1000,"micros":2000000,"refused":1,"broken":0,"p50":7,"p99":70}`, `{"requests":0,"micros":1}`} {
		if _, err := readWrk([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	l, err = readH2load(nil, write("h2", "10\t200\t30\n11\t200\t10\n12\t200\t20\n"), 3*time.Second)
	if err != nil || l != (load{3, 3, 20, 30}) {
		t.Error(l, err)
	}
	for _, bad := range []string{"", "10\t401\t30\n", "10\t-1\t30\n"} {
		if _, err := readH2load(nil, write("h2", bad), time.Second); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	counts, err := readCounters(write("perf", "# started on Mon\n\n123456,,instructions:u,2000000,100.00,,\n654,,instructions:k,2000000,100.00,,\n"))
	if err != nil || counts != (instructions{123456, 654}) {
		t.Error(counts, err)
	}
	for _, bad := range []string{"", "<not supported>,,instructions:u,0,100.00,,\n<not supported>,,instructions:k,0,100.00,,\n", "123,,instructions:u,1,100.00,,\n", "1,,instructions:u,1,1,,\n<not counted>,,instructions:k,0,0.00,,\n"} {
		if _, err := readCounters(write("perf", bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	k := func(f float64) *float64 { return &f }
	cases, peers := []benchCase{{Name: "some", About: "some <load> & more", Paced: true}}, []peer{{Name: "gatehouse"}, {Name: "nginx"}, {Name: "absent"}}
	var results []result
	for i, cpu := range []float64{30, 10, 20} {
		results = append(results, result{Case: "some", Peer: "gatehouse", Round: i, CPU: cpu, Instructions: k(cpu * 4), Added: k(50), PerSecond: 1000, Idle: 32 << 20},
			result{Case: "some", Peer: "nginx", Round: i, CPU: cpu / 2, PerSecond: 2000})
	}
	tables := compare(cases, peers, results)
	if len(tables) != 1 || len(tables[0].Rows) != 2 {
		t.Fatalf("%+v", tables)
	}
	text := tables[0].markdown()
	for _, want := range []string{"40.0 / 80.0 / 120", "10.0 / 20.0 / 30.0", "5.00 / 10.0 / 15.0", " 32.0 |", " 2.00 |\n", "gatehouse ÷ it: kinstr", " – |"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	chart := comparisonChart(cases, peers, results)
	for d := xml.NewDecoder(strings.NewReader(chart)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, chart)
		}
	}

	page := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(page, []byte("before\n<!-- peers -->\nold\n<!-- /peers -->\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := replaceBetween(page, "peers", "new\n"); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(page); string(got) != "before\n<!-- peers -->\nnew\n<!-- /peers -->\nafter\n" {
		t.Errorf("%s", got)
	}
	if err := replaceBetween(page, "growth", "new\n"); err == nil {
		t.Error("a page without a place is taken")
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-docs", "-quick"}, {"-docs", "-emulate", "-quick"}, {"-docs", "-rounds", "1"}, {"-nonsense"}} {
		if err := run(t.Context(), args, io.Discard); err == nil {
			t.Errorf("%v is taken", args)
		}
	}
	if _, err := pick("peer", allPeers, "nginks", func(p peer) string { return p.Name }); err == nil || !strings.Contains(err.Error(), "nginx-lua") {
		t.Error(err)
	}
	for _, c := range allCases {
		for _, p := range allPeers {
			if c.takes(p) && (c.Path == "/open") != !p.Auth && !p.Passes {
				t.Errorf("%s takes part in %s", p.Name, c.Name)
			}
		}
	}
}

// TestASoakLeavesNothing is a short soak; make soak is the one that shows what
// grows slowly. It wants the machine to itself: beside the other packages' tests
// its callers are kept waiting until they break off, and nothing tells that from
// a fault of the gateway.
func TestASoakLeavesNothing(t *testing.T) {
	needs(t)
	if os.Getenv("SOAK") == "" {
		t.Skip("SOAK=1 runs it")
	}
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // nginx's workers may run as another user
		t.Fatal(err)
	}
	var out strings.Builder
	if err := run(t.Context(), []string{"-soak", "-for", "15s", "-quick", "-results", dir}, &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	files, err := filepath.Glob(filepath.Join(dir, "soak-*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("raw results: %v %v", files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var kept struct{ Results []soakResult }
	if err := json.Unmarshal(text, &kept); err != nil {
		t.Fatal(err)
	}
	if len(kept.Results) != 2 {
		t.Fatalf("%d gateways", len(kept.Results))
	}
	for _, r := range kept.Results {
		if len(r.Samples) < 5 || r.Before.Goroutines == 0 || r.After.Requests <= r.Before.Requests {
			t.Errorf("%s: not all was measured: %d samples, %+v, %+v", r.Gateway, len(r.Samples), r.Before, r.After)
		}
	}
	for _, c := range allCallers {
		if n := kept.Results[0].Tallies[c.name]; n == nil || n.Done == n.Explained {
			t.Errorf("%s: never answered", c.name)
		}
	}
	for _, v := range allVandals {
		if n := kept.Results[0].Tallies[v.name]; n == nil || n.Done == n.Explained {
			t.Errorf("%s: never done", v.name)
		}
	}
	for _, u := range allUpsets {
		if n := kept.Results[0].Tallies[u.name]; n == nil && u.every < 10*time.Second {
			t.Errorf("%s: never caused", u.name)
		}
	}
	if left := leftOver(t, dir); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}

// TestALeakIsFound: what a soak that found nothing is worth.
func TestALeakIsFound(t *testing.T) {
	t.Parallel()
	held := vitals{Goroutines: 20, Files: 20, Heap: 20 << 20, Resident: 60 << 20}
	for name, leak := range map[string]func(*vitals){
		"goroutines":  func(v *vitals) { v.Goroutines += moreGoroutines + 1 },
		"files":       func(v *vitals) { v.Files += moreFiles + 1 },
		"heap":        func(v *vitals) { v.Heap += moreHeap + 1 },
		"memory":      func(v *vitals) { v.Resident += moreResident + 1 },
		"connections": func(v *vitals) { v.Connections++ },
		"500":         func(v *vitals) { v.Faults++ },
		"":            func(*vitals) {},
	} {
		after := held
		leak(&after)
		s := &soak{rig: &rig{out: io.Discard}}
		if guilty := s.judge(soakResult{Gateway: name, Before: held, After: after}); guilty != (name != "") || (len(s.faults) > 0) != guilty {
			t.Errorf("%q: %v %q", name, guilty, s.faults)
		}
	}
	o := &outages{}
	before := time.Now()
	o.begin()
	if now := time.Now(); !o.explain(before, now) || o.explain(before.Add(-2*time.Second), before.Add(-time.Second)) {
		t.Error("an outage explains what came before it, or nothing")
	}
	o.end()
	if later := time.Now().Add(2 * time.Second); !o.explain(before, later) || o.explain(later, later) {
		t.Error("an outage explains what came after it, or nothing")
	}
}

func TestAFootprintHasEachState(t *testing.T) {
	needs(t)
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	var out strings.Builder
	if err := run(t.Context(), []string{"-quick", "-footprint", "-results", dir}, &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	files, _ := filepath.Glob(filepath.Join(dir, "footprint-*.json"))
	if len(files) != 1 {
		t.Fatalf("raw results: %v", files)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var kept struct{ Results []footprint }
	if err := json.Unmarshal(text, &kept); err != nil {
		t.Fatal(err)
	}
	if len(kept.Results) != 3 {
		t.Fatalf("%+v", kept.Results)
	}
	for i, state := range []string{atRest, atRate, atLimit} {
		f := kept.Results[i]
		if f.State != state || f.Routes != 10 || f.Resident < 1<<20 || (f.PerSecond > 0) != (state != atRest) || state != atRest && f.Cores == 0 {
			t.Errorf("%+v", f)
		}
	}
	if left := leftOver(t, dir); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}
