package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"

	"gatehouse/gateway/config"
)

// hush keeps go-redis from writing lines of its own to standard error: what is
// wrong with Redis is told by who asked it. The setting is the library's own
// global, so that it is made once.
var hush = sync.OnceFunc(logging.Disable)

// newRedis makes a client of one server, of Sentinels or of a Cluster; it
// connects when it is first asked. Errors hold nothing of the URL, which may
// carry a password.
func newRedis(c config.Redis) (redis.UniversalClient, error) {
	hush()
	client, err := redisClient(c)
	if err == nil {
		client.AddHook(redisSpans{})
	}
	return client, err
}

func redisClient(c config.Redis) (redis.UniversalClient, error) {
	roots, err := authorities(c.CAFile)
	if err != nil {
		return nil, err
	}
	scheme, rest, _ := strings.Cut(c.URL, "://")
	scheme, topology, _ := strings.Cut(scheme, "+")
	plain := scheme + "://" + rest
	// The breakers decide, each within one time-out, so that the client itself never retries.
	switch topology {
	case "sentinel":
		o, err := redis.ParseFailoverURL(plain)
		if err != nil {
			return nil, redisError(err)
		}
		credentials(&o.Username, &o.Password, c)
		trust(o.TLSConfig, roots)
		o.MaxRetries, o.DialerRetries, o.ContextTimeoutEnabled, o.DisableIdentity = -1, 1, true, true
		return redis.NewFailoverClient(o), nil
	case "cluster":
		o, err := redis.ParseClusterURL(plain)
		if err != nil {
			return nil, redisError(err)
		}
		credentials(&o.Username, &o.Password, c)
		trust(o.TLSConfig, roots)
		o.MaxRetries, o.DialerRetries, o.ContextTimeoutEnabled, o.DisableIdentity = -1, 1, true, true
		o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
		return redis.NewClusterClient(o), nil
	}
	o, err := redis.ParseURL(plain)
	if err != nil {
		return nil, redisError(err)
	}
	credentials(&o.Username, &o.Password, c)
	trust(o.TLSConfig, roots)
	o.MaxRetries, o.DialerRetries, o.ContextTimeoutEnabled, o.DisableIdentity = -1, 1, true, true
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return redis.NewClient(o), nil
}

// redisConnection is what of c the client is made from: how many gateways share
// the Redis is the limits' matter alone.
func redisConnection(c config.Redis) config.Redis {
	c.Replicas = 0
	return c
}

// redisDatabase names the servers and the database that c leads to: what is the
// same whoever logs in, by whichever authorities, and however long they wait.
// All else in the URL tells databases apart, or what was known of one would
// count for another.
func redisDatabase(c config.Redis) string {
	u, err := url.Parse(c.URL)
	if err != nil {
		return c.URL
	}
	q := u.Query()
	for name := range q {
		if strings.HasSuffix(name, "username") || strings.HasSuffix(name, "password") || strings.HasSuffix(name, "_timeout") {
			q.Del(name)
		}
	}
	if strings.Contains(u.Scheme, "+") { // of Sentinels and nodes of a Cluster none is the first
		q.Add("addr", u.Host)
		slices.Sort(q["addr"])
		u.Host = ""
	}
	u.User, u.RawQuery = nil, q.Encode()
	return u.String()
}

func redisError(err error) error {
	var parse *url.Error
	if errors.As(err, &parse) {
		err = parse.Err
	}
	return fmt.Errorf("not a Redis URL: %w", err)
}

func credentials(username, password *string, c config.Redis) {
	if c.Username != "" {
		*username = c.Username
	}
	if c.Password != "" {
		*password = c.Password
	}
}

func trust(t *tls.Config, roots *x509.CertPool) {
	if t != nil && roots != nil {
		t.RootCAs = roots
	}
}

// authorities are the system's and those of the file; nil without one.
func authorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read the authorities of ca_file: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("ca_file %s holds no certificate in PEM", file)
	}
	return roots, nil
}
