package gateway

import (
	"testing"

	"gatehouse/gateway/config"
)

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
