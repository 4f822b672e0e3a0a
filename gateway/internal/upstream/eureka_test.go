package upstream

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A registry as Spring Cloud Netflix answers it in JSON, cut to one instance,
// with what else real instances have.
const springInstance = `{"instanceId":"ID","hostName":"HOST","app":"APP","ipAddr":"IP","status":"STATUS","overriddenStatus":"UNKNOWN",` +
	`"port":{"$":8080,"@enabled":"true"},"securePort":{"$":8443,"@enabled":"false"},"countryId":1,` +
	`"dataCenterInfo":{"@class":"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo","name":"MyOwn"},` +
	`"leaseInfo":{"renewalIntervalInSecs":30,"durationInSecs":90,"registrationTimestamp":1700000000000,"lastRenewalTimestamp":1700000000000,"evictionTimestamp":0,"serviceUpTimestamp":1700000000000},` +
	`"metadata":{"management.port":"8081"},"homePageUrl":"http://HOST:8080/","statusPageUrl":"http://HOST:8080/actuator/info","healthCheckUrl":"http://HOST:8080/actuator/health",` +
	`"vipAddress":"heroes","secureVipAddress":"heroes","isCoordinatingDiscoveryServer":"false","lastUpdatedTimestamp":"1700000000000","lastDirtyTimestamp":"1700000000000","actionType":"ACTION"}`

// instanceJSON is an instance as it stands in a registry.
func instanceJSON(app, id, host, ip, status, action string) string {
	return strings.NewReplacer("ID", id, "HOST", host, "APP", app, "IP", ip, "STATUS", status, "ACTION", action).Replace(
		strings.ReplaceAll(springInstance, "ipAddr", "ip\x00ddr"))
}

func applicationsJSON(hash string, apps map[string][]string) string {
	var list []string
	for name, instances := range apps {
		list = append(list, fmt.Sprintf(`{"name":%q,"instance":[%s]}`, name, strings.Join(instances, ",")))
	}
	text := fmt.Sprintf(`{"applications":{"versions__delta":"1","apps__hashcode":%q,"application":[%s]}}`, hash, strings.Join(list, ","))
	return strings.ReplaceAll(text, "ip\x00ddr", "ipAddr")
}

// The same in XML, as the wiki of Netflix Eureka has it.
const applicationsXML = `<?xml version="1.0"?>
<!-- a comment -->
<applications>
  <versions__delta>1</versions__delta>
  <apps__hashcode>UP_1_</apps__hashcode>
  <application>
    <name>HEROES</name>
    <instance>
      <instanceId>a:heroes:8080</instanceId>
      <hostName>a.internal</hostName>
      <app>HEROES</app>
      <ipAddr>10.0.0.1</ipAddr>
      <status>UP</status>
      <overriddenstatus>UNKNOWN</overriddenstatus>
      <port enabled="true">8080</port>
      <securePort enabled="true">8443</securePort>
      <countryId>1</countryId>
      <dataCenterInfo class="com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo"><name>MyOwn</name></dataCenterInfo>
      <leaseInfo><renewalIntervalInSecs>30</renewalIntervalInSecs></leaseInfo>
      <metadata><management.port>8081</management.port><weight>3</weight></metadata>
      <homePageUrl>http://a.internal:8080/</homePageUrl>
      <vipAddress>heroes</vipAddress>
      <actionType>ADDED</actionType>
    </instance>
    <instance>
      <instanceId>b:heroes:8080</instanceId>
      <hostName>b.internal</hostName>
      <app>HEROES</app>
      <ipAddr>10.0.0.2</ipAddr>
      <status>OUT_OF_SERVICE</status>
      <port enabled="true">8080</port>
      <securePort enabled="false">443</securePort>
      <actionType>ADDED</actionType>
    </instance>
  </application>
</applications>`

