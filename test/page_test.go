package test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
)

const pageYAML = `
server:
  ADDRESSES
  admin: ADMIN
  admin_auth:
    token_file: operator
  trusted_proxies: [127.0.0.0/8]
redis:
  url: REDIS
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
  partner:
    issuer: http://127.0.0.1:1
    insecure: true
    audiences: [https://heroes.example]
revocation:
  mode: replica
limits:
  per_user:
    key: [claim:sub]
    rate: 20/1h
    burst: 20
  per_ip:
    key: [ip]
    rate: 1000/1s
    scope: shared
upstreams:
  heroes:
    targets: [BACKEND]
  villains:
    health: {path: /health}
    targets: [BACKEND, OTHER]
routes:
  - name: heroes.read
    match: GET /heroes/{id}
    issuers: [main]
    privileges: [READ_HEROES]
    limits: [per_ip, per_user]
    upstream: heroes
  - name: heroes.create
    match: POST /heroes
    issuers: [main]
    privileges: {all: [READ_HEROES], any: [CREATE_HERO, ASSIGN_HERO]}
    limits: [per_ip]
    upstream: heroes
  - name: threats
    match: /threats/{rest...}
    issuers: [main]
    policy: threats.own
    upstream: villains
  - name: villains.read
    match: GET /villains/{id}
    issuers: [main]
    privileges: [READ_VILLAINS]
    mode: report
    upstream: villains
  - name: health
    match: GET /health
    public: true
    upstream: heroes
`

const threatsPolicy = `
headers: [User-Agent]
allow:
  - claims:
      team: {in: [blue, red]}
    headers:
      User-Agent: one
tests:
  - claims: {team: green}
    expect: deny
`

// startPage gives a gateway with an admin page at that host; with files, which
// are admin.pem, admin.key and operators.pem, operators show a certificate.
func startPage(t *testing.T, host string, files ...file) (g *gateway, page string, p *idp) {
	t.Helper()
	p, r := newIDP(t), startRedis(t)
	port := fmt.Sprint(freePort(t))
	text, scheme := pageYAML, "http"
	if files != nil {
		text, scheme = strings.Replace(text, "token_file: operator\n", "tls: {cert_file: admin.pem, key_file: admin.key, client_ca_file: operators.pem, client_auth: request}\n", 1), "https"
	}
	g = start(t, fill(text, "ADMIN", host+":"+port, "IDP", p.URL, "REDIS", r.URL, "BACKEND", newBackend(t).URL, "OTHER", newBackend(t).URL),
		append(files, file{"operator", operatorToken + "\n"}, file{"policies/threats.own.yaml", threatsPolicy})...)
	return g, scheme + "://127.0.0.1:" + port + "/", p
}

