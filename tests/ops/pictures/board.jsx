// A board drawn with Grafana's own widgets: its panels where the board has them, with what `draw.py` has asked Prometheus.
// Heat maps, timelines and tables are plugins of Grafana and no widgets: they are drawn by hand.

import React from 'react';
import { createRoot } from 'react-dom/client';
import { FieldColorModeId, FieldType, createTheme, dateTime, getDisplayProcessor, toDataFrame } from '@grafana/data';
import { BigValue, BigValueColorMode, BigValueGraphMode, GlobalStyles, PanelChrome, TimeSeries } from '@grafana/ui';
import 'uplot/dist/uPlot.min.css';

const { board, data, from, to, width } = window.shown;
const theme = createTheme({ colors: { mode: 'dark' } });
const ROW = 38, GAP = 8, COLUMN = width / 24;
const timeRange = { from: dateTime(from), to: dateTime(to), raw: { from: 'now-5m', to: 'now' } };
const palette = theme.visualization.palette.map((name) => theme.visualization.getColorByName(name));

function frame(panel, series, index) {
  const custom = { drawStyle: 'line', lineWidth: 1, fillOpacity: 8, showPoints: 'never', spanNulls: 15000, ...panel.fieldConfig.defaults.custom };
  const color = { mode: FieldColorModeId.Fixed, fixedColor: palette[index % palette.length] };
  const config = { ...panel.fieldConfig.defaults, color, custom, displayName: series.name };
  for (const { matcher, properties } of panel.fieldConfig.overrides) {
    const fits = matcher.id === 'byName' ? matcher.options === series.name : new RegExp(matcher.options.replace(/^\/|\/$/g, '')).test(series.name);
    for (const { id, value } of fits ? properties : []) id.startsWith('custom.') ? (custom[id.slice(7)] = value) : (config[id] = value);
  }
  const made = toDataFrame({
    fields: [
      { name: 'time', type: FieldType.time, values: series.times, config: {} },
      { name: series.name, type: FieldType.number, values: series.values, config, state: { displayName: series.name, seriesIndex: index, range: span(series.values) } },
    ],
  });
  made.fields.forEach((field) => { field.display = getDisplayProcessor({ field, theme, timeZone: 'utc' }); });
  return made;
}
function span(values) {
  const known = values.filter((value) => value !== null);
  const min = Math.min(...known), max = Math.max(...known);
  return { min, max, delta: max - min };
}

function Curves({ panel, size }) {
  const frames = data[panel.id].map((series, index) => frame(panel, series, index));
  const legend = { displayMode: 'list', placement: 'bottom', showLegend: true, calcs: [] };
  return <TimeSeries frames={frames} timeRange={timeRange} timeZone="utc" width={size.width} height={size.height} legend={legend} />;
}

// Buckets come as Prometheus has them, each with those below it.
function Heat({ panel, size }) {
  const bound = ({ name }) => (name === '+Inf' ? Infinity : Number(name));
  const rows = [...data[panel.id]].sort((a, b) => bound(a) - bound(b));
  const counts = rows.map((row, i) => row.values.map((value, j) => Math.max(0, (value ?? 0) - (rows[i - 1]?.values[j] ?? 0))));
  const most = Math.max(...counts.flat(), 1e-9), low = 58, wide = (size.width - low) / counts[0].length, tall = size.height / rows.length;
  return <svg width={size.width} height={size.height} style={{ font: '11px sans-serif', fill: theme.colors.text.secondary }}>{rows.map((row, i) => {
    const y = size.height - (i + 1) * tall;
    return <g key={row.name}>
      {i % 2 === 0 && <text x={low - 6} y={y + tall - 2} textAnchor="end">{`≤ ${row.name}`}</text>}
      {counts[i].map((count, j) => count > 0 && <rect key={j} x={low + j * wide} y={y} width={wide + 0.5} height={tall - 1} fill={palette[1]} opacity={0.15 + 0.85 * Math.sqrt(count / most)} />)}
    </g>;
  })}</svg>;
}

function Value({ panel, size }) {
  const [series] = data[panel.id];
  const drawn = frame(panel, series, 0).fields[1];
  drawn.config.color = { mode: FieldColorModeId.Thresholds };
  const processor = getDisplayProcessor({ field: drawn, theme, timeZone: 'utc' });
  const value = processor(series.values.filter((each) => each !== null).at(-1) ?? null);
  return <BigValue theme={theme} value={value} width={size.width} height={size.height} colorMode={BigValueColorMode.Value} graphMode={BigValueGraphMode.None} />;
}

