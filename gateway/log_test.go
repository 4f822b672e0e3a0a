package gateway

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// FuzzRequestLine holds the lines of requests to the bytes that slog's own
// handlers write, whatever callers send.
func FuzzRequestLine(f *testing.F) {
	for _, text := range []string{"", "/heroes/7", "a b", `"`, `\`, "<&>'", "\x00\x1f\x7f", "\b\f\n\r\t", "\xff", "\xc3", "é…", "\u2028\u2029", "\ufffd", "😀", "time=1"} {
		f.Add(text, text, int64(200), int64(1_234_567), uint32(120_000_000), true)
	}
	f.Add("x", strings.Repeat("y", 2*usualLine), int64(-1), int64(-1), uint32(0), false)
	f.Fuzz(func(t *testing.T, one, other string, number, duration int64, nanosecond uint32, yes bool) {
		attrs := []slog.Attr{
			slog.String("path", one), slog.Int64("bytes", number), slog.Duration("duration", time.Duration(duration)),
			slog.Bool("broken_off", yes), slog.String("detail", other), slog.Any("any", &number),
		}
		at := time.Date(2026, 5, 4, 9, 30, 11, int(nanosecond), time.FixedZone("", int(number%1000)*60))
		for n := range len(attrs) + 1 {
			r := slog.NewRecord(at, slog.LevelWarn, requestMessage, 0)
			r.AddAttrs(attrs[:n]...)
			var want bytes.Buffer
			if err := slog.NewJSONHandler(&want, nil).Handle(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			got, ok := appendJSONLine(nil, at, slog.LevelWarn, requestMessage, attrs[:n])
			if ok && string(got) != want.String() {
				t.Errorf("%q is not slog's %q", got, &want)
			}
			if n < len(attrs) && !strings.ContainsFunc(one+other, func(r rune) bool { return r < ' ' || r > '\x7f' }) && !ok {
				t.Errorf("%q was left to slog", &want)
			}
		}
	})
}

// Texts are looked at eight bytes at a time: each byte counts wherever it stands.
func TestRequestLineOfEachByte(t *testing.T) {
	for place := range 20 {
		for c := range 256 {
			text := []byte("twenty plain letters")
			text[place] = byte(c)
			attr := slog.String("path", string(text))
			r := slog.NewRecord(time.Unix(0, 0), slog.LevelInfo, requestMessage, 0)
			r.AddAttrs(attr)
			var want bytes.Buffer
			if err := slog.NewJSONHandler(&want, nil).Handle(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			got, ok := appendJSONLine(nil, time.Unix(0, 0), slog.LevelInfo, requestMessage, []slog.Attr{attr})
			if plain := ' ' <= c && c < 0x80; ok != plain || ok && string(got) != want.String() {
				t.Errorf("%q, %t; slog has %q", got, ok, &want)
			}
		}
	}
}

// requestAttrs are those of a usual request that was let through.
func requestAttrs() []slog.Attr {
	return []slog.Attr{
		slog.String("request_id", "4be1a7c29d0f4be1a7c29d0f4be1a7c2"), slog.String("trace_id", "0af7651916cd43dd8448eb211c80319c"),
		slog.String("client", "203.0.113.9"), slog.String("method", "GET"), slog.String("host", "api.example.com"),
		slog.String("path", "/heroes/4711"), slog.String("route", "hero"), slog.Int("status", 200), slog.Int64("bytes", 200),
		slog.Duration("duration", 123456), slog.String("upstream", "heroes"), slog.String("issuer", "main"), slog.String("sub", "alice"),
	}
}

// BenchmarkRequestLine is what a request's line costs, by the log that it goes to.
func BenchmarkRequestLine(b *testing.B) {
	file, err := os.Create(filepath.Join(b.TempDir(), "access.log"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	escaped := append(requestAttrs(), slog.String("detail", `claim "hero" is not 7`))
	for _, c := range []struct {
		name  string
		log   *slog.Logger
		attrs []slog.Attr
	}{
		{"slog JSON", slog.New(slog.NewJSONHandler(file, nil)), requestAttrs()},
		{"slog text", slog.New(slog.NewTextHandler(file, nil)), requestAttrs()},
		{"JSON", NewJSONLog(file), requestAttrs()},
		{"JSON escaped", NewJSONLog(file), escaped},
		{"text", NewTextLog(file), requestAttrs()},
	} {
		b.Run(c.name, func(b *testing.B) {
			g := &Gateway{log: c.log}
			b.ReportAllocs()
			spent := cpu(b)
			for b.Loop() {
				g.logRequest(b.Context(), slog.LevelInfo, c.attrs)
			}
			b.ReportMetric(float64((cpu(b)-spent).Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
}
