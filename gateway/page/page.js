'use strict';

const every = 5;     // seconds from one poll to the next
const span = 60;     // seconds that rates are taken over
const mostRows = 200; // of routes; the filter finds the others

let token = '';      // the operator's: here alone, never in storage, a URL or a cookie
let samples = [];    // the last states, the oldest first
let turn = 0;        // of the poll that counts
let next;            // the timer of the next poll
let answered;        // when the last answer came
let latest;          // the last state

const at = id => document.getElementById(id);

// h makes an element. What is put in is text, never markup.
function h(name, attributes, ...children) {
  const e = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) e.setAttribute(key, value);
  e.append(...children.filter(c => c !== undefined && c !== ''));
  return e;
}
const small = (text, kind = '') => h('small', {class: kind}, text);

// fill replaces what has changed, and leaves the rest, where a text may be selected.
function fill(parent, wanted) {
  wanted.forEach((e, i) => {
    const old = parent.childNodes[i];
    if (!old) parent.append(e);
    else if (old.isEqualNode(e)) return;
    else if (e.hasChildNodes() && old.cloneNode().isEqualNode(e.cloneNode())) fill(old, [...e.childNodes]);
    else old.replaceWith(e);
  });
  while (parent.childNodes.length > wanted.length) parent.lastChild.remove();
}

// rows fills a table, or says instead what it means that there is nothing.
function rows(id, wanted) {
  const part = at(id), none = part.parentElement.querySelector('.none');
  part.hidden = wanted.length === 0;
  none.hidden = !part.hidden;
  fill(part.tBodies ? part.tBodies[0] : part, wanted);
}

function duration(seconds) {
  const s = Math.max(0, Math.round(seconds)), m = Math.floor(s / 60), hours = Math.floor(m / 60), days = Math.floor(hours / 24);
  if (s < 60) return s + ' s';
  if (m < 60) return m + ' min' + (m < 10 && s % 60 ? ' ' + s % 60 + ' s' : '');
  if (hours < 24) return hours + ' h' + (m % 60 ? ' ' + m % 60 + ' min' : '');
  return days + ' d' + (hours % 24 ? ' ' + hours % 24 + ' h' : '');
}
const count = n => n.toLocaleString('en');
function rate(n) {
  if (n === undefined) return '…';
  if (n === 0) return '0';
  return n < 10 ? Math.max(n, 0.01).toFixed(2) : n < 100 ? n.toFixed(1) : count(Math.round(n));
}
const number = (n, show, label) => h('td', {class: n ? 'number' : 'number zero', role: 'cell', 'data-label': label ?? ''}, show(n));
const seconds = time => Date.parse(time) / 1000;
const sum = counts => Object.values(counts ?? {}).reduce((a, b) => a + b, 0);
const clock = time => new Date(time).toLocaleTimeString('en-GB');

// Rates are differences between two states; the gateway keeps none.

function remember(s) {
  const counts = new Map(s.routes.map(r => [r.name, r]));
  counts.set('', s.unmatched);
  const now = seconds(s.time);
  if (samples.length && (samples[0].started !== s.started || samples.at(-1).at >= now)) samples = [];
  samples.push({at: now, started: s.started, counts, limits: new Map(s.limits.map(l => [l.name, l]))});
  samples = samples.filter(one => one.at > now - span - every);
}

// over returns by how much a number grows in a second; undefined until two states came.
function over(pick) {
  const first = samples[0], last = samples.at(-1);
  if (first === last) return undefined;
  return Math.max(0, pick(last) - pick(first)) / (last.at - first.at);
}
const rateOf = (route, pick) => over(sample => pick(sample.counts.get(route) ?? {}));
const requests = route => rateOf(route, r => r.requests ?? 0);
const refused = route => rateOf(route, r => sum(r.refused));

// What is shown.