// Answers in every way in which servers write them.
func TestEurekaAnswers(t *testing.T) {
	one := func(instance string) string {
		return `{"applications":{"apps__hashcode":"UP_1_","application":[{"name":"HEROES","instance":[` + instance + `]}]}}`
	}
	up := instanceJSON("HEROES", "a", "a.internal", "10.0.0.1", "UP", "ADDED")
	up = strings.ReplaceAll(up, "ip\x00ddr", "ipAddr")
	xml := map[string]string{"Content-Type": "application/xml"}
	for _, c := range []struct {
		name     string
		body     string
		header   map[string]string
		scheme   string
		preferIP bool
		want     []string
	}{
		{"JSON", one(up), nil, "http", false, []string{"a.internal:8080"}},
		{"by address", one(up), nil, "http", true, []string{"10.0.0.1:8080"}},
		{"h2c", one(up), nil, "h2c", false, []string{"a.internal:8080"}},
		{"https", one(strings.Replace(up, `"$":8443,"@enabled":"false"`, `"$":8443,"@enabled":"true"`, 1)), nil, "https", false, []string{"a.internal:8443"}},
		{"XML", applicationsXML, xml, "http", false, []string{"a.internal:8080"}},
		{"XML of another name", applicationsXML, map[string]string{"Content-Type": "text/xml; charset=utf-8"}, "https", true, []string{"10.0.0.1:8443"}},
		{"objects in place of lists of one", `{"applications":{"application":{"name":"HEROES","instance":` + up + `}}}`, nil, "http", false, []string{"a.internal:8080"}},
		{"strings for numbers, booleans for strings", one(strings.Replace(up, `{"$":8080,"@enabled":"true"}`, `{"$":"8080","@enabled":true}`, 1)), nil, "http", false, []string{"a.internal:8080"}},
		{"metadata that is a class", one(strings.Replace(up, `{"management.port":"8081"}`, `{"@class":"java.util.Collections$EmptyMap"}`, 1)), nil, "http", false, []string{"a.internal:8080"}},
		{"metadata of all kinds", one(strings.Replace(up, `{"management.port":"8081"}`, `{"weight":{"a":1},"tags":["x"]}`, 1)), nil, "http", false, []string{"a.internal:8080"}},
		{"metadata that is null", one(strings.Replace(up, `{"management.port":"8081"}`, `null`, 1)), nil, "http", false, []string{"a.internal:8080"}},
		{"the application's name in any case", one(strings.Replace(up, `"HEROES"`, `"heroes"`, 1)), nil, "http", false, []string{"a.internal:8080"}},
		{"no instanceId", one(strings.Replace(up, `"instanceId":"a",`, "", 1)), nil, "http", false, []string{"a.internal:8080"}},
		{"an IPv6 host", one(strings.Replace(up, `"hostName":"a.internal"`, `"hostName":"fd00::1"`, 1)), nil, "http", false, []string{"[fd00::1]:8080"}},
		{"weights", one(strings.Replace(up, `{"management.port":"8081"}`, `{"weight":"1"}`, 1) + "," +
			strings.NewReplacer(`"instanceId":"a"`, `"instanceId":"b"`, "a.internal", "b.internal", `{"management.port":"8081"}`, `{"weight":4}`).Replace(up)), nil, "http", false, []string{"a.internal:8080*25", "b.internal:8080*100"}},
		{"all but UP left out", one(up + "," + strings.NewReplacer(`"instanceId":"a"`, `"instanceId":"b"`, `"UP"`, `"STARTING"`).Replace(up) + "," +
			strings.NewReplacer(`"instanceId":"a"`, `"instanceId":"c"`, `"UP"`, `"DOWN"`).Replace(up) + "," + strings.NewReplacer(`"instanceId":"a"`, `"instanceId":"d"`, `"UP"`, `"UNKNOWN"`).Replace(up)), nil, "http", false, []string{"a.internal:8080"}},
		{"none UP: the registry says that there are none", one(strings.Replace(up, `"UP"`, `"DOWN"`, 1)), nil, "http", false, nil},
		{"one that nobody can connect to beside another", one(up + "," + strings.NewReplacer(`"instanceId":"a"`, `"instanceId":"b"`, "a.internal", "evil/@path").Replace(up)), nil, "http", false, []string{"a.internal:8080"}},
		{"this machine in other words", one(up + "," + strings.NewReplacer(`"instanceId":"a"`, `"instanceId":"b"`, "a.internal", "::ffff:0.0.0.0").Replace(up) + "," +
			strings.NewReplacer(`"instanceId":"a"`, `"instanceId":"c"`, "a.internal", "::").Replace(up)), nil, "http", false, []string{"a.internal:8080"}},
		{"addresses of this machine in other words", one(up + "," + strings.NewReplacer(`"instanceId":"a"`, `"instanceId":"b"`, "10.0.0.1", "::ffff:0.0.0.0").Replace(up) + "," +
			strings.NewReplacer(`"instanceId":"a"`, `"instanceId":"c"`, "10.0.0.1", "::ffff:224.0.0.1").Replace(up)), nil, "http", true, []string{"10.0.0.1:8080"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/eureka/apps" || !strings.Contains(r.Header.Get("Accept"), "application/json") {
					http.NotFound(w, r)
					return
				}
				w.Header().Set("Content-Type", "application/json")
				for name, value := range c.header {
					w.Header().Set(name, value)
				}
				_, _ = w.Write([]byte(c.body))
			}))
			t.Cleanup(server.Close)
			e := NewEureka(EurekaOptions{URLs: urls(t, server.URL+"/eureka/"), Interval: time.Hour})
			a := e.App(EurekaAppOptions{App: "heroes", Scheme: c.scheme, PreferIP: c.preferIP, Log: quiet()})
			sets := run(t, a)
			next(t, sets, c.want...)
			if len(a.told) > 0 && a.told[0].URL.Scheme != c.scheme {
				t.Errorf("the scheme is %s", a.told[0].URL.Scheme)
			}
		})
	}
}

