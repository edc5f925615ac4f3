// The inside of a panel, by its kind.
// Numbers, lines and tables are Grafana's own components. Its state timeline and XY chart are in no package: the first is
// drawn here in its colours, the second with its plot library. Does not know where a panel stands.
import {
  type DataFrame,
  type Field,
  FieldType,
  dateTime,
  formattedValueToString,
  getFieldDisplayName,
} from '@grafana/data';
import {
  AxisPlacement,
  GraphDrawStyle,
  ScaleDirection,
  ScaleDistribution,
  ScaleOrientation,
  VisibilityMode,
} from '@grafana/schema';
import {
  BigValue,
  BigValueColorMode,
  BigValueGraphMode,
  BigValueTextMode,
  TimeSeries,
  UPlotChart,
  UPlotConfigBuilder,
  VizLegend,
} from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';
import { type Panel, shown, theme } from './frames';

const range = {
  from: dateTime(shown.from),
  to: dateTime(shown.to),
  raw: { from: dateTime(shown.from), to: dateTime(shown.to) },
};

function Stat({ panel, data, width, height }: Body) {
  const field = data.flatMap((frame) => frame.fields.filter((one) => one.type === FieldType.number))[0];
  const last = field?.values.at(-1);
  const value = field
    ? field.display!(last)
    : { numeric: 0, text: panel.fieldConfig.defaults.noValue ?? '', color: theme.colors.text.primary };
  const text = panel.options.textMode === 'name' && field ? getFieldDisplayName(field, data[0], data) : undefined;
  return (
    <BigValue
      theme={theme}
      width={width}
      height={height}
      value={text ? { ...value, text, title: '', suffix: '', prefix: '' } : { ...value, title: '' }}
      colorMode={BigValueColorMode.None}
      graphMode={BigValueGraphMode.None}
      textMode={BigValueTextMode.Value}
    />
  );
}

function Lines({ panel, data, width, height }: Body) {
  if (!data.length) {
    return <Nothing />;
  }
  return (
    <TimeSeries
      frames={data}
      width={width}
      height={height}
      timeRange={range}
      timeZone="utc"
      legend={panel.options.legend}
      options={{}}
    />
  );
}

/** Grafana's state timeline is not in a package: its states as bars, in the colours of its palette. */
function States({ data, width, height }: Body) {
  const states = [
    ...new Set(data.map((frame) => getFieldDisplayName(frame.fields[1], frame, data).split(': ')[1])),
  ].sort();
  const lines = [
    ...new Set(data.map((frame) => getFieldDisplayName(frame.fields[1], frame, data).split(': ')[0])),
  ].sort();
  const colour = (state: string) =>
    theme.visualization.getColorByName(
      theme.visualization.palette[states.indexOf(state) % theme.visualization.palette.length],
    );
  const left = 70,
    tall = (height - 34) / Math.max(1, lines.length);
  const across = (at: number) => left + ((at - shown.from) / (shown.to - shown.from)) * (width - left);
  return (
    <div style={{ position: 'relative', width, height, fontSize: theme.typography.bodySmall.fontSize }}>
      {lines.map((line, at) => (
        <div
          key={line}
          style={{ position: 'absolute', top: at * tall + tall / 2 - 9, width: left - 6, textAlign: 'right' }}
        >
          {line}
        </div>
      ))}
      {data.flatMap((frame, n) => {
        const [line, state] = getFieldDisplayName(frame.fields[1], frame, data).split(': ');
        return runsOf(frame.fields[0].values).map(([from, to]) => (
          <div
            key={`${n}-${from}`}
            style={{
              position: 'absolute',
              left: across(from),
              width: Math.max(2, across(to) - across(from)),
              top: lines.indexOf(line) * tall + 2,
              height: tall - 4,
              background: colour(state),
              opacity: 0.8,
            }}
          />
        ));
      })}
      <div style={{ position: 'absolute', bottom: 0, width }}>
        <VizLegend
          placement="bottom"
          displayMode={'list' as any}
          items={states.map((state) => ({ label: state, color: colour(state), yAxis: 1 }))}
        />
      </div>
    </div>
  );
}

