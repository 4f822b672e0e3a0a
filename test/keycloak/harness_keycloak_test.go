//go:build keycloak

package keycloak

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const audience = "https://heroes.example"

// server is a running Keycloak.
type server struct {
	*process
	URL      string
	password string // of its administrator
}

var client = &http.Client{Timeout: patience}

// startKeycloak starts the Keycloak of KEYCLOAK_HOME in development mode, on a
// loopback port and a database of its own.
func startKeycloak(t *testing.T) *server {
	t.Helper()
	home := os.Getenv("KEYCLOAK_HOME")
	if home == "" {
		t.Fatal("KEYCLOAK_HOME names no Keycloak; run make test-keycloak")
	}
	port := freePort(t)
	k := &server{URL: "http://127.0.0.1:" + port, password: rand.Text()}
	database := "jdbc:h2:file:" + filepath.Join(t.TempDir(), "keycloak") + ";NON_KEYWORDS=VALUE;DB_CLOSE_ON_EXIT=FALSE"
	cmd := exec.Command(filepath.Join(home, "bin", "kc.sh"), "start-dev", "--log-level=warn",
		"--http-host=127.0.0.1", "--http-port="+port, "--hostname="+k.URL, "--db=dev-file", "--db-url="+database)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "JAVA_HOME=" + os.Getenv("JAVA_HOME"),
		"KC_BOOTSTRAP_ADMIN_USERNAME=admin", "KC_BOOTSTRAP_ADMIN_PASSWORD=" + k.password,
		"JAVA_OPTS_KC_HEAP=-Xms64m -Xmx512m", "JAVA_OPTS_APPEND=-XX:TieredStopAtLevel=1"}
	k.process = launch(t, cmd)
	within(t, startPatience, "Keycloak is up", func() bool {
		if k.ended() {
			t.Fatalf("Keycloak ended with status %d", k.cmd.ProcessState.ExitCode())
		}
		resp, err := client.Get(k.URL + "/realms/master")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return k
}

// grant is what the token endpoint gives.
type grant struct {
	Access  string `json:"access_token"`
	ID      string `json:"id_token"`
	Refresh string `json:"refresh_token"`
}

// grant asks a realm's token endpoint (RFC 6749 §4.3, §4.4) with a form given as key, value, …
func (k *server) grant(t *testing.T, realm string, form ...string) grant {
	t.Helper()
	values := url.Values{}
	for i := 0; i < len(form); i += 2 {
		values.Set(form[i], form[i+1])
	}
	resp, err := client.PostForm(k.URL+"/realms/"+realm+"/protocol/openid-connect/token", values)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	var g grant
	if err != nil || resp.StatusCode != http.StatusOK || json.Unmarshal(body, &g) != nil {
		t.Fatalf("Keycloak gave no token: %d %v", resp.StatusCode, err)
	}
	for _, token := range []string{g.Access, g.ID, g.Refresh} {
		minted(token)
	}
	return g
}

// service is the access token of a client itself.
func (k *server) service(t *testing.T, realm, name string) string {
	t.Helper()
	return k.grant(t, realm, "grant_type", "client_credentials", "client_id", name, "client_secret", name).Access
}

// user is what a user gets who logs in at the client shop.
func (k *server) user(t *testing.T, realm, name string) grant {
	t.Helper()
	return k.login(t, realm, "shop", name)
}

// login is what a user gets who logs in at that client.
func (k *server) login(t *testing.T, realm, app, name string) grant {
	t.Helper()
	return k.grant(t, realm, "grant_type", "password", "client_id", app, "client_secret", app,
		"username", name, "password", name, "scope", "openid")
}

// admin calls the admin REST API; in and out may be nil.
func (k *server) admin(t *testing.T, method, path string, in, out any) {
	t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(method, k.URL+"/admin/realms"+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	g := k.grant(t, "master", "grant_type", "password", "client_id", "admin-cli", "username", "admin", "password", k.password)
	req.Header.Set("Authorization", "Bearer "+g.Access)
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode/100 != 2 {
		text, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s %s: %d %s", method, path, resp.StatusCode, text)
	}
	if out != nil {
		if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
	}
}

// object is one of JSON.
type object map[string]any

// forHeroes maps the audience into a client's access tokens.
var forHeroes = []object{{
	"name": "audience", "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper",
	"config": object{"included.custom.audience": audience, "access.token.claim": "true", "introspection.token.claim": "true"},
}}

// app is a client; its secret is its name.
func app(name string, mappers []object, attributes object) object {
	return object{"clientId": name, "secret": name, "serviceAccountsEnabled": true, "directAccessGrantsEnabled": true,
		"standardFlowEnabled": false, "protocolMappers": mappers, "attributes": attributes}
}

// logOut ends the session of a grant, as its client does when the user asks for it.
func (k *server) logOut(t *testing.T, realm, name string, g grant) {
	t.Helper()
	resp, err := client.PostForm(k.URL+"/realms/"+realm+"/protocol/openid-connect/logout",
		url.Values{"client_id": {name}, "client_secret": {name}, "refresh_token": {g.Refresh}})
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		t.Fatalf("Keycloak ended no session: %d", resp.StatusCode)
	}
}

// makeRealm makes a realm with all that the stories need. Every client's
// secret and every user's password is its name.
func (k *server) makeRealm(t *testing.T, realm string) {
	t.Helper()
	user := func(name string, roles []string, clientRoles object) object {
		return object{"username": name, "enabled": true, "email": name + "@heroes.example", "emailVerified": true,
			"firstName": name, "lastName": "Hero", "realmRoles": roles, "clientRoles": clientRoles,
			"credentials": []object{{"type": "password", "value": name}}}
	}
	k.admin(t, http.MethodPost, "", object{
		"realm": realm, "enabled": true, "accessTokenLifespan": 1800,
		"roles": object{
			"realm": []object{
				{"name": "READ_HEROES"}, {"name": "CREATE_HERO"},
				{"name": "EDITOR", "composite": true, "composites": object{"realm": []string{"READ_HEROES", "CREATE_HERO"}}},
			},
			"client": object{"shop": []object{{"name": "CREATE_HERO"}}},
		},
		"clients": []object{
			app("shop", forHeroes, nil),
			app("stranger", nil, nil),
			app("brief", forHeroes, object{"access.token.lifespan": "3"}),
			app("strict", forHeroes, object{"access.token.header.type.rfc9068": "true"}),
			app("PS256", forHeroes, object{"access.token.signed.response.alg": "PS256"}),
			app("ES256", forHeroes, object{"access.token.signed.response.alg": "ES256"}),
			app("EdDSA", forHeroes, object{"access.token.signed.response.alg": "EdDSA"}),
		},
		"users": []object{
			user("reader", []string{"READ_HEROES"}, object{"shop": []string{"CREATE_HERO"}}),
			user("editor", []string{"EDITOR"}, nil),
			user("nobody", nil, nil),
			{"username": "service-account-shop", "enabled": true, "serviceAccountClientId": "shop", "realmRoles": []string{"READ_HEROES"}},
		},
	}, nil)
}

// addKey gives the realm a new RSA key, which signs from now on if it is active
// and no other key has a higher priority. Published it is in any case.
func (k *server) addKey(t *testing.T, realm, name, priority, active string) {
	t.Helper()
	var r struct{ ID string }
	k.admin(t, http.MethodGet, "/"+realm, nil, &r)
	k.admin(t, http.MethodPost, "/"+realm+"/components", object{
		"name": name, "parentId": r.ID, "providerId": "rsa-generated", "providerType": "org.keycloak.keys.KeyProvider",
		"config": object{"priority": []string{priority}, "active": []string{active}, "algorithm": []string{"RS256"}, "keySize": []string{"2048"}},
	}, nil)
}

// setKey changes a setting of a key: active or enabled.
func (k *server) setKey(t *testing.T, realm, name, setting, value string) {
	t.Helper()
	var providers []object
	k.admin(t, http.MethodGet, "/"+realm+"/components?type=org.keycloak.keys.KeyProvider", nil, &providers)
	for _, p := range providers {
		if p["name"] == name {
			p["config"].(map[string]any)[setting] = []string{value}
			k.admin(t, http.MethodPut, "/"+realm+"/components/"+p["id"].(string), p, nil)
			return
		}
	}
	t.Fatalf("no key %s among %v", name, providers)
}

// passive is the kid of the realm's one key that is published and does not sign.
func (k *server) passive(t *testing.T, realm string) string {
	t.Helper()
	var all struct {
		Keys []struct{ KID, Status string }
	}
	k.admin(t, http.MethodGet, "/"+realm+"/keys", nil, &all)
	for _, key := range all.Keys {
		if key.Status == "PASSIVE" {
			return key.KID
		}
	}
	t.Fatalf("no passive key among %v", all.Keys)
	return ""
}

// part decodes a part of a token: 0 is its header, 1 its claims.
func part(t *testing.T, token string, n int) object {
	t.Helper()
	var o object
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatal("not a JWT")
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[n])
	if err == nil {
		err = json.Unmarshal(text, &o)
	}
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// forge returns the token with changes of its header or claims, and its old signature.
func forge(t *testing.T, token string, n int, changes object) string {
	t.Helper()
	o := part(t, token, n)
	for name, value := range changes {
		o[name] = value
	}
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(token, ".")
	parts[n] = base64.RawURLEncoding.EncodeToString(text)
	return minted(strings.Join(parts, "."))
}
