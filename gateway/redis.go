package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
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

// redisOptions are what a client is made from.
type redisOptions struct {
	config.Redis        // without Replicas: how many gateways share it is the limits' matter alone
	authorities  string // the text of ca_file, which is renewed under its name
}

// redisConnection reads what a client for c is made from.
func redisConnection(c config.Redis) (redisOptions, error) {
	c.Replicas = 0
	o := redisOptions{Redis: c}
	if c.CAFile == "" {
		return o, nil
	}
	text, err := readSmall(c.CAFile)
	if err != nil {
		return o, fmt.Errorf("cannot read the authorities of ca_file: %w", err)
	}
	o.authorities = string(text)
	return o, nil
}

// newRedis makes a client of one server, of Sentinels or of a Cluster; it
// connects when it is first asked. Errors hold nothing of the URL, which may
// carry a password.
func newRedis(o redisOptions) (redis.UniversalClient, error) {
	hush()
	client, err := redisClient(o)
	if err == nil {
		client.AddHook(redisSpans{})
	}
	return client, err
}

func redisClient(c redisOptions) (redis.UniversalClient, error) {
	roots, err := c.roots()
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
		credentials(&o.Username, &o.Password, c.Redis)
		trust(o.TLSConfig, roots)
		o.MaxRetries, o.DialerRetries, o.ContextTimeoutEnabled, o.DisableIdentity = -1, 1, true, true
		return redis.NewFailoverClient(o), nil
	case "cluster":
		o, err := redis.ParseClusterURL(plain)
		if err != nil {
			return nil, redisError(err)
		}
		credentials(&o.Username, &o.Password, c.Redis)
		trust(o.TLSConfig, roots)
		o.MaxRetries, o.DialerRetries, o.ContextTimeoutEnabled, o.DisableIdentity = -1, 1, true, true
		o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
		return redis.NewClusterClient(o), nil
	}
	o, err := redis.ParseURL(plain)
	if err != nil {
		return nil, redisError(err)
	}
	credentials(&o.Username, &o.Password, c.Redis)
	trust(o.TLSConfig, roots)
	o.MaxRetries, o.DialerRetries, o.ContextTimeoutEnabled, o.DisableIdentity = -1, 1, true, true
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return redis.NewClient(o), nil
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

// roots are the system's authorities and those of the file; nil without one.
func (o redisOptions) roots() (*x509.CertPool, error) {
	if o.CAFile == "" {
		return nil, nil
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM([]byte(o.authorities)) {
		return nil, fmt.Errorf("ca_file %s holds no certificate in PEM", o.CAFile)
	}
	return roots, nil
}