// Answers that are none: the last good targets stay, and nothing is taken of them.
func TestEurekaBadAnswers(t *testing.T) {
	good := applicationsJSON("UP_1_", map[string][]string{"HEROES": {instanceJSON("HEROES", "a", "a.internal", "10.0.0.1", "UP", "ADDED")}})
	for name, answer := range map[string]func(w http.ResponseWriter){
		"500": func(w http.ResponseWriter) { w.WriteHeader(500) },
		// as a server that has not yet heard of its peers says (RegistrySyncRetries)
		"403":        func(w http.ResponseWriter) { w.WriteHeader(403) },
		"404":        func(w http.ResponseWriter) { w.WriteHeader(404) },
		"a redirect": func(w http.ResponseWriter) { w.Header().Set("Location", "/elsewhere"); w.WriteHeader(302) },
		"a login page": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte("<html>"))
		},
		"other JSON":  func(w http.ResponseWriter) { _, _ = w.Write([]byte(`{"error":"x"}`)) },
		"cut JSON":    func(w http.ResponseWriter) { _, _ = w.Write([]byte(good[:len(good)/2])) },
		"wrong types": func(w http.ResponseWriter) { _, _ = w.Write([]byte(`{"applications":{"application":[{"name":7}]}}`)) },
		"nothing":     func(http.ResponseWriter) {},
		"other XML": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/xml")
			_, _ = w.Write([]byte("<Response/>"))
		},
		"cut XML": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/xml")
			_, _ = w.Write([]byte(applicationsXML[:400]))
		},
		"a reset":     func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		"no such app": func(w http.ResponseWriter) { _, _ = w.Write([]byte(applicationsJSON("", nil))) },
		"no usable port": func(w http.ResponseWriter) {
			_, _ = w.Write([]byte(strings.ReplaceAll(good, `"@enabled":"true"`, `"@enabled":"false"`)))
		},
		"no usable host": func(w http.ResponseWriter) { _, _ = w.Write([]byte(strings.ReplaceAll(good, "a.internal", "a b"))) },
		"a port too far": func(w http.ResponseWriter) { _, _ = w.Write([]byte(strings.ReplaceAll(good, "8080", "70000"))) },
		"too many": func(w http.ResponseWriter) {
			var many []string
			for i := range maxTargets + 1 {
				many = append(many, instanceJSON("HEROES", fmt.Sprint("i", i), fmt.Sprint("h", i), "10.0.0.1", "UP", "ADDED"))
			}
			_, _ = w.Write([]byte(applicationsJSON("", map[string][]string{"HEROES": many})))
		},
		// what comes of few bytes, compressed
		"too many objects": func(w http.ResponseWriter) {
			_, _ = w.Write([]byte(`{"x":[` + strings.Repeat("{},", maxObjects) + `{}],` + strings.Replace(good, "a.internal", "c.internal", 1)[1:]))
		},
		"too deep": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/xml")
			deep := strings.Repeat("<x>", maxElements) + strings.Repeat("</x>", maxElements)
			_, _ = w.Write([]byte(strings.Replace(applicationsXML, "</applications>", deep+"</applications>", 1)))
		},
		"too long": func(w http.ResponseWriter) {
			space := make([]byte, 1<<20)
			for i := range space {
				space[i] = ' '
			}
			for range maxRegistry>>20 + 1 {
				_, _ = w.Write(space)
			}
			_, _ = w.Write([]byte(good))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var bad sync.Mutex
			answerNow, asked := func(w http.ResponseWriter) { _, _ = w.Write([]byte(good)) }, 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				bad.Lock()
				now := answerNow
				asked++
				bad.Unlock()
				if strings.HasSuffix(r.URL.Path, "/delta") {
					w.WriteHeader(403) // eureka.server.disableDelta
					return
				}
				now(w)
			}))
			t.Cleanup(server.Close)
			server.Config.ErrorLog = nil
			e := NewEureka(EurekaOptions{URLs: urls(t, server.URL), Interval: 10 * time.Millisecond})
			a := e.App(EurekaAppOptions{App: "HEROES", Scheme: "http", Log: quiet()})
			sets := run(t, a)
			next(t, sets, "a.internal:8080")
			bad.Lock()
			answerNow = answer
			bad.Unlock()
			until(t, "the source is down", func() bool { return !a.Health().Up && a.Health().Err != nil })
			if h := a.Health(); h.Targets != 1 {
				t.Errorf("the source is %+v", h)
			}
			bad.Lock()
			answerNow = func(w http.ResponseWriter) {
				_, _ = w.Write([]byte(strings.ReplaceAll(good, "a.internal", "b.internal")))
			}
			bad.Unlock()
			next(t, sets, "b.internal:8080")
		})
	}
}

