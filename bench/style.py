"""How the report looks. No fonts, scripts or pictures from elsewhere."""

STYLE = """
:root{--paper:#fff;--ink:#1c2430;--faint:#667085;--rule:#e4e7ec;--wash:#f8f9fb;
--direct:#9aa5b5;--us:#1f6feb;--pgbouncer:#d9822b;--other:#7a5af8;--good:#157f3c;--bad:#c0362c}
@media(prefers-color-scheme:dark){:root{--paper:#12161c;--ink:#e6e9ee;--faint:#98a2b3;--rule:#2b323d;--wash:#191f27;
--direct:#7c8797;--us:#5b9cff;--pgbouncer:#f0a14e;--other:#a48afb;--good:#4cc38a;--bad:#ff7b72}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:860px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:26px;margin:0}h2{font-size:18px;margin:40px 0 8px;padding-top:8px;border-top:1px solid var(--rule)}
p{margin:6px 0 14px;max-width:76ch}.sub,small,.tick{color:var(--faint)}.sub{font-size:13px}
.legend{position:sticky;top:0;background:var(--paper);padding:8px 0;margin:8px 0;z-index:1}
.key{margin-right:18px;font-size:13px}.key i{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:6px}
i.direct{background:var(--direct)}i.us{background:var(--us)}i.pgbouncer{background:var(--pgbouncer)}i.other{background:var(--other)}
figure{margin:18px 0;padding:12px 14px;background:var(--wash);border:1px solid var(--rule);border-radius:8px}
figcaption{font-weight:600;font-size:14px;margin-bottom:4px}
svg{width:100%;height:auto;display:block;font:12px system-ui,-apple-system,"Segoe UI",sans-serif}
svg text{fill:var(--ink)}svg .tick{fill:var(--faint);font-size:11px}svg .value{font-variant-numeric:tabular-nums}
rect.direct{fill:var(--direct)}rect.us{fill:var(--us)}rect.pgbouncer{fill:var(--pgbouncer)}rect.other{fill:var(--other)}
.dot{fill:var(--ink);fill-opacity:.55}.grid{stroke:var(--rule)}.mark{stroke:var(--ink);stroke-dasharray:3 2}
.curve{fill:none;stroke-width:2}
.curve.direct{stroke:var(--direct)}.curve.us{stroke:var(--us)}.curve.pgbouncer{stroke:var(--pgbouncer)}.curve.other{stroke:var(--other)}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:13px;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:5px 10px 5px 0;border-bottom:1px solid var(--rule);vertical-align:top}th{color:var(--faint);font-weight:500}
.n{text-align:right;white-space:nowrap}b.met{color:var(--good)}b.missed{color:var(--bad)}
details{margin:10px 0}summary{cursor:pointer;color:var(--faint)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 18px;font-size:13px}dt{color:var(--faint)}dd{margin:0;overflow-wrap:anywhere}
"""