function show(s) {
  remember(s);
  latest = s;
  const now = seconds(s.time), since = samples.at(-1).at - samples[0].at;
  at('state').hidden = false;
  at('door').hidden = true;
  at('forget').hidden = token === '';
  document.body.classList.remove('stale');
  answered = clock(s.time);
  fill(at('standing'), [h('span', {class: s.status === 'ok' ? 'good' : 'bad'}, s.status === 'ok' ? 'ready' : 'not ready: ' + s.status)]);
  for (const e of document.querySelectorAll('.span')) e.textContent = since ? `over the last ${since > 55 ? 'minute' : duration(since)}` : 'in a moment';

  figures(s, now);
  fill(at('attention').querySelector('ul'), attention(s).map(text => h('li', {}, text)));
  at('attention').hidden = at('attention').querySelector('li') === null;
  routes(s);
  refusals(s.refusals);
  rows('issuers', Object.entries(s.issuers ?? {}).flatMap(([name, i]) => [
    h('tr', {class: i.error ? 'goes-on' : ''}, h('th', {scope: 'row'}, name), number(i.keys, count),
      time(i.fetched ? now - seconds(i.fetched) : undefined, i.keys ? 'static' : 'never'), time(i.next_fetch ? Math.max(0, seconds(i.next_fetch) - now) : undefined, '–')),
    ...(i.error ? [h('tr', {}, h('td', {colspan: 4}, small(i.error, i.ready ? 'warn' : 'bad')))] : []),
  ]));
  rows('revocation', s.revocation ? revocation(s.revocation, now) : []);
  rows('limits', s.limits.map(l => h('tr', {},
    h('th', {scope: 'row'}, l.name,
      small(`${count(l.quota)} in ${duration(l.window_seconds)} by ${l.key.join(', ')}${l.shared ? ', shared' : ''}${l.mode === 'report' ? ', only reports' : ''}; ${count(l.keys)} ${l.keys === 1 ? 'caller' : 'callers'} now`),
      l.reported ? small(`${count(l.reported)} over it passed`, 'warn') : undefined,
      l.spilled ? small(`${count(l.spilled)} shared one bucket: too many callers`, 'warn') : undefined),
    number(l.admitted, count), number(l.refused, count), number(l.fallback, count))));
  rows('upstreams', s.upstreams.flatMap(upstream));
}

const time = (value, otherwise) => h('td', {class: value === undefined ? 'number zero' : 'number'}, value === undefined ? otherwise : duration(value));

function figures(s, now) {
  const names = [...s.routes.map(r => r.name), ''];
  const all = pick => names.reduce((n, name) => { const one = pick(name); return one === undefined ? undefined : n + one; }, 0);
  const asked = all(requests), no = all(refused);
  const issuers = Object.values(s.issuers ?? {});
  const figure = (name, value, more) => h('div', {}, h('dt', {}, name), h('dd', {}, value, more ? h('small', {}, more) : undefined));
  fill(at('figures'), [
    figure('Requests/s', rate(asked), since()),
    figure('Refused/s', rate(no), asked ? `${(100 * no / asked).toFixed(no && no < asked ? 1 : 0)} % of requests` : 'none of none'),
    figure('Issuers with keys', issuers.length ? `${issuers.filter(i => i.ready).length} of ${issuers.length}` : '–', issuers.length ? 'can verify tokens' : 'every route is public'),
    figure('Up', duration(now - seconds(s.started)), `since ${new Date(s.started).toLocaleString('en-GB', {dateStyle: 'medium', timeStyle: 'short'})}`),
  ]);
  function since() { return samples.length > 1 ? at('routes').querySelector('.span').textContent : 'known in a moment'; }
}

function attention(s) {
  const told = [];
  if (s.status !== 'ok') told.push(`Not ready: ${s.status}.`);
  for (const [name, i] of Object.entries(s.issuers ?? {})) {
    if (!i.ready) told.push(`The issuer ${name} has no keys that may be used: its tokens are refused by 503.`);
    else if (i.error) told.push(`The keys of ${name} cannot be fetched; those at hand serve on.`);
  }
  if (s.revocation && !s.revocation.ready) told.push(`Revocations cannot be followed: ${s.revocation.error ?? 'not in step'}.`);
  if (s.revocation?.warning) told.push(`Revocations: ${s.revocation.warning}`);
  for (const l of s.limits) {
    if (over(sample => sample.limits.get(l.name)?.fallback ?? 0)) told.push(`The limit ${l.name} decides without Redis.`);
  }
  for (const u of s.upstreams) {
    const bad = u.targets.filter(t => t.state === 'unhealthy' || t.state === 'ejected');
    if (u.circuit === 'open') told.push(`The circuit of ${u.name} is open: requests to it are refused by 503.`);
    if (bad.length) told.push(`${u.name}: ${bad.length} of ${u.targets.length} targets ${bad.length === 1 ? 'is' : 'are'} out (${bad.map(t => t.target).join(', ')}).`);
  }
  return told;
}

