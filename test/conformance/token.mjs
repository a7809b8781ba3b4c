// The suite has no option for a token, and anything between it and Frontdesk would be tested too (a plain reverse proxy breaks off
// one of its streams in a hundred). So the token is added inside of it: to fetch, and to undici and node:http, with which it sends odd headers.
import http from 'node:http';
import { createRequire } from 'node:module';

const bearer = `Bearer ${process.env.SUITE_TOKEN}`;
const plain = globalThis.fetch;
globalThis.fetch = (url, init = {}) => {
  const headers = new Headers(init.headers);
  headers.set('authorization', bearer);
  return plain(url, { ...init, headers });
};

const { getGlobalDispatcher, setGlobalDispatcher } = createRequire(new URL('../tools/package.json', import.meta.url))('undici');
const add = headers => {
  if (Array.isArray(headers)) return headers.some(h => String(h).toLowerCase() === 'authorization') ? headers : [...headers, 'authorization', bearer];
  return Object.keys(headers ?? {}).some(h => h.toLowerCase() === 'authorization') ? headers : { ...headers, authorization: bearer };
};
setGlobalDispatcher(getGlobalDispatcher().compose(dispatch => (options, handler) => dispatch({ ...options, headers: add(options.headers) }, handler)));

const addRequest = http.Agent.prototype.addRequest;
http.Agent.prototype.addRequest = function (request, ...rest) {
  if (!request.headersSent && !request.hasHeader('authorization')) request.setHeader('authorization', bearer);
  return addRequest.call(this, request, ...rest);
};
