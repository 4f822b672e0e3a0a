package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BenchmarkServe is a request through the whole gateway over real sockets,
// with a remembered token. cpu-µs/op is what the process spent, client and
// backend included, so that what matters is the difference between two rows.
func BenchmarkServe(b *testing.B) {
	const limits = "limits:\n  one:\n    key: [claim:sub]\n    rate: 1000000/1m\n"
	for _, c := range []struct{ name, extra, yaml string }{
		{"plain", "", ""},
		{"refusals kept", "", "server:\n  admin: 127.0.0.1:9901\n"},
		{"limit local", "    limits: [one]\n", limits},
		{"limit shared", "    limits: [one]\n", "redis:\n  url: REDIS\n" + limits + "    scope: shared\n"},
		{"limit leased", "    limits: [one]\n", "redis:\n  url: REDIS\n" + limits + "    scope: shared\n    lease: 50\n"},
		{"revocation lookup", "", "redis:\n  url: REDIS\nrevocation: {}\n"},
		{"revocation replica", "", "redis:\n  url: REDIS\nrevocation:\n  mode: replica\n"},
	} {
		b.Run(c.name, func(b *testing.B) {
			before, after, stored := strings.Cut(c.yaml, "REDIS")
			if stored {
				before += startRedis(b)
			}
			s := newBench(b, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", 200)) }, c.extra+before+after)
			s.gateway.log = NewJSONLog(io.Discard)
			request := "GET /guarded HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer " + s.token(s.claims(`"privileges":["READ"]`)) + "\r\n\r\n"
			conn, err := net.Dial("tcp", s.front.Listener.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			r := bufio.NewReader(conn)
			spent := cpu(b)
			for b.Loop() {
				if _, err := io.WriteString(conn, request); err != nil {
					b.Fatal(err)
				}
				res, err := http.ReadResponse(r, nil)
				if err != nil || res.StatusCode != http.StatusOK {
					b.Fatal(res, err)
				}
				if _, err := io.Copy(io.Discard, res.Body); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((cpu(b)-spent).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}

// BenchmarkEverything is a request through a gateway that has all on that a
// deployment has: the replica of revocations, two limits, metrics and an access
// log in a file, with 10,000 remembered tokens in rotation. Client and backend
// are loops over bytes, so that what is measured is the gateway; make pgo takes
// its profile.
func BenchmarkEverything(b *testing.B) {
	logged, err := os.Create(filepath.Join(b.TempDir(), "access.log"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = logged.Close() }()
	s := newBench(b, http.NotFound, fmt.Sprintf(`
  - match: /heroes/{id}
    privileges: [READ]
    limits: [per_subject, per_ip]
    upstream: http://%s
limits:
  per_subject:
    key: [claim:sub]
    rate: 1000000/1m
  per_ip:
    key: [ip]
    rate: 1000000000/1m
redis:
  url: %s
revocation:
  mode: replica
`, startAnswering(b), startRedis(b)))
	s.gateway.log = NewJSONLog(logged)
	requests := make([]string, 10_000)
	for i := range requests {
		raw := s.token(fmt.Sprintf(`{"iss":"https://id.example.com","sub":"hero-%d","exp":%d,"client_id":"web","email":"hero-%[1]d@example.com","jti":"%[1]d","privileges":["WRITE","READ","LIST"],"note":%[3]q}`, i, time.Now().Add(time.Hour).Unix(), strings.Repeat("n", 300)))
		requests[i] = fmt.Sprintf("GET /heroes/%d HTTP/1.1\r\nHost: h\r\nUser-Agent: bench\r\nAccept: */*\r\nAuthorization: Bearer %s\r\n\r\n", i, raw)
	}
	conn, err := net.Dial("tcp", s.front.Listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	answer := bufio.NewReader(conn)
	ask := func(request string) {
		if _, err := io.WriteString(conn, request); err != nil {
			b.Fatal(err)
		}
		if line, err := skipHead(answer); err != nil || line != "HTTP/1.1 200 OK\r\n" {
			b.Fatal(line, err)
		}
		if _, err := answer.Discard(answerBytes); err != nil {
			b.Fatal(err)
		}
	}
	for _, request := range requests { // each is verified here
		ask(request)
	}
	b.ReportAllocs()
	spent, i := cpu(b), 0
	for b.Loop() {
		ask(requests[i%len(requests)])
		i++
	}
	b.ReportMetric(float64((cpu(b)-spent).Microseconds())/float64(b.N), "cpu-µs/op")
}

// answerBytes is the body that startAnswering answers with.
const answerBytes = 200

// startAnswering starts a backend that answers every request alike, and returns
// its address.
func startAnswering(b *testing.B) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	answer := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", answerBytes, strings.Repeat("x", answerBytes))
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				r := bufio.NewReader(conn)
				for {
					if _, err := skipHead(r); err != nil {
						return
					}
					if _, err := io.WriteString(conn, answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// skipHead reads a message up to its body, and returns the first line if that is
// one of a good answer.
func skipHead(r *bufio.Reader) (first string, err error) {
	for {
		line, err := r.ReadSlice('\n')
		switch {
		case err != nil:
			return first, err
		case len(line) == 2:
			return first, nil
		case first != "":
		case string(line) == "HTTP/1.1 200 OK\r\n":
			first = "HTTP/1.1 200 OK\r\n"
		default:
			first = "another"
		}
	}
}

// cpu returns the processor time that this process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// startRedis starts a real server and returns its URL.
func startRedis(b testing.TB) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	server := exec.Command("redis-server", "--port", fmt.Sprint(port), "--bind", "127.0.0.1", "--save", "", "--dir", b.TempDir())
	if err := server.Start(); err != nil {
		b.Skip("redis-server is not installed: ", err)
	}
	b.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	for range 1000 {
		if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			_ = conn.Close()
			return fmt.Sprintf("redis://127.0.0.1:%d", port)
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.Fatal("redis-server does not answer")
	return ""
}

// remember takes a request with that token as far as its headers are made.
func (b *bench) remember(raw string) {
	b.t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/guarded", nil)
	r.Header.Set("Authorization", "Bearer "+raw)
	snapshot := b.gateway.acquire()
	defer snapshot.release()
	x := b.gateway.exchange(snapshot, httptest.NewRecorder(), r)
	for _, rung := range []func() error{
		x.canonical, x.match, x.findToken, x.verify, func() error { return x.take(x.route.limits.after) }, x.authorize, x.claimHeaders,
	} {
		if err := rung(); err != nil {
			b.t.Fatal(err)
		}
	}
}

// What remembered tokens are taken to need is no less than what they take with
// their headers, whatever those are made of.
func TestTheWeightHasTheHeaders(t *testing.T) {
	const tokens = 500
	many := `"c"`
	for i := range 300 {
		many += fmt.Sprintf(`:"%d","c%[1]d"`, i)
	}
	for name, claims := range map[string]string{
		"few claims":       `"a":"b"`,
		"another script":   `"name":"` + strings.Repeat("漢字", 340) + `"`,
		"an escaped one":   `"name":"` + strings.Repeat(`\u6f22`, 680) + `"`,
		"percent signs":    `"text":"` + strings.Repeat("%", 2000) + `"`,
		"spaces":           `"text":"` + strings.Repeat(" ", 2000) + `"`,
		"a list":           `"list":["` + strings.Repeat(`item","`, 700) + `"]`,
		"a list of commas": `"list":["` + strings.Repeat(",", 2000) + `"]`,
		"a list in others": `"list":["` + strings.Repeat(`\u6f22","`, 400) + `"]`,
		"an object":        `"object":{"text":"` + strings.Repeat("x", 3000) + `"}`,
		"many claims":      many + `:""`,
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, http.NotFound, "")
			remember := func(n int) {
				b.remember(b.token(b.claims(fmt.Sprintf(`"privileges":["READ"],"jti":"%d",%s`, 1000+n, claims))))
			}
			remember(tokens) // what the first one of all makes
			heap := func() uint64 {
				var m runtime.MemStats
				runtime.GC()
				runtime.GC() // of what a sync.Pool holds
				runtime.ReadMemStats(&m)
				return m.HeapAlloc
			}
			before := heap()
			for n := range tokens {
				remember(n)
			}
			taken := (heap() - before) / tokens
			_, weight := b.gateway.cache.Size()
			if weight /= tokens + 1; taken > weight || taken < weight/3 {
				t.Errorf("%d bytes of memory, %d are counted", taken, weight)
			}
		})
	}
}

// BenchmarkTokenMemory reports what each of 10,000 live tokens keeps on the heap
// once it was served: what is remembered of it, its headers, and the bucket of
// its subject.
func BenchmarkTokenMemory(b *testing.B) {
	const live = 10_000
	for b.Loop() {
		s := newBench(b, http.NotFound, `
    limits: [per_subject]
headers:
  claims:
    sub: sub
    client-id: client_id
    email: email
limits:
  per_subject:
    key: [claim:sub]
    rate: 1000000/1m
`)
		text := 0
		serve := func(number int) {
			now := time.Now().Unix()
			// As long as a token of test/bench, whose signature is an RSA key's.
			raw := s.padded(256, fmt.Sprintf(`{"iss":"https://id.example.com","aud":"https://api.example.com","sub":"user-%08d","client_id":"hero-app","jti":"%016[1]x","email":"user-%08[1]d@heroes.example.com","iat":%[2]d,"exp":%[3]d,"privileges":["CREATE_HERO","ASSIGN_HERO","READ"]}`, number, now, now+6*3600))
			text = len(raw)
			s.remember(raw)
		}
		serve(live) // what the first one of all makes
		var before, after runtime.MemStats
		runtime.GC()
		runtime.GC() // of what a sync.Pool holds
		runtime.ReadMemStats(&before)
		for i := range live {
			serve(i)
		}
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/live, "B/token")
		b.ReportMetric(float64(after.HeapObjects-before.HeapObjects)/live, "objects/token")
		b.ReportMetric(float64(text), "B/text")
		_, weight := s.gateway.cache.Size()
		b.ReportMetric(float64(weight)/(live+1), "weight/token")
	}
}
