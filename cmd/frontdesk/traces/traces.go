// Package traces makes spans of the way of a call, at the interfaces where rooms meet: no room knows of it.
package traces

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"frontdesk.dev/frontdesk/cmd/frontdesk/config"
	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/exchange"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/vault"
)

// Tracer makes spans of the path: around the faces' listeners, and around the broker and what it calls, at the interfaces
// where they meet. So no room knows of it, and where traces are off nothing of it is there: a nil Tracer wraps nothing.
//
// A span says kind, server, upstream, result; never a person, an argument, a path, a query or a header.
type Tracer struct {
	trace.Tracer
	provider *sdk.TracerProvider
	w3c      propagation.TraceContext

	mu   sync.Mutex
	open map[audit.CallID]trace.SpanContext // guarded by mu: spans of acts that run, for API requests of servers that pass nothing on
}

const tracesPath = "/v1/traces"

// New exports over OTLP/HTTP to the endpoint that the config names, or is nil where it names none.
func New(ctx context.Context, cfg *config.Config, client *http.Client, version string, log *slog.Logger) (*Tracer, error) {
	u := cfg.Telemetry.Traces
	if u == nil {
		return nil, nil
	}
	to := *u.URL
	if to.Path == "" || to.Path == "/" {
		to.Path = tracesPath
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(to.String()), otlptracehttp.WithHTTPClient(client))
	if err != nil {
		return nil, fmt.Errorf("telemetry.traces: %w", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("traces could not be exported", "error", err) }))
	share := 1.0
	if cfg.Telemetry.Sample != nil {
		share = float64(*cfg.Telemetry.Sample)
	}
	p := sdk.NewTracerProvider(sdk.WithBatcher(exporter), sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(share))),
		sdk.WithResource(resource.NewSchemaless(attribute.String("service.name", "frontdesk"), attribute.String("service.version", version))))
	return &Tracer{Tracer: p.Tracer("frontdesk"), provider: p, open: map[audit.CallID]trace.SpanContext{}}, nil
}

// Stop exports what is left.
func (t *Tracer) Stop(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// Handler begins a trace, or goes on with the caller's (W3C Trace Context).
func (t *Tracer) Handler(next http.Handler) http.Handler {
	if t == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "/mcp/") { // pages carry codes in their addresses, and no trace
			next.ServeHTTP(w, r)
			return
		}
		ctx := t.w3c.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		ctx, span := t.Start(ctx, "mcp", trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(attribute.String("http.request.method", method(r.Method))))
		defer span.End()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// Extract reads the trace that a server's API request carries.
func (t *Tracer) Extract() func(*http.Request) context.Context {
	if t == nil {
		return nil
	}
	return func(r *http.Request) context.Context {
		return t.w3c.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	}
}

// Inject writes the trace that a context carries into headers, toward another process of ours.
func (t *Tracer) Inject() func(context.Context, http.Header) {
	if t == nil {
		return nil
	}
	return func(ctx context.Context, h http.Header) { t.w3c.Inject(ctx, propagation.HeaderCarrier(h)) }
}

// Continues goes on with the trace of another process of ours.
func (t *Tracer) Continues(next http.Handler) http.Handler {
	if t == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(t.w3c.Extract(r.Context(), propagation.HeaderCarrier(r.Header))))
	})
}