function routes(s) {
  const word = at('filter').value.trim().toLowerCase();
  const found = s.routes.filter(r => !word || [r.name, r.match, ...r.upstreams, r.policy, ...(r.all ?? []), ...(r.any ?? [])].join(' ').toLowerCase().includes(word));
  at('filter-label').hidden = s.routes.length <= 10;
  const list = found.slice(0, mostRows).map(r => routeRow(r.name, r.name, r.match === r.name ? '' : r.match, needs(r)));
  if (!word) list.push(routeRow('', 'no route', '', h('span', {class: 'muted'}, '–')));
  fill(at('routes').tBodies[0], list);
  at('more').hidden = found.length <= mostRows;
  at('more').textContent = `and ${count(found.length - mostRows)} more: filter by name, path, privilege, policy or upstream`;
}

function routeRow(key, name, match, asks) {
  const last = samples.at(-1).counts.get(key);
  const why = [];
  const tell = (kind, word) => {
    for (const reason of Object.keys(last[kind] ?? {}).sort()) {
      const n = rateOf(key, r => r[kind]?.[reason] ?? 0);
      if (n) why.push(h('span', {}, word + reason), h('span', {}, rate(n)));
    }
  };
  tell('refused', '');
  tell('would_refuse', 'would refuse: ');
  return h('tr', {role: 'row'},
    h('th', {role: 'rowheader', scope: 'row'}, name, match ? h('small', {class: 'mono'}, match) : undefined),
    h('td', {role: 'cell', class: 'needs'}, asks),
    number(requests(key), rate, 'Requests/s'), number(refused(key), rate, 'Refused/s'),
    h('td', {role: 'cell'}, why.length ? h('div', {class: 'why'}, ...why) : ''));
}

function needs(r) {
  const chips = h('div', {class: 'chips'});
  const chip = (text, kind = '') => chips.append(h('span', {class: 'chip ' + kind}, text));
  if (r.access === 'public') chip('public');
  if (r.access === 'any_token') chip('any token');
  if (r.access === 'optional') chip('token optional');
  for (const p of r.all ?? []) chip(p);
  if (r.any?.length) {
    chips.append(h('span', {class: 'muted'}, r.any.length > 1 ? 'one of' : ''));
    for (const p of r.any) chip(p);
  }
  if (r.policy) chip('policy ' + r.policy);
  if (r.mode === 'report') chip('only reports', 'warn');
  const more = [r.issuers?.length ? 'from ' + r.issuers.join(', ') : '', r.limits?.length ? 'limits ' + r.limits.join(', ') : '', 'to ' + r.upstreams.join(', ')];
  return h('div', {}, chips, small(more.filter(t => t).join(' · ')));
}

function revocation(r, now) {
  const lookup = r.mode === 'lookup';
  const facts = [['Mode', r.mode || 'not known yet'], [lookup ? 'Redis answers' : 'In step', h('span', {class: r.ready ? 'good' : 'bad'}, r.ready ? 'yes' : 'no')]];
  if (!lookup) facts.push(['Entries', count(r.entries ?? 0)], ['Known good', r.good ? duration(now - seconds(r.good)) + ' ago' : 'never']);
  if (r.warning) facts.push(['Warning', h('span', {class: 'warn'}, r.warning)]);
  if (r.error) facts.push(['Error', h('span', {class: 'bad'}, r.error)]);
  return facts.flatMap(([name, value]) => [h('dt', {}, name), h('dd', {}, value)]);
}

function upstream(u) {
  const states = {healthy: ['good'], unhealthy: ['bad'], ejected: ['bad'], unknown: ['muted', 'not checked'], unchecked: ['muted', 'not checked yet']};
  return [
    ...(u.targets.length === 1 && u.name === u.targets[0].url && !u.circuit ? [] : [h('tr', {class: 'goes-on'}, h('th', {scope: 'rowgroup', colspan: 3}, u.name, u.circuit ? small('circuit ' + u.circuit, u.circuit === 'closed' ? '' : 'warn') : undefined))]),
    ...u.targets.map(t => {
      const [kind, word] = states[t.state] ?? ['muted'];
      return h('tr', {},
        h('td', {}, h('span', {class: 'mono'}, t.url), t.why ? small(t.why, 'bad') : undefined),
        h('td', {class: kind}, word ?? t.state, t.ejected_until ? small('until ' + clock(t.ejected_until)) : undefined),
        number(t.requests_in_flight, count));
    }),
  ];
}

// Refusals come at the front of the list; one that is open stays so.
function refusals(list) {
  const shown = at('refusals'), key = r => r.request_id + ' ' + r.time;
  at('refusals-none').hidden = list.length > 0;
  at('all').hidden = list.length <= 12 || shown.classList.contains('all');
  const keys = new Set(list.map(key)), had = new Set();
  for (const e of [...shown.children]) {
    if (keys.has(e.dataset.key)) had.add(e.dataset.key);
    else if (!e.contains(document.activeElement) && !e.querySelector('details').open) e.remove();
  }
  for (const r of list.toReversed()) {
    if (!had.has(key(r))) shown.prepend(refusal(r, key(r)));
  }
}

