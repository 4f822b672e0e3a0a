package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// recording remembers each write by itself.
type recording struct {
	mu   sync.Mutex
	got  []string
	fail error
}

func (w *recording) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fail != nil {
		return 0, w.fail
	}
	w.got = append(w.got, string(bytes.Clone(p)))
	return len(p), nil
}

// take returns what was written since it was asked last, and holds every write
// to whole lines.
func (w *recording) take(t *testing.T) []string {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	got := w.got
	w.got = nil
	for _, text := range got {
		if !strings.HasSuffix(text, "\n") || len(text) > gatherBytes && strings.Count(text, "\n") > 1 {
			t.Errorf("a write of %d bytes: %q", len(text), text)
		}
	}
	return got
}

// numbers returns the requests' numbers, in order, and the messages of other lines.
func numbers(got []string) string {
	var all []string
	for line := range strings.Lines(strings.Join(got, "")) {
		if _, number, ok := strings.Cut(line, `"bytes":`); ok {
			all = append(all, strings.TrimRight(number, "}\n"))
		} else {
			_, message, _ := strings.Cut(line, `"msg":"`)
			all = append(all, strings.TrimRight(message, "\"}\n"))
		}
	}
	return strings.Join(all, " ")
}

func logTo(w *recording) (g *Gateway, request func(n int64)) {
	g = &Gateway{log: NewJSONLog(w)}
	return g, func(n int64) {
		g.logRequest(context.Background(), slog.LevelInfo, []slog.Attr{slog.Int64("bytes", n)})
	}
}

func TestALoneRequestIsLoggedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var to recording
		_, request := logTo(&to)
		for n := range int64(3) {
			request(n)
			if got := to.take(t); numbers(got) != fmt.Sprint(n) {
				t.Errorf("request %d: %q", n, got)
			}
			time.Sleep(gatherFor)
		}
	})
}

func TestRequestsThatComeFastAreLoggedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var to recording
		_, request := logTo(&to)
		for range 3 {
			for n := range int64(5) {
				request(n)
				time.Sleep(gatherFor / 10)
			}
			if got := to.take(t); numbers(got) != "0" {
				t.Errorf("at once: %q", got)
			}
			time.Sleep(gatherFor)
			synctest.Wait()
			if got := to.take(t); len(got) != 1 || numbers(got) != "1 2 3 4" {
				t.Errorf("after %v: %q", gatherFor, got)
			}
			time.Sleep(gatherFor)
		}
	})
}

// Memory is bounded, and a pipe takes each write as one.
func TestGatheredLinesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var to recording
		g, request := logTo(&to)
		var want []string
		for n := range int64(1000) {
			request(n)
			want = append(want, fmt.Sprint(n))
		}
		got := to.take(t)
		if len(got) < 2 || len(got) > 30 {
			t.Errorf("%d writes", len(got))
		}
		g.logRequest(t.Context(), slog.LevelInfo, []slog.Attr{slog.String("detail", strings.Repeat("x", gatherBytes)), slog.Int64("bytes", 1000)})
		request(1001)
		got = append(got, to.take(t)...)
		time.Sleep(gatherFor)
		synctest.Wait()
		if all := numbers(append(got, to.take(t)...)); all != strings.Join(append(want, "1000", "1001"), " ") {
			t.Error(all)
		}
	})
}

func TestOtherLinesDoNotWait(t *testing.T) {
	for name, newLog := range map[string]func() (*Gateway, *recording){
		"JSON": func() (*Gateway, *recording) { to := new(recording); return &Gateway{log: NewJSONLog(to)}, to },
		"text": func() (*Gateway, *recording) { to := new(recording); return &Gateway{log: NewTextLog(to)}, to },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, to := newLog()
				path := []string{"/a", "/b", "/c\u2028", "/d"} // slog's to write, one of them
				for _, p := range path {
					g.logRequest(t.Context(), slog.LevelInfo, []slog.Attr{slog.String("path", p)})
				}
				got := to.take(t)
				if len(got) != 1 {
					t.Errorf("before the warning: %q", got)
				}
				g.log.With("upstream", "heroes").Warn("a target is down")
				g.logRequest(t.Context(), slog.LevelInfo, []slog.Attr{slog.String("path", "/e")})
				slog.NewLogLogger(g.log.Handler(), slog.LevelWarn).Print("a panic")
				text := strings.Join(append(got, to.take(t)...), "")
				at := 0
				for _, next := range []string{"/a", "/b", "/c", "/d", "a target is down", "/e", "a panic"} {
					i := strings.Index(text[at:], next)
					if i < 0 {
						t.Fatalf("%s is missing or out of order:\n%s", next, text)
					}
					at += i
				}
			})
		})
	}
}

// A disk that was full costs the lines that did not fit, no later ones.
func TestALogThatCannotBeWrittenIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := recording{fail: errors.New("no space left on device")}
		_, request := logTo(&to)
		for n := range int64(1000) {
			request(n)
		}
		time.Sleep(gatherFor)
		synctest.Wait()
		to.mu.Lock()
		to.fail = nil
		to.mu.Unlock()
		time.Sleep(gatherFor)
		request(1000)
		if got := to.take(t); numbers(got) != "1000" {
			t.Errorf("%q", got)
		}
	})
}

// Nothing waits for good, though nobody writes any more.
func TestCloseWritesWhatWaits(t *testing.T) {
	b := newBench(t, http.NotFound, "")
	var to recording
	g, err := New(t.Context(), b.config(""), Options{Logger: NewJSONLog(&to)})
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		g.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/nowhere", nil))
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(strings.Join(to.take(t), ""), `"msg":"request"`); n != 5 {
		t.Errorf("%d of 5 lines", n)
	}
}

// slowly lets everybody else go on before it takes something.
type slowly struct{ recording }

func (s *slowly) Write(p []byte) (int, error) {
	for range 100 {
		runtime.Gosched()
	}
	return s.recording.Write(p)
}

// Who logs is held up where the log is taken slowly; nothing is lost, and each
// caller's lines keep their order.
func TestASlowLogHoldsUpAndLosesNothing(t *testing.T) {
	to := new(slowly)
	g := &Gateway{log: NewJSONLog(to)}
	const callers, each = 8, 1000
	var all sync.WaitGroup
	for c := range callers {
		all.Go(func() {
			for i := range each {
				g.logRequest(t.Context(), slog.LevelInfo, []slog.Attr{slog.Int("caller", c), slog.Int("line", i)})
			}
		})
	}
	all.Wait()
	g.log.Info("drained")
	next := [callers]int{}
	for line := range strings.Lines(strings.Join(to.take(t), "")) {
		var said struct {
			Msg          string
			Caller, Line int
		}
		if err := json.Unmarshal([]byte(line), &said); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if said.Msg != "request" {
			continue
		}
		if said.Line != next[said.Caller] {
			t.Fatalf("caller %d: line %d after %d", said.Caller, said.Line, next[said.Caller]-1)
		}
		next[said.Caller]++
	}
	for c, n := range next {
		if n != each {
			t.Errorf("caller %d: %d of %d lines", c, n, each)
		}
	}
}
