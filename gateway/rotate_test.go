package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

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
