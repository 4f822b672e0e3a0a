// A browser for the black-box tests: each line of standard input is
// {"id": n, "script": "…", "args": […]}, the body of a function of open, noise,
// audit and args, with page the one that was opened last; what it returns is a line of
// standard output, {"id": n, "value": …} or {"id": n, "error": "…"}.
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  args: [
    '--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--host-resolver-rules=MAP *.example 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
  ],
});

globalThis.page = undefined;
let noise = []; // what a page must not cause: dialogs, errors, violations of its policy, calls to elsewhere

async function open(url, options = {}) {
  await page?.context().close();
  const context = await browser.newContext(options);
  globalThis.page = await context.newPage();
  noise = [];
  page.on('dialog', d => { noise.push('dialog: ' + d.message()); d.dismiss(); });
  page.on('pageerror', e => noise.push('error: ' + e.message));
  page.on('console', m => { if (m.type() === 'error' || m.type() === 'warning') noise.push(`console: ${m.text()} (${m.location().url})`); });
  page.on('request', r => { if (new URL(r.url()).origin !== new URL(url).origin) noise.push('request: ' + r.url()); });
  return page.goto(url);
}

// audit returns what axe finds wrong with the page: contrast, names, headings, tables.
async function audit() {
  const found = await page.evaluate(`${axe}; axe.run(document, {resultTypes: ['violations']})`);
  return found.violations.map(v => `${v.id}: ${v.nodes.map(n => n.html + ' ' + n.failureSummary).join('; ')}`);
}

const AsyncFunction = open.constructor;
console.log(JSON.stringify({ ready: true }));
for await (const line of createInterface({ input: process.stdin })) {
  const { id, script, args } = JSON.parse(line);
  let reply;
  try {
    reply = { id, value: await new AsyncFunction('open', 'noise', 'audit', 'args', script)(open, () => noise, audit, args) ?? null };
  } catch (e) {
    reply = { id, error: e.message };
  }
  console.log(JSON.stringify(reply));
}
await browser.close();
