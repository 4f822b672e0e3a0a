package test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// eureka is a real spring-cloud-starter-netflix-eureka-server, and a way to it
// that counts what it is asked.
type eureka struct {
	URL, port string // URL is of that way
	proc      *process

	mu    sync.Mutex
	asked map[string]int // by path
}

// startEureka starts the server; accept, if not empty, is what clients are made to accept.
func startEureka(t *testing.T, accept string) *eureka {
	t.Helper()
	if os.Getenv("EUREKA_SERVER") == "" {
		t.Skip("needs a Eureka server: make test-eureka builds one")
	}
	e := &eureka{port: fmt.Sprint(freePort(t)), asked: map[string]int{}}
	real, err := url.Parse("http://127.0.0.1:" + e.port)
	if err != nil {
		t.Fatal(err)
	}
	way := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		e.mu.Lock()
		e.asked[r.In.URL.Path]++
		e.mu.Unlock()
		r.SetURL(real)
		if accept != "" {
			r.Out.Header.Set("Accept", accept)
		}
	}})
	t.Cleanup(way.Close)
	e.URL = way.URL + "/eureka"
	e.start(t)
	return e
}

// start starts the server, again on the same port after a kill. It forgets
// instances that send no heartbeat, and answers by what it knows now: by default
// it takes minutes for the one and half a minute for the other.
func (e *eureka) start(t *testing.T) {
	t.Helper()
	e.proc = launch(t, "java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-jar", os.Getenv("EUREKA_SERVER"),
		"--server.address=127.0.0.1", "--server.port="+e.port,
		"--eureka.client.register-with-eureka=false", "--eureka.client.fetch-registry=false",
		"--eureka.server.enable-self-preservation=false", "--eureka.server.eviction-interval-timer-in-ms=1000",
		"--eureka.server.use-read-only-response-cache=false")
	deadline := time.Now().Add(5 * time.Minute) // Spring Boot takes its time on a busy machine
	for {
		if e.proc.ended() {
			t.Fatalf("the Eureka server ended with status %d", e.proc.exit(t))
		}
		resp, err := http.Get("http://127.0.0.1:" + e.port + "/eureka/apps")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("the Eureka server does not come up")
		}
		<-time.After(100 * time.Millisecond)
	}
}

// do sends a request as Eureka's clients do.
func (e *eureka) do(t *testing.T, method, path, body string) {
	t.Helper()
	req, err := http.NewRequest(method, "http://127.0.0.1:"+e.port+"/eureka/"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		t.Fatalf("Eureka answers %s %s with %d", method, path, resp.StatusCode)
	}
}

// register registers an instance of HEROES that lives for so many seconds
// without a heartbeat.
func (e *eureka) register(t *testing.T, address, port string, seconds int, metadata string) {
	t.Helper()
	e.do(t, http.MethodPost, "apps/HEROES", fill(`{"instance":{"instanceId":"ADDRESS:heroes","hostName":"ADDRESS","app":"HEROES","ipAddr":"ADDRESS","status":"UP",
		"port":{"$":PORT,"@enabled":"true"},"securePort":{"$":443,"@enabled":"false"},"vipAddress":"heroes","metadata":METADATA,
		"dataCenterInfo":{"@class":"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo","name":"MyOwn"},
		"leaseInfo":{"renewalIntervalInSecs":1,"durationInSecs":SECONDS}}}`,
		"ADDRESS", address, "PORT", port, "SECONDS", fmt.Sprint(seconds), "METADATA", metadata))
}

// count returns how often that path was asked for.
func (e *eureka) count(path string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.asked[path]
}
