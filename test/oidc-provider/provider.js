// A real identity provider for the black-box tests: panva's oidc-provider,
// with client credentials and JWT access tokens (RFC 9068).
//
//   node provider.js PORT [JWK [LOGOUT]]
//
// Two clients, "reader" and "writer" (their secrets are their names), ask for
// a resource, which chooses the algorithm: urn:heroes:RS256, urn:heroes:ES256; or
// urn:heroes:opaque, whose tokens are no JWTs. Three further clients may only
// introspect (RFC 7662), each with a method of authentication of its own:
// "basic", "post" (their secrets are their names) and "key", which signs with
// the key whose public half is JWK. A token can be revoked by
// the client that got it (RFC 7009).
//
// Users log in at two further clients, "browser" and "kiosk" (their secrets are
// their names): whoever login_hint names is logged in without being asked, and
// their access tokens have a sid. When a user logs out, the provider tells
// LOGOUT (OpenID Connect Back-Channel Logout 1.0), with the sid for browser
// and without for kiosk.
//
// It says what happened as JSON, one line each, and obeys one word per line of
// its standard input: "rotate" signs with new keys and still publishes the old
// ones, "retire" stops publishing all but the newest. It ends with its input,
// so that no provider outlives the test that started it.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { Provider } from 'oidc-provider';

const [port, jwk, logout] = [Number(process.argv[2]), process.argv[3], process.argv[4]];
const issuer = `http://127.0.0.1:${port}`;
const privileges = {
  reader: ['READ_HEROES'], writer: ['READ_HEROES', 'CREATE_HERO'], browser: ['READ_HEROES'], kiosk: ['READ_HEROES'],
};
const users = (more) => ({
  grant_types: ['authorization_code'], response_types: ['code'], redirect_uris: ['https://shop.example/callback'], ...more,
});

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
    ...['reader', 'writer'].map((name) => client(name, { grant_types: ['client_credentials'] })),
    client('browser', users(logout && { backchannel_logout_uri: logout, backchannel_logout_session_required: true })),
    client('kiosk', users(logout && { backchannel_logout_uri: logout })),
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
    backchannelLogout: { enabled: true },
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
  extraTokenClaims: (ctx, token) => ({
    privileges: privileges[token.clientId],
    sid: ctx.oidc.session?.sidFor(token.clientId) ?? ctx.oidc.entities.AuthorizationCode?.sid,
  }),
  // Its own way refuses to call loopback addresses.
  fetch: (url, { dispatcher, ...options }) => globalThis.fetch(url, options),
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  loadExistingGrant: async (ctx) => {
    const grant = new ctx.oidc.provider.Grant({ clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId });
    grant.addOIDCScope('openid');
    grant.addResourceScope('urn:heroes:ES256', 'heroes');
    await grant.save();
    return grant;
  },
});

const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

let keys = newKeys();
let current;
let handle;
const publish = () => {
  current = provider(keys);
  current.on('backchannel.success', (ctx, { clientId }) => say({ told: clientId }));
  current.on('backchannel.error', (ctx, error, { clientId }) => say({ untold: clientId, error: `${error}` }));
  handle = current.callback();
};
publish();
const server = createServer(async (request, response) => {
  if (!request.url.startsWith('/interaction/')) {
    handle(request, response);
    return;
  }
  const { params } = await current.interactionDetails(request, response);
  await current.interactionFinished(request, response, { login: { accountId: params.login_hint } });
});
server.listen(port, '127.0.0.1', () => say({ ready: issuer }));

createInterface({ input: process.stdin })
  .on('line', (word) => {
    switch (word) {
      case 'rotate': keys = [...newKeys(), ...keys]; break;
      case 'retire': keys = keys.slice(0, 2); break;
      default: say({ error: `no such word: ${word}` }); return;
    }
    publish();
    say({ published: keys.map((key) => key.kid) });
  })
  .on('close', () => process.exit(0));