function Bands({ panel, size }) {
  const mapped = panel.fieldConfig.defaults.mappings?.[0]?.options ?? {};
  const all = data[panel.id], height = Math.min(34, size.height / Math.max(1, all.length) - 8);
  return <div style={{ padding: 8 }}>{all.map((series) => {
    const last = series.values.at(-1), said = mapped[String(last)] ?? {};
    return <div key={series.name} style={{ display: 'flex', alignItems: 'center', gap: 8, marginBottom: 6 }}>
      <span style={{ width: 110, overflow: 'hidden' }}>{series.name}</span>
      <span style={{ flex: 1, height, display: 'flex' }}>{series.values.map((value, i) => (
        <i key={i} style={{ flex: 1, background: theme.visualization.getColorByName(mapped[String(value)]?.color ?? 'green') }} />))}</span>
      <span style={{ width: 70 }}>{said.text ?? ''}</span>
    </div>;
  })}</div>;
}

function List({ panel, size }) {
  const rows = {}, columns = [];
  const named = Object.assign({}, ...(panel.transformations ?? []).map(({ options }) => options.renameByName ?? {}));
  for (const series of data[panel.id]) {
    const who = Object.entries(series.labels).filter(([name]) => !['namespace', 'job', 'instance', 'pod', '__name__'].includes(name)).map(([, value]) => value).join(' · ');
    const column = named[`Value #${series.query}`] ?? series.query;
    columns.includes(column) || columns.push(column);
    (rows[who] ??= {})[column] = series.values.at(-1);
  }
  const shown = new Intl.NumberFormat('en', { maximumFractionDigits: 2 });
  return <div style={{ height: size.height, overflow: 'hidden' }}><table style={{ width: '100%', fontVariantNumeric: 'tabular-nums' }}>
    <thead><tr><th></th>{columns.map((name) => <th key={name} style={{ textAlign: 'right', padding: 6 }}>{name}</th>)}</tr></thead>
    <tbody>{Object.entries(rows).map(([who, cells]) => <tr key={who} style={{ borderTop: `1px solid ${theme.colors.border.weak}` }}>
      <td style={{ padding: 6 }}>{who}</td>{columns.map((name) => <td key={name} style={{ textAlign: 'right', padding: 6 }}>{cells[name] === undefined ? '' : shown.format(cells[name])}</td>)}
    </tr>)}</tbody></table></div>;
}

const DRAWN = { timeseries: Curves, heatmap: Heat, stat: Value, 'state-timeline': Bands, table: List };

function Panel({ panel }) {
  const { x, y, w, h } = panel.gridPos;
  const size = { width: w * COLUMN - GAP, height: h * ROW - GAP };
  const place = { position: 'absolute', left: x * COLUMN, top: y * ROW, width: size.width, height: size.height };
  if (panel.type === 'row') return <h3 style={{ ...place, margin: 0, padding: '8px 4px', fontSize: 16, fontWeight: 500 }}>{panel.title.replace(/\$(\w+)/g, 'each $1')}</h3>;
  const Drawn = DRAWN[panel.type];
  return <div style={place}>
    <PanelChrome title={panel.title} description={panel.description} width={size.width} height={size.height}>
      {(width, height) => data[panel.id]?.length ? <Drawn panel={panel} size={{ width, height }} /> : <div style={{ padding: 16, opacity: 0.5 }}>No data</div>}
    </PanelChrome>
  </div>;
}

const tall = Math.max(...board.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
createRoot(document.body.appendChild(document.createElement('div'))).render(
  <>
    <GlobalStyles />
    <style>{`body { margin: 0; background: ${theme.colors.background.canvas}; color: ${theme.colors.text.primary}; font: 14px Inter, Helvetica, Arial, sans-serif }`}</style>
    <h2 style={{ margin: 0, padding: '14px 16px 6px', fontSize: 20, fontWeight: 500 }}>{board.title}</h2>
    <div id="board" style={{ position: 'relative', margin: GAP, width, height: tall * ROW }}>{board.panels.map((panel) => <Panel key={panel.id} panel={panel} />)}</div>
  </>,
);
