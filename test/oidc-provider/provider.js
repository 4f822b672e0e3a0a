// A real identity provider for the black-box tests: panva's oidc-provider,
// with client credentials and JWT access tokens (RFC 9068).
//
//   node provider.js PORT [JWK]
//
// Two clients, "reader" and "writer" (their secrets are their names), ask for
// a resource, which chooses the algorithm: urn:heroes:RS256, urn:heroes:ES256; or
// urn:heroes:opaque, whose tokens are no JWTs. Three further clients may only
// introspect (RFC 7662), each with a method of authentication of its own:
// "basic", "post" (their secrets are their names) and "key", which signs with
// the key whose public half is JWK. A token can be revoked by
// the client that got it (RFC 7009).
//
// It says what happened as JSON, one line each, and obeys one word per line of
// its standard input: "rotate" signs with new keys and still publishes the old
// ones, "retire" stops publishing all but the newest. It ends with its input,
// so that no provider outlives the test that started it.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { Provider } from 'oidc-provider';

const [port, jwk] = [Number(process.argv[2]), process.argv[3]];
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

const client = (name, more) => ({
  client_id: name, client_secret: name, grant_types: [], redirect_uris: [], response_types: [], ...more,
});

const provider = (keys) => new Provider(issuer, {
  jwks: { keys },
  clients: [
    ...Object.keys(privileges).map((name) => client(name, { grant_types: ['client_credentials'] })),
    client('basic', {}),
    client('post', { token_endpoint_auth_method: 'client_secret_post' }),
    ...(jwk ? [client('key', {
      client_secret: undefined,
      token_endpoint_auth_method: 'private_key_jwt',
      jwks: { keys: [JSON.parse(jwk)] },
    })] : []),
  ],
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    revocation: { enabled: true },
    introspection: {
      enabled: true,
      allowedPolicy: (ctx, asking) => ['basic', 'post', 'key'].includes(asking.clientId),
    },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (ctx, resource) => ({
        scope: 'heroes',
        audience: 'https://heroes.example',
        accessTokenTTL: 600,
        ...(resource.endsWith(':opaque') ? { accessTokenFormat: 'opaque' } : {
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: resource.split(':').at(-1) } },
        }),
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
