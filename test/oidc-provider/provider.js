// A real identity provider for the black-box tests: panva's oidc-provider,
// with client credentials and JWT access tokens (RFC 9068).
//
//   node provider.js PORT
//
// Two clients, "reader" and "writer" (their secrets are their names), ask for
// a resource, which chooses the algorithm: urn:heroes:RS256, urn:heroes:ES256.
//
// It says what happened as JSON, one line each, and obeys one word per line of
// its standard input: "rotate" signs with new keys and still publishes the old
// ones, "retire" stops publishing all but the newest. It ends with its input,
// so that no provider outlives the test that started it.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { Provider } from 'oidc-provider';

const port = Number(process.argv[2]);
const issuer = `http://127.0.0.1:${port}`;
const privileges = { reader: ['READ_HEROES'], writer: ['READ_HEROES', 'CREATE_HERO'] };

let generation = 0;
const newKeys = () => {
  generation += 1;
  const pairs = {
    RS256: generateKeyPairSync('rsa', { modulusLength: 2048 }),
    ES256: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  };
  return Object.entries(pairs).map(([alg, { privateKey }]) => (
    { ...privateKey.export({ format: 'jwk' }), alg, use: 'sig', kid: `${alg}-${generation}` }));
};

const provider = (keys) => new Provider(issuer, {
  jwks: { keys },
  clients: Object.keys(privileges).map((name) => ({
    client_id: name,
    client_secret: name,
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
  })),
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (ctx, resource) => ({
        scope: 'heroes',
        audience: 'https://heroes.example',
        accessTokenTTL: 600,
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: resource.split(':').at(-1) } },
      }),
    },
  },
  extraTokenClaims: (ctx, token) => ({ privileges: privileges[token.clientId] }),
});

const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

let keys = newKeys();
let handle = provider(keys).callback();
const server = createServer((request, response) => handle(request, response));
server.listen(port, '127.0.0.1', () => say({ ready: issuer }));

createInterface({ input: process.stdin })
  .on('line', (word) => {
    switch (word) {
      case 'rotate': keys = [...newKeys(), ...keys]; break;
      case 'retire': keys = keys.slice(0, 2); break;
      default: say({ error: `no such word: ${word}` }); return;
    }
    handle = provider(keys).callback();
    say({ published: keys.map((key) => key.kid) });
  })
  .on('close', () => process.exit(0));
