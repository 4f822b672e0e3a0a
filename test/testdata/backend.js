// A backend in Node.js for the black-box tests.
//
//   node backend.js CLEAR SECURE PRIOR CERT KEY
//
// It serves the same over HTTP/1.1 on the port CLEAR, over TLS with HTTP/2 on
// SECURE, and in HTTP/2 without TLS on PRIOR. It ends with its standard input,
// so that none outlives the test that started it.
const { createHash } = require('node:crypto');
const { readFileSync } = require('node:fs');
const http = require('node:http');
const http2 = require('node:http2');
const { gzipSync } = require('node:zlib');

const [clear, secure, prior] = process.argv.slice(2, 5).map(Number);
const [cert, key] = process.argv.slice(5, 7).map((name) => readFileSync(name));

// What of the request must be the same however it came.
const kept = ['host', ':authority', 'content-type', 'content-length', 'x-odd', 'x-empty', 'x-many', 'cookie', 'range', 'te'];

// HTTP/1.1 would add a length by itself, HTTP/2 would not.
const end = (res, body) => { res.setHeader('Content-Length', Buffer.byteLength(body)); res.end(body); };

const answers = {
  '/protocol': (req, res) => end(res, `HTTP/${req.httpVersion}`),
  '/echo': (req, res) => {
    const hash = createHash('sha256');
    let length = 0;
    req.on('data', (part) => { length += part.length; hash.update(part); });
    req.on('end', () => {
      const headers = Object.fromEntries(kept.map((name) => [name.replace(':authority', 'host'), req.headers[name]]).filter(([, value]) => value !== undefined));
      end(res, JSON.stringify({ method: req.method, url: req.url, headers, length, hash: hash.digest('hex'), trailers: req.trailers }));
    });
  },
  '/gzip': (req, res) => {
    res.setHeader('Content-Encoding', 'gzip');
    res.setHeader('Vary', 'Accept-Encoding');
    end(res, gzipSync('gzip '.repeat(1000)));
  },
  '/parts': (req, res) => {
    if (req.httpVersionMajor === 1) res.setHeader('Trailer', 'X-Sum');
    for (let n = 0; n < 5; n += 1) res.write(`part ${n}\n`.repeat(n * 1000));
    res.addTrailers({ 'X-Sum': '10' });
    res.end();
  },
  '/headers': (req, res) => {
    res.setHeader('Set-Cookie', ['a=1; Path=/; HttpOnly', 'b="2, 3"; Expires=Sun, 09 Sep 2001 01:46:40 GMT']);
    res.setHeader('X-Empty', '');
    res.setHeader('Vary', ['Accept', 'Origin']);
    res.setHeader('Cache-Control', 'no-store');
    res.setHeader('Link', '</a>; rel="next", </b>; rel="last"');
    res.statusCode = 203;
    end(res, 'headers');
  },
  '/hints': (req, res) => {
    res.writeEarlyHints({ link: '</style.css>; rel=preload' });
    end(res, 'hints');
  },
  '/nothing': (req, res) => { res.statusCode = 204; res.end(); },
  '/unmodified': (req, res) => { res.statusCode = 304; res.setHeader('ETag', '"1"'); res.end(); },
  '/odd-status': (req, res) => { res.statusCode = 599; end(res, 'odd'); },
  '/breaks': (req, res) => {
    res.setHeader('Content-Length', 1000000);
    res.write('not all of it', () => (req.httpVersionMajor === 2 ? res.stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR) : req.socket.destroy()));
  },
};

const serve = (req, res) => {
  const answer = answers[req.url.split('?')[0]];
  if (answer) answer(req, res);
  else { res.statusCode = 404; end(res, 'none'); }
};
const expect = (req, res) => {
  if (req.headers['x-odd'] === 'no') { res.statusCode = 417; end(res, 'no'); return; }
  res.writeContinue();
  serve(req, res);
};

const servers = [[http.createServer(), clear], [http2.createSecureServer({ cert, key, allowHTTP1: true }), secure], [http2.createServer(), prior]];
let left = servers.length;
for (const [server, port] of servers) {
  server.on('request', serve).on('checkContinue', expect);
  server.listen(port, '127.0.0.1', () => { left -= 1; if (left === 0) console.log('ready'); });
}
process.stdin.on('end', () => process.exit()).resume();
