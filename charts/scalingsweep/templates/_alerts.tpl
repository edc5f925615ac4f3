{{- /* Every alert. docs/runbooks.md has a section for each under its name; tests/chart/test_alerts.py has a case that
fires and one that stays silent. Only the leader serves sweeps' series, so that sums over replicas count once; `max by`
takes off what a scrape adds (instance, pod), so that an alert outlives a change of leader. */}}

{{- define "scalingsweep.alerts.sweeps" -}}
{{- $t := .Values.alerts.thresholds }}
{{- $d := .Values.alerts.durations }}
- alert: ScalingSweepForecastBroken
  expr: |-
    max by (namespace, sweep, reason) (scalingsweep_sweep_condition{condition="Consistent"} == 0) + 1
      unless on (namespace, sweep) max by (namespace, sweep) (scalingsweep_sweep_condition{condition="Finished"} offset {{ $d.forecastBroken }}) == 1
  labels: {severity: critical}
  annotations:
    summary: >-
      {{`The forecast of sweep {{ $labels.namespace }}/{{ $labels.sweep }} broke: {{ $labels.reason }}.`}}
    description: >-
      {{`A rung came out other than its forecast, diagnosis included. No larger rung is started. Look: scalingsweep get -n {{ $labels.namespace }} {{ $labels.sweep }}`}}
- alert: ScalingSweepAwaitingApproval
  expr: max by (namespace, sweep, rung, reason) (scalingsweep_sweep_awaiting_approval) == 1
  for: {{ $t.heldFor }}
  labels: {severity: warning}
  annotations:
    summary: >-
      {{`Sweep {{ $labels.namespace }}/{{ $labels.sweep }} waits for a person at rung {{ $labels.rung }}: {{ $labels.reason }}.`}}
    description: >-
      {{`Nothing new starts until somebody with the verb approve on scalingsweeps in {{ $labels.namespace }} decides: scalingsweep approve -n {{ $labels.namespace }} {{ $labels.sweep }}, or scalingsweep abort.`}}
- alert: ScalingSweepRungNotProgressing
  expr: time() - max by (namespace, sweep, rung) (scalingsweep_rung_progress_timestamp_seconds) > {{ $t.noProgressSeconds }}
  labels: {severity: warning}
  annotations:
    summary: >-
      {{`No run of rung {{ $labels.rung }} of {{ $labels.namespace }}/{{ $labels.sweep }} has reported for {{ $value | humanizeDuration }}.`}}
    description: >-
      Its trainers hold devices and say nothing; the operator stops a run that is silent for the sweep's limits.progressSeconds.
- alert: ScalingSweepRunsPending
  expr: |-
    time() - min by (namespace, sweep, rung) (scalingsweep_rung_waiting_since_timestamp_seconds) > {{ $t.pendingSeconds }}
      unless on (namespace, sweep, rung) sum by (namespace, sweep, rung) (scalingsweep_rung_runs{state="Running"}) > 0
  labels: {severity: warning}
  annotations:
    summary: >-
      {{`Rung {{ $labels.rung }} of {{ $labels.namespace }}/{{ $labels.sweep }} has waited for a place for {{ $value | humanizeDuration }}.`}}
    description: >-
      None of its runs is running and the oldest attempt has no place; look at the Job's events, quotas and queues.
- alert: ScalingSweepRunsRestarting
  expr: |-
    max by (namespace, sweep) (increase(scalingsweep_run_restarts_total[1h])) >= {{ $t.restarts }}
      and on (namespace, sweep) max by (namespace, sweep) (increase(scalingsweep_flops_total[1h])) == 0
  labels: {severity: warning}
  annotations:
    summary: >-
      {{`Runs of {{ $labels.namespace }}/{{ $labels.sweep }} restart and get nowhere.`}}
    description: >-
      {{`{{ $value | humanize }} restarts within an hour, and not one training step more. Their failures: scalingsweep get -n {{ $labels.namespace }} {{ $labels.sweep }} -o json`}}
- alert: ScalingSweepBudgetNearlySpent
  expr: |-
    max by (namespace, sweep, resource) (scalingsweep_budget_spent_ratio) > {{ $t.budgetShare }}
      unless on (namespace, sweep) max by (namespace, sweep) (scalingsweep_sweep_condition{condition="Finished"}) == 1
  labels: {severity: warning}
  annotations:
    summary: >-
      {{`{{ $value | humanizePercentage }} of the budget of {{ $labels.namespace }}/{{ $labels.sweep }} is spent ({{ $labels.resource }}).`}}
    description: >-
      Once the rest does not hold the next rung's upper cost, the sweep ends as OverBudget; spec.budget may be raised while it runs.
- alert: ScalingSweepTargetForecastMoved
  expr: |-
    max by (namespace, sweep) (scalingsweep_target_forecast_loss_nats)
      > min by (namespace, sweep) (min_over_time(scalingsweep_target_forecast_loss_high_nats[{{ $t.forecastWindow }}]))
    or
    max by (namespace, sweep) (scalingsweep_target_forecast_loss_nats)
      < max by (namespace, sweep) (max_over_time(scalingsweep_target_forecast_loss_low_nats[{{ $t.forecastWindow }}]))
  labels: {severity: warning}
  annotations:
    summary: >-
      {{`What the target of {{ $labels.namespace }}/{{ $labels.sweep }} is expected to reach lies outside of its own earlier interval.`}}
    description: >-
      {{`Now {{ $value | humanize }} nats per token; an interval of the last`}} {{ $t.forecastWindow }} {{`excludes that.`}}
