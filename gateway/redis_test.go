package gateway

import (
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gatehouse/gateway/config"
)

// TestRedisAuthorities: authorities are renewed under the file's name, and
// whoever trusts the old ones must not outlive the reload.
func TestRedisAuthorities(t *testing.T) {
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	file := filepath.Join(t.TempDir(), "ca.pem")
	write := func(text []byte) {
		t.Helper()
		_ = os.Remove(file)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	parse := func(replicas int) *config.Config {
		t.Helper()
		cfg, _, err := config.Parse("routes.yaml", fmt.Appendf(nil, `
redis:
  url: rediss://127.0.0.1:1
  ca_file: %s
  replicas: %d
issuers:
  main:
    issuer: https://id.example.com
    audiences: any
    max_lifetime: 1h
revocation: {}
routes:
  - match: /
    privileges: []
    upstream: http://127.0.0.1:1
`, file, replicas), config.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	build := func(cfg *config.Config, old *snapshot) (*snapshot, error) {
		return (&builder{cfg: cfg, old: old, log: slog.New(slog.DiscardHandler), transient: true}).build()
	}

	var s *snapshot
	for _, c := range []struct {
		what     string
		text     []byte
		replicas int
		same     bool
	}{
		{"the first", text, 2, false},
		{"the same text", text, 2, true},
		{"other replicas", text, 3, true},
		{"a renewed file", append(text, text...), 3, false},
		{"the renewed file again", append(text, text...), 3, true},
	} {
		write(c.text)
		old := s
		var err error
		if s, err = build(parse(c.replicas), old); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		t.Cleanup(s.close)
		if old == nil {
			continue
		}
		if same := s.redis == old.redis; same != c.same {
			t.Errorf("%s: the same client %v, want %v", c.what, same, c.same)
		}
		if same := s.revocation == old.revocation; same != c.same {
			t.Errorf("%s: the same revocations %v, want %v", c.what, same, c.same)
		}
		if s.store != old.store {
			t.Errorf("%s: other shared limits", c.what)
		}
	}

	cfg := parse(3)
	client, err := openRedis(cfg)
	if err != nil {
		t.Fatal(err)
	}
	_ = client.Close()
	for what, bad := range map[string]func() error{
		"cannot read the authorities of ca_file": func() error { return nil },
		"holds no certificate in PEM":            func() error { return os.WriteFile(file, []byte("none"), 0o600) },
		"is no file of at most":                  func() error { return os.WriteFile(file, make([]byte, maxKeyFile+1), 0o600) },
		"ca.pem is no file":                      func() error { return syscall.Mkfifo(file, 0o600) }, // to read it would wait for a writer
	} {
		_ = os.Remove(file)
		if err := bad(); err != nil {
			t.Fatal(err)
		}
		_, err := build(cfg, s)
		if err == nil || !strings.Contains(err.Error(), "routes.yaml:2:1: ") || !strings.Contains(err.Error(), what) {
			t.Errorf("%v, want %s", err, what)
		}
		if _, err := openRedis(cfg); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("revocations: %v, want %s", err, what)
		}
	}
}

// TestRedisDatabase: what is known of one database must not count for another,
// and outlives a change of how it is reached.
func TestRedisDatabase(t *testing.T) {
	const (
		one      = "redis://a:b@redis.internal:6379/1"
		sentinel = "redis+sentinel://a:b@s1:26379/1?master_name=main&addr=s2:26379&addr=s3:26379"
		cluster  = "redis+cluster://a:b@c1:6379?addr=c2:6379&addr=c3:6379"
	)
	for _, c := range []struct {
		was, is string
		same    bool
	}{
		{one, "redis://redis.internal:6379/1", true},
		{one, "redis://c:d@redis.internal:6379/1?dial_timeout=3s&read_timeout=1s", true},
		{one, "redis://a:b@redis.internal:6379/2", false},
		{one, "redis://a:b@redis.internal:6379", false},
		{one, "redis://a:b@redis.internal:6379/1?db=2", false},
		{one, "redis://a:b@redis.internal:6380/1", false},
		{one, "redis://a:b@redis-2.internal:6379/1", false},
		{one, "rediss://a:b@redis.internal:6379/1", false},
		{"rediss://redis.internal/1", "rediss://redis.internal/1?skip_verify=true", false},
		{one, "redis+cluster://a:b@redis.internal:6379/1", false},
		{"unix://a:b@/run/redis/1.sock?db=1", "unix:///run/redis/1.sock?db=1", true},
		{"unix:///run/redis/1.sock?db=1", "unix:///run/redis/1.sock?db=2", false},
		{"unix:///run/redis/1.sock", "unix:///run/redis/2.sock", false},
		{sentinel, "redis+sentinel://s3:26379/1?addr=s1:26379&addr=s2:26379&master_name=main&username=c&password=d&pool_timeout=1s", true},
		{sentinel, "redis+sentinel://s1:26379/1?master_name=other&addr=s2:26379&addr=s3:26379", false},
		{sentinel, "redis+sentinel://s1:26379/1?master_name=main&addr=s2:26379&addr=s4:26379", false},
		{sentinel, "redis+sentinel://s1:26379/2?master_name=main&addr=s2:26379&addr=s3:26379", false},
		{sentinel, "redis+sentinel://s1:26379/1?master_name=main&addr=s2:26379&addr=s3:26379&replica_only=true", false},
		{cluster, "redis+cluster://c:d@c2:6379?addr=c3:6379&addr=c1:6379&write_timeout=1s", true},
		{cluster, "redis+cluster://c2:6379?addr=c3:6379", false},
	} {
		was := config.Redis{URL: c.was, Replicas: 2}
		is := config.Redis{URL: c.is, Username: "u", Password: "p", CAFile: "ca.pem"}
		if same := redisDatabase(was) == redisDatabase(is); same != c.same {
			t.Errorf("%s and %s: same %v, want %v (%s, %s)", c.was, c.is, same, c.same, redisDatabase(was), redisDatabase(is))
		}
	}
}
