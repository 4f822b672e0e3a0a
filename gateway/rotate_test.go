package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"gatehouse/gateway/config"
)

// lines returns all records of an audit log and of what was rotated away, and
// how many bytes each file has.
func lines(t *testing.T, path string) (records map[string]int, sizes []int) {
	t.Helper()
	files, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	records = map[string]int{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(text))
		for line := range strings.Lines(string(text)) {
			var r struct{ ID string }
			if err := json.Unmarshal([]byte(line), &r); err != nil || r.ID == "" || !strings.HasSuffix(line, "\n") {
				t.Fatalf("%s: %v in %.200q", file, err, line)
			}
			records[r.ID]++
		}
	}
	return records, sizes
}

// Many writers, some in other files' hands, lose and mix no record, while the
// file is rotated.
func TestAuditLogIsRotated(t *testing.T) {
	const max, keep, writers, each = 4 << 10, 1000, 8, 200
	path := filepath.Join(t.TempDir(), "audit.log")
	var wait sync.WaitGroup
	shared := &rotatedFile{path: path, max: max, keep: keep}
	for w := range writers {
		wait.Go(func() {
			for n := range each {
				auditTo(shared).Info(decisionEvent, "id", fmt.Sprintf("%d-%d", w, n))
			}
		})
	}
	wait.Wait()
	records, sizes := lines(t, path)
	if len(records) != writers*each {
		t.Errorf("%d records of %d", len(records), writers*each)
	}
	if len(sizes) < 10 {
		t.Errorf("%d files; it was not rotated", len(sizes))
	}
	for _, size := range sizes {
		if size > max {
			t.Errorf("a file of %d bytes; max_bytes is %d", size, max)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestAuditLogKeepsSoManyFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	audit := newAuditLog(config.Audit{File: path, MaxBytes: 1 << 20, Keep: 3, SampleAllows: 1}, slog.New(slog.DiscardHandler), prometheus.NewCounter(prometheus.CounterOpts{}))
	long := strings.Repeat("x", 100<<10)
	for n := range 100 {
		audit.Info(decisionEvent, "id", fmt.Sprint(n), "long", long)
	}
	if err := audit.close(); err != nil {
		t.Fatal(err)
	}
	records, sizes := lines(t, path)
	if len(sizes) != 4 {
		t.Errorf("%d files, want the one that is written and 3 old ones", len(sizes))
	}
	for n := 70; n < 100; n++ {
		if records[fmt.Sprint(n)] != 1 {
			t.Errorf("record %d is there %d times", n, records[fmt.Sprint(n)])
		}
	}
}

// A record that was cut off, by a full disk or with the machine, costs no other
// one: that of a gateway which starts, which reloads, or of a command.
func TestAuditLogThatEndsWithinARecord(t *testing.T) {
	c := config.Audit{File: filepath.Join(t.TempDir(), "audit.log"), MaxBytes: 1 << 20, Keep: 3, SampleAllows: 1}
	errs := prometheus.NewCounter(prometheus.CounterOpts{})
	tear := func() {
		t.Helper()
		file, err := os.OpenFile(c.File, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = file.WriteString(`{"a":1`)
		}
		if err := errors.Join(err, file.Close()); err != nil {
			t.Fatal(err)
		}
	}
	write := func() {
		audit := newAuditLog(c, slog.New(slog.DiscardHandler), errs)
		audit.Info(decisionEvent)
		audit.Info(decisionEvent)
		if err := audit.close(); err != nil {
			t.Fatal(err)
		}
	}
	tear()
	write()
	tear()
	c.Keep = 4
	write()
	tear()
	if err := auditOffline(t.Context(), &c, revocationRecord{}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(c.File)
	if err != nil {
		t.Fatal(err)
	}
	whole := 0
	for line := range strings.Lines(string(text)) {
		if line != `{"a":1`+"\n" {
			var r struct{ Event string }
			if err := json.Unmarshal([]byte(line), &r); err != nil || r.Event == "" {
				t.Errorf("%v in %q", err, line)
			}
			whole++
		}
	}
	if whole != 5 {
		t.Errorf("%d whole records of 5:\n%s", whole, text)
	}
}

// What others wrote into the file, or moved it away, is not overwritten.
func TestAuditLogIsSharedWithOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	audit := newAuditLog(config.Audit{File: path, MaxBytes: 1 << 20, Keep: 3, SampleAllows: 1}, slog.New(slog.DiscardHandler), prometheus.NewCounter(prometheus.CounterOpts{}))
	audit.Info(decisionEvent, "id", "first")
	if err := auditOffline(t.Context(), &config.Audit{File: path}, revocationRecord{}); err != nil {
		t.Fatal(err)
	}
	audit.Info(decisionEvent, "id", "second")
	text, err := os.ReadFile(path)
	if got := strings.Count(string(text), "\n"); err != nil || got != 3 || !strings.Contains(string(text), `"event":"revocation"`) {
		t.Fatalf("%v: want three whole records:\n%s", err, text)
	}
	if err := os.Rename(path, path+".by-logrotate"); err != nil {
		t.Fatal(err)
	}
	audit.Info(decisionEvent, "id", "third")
	if text, err := os.ReadFile(path); err != nil || strings.Count(string(text), "\n") != 1 {
		t.Errorf("%v: %s", err, text)
	}
}

// A file that cannot be rotated grows on, and that is told.
func TestAuditLogThatCannotBeRotated(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.log")
	if err := os.Mkdir(path+".1", 0o700); err != nil {
		t.Fatal(err)
	}
	f := &rotatedFile{path: path, max: 10, keep: 1}
	for n := range 3 {
		written, err := io.WriteString(f, "12345678\n")
		if written != 9 || (err != nil) != (n > 0) {
			t.Errorf("record %d: %d bytes, %v", n, written, err)
		}
	}
	if text, err := os.ReadFile(path); err != nil || !bytes.Equal(text, []byte(strings.Repeat("12345678\n", 3))) {
		t.Errorf("%v: %s", err, text)
	}
}

// Two that have the file open, as two processes do, or two snapshots, find it
// full at the same time: it is rotated once, and no record is lost.
func TestAuditLogIsRotatedByTwo(t *testing.T) {
	const max, keep, writers, each = 64 << 10, 200, 4, 2000
	path := filepath.Join(t.TempDir(), "audit.log")
	var wait sync.WaitGroup
	for process := range 2 {
		shared := &rotatedFile{path: path, max: max, keep: keep}
		t.Cleanup(func() { _ = shared.Close() })
		for w := range writers {
			wait.Go(func() {
				for n := range each {
					auditTo(shared).Info(decisionEvent, "id", fmt.Sprintf("%d-%d-%d", process, w, n))
				}
			})
		}
	}
	wait.Wait()
	records, sizes := lines(t, path)
	if len(records) != 2*writers*each {
		t.Errorf("%d records of %d", len(records), 2*writers*each)
	}
	for id, times := range records {
		if times != 1 {
			t.Errorf("record %s is there %d times", id, times)
		}
	}
	for i, size := range sizes[1:] { // the first is the one that is written
		if size < max-200 {
			t.Errorf("old file %d has %d bytes; it was not full, %d is", i, size, max)
		}
	}
	if len(sizes) < 10 {
		t.Errorf("%d files; it was not rotated", len(sizes))
	}
}

// Who found the file full and comes when another has moved it leaves the new
// one, and what was filled, where they are.
func TestAuditLogIsNotRotatedTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	first, late := &rotatedFile{path: path, max: 10, keep: 1}, &rotatedFile{path: path, max: 10, keep: 1}
	t.Cleanup(func() { _, _ = first.Close(), late.Close() })
	for _, f := range []*rotatedFile{first, late} {
		if _, err := io.WriteString(f, "full\n"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(first, "new\n"); err != nil {
		t.Fatal(err)
	}
	if err := late.rotate(4); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(late, "+\n"); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{path: "new\n+\n", path + ".1": "full\nfull\n"} {
		if text, err := os.ReadFile(file); err != nil || string(text) != want {
			t.Errorf("%s: %q, %v; want %q", file, text, err, want)
		}
	}
}

// A lock is not waited for; if it never ends, that is told, and the file rotated
// when it does.
func TestAuditLogThatIsLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	synctest.Test(t, func(t *testing.T) {
		f := &rotatedFile{path: path, max: 10, keep: 1}
		defer f.Close()
		write := func(fails bool) {
			t.Helper()
			if n, err := io.WriteString(f, "1234567\n"); n != 8 || (err != nil) != fails {
				t.Errorf("%d bytes, %v", n, err)
			}
		}
		write(false)
		other, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		if ok, err := tryLock(other); !ok || err != nil {
			t.Fatal(ok, err)
		}
		write(false)
		write(true) // twice as large as it may be
		unlock(other)
		write(true) // it is not tried for each record
		time.Sleep(time.Minute)
		write(false)
		if info, err := os.Stat(path); err != nil || info.Size() != 8 {
			t.Errorf("%v, %v; it was not rotated when that was possible", info, err)
		}
	})
}

func counterValue(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

// A file that cannot be rotated does not flood the log: one line a minute, while
// each record is counted.
func TestAuditErrorsDoNotFloodTheLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	if err := os.Mkdir(path+".1", 0o700); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		errs := prometheus.NewCounter(prometheus.CounterOpts{Name: "errors"})
		audit := newAuditLog(config.Audit{File: path, MaxBytes: 10, Keep: 1, SampleAllows: 1}, slog.New(slog.NewTextHandler(&log, nil)), errs)
		defer func() { _ = audit.close() }()
		for range 101 {
			audit.Info(decisionEvent)
		}
		if got := strings.Count(log.String(), "could not be rotated"); got != 1 || counterValue(t, errs) != 100 {
			t.Errorf("%d lines and %v counted of 100 records, want 1 line", got, counterValue(t, errs))
		}
		time.Sleep(time.Minute)
		audit.Info(decisionEvent)
		if got := strings.Count(log.String(), "could not be rotated"); got != 2 {
			t.Errorf("%d lines, want a second one after a minute", got)
		}
		if err := os.Remove(path + ".1"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		audit.Info(decisionEvent)
		if info, err := os.Stat(path + ".1"); err != nil || !info.Mode().IsRegular() {
			t.Errorf("%v, %v; it was not rotated when that was possible", info, err)
		}
		if counterValue(t, errs) != 101 {
			t.Errorf("%v counted, want 101", counterValue(t, errs))
		}
	})
}

// Standard output that takes nothing is told of like a file.
func TestAuditRecordsThatStandardOutputDoesNotTake(t *testing.T) {
	closed, err := os.Create(filepath.Join(t.TempDir(), "stdout"))
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	stdout := os.Stdout
	os.Stdout = closed
	defer func() { os.Stdout = stdout }()
	var log bytes.Buffer
	errs := prometheus.NewCounter(prometheus.CounterOpts{Name: "errors"})
	newAuditLog(config.Audit{File: "-", SampleAllows: 1}, slog.New(slog.NewTextHandler(&log, nil)), errs).Info(decisionEvent)
	if counterValue(t, errs) != 1 || !strings.Contains(log.String(), "an audit record could not be written") {
		t.Errorf("%v counted, logged %q", counterValue(t, errs), &log)
	}
}
