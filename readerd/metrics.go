package readerd

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics are what Prometheus asks for. None of them says whose card it was. A nil
// *Metrics counts nothing.
type Metrics struct {
	registry *prometheus.Registry
	taps     *prometheus.CounterVec
	seconds  prometheus.Histogram
	events   *prometheus.CounterVec
}

// NewMetrics returns metrics that have counted nothing.
func NewMetrics() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		taps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "freearea_taps_total", Help: "Cards presented, by service, outcome and reason.",
		}, []string{"service", "outcome", "reason"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "freearea_tap_duration_seconds", Help: "Time from the first command to the ID.",
			Buckets: []float64{.01, .02, .05, .1, .2, .3, .5, 1, 2},
		}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "freearea_output_events_total", Help: "Events by output and what became of them: told, failed, lost; delivered where an output confirms.",
		}, []string{"output", "result"}),
	}
	m.registry.MustRegister(m.taps, m.seconds, m.events,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Handler answers Prometheus.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

func (m *Metrics) tap(e Event) {
	if m == nil {
		return
	}
	m.taps.WithLabelValues(e.service(), string(e.Outcome), e.Reason).Inc()
	if e.Tap != nil {
		m.seconds.Observe(e.Tap.Duration.Seconds())
	}
}

func (m *Metrics) told(output string, err error) {
	if m == nil {
		return
	}
	result := "told"
	if err != nil {
		result = "failed"
	}
	m.events.WithLabelValues(output, result).Inc()
}

func (m *Metrics) lost(output string) {
	if m != nil {
		m.events.WithLabelValues(output, "lost").Inc()
	}
}

// delivered counts an event that had been told to the output's queue before.
func (m *Metrics) delivered(output string) {
	if m != nil {
		m.events.WithLabelValues(output, "delivered").Inc()
	}
}
