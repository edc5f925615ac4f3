// One dashboard, drawn by Grafana's own front-end libraries from what Prometheus answered to its queries.
// Owns the grid, the transformations and the moment at which everything is there.
import {
  type DataFrame,
  ThemeContext,
  standardTransformers,
  standardTransformersRegistry,
  transformDataFrame,
} from '@grafana/data';
import '@fontsource/inter/400.css';
import '@fontsource/inter/500.css';
import { GlobalStyles, PanelChrome } from '@grafana/ui';
import { useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { BODIES } from './bodies';
import { type Panel, configured, frames, shown, theme } from './frames';

const ROW = 38; // pixels from one line of the grid to the next, of which 8 stay empty

const every = Object.values(standardTransformers).filter((one: any) => one?.id && one?.operator) as any[];
const transformers = [...new Map(every.map((one) => [one.id, one])).values()]; // some have two names
standardTransformersRegistry.setInit(() =>
  transformers.map((one) => ({
    id: one.id,
    name: one.name,
    transformation: async () => one,
    editor: () => null,
    imageDark: '',
    imageLight: '',
  })),
);

function Placed({ panel }: { panel: Panel }) {
  const [data, put] = useState<DataFrame[] | null>(null);
  useEffect(() => {
    if (panel.type === 'row') {
      return;
    }
    const found = frames(shown.results[panel.id] ?? []);
    const subscription = transformDataFrame(panel.transformations ?? [], found).subscribe((done) =>
      put(configured(panel, done)),
    );
    return () => subscription.unsubscribe();
  }, [panel]);
  const { x, y, w, h } = panel.gridPos;
  const cell = (shown.width - 16) / 24;
  const box = {
    position: 'absolute' as const,
    left: 16 + x * cell,
    top: 56 + y * ROW,
    width: w * cell - 8,
    height: h * ROW - 8,
  };
  if (panel.type === 'row') {
    return <div style={{ ...box, ...theme.typography.h5, paddingTop: 6 }}>{panel.title}</div>;
  }
  const Show = BODIES[panel.type];
  return (
    <div style={box}>
      <PanelChrome title={panel.title} width={box.width} height={box.height}>
        {(width: number, height: number) =>
          data ? <Show panel={panel} data={data} width={width} height={height} /> : null
        }
      </PanelChrome>
    </div>
  );
}

function Board() {
  const lowest = Math.max(...shown.board.panels.map((panel) => panel.gridPos.y + panel.gridPos.h));
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <div
        style={{
          position: 'relative',
          width: shown.width,
          height: 64 + lowest * ROW,
          background: theme.colors.background.canvas,
          color: theme.colors.text.primary,
        }}
      >
        <div style={{ ...theme.typography.h3, position: 'absolute', left: 16, top: 16 }}>{shown.board.title}</div>
        {shown.board.panels.map((panel) => (
          <Placed key={panel.id} panel={panel} />
        ))}
      </div>
    </ThemeContext.Provider>
  );
}

// Sizes are measured from the letters: with the font there before the first of them.
Promise.all(['400', '500'].map((weight) => document.fonts.load(`${weight} 14px Inter`))).then(() =>
  createRoot(document.getElementById('root')!).render(<Board />),
);
