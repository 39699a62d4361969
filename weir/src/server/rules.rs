//! Alert rules for Prometheus over the metrics of a server, as `weir serve rules` prints them.

/// A rule: its name, its expression, how long it must hold, its severity, what is said.
struct Rule {
    name: &'static str,
    expr: &'static str,
    hold: &'static str,
    severity: &'static str,
    summary: &'static str,
    description: &'static str,
}

const RULES: [Rule; 12] = [
    Rule {
        name: "WeirDown",
        expr: "up{job=~\".*weir.*\"} == 0",
        hold: "5m",
        severity: "critical",
        summary: "a Weir server does not answer",
        description: "Prometheus could not scrape {{ $labels.instance }} for 5 minutes: nothing may run there.",
    },
    Rule {
        name: "WeirNobodyLeads",
        expr: "sum by (job) (weir_leading) == 0",
        hold: "2m",
        severity: "critical",
        summary: "no Weir server leads",
        description: "No server of {{ $labels.job }} cuts time into runs: schedules stand still.",
    },
    Rule {
        name: "WeirStateUnreachable",
        expr: "weir_state_reachable == 0",
        hold: "1m",
        severity: "critical",
        summary: "the state of a Weir server does not answer",
        description: "{{ $labels.instance }} cannot reach its state: no run starts there.",
    },
    Rule {
        name: "WeirRunsFailing",
        expr: "sum by (pipeline) (increase(weir_runs_total{outcome=\"failed\"}[15m])) > 0",
        hold: "0m",
        severity: "warning",
        summary: "runs of a pipeline fail",
        description: "Runs of {{ $labels.pipeline }} failed in the last 15 minutes; weir runs list --pipeline {{ $labels.pipeline }} says why.",
    },
    Rule {
        name: "WeirPipelineFailing",
        expr: "sum by (pipeline) (increase(weir_runs_total{outcome=\"failed\"}[1h])) > 3 \
               unless sum by (pipeline) (increase(weir_runs_total{outcome=\"published\"}[1h])) > 0",
        hold: "5m",
        severity: "critical",
        summary: "a pipeline only fails",
        description: "Every run of {{ $labels.pipeline }} in the last hour failed.",
    },
    Rule {
        name: "WeirBehindSchedule",
        expr: "max by (pipeline) (weir_schedule_lag_seconds) > 3600",
        hold: "5m",
        severity: "warning",
        summary: "a pipeline is behind its schedule",
        description: "The oldest interval of {{ $labels.pipeline }} that is not published was due {{ $value | humanizeDuration }} ago.",
    },
    Rule {
        name: "WeirLate",
        expr: "sum by (pipeline) (increase(weir_late_total[15m])) > 0",
        hold: "0m",
        severity: "warning",
        summary: "a pipeline missed its deadline",
        description: "An interval of {{ $labels.pipeline }} was not published within the deadline of its schedule.",
    },
    Rule {
        name: "WeirRowsRejected",
        expr: "sum by (pipeline) (increase(weir_rows_total{direction=~\"quarantined|dropped\"}[1h])) \
               / (sum by (pipeline) (increase(weir_rows_total{direction=\"read\"}[1h])) > 0) > 0.05",
        hold: "0m",
        severity: "warning",
        summary: "many rows of a pipeline are rejected",
        description: "{{ $value | humanizePercentage }} of the rows that {{ $labels.pipeline }} read in the last hour broke their contract.",
    },
    Rule {
        name: "WeirPipelineBroken",
        expr: "max by (pipeline) (weir_pipeline_broken) > 0",
        hold: "5m",
        severity: "warning",
        summary: "a pipeline's file is wrong",
        description: "The file of {{ $labels.pipeline }} is wrong; its last good version goes on. weir check says where.",
    },
    Rule {
        name: "WeirQueueGrows",
        expr: "sum by (job) (weir_queue_length) > 100 and deriv(sum by (job) (weir_queue_length)[30m:1m]) > 0",
        hold: "15m",
        severity: "warning",
        summary: "more runs wait than can be made",
        description: "{{ $value }} runs of {{ $labels.job }} wait, and they become more: raise [server] runs_max, or add a server.",
    },
    Rule {
        name: "WeirStartsLate",
        expr: "histogram_quantile(0.99, sum by (le) (rate(weir_start_delay_seconds_bucket{origin=\"schedule\"}[15m]))) > 60",
        hold: "15m",
        severity: "warning",
        summary: "scheduled runs start late",
        description: "One scheduled run in a hundred starts {{ $value | humanizeDuration }} after its tick.",
    },
    Rule {
        name: "WeirAlertsNotSent",
        expr: "sum by (alert) (increase(weir_alerts_total{outcome!=\"sent\"}[15m])) > 0",
        hold: "15m",
        severity: "warning",
        summary: "an alert of Weir reaches nobody",
        description: "Messages of [alert.{{ $labels.alert }}] are not taken.",
    },
];

/// The rules as a file that Prometheus loads.
pub fn rules() -> String {
    let mut out = "# Alert rules for the metrics of `weir serve`. Written by `weir serve rules`; thresholds are a start, not a truth.\n\
                   groups:\n  - name: weir\n    rules:\n"
        .to_owned();
    for Rule { name, expr, hold, severity, summary, description } in RULES {
        // Every text stands between single quotes, in which YAML reads nothing but two of them.
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        out.push_str(&format!(
            "      - alert: {name}\n        expr: {}\n        for: {hold}\n        labels:\n          severity: {severity}\n        \
             annotations:\n          summary: {}\n          description: {}\n",
            quoted(expr),
            quoted(summary),
            quoted(description),
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::{control::Gauges, examples, metrics::Metrics};

    #[test]
    fn rules_are_over_metrics_that_there_are() {
        let metrics = Metrics::new(None).expect("metrics");
        metrics.take(&examples::started("orders", 1));
        metrics.take(&examples::published("orders", 1, 0));
        metrics.take(&examples::broken("orders"));
        metrics.alerted("ops", "sent");
        metrics.show(Some(Gauges { waiting: vec![("orders".into(), 1)], lag: vec![("orders".into(), 1.0)], ..Gauges::default() }));
        let text = metrics.text().expect("text");
        let mut seen = 0;
        for rule in RULES {
            for word in rule.expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("weir_")) {
                assert!(text.lines().any(|line| line.starts_with(word)), "{}: there is no {word} in\n{text}", rule.name);
                seen += 1;
            }
        }
        assert!(seen >= RULES.len(), "{seen}");
    }
}