func urls(t testing.TB, list ...string) (u []*url.URL) {
	for _, s := range list {
		u = append(u, mustURL(t, s))
	}
	return u
}

// fakeEureka is a registry that several applications follow, without a
// network: it counts what it is asked.
type fakeEureka struct {
	mu    sync.Mutex
	whole string
	delta string // "": 404
	down  bool
	asked []string // HOST PATH
	auth  string
}

func (f *fakeEureka) RoundTrip(r *http.Request) (*http.Response, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, r.URL.Host+" "+r.URL.Path)
	f.auth = r.Header.Get("Authorization")
	if f.down || r.URL.Host == "dead" {
		return nil, fmt.Errorf("connection refused")
	}
	w := httptest.NewRecorder()
	body := f.whole
	if strings.HasSuffix(r.URL.Path, "/delta") {
		body = f.delta
	}
	if body == "" {
		w.Code = http.StatusNotFound
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Body.WriteString(body)
	return w.Result(), nil
}

func (f *fakeEureka) answers(whole, delta string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.whole, f.delta, f.asked = whole, delta, nil
}

func (f *fakeEureka) isDown(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = down
}

func (f *fakeEureka) paths() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.asked)
}

// followed runs an application's source in a bubble; now returns its targets.
func followed(t *testing.T, e *Eureka, app string) (a *EurekaApp, now func() string) {
	a = e.App(EurekaAppOptions{App: app, Scheme: "http", Log: quiet()})
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	last := "never set"
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.Run(ctx, func(targets []Target) {
			mu.Lock()
			defer mu.Unlock()
			last = strings.Join(names(targets), " ")
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return a, func() string {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		return last
	}
}

func newFakeEureka(t *testing.T, list ...string) (*fakeEureka, *Eureka) {
	f := &fakeEureka{}
	e := NewEureka(EurekaOptions{URLs: urls(t, list...), Interval: 30 * time.Second})
	e.client.Transport = f
	return f, e
}

func heroes(id, status, action string) string {
	return instanceJSON("HEROES", id, id+".internal", "10.0.0.1", status, action)
}

func villains(id, status, action string) string {
	return instanceJSON("VILLAINS", id, id+".internal", "10.0.0.2", status, action)
}

// All is asked for once, then the changes; a hash code that differs asks for all again.
func TestEurekaDeltas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, e := newFakeEureka(t, "http://registry/eureka")
		f.answers(applicationsJSON("UP_2_", map[string][]string{"HEROES": {heroes("a", "UP", "ADDED")}, "VILLAINS": {villains("x", "UP", "ADDED")}}), "")
		_, h := followed(t, e, "heroes")
		_, v := followed(t, e, "VILLAINS")
		if h() != "a.internal:8080" || v() != "x.internal:8080" {
			t.Fatalf("targets are %s and %s", h(), v())
		}
		if got := f.paths(); !slices.Equal(got, []string{"registry /eureka/apps"}) {
			t.Fatalf("asked for %v", got)
		}
		step := func(what, whole, delta, wantHeroes, wantVillains string, asked ...string) {
			t.Helper()
			f.answers(whole, delta)
			time.Sleep(30 * time.Second) // of the bubble
			if h() != wantHeroes || v() != wantVillains {
				t.Errorf("%s: targets are %q and %q, want %q and %q", what, h(), v(), wantHeroes, wantVillains)
			}
			if got := f.paths(); !slices.Equal(got, asked) {
				t.Errorf("%s: asked for %v, want %v", what, got, asked)
			}
		}
		const all, changes = "registry /eureka/apps", "registry /eureka/apps/delta"
		delta := func(hash string, instances ...string) string {
			return applicationsJSON(hash, map[string][]string{"HEROES": instances})
		}
		step("nothing", "", delta("UP_2_"), "a.internal:8080", "x.internal:8080", changes)
		step("one more", "", delta("UP_3_", heroes("b", "UP", "ADDED")), "a.internal:8080 b.internal:8080", "x.internal:8080", changes)
		step("told again, since servers tell of three minutes", "", delta("UP_3_", heroes("b", "UP", "ADDED")), "a.internal:8080 b.internal:8080", "x.internal:8080", changes)
		step("one goes down", "", delta("DOWN_1_UP_2_", heroes("b", "UP", "ADDED"), heroes("a", "DOWN", "MODIFIED")), "b.internal:8080", "x.internal:8080", changes)
		step("it leaves", "", delta("UP_2_", heroes("a", "DOWN", "DELETED")), "b.internal:8080", "x.internal:8080", changes)
		step("a change was missed", applicationsJSON("UP_2_", map[string][]string{"HEROES": {heroes("c", "UP", "ADDED")}, "VILLAINS": {villains("x", "UP", "ADDED")}}),
			delta("UP_7_"), "c.internal:8080", "x.internal:8080", changes, all)
		step("no deltas there", applicationsJSON("UP_2_", map[string][]string{"HEROES": {heroes("d", "UP", "ADDED")}, "VILLAINS": {villains("y", "UP", "ADDED")}}),
			"", "d.internal:8080", "y.internal:8080", changes, all)
		f.answers("", delta("UP_2_"))
		time.Sleep(11 * time.Minute)
		if synctest.Wait(); !slices.Contains(f.paths(), all) {
			t.Error("in 11 minutes, all was never asked for")
		}
	})
}