function refusal(r, key) {
  const told = h('div', {class: 'told'});
  const details = h('details', {}, h('summary', {},
    h('time', {datetime: r.time, title: r.time}, clock(r.time)), h('span', {class: r.status >= 500 ? 'status bad' : 'status'}, String(r.status)),
    h('span', {}, r.reason), h('span', {class: 'mono path cut'}, `${r.method} ${r.path}`), h('span', {class: 'who cut'}, r.sub || r.client)), told);
  details.addEventListener('toggle', async () => {
    if (!details.open || told.childElementCount) return;
    told.replaceChildren(h('p', {class: 'muted'}, 'Asking …'));
    try {
      told.replaceChildren(...explained(await ask('refusals/' + encodeURIComponent(r.request_id))));
    } catch (e) {
      told.replaceChildren(h('p', {class: 'bad'}, e.message));
    }
  });
  return h('li', {'data-key': key}, details);
}

const marks = {passed: 'ok', refused: 'FAIL', noted: ''};

function explained(r) {
  const facts = [['Request', r.request_id], ['Route', r.route], ['Host', r.host], ['Client', r.client], ['Issuer', r.issuer], ['Subject', r.sub], ['Actor', r.actor]];
  return [
    h('dl', {class: 'facts'}, ...facts.filter(([, value]) => value).flatMap(([name, value]) => [h('dt', {}, name), h('dd', {class: 'mono'}, value)])),
    h('ol', {class: 'rungs'}, ...r.explanation.steps.map(s => h('li', {class: s.mark in marks ? s.mark : 'noted'},
      h('span', {class: 'mark mono'}, marks[s.mark] ?? ''), h('span', {}, s.rung), h('span', {}, s.found)))),
  ];
}

// How it is asked for.

async function ask(path) {
  const response = await fetch(path, {
    headers: token ? {Authorization: 'Bearer ' + token} : {},
    credentials: 'same-origin', // else a client certificate would not be shown
    cache: 'no-store', redirect: 'error', signal: AbortSignal.timeout(20000),
  });
  if (response.ok) return response.json();
  const problem = await response.json().catch(() => ({}));
  throw Object.assign(new Error(problem.detail ?? `The gateway answered ${response.status}.`), {status: response.status});
}

async function poll() {
  const mine = ++turn, started = performance.now();
  clearTimeout(next);
  try {
    const s = await ask('state');
    if (mine !== turn) return;
    show(s);
  } catch (e) {
    if (mine !== turn) return;
    if ([401, 403, 421, 429].includes(e.status)) return lock(e);
    document.body.classList.add('stale');
    fill(at('standing'), [h('span', {class: 'bad'}, `The gateway does not answer${answered ? `; this is from ${answered}` : ''}.`)]);
  }
  // A gateway whose state takes long to tell is asked less often; the second
  // answer comes soon, so that there are rates.
  next = setTimeout(poll, Math.max(samples.length === 1 ? 1000 : every * 1000, 10 * (performance.now() - started)));
}

// lock asks for a token, and asks the gateway nothing more until there is one:
// wrong ones are counted.
function lock(e) {
  at('why').textContent = token || e.status !== 401 ? e.message : '';
  forget();
}

function forget() {
  turn++;
  clearTimeout(next);
  token = '';
  samples = [];
  at('state').hidden = true;
  at('refusals').replaceChildren();
  at('forget').hidden = true;
  fill(at('standing'), []);
  at('clear').hidden = isSecureContext; // which loopback is, too
  at('door').hidden = false;
  at('token').focus();
}

at('door').addEventListener('submit', event => {
  event.preventDefault();
  token = at('token').value.trim();
  at('token').value = '';
  if (/^[\x21-\x7e]+$/.test(token)) return void poll();
  token = '';
  at('why').textContent = 'A token has no spaces, and only letters, digits and signs of ASCII.';
});
at('all').addEventListener('click', () => {
  at('refusals').classList.add('all');
  at('all').hidden = true;
});
at('forget').addEventListener('click', () => {
  at('why').textContent = '';
  forget();
});
at('filter').addEventListener('input', () => latest && routes(latest));
document.addEventListener('visibilitychange', () => {
  if (!at('door').hidden) return;
  if (document.hidden) clearTimeout(next);
  else poll();
});
poll();
