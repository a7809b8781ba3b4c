package main

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/broker/remote"
	"frontdesk.dev/frontdesk/internal/vault"
)

// metrics are what Prometheus reads. No label holds a person, a client, a tool or a path: their number is not ours to bound,
// and who did what stands in the audit log. Handles are made once, so that a call pays for no look-up of labels.
type metrics struct {
	registry  *prometheus.Registry
	acts      map[act]prometheus.Counter
	seconds   map[broker.Kind]prometheus.Observer
	refreshes map[audit.Result]prometheus.Counter
	commit    prometheus.Observer
	reloads   *prometheus.CounterVec
	loaded    prometheus.Gauge
	leaks     *prometheus.CounterVec
	refused   *prometheus.CounterVec
	wouldDeny *prometheus.CounterVec
	releases  *prometheus.CounterVec
}

type act struct {
	kind   broker.Kind
	result audit.Result
}

var (
	kinds   = []broker.Kind{broker.KindCall, broker.KindSession, broker.KindStream, broker.KindAPI, broker.KindCatalogue}
	results = []audit.Result{audit.ResultOK, audit.ResultDenied, audit.ResultNeeds, audit.ResultFailed, audit.ResultUnknown}
)

// buckets from what policy and audit alone take, to the longest call.
var buckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

func newMetrics() *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), acts: map[act]prometheus.Counter{}, seconds: map[broker.Kind]prometheus.Observer{}, refreshes: map[audit.Result]prometheus.Counter{}}
	acts := counters("frontdesk_acts_total",
		"Acts that passed the broker, by kind (call, session, stream, api, catalogue) and result (ok, denied, needs, failed, unknown).", "kind", "result")
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "frontdesk_act_duration_seconds",
		Help: "From the decision to the outcome of an act, the other side's time included.", Buckets: buckets}, []string{"kind"})
	refreshes := counters("frontdesk_refreshes_total",
		"Renewals of stored credentials at vendors and IdPs, by result.", "result")
	commit := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "frontdesk_audit_commit_seconds", Help: "How long an intent waits until it is durable.", Buckets: buckets[:12]})
	m.reloads = counters("frontdesk_reloads_total",
		"Reloads of the config, by whether it was applied or refused.", "result")
	m.loaded = prometheus.NewGauge(prometheus.GaugeOpts{Name: "frontdesk_config_loaded_timestamp_seconds", Help: "When the config that runs was applied."})
	m.refused = counters("frontdesk_egress_refused_total",
		"Requests that egress answered itself, by the error of the answer; handshake: connections that ended before a request.", "error")
	m.leaks = counters("frontdesk_leaks_total",
		"Places in answers where the credential of the request stood and was taken out, by upstream of the config.", "upstream")
	m.wouldDeny = counters("frontdesk_would_deny_total",
		"Acts at a server with observe: true that policy would have refused, by server of the config.", "server")
	m.releases = counters("frontdesk_releases_total",
		"Credentials that gateways asked this broker for, by what domains.releases said: released, or the bound that refused (person, all).", "said")
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "frontdesk_build_info", Help: "1, with the version as a label."}, []string{"version"})
	info.WithLabelValues(version).Set(1)
	m.registry.MustRegister(acts, seconds, refreshes, commit, m.reloads, m.loaded, m.leaks, m.refused, m.wouldDeny, m.releases, info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, k := range kinds {
		for _, r := range results {
			m.acts[act{k, r}] = acts.WithLabelValues(string(k), string(r))
		}
		m.seconds[k] = seconds.WithLabelValues(string(k))
	}
	for _, r := range results {
		m.refreshes[r] = refreshes.WithLabelValues(string(r))
	}
	for _, r := range []string{"applied", "refused"} {
		m.reloads.WithLabelValues(r)
	}
	m.commit = commit
	return m
}

// observe counts an act that ended.
func (m *metrics) observe(k broker.Kind, r audit.Result, took time.Duration) {
	if c, ok := m.acts[act{k, r}]; ok {
		c.Inc()
	}
	if h, ok := m.seconds[k]; ok {
		h.Observe(took.Seconds())
	}
}

// refusedAtEgress counts what egress answered itself. The codes are egress's own words.
func (m *metrics) refusedAtEgress(code string) { m.refused.WithLabelValues(code).Inc() }

// release counts what gateways ask for.
func (m *metrics) release(said remote.Release) { m.releases.WithLabelValues(string(said)).Inc() }

