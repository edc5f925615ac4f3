// What Prometheus answered, as the data frames that Grafana's components draw.
// Owns what @grafana/prometheus and the server's own front end do with an answer: names, columns, fields' configuration.
// Reads window.SHOWN, which benchmarks/dashboards.py writes; asks nothing of anybody.
import {
  type DataFrame,
  type Field,
  FieldType,
  type GrafanaTheme2,
  applyFieldOverrides,
  cacheFieldDisplayNames,
  createTheme,
  getDisplayProcessor,
  getFieldDisplayName,
  toDataFrame,
} from '@grafana/data';

type Series = { metric: Record<string, string>; value?: [number, string]; values?: Array<[number, string]> };
type Answer = { refId: string; legend: string; format: string; series: Series[] };
export type Panel = Record<string, any>;
type Shown = {
  dark: boolean;
  width: number;
  from: number;
  to: number;
  board: { title: string; panels: Panel[] };
  results: Record<string, Answer[]>;
};

export const shown: Shown = (window as any).SHOWN;
export const theme: GrafanaTheme2 = createTheme({ colors: { mode: shown.dark ? 'dark' : 'light' } });

function named(legend: string, labels: Record<string, string>): string {
  return legend.replace(/\{\{(\w+)\}\}/g, (_, label) => labels[label] ?? '');
}

function valuesOf(one: Series): Array<[number, string]> {
  return one.values ?? (one.value ? [one.value] : []);
}

/** As Grafana hands it on: what is no number is nothing. */
function numeric(text: string): number | null {
  return text === 'NaN' ? null : Number(text.replace('Inf', 'Infinity'));
}

/** Answers as frames, as Grafana's data source makes them. */
export function frames(answers: Answer[]): DataFrame[] {
  return answers.flatMap((answer) => {
    if (answer.format === 'table') {
      const labels = [...new Set(answer.series.flatMap((one) => Object.keys(one.metric)))].sort();
      const columns: Array<Partial<Field>> = [
        { name: 'Time', type: FieldType.time, values: answer.series.map(() => shown.to) },
        ...labels.map((label) => ({
          name: label,
          type: FieldType.string,
          values: answer.series.map((one) => one.metric[label]),
        })),
        {
          name: answers.length > 1 ? `Value #${answer.refId}` : 'Value',
          type: FieldType.number,
          values: answer.series.map((one) => numeric(one.value![1])),
        },
      ];
      return [toDataFrame({ refId: answer.refId, fields: columns.map((column) => ({ config: {}, ...column })) })];
    }
    return answer.series.map((one) =>
      toDataFrame({
        refId: answer.refId,
        fields: [
          { name: 'Time', type: FieldType.time, values: valuesOf(one).map(([at]) => at * 1000), config: {} },
          {
            name: 'Value',
            type: FieldType.number,
            values: valuesOf(one).map(([, value]) => numeric(value)),
            labels: one.metric,
            config: { displayNameFromDS: answer.legend === '__auto' ? undefined : named(answer.legend, one.metric) },
          },
        ],
      }),
    );
  });
}

/** A panel's field configuration upon its frames. The registry of its properties is the server's front end's. */
export function configured(panel: Panel, data: DataFrame[]): DataFrame[] {
  const done = applyFieldOverrides({
    data,
    fieldConfig: { defaults: {}, overrides: [] },
    replaceVariables: (text: string) => text,
    theme,
    timeZone: 'utc',
  });
  cacheFieldDisplayNames(done);
  for (const frame of done) {
    for (const field of frame.fields) {
      field.config = {
        color: { mode: 'palette-classic' },
        ...panel.fieldConfig.defaults,
        ...field.config,
        custom: { ...panel.fieldConfig.defaults.custom },
      };
      for (const rule of panel.fieldConfig.overrides) {
        if (rule.matcher.options === getFieldDisplayName(field, frame, done)) {
          for (const { id, value } of rule.properties) {
            id.startsWith('custom.') ? (field.config.custom[id.slice(7)] = value) : ((field.config as any)[id] = value);
          }
        }
      }
      field.display = getDisplayProcessor({ field, theme, timeZone: 'utc' });
    }
  }
  return done;
}