// A dead registry keeps everything; it is asked again soon, then less often, and
// once it is back all is asked for, since changes may be forgotten.
func TestEurekaDeadRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, e := newFakeEureka(t, "http://registry/eureka")
		f.answers(applicationsJSON("UP_1_", map[string][]string{"HEROES": {heroes("a", "UP", "ADDED")}}), "")
		a, h := followed(t, e, "HEROES")
		if h() != "a.internal:8080" {
			t.Fatalf("targets are %s", h())
		}
		f.isDown(true)
		time.Sleep(24 * time.Hour)
		if h() != "a.internal:8080" || a.Health().Up || time.Since(a.Health().Good) < 23*time.Hour {
			t.Errorf("targets are %s, and the source is %+v", h(), a.Health())
		}
		if n := len(f.paths()); n < 2000 || n > 3000 {
			t.Errorf("asked %d times in a day", n)
		}
		f.answers(applicationsJSON("UP_1_", map[string][]string{"HEROES": {heroes("b", "UP", "ADDED")}}), applicationsJSON("UP_1_", nil))
		f.isDown(false)
		time.Sleep(30 * time.Second)
		if h() != "b.internal:8080" || !a.Health().Up {
			t.Errorf("targets are %s, and the source is %+v", h(), a.Health())
		}
	})
}

// A registry that was restarted knows nobody until they register again.
func TestEurekaRestartedEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, e := newFakeEureka(t, "http://registry/eureka")
		whole := applicationsJSON("UP_1_", map[string][]string{"HEROES": {heroes("a", "UP", "ADDED")}})
		f.answers(whole, "")
		a, h := followed(t, e, "HEROES")
		if h() != "a.internal:8080" {
			t.Fatalf("targets are %s", h())
		}
		f.answers(applicationsJSON("", nil), applicationsJSON("", nil))
		time.Sleep(4 * time.Minute)
		if h() != "a.internal:8080" || a.Health().Up {
			t.Errorf("after 4 minutes targets are %q, and the source is %+v", h(), a.Health())
		}
		f.answers(whole, whole)
		time.Sleep(time.Minute)
		if h() != "a.internal:8080" || !a.Health().Up {
			t.Errorf("once it is back targets are %q, and the source is %+v", h(), a.Health())
		}
		f.answers(applicationsJSON("", nil), applicationsJSON("", nil))
		time.Sleep(6 * time.Minute)
		if h() != "" || a.Health().Up {
			t.Errorf("after 6 minutes targets are %q, and the source is %+v", h(), a.Health())
		}
		f.answers(whole, whole)
		time.Sleep(time.Minute)
		if h() != "a.internal:8080" {
			t.Errorf("targets are %q", h())
		}
	})
}

