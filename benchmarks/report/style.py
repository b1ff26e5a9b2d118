"""The looks of the page; one sheet for light and dark, phone and desk."""

SHEET = """
:root { --ink: #1c2430; --faint: #5c6773; --paper: #fbfaf7; --card: #ffffff; --line: #e3dfd6; --mark: #0f6b3f; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e6e1; --faint: #a3abb5; --paper: #15181d; --card: #1d2127; --line: #343a43; --mark: #6fd3a0; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 16px; }
h1 { font-size: 1.5rem; margin: .4em 0; } h2 { font-size: 1.2rem; margin: 2em 0 .4em; }
h3 { font-size: 1rem; margin: 1.4em 0 .4em; }
p, li { overflow-wrap: anywhere; } .faint { color: var(--faint); font-size: .86rem; }
.note { border-left: 4px solid #b8860b; padding: .3em .8em; background: var(--card); }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; background: var(--card); }
table { border-collapse: collapse; width: 100%; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 10px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 11em; }
thead th { color: var(--faint); font-weight: 600; } tr:last-child td { border-bottom: 0; }
td small { display: block; color: var(--faint); } .clear { color: var(--mark); font-weight: 700; }
.clear.worse, td small.below { color: #c8553d; }
.cards { display: grid; gap: 14px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); }
figure { margin: 0; padding: 10px; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
figure img, figure svg { width: 100%; height: auto; display: block; border-radius: 4px; }
figcaption { font-size: .86rem; margin-bottom: 6px; } .pair { display: grid; gap: 8px; grid-template-columns: 1fr 1fr; }
.pair p, .single p { margin: .3em 0 0; font-size: .8rem; }
svg text { font-size: 11px; fill: var(--faint); } svg .grid { stroke: var(--line); }
.legend span { margin-right: 1em; font-size: .8rem; white-space: nowrap; }
.legend i { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .35em; }
.right { color: var(--mark); } .wrong { color: #c8553d; }
"""
