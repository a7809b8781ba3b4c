// The stricter upstream: oidc-provider with PKCE, PAR, resource indicators (RFC 8707), `iss` (RFC 9207), rotation that
// ends a grant on reuse, and revocation; with a form login that needs no JavaScript and a small API of its own.
// It takes one argument, its settings as JSON, prints one line of JSON when it answers, and ends on SIGTERM.
import { createHash, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { calculateJwkThumbprint, EmbeddedJWK, jwtVerify } from 'jose';
import { errors, Provider } from 'oidc-provider';

const settings = {
  clientId: 'frontdesk',
  clientSecret: 'frontdesk-client-secret',
  redirectURIs: ['http://127.0.0.1:1/callback'],
  users: ['stern-alice', 'stern-bob'],
  password: 'let-me-in',
  accessSeconds: 300,
  refreshSeconds: 12 * 3600,
  requirePAR: false,
  bound: false,
  ...JSON.parse(process.argv[2] ?? '{}'),
};
const scopes = { 'issues:read': 'Read your issues', 'issues:write': 'Create and delete your issues' };

const deviceGrant = 'urn:ietf:params:oauth:grant-type:device_code';

const listen = (server) => new Promise((done) => {
  server.listen(settings.port ?? 0, '127.0.0.1', () => done(`http://127.0.0.1:${server.address().port}`));
});
const front = createServer();
const issuer = await listen(front);
const api = `${issuer}/api`;

// It fetches no jwks_uri from this machine (its own guard), so the keys are taken once.
const keys = settings.jwksURI && await (await fetch(settings.jwksURI)).json();

console.warn = () => {}; // it would say that memory and made-up keys are for development only
const provider = new Provider(issuer, {
  clients: [{
    client_id: settings.clientId,
    client_secret: settings.clientSecret,
    client_name: 'Frontdesk',
    redirect_uris: settings.redirectURIs,
    grant_types: ['authorization_code', 'refresh_token', deviceGrant],
    response_types: ['code'],
    require_pushed_authorization_requests: settings.requirePAR,
    dpop_bound_access_tokens: settings.bound,
    ...(settings.jwksURI
      ? { token_endpoint_auth_method: 'private_key_jwt', token_endpoint_auth_signing_alg: 'ES256', jwks: keys, client_secret: undefined }
      : { token_endpoint_auth_method: 'client_secret_basic' }),
  }],
  scopes: ['openid', 'offline_access'],
  responseTypes: ['code'],
  clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'private_key_jwt', 'none'],
  pkce: { required: () => true },
  rotateRefreshToken: true,
  issueRefreshToken: (_ctx, client, source) => client.grantTypeAllowed('refresh_token') && source.scopes.has('offline_access'),
  ttl: {
    AccessToken: settings.accessSeconds, RefreshToken: settings.refreshSeconds, Grant: settings.refreshSeconds,
    AuthorizationCode: 60, IdToken: settings.accessSeconds, Interaction: 600, Session: 3600, PushedAuthorizationRequest: 60,
  },
  cookies: { keys: [crypto.randomUUID()], names: { session: `stern_${new URL(issuer).port}`, interaction: `stern_i_${new URL(issuer).port}`, resume: `stern_r_${new URL(issuer).port}` } },
  interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
  findAccount: (_ctx, id) => (settings.users.includes(id) ? { accountId: id, claims: async () => ({ sub: id }) } : undefined),
  features: {
    devInteractions: { enabled: false },
    pushedAuthorizationRequests: { enabled: true },
    registration: { enabled: true },
    deviceFlow: {
      enabled: true,
      userCodeInputSource: (ctx, form, _out, err) => {
        const wrong = err ? '<p role="alert">That code does not work, or you said no.</p>' : '';
        ctx.body = html('Enter the code', wrong + form.replace('<input\n', '<label for="user_code">Code</label><input id="user_code"\n').replace('</form>', '<button>Continue</button></form>'));
      },
      userCodeConfirmSource: (ctx, form, client, _info, code) => {
        ctx.body = html('Is this your code?', `<p>${escape(client.clientName)} shows it: <strong>${escape(code)}</strong></p>`
          + form.replace('</form>', '<button>It is mine</button></form>') + form.replace('</form>', '<button name="abort" value="yes">It is not mine</button></form>'));
      },
      successSource: (ctx) => { ctx.body = html('Done', '<p>Go back to your device.</p>'); },
    },
    revocation: { enabled: true },
    // Proofs carry nonces that its token endpoint, and another one that its API gave out (RFC 9449 sections 8 and 9).
    dPoP: { enabled: settings.bound, nonceSecret: randomBytes(32), requireNonce: () => true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => api,
      useGrantedResource: () => true,
      getResourceServerInfo: (_ctx, resource) => {
        if (resource !== api) throw new errors.InvalidTarget();
        return { scope: Object.keys(scopes).join(' '), audience: api, accessTokenFormat: 'opaque', accessTokenTTL: settings.accessSeconds };
      },
    },
  },
});