// method is one of the few that exist: a span's attribute is not a stranger's to write.
func method(m string) string {
	switch m {
	case http.MethodGet, http.MethodPost, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "_OTHER"
}

// Door wraps the broker.
func (t *Tracer) Door(d broker.Door) broker.Door {
	if t == nil {
		return d
	}
	return tracedDoor{d, t}
}

type tracedDoor struct {
	broker.Door
	t *Tracer
}

func (d tracedDoor) Open(ctx context.Context, c *identity.Caller, a broker.Act) (broker.Lease, error) {
	attrs := []attribute.KeyValue{attribute.String("frontdesk.kind", string(a.Kind)), attribute.String("frontdesk.server", string(a.Server.Name))}
	if a.Kind == broker.KindAPI {
		attrs = append(attrs, attribute.String("frontdesk.upstream", string(a.Upstream.Name)))
		// The keycard says where this belongs. What the server says of it counts only within the same trace.
		if call := d.t.of(a.Holding.Call); call.IsValid() && call.TraceID() != trace.SpanContextFromContext(ctx).TraceID() {
			ctx = trace.ContextWithRemoteSpanContext(ctx, call)
		}
	}
	ctx, span := d.t.Start(ctx, "act "+string(a.Kind), trace.WithAttributes(attrs...))
	opening, child := d.t.Start(ctx, "decide, record, obtain")
	l, err := d.Door.Open(opening, c, a)
	child.End()
	if err != nil {
		if _, asks := errors.AsType[*catalog.Needed](err); asks {
			span.SetAttributes(attribute.String("frontdesk.result", string(audit.ResultNeeds)))
		} else {
			span.SetStatus(codes.Error, "refused, or it could not be done")
		}
		span.End()
		return nil, err
	}
	id := l.State().Call
	d.t.begin(id, span.SpanContext())
	return &tracedLease{l, d.t, span, id}, nil
}

type tracedLease struct {
	broker.Lease
	t    *Tracer
	span trace.Span
	id   audit.CallID
}

func (l *tracedLease) Do(r *http.Request) (*http.Response, error) {
	ctx, span := l.t.Start(trace.ContextWithSpan(r.Context(), l.span), "send", trace.WithSpanKind(trace.SpanKindClient))
	defer span.End()
	r = r.WithContext(ctx)
	l.t.w3c.Inject(ctx, propagation.HeaderCarrier(r.Header))
	resp, err := l.Lease.Do(r)
	if err != nil {
		span.SetStatus(codes.Error, "no answer")
		return nil, err
	}
	span.SetAttributes(attribute.Int("http.response.status_code", resp.StatusCode))
	return resp, nil
}

func (l *tracedLease) Close(ctx context.Context, o broker.Outcome) {
	l.t.end(l.id)
	l.span.SetAttributes(attribute.String("frontdesk.result", string(o.Result)))
	if o.Result == audit.ResultFailed || o.Result == audit.ResultUnknown {
		l.span.SetStatus(codes.Error, string(o.Result))
	}
	l.span.End()
	l.Lease.Close(ctx, o)
}

func (t *Tracer) begin(id audit.CallID, s trace.SpanContext) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open[id] = s
}

func (t *Tracer) end(id audit.CallID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, id)
}

func (t *Tracer) of(id audit.CallID) trace.SpanContext {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open[id]
}

// Log wraps the audit log as the broker sees it.
func (t *Tracer) Log(l broker.Log) broker.Log {
	if t == nil {
		return l
	}
	return tracedLog{l, t}
}

type tracedLog struct {
	broker.Log
	t *Tracer
}

func (l tracedLog) Begin(ctx context.Context, r audit.Record) (audit.CallID, error) {
	ctx, span := l.t.Start(ctx, "audit: intent durable")
	defer span.End()
	return l.Log.Begin(ctx, r)
}

// Credentials wraps what obtains.
func (t *Tracer) Credentials(c broker.Credentials) broker.Credentials {
	if t == nil {
		return c
	}
	return tracedCredentials{c, t}
}

type tracedCredentials struct {
	broker.Credentials
	t *Tracer
}

func (c tracedCredentials) Obtain(ctx context.Context, who *identity.Caller, up *catalog.Upstream, scopes []string, of vault.ConnectionID) (*exchange.Credential, error) {
	ctx, span := c.t.Start(ctx, "exchange: obtain", trace.WithAttributes(attribute.String("frontdesk.upstream", string(up.Name))))
	defer span.End()
	got, err := c.Credentials.Obtain(ctx, who, up, scopes, of)
	if err != nil {
		span.SetStatus(codes.Error, "not obtained")
		return nil, err
	}
	span.SetAttributes(attribute.String("frontdesk.method", string(got.Method)))
	return got, nil
}