// Servers are tried in turn; credentials go in a header and into no error.
func TestEurekaServersInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, e := newFakeEureka(t, "http://dead/eureka", "http://user:p%40ss@second/eureka")
		whole := applicationsJSON("UP_1_", map[string][]string{"HEROES": {heroes("a", "UP", "ADDED")}})
		f.answers(whole, applicationsJSON("UP_1_", nil))
		a, h := followed(t, e, "HEROES")
		if h() != "a.internal:8080" {
			t.Fatalf("targets are %s", h())
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if got := f.paths(); !slices.Equal(got, []string{"dead /eureka/apps", "second /eureka/apps", "second /eureka/apps/delta"}) {
			t.Errorf("asked for %v", got)
		}
		r := http.Request{Header: http.Header{"Authorization": {f.auth}}}
		if user, password, _ := r.BasicAuth(); user != "user" || password != "p@ss" {
			t.Errorf("asked as %q with %q", user, password)
		}
		f.isDown(true)
		time.Sleep(time.Minute)
		synctest.Wait()
		err := a.Health().Err
		if err == nil || strings.Contains(err.Error(), "user") || strings.Contains(err.Error(), "ss@") || !strings.Contains(err.Error(), "Eureka server dead") {
			t.Errorf("the error is %v", err)
		}
	})
}

// Nobody is asked while no upstream follows, and one that comes later sees what is there now.
func TestEurekaFollowers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, e := newFakeEureka(t, "http://registry/eureka")
		whole := applicationsJSON("UP_1_", map[string][]string{"HEROES": {heroes("a", "UP", "ADDED")}})
		f.answers(whole, applicationsJSON("UP_1_", nil))
		time.Sleep(time.Hour)
		if n := len(f.paths()); n > 0 {
			t.Errorf("asked %d times while nobody followed", n)
		}
		for range 2 {
			ctx, cancel := context.WithCancel(t.Context())
			set := make(chan []Target, 1)
			go e.App(EurekaAppOptions{App: "HEROES", Scheme: "http", Log: quiet()}).Run(ctx, func(targets []Target) { set <- targets })
			if got := names(<-set); !slices.Equal(got, []string{"a.internal:8080"}) {
				t.Errorf("the targets are %v", got)
			}
			cancel()
			synctest.Wait()
			f.answers(whole, applicationsJSON("UP_1_", nil))
			time.Sleep(time.Hour)
			if n := len(f.paths()); n > 0 {
				t.Errorf("asked %d times after the last had gone", n)
			}
		}
	})
}

// Whatever is answered, what is taken of it can be connected to, and a delta
// changes nothing of the registry before it.
func FuzzEurekaAnswer(f *testing.F) {
	f.Add([]byte(applicationsXML), true)
	f.Add([]byte(applicationsJSON("UP_1_", map[string][]string{"HEROES": {heroes("a", "UP", "ADDED"), heroes("b", "UP", "DELETED")}})), false)
	f.Add([]byte(`{"applications":{"application":{"name":"A","instance":{"port":{"$":"1","@enabled":true}}}}}`), false)
	f.Fuzz(func(t *testing.T, body []byte, isXML bool) {
		a, err := parseApplications(body, isXML)
		if err != nil {
			return
		}
		before := registry{"HEROES": {"a": {host: "a.internal", status: "UP"}}}
		g, _ := before.with(a)
		if before.hash() != "UP_1_" || len(before) != 1 {
			t.Error("a delta changed the registry before it")
		}
		for name, app := range g {
			if len(app) == 0 {
				t.Errorf("%q has no instance", name)
			}
			for _, i := range app {
				for _, preferIP := range []bool{false, true} {
					app := EurekaApp{o: EurekaAppOptions{Scheme: "http", PreferIP: preferIP}}
					if got, ok := app.target(i); ok {
						if u := mustURL(t, got.URL.String()); u.Host != got.URL.Host || u.User != nil || u.Port() == "" || u.Port() == "0" || got.Weight < 1 {
							t.Errorf("took %+v", got)
						}
					}
				}
			}
		}
	})
}