// What was issued and redeemed, for the tests.
const tokens = [];
const redemptions = [];
const calls = [];
for (const [event, kind] of [['access_token', 'access'], ['refresh_token', 'refresh'], ['authorization_code', 'code']]) {
  provider.on(`${event}.saved`, (t) => {
    if (!tokens.some((known) => known.value === t.jti)) tokens.push({ kind, user: t.accountId, value: t.jti });
  });
}
const redeemed = (ctx, outcome) => {
  if (ctx.oidc.params?.grant_type !== 'refresh_token') return;
  const token = ctx.oidc.params.refresh_token;
  redemptions.push({ token, user: tokens.find((t) => t.value === token)?.user ?? '', at: new Date().toISOString(), outcome });
};
provider.on('grant.success', (ctx) => redeemed(ctx, 'renewed'));
provider.on('grant.error', (ctx, err) => {
  if (err.error === 'use_dpop_nonce') return; // nothing was redeemed
  const known = tokens.some((t) => t.value === ctx.oidc.params?.refresh_token);
  redeemed(ctx, err.error_detail === 'refresh token already used' ? 'reused' : known ? 'ended' : 'unknown');
});

const escape = (s) => String(s).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
const html = (title, body) => `<!doctype html><html lang="en"><meta charset="utf-8"><title>${escape(title)} · Stern</title><main><h1>${escape(title)}</h1>${body}</main></html>`;
const page = (res, status, title, body) => {
  res.writeHead(status, {
    'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store', 'referrer-policy': 'no-referrer',
    'content-security-policy': "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
  });
  res.end(`<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(title)} · Stern</title>
<style>body{font:1rem/1.5 system-ui,sans-serif;max-width:26rem;margin:3rem auto;padding:0 1rem}label,button{display:block;margin-top:1rem}input,button{font:inherit;min-height:2.75rem;padding:.25rem .75rem}</style>
<main><h1>${escape(title)}</h1>${body}</main></html>`);
};
const json = (res, status, value, headers = {}) => {
  res.writeHead(status, { 'content-type': 'application/json', ...headers });
  res.end(JSON.stringify(value));
};
const read = async (req) => {
  const chunks = [];
  for await (const c of req) chunks.push(c);
  return new URLSearchParams(Buffer.concat(chunks).toString());
};

const loginPage = (res, status, uid, wrong = '') => page(res, status, 'Sign in to Stern', `${wrong && `<p role="alert">${wrong}</p>`}
<form method="post" action="/interaction/${uid}">
<label for="username">User name</label><input id="username" name="username" autocomplete="username" required>
<label for="password">Password</label><input id="password" name="password" type="password" autocomplete="current-password" required>
<button>Sign in</button></form>`);

const consentPage = (res, details, client) => {
  const asked = Object.values(details.prompt.details.missingResourceScopes ?? {}).flat();
  const words = asked.map((s) => `<li>${escape(scopes[s] ?? s)}</li>`).join('');
  page(res, 200, `Let ${client.clientName} use your Stern account?`, `<p>You are signed in as <strong>${escape(details.session.accountId)}</strong>.</p>
<ul>${words}</ul><form method="post" action="/interaction/${details.uid}">
<button name="decision" value="allow">Authorize</button><button name="decision" value="deny">Cancel</button></form>`);
};

// grantOf writes down what the user allowed: everything that was asked.
const grantOf = async (details) => {
  const known = details.grantId && await provider.Grant.find(details.grantId);
  const grant = known || new provider.Grant({ accountId: details.session.accountId, clientId: details.params.client_id });
  const { missingOIDCScope, missingResourceScopes } = details.prompt.details;
  if (missingOIDCScope) grant.addOIDCScope(missingOIDCScope.join(' '));
  for (const [resource, list] of Object.entries(missingResourceScopes ?? {})) grant.addResourceScope(resource, list.join(' '));
  return grant.save();
};

const interaction = async (req, res) => {
  const details = await provider.interactionDetails(req, res);
  if (req.method !== 'POST') {
    if (details.prompt.name === 'login') return loginPage(res, 200, details.uid);
    return consentPage(res, details, await provider.Client.find(details.params.client_id));
  }
  const form = await read(req);
  if (details.prompt.name === 'login') {
    const name = form.get('username');
    if (!settings.users.includes(name) || form.get('password') !== settings.password) {
      return loginPage(res, 401, details.uid, 'That user name and password do not belong together.');
    }
    return provider.interactionFinished(req, res, { login: { accountId: name } });
  }
  if (form.get('decision') !== 'allow') {
    return provider.interactionFinished(req, res, { error: 'access_denied', error_description: 'the user said no' });
  }
  return provider.interactionFinished(req, res, { consent: { grantId: await grantOf(details) } }, { mergeWithLastSubmission: true });
};