- alert: ScalingSweepPreemptionStorm
  expr: max by (namespace, sweep) (increase(scalingsweep_run_preemptions_total[1h])) >= {{ $t.preemptions }}
  labels: {severity: warning}
  annotations:
    summary: >-
      {{`{{ $value | humanize }} attempts of {{ $labels.namespace }}/{{ $labels.sweep }} were preempted within an hour.`}}
    description: >-
      Each costs what was trained since its last checkpoint; raise the priority class, or lower limits.parallelism.
{{- end }}

{{- define "scalingsweep.alerts.operator" -}}
{{- /* By namespace too: releases of one name may live in two, and one that leads must not hide one that does not. A
watch's own `namespace` is the one that it watches. */}}
{{- $t := .Values.alerts.thresholds }}
{{- $d := .Values.alerts.durations }}
{{- $failed := `outcome=~"Error|Api.*|Unreachable|Unreadable"` }}
{{- $writes := `verb=~"create|update|patch|delete"` }}
{{- $scraped := list }}
{{- range $label := list "job" "namespace" }}
{{- with index $.Values.alerts $label }}
{{- $scraped = append $scraped (printf "%s=%q" $label .) }}
{{- end }}
{{- end }}
{{- $scraped = join "," $scraped }}
- alert: ScalingSweepOperatorDown
  expr: absent(scalingsweep_build_info{{ with $scraped }}{{ printf "{%s}" . }}{{ end }})
  for: {{ $t.downFor }}
  labels: {severity: critical}
  annotations:
    summary: >-
      No replica of the scalingsweep operator{{ with $scraped }} with {{ . }}{{ end }} is scraped.
    description: >-
      Runs in hand go on and report; nothing is judged, started or restarted.
- alert: ScalingSweepOperatorNotLeading
  expr: max by (namespace, job) (scalingsweep_leader) == 0
  for: {{ $t.downFor }}
  labels: {severity: critical}
  annotations:
    summary: >-
      {{`No replica of {{ $labels.job }} holds the Lease.`}}
    description: >-
      The replicas run and none may write; look at the Lease in the operator's namespace and at its logs.
- alert: ScalingSweepOperatorLagging
  expr: max by (namespace, job) (scalingsweep_queue_oldest_seconds) > {{ $t.queueSeconds }}
  for: {{ $d.operatorLagging }}
  labels: {severity: warning}
  annotations:
    summary: >-
      {{`The operator {{ $labels.job }} is {{ $value | humanizeDuration }} behind.`}}
    description: >-
      Something has been due for so long and no worker took it up.
- alert: ScalingSweepReconcileSlow
  expr: histogram_quantile(0.99, sum by (namespace, job, kind, le) (rate(scalingsweep_reconcile_duration_seconds_bucket[15m]))) > {{ $t.reconcileSeconds }}
  for: {{ $d.reconcileSlow }}
  labels: {severity: warning}
  annotations:
    summary: >-
      {{`One pass in a hundred over a {{ $labels.kind }} takes longer than {{ $value | humanizeDuration }}.`}}
    description: >-
      Passes read memory and write once or twice; the API server is slow, or a fit is large.
- alert: ScalingSweepReconcileFailing
  expr: |-
    sum by (namespace, job, kind) (rate(scalingsweep_reconciles_total{ {{- $failed -}} }[15m]))
      / sum by (namespace, job, kind) (rate(scalingsweep_reconciles_total[15m])) > {{ $t.errorShare }}
  for: {{ $d.reconcileFailing }}
  labels: {severity: warning}
  annotations:
    summary: >-
      {{`{{ $value | humanizePercentage }} of the passes over a {{ $labels.kind }} fail.`}}
    description: >-
      Each is tried again with growing pauses; the outcome label and the log say why.
- alert: ScalingSweepWritesFailing
  expr: |-
    sum by (namespace, job) (rate(scalingsweep_api_calls_total{ {{- $writes }},code!~"2..|404|409"}[15m]))
      / sum by (namespace, job) (rate(scalingsweep_api_calls_total{ {{- $writes -}} }[15m])) > {{ $t.errorShare }}
  for: {{ $d.writesFailing }}
  labels: {severity: critical}
  annotations:
    summary: >-
      {{`{{ $value | humanizePercentage }} of what {{ $labels.job }} writes is refused or lost.`}}
    description: >-
      Decisions are made and do not reach the cluster.
- alert: ScalingSweepRejected
  expr: sum by (namespace, job, verb, resource, code) (increase(scalingsweep_api_calls_total{code=~"401|403|error"}[10m])) > 0
  for: {{ $d.rejected }}
  labels: {severity: critical}
  annotations:
    summary: >-
      {{`The API server answers {{ $labels.code }} to {{ $labels.verb }} {{ $labels.resource }}.`}}
    description: >-
      401 is a token or certificate that is no longer taken, 403 a right that is missing, error a connection or certificate that fails.
- alert: ScalingSweepWatchStale
  expr: max by (job, resource) (scalingsweep_watch_stale_seconds) > {{ $t.watchSilentSeconds }}
  for: {{ $d.watchStale }}
  labels: {severity: warning}
  annotations:
    summary: >-
      {{`The operator's knowledge of {{ $labels.resource }} is {{ $value | humanizeDuration }} old.`}}
    description: >-
      Its watch hears nothing, not even bookmarks; what it decides may rest on what was.
- alert: ScalingSweepSeriesLate
  expr: max by (namespace, job) (scalingsweep_series_late_seconds) > {{ $t.seriesLateSeconds }}
  for: {{ $d.seriesLate }}
  labels: {severity: info}
  annotations:
    summary: >-
      {{`Some sweeps' series are {{ $value | humanizeDuration }} old.`}}
    description: >-
      More changes between two scrapes than a scrape computes; give the operator more CPU, or scrape more often.
{{- end }}