// leaked counts places where an upstream said a credential back. The vendor's own MCP server has no upstream's name here.
func (m *metrics) leaked(r audit.Record, hits int) {
	m.leaks.WithLabelValues(cmp.Or(r.Upstream, r.Server)).Add(float64(hits))
}

// gauges are read when somebody asks.
func (m *metrics) gauges(d *desk) {
	gauge := func(name, help string, read func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read))
	}
	if d.waist != nil {
		gauge("frontdesk_audit_queue", "Outcomes that are not durable yet. It grows while the database is away.", func() float64 { return float64(d.audit.Queued()) })
		gauge("frontdesk_checkpoint_places_failing", "Places outside of the database that do not take checkpoints of the audit log now.", func() float64 { _, trouble := d.checkpoints.Stands(); return float64(len(trouble)) })
		if d.service != nil {
			gauge("frontdesk_key_service_up", "1 while the service that wraps the keys answers, as far as it was asked lately, and says yes.", func() float64 {
				if _, err := d.service.Standing(); err != nil {
					return 0
				}
				return 1
			})
		}
		waiting := &slowly{every: time.Minute, now: d.now, read: d.needReconnect}
		gauge("frontdesk_connections_need_reconnect", "Connections that only their users can mend. Read once a minute.", waiting.value)
		m.registry.MustRegister(down{d, prometheus.NewDesc("frontdesk_upstream_down", "Hosts of the upstream to which nothing is sent at the moment, because they fail.", []string{"upstream"}, nil)})
	}
	if d.faces != nil {
		gauge("frontdesk_open_streams", "Open streams of legacy clients (GET).", func() float64 { return float64(d.gateway.Streams()) })
	}
	if d.pins != nil {
		gauge("frontdesk_pairing_expires_timestamp_seconds", "When the first of the certificates between gateway and broker ends that this process has.", func() float64 {
			var first time.Time
			for _, e := range d.pins.Expiries() {
				if first.IsZero() || e.Ends.Before(first) {
					first = e.Ends
				}
			}
			return float64(first.Unix())
		})
	}
	gauge("frontdesk_database_up", "1 while the database answers.", func() float64 {
		ctx, cancel := context.WithTimeout(context.Background(), pingTimeout)
		defer cancel()
		if d.db.Ping(ctx) != nil {
			return 0
		}
		return 1
	})
}

// down is a prometheus.Collector of the upstreams of the config.
type down struct {
	d    *desk
	desc *prometheus.Desc
}

func (c down) Describe(to chan<- *prometheus.Desc) { to <- c.desc }

func (c down) Collect(to chan<- prometheus.Metric) {
	hosts := map[string]int{}
	for _, ups := range c.d.catalog.Snapshot().Upstreams {
		for name := range ups {
			hosts[string(name)] = 0
		}
	}
	for _, down := range c.d.traffic.Circuits.Down() {
		hosts[string(down.Upstream)]++
	}
	for name, n := range hosts {
		to <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(n), name)
	}
}

// needReconnect counts connections that wait for their users; below zero where the database does not say.
func (d *desk) needReconnect() float64 {
	ctx, cancel := context.WithTimeout(context.Background(), pingTimeout)
	defer cancel()
	n, err := d.db.CountConnections(ctx, vault.NeedsReconnect)
	if err != nil {
		return -1
	}
	return float64(n)
}

// slowly keeps a number that is dear to read.
type slowly struct {
	every time.Duration
	now   func() time.Time
	read  func() float64

	mu   sync.Mutex
	last float64   // guarded by mu
	at   time.Time // guarded by mu
}

func (s *slowly) value() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.now(); now.Sub(s.at) >= s.every {
		s.last, s.at = s.read(), now
	}
	return s.last
}

// countedLog is the log as the refresher sees it: what comes of a renewal is counted.
type countedLog struct {
	*audit.Log
	m *metrics
}

func (l countedLog) End(ctx context.Context, id audit.CallID, r audit.Record) {
	if c, ok := l.m.refreshes[r.Result]; ok {
		c.Inc()
	}
	l.Log.End(ctx, id, r)
}

// timedLog is the log as the broker sees it: how long an intent takes to be durable is what every call waits for.
type timedLog struct {
	*audit.Log
	m   *metrics
	now func() time.Time
}

func (l timedLog) Begin(ctx context.Context, r audit.Record) (audit.CallID, error) {
	start := l.now()
	if r.Decision == "would_deny" {
		l.m.wouldDeny.WithLabelValues(r.Server).Inc()
	}
	id, err := l.Log.Begin(ctx, r)
	l.m.commit.Observe(l.now().Sub(start).Seconds())
	return id, err
}