// proofOf checks the proof of a bound token (RFC 9449 section 4.3), and returns what is wrong with it. The API's nonce is good for three.
const proofs = new Set();
let nonce = randomBytes(8).toString('hex');
let left = 3;
const proofOf = async (req, scheme, value, jkt) => {
  if (scheme.toLowerCase() !== 'dpop') return 'invalid_token';
  try {
    if (req.headersDistinct.dpop?.length !== 1) return 'invalid_dpop_proof';
    const { protectedHeader: head, payload } = await jwtVerify(req.headers.dpop, EmbeddedJWK, { typ: 'dpop+jwt', algorithms: ['ES256'] });
    const ath = createHash('sha256').update(value).digest('base64url');
    const fits = payload.htm === req.method && payload.htu === issuer + new URL(req.url, issuer).pathname && payload.ath === ath
      && Math.abs(Date.now() / 1000 - payload.iat) < 60 && payload.jti && !proofs.has(payload.jti) && await calculateJwkThumbprint(head.jwk) === jkt;
    if (!fits) return 'invalid_dpop_proof';
    if (payload.nonce !== nonce) return 'use_dpop_nonce';
    proofs.add(payload.jti);
    left -= 1;
    if (left === 0) [nonce, left] = [randomBytes(8).toString('hex'), 3];
    return '';
  } catch {
    return 'invalid_dpop_proof';
  }
};

// apiCall serves GET /api/user and GET /api/issues to a token that was issued for this API.
const apiCall = async (req, res, path) => {
  const [, scheme, value] = /^(Bearer|DPoP) (.+)$/i.exec(req.headers.authorization ?? '') ?? [];
  const token = value && await provider.AccessToken.find(value);
  const wrong = token?.jkt && await proofOf(req, scheme, value, token.jkt);
  const good = token?.isValid && [token.aud].flat().includes(api) && !wrong;
  const call = { method: req.method, path, user: good ? token.accountId : '', status: 200, wrong: wrong || '' };
  calls.push(call);
  if (wrong) {
    call.status = 401;
    return json(res, 401, { message: wrong }, { 'www-authenticate': `DPoP error="${wrong}", algs="ES256"`, ...(wrong === 'use_dpop_nonce' && { 'dpop-nonce': nonce }) });
  }
  if (!good) {
    call.status = 401;
    return json(res, 401, { message: 'bad credentials' }, { 'www-authenticate': `Bearer realm="stern"${value ? ', error="invalid_token"' : ''}` });
  }
  if (path === '/api/user') return json(res, 200, { id: token.accountId, login: token.accountId, scopes: [...token.scopes] });
  if (path === '/api/issues' && token.scopes.has('issues:read')) return json(res, 200, [{ number: 1, title: 'Too strict', author: token.accountId }]);
  call.status = path === '/api/issues' ? 403 : 404;
  return json(res, call.status, { message: 'not for this token, or not here' });
};

const callback = provider.callback();
front.on('request', async (req, res) => {
  const { pathname } = new URL(req.url, issuer);
  try {
    if (pathname.startsWith('/interaction/')) await interaction(req, res);
    else if (pathname.startsWith('/api/')) await apiCall(req, res, pathname);
    else await callback(req, res);
  } catch (err) {
    if (!res.headersSent) page(res, err.statusCode ?? 500, 'That did not work', `<p role="alert">${escape(err.error_description ?? 'This sign-in is not known here: start again where you came from.')}</p>`);
  }
});

// Controls, as every party of the world has them: POST /<command>.
const commands = {
  tokens: () => tokens,
  redemptions: () => redemptions,
  calls: () => calls,
  withdraw: async (args) => {
    const user = args.get('user');
    const grants = new Set();
    for (const { value } of tokens.filter((t) => t.kind === 'refresh' && t.user === user)) {
      const t = await provider.RefreshToken.find(value, { ignoreExpiration: true });
      if (t) grants.add(t.grantId);
    }
    for (const id of grants) {
      await Promise.all([provider.AccessToken.revokeByGrantId(id), provider.RefreshToken.revokeByGrantId(id)]);
      await (await provider.Grant.find(id))?.destroy();
    }
    return null;
  },
};
const control = createServer(async (req, res) => {
  const run = commands[new URL(req.url, issuer).pathname.slice(1)];
  if (!run || req.method !== 'POST') return json(res, 404, { error: 'no such command' });
  return json(res, 200, await run(await read(req)));
});
settings.port = 0;
const controlURL = await listen(control);
process.on('SIGTERM', () => process.exit(0));
console.log(JSON.stringify({ kind: 'oidc-provider', url: issuer, control: controlURL }));