// An operator looks at the page while requests come: rates, the last refusals
// and why, in light and dark, on a desk and on a phone.
func TestPage(t *testing.T) {
	t.Parallel()
	c := newChromium(t)
	g, page, p := startPage(t, "127.0.0.1")
	reader := p.token(t, claims{"sub": "alice", "privileges": []string{"READ_HEROES"}})
	for range 22 {
		g.do(t, "GET /heroes/7", bearer(reader))
	}
	c.run(t, `await open(args[0], {viewport: {width: 1440, height: 900}}); await page.waitForSelector('#routes tbody tr')`, page)
	g.do(t, "POST /heroes", bearer(reader)).refused(t, http.StatusForbidden, "insufficient_privileges")
	g.do(t, "GET /heroes/7").refused(t, http.StatusUnauthorized, "missing_token")
	g.do(t, "GET /threats/1", bearer(p.token(t, claims{"sub": "bob", "team": "green"}))).refused(t, http.StatusForbidden, "policy_denied")
	g.do(t, "GET /villains/3", bearer(reader)).is(t, http.StatusOK)
	g.do(t, "GET /wp-login.php").refused(t, http.StatusNotFound, "no_route")
	g.do(t, "GET /health").is(t, http.StatusOK)

	c.run(t, `await page.getByText('POST /heroes', {exact: true}).last().waitFor()`)
	c.run(t, `await page.locator('summary', {hasText: 'insufficient_privileges'}).focus(); await page.keyboard.press('Enter')`)
	c.run(t, `await page.getByText('needs READ_HEROES and one of CREATE_HERO, ASSIGN_HERO; the token has READ_HEROES').waitFor()`)
	c.run(t, `await page.locator('#routes tr', {hasText: 'heroes.create'}).getByText('insufficient_privileges').waitFor()`)
	text := c.run(t, `return await page.locator('body').innerText()`).(string)
	for _, want := range []string{
		"heroes.read", "READ_HEROES", "policy threats.own", "only reports", "public", "would refuse: insufficient_privileges", "no_route", "rate_limited",
		"per_user", "per_ip", "shared", "villains", "FAIL", "missing privilege any of CREATE_HERO, ASSIGN_HERO", "ready", "The issuer partner has no keys", "tracking", "not checked", "healthy", "alice", "bob",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not tell of %q", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
	// What is open stays open, and a text that is selected stays selected, when the page asks again.
	c.run(t, `
		const row = page.locator('#routes tbody tr').last().locator('th');
		await row.selectText();
		const up = await page.locator('#figures dd').last().innerText();
		await page.waitForFunction(up => [...document.querySelectorAll('#figures dd')].at(-1).innerText !== up, up);`)
	if kept := c.run(t, `return await page.evaluate(() => [document.querySelectorAll('details[open]').length, String(getSelection()).includes('no route')])`); fmt.Sprint(kept) != "[1 true]" {
		t.Errorf("after another poll %v", kept)
	}
	c.quiet(t)

	traffic := func() {
		for i := range 40 {
			g.do(t, "GET /health")
			g.do(t, "GET /threats/1", bearer(p.token(t, claims{"sub": "carol", "team": "red"})), "User-Agent: one")
			if i%4 == 0 {
				g.do(t, "GET /villains/3", bearer(reader))
			}
			if i%10 == 0 {
				g.do(t, "POST /heroes", bearer(reader))
				g.do(t, "GET /heroes/7")
			}
		}
	}
	if err := os.MkdirAll("page/shots", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string][2]int{"desk": {1440, 900}, "phone": {390, 844}} {
		for _, scheme := range []string{"light", "dark"} {
			c.run(t, `
				const [url, width, height, colorScheme] = args;
				await open(url, {viewport: {width, height}, colorScheme, deviceScaleFactor: width < 500 ? 2 : 1});
				await page.locator('#routes tbody tr').first().waitFor()`, page, size[0], size[1], scheme)
			traffic()
			found := c.run(t, `
				await page.locator('summary', {hasText: 'insufficient_privileges'}).first().click();
				await page.locator('.rungs').waitFor();
				await page.locator('#routes tr', {hasText: 'health'}).locator('.number:not(.zero)').first().waitFor();
				await page.evaluate(() => document.activeElement.blur());
				await page.screenshot({path: 'page/shots/' + args[0] + '.png', fullPage: true});
				const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
				return [...await audit(), ...(wide ? ['the page is wider than the window'] : [])]`, name+"-"+scheme)
			for _, fault := range found.([]any) {
				t.Errorf("%s %s: %v", name, scheme, fault)
			}
			c.quiet(t)
		}
	}

	g.signal(os.Interrupt)
	g.exit(t) // a second signal would end it at once
	c.run(t, `await page.getByText('The gateway does not answer; this is from').waitFor()`)
}

// hostile is what somebody writes where a page might take it for markup.
var hostile = []string{
	`<img src=x onerror=alert(1)>`, `<script>alert(2)</script>`, `"><svg onload=alert(3)>`, `'onmouseover='alert(4)`,
	`javascript:alert(5)`, `<iframe srcdoc="<script>alert(6)</script>">`, `</code></li><a href="//evil.example">x</a>`, `{{7*7}}${alert(8)}`, "\u202e\u2028<b>",
}

// Nothing that a caller or a token says becomes markup.
func TestPageTakesNoMarkup(t *testing.T) {
	t.Parallel()
	c := newChromium(t)
	g, page, p := startPage(t, "127.0.0.1")
	for i, text := range hostile {
		evil := claims{"sub": text, "iss": p.URL, "team": text, "privileges": []string{text}, "act": claims{"sub": text, "iss": text}}
		g.do(t, "POST /heroes", bearer(p.token(t, evil, claims{"act": nil})))                                                   // detail: the privileges
		g.do(t, "GET /threats/"+url.PathEscape(text), bearer(p.token(t, evil, claims{"act": nil})), "User-Agent: "+ascii(text)) // policy steps
		g.do(t, "GET /heroes/1", bearer(p.token(t, evil)))                                                                      // delegation
		g.do(t, "GET /heroes/1", bearer(p.token(t, evil, claims{"iss": text})))                                                 // an unknown issuer
		g.do(t, "GET /heroes/1", bearer(p.token(t, claims{"sub": text, "aud": text, "exp": text})))
		g.do(t, "GET /heroes/1", bearer(newSigner(t, "ES256", text).sign(t, p.good(evil)))) // kid
		g.do(t, "GET /nothing/"+ascii(strings.ReplaceAll(text, " ", "+"))+"?q="+url.QueryEscape(text))
		g.do(t, "PUT /heroes/"+url.PathEscape(text), fmt.Sprintf("X-Request-Id: id-%d", i), "X-Forwarded-For: "+ascii(text))
		g.do(t, "GET /heroes/1", "Host: "+ascii(text))
		g.do(t, strings.Map(func(r rune) rune {
			if strings.ContainsRune("!#$%&'*+-.^_`|~", r) || r >= '0' && r <= '9' || r >= 'A' && r <= 'z' && r != '[' && r != '\\' && r != ']' {
				return r
			}
			return -1
		}, text)+" /heroes/1")
		// The state shows the last 50 only: each text has its own turn.
		c.run(t, `
			await open(args[0]);
			await page.locator('#refusals li').first().waitFor();
			await page.evaluate(() => document.querySelectorAll('details').forEach(e => { e.open = true }));
			await page.waitForFunction(() => [...document.querySelectorAll('.told')].every(e => e.querySelector('.rungs')));`, page)
		if made := c.run(t, `return await page.evaluate(() => document.querySelectorAll('main :is(img, script, svg, iframe, a, b, object, embed, style, link), [onmouseover], [onerror]').length)`); made != 0.0 {
			t.Errorf("%s: %v elements were made of it", text, made)
		}
		if text := strings.TrimLeft(text, "\u202e\u2028"); !strings.Contains(c.run(t, `return await page.locator('#refusals').innerText()`).(string), text) {
			t.Errorf("%s is not shown as it is", text)
		}
		c.quiet(t)
	}
	// The browser itself would refuse markup.
	said := c.run(t, `return await page.evaluate(() => { try { document.body.innerHTML = '<b>x</b>'; return 'taken' } catch (e) { return e.name } })`)
	if said != "TypeError" {
		t.Errorf("innerHTML: %v", said)
	}
}

// ascii is what may stand in a header.
func ascii(text string) string {
	return strings.Map(func(r rune) rune {
		if r > 0x7e || r < 0x20 {
			return -1
		}
		return r
	}, text)
}

// Where others reach the listener the page holds nothing until it is given the
// operators' token, which it keeps in memory only.
func TestPageAsksForTheToken(t *testing.T) {
	t.Parallel()
	c := newChromium(t)
	g, page, p := startPage(t, "0.0.0.0")
	raw := p.token(t, claims{"sub": "alice", "privileges": []string{}})
	g.do(t, "GET /heroes/7?secret=hidden", bearer(raw)).refused(t, http.StatusForbidden, "insufficient_privileges")
	c.run(t, `await open(args[0]); await page.getByLabel('Operator’s token').waitFor()`, page)
	if text := c.run(t, `return await page.content()`).(string); strings.Contains(text, "heroes") || strings.Contains(text, "alice") {
		t.Errorf("without a token the page holds %s", text)
	}
	give := func(token string) {
		t.Helper()
		c.run(t, `
			await page.getByLabel('Operator’s token').fill(args[0]);
			await page.keyboard.press('Enter')`, token)
	}
	give("wrong")
	c.run(t, `await page.getByText('The credentials are wrong.').waitFor()`)
	give("not a token")
	c.run(t, `await page.getByText('A token has no spaces').waitFor()`)
	for _, fault := range c.run(t, `await page.screenshot({path: 'page/shots/door.png'}); return await audit()`).([]any) {
		t.Error(fault)
	}
	c.run(t, `globalThis.sent = []; page.on('request', r => sent.push(r.url() + ' ' + (r.postData() ?? '') + ' ' + (r.headers().cookie ?? '')))`)
	give(operatorToken)
	c.run(t, `
		await page.locator('summary', {hasText: 'insufficient_privileges'}).click();
		await page.locator('.rungs').waitFor();
		await page.waitForResponse(r => r.url().endsWith('/state'))`)
	held := c.run(t, `return JSON.stringify([sent, await page.content(), page.url(), await page.context().cookies(), await page.evaluate(async () => [
		document.cookie, {...localStorage}, {...sessionStorage}, history.length, history.state, document.querySelector('input[type=password]').value, await indexedDB.databases()])])`).(string)
	if strings.Contains(held, operatorToken) || strings.Contains(held, raw) || strings.Contains(held, "secret=hidden") {
		t.Errorf("a token is kept or sent where it must not be: %s", held)
	}
	c.run(t, `await page.getByText('Forget the token').click(); await page.getByLabel('Operator’s token').waitFor()`)
	if text := c.run(t, `return await page.locator('main').innerText()`).(string); strings.Contains(text, "heroes.read") {
		t.Errorf("when the token is forgotten the page still shows %s", text)
	}
	give(operatorToken)
	c.run(t, `await page.getByText('heroes.read').first().waitFor(); await page.reload(); await page.getByLabel('Operator’s token').waitFor()`)
	// Whoever guesses has to wait, and the page does not go on asking.
	for range 10 {
		give("guess")
		c.run(t, `await page.getByText(/credentials/).first().waitFor()`)
	}
	give(operatorToken)
	c.run(t, `await page.getByText('Too many wrong credentials').waitFor()`)
}

// An operator with a certificate sees the state at once, and nobody else does.
func TestPageTakesACertificate(t *testing.T) {
	t.Parallel()
	c := newChromium(t)
	servers, operators := newAuthority(t), newAuthority(t)
	_, page, _ := startPage(t, "0.0.0.0", append(servers.issue(t, "127.0.0.1").files("admin"), file{"operators.pem", operators.cert})...)
	alice := operators.issue(t, "alice")
	c.run(t, `
		await open(args[0], {ignoreHTTPSErrors: true, clientCertificates: [{origin: new URL(args[0]).origin, cert: Buffer.from(args[1]), key: Buffer.from(args[2])}]});
		await page.getByText('heroes.read').first().waitFor()`, page, alice.cert, alice.key)
	c.quiet(t)
	c.run(t, `await open(args[0], {ignoreHTTPSErrors: true}); await page.getByLabel('Operator’s token').waitFor()`, page)
}

// A page of another site learns nothing and does nothing through an operator's
// browser, whatever name it gives the listener.
func TestPageIsNotForOtherSites(t *testing.T) {
	t.Parallel()
	c := newChromium(t)
	g, page, _ := startPage(t, "127.0.0.1")
	g.do(t, "GET /heroes/7").refused(t, http.StatusUnauthorized, "missing_token")
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprint(w, `<!doctype html><title>other</title><body>`)
	}))
	t.Cleanup(other.Close)
	port := strings.TrimSuffix(page[strings.LastIndex(page, ":")+1:], "/")
	for _, from := range []string{other.URL, strings.Replace(other.URL, "127.0.0.1", "evil.example", 1)} { // the same site by its address, and another
		got := c.run(t, `
			await open(args[0]);
			return await page.evaluate(async at => {
				const tried = async (...a) => { try { const r = await fetch(...a); return r.type + ' ' + (await r.text()).length } catch { return 'nothing' } };
				const loaded = (name, key) => new Promise(done => {
					const e = document.createElement(name);
					e.onload = () => done('loaded'); e.onerror = () => done('nothing');
					e[key] = at + (name === 'link' ? 'page.css' : 'page.js'); if (name === 'link') e.rel = 'stylesheet';
					document.body.append(e);
				});
				const frame = document.createElement('iframe');
				await new Promise(done => { frame.onload = frame.onerror = done; frame.src = at; document.body.append(frame) });
				let seen; try { seen = frame.contentWindow.document.body.innerText } catch { seen = 'nothing' }
				return [await tried(at + 'state'), await tried(at + 'state', {mode: 'no-cors'}), await tried(at + 'explain', {method: 'POST', mode: 'no-cors', body: '{"url":"/"}'}),
					await tried(at + 'refusals', {headers: {Authorization: 'Bearer x'}}), await loaded('script', 'src'), await loaded('link', 'href'), seen];
			}, args[1])`, from, page)
		if want := "[nothing nothing nothing nothing nothing nothing nothing]"; fmt.Sprint(got) != want {
			t.Errorf("a page of %s gets %v", from, got)
		}
	}
	// DNS rebinding: the listener under the other site's name.
	text := c.run(t, `const r = await open(args[0]); return r.status() + ' ' + await page.content()`, "http://evil.example:"+port+"/").(string)
	if !strings.HasPrefix(text, "421 ") || strings.Contains(text, "<script") {
		t.Errorf("under the name of another site: %s", text)
	}
	// A link from elsewhere leads to the page, which is then of its own origin.
	c.run(t, `
		await open(args[0]);
		await page.evaluate(at => { const a = document.createElement('a'); a.href = at; a.textContent = 'go'; document.body.append(a) }, args[1]);
		await page.getByText('go').click();
		await page.getByText('heroes.read').first().waitFor()`, other.URL, page)
	if g.metric(t, "gatehouse_admin_refusals_total") < 6 {
		t.Error("the calls of other sites were not refused")
	}
}