/** Times that follow each other within two seconds, as spans. */
function runsOf(times: number[]): Array<[number, number]> {
  const spans: Array<[number, number]> = [];
  for (const at of times) {
    const last = spans.at(-1);
    last && at - last[1] <= 2000 ? (last[1] = at) : spans.push([at, at]);
  }
  return spans;
}

/** Grafana's XY chart is not in a package either: its plot library and configuration are. */
function Across({ panel, data, width, height }: Body) {
  const fields = data[0]?.fields ?? [];
  const by = (name: string) => fields.find((field) => getFieldDisplayName(field, data[0], data) === name);
  const x = by(panel.options.series[0].x.matcher.options);
  const ys = panel.options.series.map((one: any) => by(one.y.matcher.options)).filter(Boolean) as Field[];
  if (!x || !ys.length) {
    return <Nothing />;
  }
  const order = x.values
    .map((_, at) => at)
    .filter((at) => x.values[at] != null)
    .sort((a, b) => x.values[a] - x.values[b]);
  const plot = {
    fields: [x, ...ys].map((field) => ({ ...field, values: order.map((at) => field.values[at] ?? null) })),
    length: order.length,
  };
  const builder = new UPlotConfigBuilder('utc');
  builder.setPadding([8, 24, 0, 0]);
  const log = x.config.custom?.scaleDistribution?.type === 'log';
  builder.addScale({
    scaleKey: 'x',
    orientation: ScaleOrientation.Horizontal,
    direction: ScaleDirection.Right,
    isTime: false,
    ...(log ? { distribution: ScaleDistribution.Log, log: 10 } : {}),
  });
  builder.addAxis({
    scaleKey: 'x',
    placement: AxisPlacement.Bottom,
    isTime: false,
    theme,
    label: getFieldDisplayName(x, data[0], data),
    formatValue: (value: any) => (value == null ? '' : Number(value).toExponential(0)),
  });
  builder.addScale({ scaleKey: 'y', orientation: ScaleOrientation.Vertical, direction: ScaleDirection.Up });
  builder.addAxis({
    scaleKey: 'y',
    placement: AxisPlacement.Left,
    theme,
    formatValue: (value: any) => (value == null ? '' : formattedValueToString(ys[0].display!(value))),
  });
  const colour = (at: number) => theme.visualization.getColorByName(theme.visualization.palette[at]);
  ys.forEach((field, at) => {
    const line = field.config.custom?.show === 'lines';
    builder.addSeries({
      scaleKey: 'y',
      theme,
      drawStyle: line ? GraphDrawStyle.Line : GraphDrawStyle.Points,
      lineColor: colour(at),
      pointColor: colour(at),
      lineWidth: 1,
      pointSize: 8,
      showPoints: line ? VisibilityMode.Never : VisibilityMode.Always,
      spanNulls: true,
    } as any);
  });
  return (
    <div>
      <UPlotChart
        data={plot.fields.map((field) => field.values) as any}
        config={builder}
        width={width}
        height={height - 34}
      />
      <VizLegend
        placement="bottom"
        displayMode={'list' as any}
        items={ys.map((field, at) => ({
          label: getFieldDisplayName(field, data[0], data),
          color: colour(at),
          yAxis: 1,
        }))}
      />
    </div>
  );
}

function Rows({ panel, data, width, height }: Body) {
  if (!data[0]?.length) {
    return <Nothing />;
  }
  return (
    <TableNG
      data={data[0]}
      width={width}
      height={height}
      cellHeight={panel.options.cellHeight}
      fieldConfig={panel.fieldConfig}
      enableVirtualization={false}
    />
  );
}

function Nothing() {
  return <div style={{ textAlign: 'center', paddingTop: 30, color: theme.colors.text.secondary }}>No data</div>;
}

type Body = { panel: Panel; data: DataFrame[]; width: number; height: number };
export const BODIES: Record<string, (body: Body) => React.ReactNode> = {
  stat: Stat,
  timeseries: Lines,
  'state-timeline': States,
  xychart: Across,
  table: Rows,
};
