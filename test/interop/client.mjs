// The official TypeScript clients, as somebody would use them: sign in where that is asked, call a tool, and do what the SDK offers
// when a connection is missing. What a person would see is told on stdout, a JSON object a line; a line on stdin says "try again".
//
//   node client.mjs <sdk: 1 or 2> <era: legacy, modern or auto> <can show links: yes or no> <endpoint> <tool>
import { createServer } from 'node:http';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [sdk, era, shows, endpoint, tool] = process.argv.slice(2);
const require = createRequire(new URL('../tools/package.json', import.meta.url));
const load = name => import(pathToFileURL(require.resolve(name)));
const say = what => process.stdout.write(JSON.stringify(what) + '\n');

let mcp, completeSchema, elicitSchema;
if (sdk === '1') {
  mcp = { ...(await load('@modelcontextprotocol/sdk/client/index.js')), ...(await load('@modelcontextprotocol/sdk/client/streamableHttp.js')), ...(await load('@modelcontextprotocol/sdk/client/auth.js')) };
  const types = await load('@modelcontextprotocol/sdk/types.js');
  completeSchema = types.ElicitationCompleteNotificationSchema;
  elicitSchema = types.ElicitRequestSchema;
} else {
  mcp = await load('@modelcontextprotocol/client');
  completeSchema = 'notifications/elicitation/complete';
  elicitSchema = 'elicitation/create';
}

// The loopback redirect (RFC 8252).
let cameBack;
const back = new Promise(resolve => { cameBack = resolve; });
const server = createServer((req, res) => {
  const url = new URL(req.url, 'http://127.0.0.1');
  res.setHeader('content-type', 'text/html');
  res.end('<!doctype html><title>Signed in</title><p>You can close this window.');
  if (url.pathname === '/callback') cameBack(url.searchParams);
}).listen(0, '127.0.0.1');
await once(server, 'listening');
const redirectUrl = `http://127.0.0.1:${server.address().port}/callback`;

const kept = {};
const authProvider = {
  redirectUrl,
  clientMetadata: { client_name: `TypeScript ${sdk} ${era} ${shows}`, redirect_uris: [redirectUrl], grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'], token_endpoint_auth_method: 'none' },
  clientInformation: () => kept.client,
  saveClientInformation: c => { kept.client = c; },
  tokens: () => kept.tokens,
  saveTokens: t => { kept.tokens = t; },
  redirectToAuthorization: url => say({ open: url.href }),
  saveCodeVerifier: v => { kept.verifier = v; },
  codeVerifier: () => kept.verifier,
  discoveryState: () => kept.discovery,
  saveDiscoveryState: d => { kept.discovery = d; },
};

// The stream on which a legacy server says that a person has answered.
let streams;
const listening = new Promise(resolve => { streams = resolve; });
const watchedFetch = async (url, init) => {
  const res = await fetch(url, init);
  if ((init?.method ?? 'GET') === 'GET' && res.ok && res.headers.get('content-type')?.startsWith('text/event-stream')) streams();
  return res;
};

let completed;
const complete = new Promise(resolve => { completed = resolve; });

async function connect() {
  const client = new mcp.Client({ name: 'interop', version: '1' }, {
    capabilities: shows === 'yes' ? { elicitation: { url: {} } } : {},
    ...(sdk === '2' && era !== 'legacy' ? { versionNegotiation: { mode: era === 'modern' ? { pin: '2026-07-28' } : 'auto' } } : {}),
  });
  if (shows === 'yes') {
    client.setRequestHandler(elicitSchema, async request => {
      say({ elicit: request.params.url });
      return { action: 'accept' };
    });
    client.setNotificationHandler(completeSchema, n => completed(n.params.elicitationId));
  }
  await client.connect(new mcp.StreamableHTTPClientTransport(new URL(endpoint), { authProvider, fetch: watchedFetch }));
  return client;
}

async function signIn() {
  try {
    return await connect();
  } catch (e) {
    if (!(e instanceof mcp.UnauthorizedError)) throw e;
  }
  const params = await back;
  if (params.has('error')) throw new Error(`${params.get('error')}: ${params.get('error_description')}`);
  const transport = new mcp.StreamableHTTPClientTransport(new URL(endpoint), { authProvider });
  await transport.finishAuth(sdk === '1' ? params.get('code') : params);
  return connect();
}

const again = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
try {
  const client = await signIn();
  say({ tools: (await client.listTools()).tools.map(t => t.name) });
  if (shows === 'yes' && (sdk === '1' || era === 'legacy')) await listening;
  for (;;) {
    try {
      const r = await client.callTool({ name: tool, arguments: {} });
      say({ text: r.content.map(c => c.text).join('\n'), isError: r.isError === true });
      if (r.isError !== true) break;
      if ((await again.next()).done) break;
    } catch (e) {
      if (e.code !== -32042) throw e;
      const [asked] = e.data?.elicitations ?? e.elicitations;
      say({ elicit: asked.url, code: e.code });
      say({ completed: (await complete) === asked.elicitationId });
    }
  }
  await client.close();
} catch (e) {
  say({ failed: String(e.stack ?? e) });
}
process.exit(0);
