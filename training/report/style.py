"""The style sheet of the page: light and dark, on a screen and on paper."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --card: #f5f7f9; --ink: #17212b; --faint: #5a6875; --rule: #d9dfe5;
  --accent: #0b6fb8; --soft: #cfe4f5; --mark: #b8560b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #11161b; --card: #1a2129; --ink: #e6ebf0; --faint: #9aa8b5; --rule: #303a44;
    --accent: #6cb6f5; --soft: #1f4463; --mark: #f0a35c;
  }
}
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1240px;
  padding: 1.5rem 1.25rem 4rem; background: var(--paper); color: var(--ink) }
h1 { font-size: 2rem; line-height: 1.2; margin: .5rem 0 .25rem }
h2 { font-size: 1.35rem; margin: 3rem 0 .5rem; scroll-margin-top: 1rem }
h3 { font-size: 1rem; margin: 0 0 .25rem }
p { max-width: 46rem }
small, .faint { color: var(--faint) }
a { color: var(--accent) }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: .75rem 0 1.5rem }
pre { background: var(--card); padding: .75rem 1rem; border-radius: 8px; white-space: pre-wrap;
  overflow-wrap: anywhere; font-size: .85rem }
figure { margin: 0 }

.headline { display: grid; grid-template-columns: minmax(300px, 5fr) 6fr; gap: 1rem }
.headline > * { background: var(--card); border-radius: 12px; padding: 1.25rem 1.5rem; margin: 0 }
.headline h2 { margin: 0; font-size: 1rem; color: var(--faint); font-weight: 600 }
.headline p { margin: .4rem 0 0; font-size: .9rem }
.headline strong { font-size: 3.6rem; line-height: 1; color: var(--accent); letter-spacing: -.02em }
.headline strong + span { font-size: 1.1rem; color: var(--faint); white-space: nowrap }
.headline dl { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; align-content: center }
.headline dt { font-size: .85rem; color: var(--faint) }
.headline dd { margin: 0; font-size: 1.7rem; line-height: 1.2; font-weight: 600 }
.headline dd small { display: block; font-size: .8rem; font-weight: 400 }
.headline, .numbers, .scores { font-variant-numeric: tabular-nums }

.wide { overflow-x: auto } .numbers td:first-child { white-space: nowrap }
table { border-collapse: collapse; font-size: .9rem }
th, td { padding: .3rem 1.1rem .3rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--rule) }
thead th { color: var(--faint); font-weight: 600; white-space: nowrap }
tbody th { padding-top: 1.1rem }
.scores { width: 100% } .scores td:nth-child(-n+3) { white-space: nowrap }
.scores td:last-child { color: var(--faint); min-width: 18rem }
.scores .is-main td:nth-child(-n+3) { color: var(--accent); font-weight: 700 }
.scores td span { color: var(--faint); font-weight: 400; cursor: help }
.interval { width: 120px; height: 12px; margin-top: .35rem; overflow: visible; fill: var(--accent) }
.interval .track { fill: var(--rule) } .interval rect + rect { opacity: .45 }

.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(330px, 1fr)); gap: 1.5rem }
.chart { width: 100%; max-width: 440px; height: auto; display: block; font-size: 12px;
  fill: var(--faint) }
.chart .name { font-size: 12px }
.grid { stroke: var(--rule); fill: none }
.line { stroke: var(--accent); stroke-width: 2; fill: none; stroke-linejoin: round }
.dot { fill: var(--accent); stroke: var(--paper); stroke-width: 1 }
.mark { stroke: var(--mark); stroke-width: 1.5; stroke-dasharray: 4 3; fill: none }
.marked { fill: var(--mark); font-weight: 600 }
.diagonal { stroke: var(--faint); stroke-dasharray: 2 4; fill: none }
.gap { stroke: var(--mark); stroke-width: 2; fill: none; opacity: .7 } .bar { fill: var(--accent) }
.beside { display: flex; flex-wrap: wrap; gap: 2rem; align-items: flex-start }
.beside figure { flex: 0 1 380px } .beside details { flex: 1 1 420px; margin: 0; min-width: 0 }
.tall { max-height: 300px; overflow-y: auto }

.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; max-width: none; font-size: .9rem }
.legend i { display: inline-block; width: .8em; height: .8em; border-radius: 3px;
  margin-right: .4em; print-color-adjust: exact; -webkit-print-color-adjust: exact }
.example { margin: 1.5rem 0 2.25rem; break-inside: avoid }
.example figcaption { margin-bottom: .5rem; overflow-wrap: anywhere }
.example figcaption span { margin-right: .8rem; white-space: nowrap; color: var(--faint) }
.example figcaption b { color: var(--ink); font-variant-numeric: tabular-nums }
.example .pill { background: var(--soft); border-radius: 99px; padding: .1rem .6rem;
  font-size: .8rem; margin: 0 .8rem 0 .4rem; color: var(--ink) }
.example label { float: right; font-size: .8rem; color: var(--faint) }
.example:has(:checked) .panels { grid-template-columns: 1fr 1fr }
.panels { display: grid; grid-template-columns: repeat(4, 1fr); gap: .6rem }
.panel svg { display: block; width: 100%; height: auto; border-radius: 6px; background: #000 }
.panel image { image-rendering: pixelated }
.panel span { font-size: .8rem; color: var(--faint) }
.panel use { opacity: .75 } .panel.errors use { opacity: .5 }
.panel:hover .layer { opacity: 0 } .panel:hover use { opacity: 1 }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.5rem;
  font-size: .9rem } .facts dt { color: var(--faint) }
.facts dd { margin: 0; overflow-wrap: anywhere }
details { margin: 1rem 0 } summary { cursor: pointer; color: var(--accent) }

@media (max-width: 760px) {
  .headline { grid-template-columns: 1fr }
  .panels { grid-template-columns: 1fr 1fr }
}
@media print {
  :root { color-scheme: light }
  body { max-width: none; padding: 0; font-size: 11pt } nav, .example label { display: none }
  h2 { break-after: avoid } tr { break-inside: avoid } .tall { max-height: none }
}
"""
